"""Which keys each query meets, and with what weight: everything random is decided here.

What: the causal recursion as levels of rectangles, each with its sorted blocks of queries and keys
and its sampled keys; what is left are squares on the diagonal, which are exact.
Source: Han et al. (2023), "HyperAttention", algorithms 1, 3 and 4.
Differs from the released code: all levels are laid out at once, since one hash serves them all;
ragged ends are slots marked as empty, where the code pads with keys of zeros that then get weight;
rows of grouped heads share the blocks and the sample of their key head; the first keys can be kept
for every query (`sinks`); `centred` hashes queries and keys less their mean, since those of
language models lie in narrow cones, where most signs agree.
Cost: O(N log N) a level for sorting, 4 bytes a row and level. Shapes: B batch, Hq and Hkv heads, G
queries a key head, L rectangles of a level, NB blocks of each, R = G * rows of a query block, KB
keys of a block, M sampled keys. Rows are numbers in the flattened [B * H * N].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from unspool.attention.hyper.lsh import hash_buckets, sort_order

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.hyper.sampled import Draw

Order = Literal["lsh", "centred", "released", "random"]
_SAMPLED_ROWS = 256
"""Rows of a query block where there are no blocks, only samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Rectangles of one size. A row of -1 is an empty slot."""

    q_rows: Tensor
    """int32 [B, Hkv, L, NB, R]."""
    k_rows: Tensor
    """int32 [B, Hkv, L, NB, KB]; KB is 0 where nothing is met by hashing."""
    s_rows: Tensor
    """int32 [B, Hkv, L, M]: the sample, and the sinks after it."""
    s_blocks: Tensor
    """int32 [B, Hkv, L, M]: the block that holds a sampled key, whose queries skip it; -1: none."""
    s_logs: Tensor
    """float32 [B, Hkv, L, M]: log weights, -inf for unused columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One attention call."""

    levels: tuple[Level, ...]
    leaves: int
    """Squares on the diagonal with exact causal attention; 0 without causality."""
    leaf: int
    """Their size; the last may reach past the end."""
    offset: int
    """Keys before the first query's own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What shapes a plan. See `hyper_attention` for the meaning."""

    causal: bool = True
    block: int = 256
    samples: int = 256
    min_seq_len: int = 4096
    sinks: int = 0
    order: Order = "lsh"


class Window(NamedTuple):
    """The rectangles of a level: L pieces of `stride` rows, in each a run of queries and keys."""

    pieces: int
    stride: int
    q_start: int
    queries: int
    k_start: int
    keys: int
    sinks: int
    """First keys of the first rectangle that every query of it meets."""


def windows(num_queries: int, num_keys: int, settings: Settings) -> tuple[list[Window], int, int]:
    """The levels of a call, and number and size of the leaves.

    A square is halved while its halves have `min_seq_len` rows: a smaller one is exact in the
    recursion as well, since the rectangle below its diagonal is.
    """
    offset = num_keys - num_queries
    found = []
    if not settings.causal or offset:
        keys = offset if settings.causal else num_keys
        sinks = min(settings.sinks, keys)
        found.append(Window(1, num_queries, 0, num_queries, 0, keys, sinks))
    if not settings.causal:
        return found, 0, 0
    depth = 0
    while num_queries >> depth >= 2 * settings.min_seq_len:
        depth += 1
    leaf = -(-num_queries // (1 << depth))
    for level in range(depth):
        half = leaf << (depth - 1 - level)
        sinks = 0 if offset else min(settings.sinks, leaf)
        found.append(Window(1 << level, 2 * half, half, half, offset, half, sinks))
    return found, 1 << depth, leaf


def make_plan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    settings: Settings,
    directions: Tensor,
    draw: Draw,
    generator: torch.Generator | None,
) -> Plan:
    """Hash, sort and sample for one call.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        settings: What to do.
        directions: Of the hash, [D, bits].
        draw: How to sample.
        generator: Of the random permutation, where `order` asks for one.
    """
    found, leaves, leaf = windows(q.shape[2], k.shape[2], settings)
    hq, hk = (_buckets(x, settings, directions, generator) for x in (q, k))
    sizes = v.detach().float().square().sum(-1) if draw.by_value else None
    levels = tuple(_level(w, hq, hk, sizes, settings, draw) for w in found if w.keys)
    return Plan(levels, leaves, leaf, k.shape[2] - q.shape[2])


def _buckets(
    x: Tensor, settings: Settings, directions: Tensor, generator: torch.Generator | None
) -> Tensor:
    import torch

    if settings.order == "centred":
        x = x.detach() - x.detach().mean(2, keepdim=True)
    if settings.order != "random":
        return hash_buckets(x, directions, released=settings.order == "released")
    where = x.device if generator is None else generator.device
    # One permutation for all rows of a batch, so that a row gives what it gives alone.
    drawn = torch.randint(1 << 12, (1, *x.shape[1:3]), generator=generator, device=where)
    return drawn.to(x.device, torch.int32).expand(x.shape[:3])


