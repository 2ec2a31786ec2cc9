"""A fixed context, clustered: what makes the keys that a question needs cheap to find.

What: older keys are clustered and laid out cluster by cluster, the last queries calibrate scores
of clusters, and a table gives the threshold for any share of keys to be kept.
Source: Hooper et al. (2024), "Squeezed Attention", sections 4.1 to 4.3.
Differs from the released code: keys lie in the order of their clusters, so a look-up touches runs
of memory and costs O(clusters + kept keys); calibration is a weighted quantile over clusters in log
space, never a matrix of keys by queries; token 0 and the window are kept whatever their score.
Cost: k-means once; then 4 bytes a token and head, and the centroids (5% of the keys). Shapes: k, v
[Hkv, n, D] of one sequence; scores [Hkv|Hq, K].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unspool.caches.clusters import cluster_means, kmeans, unit

STEPS = 4096
"""Resolution of the table of thresholds: a kept share is known to 1/4096."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a context is clustered."""

    window: int = 100
    share: float = 0.05
    """Clusters a key."""
    coarse_share: float | None = None
    """Clusters a key of the level above; None: one level."""
    per_head: bool = False
    """Every query head selects its own keys; False: those that share keys select together."""
    seed: int = 0
    iterations: int = 300
    batch: int | None = None


class Ranks:
    """Thresholds of one sequence, from the calibrated scores of all layers together."""

    def __init__(self, table: Tensor | None = None) -> None:
        self._table = table
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, scores: Tensor, counts: Tensor, above: Tensor, above_counts: Tensor) -> None:
        """Take in a layer: log scores [H, K] and counts [Hkv, K], of both levels."""
        self._parts.append((scores, counts, above, above_counts))

    @property
    def table(self) -> Tensor:
        """[2, STEPS + 1] thresholds by kept share: of clusters, and of the level above."""
        if self._table is None:
            self._table = torch.stack([_table(self._parts, 0), _table(self._parts, 2)])
            self._parts = []
        return self._table

    def levels(self, keep: float) -> tuple[float, float]:
        """Thresholds on log scores that keep this share: of clusters, and of the level above."""
        step = int(keep * STEPS + 1e-9)
        # The level above lets twice the share pass, so that few of the best clusters are lost.
        return float(self.table[0, step]), float(self.table[1, min(STEPS, 2 * step)])


def _table(parts: Sequence[tuple[Tensor, ...]], first: int) -> Tensor:
    scores = torch.cat([p[first].flatten().cpu() for p in parts])
    weights = [
        p[first + 1].repeat_interleave(p[first].shape[0] // p[first + 1].shape[0], 0) for p in parts
    ]
    if not len(scores):
        return torch.full((STEPS + 1,), float("-inf"), dtype=torch.float64)
    return thresholds(scores, torch.cat([w.flatten().cpu() for w in weights]))


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One layer's keys and values of one sequence. Never changed once it is made."""

    k: Tensor
    """[Hkv, n, D]: clustered keys, cluster by cluster, then token 0 and the window."""
    v: Tensor
    order: Tensor
    """[Hkv, n] int32: the token that each place holds."""
    starts: Tensor
    """[Hkv, K + 2] int64: the places of cluster i are starts[i]:starts[i + 1], and the last run is
    what is always kept."""
    centroids: Tensor
    """[Hkv, K, D] float32, means of keys as they are."""
    counts: Tensor
    """[Hkv, K] int64 keys of each cluster, token 0 counted."""
    parents: Tensor | None = None
    """[Hkv, K] int64 cluster of the level above."""
    coarse_centroids: Tensor | None = None
    coarse_counts: Tensor | None = None
    ranks: Ranks | None = None
    """Thresholds of the sequence, which all layers share; None: nothing is clustered."""

    @property
    def tokens(self) -> int:
        return int(self.k.shape[1])

    @property
    def clustered(self) -> bool:
        return self.centroids.shape[1] > 0

    def tensors(self) -> dict[str, Tensor]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in named if isinstance(value, Tensor)}


def make_context(
    k: Tensor, v: Tensor, queries: Tensor, layout: Layout, scale: float, ranks: Ranks
) -> Context:
    """Cluster one sequence and calibrate on its last queries.

    Args:
        k: [Hkv, n, D], without padding.
        v: [Hkv, n, Dv].
        queries: [Hq, W, D] of the last tokens.
        layout: How.
        scale: On the scores.
        ranks: Takes in the layer's scores.
    """
    older = k.shape[1] - layout.window
    num_clusters = int(layout.share * older)
    if num_clusters < 2 or older <= num_clusters:  # nothing to choose between
        return _exact(k, v)
    labels = kmeans(
        unit(k[:, :older]),
        num_clusters,
        seed=layout.seed,
        iterations=layout.iterations,
        batch=layout.batch,
    ).labels
    return arrange(k, v, queries, labels, num_clusters, layout, scale, ranks)


