"""`unspool view`: a run as one self-contained HTML page, opened in the browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from cyclopts import App

from unspool.cli._output import emit_json, emit_text, human_bytes

_EXAMPLES = """
The page is one file that works offline and runs no script; it can be sent as it is. For example:

    unspool view run/

    unspool view run/ --compare other-run/ --no-open --out report.html
"""

app = App(name="view", help="Open the report of a run in the browser.", help_epilogue=_EXAMPLES)


@app.default
def view(
    run: Path,
    /,
    *,
    compare: Path | None = None,
    out: Path | None = None,
    samples: int | None = None,
    characters: int = 2400,
    no_open: bool = False,
    json: bool = False,
) -> None:
    """Write the report of a run as one HTML file and open it.

    Args:
        run: The run folder of 'unspool evaluate run'.
        compare: Another run, compared on the samples of both.
        out: The file. Default: report.html in the run folder.
        samples: Most samples of a length and depth on the page. Default: all, and 40 in runs of
            more than 1,000.
        characters: Most characters of a prompt or an answer on the page; the rest is counted.
        no_open: Only write the file.
        json: Print one JSON object, and open nothing.
    """
    from unspool.evaluation._io import write_atomic
    from unspool.evaluation.render import render
    from unspool.evaluation.render.samples import Shown
    from unspool.evaluation.report import read_report

    shown = Shown(samples, characters)
    page = render(read_report(run), "html", compare=compare, shown=shown)
    target = out or run / "report.html"
    write_atomic(target, [page])
    if json:
        emit_json({"out": str(target), "bytes": len(page)})
        return
    emit_text(f"{target} ({human_bytes(len(page))})")
    if not no_open:
        webbrowser.open(target.resolve().as_uri())
