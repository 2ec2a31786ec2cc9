"""k-means over keys, all heads in one batched call.

What: k-means++ starts drawn in rounds, Lloyd's iterations or mini-batches, on unit vectors.
Source: Lloyd (1982); Arthur & Vassilvitskii (2007); drawing many starts a round is k-means||
(Bahmani et al. 2012) with its rounds fixed; mini-batches as in Sculley (2010). The recipe (unit
keys, k-means++, at most 300 iterations) is that of Squeezed Attention, section 4.1.
Differs from scikit-learn: a leading dimension of independent problems, and a stop when the inertia
falls by less than three parts in ten thousand.
Cost: O(H n K D) an iteration; scores are made in blocks of 64 MiB. Shapes: x [H, n, D].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK_BYTES = 64 << 20
_ROUNDS = 16
_TOLERANCE = 3e-4


class KMeans(NamedTuple):
    """A clustering of each of H sets of points."""

    labels: Tensor
    """[H, n] int64."""
    centers: Tensor
    """[H, K, D]."""
    inertia: Tensor
    """[H] sum of squared distances to the nearest center."""


def kmeans(
    x: Tensor, num_clusters: int, *, seed: int = 0, iterations: int = 300, batch: int | None = None
) -> KMeans:
    """Cluster each of H sets of points.

    Args:
        x: [H, n, D] float; n >= 1.
        num_clusters: K, at most n.
        seed: Of the starts and of the mini-batches.
        iterations: At most so many.
        batch: Points an iteration looks at; None: all of them, until nothing moves.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    centers = _starts(x, num_clusters, generator)
    if batch is not None and batch < x.shape[1]:
        centers = _mini_batches(x, centers, batch, iterations, generator)
        labels, nearest = _assign(x, centers)
        return KMeans(labels, centers, nearest.sum(-1))
    before = None
    for _ in range(max(1, iterations)):
        labels, nearest = _assign(x, centers)
        inertia = nearest.sum(-1)
        if before is not None and bool((before - inertia <= _TOLERANCE * before).all()):
            break
        before = inertia
        centers = _means(x, labels, centers)
    return KMeans(*_final(x, centers))


def unit(x: Tensor) -> Tensor:
    """Points scaled to length 1, in float32; a zero stays zero."""
    return F.normalize(x.float(), dim=-1)


def cluster_means(x: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Mean of the points of each cluster [H, K, D] in float32 (0 if it is empty), and their counts
    [H, K]."""
    sums, counts = _sums(x.float(), labels, num_clusters)
    return sums / counts.clamp(min=1)[..., None], counts


def _final(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    labels, nearest = _assign(x, centers)
    return labels, centers, nearest.sum(-1)


def _starts(x: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ in rounds: points far from every start so far are drawn with more weight."""
    sets, points, _ = x.shape
    first = torch.randint(points, (sets, 1), generator=generator).to(x.device)
    chosen = first
    nearest = _distances(x, _pick(x, first))
    a_round = max(1, (num_clusters - 1) // _ROUNDS)
    while chosen.shape[1] < num_clusters:
        wanted = min(a_round, num_clusters - chosen.shape[1])
        weights = nearest.clamp(min=0).scatter(1, chosen, 0.0)
        # Where fewer distinct points are left than are wanted, any point not yet taken will do.
        spare = torch.full_like(weights, 1e-30).scatter(1, chosen, 0.0)
        drawn = torch.multinomial((weights + spare).cpu(), wanted, generator=generator)
        new = drawn.to(x.device)
        chosen = torch.cat((chosen, new), dim=1)
        nearest = torch.minimum(nearest, _distances(x, _pick(x, new)))
    return _pick(x, chosen)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _distances(x: Tensor, centers: Tensor) -> Tensor:
    """Squared distance [H, n] to the nearest of some centers."""
    return _assign(x, centers)[1]


def _assign(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest center of each point [H, n], and the squared distance to it."""
    sets, points, _ = x.shape
    norms = centers.square().sum(-1)[:, None]
    step = max(1, _BLOCK_BYTES // (4 * sets * centers.shape[1]))
    labels, best = [], []
    for start in range(0, points, step):
        block = x[:, start : start + step]
        scores = torch.baddbmm(norms, block, centers.transpose(1, 2), beta=-0.5)
        top, label = scores.max(-1)
        labels.append(label)
        best.append((block.square().sum(-1) - 2 * top).clamp(min=0))
    return torch.cat(labels, 1), torch.cat(best, 1)


def _sums(x: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    sets, _, size = x.shape
    first = torch.arange(sets, device=x.device)[:, None] * num_clusters
    flat = (labels + first).flatten()
    sums = x.new_zeros(sets * num_clusters, size).index_add_(0, flat, x.reshape(-1, size))
    counts = torch.bincount(flat, minlength=sets * num_clusters)
    return sums.view(sets, num_clusters, size), counts.view(sets, num_clusters)


def _means(x: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """New centers; one that lost all of its points stays where it was."""
    sums, counts = _sums(x, labels, centers.shape[1])
    return torch.where((counts > 0)[..., None], sums / counts.clamp(min=1)[..., None], centers)


def _mini_batches(
    x: Tensor, centers: Tensor, batch: int, iterations: int, generator: torch.Generator
) -> Tensor:
    met = centers.new_zeros(centers.shape[:2])
    # Every point is met about ten times: more moves the centers by less than a start does.
    for _ in range(min(iterations, -(-10 * x.shape[1] // batch))):
        index = torch.randint(x.shape[1], (batch,), generator=generator).to(x.device)
        block = x[:, index]
        labels, _ = _assign(block, centers)
        sums, counts = _sums(block, labels, centers.shape[1])
        met = met + counts
        rate = (counts / met.clamp(min=1))[..., None]
        target = sums / counts.clamp(min=1)[..., None]
        centers = centers + rate * (target - centers)
    return centers
