"""Passages cut in two: a prefix that the model is shown and the suffix that it should give back.

Source: Zhang et al. (2023), "Ethicist", section 4: 50 tokens and 50 tokens, some pairs to train a
prompt, some to validate it, the rest to test.
Differs from the released data: documents are split, not passages, so that no document stands on two
sides; a prefix that occurs more than once is kept once (of the 15,000 released rows 2,301 repeat an
earlier prefix), first in the test split; controls, which the model was never trained on, make a
split of their own.
Cost: one pass of the tokenizer over the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError
from unspool.types import Document

Split = Literal["train", "val", "test", "control"]
_FIRST: tuple[Split, ...] = ("test", "val", "train", "control")
"""Who keeps a prefix that several splits have."""
_KIND = "pairs of a prefix and its suffix"


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids of a passage, cut in two."""

    id: str
    split: Split
    prefix: tuple[int, ...]
    suffix: tuple[int, ...] = ()
    """Empty where the truth is not known."""

    @property
    def key(self) -> str:
        """A digest of the prefix, by which overlaps are found."""
        return hashlib.sha256(np.array(self.prefix, dtype="<u4").tobytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs, and what did not become one."""

    pairs: tuple[Pair, ...]
    too_short: int = 0
    """Documents without a whole passage."""
    repeated: int = 0
    """Passages whose prefix another one has."""
    beyond: int = 0
    """Passages beyond the limit of their split."""

    def of(self, *splits: Split) -> list[Pair]:
        """The pairs of some splits, in order."""
        return [pair for pair in self.pairs if pair.split in splits]


def make_pairs(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    prefix: int = 50,
    suffix: int = 50,
    stride: int | None = None,
    shares: tuple[float | int, float | int, float | int] = (0.6, 0.1, 0.3),
    limit: int | None = None,
    dedup: bool = True,
    seed: int = 0,
    controls: Iterable[Document] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairSet:
    """Cut documents into pairs and split them by document.

    Args:
        documents: Texts that the model was, or may have been, trained on.
        tokenizer: The model's, of transformers.
        prefix: Tokens that are shown.
        suffix: Tokens that are asked for.
        stride: Tokens from one passage to the next; None: passages do not overlap.
        shares: Of the documents, for train, val and test.
        limit: Most pairs of a split, drawn by the seed; None: all.
        dedup: Keep one of several passages with the same prefix.
        seed: Of the split and the limit.
        controls: Texts that the model was never trained on.
        on_progress: Called with documents done and documents in all.

    Raises:
        ConfigError: A setting cannot work.
        InputError: No document is long enough, or there are too few for the shares.
    """
    step = prefix + suffix if stride is None else stride
    if prefix < 1 or suffix < 1 or step < 1 or (limit is not None and limit < 1):
        raise ConfigError(
            f"prefix, suffix, stride and limit must be >= 1, got {prefix}, {suffix}, {stride} and "
            f"{limit}."
        )
    if min(shares) < 0 or sum(shares) <= 0:
        raise ConfigError(f"shares must be >= 0 and not all 0, got {shares}.")
    given, others = list(documents), list(controls)
    splits = _split(given, shares, seed)
    found: dict[Split, list[Pair]] = {split: [] for split in get_args(Split)}
    too_short = 0
    named = [(d, splits[d.id]) for d in given] + [(d, "control") for d in others]
    for number, (document, split) in enumerate(named, 1):
        ids = tokenizer(document.text, add_special_tokens=False, verbose=False).input_ids
        starts = range(0, len(ids) - prefix - suffix + 1, step)
        too_short += not len(starts)
        for at in starts:
            middle = at + prefix
            found[split].append(
                Pair(
                    f"{document.id}@{at}",
                    split,
                    tuple(ids[at:middle]),
                    tuple(ids[middle : middle + suffix]),
                )
            )
        on_progress(number, len(named))
    if not any(found.values()):
        raise InputError(
            f"None of {len(given) + len(others)} documents has {prefix + suffix} tokens. Ask for a "
            f"shorter prefix or suffix, or give longer texts."
        )
    return _choose(found, dedup, limit, seed, too_short)


def pairs_of_arrays(
    prefixes: NDArray[Any],
    suffixes: NDArray[Any],
    *,
    val: int = 1400,
    test: int = 1000,
    dedup: bool = True,
) -> PairSet:
    """Pairs from the arrays of the public benchmark: the last rows test, those before validate.

    Args:
        prefixes: Token ids, a row a pair.
        suffixes: The same rows.
        val: Rows that validate.
        test: Rows that test.
        dedup: Keep one of several rows with the same prefix.

    Raises:
        InputError: The arrays are not two tables of ids with the same number of rows.
    """
    for name, table in (("prefixes", prefixes), ("suffixes", suffixes)):
        if table.ndim != 2 or table.dtype.kind not in "iu" or (table.size and table.min() < 0):
            raise InputError(
                f"The array of {name} must be a table of token ids, got shape {table.shape} of "
                f"{table.dtype}."
            )
    rows = len(prefixes)
    if rows != len(suffixes) or val < 0 or test < 0 or val + test > rows:
        raise InputError(
            f"{rows} prefixes, {len(suffixes)} suffixes, {val} rows to validate and {test} to test "
            f"do not fit together."
        )
    names: list[Split] = ["train"] * (rows - val - test)
    names += ["val"] * val
    names += ["test"] * test
    found: dict[Split, list[Pair]] = {split: [] for split in get_args(Split)}
    for row, split in enumerate(names):
        found[split].append(
            Pair(f"row{row}", split, tuple(prefixes[row].tolist()), tuple(suffixes[row].tolist()))
        )
    return _choose(found, dedup, None, 0, 0)


def _split(
    documents: Sequence[Document], shares: Sequence[float | int], seed: int
) -> dict[str, Split]:
    """Exact shares of the documents, in an order that depends on the seed and the ids alone."""
    order = sorted((d.id for d in documents), key=lambda id: _draw(seed, id))
    whole, total = sum(shares), len(order)
    upto_train = round(total * shares[0] / whole)
    upto_val = round(total * (shares[0] + shares[1]) / whole)
    counts = (upto_train, upto_val - upto_train, total - upto_val)
    lacking = [
        name for name, n, share in zip(_ORDER, counts, shares, strict=True) if share and not n
    ]
    if lacking and total:
        raise InputError(
            f"{total} documents are too few for the shares {tuple(shares)}: {', '.join(lacking)} "
            f"would be empty, and a document is never split. Give more documents, or shares with 0."
        )
    names = [name for name, n in zip(_ORDER, counts, strict=True) for _ in range(n)]
    return dict(zip(order, names, strict=True))


_ORDER: tuple[Split, ...] = ("train", "val", "test")


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _choose(
    found: Mapping[Split, list[Pair]], dedup: bool, limit: int | None, seed: int, too_short: int
) -> PairSet:
    seen: set[tuple[int, ...]] = set()
    kept: dict[Split, list[Pair]] = {}
    repeated = beyond = 0
    for split in _FIRST:
        kept[split] = []
        for pair in found[split]:
            if dedup and pair.prefix in seen:
                repeated += 1
                continue
            seen.add(pair.prefix)
            kept[split].append(pair)
        if limit is not None and len(kept[split]) > limit:
            beyond += len(kept[split]) - limit
            drawn = {p.id for p in sorted(kept[split], key=lambda p: _draw(seed, p.id))[:limit]}
            kept[split] = [p for p in kept[split] if p.id in drawn]
    ordered = tuple(pair for split in (*_ORDER, "control") for pair in kept[split])
    return PairSet(ordered, too_short, repeated, beyond)


def check_apart(trained: Iterable[str], pairs: Sequence[Pair], what: str) -> None:
    """Refuse pairs whose prefix the prompt was trained on.

    Raises:
        InputError: There are some; the message names one.
    """
    known = set(trained)
    same = [pair.id for pair in pairs if pair.key in known]
    if same:
        raise InputError(
            f"{len(same)} of {len(pairs)} prefixes {what}, {same[0]!r} first, are also among those "
            f"that train the prompt, so they would test nothing. Make the pairs with dedup, or "
            f"force it."
        )


def check_tokens(pairs: Sequence[Pair], vocabulary: int, *, suffixes: bool) -> tuple[int, int]:
    """Lengths that all pairs share; every id must be one of the model's.

    Raises:
        InputError: Lengths differ, a suffix is missing, or an id is too large.
    """
    if not pairs:
        raise InputError("There are no pairs.")
    shape = (len(pairs[0].prefix), len(pairs[0].suffix))
    for pair in pairs:
        had = (len(pair.prefix), len(pair.suffix))
        if had[0] < 1 or had[0] != shape[0] or (suffixes and had[1] != shape[1]):
            raise InputError(
                f"Pair {pair.id!r} has {had[0]} and {had[1]} tokens and {pairs[0].id!r} has "
                f"{shape[0]} and {shape[1]}. All must have the same."
            )
        if suffixes and not had[1]:
            raise InputError(f"Pair {pair.id!r} has no suffix, and one is needed to train.")
        ids = (*pair.prefix, *pair.suffix)
        if min(ids) < 0 or max(ids) >= vocabulary:
            raise InputError(
                f"Pair {pair.id!r} has the token id {max(ids)}, and the model knows {vocabulary}. "
                f"Were the pairs made with another model's tokenizer?"
            )
    return shape


def save_pairs(made: PairSet, path: Path, model: str) -> None:
    """Write pairs as JSON lines behind a line that says whose tokens they are."""
    from unspool.index._files import storage, write_atomic

    head = {"kind": _KIND, "format": 1, "model": model}
    lines = [orjson.dumps(head) + b"\n"]
    for pair in made.pairs:
        row = {"id": pair.id, "split": pair.split, "prefix": pair.prefix, "suffix": pair.suffix}
        lines.append(orjson.dumps(row) + b"\n")
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lines)


def load_pairs(path: Path) -> PairSet:
    """Read what `save_pairs` wrote.

    Raises:
        PathNotFound: There is no such file.
        InputError: It holds something else.
    """
    from unspool.forensics._jsonl import read_records

    records = read_records(path)
    if not records or records[0].get("kind") != _KIND or records[0].get("format") != 1:
        raise InputError(f"{path.name} holds no pairs. 'unspool audit extract pairs' makes them.")
    pairs = []
    for number, row in enumerate(records[1:], 2):
        ids = (row.get("prefix"), row.get("suffix", []))
        sound = all(
            isinstance(side, list) and all(type(i) is int and i >= 0 for i in side) for side in ids
        )
        named = isinstance(row.get("id"), str) and row.get("split") in get_args(Split)
        if not sound or not named or not ids[0]:
            raise InputError(f"Line {number} of {path.name} is no pair of token ids.")
        pairs.append(Pair(row["id"], row["split"], tuple(row["prefix"]), tuple(row["suffix"])))
    if len({pair.id for pair in pairs}) < len(pairs):
        raise InputError(f"{path.name} holds an id twice.")
    return PairSet(tuple(pairs))
