"""One row a (prompt, model) pair: the lengths of several answers, and what they say.

Source: Perez-Ramirez et al. (2025), "CASTILLO", section 3; the schema of the released rows.
Differs from the released rows: `cap` (most tokens an answer could have), `seed`, `top_k` 0 and
`dropped_tokens` are added, so that a cut answer can be told from a long one. A released row has
none of them and is read as it is.
Cost: a few hundred bytes a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from unspool.errors import InputError
from unspool.forensics._jsonl import read_records

PERCENTILES = (25, 50, 75, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The answers of one model to one prompt. Lengths are tokens, the end token counted."""

    sample_id: str
    prompt_id: str
    model: str
    dataset: str
    prompt_text: str
    longest_response: str
    shortest_response: str
    input_size: int
    output_sizes: tuple[int, ...]
    output_mean: float
    output_std: float
    """Of the population, not of a sample."""
    output_percentiles: Mapping[str, float]
    top_k: int
    """0: not restricted."""
    top_p: float
    temp: float
    category: str
    gen_time: float
    """Seconds for all answers to the prompt."""
    cap: int | None = None
    """Most tokens an answer could have; None: not known (the released rows)."""
    seed: int | None = None
    dropped_tokens: int = 0
    """Tokens of the prompt that the model did not read."""

    @property
    def truncated(self) -> int:
        """Answers that were cut at the cap. Their sizes are lower bounds, not lengths."""
        return 0 if self.cap is None else sum(size > self.cap for size in self.output_sizes)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["output_sizes"] = list(self.output_sizes)
        found["output_percentiles"] = dict(self.output_percentiles)
        return found


def sample_id(
    dataset: str, model: str, prompt: str, *, top_k: int, top_p: int | float, temp: int | float
) -> str:
    """The id of a (prompt, model, settings) triple, as the released rows have it."""
    name = model.replace("/", "--")
    return _hash(f"{dataset}_{name}_topk_{top_k}_topp_{top_p}_temp_{temp}_{prompt}")


def prompt_id(dataset: str, prompt: str) -> str:
    """The id of a prompt, the same for every model."""
    return _hash(f"{dataset}_{prompt}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def answer_length(ids: Sequence[int], pad: int) -> int:
    """Length of one row of a padded batch, as the paper counts: ids that are not padding, plus one.

    Where padding is the end token, as in the released code, the one that is added is the end of
    the answer, and an answer that was cut at the cap counts cap + 1.
    """
    return sum(each != pad for each in ids) + 1


def summary(sizes: Sequence[int]) -> dict[str, Any]:
    """`output_mean`, `output_std`, `output_percentiles` of some lengths, rounded as released."""
    values = np.asarray(sizes, dtype=np.float64)
    found = np.percentile(values, PERCENTILES)
    return {
        "output_mean": round(float(values.mean()), 2),
        "output_std": round(float(values.std()), 2),
        "output_percentiles": {
            f"p{p}": round(float(x), 3) for p, x in zip(PERCENTILES, found, strict=True)
        },
    }


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a file, ours or released, JSON lines or an array.

    Raises:
        PathNotFound: There is no such file.
        InputError: It is not JSON, or a row lacks a field; the message names both.
    """
    place = Path(path)
    return [
        row_of(each, f"Row {n} of {place.name}") for n, each in enumerate(read_records(place), 1)
    ]


def row_of(record: Mapping[str, Any], where: str = "The row") -> Row:
    """Check one record and make a row of it; keys that rows do not have are an error.

    Raises:
        InputError: A field is missing, unknown, or holds what it cannot.
    """
    known = {f.name for f in fields(Row)}
    optional = {"cap", "seed", "dropped_tokens"}
    missing = sorted(known - optional - set(record))
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}. See the schema of the rows.")
    unknown = sorted(set(record) - known)
    if unknown:
        raise InputError(f"{where} has unknown fields: {', '.join(unknown)}.")
    sizes = record["output_sizes"]
    if not isinstance(sizes, list) or not all(type(x) is int and x >= 1 for x in sizes):
        raise InputError(f"{where}: output_sizes must be a list of counts >= 1, got {sizes!r}.")
    if len(sizes) < 2:
        raise InputError(f"{where} has {len(sizes)} output sizes; a spread needs at least 2.")
    for name in ("output_mean", "output_std", "top_p", "temp", "gen_time"):
        if isinstance(record[name], bool) or not isinstance(record[name], int | float):
            raise InputError(f"{where}: {name} must be a number, got {record[name]!r}.")
    for name in ("model", "dataset", "prompt_text", "category", "prompt_id", "sample_id"):
        if not isinstance(record[name], str):
            raise InputError(f"{where}: {name} must be a string, got {record[name]!r}.")
    if not isinstance(record["output_percentiles"], dict):
        raise InputError(f"{where}: output_percentiles must be an object.")
    return Row(**{**record, "output_sizes": tuple(sizes)})


def caps_of(rows: Iterable[Row]) -> set[int | None]:
    """The caps that rows were collected under; more than one cannot be compared."""
    return {row.cap for row in rows}
