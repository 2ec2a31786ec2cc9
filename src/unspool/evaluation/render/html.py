"""A report as one HTML file: no script, no network, every text of a corpus or a model escaped.

What: scores, effective lengths, heat maps that lead to their samples, each sample with prompt,
answer, score and what was cut, contamination, cost, and a comparison of two runs.
Differs from notebooks and viewers: it works offline from a file, and a Content-Security-Policy
forbids everything but the page's own style sheet, by its digest.
Cost: a few kilobytes a sample; long prompts are shown by their ends and say how much is left out.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from unspool._overflow import shorten
from unspool.evaluation import _io
from unspool.evaluation.contamination import read_marks
from unspool.evaluation.render.facts import (
    compared,
    cost_of,
    grid,
    interval,
    length_text,
    p_text,
    sorted_levels,
)
from unspool.evaluation.render.style import STYLE
from unspool.evaluation.render.svg import curve, heat_map
from unspool.evaluation.report import SCORES, Report, joined
from unspool.evaluation.spec import Response, Sample

SHOWN_CHARACTERS = 3000
"""Most characters of a prompt or an answer on the page."""
SHOWN_SAMPLES = 40
"""Most samples of a cell on the page."""
_PAGE_SAMPLES = 1000
"""Up to so many samples in all, every one is on the page."""


def to_html(report: Report, *, compare: Path | None = None, swap: bool = False) -> str:
    """The page."""
    data = report.data
    body = [
        f"<header><h1>{text(data['model']['name'])}</h1><p>{_lead(data)}</p></header>",
        _section("Scores", _scores(data)),
        _section("Effective length", _effective(data)),
    ]
    for name, found in data["tasks"].items():
        body.append(_section(name, _task(name, found, swap), anchor=_anchor("task", name)))
    if compare is not None:
        body.append(_comparison(report, compare))
    body.append(_section("Contamination", _contamination(data)))
    body.append(_section("Cost", _cost(report)))
    body.append(_section("Samples", _samples(report)))
    body.append(_section("How it was measured", _facts(data)))
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(data['model']['name'])}: long-context report</title>"
        f"<style>{STYLE}</style></head>\n<body><main>" + "\n".join(filter(None, body)) + "</main>"
        "</body></html>\n"
    )


def text(value: object) -> str:
    """Text for HTML: escaped, and with control and direction characters made visible."""
    raw = str(value)
    if not (raw.isascii() and raw.isprintable()):
        raw = "".join(_visible(character) for character in raw)
    return escape(raw, quote=True)


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _lead(data: dict[str, Any]) -> str:
    cut = sum(found["overall"]["truncated_samples"] for found in data["tasks"].values())
    tokens = sum(found["overall"]["truncated_tokens"] for found in data["tasks"].values())
    window = data["model"]["window"]
    parts = [
        f"{data['answered']:,} answers",
        f"{data['missing']:,} missing" if data["missing"] else "none missing",
        f"{cut:,} prompts cut by {tokens:,} tokens" if cut else "no prompt cut",
        f"window {window:,} tokens" if window else "no window known",
        f"seed {data['settings']['seed']}",
    ]
    return " · ".join(parts)


def _scores(data: dict[str, Any]) -> str:
    rows = []
    for name, found in data["tasks"].items():
        cell = found["overall"]
        official = cell["metric"].get("score")
        rows.append(
            [
                f'<a href="#{_anchor("task", name)}">{text(name)}</a>',
                f"{cell['n']:,}",
                f"<b>{cell['mean']:.1f}</b>",
                interval(cell),
                "" if official is None else f"{official:g}",
                f"{cell['truncated_samples']:,}",
                f"{cell['stopped_by_length']:,}",
            ]
        )
    table = _table(["task", "n", "score", "95%", "official", "cut", "ended by limit"], rows)
    several = [(name, each) for name, each in data["benchmarks"].items() if each["tasks"] > 1]
    if several:
        told = ", ".join(
            f"{text(name)} {each['mean']:.1f} ({each['tasks']} tasks)" for name, each in several
        )
        table += f'<p class="note">Mean over the tasks of a benchmark: {told}.</p>'
    return table


def _effective(data: dict[str, Any]) -> str:
    rows = [
        [
            text(name),
            text(each["rule"]),
            f"<b>{length_text(each['length'])}</b>",
            f"{length_text(each['low'])} to {length_text(each['high'])}",
            "" if each["threshold"] is None else f"{each['threshold']:.1f}",
        ]
        for name, found in data["tasks"].items()
        for each in found["effective_length"]
    ]
    if not rows:
        return ""
    return _table(["task", "rule", "longest level that passes", "95%", "score needed"], rows)


def _task(name: str, found: dict[str, Any], swap: bool) -> str:
    levels = sorted_levels(found)
    unit = (found["levels_unit"] or "length").partition(":")[0]
    parts = [
        f'<p class="note">{text(found["ability"])}, {text(found["kind"])}, '
        f"{text(found['language'])}, at most {found['max_new_tokens']:,} new tokens</p>"
    ]
    pictures = []
    heat = grid(found, swap=swap)
    if heat is not None:
        pictures.append(
            heat_map(
                heat,
                lambda level, depth: _anchor("cell", name, level, f"{depth:g}"),
                f"{name}: score by length and depth",
            )
        )
    if len(levels) > 1:
        pictures.append(curve(levels, unit, f"{name}: score by length"))
    if pictures:
        parts.append(
            '<div class="row">' + "".join(f'<div class="x">{p}</div>' for p in pictures) + "</div>"
        )
    rows = [
        [
            f'<a href="#{_anchor("level", name, level)}">{text(level)}</a>',
            f"{cell['n']:,}",
            f"{cell['mean']:.1f}",
            interval(cell),
            _others(cell["metric"]),
            f"{cell['truncated_samples']:,}",
            f"{cell['truncated_tokens']:,}",
        ]
        for level, cell in levels
    ]
    columns = ["level", "n", "score", "95%", "official", "prompts cut", "tokens cut"]
    return "".join(parts) + _table(columns, rows)


def _others(metric: dict[str, Any]) -> str:
    """The benchmark's own numbers: the main one bare, the rest with their names."""
    shown = {k: f"{v:g}" for k, v in metric.items() if v is not None}
    main = shown.pop("score", "")
    return text(", ".join([main, *(f"{k} {v}" for k, v in shown.items())]))


