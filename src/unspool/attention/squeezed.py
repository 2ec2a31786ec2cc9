"""Squeezed attention: of a fixed context, a question meets the clusters of keys that matter to it.

What: queries are compared with the centroids of a clustered context, exact attention is computed
over the keys of clusters above a calibrated threshold, the window and token 0, and merged with
causal attention over what followed the context.
Source: Hooper et al. (2024), "Squeezed Attention", sections 4.2 (eq. 2) and 4.3; the merge of parts
as in `attention.kernel`.
Differs from the released code: scores and denominators in float32 log space (bf16 sums there);
heads that share keys select together unless `per_head` is set, and are calibrated so; the window is
kept unconditionally (with long questions the released kernel can drop it); any kept share from a
table, not four; batches, padding, any head size.
Cost: O(K) a query for the look-up (K1 + the surviving part of K with two levels), O(kept) for the
attention; the cache itself is kept whole. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unspool.attention.call import Attend, Call
from unspool.attention.dense import Dense
from unspool.attention.kernel import attend, merge
from unspool.attention.spec import Spec
from unspool.caches.base import KV, Store
from unspool.caches.context import Context, Layout, mean_scores
from unspool.caches.context_store import ContextStore
from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from unspool._facts import ModelFacts

_EVERYTHING = Spec(causal=False)


@dataclass(frozen=True, kw_only=True)
class Squeezed(Method):
    """Ask many questions of one fixed context, and load few of its keys for each."""

    name: ClassVar[str] = "squeezed"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "what a question's queries look at, inside the window"
    costs: ClassVar[str] = "all memory of the context; clustering once; few keys a question"
    needs_rotated: ClassVar[bool] = True
    system: ClassVar[str] = "squeezed-attention"

    keep: float = 0.25
    """Share of the context's keys that a question loads, over all layers and heads together."""
    pct: float = 0.05
    """Clusters a key."""
    levels: int = 1
    """2: a coarser level is looked up first, with a fifth of the clusters."""
    window: int = 100
    """Last tokens of the context: always met, and their queries calibrate the threshold."""
    per_head: bool = False
    """Every query head selects its own keys; false: heads that share keys select together."""
    seed: int = 0
    """Of the clustering."""
    iterations: int = 300
    """Of k-means, at most."""
    batch: int = 0
    """Keys an iteration of k-means looks at; 0: all of them."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ConfigError(f"squeezed needs 0 < keep <= 1, got keep={self.keep}.")
        if not 0 < self.pct <= 1:
            raise ConfigError(f"squeezed needs 0 < pct <= 1, got pct={self.pct}.")
        if self.levels not in (1, 2):
            raise ConfigError(f"squeezed has levels=1 and levels=2, got levels={self.levels}.")
        if self.window < 1 or self.iterations < 1 or self.batch < 0:
            raise ConfigError(
                f"squeezed needs window >= 1, iterations >= 1 and batch >= 0, got "
                f"window={self.window}, iterations={self.iterations}, batch={self.batch}."
            )

    def resolve(self, facts: ModelFacts) -> Squeezed:
        for number in facts.pick_layers(self.layers):
            if facts.layer_types[number] != "full_attention":
                raise ConfigError(
                    f"squeezed takes full-attention layers, and layer {number} of {facts.name} is "
                    f"of type {facts.layer_types[number]}. Leave `layers` at its default."
                )
        return self

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        return SqueezedAttend()

    def store(self, facts: ModelFacts, layer: int) -> Store:
        return ContextStore(
            Layout(
                window=self.window,
                share=self.pct,
                coarse_share=self.pct / 5 if self.levels == 2 else None,
                per_head=self.per_head,
                seed=self.seed,
                iterations=self.iterations,
                batch=self.batch or None,
            ),
            self.keep,
        )


@dataclass(frozen=True, slots=True)
class SqueezedAttend:
    """The mechanism of a layer; dense until the context is complete."""

    late: bool = False
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        store = call.store
        if not isinstance(store, ContextStore):
            return Dense()(call)
        store.scale = call.scale
        if store.contexts is None:
            return Dense()(call)
        if call.spec.mask is not None:
            raise ConfigError(
                "Packed, prefix or image attention needs every token of the context in its place. "
                "Use dense."
            )
        q = call.q
        if call.positions is not None:
            q = q.masked_fill((call.positions < 0)[:, None, :, None], 0)
        context = _over_contexts(call, q, store)
        tail = store.tail()
        assert tail is not None  # the chunk itself was appended
        return merge([context, _over_tail(call, q, tail)])[0]


def _over_tail(call: Call, q: Tensor, tail: KV) -> tuple[Tensor, Tensor]:
    """Causal attention over what followed the context."""
    spec = call.spec
    if call.positions is not None or tail.positions is not None:
        spec = replace(spec, q_positions=call.where(), k_positions=tail.where())
    return attend(q, tail.k, tail.v, spec=spec, scale=call.scale, return_lse=True)


def _over_contexts(call: Call, q: Tensor, store: ContextStore) -> tuple[Tensor, Tensor]:
    """Attention of every row over its context, and the log-sum-exp."""
    contexts = store.contexts
    assert contexts is not None  # the caller looked
    keep = store.budget.keep
    if len(contexts) == 1 and (keep >= 1 or not contexts[0].clustered):
        return _over_all(q, contexts[0], call.scale, store)
    outs, lses = [], []
    for row in range(q.shape[0]):
        context = contexts[row if len(contexts) > 1 else 0]
        one = q[row : row + 1]
        if keep >= 1 or not context.clustered:
            out, lse = _over_all(one, context, call.scale, store if row == 0 else None)
        else:
            assert context.ranks is not None  # made with the clusters
            levels = context.ranks.levels(keep)
            real = None if call.positions is None else call.positions[row] >= 0
            picked = select(one[0], context, levels, call.scale, store.layout.per_head, real)
            if row == 0:
                store.met = picked
            out, lse = _over_picked(one, context, picked, call.scale)
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs), torch.cat(lses)


def _over_all(
    q: Tensor, context: Context, scale: float, store: ContextStore | None
) -> tuple[Tensor, Tensor]:
    if store is not None:
        store.met = ()
    k = context.k[None].expand(q.shape[0], -1, -1, -1)
    v = context.v[None].expand(q.shape[0], -1, -1, -1)
    return attend(q, k, v, spec=_EVERYTHING, scale=scale, return_lse=True)


def select(
    q: Tensor,
    context: Context,
    levels: tuple[float, float],
    scale: float,
    per_head: bool,
    real: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The places of the context that a block of queries meets.

    Args:
        q: [Hq, T, D] of one sequence; the block selects together.
        context: Of that sequence.
        levels: Thresholds on log scores, of clusters and of the level above.
        scale: On the scores.
        per_head: A set for every query head instead of one for those that share keys.
        real: [T], False at padding; None: no padding.

    Returns:
        For every key-value head (or query head) the places [m], in order.
    """
    heads = context.k.shape[0]
    grouped = q.unflatten(0, (heads, -1))
    if real is not None:
        grouped = grouped[:, :, real]
    if not grouped.shape[2]:  # nothing but padding: what is always kept will do
        kept = torch.zeros(heads, context.counts.shape[1], dtype=torch.bool, device=q.device)
        return _places(
            context, kept if not per_head else kept.repeat_interleave(grouped.shape[1], 0)
        )
    fine, above = levels
    if context.coarse_centroids is None or context.coarse_counts is None:
        scores = mean_scores(grouped, context.centroids, context.counts, scale, per_head)
        return _places(context, scores > fine)
    coarse = mean_scores(grouped, context.coarse_centroids, context.coarse_counts, scale, per_head)
    return _places(context, _children(grouped, context, coarse > above, fine, scale, per_head))


