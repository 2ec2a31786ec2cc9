"""Each sample of a run on the report page: prompt, answer, score, what was cut, where it stands.

Long texts are shown by their ends and around the expected answer, and say how much is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unspool._overflow import shorten
from unspool.errors import ConfigError
from unspool.evaluation import _io
from unspool.evaluation.contamination import read_marks
from unspool.evaluation.render.facts import sorted_levels
from unspool.evaluation.render.markup import anchor, target, text
from unspool.evaluation.report import SCORES, Report, joined
from unspool.evaluation.spec import Response, Sample

SHOWN_SAMPLES = 40
"""Most samples of a cell on the page of a long run."""
_AROUND = 300
"""Characters shown on either side of an expected answer that stands in a long prompt."""
_PAGE_SAMPLES = 1000
"""Up to so many samples in all, every one is on the page."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How much of a run the page shows; what it leaves out it says."""

    samples: int | None = None
    """Most samples of a cell; None: all of them, and 40 in runs of more than 1,000."""
    characters: int = 2400
    """Most characters of a prompt or an answer."""

    def __post_init__(self) -> None:
        for name, value in (("samples", self.samples), ("characters", self.characters)):
            if value is not None and value < 1:
                raise ConfigError(f"A page shows at least one of {name}, got {value}.")


def samples(report: Report, shown: Shown | None = None) -> str:
    """Every sample of a run by task, level and depth."""
    shown = shown or Shown()
    marks = read_marks(report.folder)
    scores = {
        (row["task"], row["level"], row["sample"], row["repeat"]): row["scores"]
        for _, row in _io.read_lines(report.folder / SCORES)
    }
    most = shown.samples
    if most is None and len(scores) > _PAGE_SAMPLES:
        most = SHOWN_SAMPLES
    groups: dict[tuple[str, str, float | None], list[str]] = {}
    hidden: dict[tuple[str, str, float | None], int] = {}
    for record, sample, repeat, response in joined(report.folder):
        key = (record["task"], sample.level, sample.depth)
        group = groups.setdefault(key, [])
        if most is not None and len(group) >= most:
            hidden[key] = hidden.get(key, 0) + 1
            continue
        found = scores.get((record["task"], sample.level, sample.id, repeat))
        mark = marks.get(record["task"], {}).get(f"{sample.level}\t{sample.id}")
        group.append(_sample(sample, repeat, response, found, mark, shown.characters))
    parts = []
    for name, task in report.data["tasks"].items():
        inner = []
        for level, _ in sorted_levels(task):
            cells = sorted(
                ((key, group) for key, group in groups.items() if key[:2] == (name, level)),
                key=lambda cell: -1.0 if cell[0][2] is None else cell[0][2],
            )
            body = ""
            for key, group in cells:
                rest = hidden.get(key, 0)
                note = (
                    f'<p class="note">{rest:,} more are in samples.jsonl and scores.jsonl.</p>'
                    if rest
                    else ""
                )
                if key[2] is None:
                    body += "".join(group) + note
                else:
                    cell = anchor("cell", name, level, f"{key[2]:g}")
                    body += (
                        f"<details><summary>depth {100 * key[2]:g}% "
                        f"<small>{len(group) + rest:,} samples</small></summary>{target(cell)}"
                        + "".join(group)
                        + note
                        + "</details>"
                    )
            inner.append(
                f"<details><summary>{text(level)}</summary>"
                f"{target(anchor('level', name, level))}{body}</details>"
            )
        parts.append(f"<details><summary>{text(name)}</summary>{''.join(inner)}</details>")
    return "".join(parts)


def _sample(
    sample: Sample,
    repeat: int,
    response: Response | None,
    scores: dict[str, float] | None,
    mark: dict[str, Any] | None,
    characters: int,
) -> str:
    main = scores["score"] if scores else None
    grade = "none" if main is None else "good" if main >= 0.5 else "bad"
    shown = "no answer" if main is None else f"{100 * main:.0f}"
    again = f" repeat {repeat}" if repeat else ""
    parts = sample.parts
    facts = [f"{value:,} {unit}" for unit, value in sorted(sample.lengths.items())]
    if response is not None:
        facts.append(
            f"{response.truncated_tokens:,} tokens cut" if response.truncated_tokens else "not cut"
        )
        if response.finish_reason != "scored":
            facts.append(f"ended by {response.finish_reason}")
    if mark:
        facts.append(f"longest overlap with the index {mark['longest']:,} bytes")
    numbers = {k: v for k, v in (scores or {}).items() if k != "score"}
    if numbers:
        facts.append(", ".join(f"{k} {v:g}" for k, v in numbers.items()))
    prompt = parts.prefix + parts.context + parts.query + parts.answer_prefix
    found = _where(prompt, sample.references)
    if found is not None:
        facts.append(f"the expected text stands at characters {found[0]:,}-{found[1]:,}")
    blocks = [("expected", "\n".join(sample.references))]
    if sample.choices and response is not None and response.logprobs:
        ranked = sorted(zip(response.logprobs, sample.choices, strict=True), reverse=True)
        blocks.append(("answer, by log-probability", "\n".join(_ranked(ranked, sample.references))))
    elif response is not None:
        blocks.append(("answer", response.text))
    if mark and mark["contaminated"]:
        blocks.append(("in the index", mark["text"]))
    return (
        f'<details class="sample"><summary><span class="{grade}">{shown}</span> '
        f"{text(sample.id)}{again}</summary>"
        f'<p class="note">{text(" · ".join(facts))}</p>'
        + f"<h4>prompt</h4><pre>{_shown(prompt, characters, found)}</pre>"
        + "".join(
            f"<h4>{title}</h4><pre>{_shown(block, characters)}</pre>" for title, block in blocks
        )
        + "</details>"
    )


def _ranked(scored: Sequence[tuple[float, str]], references: Sequence[str]) -> list[str]:
    """A line a candidate, the likeliest first; the expected ones are marked."""
    return [
        f"{nats:9.3f} {candidate}{'  (expected)' if candidate in references else ''}"
        for nats, candidate in scored
    ]


def _where(prompt: str, references: Sequence[str]) -> tuple[int, int] | None:
    """Where the last piece of the prompt stands that spells an expected answer, if one does."""
    for reference in references:
        wanted = reference.strip()
        at = prompt.rfind(wanted) if len(wanted) > 1 else -1
        if at >= 0:
            return at, at + len(wanted)
    return None


def _shown(block: str, most: int, found: tuple[int, int] | None = None) -> str:
    """A text; a long one by its ends and around what was found, with how much is left out."""
    if not block:
        return '<i class="note">empty</i>'
    keep = set(shorten(range(len(block)), most, "ends").ids)
    if found is not None:
        keep.update(range(max(0, found[0] - _AROUND), min(len(block), found[1] + _AROUND)))
    pieces: list[str] = []
    at = 0
    for first, last in _runs(sorted(keep)):
        if first > at:
            pieces.append(f'<i class="gap">{first - at:,} characters are not shown here</i>')
        pieces.append(_marked(block, first, last, found))
        at = last
    return "".join(pieces)


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Stretches of consecutive numbers as (first, one past the last)."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def _marked(block: str, first: int, last: int, found: tuple[int, int] | None) -> str:
    if found is None or not (first <= found[0] and found[1] <= last):
        return text(block[first:last])
    return (
        f"{text(block[first : found[0]])}<mark>{text(block[found[0] : found[1]])}</mark>"
        f"{text(block[found[1] : last])}"
    )