def _comparison(report: Report, other: Path) -> str:
    second, found = compared(report, other)
    rows = []
    for name in [name for name in report.data["tasks"] if name in found]:
        levels = found[name]
        order = [level for level, _ in sorted_levels(report.data["tasks"][name])]
        for level in sorted(levels, key=lambda each: (each != "all", _place(order, each))):
            each = levels[level]
            rows.append(
                [
                    text(name),
                    text(level),
                    f"{each.n:,}",
                    f"{each.first:.1f}",
                    f"{each.second:.1f}",
                    f"<b>{each.difference:+.1f}</b>",
                    f"{each.low:+.1f} to {each.high:+.1f}",
                    p_text(each.p),
                ]
            )
    body = (
        f'<p class="note">Other: {text(second.data["model"]["name"])}, run {text(other.name)}. '
        "Pairs are the samples of both runs; p is of a two-sided permutation test.</p>"
    )
    columns = ["task", "level", "pairs", "other", "this", "difference", "95%", "p"]
    return _section("Compared with another run", body + _table(columns, rows))


def _place(order: Sequence[str], level: str) -> int:
    return order.index(level) if level in order else len(order)


def _contamination(data: dict[str, Any]) -> str:
    rows = []
    for name, found in data["tasks"].items():
        mark = found.get("contamination")
        if mark:
            sides = [
                "none left" if side is None else f"{side['mean']:.1f} ({interval(side)})"
                for side in (mark["clean"], mark["dirty"])
            ]
            rows.append(
                [
                    text(name),
                    f"{mark['contaminated']:,} of {mark['samples']:,}",
                    f"{mark['threshold']:,}",
                    f"{mark['longest']:,}",
                    f"{found['overall']['mean']:.1f}",
                    *sides,
                ]
            )
    if not rows:
        return ""
    columns = ["task", "contaminated", "from bytes", "longest", "all", "without them", "them"]
    return _table(columns, rows)


def _cost(report: Report) -> str:
    cost = cost_of(report.folder)
    if cost is None:
        return ""
    rows = [
        [
            text(row["task"]),
            text(row["level"]),
            f"{row['requests']:,}",
            "unknown" if row["prompt_tokens"] is None else f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens']:,}",
            f"{row['output_tokens']:,}",
            f"{row['seconds']:.1f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            "" if row["price"] is None else f"{row['price']:.4f}",
        ]
        for row in [
            {"task": "all", "level": "", **cost["total"]},
            *_in_order(report, cost["levels"]),
        ]
    ]
    columns = ["task", "level", "requests", "tokens read", "cached", "written", "seconds"]
    return _table([*columns, "MiB at most", "price"], rows)


