"""HiP in Triton: the search, the lists it leads to, and a written token; `hip.kernel` launches it.

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


@triton.jit(do_not_specialize=["low", "num_blocks", "kept", "width"])
@no_type_check
def join_lists(
    CHOSEN, NEAR, END, OUT, COUNTS, low, num_blocks, kept, width,
    BLOCK_KEPT: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    """First, chosen and newest blocks behind each other, 0 behind them: one program a list."""
    program = tl.program_id(0)
    block = program % num_blocks
    near = tl.load(NEAR + block)
    end = tl.load(END + block)
    first = tl.minimum(near, low)
    group = tl.arange(0, BLOCK_KEPT)
    row = CHOSEN + program.to(tl.int64) * kept
    chosen = tl.load(row + group, mask=group < kept, other=-1)
    found = tl.sum((chosen >= 0).to(tl.int32))
    place = tl.arange(0, BLOCK_WIDTH)
    behind = place - first
    late = behind - found
    inside = (behind >= 0) & (late < 0)
    listed = tl.load(row + behind, mask=inside, other=0)
    listed = tl.where(behind < 0, place, listed)
    listed = tl.where(late >= 0, near + late, listed)
    total = first + found + end - near
    listed = tl.where(place < total, listed, 0)
    tl.store(OUT + program.to(tl.int64) * width + place, listed, mask=place < width)
    tl.store(COUNTS + program, total)


@triton.jit
@no_type_check
def _meet_tile(
    acc, total, largest, q, k_at, v_at, k_row, v_row, columns, inside, scale, softcap, d, dv,
    D: tl.constexpr, DV: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    at = columns.to(tl.int64)[:, None]
    k = tl.load(k_at + at * k_row + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
    s = tl.sum(k.to(tl.float32) * q[None, :], axis=1) * scale
    if SOFTCAP:
        e = tl.exp(-2.0 * tl.abs(s) / softcap)
        s = tl.where(s < 0, -softcap, softcap) * (1.0 - e) / (1.0 + e)
    s = tl.where(inside, s, float("-inf"))
    above = tl.maximum(largest, tl.max(s, axis=0))
    anchor = tl.where(above == float("-inf"), 0.0, above)
    p = tl.exp(s - anchor)
    shrink = tl.exp(largest - anchor)
    value = v_at + at * v_row + dv[None, :]
    v = tl.load(value, mask=inside[:, None] & (dv < DV)[None, :], other=0.0)
    acc = acc * shrink + tl.sum(p[:, None] * v.to(tl.float32), axis=0)
    return acc, total * shrink + tl.sum(p, axis=0), above


@triton.jit(do_not_specialize=["num_heads", "far", "near"])
@no_type_check
def meet_chosen(
    Q, FAR_K, FAR_V, SEEN, K, V, OUT, q_batch, q_head, fk_batch, fk_head, fk_row, fv_batch, fv_head,
    fv_row, seen_batch, seen_head, k_batch, k_head, k_row, v_batch, v_head, v_row, o_batch, o_head,
    num_heads, far, near, scale, softcap,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    TILE: tl.constexpr, FAR_GROUPS: tl.constexpr, GROUPS: tl.constexpr, MASKED: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """One softmax of one query over chosen keys (copies) and the newest ones (in the cache)."""
    batch = (tl.program_id(0) // num_heads).to(tl.int64)
    head = (tl.program_id(0) % num_heads).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    q = tl.load(Q + batch * q_batch + head * q_head + d, mask=d < D, other=0.0).to(tl.float32)
    acc = tl.zeros((BLOCK_DV,), dtype=tl.float32)
    total = 0.0
    largest = float("-inf")
    far_head = head // FAR_GROUPS
    fk_at = FAR_K + batch * fk_batch + far_head * fk_head
    fv_at = FAR_V + batch * fv_batch + far_head * fv_head
    for start in range(0, far, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < far
        if MASKED:
            at = SEEN + batch * seen_batch + far_head * seen_head + columns
            inside = inside & (tl.load(at, mask=inside, other=0) != 0)
        acc, total, largest = _meet_tile(
            acc, total, largest, q, fk_at, fv_at, fk_row, fv_row, columns, inside, scale, softcap,
            d, dv, D, DV, SOFTCAP,
        )  # fmt: skip
    k_at = K + batch * k_batch + (head // GROUPS) * k_head
    v_at = V + batch * v_batch + (head // GROUPS) * v_head
    for start in range(0, near, TILE):
        columns = start + tl.arange(0, TILE)
        acc, total, largest = _meet_tile(
            acc, total, largest, q, k_at, v_at, k_row, v_row, columns, columns < near, scale,
            softcap, d, dv, D, DV, SOFTCAP,
        )  # fmt: skip
    out = OUT + batch * o_batch + head * o_head + dv
    tl.store(out, (acc / total).to(OUT.dtype.element_ty), mask=dv < DV)
