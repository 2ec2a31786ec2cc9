"""From a pattern to what the kernels read: integer facts a row or column, and lists of tiles.

What: which tiles of keys a tile of queries can meet, judged from the extremes of positions and
documents in each; a pattern's own block lists are narrowed by the same judgement.
Source: FlashAttention (Dao et al. 2022), section 3.3 (skip blocks); bounds by tile as in
FlexAttention's block mask.
Differs from FlexAttention: nothing of size T x S is evaluated, and the kernels apply the exact
rules within every listed tile, so that the judgement may err on the side of keeping.
Cost: O(T + S + tiles) a pattern, kept with it: the layers of a model that share a Spec share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from unspool.attention.blocks import BlockMask
from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.spec import Spec

TILE_Q, TILE_K = 64, 64
"""Tiles of the lists made here."""
NARROW = 16
"""Blocks of fewer keys than this are gathered."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """What a call of a listed kernel reads besides q, k and v."""

    lists: BlockMask
    """Tiles of keys by tile of queries; `block_q` is at most T."""
    gathered: bool
    """The blocks are narrow: columns are gathered, and there is no `turned`."""
    turned: BlockMask | None
    """Tiles of queries by tile of keys; None where gathered or without gradients."""


_KEPT: WeakKeyDictionary[Spec, dict[tuple[object, ...], Plan]] = WeakKeyDictionary()


def plan_of(
    spec: Spec, num_queries: int, num_keys: int, device: torch.device, *, taught: bool
) -> Plan:
    """The lists of a pattern, made once for it, these lengths and this device."""
    made = _KEPT.setdefault(spec, {})
    key = (num_queries, num_keys, device, taught)
    if key not in made:
        made[key] = _plan(spec, num_queries, num_keys, device, taught)
    return made[key]


def _plan(spec: Spec, num_queries: int, num_keys: int, device: torch.device, taught: bool) -> Plan:
    blocks = spec.blocks
    if blocks is not None:
        blocks = blocks.to(device)
        needed = -(-num_queries // blocks.block_q)
        if needed > blocks.indices.shape[2]:
            raise ConfigError(
                f"BlockMask lists {blocks.indices.shape[2]} blocks of {blocks.block_q} queries, "
                f"and there are {num_queries} queries."
            )
        if blocks.block_k < NARROW:
            lists = replace(blocks, block_q=min(blocks.block_q, max(1, num_queries)))
            return Plan(lists=lists, gathered=True, turned=None)
        block_q, block_k = min(blocks.block_q, num_queries), blocks.block_k
        met = blocks.blocks(num_keys, slice(0, needed))
        met = met & tiles_met(spec, num_queries, num_keys, block_q, block_k, device)
    else:
        block_q, block_k = TILE_Q, TILE_K
        met = tiles_met(spec, num_queries, num_keys, block_q, block_k, device)
    lists = BlockMask.from_dense(met, block_q=block_q, block_k=block_k)
    turned = None
    if taught:
        turned = BlockMask.from_dense(met.transpose(2, 3), block_q=block_k, block_k=block_q)
    return Plan(lists=lists, gathered=False, turned=turned)


def tiles_met(
    spec: Spec, num_queries: int, num_keys: int, block_q: int, block_k: int, device: torch.device
) -> Tensor:
    """Tiles in which some pair may be seen: bool [B|1, 1, NQ, NK], never False for a seen pair."""
    import torch

    q = torch.arange(num_keys - num_queries, num_keys, device=device)[None]
    k = torch.arange(num_keys, device=device)[None]
    q_real, k_real = torch.ones_like(q, dtype=torch.bool), torch.ones_like(k, dtype=torch.bool)
    if spec.q_positions is not None:
        q = spec.q_positions.to(device)
        q_real = q >= 0
    if spec.k_positions is not None:
        k = spec.k_positions.to(device)
        k_real = k >= 0
    q_low, q_high, q_any = _extremes(q, q_real, block_q)
    k_low, k_high, k_any = _extremes(k, k_real, block_k)
    q_low, q_high, q_any = (x[:, :, None] for x in (q_low, q_high, q_any))
    k_low, k_high, k_any = (x[:, None, :] for x in (k_low, k_high, k_any))
    met = q_any & k_any
    nearest, farthest = q_low - k_high, q_high - k_low  # of the distances query - key
    if spec.causal:
        met = met & (farthest >= 0)
    if spec.window is not None or spec.right is not None:
        near = torch.ones_like(met)
        if spec.window is not None:
            near = near & (nearest < spec.window)
        if spec.right is not None:
            near = near & (farthest >= -spec.right)
        if spec.sinks:
            near = near | (k_low < spec.sinks)
        if spec.k_global is not None:
            near = near | _any(spec.k_global.to(device), block_k)[:, None, :]
        if spec.q_global is not None:
            near = near | _any(spec.q_global.to(device), block_q)[:, :, None]
        met = met & near
    if spec.beyond is not None:
        met = met & (farthest >= spec.beyond)
    if spec.q_documents is not None and spec.k_documents is not None:
        q_low, q_high, _ = _extremes(spec.q_documents.to(device), None, block_q)
        k_low, k_high, _ = _extremes(spec.k_documents.to(device), None, block_k)
        met = met & (q_low[:, :, None] <= k_high[:, None]) & (q_high[:, :, None] >= k_low[:, None])
    return met[:, None]


def _extremes(x: Tensor, real: Tensor | None, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least, greatest, and whether there is any, of each block of [B, N]."""
    import torch

    high = torch.iinfo(torch.int32).max  # far from overflow when subtracted as int64
    x = x.long()
    if real is None:
        real = torch.ones_like(x, dtype=torch.bool)
    low = _blocked(x.masked_fill(~real, high), block, high).amin(-1)
    top = _blocked(x.masked_fill(~real, -high), block, -high).amax(-1)
    return low, top, _any(real, block)


def _any(x: Tensor, block: int) -> Tensor:
    return _blocked(x, block, False).any(-1)


def _blocked(x: Tensor, block: int, fill: int) -> Tensor:
    """[B, N] as [B, blocks, block], the last filled up."""
    import torch.nn.functional as F

    block = min(block, max(1, x.shape[1]))
    padded: Tensor = F.pad(x, (0, -x.shape[1] % block), value=fill)
    return padded.view(x.shape[0], -1, block)


_FACTS: WeakKeyDictionary[Spec, tuple[Tensor | None, ...]] = WeakKeyDictionary()


def facts_of(spec: Spec, device: torch.device) -> tuple[Tensor | None, ...]:
    """Positions, documents and globals of queries and keys in turn, int32 [B|1, N] each, made once
    for a pattern."""
    found = _FACTS.get(spec)
    if found is None or any(x is not None and x.device != device for x in found):
        given = (
            spec.q_positions, spec.k_positions, spec.q_documents, spec.k_documents,
            spec.q_global, spec.k_global,
        )  # fmt: skip
        found = tuple(None if x is None else x.to(device).int().contiguous() for x in given)
        _FACTS[spec] = found
    return found
