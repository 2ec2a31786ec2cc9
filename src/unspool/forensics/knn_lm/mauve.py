"""MAUVE: how far apart two sets of texts are, from features of them.

What: both sets are quantised together by k-means, and the area under the curve that two kinds of
error trace, as one histogram is mixed into the other, is the score: 1 for equal histograms.
Source: Pillutla et al. (2021), "MAUVE", sections 2 and 3; (2023) for the advice on sizes.
Differs from the authors' package: features are given by the caller, since its default featuriser
(GPT-2 large) is a download; PCA by a plain singular value decomposition. On the same features both
give the same score.
Cost: one SVD of [n + m, D], five runs of k-means. It needs many texts: with fewer than a thousand a
side, compare arms of the same size only, under the same settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool._optional import require
from unspool.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MauveSettings:
    """The same for every arm of a comparison."""

    buckets: int | None = None
    """Clusters; None: a tenth of the texts of the smaller side, at least 2."""
    variance: float = 0.9
    """Share of the variance that PCA keeps."""
    scale: float | int = 5
    points: int = 25
    """Of the curve."""
    seed: int = 25


def mauve(
    p: NDArray[np.floating], q: NDArray[np.floating], settings: MauveSettings | None = None
) -> float:
    """The MAUVE score of two sets of features, between 0 and 1.

    Args:
        p: One row a text, [n, D].
        q: [m, D].
        settings: Clusters, variance, scale, points and seed.

    Raises:
        InputError: A side has fewer than two texts, or the dimensions differ.
        MissingExtra: faiss is not installed.
    """
    settings = settings or MauveSettings()
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1] or min(len(p), len(q)) < 2:
        raise InputError(
            f"MAUVE needs two sets of at least two features of one dimension, got {p.shape} and "
            f"{q.shape}."
        )
    buckets = settings.buckets or max(2, round(min(len(p), len(q)) / 10))
    first, second = histograms(p, q, buckets, settings)
    return area(first, second, settings)


def histograms(
    p: NDArray[np.floating], q: NDArray[np.floating], buckets: int, settings: MauveSettings
) -> tuple[Floats, Floats]:
    """The share of each side's texts in each cluster."""
    faiss = require("faiss", extra="retrieve", purpose="MAUVE")
    both = np.concatenate([q, p]).astype(np.float64)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-300)
    centred = both - both.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    # K-means sees distances only, but its float32 start is taken from the rows as they are: the
    # signs of the axes follow the rule of scikit-learn, so that equal features cluster equally.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    left, right = left * signs, right * signs[:, None]
    shares = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-300)
    kept = int(np.argmax(shares >= settings.variance)) + 1
    points = np.ascontiguousarray((left * singular)[:, :kept], dtype=np.float32)
    means = faiss.Kmeans(
        kept,
        buckets,
        niter=500,
        nredo=5,
        update_index=True,
        seed=settings.seed + 2,
        min_points_per_centroid=1,
    )
    means.train(points)
    _, nearest = means.index.search(points, 1)
    labels = nearest[:, 0]
    counts_q = np.bincount(labels[: len(q)], minlength=buckets)
    counts_p = np.bincount(labels[len(q) :], minlength=buckets)
    return counts_p / len(p), counts_q / len(q)


def area(p: Floats, q: Floats, settings: MauveSettings) -> float:
    """The area under the divergence curve of two histograms, the mean over both axes."""
    xs, ys = [0.0], [1.0]
    for weight in np.linspace(1e-6, 1 - 1e-6, settings.points):
        middle = weight * p + (1 - weight) * q
        xs.append(float(np.exp(-settings.scale * _divergence(p, middle))))
        ys.append(float(np.exp(-settings.scale * _divergence(q, middle))))
    x, y = np.array([*xs, 1.0]), np.array([*ys, 0.0])
    by_x, by_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    return (_trapezia(x[by_x], y[by_x]) + _trapezia(y[by_y], x[by_y])) / 2


def _trapezia(x: Floats, y: Floats) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def _divergence(p: Floats, q: Floats) -> float:
    here = p > 0
    return float((p[here] * np.log(p[here] / q[here])).sum())