def arrange(
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    labels: Tensor,
    num_clusters: int,
    layout: Layout,
    scale: float,
    ranks: Ranks,
) -> Context:
    """`make_context` once the labels [Hkv, n - W] are known: lay out, and calibrate."""
    heads, whole, _ = k.shape
    older = labels.shape[1]
    centroids, counts = cluster_means(k[:, :older], labels, num_clusters)
    parents = coarse = coarse_counts = None
    num_coarse = int((layout.coarse_share or 0) * older)
    if num_coarse >= 2:
        parents = kmeans(
            unit(centroids), num_coarse, seed=layout.seed, iterations=layout.iterations
        ).labels
        coarse, _ = cluster_means(centroids, parents, num_coarse)
        zeros = torch.zeros_like(counts[:, :num_coarse])
        coarse_counts = zeros.scatter_add(1, parents, counts)
    order, starts = _lay_out(labels, whole, num_clusters)
    place = order.long()[..., None]
    grouped = queries.reshape(heads, -1, *queries.shape[1:])
    scores = mean_scores(grouped, centroids, counts, scale, layout.per_head)
    above, above_counts = scores[:, :0], counts[:, :0]
    if coarse is not None and coarse_counts is not None:
        above = mean_scores(grouped, coarse, coarse_counts, scale, layout.per_head)
        above_counts = coarse_counts
    ranks.add(scores, counts, above, above_counts)
    return Context(
        k=k.gather(1, place.expand(-1, -1, k.shape[-1])),
        v=v.gather(1, place.expand(-1, -1, v.shape[-1])),
        order=order,
        starts=starts,
        centroids=centroids,
        counts=counts,
        parents=parents,
        coarse_centroids=coarse,
        coarse_counts=coarse_counts,
        ranks=ranks,
    )


def _exact(k: Tensor, v: Tensor) -> Context:
    heads, whole, size = k.shape
    order = torch.arange(whole, dtype=torch.int32, device=k.device).expand(heads, -1).contiguous()
    starts = torch.tensor([0, whole], device=k.device).expand(heads, -1).contiguous()
    none = torch.zeros(heads, 0, dtype=torch.int64, device=k.device)
    empty = torch.zeros(heads, 0, size, dtype=torch.float32, device=k.device)
    return Context(k.contiguous(), v.contiguous(), order, starts, empty, none)


def _lay_out(labels: Tensor, whole: int, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Tokens in the order they are stored in, and where each cluster starts."""
    heads, older = labels.shape
    home = labels.clone()
    home[:, 0] = num_clusters  # token 0 lies with what is always kept
    order = home.argsort(dim=1, stable=True)
    newest = torch.arange(older, whole, device=labels.device).expand(heads, -1)
    sizes = torch.zeros(heads, num_clusters + 1, dtype=torch.int64, device=labels.device)
    sizes.scatter_add_(1, home, torch.ones_like(home))
    sizes[:, -1] += whole - older
    starts = torch.cat((torch.zeros_like(sizes[:, :1]), sizes.cumsum(1)), dim=1)
    return torch.cat((order, newest), dim=1).to(torch.int32), starts


def cluster_scores(queries: Tensor, centroids: Tensor, counts: Tensor, scale: float) -> Tensor:
    """log S_i of every query: the attention that a key of cluster i would get if all keys lay at
    their centroids (section 4.2, eq. 2).

    Args:
        queries: [Hkv, N, D].
        centroids: [Hkv, K, D].
        counts: [Hkv, K]; clusters of 0 keys take no part.
        scale: On the scores.

    Returns:
        [Hkv, N, K] in float32, or in float64 if the queries are.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    x = queries.to(dtype) @ centroids.to(dtype).transpose(1, 2) * scale
    total = torch.logsumexp(x + counts.to(dtype).log()[:, None], dim=-1, keepdim=True)
    return x - total


def mean_scores(
    queries: Tensor, centroids: Tensor, counts: Tensor, scale: float, per_head: bool
) -> Tensor:
    """log of the mean over queries of S_i, by key-value head or by query head.

    Args:
        queries: [Hkv, G, N, D].
        centroids: [Hkv, K, D].
        counts: [Hkv, K].
        scale: On the scores.
        per_head: [Hkv * G, K] instead of the largest of each group, [Hkv, K].
    """
    groups, number = queries.shape[1:3]
    flat = cluster_scores(queries.flatten(1, 2), centroids, counts, scale)
    logs: Tensor = flat.unflatten(1, (groups, number))
    mean = logs[:, :, 0] if number == 1 else torch.logsumexp(logs, dim=2) - math.log(number)
    return mean.flatten(0, 1) if per_head else mean.amax(1)


def thresholds(scores: Tensor, weights: Tensor, steps: int = STEPS) -> Tensor:
    """Scores above which a share i/steps of the weight lies, or as little less as ties allow.

    Args:
        scores: [N].
        weights: [N], not negative.
        steps: Resolution.

    Returns:
        [steps + 1]; the last is -inf.
    """
    best = scores.argsort(descending=True)
    ranked, total = scores[best].double(), weights[best].double().cumsum(0)
    # The first score whose weight would be too much is the threshold: kept is what lies above it.
    shares = torch.arange(steps + 1, dtype=torch.float64, device=scores.device) / steps
    room = shares * total[-1] * (1 + 1e-12)
    index = torch.searchsorted(total, room, right=True).clamp(max=len(ranked) - 1)
    table = ranked[index]
    table[-1] = float("-inf")
    return table