def _in_order(report: Report, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by task and length as the rest of the page has them."""
    order = [
        (name, level)
        for name, found in report.data["tasks"].items()
        for level, _ in sorted_levels(found)
    ]
    places = {key: place for place, key in enumerate(order)}
    return sorted(rows, key=lambda row: places.get((row["task"], row["level"]), len(order)))


def _samples(report: Report) -> str:
    marks = read_marks(report.folder)
    scores = {
        (row["task"], row["level"], row["sample"], row["repeat"]): row["scores"]
        for _, row in _io.read_lines(report.folder / SCORES)
    }
    groups: dict[tuple[str, str, float | None], list[str]] = {}
    hidden: dict[tuple[str, str, float | None], int] = {}
    for record, sample, repeat, response in joined(report.folder):
        key = (record["task"], sample.level, sample.depth)
        group = groups.setdefault(key, [])
        if len(scores) > _PAGE_SAMPLES and len(group) >= SHOWN_SAMPLES:
            hidden[key] = hidden.get(key, 0) + 1
            continue
        found = scores.get((record["task"], sample.level, sample.id, repeat))
        mark = marks.get(record["task"], {}).get(f"{sample.level}\t{sample.id}")
        group.append(_sample(sample, repeat, response, found, mark))
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
                    anchor = _anchor("cell", name, level, f"{key[2]:g}")
                    body += (
                        f"<details><summary>depth {100 * key[2]:g}% "
                        f"<small>{len(group) + rest:,} samples</small></summary>{_target(anchor)}"
                        + "".join(group)
                        + note
                        + "</details>"
                    )
            inner.append(
                f"<details><summary>{text(level)}</summary>"
                f"{_target(_anchor('level', name, level))}{body}</details>"
            )
        parts.append(f"<details><summary>{text(name)}</summary>{''.join(inner)}</details>")
    return "".join(parts)


def _target(anchor: str) -> str:
    """Where a link ends: inside what it opens, since browsers open all that holds a target."""
    return f'<div id="{anchor}"></div>'


def _sample(
    sample: Sample,
    repeat: int,
    response: Response | None,
    scores: dict[str, float] | None,
    mark: dict[str, Any] | None,
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
        facts.append(f"ended by {response.finish_reason}")
    if mark:
        facts.append(f"longest overlap with the index {mark['longest']:,} bytes")
    numbers = {k: v for k, v in (scores or {}).items() if k != "score"}
    if numbers:
        facts.append(", ".join(f"{k} {v:g}" for k, v in numbers.items()))
    blocks = [
        ("prompt", parts.prefix + parts.context + parts.query + parts.answer_prefix),
        ("expected", "\n".join(sample.references)),
    ]
    if sample.choices and response is not None and response.logprobs:
        ranked = sorted(zip(response.logprobs, sample.choices, strict=True), reverse=True)
        blocks.append(("answer, by log-probability", "\n".join(f"{p:9.3f} {c}" for p, c in ranked)))
    elif response is not None:
        blocks.append(("answer", response.text))
    if mark and mark["contaminated"]:
        blocks.append(("in the index", mark["text"]))
    return (
        f'<details class="sample"><summary><span class="{grade}">{shown}</span> '
        f"{text(sample.id)}{again}</summary>"
        f'<p class="note">{text(" · ".join(facts))}</p>'
        + "".join(f"<h4>{title}</h4><pre>{_ends(block)}</pre>" for title, block in blocks)
        + "</details>"
    )


def _ends(block: str) -> str:
    """A text, or its two ends with how much is not shown between them."""
    kept = shorten(range(len(block)), SHOWN_CHARACTERS, "ends")
    if not kept.dropped:
        return text(block) or '<i class="note">empty</i>'
    half = (SHOWN_CHARACTERS + 1) // 2
    first, last = kept.ids[half - 1] + 1, kept.ids[half]
    return (
        f'{text(block[:first])}<i class="gap">{kept.dropped:,} characters are not shown here</i>'
        f"{text(block[last:])}"
    )


def _facts(data: dict[str, Any]) -> str:
    rows = [
        [
            text(name),
            str(found["version"]),
            f"{text(found['prompt_source'])} {text(found['prompt_fingerprint'])}",
            "yes" if found["wrapped"] else "no",
            text(found["metric"]),
            text(found["data_source"]),
            text(found["licence"]),
        ]
        for name, found in data["tasks"].items()
    ]
    columns = ["task", "version", "prompts", "chat template", "metric", "data", "licence"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(data["packages"].items()))
    settings = ", ".join(
        f"{name} {value}"
        for name, value in sorted(data["settings"].items())
        if value not in (None, [])
    )
    return (
        _table(columns, rows)
        + f'<p class="note">Settings: {text(settings)}.</p><p class="note">{text(packages)}.</p>'
    )


def _section(title: str, body: str, *, anchor: str = "") -> str:
    if not body:
        return ""
    mark = f' id="{anchor}"' if anchor else ""
    return f"<section{mark}><h2>{text(title)}</h2>{body}</section>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{text(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<div class="x"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _anchor(*names: str) -> str:
    """An id that a name can neither break out of nor collide with."""
    return "a" + hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
