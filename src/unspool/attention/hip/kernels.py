"""The tree search as one Triton program a block of queries; `hip.kernel` launches it.

What: all rounds of the search in one program: scores of the halves by matrix products, the best
half of them by a search for the threshold bit by bit, and their packing in order.
Source: Lee et al. (2024), "HiP Attention", section 3.1; the released kernels sort in registers.
Differs from them: no sort, since 32 counts give the threshold exactly; ties by position.
Cost: as `search`; scratch memory of 4 numbers a kept block and program. Shapes: as `search`.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _halves(START, SIZE, at, KEPT: tl.constexpr):
    """Start and size of halves `at`: two a group, left and right."""
    group = at // 2
    start = tl.load(START + group, mask=group < KEPT, other=0)
    size = tl.load(SIZE + group, mask=group < KEPT, other=0)
    left = size // 2
    right = at % 2
    return start + right * left, tl.where(right == 1, size - left, left)


@triton.jit(do_not_specialize=["start", "low", "first_program", "num_blocks", "num_heads"])
@no_type_check
def search_blocks(
    Q, K, FIRST, LAST, NEAR, OUT, STARTS, SIZES, SCORES,
    q_batch, q_head, q_row, k_batch, k_head, k_row, start, low, first_program, num_blocks,
    num_heads,
    D: tl.constexpr, BLOCK_D: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr,
    GROUPS_AT_ONCE: tl.constexpr, BLOCK_K: tl.constexpr, SAMPLES: tl.constexpr,
    STRIDE: tl.constexpr, TILE: tl.constexpr, STANDS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`STANDS`: 0 first, 1 centre, 2 last block of a half."""
    own = tl.program_id(0)
    program = first_program + own
    block = program % num_blocks
    across = program // num_blocks
    batch = (across // num_heads).to(tl.int64)
    head = across % num_heads
    first = tl.load(FIRST + block)
    last = tl.load(LAST + block)
    near = tl.load(NEAR + block)
    searched = tl.maximum(near - low, 0)
    START = STARTS + own.to(tl.int64) * KEPT
    SIZE = SIZES + own.to(tl.int64) * KEPT
    SCORE = SCORES + own.to(tl.int64) * 2 * KEPT

    d = tl.arange(0, BLOCK_D)
    rows = last - tl.arange(0, SAMPLES) * STRIDE
    rows = tl.where(rows >= first, rows, last) - start  # the last query again changes no maximum
    q_at = Q + batch * q_batch + head.to(tl.int64) * q_head
    q = tl.load(
        q_at + rows.to(tl.int64)[:, None] * q_row + d[None, :], mask=(d < D)[None, :], other=0.0
    )
    k_at = K + batch * k_batch + (head // GROUPS).to(tl.int64) * k_head

    group = tl.arange(0, GROUPS_AT_ONCE)
    here = group < KEPT
    # A name that a loop binds anew is carried by it, so no name stands for two shapes.
    origin = searched * group // KEPT
    tl.store(START + group, origin, mask=here)
    tl.store(SIZE + group, searched * (group + 1) // KEPT - origin, mask=here)
    tl.debug_barrier()

    columns = tl.arange(0, TILE * BLOCK_K)
    half = tl.arange(0, 2 * GROUPS_AT_ONCE)
    one = tl.arange(0, TILE)
    largest = tl.cdiv(searched, KEPT)
    while largest > 1:
        for tile in range(0, 2 * KEPT, TILE):
            stand, width = _halves(START, SIZE, tile + columns // BLOCK_K, KEPT)
            if STANDS == 1:
                stand = stand + width // 2
            if STANDS == 2:
                stand = stand + tl.maximum(width - 1, 0)
            row = (stand + low) * BLOCK_K + columns % BLOCK_K
            k = tl.load(
                k_at + row.to(tl.int64)[:, None] * k_row + d[None, :],
                mask=(width > 0)[:, None] & (d < D)[None, :],
                other=0.0,
            )
            products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            best = tl.max(products, axis=0)
            best = tl.max(tl.reshape(best, (TILE, BLOCK_K)), axis=1)
            tl.store(SCORE + tile + one, best, mask=tile + one < 2 * KEPT)
        tl.debug_barrier()
        begin, size = _halves(START, SIZE, half, KEPT)
        score = tl.load(SCORE + half, mask=half < 2 * KEPT, other=0.0) + 0.0
        bits = score.to(tl.int32, bitcast=True)
        # Unsigned numbers in the order of the scores; 0 is a half without blocks.
        key = tl.where(bits >= 0, bits ^ -2147483648, bits ^ -1).to(tl.uint32, bitcast=True)
        key = tl.where(size > 0, key, 0)
        one_bit = tl.full((1,), 1, dtype=tl.uint32)
        threshold = tl.zeros((1,), dtype=tl.uint32)
        for pair in range(0, 16):  # two bits a step: three thresholds counted in one sum
            low_bit = one_bit << (30 - 2 * pair)
            first_try = threshold | low_bit
            second_try = threshold | (low_bit << 1)
            third_try = first_try | second_try
            counts = (key >= first_try).to(tl.int64)
            counts += (key >= second_try).to(tl.int64) << 20
            counts += (key >= third_try).to(tl.int64) << 40
            counted = tl.sum(counts)
            threshold = tl.where((counted & 0xFFFFF) >= KEPT, first_try, threshold)
            threshold = tl.where(((counted >> 20) & 0xFFFFF) >= KEPT, second_try, threshold)
            threshold = tl.where((counted >> 40) >= KEPT, third_try, threshold)
        above = (key > threshold).to(tl.int32)
        level = ((key == threshold) & (size > 0)).to(tl.int32)
        wanted = KEPT - tl.sum(above)
        kept = (above == 1) | ((level == 1) & (tl.cumsum(level, 0) <= wanted))
        place = tl.cumsum(kept.to(tl.int32), 0) - 1
        total = tl.sum(kept.to(tl.int32))
        tl.debug_barrier()
        tl.store(START + place, begin, mask=kept)
        tl.store(SIZE + place, size, mask=kept)
        tl.store(SIZE + group, tl.zeros_like(group), mask=here & (group >= total))
        tl.debug_barrier()
        largest = (largest + 1) // 2

    chosen = tl.load(START + group, mask=here, other=0)
    used = tl.load(SIZE + group, mask=here, other=0) > 0
    place = tl.cumsum(used.to(tl.int32), 0) - 1
    total = tl.sum(used.to(tl.int32))
    out = OUT + program.to(tl.int64) * KEPT
    tl.store(out + group, tl.full((GROUPS_AT_ONCE,), -1, tl.int32), mask=here & (group >= total))
    tl.store(out + place, chosen + low, mask=used)
