"""A datastore: for every token of some texts, the state of its context and the token itself.

What: reads texts through a model once, keeps keys and values on disk, and finds the nearest.
Source: Khandelwal et al. (2020), section 2.
Differs from fairseq and neulab/knn-transformers: keys that do not fit into float16 are an error and
not infinities; the folder says which model, tokenizer, layer and windows made it, and another
model is refused; a killed build goes on where it was.
Cost: one pass of the model over the text; N · d · 2 bytes of keys, 4 of values. Shapes: keys
[N, d], values [N].
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError, StorageError
from unspool.forensics.knn_lm.columns import Column, reading, writing
from unspool.forensics.knn_lm.mixture import Neighbours
from unspool.forensics.knn_lm.read import check_window, read
from unspool.forensics.knn_lm.search import (
    KINDS,
    Flat,
    Kind,
    Metric,
    Search,
    build_index,
    cells_of,
    choose,
    index_bytes,
    open_index,
)
from unspool.forensics.knn_lm.states import (
    Capture,
    Layer,
    fingerprint,
    locate,
    tokenizer_hash,
    vocabulary_size,
)
from unspool.forensics.knn_lm.windows import Ids, Reading, Tokens

if TYPE_CHECKING:
    from torch import Tensor

KIND = "datastore"
INDEX = "index.faiss"
_LARGEST = 65504.0
"""The largest float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How a datastore is made."""

    layer: Layer = "ffn_input"
    """ffn_input: what goes into the last feed-forward block; block_output: the last block's."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the keys on disk."""
    reading: Reading = field(default_factory=Reading)
    metric: Metric = "l2"
    """l2: squared distance; ip: inner product, negated."""
    index: Kind | Literal["auto"] = "auto"
    seed: int = 1
    """Of the keys that an index is trained on."""

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise ConfigError(f"dtype must be float16 or float32, got {self.dtype!r}.")
        if self.metric not in ("l2", "ip"):
            raise ConfigError(f"metric must be l2 or ip, got {self.metric!r}.")
        if self.index not in (*KINDS, "auto"):
            raise ConfigError(f"index must be auto, {', '.join(KINDS)}, got {self.index!r}.")


