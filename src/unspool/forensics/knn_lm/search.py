"""Nearest keys of a datastore: exactly, or through an index of faiss.

What: `flat` compares a query with every key; `ivf` with the keys of the nearest cells; `ivfpq` with
their codes, after which the distances of what was found are computed from the keys themselves.
Source: Khandelwal et al. (2020), section 2 (IVFPQ, 4,096 cells, 64 bytes a code, 32 cells probed,
a million random keys for training); Johnson et al. (2019), faiss.
Differs from fairseq: `flat` runs in torch on the model's device, in float32 about the mean of the
keys, so that no digits are lost; codes are as long as 64 bytes where that divides the dimension;
distances are recomputed unless told otherwise (with codes alone, temperatures mean little).
Cost: flat N·d a query; ivf about probes / cells of it. Shapes: queries [n, d], keys [N, d].
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool._optional import require
from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["flat", "ivf", "ivfpq"]
Metric = Literal["l2", "ip"]
KINDS: tuple[Kind, ...] = ("flat", "ivf", "ivfpq")
FLAT_KEYS, IVF_KEYS = 200_000, 5_000_000
TRAINING, ADDED = 1_000_000, 1_000_000
CODE_BYTES, CELLS, PER_CELL = 64, 4096, 39
_SCORES = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Scores held at once by the flat search: 16 MiB, which stay in the cache, or 1 GiB."""


@runtime_checkable
class Search(Protocol):
    """Numbers and distances of the nearest keys, nearest first; -1 and inf where there are none."""

    def __call__(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]: ...


def choose(count: int) -> Kind:
    """What `auto` stands for: flat to 200,000 keys, ivf to five million, ivfpq above."""
    return "flat" if count <= FLAT_KEYS else "ivf" if count <= IVF_KEYS else "ivfpq"


def cells_of(count: int) -> int:
    """Cells of an index over so many keys."""
    return max(1, min(CELLS, count // PER_CELL))


def code_bytes(dimension: int) -> int:
    """The longest code up to 64 bytes that divides the dimension."""
    return max(m for m in range(1, CODE_BYTES + 1) if dimension % m == 0)


def index_bytes(kind: Kind, count: int, dimension: int) -> int:
    """About how large an index file is."""
    cells = cells_of(count) * dimension * 4
    if kind == "flat":
        return 0
    each = dimension * 4 if kind == "ivf" else code_bytes(dimension)
    tables = 256 * dimension * 4 if kind == "ivfpq" else 0
    return cells + tables + count * (each + 8)


class Flat:
    """Every key, in float32, on one device."""

    def __init__(self, keys: NDArray[Any], metric: Metric = "l2", device: str = "cpu") -> None:
        import torch

        self.metric = metric
        self.keys = torch.from_numpy(np.array(keys, dtype=np.float32)).to(device)
        # Distances do not change when everything is moved, and small numbers keep their digits.
        centre = metric == "l2" and len(keys) > 0
        mean = self.keys.mean(dim=0) if centre else None
        self.mean = torch.zeros_like(self.keys[0:1].sum(dim=0)) if mean is None else mean
        self.keys -= self.mean
        self.norms = (self.keys**2).sum(dim=1)

    def __call__(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        import torch

        count = len(self.keys)
        near, far = [], []
        rows = max(1, _SCORES.get(self.keys.device.type, 1 << 22) // max(1, count))
        moved = queries.to(self.keys.device).float() - self.mean
        for start in range(0, len(moved), rows):
            some = moved[start : start + rows]
            if self.metric == "l2":  # the query's own norm changes no order
                scores = torch.addmm(self.norms, some, self.keys.T, alpha=-2)
                own = (some**2).sum(dim=1, keepdim=True)
            else:
                scores, own = -(some @ self.keys.T), torch.zeros_like(some[:, :1])
            best = scores.topk(min(k, count), dim=1, largest=False, sorted=True)
            near.append(best.indices)
            values = best.values + own
            far.append(values.clamp(min=0) if self.metric == "l2" else values)
        return torch.cat(near), torch.cat(far)


class Faiss:
    """An index of faiss, with distances recomputed from the keys."""

    def __init__(
        self, index: Any, keys: NDArray[Any], metric: Metric, probes: int, recompute: bool
    ) -> None:
        self.index, self.keys, self.metric, self.recompute = index, keys, metric, recompute
        self.index.nprobe = probes

    def __call__(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        import torch

        rows = queries.float().cpu().numpy()
        far, near = self.index.search(rows, min(k, len(self.keys)))
        if self.metric == "ip":
            far = -far
        if self.recompute:
            far = np.stack(
                [self._exact(q, found) for q, found in zip(rows, near, strict=True)]
            ).astype(np.float32)
            order = np.argsort(far, axis=1, kind="stable")
            far, near = np.take_along_axis(far, order, 1), np.take_along_axis(near, order, 1)
        far = np.where(near < 0, np.float32(math.inf), far)
        device = queries.device
        return torch.from_numpy(near).to(device), torch.from_numpy(far).to(device)

    def _exact(self, query: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
        keys = self.keys[np.maximum(found, 0)].astype(np.float32)
        exact = -(keys @ query) if self.metric == "ip" else ((keys - query) ** 2).sum(axis=1)
        return np.where(found < 0, np.float32(math.inf), exact)


def build_index(
    keys: NDArray[Any],
    path: Path,
    kind: Kind,
    metric: Metric,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train an index and add every key; the file appears when it is whole.

    Raises:
        MissingExtra: faiss is not installed.
    """
    faiss = require("faiss", extra="retrieve", purpose=f"An index of kind {kind}")
    count, dimension = keys.shape
    kinds = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}
    coarse = faiss.IndexFlat(dimension, kinds[metric])
    cells = cells_of(count)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(coarse, dimension, cells, kinds[metric])
    else:
        code = code_bytes(dimension)
        bits = 8 if count >= 256 else max(1, int(math.log2(max(2, count))))
        index = faiss.IndexIVFPQ(coarse, dimension, cells, code, bits, kinds[metric])
        index.pq.cp.min_points_per_centroid = 1
    index.cp.min_points_per_centroid = 1
    index.cp.seed = seed
    draw = np.random.default_rng(seed)
    some = np.sort(draw.choice(count, min(count, TRAINING), replace=False))
    index.train(keys[some].astype(np.float32))
    for start in range(0, count, ADDED):
        index.add(keys[start : start + ADDED].astype(np.float32))
        on_progress(min(start + ADDED, count), count)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        faiss.write_index(index, str(making))
        with making.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(making, path)
    finally:
        making.unlink(missing_ok=True)


def open_index(
    path: Path, keys: NDArray[Any], metric: Metric, probes: int, recompute: bool
) -> Faiss:
    """An index that `build_index` wrote.

    Raises:
        InputError: The file is missing, broken, or of other keys.
    """
    faiss = require("faiss", extra="retrieve", purpose="Reading the index of a datastore")
    if probes < 1:
        raise ConfigError(f"probes must be >= 1, got {probes}.")
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path.name} cannot be read as an index. Delete it and run the build again."
        ) from error
    if index.ntotal != len(keys) or index.d != keys.shape[1]:
        raise InputError(
            f"{path.name} has {index.ntotal:,} keys of {index.d} numbers, and the datastore has "
            f"{len(keys):,} of {keys.shape[1]}. Delete it and run the build again."
        )
    coded = isinstance(faiss.downcast_index(index), faiss.IndexIVFPQ)
    return Faiss(index, keys, metric, probes, recompute and coded)
