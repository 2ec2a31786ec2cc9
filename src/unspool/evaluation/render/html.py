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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unspool.evaluation.render.facts import (
    compared,
    cost_of,
    grid,
    interval,
    length_text,
    p_text,
    range_text,
    sorted_levels,
)
from unspool.evaluation.render.markup import anchor, section, table, task_name, text
from unspool.evaluation.render.samples import Shown, samples
from unspool.evaluation.render.style import STYLE
from unspool.evaluation.render.svg import curve, heat_map
from unspool.evaluation.report import Report


def to_html(
    report: Report,
    *,
    compare: Path | None = None,
    swap: bool = False,
    shown: Shown | None = None,
) -> str:
    """The page."""
    data = report.data
    body = [
        f"<header><h1>{text(data['model']['name'])}</h1><p>{_lead(data)}</p></header>",
        section("Scores", _scores(data)),
        section("Effective length", _effective(data)),
    ]
    for name, found in data["tasks"].items():
        body.append(section(name, _task(name, found, swap), anchor=anchor("task", name)))
    if compare is not None:
        body.append(_comparison(report, compare))
    body.append(section("Contamination", _contamination(data)))
    body.append(section("Cost", _cost(report)))
    body.append(section("Samples", samples(report, shown)))
    body.append(section("How it was measured", _facts(data)))
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
        rows.append(
            [
                f'<a href="#{anchor("task", name)}">{task_name(name)}</a>',
                f"{cell['n']:,}",
                f"<b>{cell['mean']:.1f}</b>",
                interval(cell),
                _official(cell["metric"]),
                f"{cell['truncated_samples']:,}",
                f"{cell['stopped_by_length']:,}",
            ]
        )
    shown = table(["task", "n", "score", "95%", "official", "cut", "ended by limit"], rows)
    for name, each in data["benchmarks"].items():
        if each["official"]:
            told = ", ".join(f"{text(k)} {v:.2f}" for k, v in each["official"].items())
            shown += f'<p class="note">{text(name)}: {told}.</p>'
    several = [(name, each) for name, each in data["benchmarks"].items() if each["tasks"] > 1]
    if several:
        told = ", ".join(
            f"{text(name)} {each['mean']:.1f} ({each['tasks']} tasks)" for name, each in several
        )
        shown += f'<p class="note">Mean over the tasks of a benchmark: {told}.</p>'
    return shown


def _effective(data: dict[str, Any]) -> str:
    """A row a task, a column a rule: the longest level that passes, its interval, what it takes."""
    rules = list(
        dict.fromkeys(
            each["rule"] for found in data["tasks"].values() for each in found["effective_length"]
        )
    )
    if not rules:
        return ""
    rows = []
    for name, found in data["tasks"].items():
        by_rule = {each["rule"]: each for each in found["effective_length"]}
        rows.append([task_name(name), *(_passed(by_rule.get(rule)) for rule in rules)])
    note = (
        '<p class="note">The longest length that passes, every shorter one too; below it the 95% '
        "interval and the score that it takes.</p>"
    )
    return table(["task", *rules], rows) + note


def _passed(each: dict[str, Any] | None) -> str:
    if each is None:
        return ""
    needed = "" if each["threshold"] is None else f" · {each['threshold']:.1f}"
    span = range_text(each["low"], each["high"])
    return f"<b>{length_text(each['length'])}</b><br><small>{span}{needed}</small>"


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
                lambda level, depth: anchor("cell", name, level, f"{depth:g}"),
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
            f'<a href="#{anchor("level", name, level)}">{text(level)}</a>',
            f"{cell['n']:,}",
            f"{cell['mean']:.1f}",
            interval(cell),
            _official(cell["metric"]),
            f"{cell['truncated_samples']:,}",
            f"{cell['truncated_tokens']:,}",
            _others(cell["metric"]),
        ]
        for level, cell in levels
    ]
    columns = ["level", "n", "score", "95%", "official", "prompts cut", "tokens cut"]
    if any(row[-1] for row in rows):
        columns.append("also")
    else:
        rows = [row[:-1] for row in rows]
    return "".join(parts) + table(columns, rows)


def _official(metric: dict[str, Any]) -> str:
    """The benchmark's own main number, with its own rounding."""
    value = metric.get("score")
    return "" if value is None else f"{value:g}"


def _others(metric: dict[str, Any]) -> str:
    """Its other numbers with their names."""
    shown = (f"{k} {v:.4g}" for k, v in metric.items() if k != "score" and v is not None)
    return text(", ".join(shown))


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
                    task_name(name),
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
    return section("Compared with another run", body + table(columns, rows))


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
                    task_name(name),
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
    return table(columns, rows)


def _cost(report: Report) -> str:
    cost = cost_of(report.folder)
    if cost is None:
        return ""
    rows = [
        [
            task_name(row["task"]),
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
    columns += ["MiB at most", "price"]
    if len(rows) < 8:
        return table(columns, rows)
    return (
        table(columns, rows[:1])
        + f"<details><summary>by task and level</summary>{table(columns, rows[1:])}</details>"
    )


def _in_order(report: Report, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by task and length as the rest of the page has them."""
    order = [
        (name, level)
        for name, found in report.data["tasks"].items()
        for level, _ in sorted_levels(found)
    ]
    places = {key: place for place, key in enumerate(order)}
    return sorted(rows, key=lambda row: places.get((row["task"], row["level"]), len(order)))


def _facts(data: dict[str, Any]) -> str:
    rows = [
        [
            task_name(name),
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
    settings = "; ".join(
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(data["settings"].items())
        if value not in (None, [])
    )
    return (
        table(columns, rows)
        + f'<p class="note">Settings: {text(settings)}.</p><p class="note">{text(packages)}.</p>'
    )
