"""`unspool audit extract score` and `report`: what the answers are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unspool.cli._output import emit_json, emit_table, emit_text, message

if TYPE_CHECKING:
    from unspool.forensics.extract.score import Extraction

Confidence = Literal["calibrated", "ppl", "zlib", "compare"]
_LISTED = 20
"""Answers listed on a terminal."""


def _scored(
    answers: Path,
    pairs: Path | None,
    index: tuple[Path, ...],
    confidence: str,
    stop_errors: int,
) -> tuple[dict[str, Any], Extraction, list[dict[str, Any]]]:
    from unspool.forensics.extract import score as measure
    from unspool.forensics.extract import verify
    from unspool.forensics.extract._resume import read_answers
    from unspool.forensics.extract.pairs import load_pairs

    head, records = read_answers(answers)
    truth = None if pairs is None else load_pairs(pairs).pairs
    found = measure(records, truth, confidence=confidence, stop_errors=stop_errors)
    rows = [dict(row) for row in found.rows]
    return head, found, verify(rows, index) if index else rows


def score(
    answers: Path,
    /,
    *,
    pairs: Path | None = None,
    index: tuple[Path, ...] = (),
    confidence: Confidence = "calibrated",
    stop_errors: int = 100,
    show: bool = False,
    json: bool = False,
) -> None:
    """Choose an answer for every prefix and say how sure and how right they are.

    Without --pairs nothing is known of the truth; with --index the answers are looked up in the
    corpus instead.

    Args:
        answers: What `run` wrote.
        pairs: What `pairs` wrote, with the suffixes.
        index: An index of the corpus, of bytes; may be given several times.
        confidence: calibrated: by count and likelihood among the samples; ppl: by loss; zlib: by
            loss against the compressed size; compare: by loss against a reference model.
        stop_errors: Wrong answers at which the walk of the early stop ends.
        show: Show the texts that were recovered.
        json: Print one JSON object a prefix, then one with the totals.
    """
    from unspool.forensics.extract.page import shown, totals_of

    _, found, rows = _scored(answers, pairs, index, confidence, stop_errors)
    totals = found.totals()
    if index:
        members = [row for row in rows if row["split"] != "control"]
        totals["found"] = sum(row["found"] > 0 for row in members)
        totals["behind"] = sum(row["behind"] > 0 for row in members)
    if json:
        for row in rows:
            hidden = () if show else ("text", "prefix_text")
            emit_json({k: v for k, v in row.items() if k not in hidden})
        emit_json(totals)
        return
    surest = sorted(rows, key=lambda row: (-row["confidence"], row["id"]))[:_LISTED]
    more = ("in the index", "behind its prefix") if index else ()
    emit_table(
        ("prefix", "split", "confidence", "right", *more, "answer"),
        (
            [
                row["id"],
                row["split"],
                f"{row['confidence']:.3f}",
                "" if row["exact"] is None else ("yes" if row["exact"] else "no"),
                *([row["found"], row["behind"]] if index else []),
                shown(row, show),
            ]
            for row in surest
        ),
        title=f"The {len(surest)} surest of {len(rows)} answers",
        right=("confidence", *more),
    )
    emit_text()
    emit_table(("measure", "value"), totals_of(found), right=("value",))
    if index:
        message(
            f"{totals['found']} of {found.prefixes} answers stand in the corpus, "
            f"{totals['behind']} of them behind their prefix"
        )
    if found.prefixes and found.early_stop is not None and found.prefixes <= stop_errors:
        message(
            f"The walk of the early stop never ends: there are {found.prefixes} prefixes and "
            f"{stop_errors} errors are allowed. Choose a smaller --stop-errors."
        )


def report(
    answers: Path,
    /,
    *,
    out: Path,
    pairs: Path | None = None,
    index: tuple[Path, ...] = (),
    confidence: Confidence = "calibrated",
    stop_errors: int = 100,
    show: bool = False,
    json: bool = False,
) -> None:
    """Write what `score` says, with its curves, as one HTML page.

    Args:
        answers: What `run` wrote.
        out: The page.
        pairs: What `pairs` wrote, with the suffixes.
        index: An index of the corpus, of bytes; may be given several times.
        confidence: calibrated, ppl, zlib or compare.
        stop_errors: Wrong answers at which the walk of the early stop ends.
        show: Show the texts that were recovered.
        json: Print one JSON object with the totals.
    """
    from unspool.forensics.extract.page import page_of
    from unspool.index._files import storage, write_atomic

    head, found, rows = _scored(answers, pairs, index, confidence, stop_errors)
    with storage(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, [page_of(found, head, rows=rows, show=show)])
    if json:
        emit_json({**found.totals(), "out": out})
        return
    message(f"{len(rows)} answers in {out}{'' if show else '; their texts are hidden'}")