def _children(
    grouped: Tensor, context: Context, passed: Tensor, fine: float, scale: float, per_head: bool
) -> Tensor:
    """Clusters that pass both levels; only children of those in `passed` are compared."""
    assert context.parents is not None  # made together with the level above
    heads, groups = grouped.shape[:2]
    rows = groups if per_head else 1
    kept = torch.zeros(len(passed), context.counts.shape[1], dtype=torch.bool, device=passed.device)
    for number in range(heads * rows):
        head, row = divmod(number, rows)
        left = passed[number, context.parents[head]].nonzero()[:, 0]
        if len(left):
            queries = grouped[head, row : row + 1] if per_head else grouped[head]
            scores = mean_scores(
                queries[None],
                context.centroids[head, left][None],
                context.counts[head, left][None],
                scale,
                per_head,
            )
            kept[number, left] = scores[0] > fine
    return kept


def _places(context: Context, kept: Tensor) -> tuple[Tensor, ...]:
    """Places of the kept clusters and of what is always kept, by head."""
    rows = kept.shape[0]
    starts = context.starts.repeat_interleave(rows // context.starts.shape[0], 0)
    runs = torch.cat((kept, kept.new_ones(rows, 1)), dim=1)
    row, run = runs.nonzero(as_tuple=True)
    first = starts[row, run]
    lengths = starts[row, run + 1] - first
    ends = lengths.cumsum(0)
    index = torch.repeat_interleave(first - (ends - lengths), lengths)
    index += torch.arange(len(index), device=index.device)
    sizes = torch.zeros(rows, dtype=lengths.dtype, device=index.device)
    sizes.index_add_(0, row, lengths)
    places: tuple[Tensor, ...] = torch.split(index, sizes.tolist())
    return places


def _over_picked(
    q: Tensor, context: Context, picked: tuple[Tensor, ...], scale: float
) -> tuple[Tensor, Tensor]:
    """Exact attention of one row over the places that each head kept."""
    groups = q.shape[1] // len(picked)
    shared = len(picked) // context.k.shape[0]
    outs, lses = [], []
    for number, places in enumerate(picked):
        head = number // shared
        k = context.k[head].index_select(0, places)[None, None].to(q.dtype)
        v = context.v[head].index_select(0, places)[None, None].to(q.dtype)
        queries = q[:, number * groups : (number + 1) * groups]
        out, lse = attend(queries, k, v, spec=_EVERYTHING, scale=scale, return_lse=True)
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs, 1), torch.cat(lses, 1)