def _level(
    w: Window, hq: Tensor, hk: Tensor, sizes: Tensor | None, settings: Settings, draw: Draw
) -> Level:
    import torch

    batch, num_heads, num_queries = hq.shape
    num_kv_heads, num_keys = hk.shape[1:]
    device = hq.device
    num_blocks, k_block, q_block = block_sizes(w, settings)
    pieces = torch.arange(w.pieces, device=device)[:, None]
    heads = torch.arange(batch * num_heads, device=device).reshape(batch, num_heads, 1, 1)
    kv_heads = torch.arange(batch * num_kv_heads, device=device)
    kv_heads = kv_heads.reshape(batch, num_kv_heads, 1, 1)

    first = pieces * w.stride + w.k_start
    end = num_keys
    places = first + torch.arange(w.keys, device=device)  # [L, keys]
    skipped = places >= end
    skipped[0, : w.sinks] = True
    usable = [max(0, min(w.keys, end - p * w.stride - w.k_start)) for p in range(w.pieces)]
    usable[0] -= w.sinks
    order, slots = _sorted(hk, places, skipped, num_blocks * k_block)
    k_rows = torch.where(slots >= 0, slots + kv_heads * num_keys, -1)

    q_places = pieces * w.stride + w.q_start + torch.arange(w.queries, device=device)
    outside = q_places >= num_queries
    if settings.block and num_blocks > 1:
        _, q_slots = _sorted(hq, q_places, outside, num_blocks * q_block)
    else:
        q_slots = torch.where(outside, -1, q_places).expand(batch, num_heads, -1, -1)
        q_slots = _filled(q_slots, num_blocks * q_block)
    q_rows = torch.where(q_slots >= 0, q_slots + heads * num_queries, -1)
    groups = num_heads // num_kv_heads
    shape = (batch, num_kv_heads, groups, w.pieces, num_blocks, q_block)
    q_rows = q_rows.reshape(shape).permute(0, 1, 3, 4, 2, 5).flatten(-2)

    whole = settings.block > 0 and num_blocks == 1
    count = 0 if whole else min(settings.samples, w.keys)
    columns = [_sample(draw, usable, count, k_rows, order, sizes, places, k_block, settings)]
    if w.sinks:
        columns.append(_sinks(w, kv_heads, num_keys, device))
    s_rows, s_blocks, s_logs = (torch.cat(parts, -1) for parts in zip(*columns, strict=True))
    if settings.block:
        k_rows = k_rows.reshape(batch, num_kv_heads, w.pieces, num_blocks, k_block)
    else:
        k_rows = k_rows.new_empty(batch, num_kv_heads, w.pieces, num_blocks, 0)
    return Level(
        q_rows=q_rows.int().contiguous(),
        k_rows=k_rows.int().contiguous(),
        s_rows=s_rows.int().contiguous(),
        s_blocks=s_blocks.int().contiguous(),
        s_logs=s_logs.float().contiguous(),
    )


def block_sizes(w: Window, settings: Settings) -> tuple[int, int, int]:
    """Blocks of a rectangle, keys of one, queries of one."""
    if settings.block:
        k_block = min(settings.block, w.keys)
        num_blocks = -(-w.keys // k_block)
        return num_blocks, k_block, -(-w.queries // num_blocks)
    q_block = min(_SAMPLED_ROWS, w.queries)
    num_blocks = -(-w.queries // q_block)
    return num_blocks, -(-w.keys // num_blocks), q_block


def _sorted(buckets: Tensor, places: Tensor, skipped: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Order [B, H, L, n] of the places by bucket, what is skipped last, and the sorted places with
    -1 for what is skipped, filled up to a number of slots."""
    import torch

    picked = buckets[:, :, places.clamp(max=buckets.shape[2] - 1)]
    order = sort_order(picked.masked_fill(skipped, 1 << 12))
    sorted_places = torch.where(skipped, -1, places).expand_as(order).gather(-1, order)
    return order, _filled(sorted_places, slots)


def _filled(x: Tensor, slots: int) -> Tensor:
    import torch.nn.functional as F

    return F.pad(x, (0, slots - x.shape[-1]), value=-1)


def _sample(
    draw: Draw,
    usable: Sequence[int],
    count: int,
    k_rows: Tensor,
    order: Tensor,
    sizes: Tensor | None,
    places: Tensor,
    k_block: int,
    settings: Settings,
) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    batch, heads, pieces = order.shape[:3]
    if count == 0:
        empty = k_rows.new_empty(batch, heads, pieces, 0)
        return empty, empty, empty.float()
    if sizes is not None:
        sizes = sizes[:, :, places.clamp(max=sizes.shape[2] - 1)].gather(-1, order)
    slots, logs = draw((batch, heads, pieces), usable, count, sizes, order.device)
    rows = k_rows.gather(-1, slots)
    unused = (rows < 0) | torch.isneginf(logs)
    logs = logs.float().masked_fill(unused, float("-inf"))
    blocks = slots // k_block if settings.block else torch.full_like(slots, -1)
    return rows.masked_fill(unused, -1), blocks, logs


def _sinks(
    w: Window, kv_heads: Tensor, num_keys: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The sinks as columns of the first rectangle, which every query past the first leaf is in."""
    import torch

    shape = (*kv_heads.shape[:2], w.pieces, w.sinks)
    rows = torch.full(shape, -1, device=device)
    logs = torch.full(shape, float("-inf"), device=device)
    rows[:, :, 0] = kv_heads[:, :, 0] * num_keys + torch.arange(w.sinks, device=device)
    logs[:, :, 0] = 0.0
    return rows, torch.full(shape, -1, device=device), logs
