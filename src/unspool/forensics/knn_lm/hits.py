"""What is retrieved for a text, kept once, so that λ, temperature and k are tried without a search.

What: for every token of a text its log-probability under the model, and the values and distances of
its neighbours, in a folder that a killed run goes on with.
Source: Khandelwal et al. (2020), section 4 (tuning on a validation set).
Differs from evaluation scripts that search again for each setting: one search serves every grid.
Cost: one pass of the model and one search a token; 8·k bytes a token. Shapes: values, distances
[T, k], log_lm [T].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.forensics.knn_lm.columns import Column, reading, writing
from unspool.forensics.knn_lm.mixture import Neighbours, log_knn_of
from unspool.forensics.knn_lm.read import check_window, read
from unspool.forensics.knn_lm.states import Capture, Layer, fingerprint, locate
from unspool.forensics.knn_lm.windows import Ids, Reading, Tokens

if TYPE_CHECKING:
    from torch import Tensor

KIND = "hits"
_ROWS = 2048
"""Tokens weighed at once."""


@runtime_checkable
class Retriever(Protocol):
    """What gives neighbours for contexts: a datastore, or an n-gram index in its place."""

    @property
    def layer(self) -> Layer: ...
    @property
    def reading(self) -> Reading: ...
    @property
    def identity(self) -> str: ...
    @property
    def most(self) -> int | None: ...
    def check_model(self, model: Any, tokenizer: Any = None) -> None: ...
    def retrieve(self, states: Tensor, contexts: Sequence[Ids], k: int) -> Neighbours: ...


@dataclass(frozen=True, slots=True)
class Hits:
    """A text with what was retrieved for each of its tokens."""

    targets: NDArray[np.int32]
    documents: NDArray[np.int32]
    """Number of each token's document."""
    positions: NDArray[np.int32]
    """Of each token in its document."""
    log_lm: NDArray[np.float64]
    """Log-probability under the model, in nats."""
    values: NDArray[np.int32]
    distances: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def k(self) -> int:
        """Neighbours a token."""
        return int(self.values.shape[1])

    def neighbours(self, rows: slice, k: int) -> Neighbours:
        """Of some tokens, the k nearest.

        Raises:
            ConfigError: Fewer were kept.
        """
        import torch

        if k > self.k:
            raise ConfigError(f"k={k} was asked for, and {self.k} neighbours a token were kept.")
        values = torch.from_numpy(np.array(self.values[rows, :k], dtype=np.int64))
        return Neighbours(values, torch.from_numpy(np.array(self.distances[rows, :k])))

    def parts(self) -> Iterator[slice]:
        """Slices that cover every token."""
        for start in range(0, len(self), _ROWS):
            yield slice(start, min(start + _ROWS, len(self)))

    def log_retrieved(self, k: int, temperature: float | int) -> NDArray[np.float64]:
        """log p_kNN of every token; -inf where no neighbour has it."""
        import torch

        found = np.empty(len(self))
        for rows in self.parts():
            near = self.neighbours(rows, k)
            near = Neighbours(near.values, near.distances.double())
            targets = torch.from_numpy(np.array(self.targets[rows], dtype=np.int64))
            found[rows] = log_knn_of(near, temperature, targets).numpy()
        return found


def record_hits(
    model: Any,
    retriever: Retriever,
    tokens: Tokens,
    out: Path,
    *,
    k: int = 1024,
    tokenizer: Any = None,
    budget: int = 2048,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Hits:
    """Read a text, search for every token, and keep what was found; goes on after a stop.

    Texts are read in the windows that the datastore was built with: other contexts give other
    states.

    Raises:
        ConfigError: The datastore belongs to another model or tokenizer.
        RunConflict: The folder holds the hits of something else.
    """
    import torch

    retriever.check_model(model, tokenizer)
    check_window(model, tokens, retriever.reading.window)
    windows = tokens.windows(retriever.reading)
    ends = np.cumsum([w.end - w.first for w in windows])
    k = k if retriever.most is None else min(k, retriever.most)
    plan = {
        "kind": KIND,
        "store": retriever.identity,
        "fingerprint": fingerprint(model),
        "text": tokens.digest(),
        "k": k,
        "budget": budget,
    }
    columns = {
        "targets": Column("int32"),
        "documents": Column("int32"),
        "positions": Column("int32"),
        "log_lm": Column("float64"),
        "values": Column("int32", k),
        "distances": Column("float32", k),
    }
    with writing(out, plan, columns) as rows:
        if not rows.finished:
            begun = int(np.searchsorted(ends, rows.done, side="left")) + 1 if rows.done else 0
            on_progress(rows.done, int(ends[-1]))
            with Capture(locate(model, retriever.layer)) as capture:
                for found in read(
                    model, tokens, windows[begun:], capture, logits=True, budget=budget
                ):
                    contexts = [
                        tokens.document(int(d))[: int(p)]
                        for d, p in zip(found.documents, found.positions, strict=True)
                    ]
                    near = retriever.retrieve(found.states, contexts, k)
                    targets = torch.from_numpy(found.targets.astype(np.int64))
                    log_lm = log_probability(found.logits, targets)
                    rows.add(
                        targets=found.targets,
                        documents=found.documents,
                        positions=found.positions,
                        log_lm=log_lm.numpy(),
                        values=_wide(near.values, k, 0).astype(np.int32),
                        distances=_wide(near.distances, k, np.inf),
                    )
                    on_progress(rows.done, int(ends[-1]))
            rows.finish()
    return open_hits(out)


def open_hits(folder: str | Path) -> Hits:
    """The hits of a finished folder.

    Raises:
        InputError: It holds something else, or is not finished.
    """
    _, arrays = reading(Path(folder), KIND)
    for name in ("values", "distances"):
        arrays[name] = arrays[name].reshape(len(arrays["targets"]), -1)
    return Hits(**arrays)


def log_probability(logits: Any, targets: Tensor) -> Tensor:
    """log p of one token a row in float64, a few rows of the vocabulary at a time."""
    import torch

    found = []
    for start in range(0, len(targets), 256):
        rows = logits[start : start + 256].float()
        wanted = targets[start : start + 256, None].to(rows.device)
        total = torch.logsumexp(rows, dim=1)
        found.append((rows.gather(1, wanted)[:, 0] - total).double().cpu())
    return torch.cat(found)


def _wide(found: Tensor, k: int, empty: float | int) -> NDArray[Any]:
    array: NDArray[Any] = found.cpu().numpy()
    if array.shape[1] < k:
        array = np.pad(array, ((0, 0), (0, k - array.shape[1])), constant_values=empty)
    return array