@dataclass(frozen=True, slots=True)
class StorePlan:
    """What a build will cost, before anything is read."""

    documents: int
    keys: int
    dimension: int
    read_tokens: int
    """Through the model, overlaps of windows included."""
    key_bytes: int
    index_bytes: int
    index: Kind
    compared: int
    """Keys that a query is compared with, about."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_store(tokens: Tokens, dimension: int, settings: StoreSettings) -> StorePlan:
    """What a datastore of these texts will hold and take."""
    windows = tokens.windows(settings.reading)
    count = sum(w.end - w.first for w in windows)
    kind = choose(count) if settings.index == "auto" else settings.index
    return StorePlan(
        documents=len(tokens),
        keys=count,
        dimension=dimension,
        read_tokens=sum(w.end - w.start for w in windows),
        key_bytes=count * dimension * np.dtype(settings.dtype).itemsize + 4 * count,
        index_bytes=index_bytes(kind, count, dimension),
        index=kind,
        compared=count if kind == "flat" else min(count, 32 * count // cells_of(count)),
    )


def build_store(
    model: Any,
    tokenizer: Any,
    tokens: Tokens,
    out: Path,
    settings: StoreSettings | None = None,
    *,
    name: str = "",
    budget: int = 2048,
    on_progress: Callable[[int, int, str], None] = lambda done, total, stage: None,
) -> Datastore:
    """Read texts through a model and keep a key a token; goes on where it was stopped.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        tokens: The texts, from `encode(tokenizer, texts)`.
        out: A new folder, or that of a build to finish.
        settings: How it is made.
        name: Identity of the model, for people.
        budget: Tokens of a batch.
        on_progress: Called with how much is done, of how much, and the stage.

    Raises:
        StorageError: The disk has too little room.
        RunConflict: The folder holds a build of something else.
        ConfigError: The model has no such layer.
        OverflowPolicyError: The windows do not fit into the model's.
        InputError: A key does not fit into float16.
    """
    settings = settings or StoreSettings()
    check_window(model, tokens, settings.reading.window)
    place = locate(model, settings.layer)
    dimension = _dimension(model, place, tokens)
    planned = plan_store(tokens, dimension, settings)
    plan = {
        "kind": KIND,
        "model": name,
        "fingerprint": fingerprint(model),
        "tokenizer": tokenizer_hash(tokenizer),
        "vocabulary": vocabulary_size(model),
        "text": tokens.digest(),
        "documents": len(tokens),
        "dimension": dimension,
        "layer": settings.layer,
        "reading": settings.reading.to_json(),
        "metric": settings.metric,
        "index": planned.index,
        "seed": settings.seed,
        "budget": budget,
    }
    columns = {"keys": Column(settings.dtype, dimension), "values": Column("int32")}
    with writing(out, plan, columns) as rows:
        if not rows.finished:
            _check_room(out, planned, rows.done)
            _fill(model, place, tokens, settings, rows, planned.keys, budget, on_progress)
            rows.finish()
    store = Datastore.open(out, search=False)
    if planned.index != "flat" and not (out / INDEX).exists():
        on_progress(0, planned.keys, "index")
        build_index(
            store.keys,
            out / INDEX,
            planned.index,
            settings.metric,
            settings.seed,
            lambda done, total: on_progress(done, total, "index"),
        )
    return store


def _dimension(model: Any, place: Any, tokens: Tokens) -> int:
    import torch

    with Capture(place) as capture, torch.inference_mode():
        ids = torch.tensor([[*tokens.prefix, int(tokens.ids[0])]], device=model.device)
        model(ids, use_cache=False)
        return int(capture.take(1).shape[-1])


def _check_room(out: Path, planned: StorePlan, done: int) -> None:
    share = 1 - done / max(1, planned.keys)
    needed = int(planned.key_bytes * share) + planned.index_bytes
    free = shutil.disk_usage(out).free
    if needed > free:
        raise StorageError(
            f"A datastore of {planned.keys:,} keys needs {needed:,} more bytes in {out.name}, and "
            f"the disk has {free:,} free. Give less text, or another disk."
        )


def _fill(
    model: Any,
    place: Any,
    tokens: Tokens,
    settings: StoreSettings,
    rows: Any,
    total: int,
    budget: int,
    on_progress: Callable[[int, int, str], None],
) -> None:
    windows = tokens.windows(settings.reading)
    ends = np.cumsum([w.end - w.first for w in windows])
    # A batch is added whole or not at all, so the rows that are safe end with a window.
    begun = int(np.searchsorted(ends, rows.done, side="left")) + 1 if rows.done else 0
    on_progress(rows.done, total, "keys")
    with Capture(place) as capture:
        for found in read(model, tokens, windows[begun:], capture, budget=budget):
            largest = float(found.states.abs().max()) if len(found.states) else 0.0
            if settings.dtype == "float16" and largest > _LARGEST:
                raise InputError(
                    f"A key has a number of size {largest:.3g}, and float16 ends at "
                    f"{_LARGEST:.0f}. Use dtype='float32'."
                )
            rows.add(keys=found.states.cpu().numpy(), values=found.targets)
            on_progress(rows.done, total, "keys")


class Datastore:
    """Keys and values on disk, and the way to the nearest. Made by `build_store`."""

    def __init__(
        self, folder: Path, facts: dict[str, Any], keys: NDArray[Any], values: NDArray[np.int32]
    ) -> None:
        self.folder, self.facts, self.keys, self.values = folder, facts, keys, values
        self._search: Search | None = None
        self._held: Any = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        probes: int = 32,
        recompute: bool = True,
        search: bool = True,
    ) -> Datastore:
        """Open a finished datastore; its bytes are checked against their sums.

        Args:
            folder: Where it was built.
            device: Where a flat search runs.
            probes: Cells that an index looks into.
            recompute: Compute the distances of what an index finds from the keys themselves.
            search: False leaves keys and values alone, without a way to search.

        Raises:
            PathNotFound: There is no such folder.
            InputError: It holds no datastore, an unfinished or a damaged one.
        """
        place = Path(folder)
        facts, arrays = reading(place, KIND)
        store = cls(place, facts, arrays["keys"], arrays["values"])
        if search:
            store.prepare(device=device, probes=probes, recompute=recompute)
        return store

    def prepare(self, *, device: str = "cpu", probes: int = 32, recompute: bool = True) -> None:
        """Make the search ready: keys into memory, or the index opened."""
        if self.facts["index"] == "flat" or not len(self):
            self._search = Flat(self.keys, self.facts["metric"], device)
        else:
            index = self.folder / INDEX
            if not index.is_file():
                raise InputError(
                    f"{self.folder.name} has no index yet: run the build again, it goes on there."
                )
            self._search = open_index(index, self.keys, self.facts["metric"], probes, recompute)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def layer(self) -> Layer:
        """Where keys come from."""
        found: Layer = self.facts["layer"]
        return found

    @property
    def reading(self) -> Reading:
        """How texts were read, and are to be read for queries."""
        return Reading(**self.facts["reading"])

    @property
    def identity(self) -> str:
        """Tells this datastore from others."""
        return f"{self.facts['text']}-{self.facts['checksums']['keys']:08x}"

    @property
    def most(self) -> int:
        """Neighbours there are at most."""
        return max(1, len(self))

    def check_model(self, model: Any, tokenizer: Any = None) -> None:
        """Refuse a model or tokenizer that the datastore was not built with.

        Raises:
            ConfigError: Says which of dimension, weights and tokenizer differ.
        """
        size = _size_of(model)
        if size is not None and size != self.facts["dimension"]:
            raise ConfigError(
                f"{self.folder.name} has keys of {self.facts['dimension']} numbers, and the "
                f"model's states have {size}. Load the model it was built with: "
                f"{self.facts['model'] or 'unnamed'}."
            )
        if fingerprint(model) != self.facts["fingerprint"]:
            raise ConfigError(
                f"{self.folder.name} was built with other weights "
                f"({self.facts['model'] or 'unnamed'}); states of another model say nothing here. "
                f"Build a datastore with this model."
            )
        if tokenizer is not None and tokenizer_hash(tokenizer) != self.facts["tokenizer"]:
            raise ConfigError(
                f"{self.folder.name} was built with another tokenizer, so its token ids mean "
                f"other words. Load the tokenizer of {self.facts['model'] or 'its model'}."
            )

    def retrieve(self, states: Tensor, contexts: Sequence[Ids], k: int) -> Neighbours:
        """What an evaluation asks; the contexts are in the states already."""
        return self.neighbours(states, k)

    def neighbours(self, states: Tensor, k: int) -> Neighbours:
        """The values and distances of the nearest keys of each state, [n, min(k, N)]."""
        import torch

        if not len(self) or not len(states):
            shape = (len(states), 1)
            return Neighbours(
                torch.zeros(shape, dtype=torch.int64, device=states.device),
                torch.full(shape, float("inf"), device=states.device),
            )
        if self._search is None:
            self.prepare(device=str(states.device))
        if self._search is None:
            raise ConfigError(f"{self.folder.name} is not ready to be searched.")
        near, far = self._search(states, k)
        if self._held is None or self._held.device != near.device:
            self._held = torch.from_numpy(np.array(self.values, dtype=np.int64)).to(near.device)
        values = self._held[near.clamp(min=0)]
        return Neighbours(values.to(states.device), far.to(states.device))


def _size_of(model: Any) -> int | None:
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    return getattr(config, "hidden_size", None)
