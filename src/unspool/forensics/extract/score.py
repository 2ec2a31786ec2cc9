"""What answers are worth: recall, with confidence and without, against the truth and controls.

Source: Zhang et al. (2023), "Ethicist", section 4. Recall: the share of prefixes whose surest
answer is right in all its tokens. Recall at early stop: prefixes in order of confidence, right
answers before the 100th wrong one, over all prefixes (the measure of the public benchmark).
Differs from the released code: ties of confidence are walked in the order of ids; added are the
curve of precision and recall, recall at k, the rank of the truth among the samples, how often an
answer of some confidence is right, and the area under the curve of members against controls.
Cost: a sort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unspool._overflow import shorten
from unspool.errors import ConfigError, InputError
from unspool.forensics.extract.confidence import best
from unspool.forensics.extract.pairs import Pair

_BINS = 10


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was extracted. Shares are of the prefixes that are no controls."""

    rows: tuple[dict[str, Any], ...]
    """A prefix: `id`, `split`, `confidence`, `exact` (None: not known), `rank` of the truth among
    the samples from 1 (None: not sampled), `agreed` tokens, `distinct` samples, `digest`, `text`.
    """
    confidence: str
    prefixes: int
    recall: float | None = None
    early_stop: float | None = None
    """Right answers before the last wrong one that is allowed, over all prefixes."""
    recall_at: Mapping[int, float] | None = None
    """Share of prefixes whose truth is among the k surest samples."""
    greedy: float | None = None
    """Recall of the greedy text."""
    beam: float | None = None
    controls: int = 0
    control_recall: float | None = None
    """Of texts that the model was never trained on: what can be guessed."""
    auc: float | None = None
    """Chance that a member is surer than a control, ties half."""
    curve: tuple[tuple[float, float], ...] = ()
    """Recall and precision as more answers are taken, the surest first."""
    reliability: tuple[Mapping[str, float], ...] = ()
    """By tenths of the confidence: how many answers, their mean confidence, the share right."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def totals(self) -> dict[str, Any]:
        """All but the rows and curves."""
        found = asdict(self)
        for name in ("rows", "curve", "reliability"):
            del found[name]
        if self.recall_at is not None:
            found["recall_at"] = {str(k): v for k, v in self.recall_at.items()}
        return found


def score(
    records: Sequence[Mapping[str, Any]],
    truth: Sequence[Pair] | None = None,
    *,
    confidence: str = "calibrated",
    stop_errors: int = 100,
) -> Extraction:
    """Choose an answer for every prefix and, where the truth is known, say how many are right.

    Args:
        records: What `attack` returned.
        truth: Pairs with suffixes; None: nothing is known, and only confidences are given. Where
            fewer tokens were asked for, as many of a suffix count.
        confidence: calibrated, ppl, zlib or compare.
        stop_errors: Wrong answers at which the walk of the early stop ends.

    Raises:
        ConfigError: A setting cannot work.
        InputError: There are no records, or the truth of one is missing.
    """
    if stop_errors < 1:
        raise ConfigError(f"stop_errors must be >= 1, got {stop_errors}.")
    if not records:
        raise InputError("There are no answers to score.")
    known = None if truth is None else {pair.id: pair.suffix for pair in truth}
    rows = [_row(record, known, confidence) for record in records]
    members = [row for row in rows if row["split"] != "control"]
    others = [row for row in rows if row["split"] == "control"]
    area = None
    if members and others:
        area = auc([r["confidence"] for r in members], [r["confidence"] for r in others])
    found: dict[str, Any] = {"auc": area, "prefixes": len(members), "controls": len(others)}
    if known is not None:
        found["control_recall"] = _mean([r["exact"] for r in others])
        if members:
            found |= _against_truth(members, records, known, stop_errors)
    # The texts of answers are compared with the truth through `exact` alone.
    shown = tuple({k: v for k, v in row.items() if not k.startswith("_")} for row in rows)
    if members and known is not None and confidence == "calibrated":
        found["reliability"] = _reliability(members)
    return Extraction(shown, confidence, **found)


def _row(
    record: Mapping[str, Any], known: Mapping[str, tuple[int, ...]] | None, method: str
) -> dict[str, Any]:
    samples = record["samples"] or [{"count": 1, **record["greedy"]}]
    chosen, sure = best(samples, method)
    answer = samples[chosen]
    row: dict[str, Any] = {
        "id": record["id"],
        "split": record["split"],
        "confidence": sure[chosen],
        "exact": None,
        "rank": None,
        "agreed": None,
        "distinct": len(samples),
        "count": answer["count"],
        "loss": answer["loss"],
        "digest": hashlib.sha256(np.array(answer["tokens"], "<u4").tobytes()).hexdigest()[:16],
        "tokens": len(answer["tokens"]),
        "text": answer.get("text"),
        "prefix_text": record.get("prefix_text"),
    }
    if known is not None:
        if not known.get(record["id"]):
            raise InputError(
                f"The truth of {record['id']!r} is not among the pairs. Give the pairs that were "
                f"asked, or none."
            )
        right = _right(known, record)
        order = sorted(range(len(samples)), key=lambda i: (-sure[i], samples[i]["loss"]))
        ranks = [n for n, i in enumerate(order, 1) if samples[i]["tokens"] == right]
        row["exact"] = answer["tokens"] == right
        row["rank"] = ranks[0] if ranks else None
        pairs = zip(answer["tokens"], right, strict=True)
        row["agreed"] = next((n for n, (a, b) in enumerate(pairs) if a != b), len(right))
    return row


def _right(known: Mapping[str, tuple[int, ...]], record: Mapping[str, Any]) -> list[int]:
    """The true suffix, as much of it as was asked for."""
    truth, asked = known[record["id"]], len(record["greedy"]["tokens"])
    if len(truth) < asked:
        raise InputError(
            f"The answers to {record['id']!r} have {asked} tokens and the truth has {len(truth)}: "
            f"they were drawn for other pairs."
        )
    return shorten(truth, asked, keep="head").ids


def _against_truth(
    rows: Sequence[dict[str, Any]],
    records: Sequence[Mapping[str, Any]],
    known: Mapping[str, tuple[int, ...]],
    stop_errors: int,
) -> dict[str, Any]:
    total = len(rows)
    walk = [row["exact"] for row in sorted(rows, key=lambda r: (-r["confidence"], r["id"]))]
    right = np.cumsum(walk)
    wrong = np.arange(1, total + 1) - right
    reached = np.flatnonzero(wrong >= stop_errors)
    stop = int(reached[0]) if len(reached) else total - 1
    ids = {row["id"] for row in rows}
    single: dict[str, list[bool]] = {"greedy": [], "beam": []}
    for record in records:
        for name, found in single.items():
            if record["id"] in ids and record.get(name) is not None:
                found.append(record[name]["tokens"] == _right(known, record))
    most = max(row["distinct"] for row in rows)
    steps = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= most] or [1]
    taken = np.arange(1, total + 1)
    return {
        "recall": float(right[-1]) / total,
        "early_stop": float(right[stop]) / total,
        "recall_at": {
            k: sum(row["rank"] is not None and row["rank"] <= k for row in rows) / total
            for k in steps
        },
        "greedy": _mean(single["greedy"]),
        "beam": _mean(single["beam"]),
        "curve": tuple(zip((right / total).tolist(), (right / taken).tolist(), strict=True)),
    }


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _reliability(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float], ...]:
    bins: list[list[dict[str, Any]]] = [[] for _ in range(_BINS)]
    for row in rows:
        bins[min(_BINS - 1, int(row["confidence"] * _BINS))].append(row)
    return tuple(
        {
            "from": number / _BINS,
            "answers": len(held),
            "confidence": sum(r["confidence"] for r in held) / len(held),
            "right": sum(r["exact"] for r in held) / len(held),
        }
        for number, held in enumerate(bins)
        if held
    )


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Share of (member, other) pairs in which the member is higher, ties half."""
    order = np.sort(np.array(others))
    values = np.array(members)
    below = np.searchsorted(order, values, side="left").sum()
    upto = np.searchsorted(order, values, side="right").sum()
    return float(below + upto) / 2 / (len(values) * len(order))
