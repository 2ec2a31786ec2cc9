"""A report as Markdown, CSV, JSON, one HTML page, or a picture."""

from __future__ import annotations

from pathlib import Path

from unspool.errors import ConfigError
from unspool.evaluation import _io
from unspool.evaluation.render.samples import Shown
from unspool.evaluation.report import Report

FORMATS = ("md", "html", "csv", "png", "json")


def render(
    report: Report,
    format: str,
    *,
    compare: Path | None = None,
    swap: bool = False,
    shown: Shown | None = None,
) -> bytes:
    """The bytes of a report in one format.

    Args:
        report: Of a run.
        format: `md`, `html`, `csv`, `png` or `json`.
        compare: Another run folder, compared on the samples of both; md and html show it.
        swap: Heat maps with depth along the columns.
        shown: How much of each sample the html page shows.

    Raises:
        ConfigError: There is no such format, or it cannot show a comparison.
        MissingExtra: `png` needs the extra `plots`.
    """
    if format not in FORMATS:
        raise ConfigError(f"A report is {', '.join(FORMATS)}, got {format!r}.")
    if compare is not None and format not in ("md", "html"):
        raise ConfigError(f"A comparison is shown as md or html, not as {format}.")
    if format == "json":
        return _io.canonical(report.data)
    if format == "csv":
        from unspool.evaluation.render.csv import to_csv

        return to_csv(report)
    if format == "png":
        from unspool.evaluation.render.png import to_png

        return to_png(report, swap=swap)
    if format == "md":
        from unspool.evaluation.render.markdown import to_markdown

        return to_markdown(report, compare=compare, swap=swap).encode()
    from unspool.evaluation.render.html import to_html

    return to_html(report, compare=compare, swap=swap, shown=shown).encode()
