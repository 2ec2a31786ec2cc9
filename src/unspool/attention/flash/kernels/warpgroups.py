"""What kernels in roles share: copies by one warp, products of two warp groups, and their waits.

What: names of two Triton releases under one, tiles of rings, masks at a ragged end, and which tile
a program takes next.
Source: FlashAttention-3 (Shah et al. 2024), sections 3.1 and 3.2; its warp roles.
Differs from the paper: written in Gluon, whose products and copies are the same instructions.
Cost: none of its own. Shapes: tiles are [rows, D]; queues of them [slots, 1, 1, rows, D].
"""

from typing import no_type_check

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

product = hopper.warpgroup_mma
wait_for_products = hopper.warpgroup_mma_wait
# Renamed after Triton 3.6.
copy_in = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
together = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier
copy_out = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global


@gluon.jit
@no_type_check
def tile_of(queue, slot, ROWS: gl.constexpr, D: gl.constexpr):
    """A tile of a queue, as products take it."""
    return queue.index(slot).reshape([ROWS, D])


@gluon.jit
@no_type_check
def barriers(NUM: gl.constexpr, ARRIVALS: gl.constexpr):
    """Fresh barriers in shared memory."""
    bars = gl.allocate_shared_memory(gl.int64, [NUM, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(NUM):
        mbarrier.init(bars.index(i), count=ARRIVALS)
    return bars


@gluon.jit
@no_type_check
def bounds(tile, T, S, shift, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, RIGHT: gl.constexpr):
    """First row of a tile of queries, tiles of keys that it meets, and how many all rows see."""
    first_row = tile * BLOCK_M
    hi = S
    full_hi = (S // BLOCK_N) * BLOCK_N
    if RIGHT:
        hi = gl.maximum(gl.minimum(S, first_row + BLOCK_M + shift), 1)
        full_hi = gl.minimum(full_hi, gl.maximum(first_row + shift + 1, 0) // BLOCK_N * BLOCK_N)
    return first_row, gl.cdiv(hi, BLOCK_N), full_hi // BLOCK_N


@gluon.jit
@no_type_check
def visible(first, sees_to, S, BLOCK_N: gl.constexpr, RIGHT: gl.constexpr, LAYOUT: gl.constexpr):
    """Which of the keys from `first` on each row sees; `sees_to` is the last one of a row."""
    columns = first + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, LAYOUT))
    seen = (columns < S)[None, :]
    if RIGHT:
        seen = seen & (columns[None, :] <= sees_to[:, None])
    return seen
