"""What a detector's folder tells a person: a model card and a page with its length curve.

What: the card says what the detector was trained on, what it was measured to do at each length, and
where it must not be used; the page shows the same with a picture.
Source: Mitchell et al. (2019), "Model Cards for Model Reporting", for the parts of a card.
Cost: none worth naming. The texts of the data set are not quoted; names of sources are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool.forensics import page
from unspool.forensics.detect.calibration import Bin
from unspool.forensics.detect.curve import Line, draw
from unspool.forensics.detect.detector import Detector
from unspool.forensics.page import percent
from unspool.index._files import write_atomic

CARD, REPORT, CURVE = "MODEL_CARD.md", "report.html", "curve.svg"

MUST_NOT = (
    "To accuse a person. A score is evidence about a population of texts, never a verdict on one, "
    "and least of all on a short one.",
    "To grade, hire, punish or deny a service, or for anything else with an effect on a person who "
    "cannot contest it.",
    "On texts of another kind, language or length than those below, without measuring it there "
    "first: `unspool audit detect eval DETECTOR YOUR_TEXTS` gives the false alarms on human texts "
    "of yours.",
    "On generators that are not listed below. Detectors age: texts of newer models are called "
    "human with confidence.",
    "On texts that were edited, translated or paraphrased, or written by people in a language that "
    "is not their first, unless such texts were among those measured.",
)


def write_card(detector: Detector, folder: Path) -> None:
    """Write the card, the page and the picture."""
    write_atomic(folder / CARD, [card(detector).encode()])
    write_atomic(folder / CURVE, [curve_of(detector.facts["evaluation"]["lengths"]).encode()])
    write_atomic(folder / REPORT, [report(detector)])


def card(detector: Detector) -> str:
    """The model card, Markdown."""
    s, facts = detector.settings, detector.facts
    parts = [
        f"# Detector of machine text {detector.name}",
        "",
        f"An encoder ({_md(Path(s.encoder).name)}) that was trained to tell texts of the machines "
        "below from texts of the humans below. The day of its calibration is in `run.json`.",
        "",
        "## It must not be used",
        "",
        *(f"- {each}" for each in MUST_NOT),
        "",
        "## What it was trained on",
        "",
        f"{facts['training']['human']:,} human and {facts['training']['machine']:,} machine texts; "
        f"calibrated on {facts['held_out']['human']:,} and {facts['held_out']['machine']:,} others "
        "and on runs of their sentences.",
        "",
        "| Written by | Source | Texts |",
        "| --- | --- | ---: |",
        *(f"| {kind} | {_md(name)} | {count:,} |" for kind, name, count in _sources(facts)),
        "",
        *_lost(facts),
        "## What was measured",
        "",
        f"On the held-out texts, after the bound for {percent(s.target_fpr)} false alarms had been "
        "set on the same texts. Expect more false alarms elsewhere.",
        "",
        _md_table(_COLUMNS, [_row(b) for b in detector.bins]),
        "",
        "A length without a decision is too short to say, or has too few held-out texts: such "
        "texts are never flagged.",
        "",
        "F1 and the area under the curve, by the classifier alone:",
        "",
        _md_table(_PLAIN, [_plain(m) for m in facts["evaluation"]["lengths"]]),
        "",
        "## How",
        "",
        f"Loss: cross-entropy + {s.lam} times the positive-unlabelled term (prior {s.prior}, long "
        f"from {s.len_threshold} tokens); sentences deleted with probability {s.deletion}; "
        f"cleaning: {s.clean}; {s.epochs} passes, learning rate {s.lr}, {s.batch} texts a step, "
        f"at most {s.max_length} tokens, seed {s.seed}.",
        "",
    ]
    for note in facts["notes"]:
        parts += [f"Note: {note}", ""]
    return "\n".join(parts)


_COLUMNS = ("Tokens", "Human", "Machine", "Human flagged", "Machine flagged", "Decides")
_PLAIN = ("Tokens", "Human", "Machine", "F1", "AUC", "Humans called machine")


def _row(b: Bin) -> tuple[str, ...]:
    return (
        lengths(b.low, b.high),
        f"{b.human:,}",
        f"{b.machine:,}",
        percent(b.fpr),
        percent(b.tpr),
        "yes" if b.decided else "no",
    )


def _plain(m: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        lengths(m["low"], m["high"]),
        f"{m['human']:,}",
        f"{m['machine']:,}",
        percent(m["f1"]),
        "–" if m["auc"] is None else f"{m['auc']:.3f}",
        percent(m["fpr"]),
    )


def lengths(low: int, high: int | None) -> str:
    """A range of lengths as a person reads it."""
    return f"{low} and more" if high is None else f"{low}–{high - 1}"


def _lost(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if facts["empty"]:
        lines += [f"{facts['empty']:,} empty texts were left out.", ""]
    if facts["dropped_tokens"]:
        lines += [
            f"{facts['shortened']:,} texts were longer than the encoder reads: "
            f"{facts['dropped_tokens']:,} tokens at their ends were not read.",
            "",
        ]
    return lines


def _sources(facts: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    return [
        (kind, name, count)
        for kind in ("human", "machine")
        for name, count in sorted(facts["sources"][kind].items(), key=lambda e: (-e[1], e[0]))
    ]


def _code(text: str) -> str:
    """HTML of a sentence in which a command stands between backquotes."""
    parts = [page.text(part) for part in text.split("`")]
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _md(text: str) -> str:
    """Text that is nothing but text in Markdown."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-!|<>&~" else c for c in flat)


def _md_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def curve_of(found: Sequence[Mapping[str, Any]]) -> str:
    """F1, area under the curve and share found by length, as a picture."""
    names = [lengths(m["low"], m["high"]) for m in found]
    lines = [
        Line("F1", [m["f1"] for m in found]),
        Line("AUC", [m["auc"] for m in found]),
        Line("machine texts flagged", [m["flagged_machine"] for m in found]),
        Line("human texts flagged", [m["flagged_human"] for m in found]),
    ]
    return draw(names, lines, "tokens of a text")


def report(detector: Detector) -> bytes:
    """The page."""
    facts = detector.facts
    found = facts["evaluation"]["lengths"]
    warning = "".join(f"<li>{_code(each)}</li>" for each in MUST_NOT)
    body = page.section("It must not be used", f"<ul>{warning}</ul>")
    body += page.section("By length", f'<div class="x">{curve_of(found)}</div>')
    cells = [[page.text(c) for c in _row(b)] for b in detector.bins]
    body += page.section("Decisions", page.table(_COLUMNS, cells))
    cells = [[page.text(c) for c in _plain(m)] for m in found]
    body += page.section("The classifier alone", page.table(_PLAIN, cells))
    cells = [[page.text(k), page.text(n), f"{c:,}"] for k, n, c in _sources(facts)]
    body += page.section("Sources", page.table(("Written by", "Source", "Texts"), cells))
    if facts["notes"]:
        body += page.section("Notes", "".join(f"<p>{page.text(n)}</p>" for n in facts["notes"]))
    lead = page.text(
        f"Measured on held-out texts and runs of their sentences; bounds are set for "
        f"{percent(detector.settings.target_fpr)} false alarms on human texts."
    )
    return page.document(f"Detector of machine text {detector.name}", lead, body)
