"""Attention within a span of one layer: blocks of tokens, or a sliding window.

What: which keys a local layer's queries meet, and exact causal attention over them alone.
Source: Zhang et al. (2023), "Efficient Long-Range Transformers" (MASFormer), section 3: block
sparse attention in most layers, a block being met with the ones before it.
Differs from the paper: how many blocks before a query's own are met is a setting (1, as its figure
draws; 0 gives the cost of its abstract), and a window of the same width is the other kind.
Cost: O(T * reach * D), reach the most tokens a query meets: (previous + 1) * block, or block.
Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D]; positions [B, T] and [B, S], -1 at padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from unspool.attention.dense import Dense
from unspool.attention.kernel import attend
from unspool.attention.one import attend_one, why_not_one
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.call import Call

SpanKind = Literal["block", "window"]


@dataclass(frozen=True, slots=True)
class Span:
    """How far back a local layer looks."""

    block: int
    """Tokens of a block, or of the window."""
    previous: int = 1
    """Blocks before a query's own that it meets; of no account in a window."""
    kind: SpanKind = "block"

    def __post_init__(self) -> None:
        if self.block < 1 or self.previous < 0:
            raise ConfigError(
                f"Span needs block >= 1 and previous >= 0, got block={self.block} and "
                f"previous={self.previous}."
            )

    @property
    def reach(self) -> int:
        """Most tokens that a query meets, itself included."""
        return self.block if self.kind == "window" else (self.previous + 1) * self.block

    @property
    def before(self) -> int:
        """Whole blocks before a query's own that its keys may lie in."""
        return 1 if self.kind == "window" else self.previous

    def oldest(self, position: int) -> int:
        """First position that a query at `position` meets."""
        if self.kind == "window":
            return max(0, position - self.block + 1)
        return max(0, (position // self.block - self.previous) * self.block)

    def oldest_of(self, positions: Tensor) -> Tensor:
        """As `oldest`, of many; padding (-1) gives 0."""
        if self.kind == "window":
            return (positions - self.block + 1).clamp(min=0)
        blocks = positions.clamp(min=0).div(self.block, rounding_mode="floor")
        return ((blocks - self.previous) * self.block).clamp(min=0)

    def mask(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """[B, 1, T, S] bool: keys that are near enough; causality and padding come besides."""
        oldest = self.oldest_of(q_positions)
        return (k_positions[:, None, :] >= oldest[:, :, None])[:, None]

    def pairs(self, tokens: int) -> int:
        """(query, key) pairs of a causal text of `tokens`."""
        return triangle(tokens) - sum(
            # positions of one block share their oldest key; in a window each has its own
            self.oldest(first) * min(self._step, tokens - first)
            for first in range(0, tokens, self._step)
        )

    @property
    def _step(self) -> int:
        return 1 if self.kind == "window" else self.block


def triangle(tokens: int) -> int:
    """Pairs that full causal attention computes."""
    return tokens * (tokens + 1) // 2


def span_attend(
    q: Tensor, k: Tensor, v: Tensor, *, span: Span, start: int, scale: float | int
) -> Tensor:
    """Causal attention of consecutive queries within their spans, without padding.

    Args:
        q: [B, Hq, T, D], rotated.
        k: [B, Hkv, S, D] of the newest S positions; at least those that the spans reach.
        v: [B, Hkv, S, Dv].
        span: How far back they look.
        start: Position of the first query.
        scale: Factor on the scores.

    Returns:
        [B, Hq, T, Dv], the same to rounding however a text is cut into calls.
    """
    import torch

    end = start + q.shape[2]
    first = end - k.shape[2]
    if span.oldest(end - 1) <= first:  # the newest query meets everything, so all do
        return _part(q, k, v, span, scale, whole=True)
    outs, at = [], start
    while at < end:
        stop, count = _run(at, end, first, span)
        rows = q[:, :, at - start : stop - start]
        oldest = max(span.oldest(at), first)
        columns = slice(oldest - first, stop - first)
        if count > 1:
            begin = at - span.before * span.block - first
            columns = slice(begin, stop - first)
            outs.append(_folded(rows, k[:, :, columns], v[:, :, columns], span, scale, count))
        else:
            outs.append(_part(rows, k[:, :, columns], v[:, :, columns], span, scale))
        at = stop
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def tiles(start: int, queries: int, span: Span) -> list[tuple[int, int]]:
    """(rows, columns) of each rectangle that `span_attend` computes for a text from position 0,
    its newest keys aligned with its newest rows; what the cost of a plan is checked against."""
    found, at, end = [], start, start + queries
    if span.oldest(end - 1) <= 0:
        return [(queries, end)]
    while at < end:
        stop, count = _run(at, end, 0, span)
        if count > 1:
            found += [(span.block, (span.before + 1) * span.block)] * count
        else:
            found.append((stop - at, stop - span.oldest(at)))
        at = stop
    return found


def _run(at: int, end: int, first: int, span: Span) -> tuple[int, int]:
    """Where a group of rows from `at` ends, and how many whole blocks it is (1: one part)."""
    size = span.block
    stop = min(end, (at // size + 1) * size)
    if at % size or at - span.before * size < first:
        return stop, 1
    count = (end - at) // size
    return (at + count * size, count) if count > 1 else (stop, 1)


def _part(
    q: Tensor, k: Tensor, v: Tensor, span: Span, scale: float | int, whole: bool = False
) -> Tensor:
    """Rows of one block over the columns that their first row meets and all after."""
    window = None if whole or span.kind == "block" else span.block
    if q.shape[2] == 1 and (window is None or k.shape[2] <= window) and why_not_one(q, k) is None:
        return attend_one([(q, k, v)], scale)
    if window is not None and k.shape[2] <= window:
        window = None
    k, v = _widened(q, k, v)
    return attend(q, k, v, spec=Spec(window=window), scale=scale)


def _folded(q: Tensor, k: Tensor, v: Tensor, span: Span, scale: float | int, count: int) -> Tensor:
    """Whole blocks as rows of the batch: each over its own keys and those of the blocks before."""
    batch, size = q.shape[0], span.block
    q = q.unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1)
    k, v = (
        x.unfold(2, (span.before + 1) * size, size)  # [B, Hkv, count, D, columns], views
        .permute(0, 2, 1, 4, 3)
        .flatten(0, 1)
        for x in (k, v)
    )
    out = _part(q, k, v, span, scale)
    heads = out.shape[1:]
    return out.reshape(batch, count, *heads).transpose(1, 2).flatten(2, 3)


def _widened(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values a head each where gradients are wanted on a GPU: of its fused kernels, only
    the one that lacks grouped heads takes a mask."""
    import torch

    groups = q.shape[1] // k.shape[1]
    taught = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if groups == 1 or not taught or q.device.type != "cuda" or q.shape[2] == k.shape[2]:
        return k, v
    return k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)


@dataclass(frozen=True, slots=True)
class SpanAttend:
    """The mechanism of a local layer."""

    span: Span
    late: bool = False
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        if not call.spec.causal and call.spec.mask is None:
            raise ConfigError(
                f"Layer {call.layer} looks ahead, and a span of blocks looks back only: it is for "
                f"decoders."
            )
        kv = KV(call.k, call.v, call.positions, call.start)
        if call.store is not None:
            (kv,) = call.store.segments()
        spec = call.spec
        if spec.mask is not None:
            return self._packed(call, kv, spec.mask)
        bare = replace(spec, causal=True)
        if call.positions is None and kv.positions is None and bare.plain:
            return span_attend(
                call.q, kv.k, kv.v, span=self.span, start=call.start, scale=call.scale
            )
        q_positions, k_positions = call.where(), kv.where()
        spec = replace(
            spec,
            q_positions=q_positions,
            k_positions=k_positions,
            mask=self.span.mask(q_positions, k_positions),
        )
        return attend(call.q, kv.k, kv.v, spec=spec, scale=call.scale)

    def _packed(self, call: Call, kv: KV, mask: torch.Tensor) -> Tensor:
        """Under a mask of the caller's: packed documents, blocks counted along the row."""
        if mask.shape[-1] != len(kv):
            raise ConfigError(
                f"Packed rows need every token, and layer {call.layer} keeps {len(kv):,} of "
                f"{mask.shape[-1]:,}: read them in one pass without a cache (use_cache=False)."
            )
        near = self.span.mask(call.where(), kv.where())
        return attend(
            call.q, kv.k, kv.v, spec=replace(call.spec, mask=mask & near), scale=call.scale
        )


FULL = Dense()
"""The mechanism of a layer that sees everything."""


def picture(tokens: int = 64, span: Span | None = None) -> Tensor:
    """Which keys each query of a local layer meets, [T, S] bool, as attention itself shows it:
    equal scores, and values that name their key."""
    import torch

    equal = torch.zeros(1, 1, tokens, 1)
    named = torch.eye(tokens)[None, None]
    out = span_attend(equal, equal, named, span=span or Span(10), start=0, scale=1.0)
    return out[0, 0] > 0
