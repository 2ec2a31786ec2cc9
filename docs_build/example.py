"""`python -m docs_build.example`: the real runs of small models as pages in `docs/examples`.

Runs the claims whose run folders the pages show, or continues them where they were stopped; with
`--runs FOLDER` the run folders are taken from there, as another machine left them. A page shows
every sample, long prompts by their ends, so that all pages together stay small.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from claims import runner, small_model_past_window
from unspool._cache import cache_folder
from unspool.cli._output import emit_text, human_bytes, message
from unspool.errors import PathNotFound, UnspoolError
from unspool.evaluation._io import write_atomic
from unspool.evaluation.render import render
from unspool.evaluation.render.samples import Shown
from unspool.evaluation.report import read_report

ROOT = Path(__file__).resolve().parents[1]
SHOWN = Shown(characters=500)
METHODS = small_model_past_window.METHODS
CLAIMS = ("small_model_lengths", "small_model_lengths_gemma", "small_model_past_window")


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        if options.runs is None:
            found = runner.discover()
            for name in CLAIMS:
                runner.measure(name, found[name], options.budget, options.results)
        write_pages(options.runs or cache_folder("claims"), options.out)
    except UnspoolError as error:
        message(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        message("Interrupted. The same command continues at the request where it was stopped.")
        return 130
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m docs_build.example", description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder with the claims' folders; runs nothing")
    parser.add_argument("--budget", choices=("cpu", "gpu"), default="gpu", help="the machine")
    parser.add_argument("--results", type=Path, default=runner.RESULTS, help="folder of the rows")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "examples")
    return parser.parse_args(argv)


def folders(root: Path) -> dict[str, tuple[Path, Path | None]]:
    """Pages by name: a run folder, and the run that it is compared with."""
    plain, gemma = root / CLAIMS[0] / "run", root / CLAIMS[1]
    past = [small_model_past_window.folder_of(root / CLAIMS[2], method) for method in METHODS]
    found = next((f for f in (gemma / "run", gemma / "run-cpu") if f.exists()), gemma / "run")
    written = {"gemma-3-270m-written": (gemma / "run-cpu-written", None)}
    return {
        "smollm2-135m": (plain, None),
        "gemma-3-270m": (found, None),
        **({} if found.name == "run" else written),
        # Beside the model as it is, on the samples that fit its window.
        **{f"past-window-{place.name}": (place, plain) for place in past},
    }


def write_pages(root: Path, out: Path) -> None:
    """One page a run folder; a run that is not there leaves its page as it is.

    Raises:
        PathNotFound: There is no run at all.
    """
    made = total = 0
    out.mkdir(parents=True, exist_ok=True)
    for name, (folder, other) in folders(root).items():
        if not (folder / "report.json").exists():
            message(f"{name}: there is no finished run in {folder}; the page stays as it is.")
            continue
        compare = other if other is not None and (other / "report.json").exists() else None
        page = render(read_report(folder), "html", compare=compare, shown=SHOWN)
        target = out / f"{name}.html"
        write_atomic(target, [page])
        emit_text(f"{target.name} ({human_bytes(len(page))})")
        made, total = made + 1, total + len(page)
    if not made:
        raise PathNotFound(f"{root} holds no run of {', '.join(CLAIMS)}.")
    emit_text(f"{made} pages, {human_bytes(total)}")


if __name__ == "__main__":
    sys.exit(main())
