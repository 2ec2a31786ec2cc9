"""A report as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from unspool.evaluation.report import Report


def to_markdown(report: Report, *, compare: Path | None = None, swap: bool = False) -> str:
    """Scores by level, effective lengths, heat maps, contamination, cost, and a comparison."""
    data = report.data
    parts = [
        f"# {_cell(data['model']['name'])}",
        f"{data['answered']:,} answers of {data['planned']:,} planned, seed "
        f"{data['settings']['seed']}.",
        _table(
            ["task", "level", "n", "score", "95%", "official", "prompts cut", "tokens cut"],
            (
                [
                    task,
                    level,
                    f"{cell['n']:,}",
                    f"{cell['mean']:.1f}",
                    interval(cell),
                    _official(cell),
                    f"{cell['truncated_samples']:,}",
                    f"{cell['truncated_tokens']:,}",
                ]
                for task, found in data["tasks"].items()
                for level, cell in [*sorted_levels(found), ("all", found["overall"])]
            ),
        ),
    ]
    official = [
        [benchmark, name, f"{value:.2f}"]
        for benchmark, each in data["benchmarks"].items()
        for name, value in each["official"].items()
    ]
    if official:
        parts += ["## Over the tasks", _table(["benchmark", "number", "value"], official)]
    lengths = [
        [
            task,
            each["rule"],
            length_text(each["length"]),
            range_text(each["low"], each["high"]),
            "" if each["threshold"] is None else f"{each['threshold']:.1f}",
        ]
        for task, found in data["tasks"].items()
        for each in found["effective_length"]
    ]
    if lengths:
        parts += [
            "## Effective length",
            _table(["task", "rule", "longest level", "95%", "score needed"], lengths),
        ]
    for task, found in data["tasks"].items():
        heat = grid(found, swap=swap)
        if heat is not None:
            rows = [
                [name, *("" if cell is None else f"{cell['mean']:.0f}" for cell in row)]
                for name, row in zip(heat.rows, heat.cells, strict=True)
            ]
            title = f"{heat.row_title} \\ {heat.column_title}"
            parts += [f"## {_cell(task)}", _table([title, *heat.columns], rows)]
    parts += _contamination(report)
    parts += _cost(report)
    if compare is not None:
        parts += _comparison(report, compare)
    parts += [
        "## Prompts and data",
        _table(
            ["task", "version", "prompts", "chat template", "data", "licence", "metric"],
            (
                [
                    task,
                    str(found["version"]),
                    f"{found['prompt_source']} {found['prompt_fingerprint']}",
                    "yes" if found["wrapped"] else "no",
                    found["data_source"],
                    found["licence"],
                    found["metric"],
                ]
                for task, found in data["tasks"].items()
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _official(cell: dict[str, object]) -> str:
    metric = cell["metric"]
    value = metric.get("score") if isinstance(metric, dict) else None
    return "" if value is None else f"{value:g}"


def _contamination(report: Report) -> list[str]:
    rows = [
        [
            task,
            f"{found['contamination']['contaminated']:,} of {found['contamination']['samples']:,}",
            f"{found['contamination']['threshold']:,} bytes",
            *(
                "" if found["contamination"][side] is None else _mean(found["contamination"][side])
                for side in ("clean", "dirty")
            ),
        ]
        for task, found in report.data["tasks"].items()
        if "contamination" in found
    ]
    if not rows:
        return []
    columns = ["task", "contaminated", "overlap of at least", "score without them", "score of them"]
    return ["## Contamination", _table(columns, rows)]


def _mean(cell: dict[str, Any]) -> str:
    return f"{cell['mean']:.1f} ({cell['low']:.1f}-{cell['high']:.1f}, n {cell['n']})"


def _cost(report: Report) -> list[str]:
    cost = cost_of(report.folder)
    if cost is None:
        return []
    rows = [
        [
            row["task"],
            row["level"],
            f"{row['requests']:,}",
            "unknown" if row["prompt_tokens"] is None else f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens']:,}",
            f"{row['output_tokens']:,}",
            f"{row['seconds']:.1f}",
            "" if row["price"] is None else f"{row['price']:.4f}",
        ]
        for row in [*cost["levels"], {"task": "all", "level": "", **cost["total"]}]
    ]
    columns = ["task", "level", "requests", "tokens read", "from cache", "written", "seconds"]
    return ["## Cost", _table([*columns, "price"], rows)]


def _comparison(report: Report, other: Path) -> list[str]:
    second, found = compared(report, other)
    rows = [
        [
            task,
            level,
            f"{each.n:,}",
            f"{each.first:.1f}",
            f"{each.second:.1f}",
            f"{each.difference:+.1f}",
            f"{each.low:+.1f} to {each.high:+.1f}",
            p_text(each.p),
        ]
        for task, levels in found.items()
        for level, each in levels.items()
    ]
    return [
        f"## Against {_cell(second.data['model']['name'])} ({_cell(other.name)})",
        _table(["task", "level", "pairs", "other", "this", "difference", "95%", "p"], rows),
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that stays inside its cell."""
    for old, new in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(old, new)
    return text
