"""The report of an extraction as one HTML page that works offline.

What: totals, the curve of precision and recall, how often answers of a confidence are right, and
the answers, the surest first. Recovered strings may be private: they are shown only where that is
asked for; otherwise a digest and a length stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unspool.forensics import page
from unspool.forensics.extract.score import Extraction

_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 260, 44, 14


def page_of(
    found: Extraction,
    run: dict[str, Any],
    *,
    rows: Sequence[dict[str, Any]] | None = None,
    show: bool = False,
) -> bytes:
    """The page.

    Args:
        found: What `score` returned.
        run: The line that the answers begin with.
        rows: Its rows with what `verify` added; None: as they are.
        show: Show the texts.
    """
    listed = list(found.rows if rows is None else rows)
    settings = run["settings"]
    lead = page.text(
        f"{run['model']}, {settings['samples']} samples of {settings['suffix']} tokens, "
        f"{'with' if run['prompt'] else 'without'} a trained prompt; confidence: {found.confidence}"
    )
    parts = [page.section("In all", page.table(("measure", "value"), totals_of(found)))]
    if found.curve:
        parts.append(page.section("Precision by recall", _curve(found.curve)))
    if found.reliability:
        cells = [
            [
                f"{row['from']:.1f}–{row['from'] + 0.1:.1f}",
                str(row["answers"]),
                page.percent(row["confidence"]),
                page.percent(row["right"]),
            ]
            for row in found.reliability
        ]
        heads = ("confidence", "answers", "mean confidence", "right")
        parts.append(page.section("Is a confidence a probability?", page.table(heads, cells)))
    listed.sort(key=lambda row: (-row["confidence"], row["id"]))
    parts.append(page.section("Answers", _answers(listed, show)))
    return page.document("What a model gives back", lead, "".join(parts))


def totals_of(found: Extraction) -> list[list[str]]:
    """What was measured, as rows of two cells."""
    recall_at = found.recall_at or {}
    lines: list[tuple[str, str | None]] = [
        ("prefixes", str(found.prefixes)),
        ("recall: the surest answer is right in every token", _share(found.recall)),
        ("recall at early stop", _share(found.early_stop)),
        *(
            (f"truth among the {k} surest samples", _share(v))
            for k, v in recall_at.items()
            if k > 1
        ),
        ("recall of the greedy text", _share(found.greedy)),
        ("recall of the beam search", _share(found.beam)),
        ("controls", str(found.controls) if found.controls else None),
        ("recall of controls", _share(found.control_recall)),
        (
            "area under the curve, members against controls",
            None if found.auc is None else f"{found.auc:.3f}",
        ),
    ]
    return [[name, value] for name, value in lines if value is not None]


def _share(value: float | None) -> str | None:
    return None if value is None else page.percent(value)


def _answers(rows: Sequence[dict[str, Any]], show: bool) -> str:
    verified = bool(rows) and "found" in rows[0]
    heads = ["prefix", "split", "confidence", "right", "agreed", "drawn", "answer"]
    if verified:
        heads[6:6] = ["in the index", "behind its prefix"]
    cells = []
    for row in rows:
        right = "–" if row["exact"] is None else ("yes" if row["exact"] else "no")
        agreed = "–" if row["agreed"] is None else f"{row['agreed']} of {row['tokens']}"
        own = [
            page.text(row["id"]),
            row["split"],
            f"{row['confidence']:.3f}",
            right,
            agreed,
            str(row["count"]),
        ]
        if verified:
            own += [str(row["found"]), str(row["behind"])]
        cells.append([*own, page.text(shown(row, show))])
    return page.table(heads, cells)


def shown(row: dict[str, Any], show: bool) -> str:
    """The text of an answer, or what stands for it."""
    if show and row["text"] is not None:
        return str(row["text"])
    return f"hidden, {row['tokens']} tokens, {row['digest']}"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """An SVG without style attributes, as the page's policy asks."""
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    path = " ".join(f"{_LEFT + _WIDTH * x:.1f},{_TOP + _HEIGHT * (1 - y):.1f}" for x, y in points)
    axis = [
        f'<polyline points="{_LEFT},{_TOP} {_LEFT},{bottom} {right},{bottom}" fill="none" '
        f'stroke="currentColor"/>'
    ]
    for tick in (0, 0.5, 1):
        x, y = _LEFT + _WIDTH * tick, _TOP + _HEIGHT * (1 - tick)
        axis.append(
            f'<text x="{x:g}" y="{bottom + 16}" font-size="12" text-anchor="middle" '
            f'fill="currentColor">{tick:g}</text>'
            f'<text x="{_LEFT - 8}" y="{y + 4:g}" font-size="12" text-anchor="end" '
            f'fill="currentColor">{tick:g}</text>'
        )
    return (
        f'<svg viewBox="0 0 {right + 20} {bottom + 40}" width="{right + 20}" '
        f'height="{bottom + 40}" role="img" aria-label="precision by recall">{"".join(axis)}'
        f'<polyline points="{path}" fill="none" stroke="#0072b2" stroke-width="2"/>'
        f'<text x="{_LEFT + _WIDTH / 2:g}" y="{bottom + 34}" font-size="12" text-anchor="middle" '
        f'fill="currentColor">recall (precision upward)</text></svg>'
    )
