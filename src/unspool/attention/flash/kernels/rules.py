"""What the tiles of every kernel share: which pairs are seen, and what is done to their scores.

What: the rules of `Spec` on one tile, written once for forward and backward in either orientation.
Source: `unspool.attention.spec.visible`, whose meaning this repeats; dropout by Philox as in
FlashAttention (Dao et al. 2022), section 3.1.
Differs from it: rules that a call does not set are compiled away.
Cost: a few integer operations a pair. Shapes: rows and columns broadcast, [M, 1] with [1, N] or
[1, M] with [N, 1].
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def seen_pairs(
    rows, columns, q_at, k_at, q_document, k_document, q_global, k_global, mask,
    mask_row, mask_column, window, right, beyond, sinks,
    CAUSAL: tl.constexpr, NEAR: tl.constexpr, BEYOND: tl.constexpr, AT_Q: tl.constexpr,
    AT_K: tl.constexpr, DOCUMENTS: tl.constexpr, GLOBAL: tl.constexpr, MASK: tl.constexpr,
    inside,
):  # fmt: skip
    """Pairs of a tile that every rule lets through, given the pairs `inside` the rectangle."""
    seen = inside
    distance = q_at - k_at
    if AT_Q:
        seen = seen & (q_at >= 0)
    if AT_K:
        seen = seen & (k_at >= 0)
    if CAUSAL:
        seen = seen & (distance >= 0)
    if NEAR:
        near = (distance < window) & (distance >= -right)
        near = near | (k_at < sinks)
        if GLOBAL:
            near = near | (q_global != 0) | (k_global != 0)
        seen = seen & near
    if BEYOND:
        seen = seen & (distance >= beyond)
    if DOCUMENTS:
        seen = seen & (q_document == k_document)
    if MASK:
        at = mask + rows.to(tl.int64) * mask_row + columns.to(tl.int64) * mask_column
        seen = seen & (tl.load(at, mask=inside, other=0) != 0)
    return seen


@triton.jit
@no_type_check
def facts(POINTER, base, at, inside, otherwise, GIVEN: tl.constexpr):
    """One integer a row or column, or `otherwise` where the call gives none."""
    return tl.load(POINTER + base + at, mask=inside, other=0) if GIVEN else otherwise


@triton.jit
@no_type_check
def tanh(x):
    """By the exponential, which every device has."""
    return 2.0 / (1.0 + tl.exp2(x * -2.8853900817779268)) - 1.0


@triton.jit
@no_type_check
def kept_weights(seed, rows, columns, head, threshold, like):
    """Which weights dropout leaves: counted by (key, query, head), as `attention.philox` does."""
    zero = tl.zeros(like.shape, tl.uint32)
    key = zero + columns.to(tl.uint32)
    row = zero + rows.to(tl.uint32)
    word, _, _, _ = tl.philox(seed, key, row, zero + head.to(tl.uint32), zero)
    return word >= threshold.to(tl.uint32)


@triton.jit
@no_type_check
def columns_of(
    n, LIST, count, num_keys, block_k,
    MODE: tl.constexpr, SUBTILES: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Columns of the n-th tile of a list and which of them exist.

    MODE 0: the list is all keys. 1: a tile lies in one block. 2: a tile gathers narrow blocks.
    """
    lane = tl.arange(0, BLOCK_N)
    if MODE == 0:
        columns = n * BLOCK_N + lane
        exists = columns < num_keys
    elif MODE == 1:
        block = tl.load(LIST + n // SUBTILES)
        columns = block * block_k + (n % SUBTILES) * BLOCK_N + lane
        exists = columns < tl.minimum((block + 1) * block_k, num_keys)
    else:
        entry = (n * BLOCK_N + lane) // block_k
        block = tl.load(LIST + entry, mask=entry < count, other=0)
        columns = block * block_k + (n * BLOCK_N + lane) % block_k
        exists = (entry < count) & (columns < num_keys)
    return columns, exists
