"""`python -m docs_build.generate`: fill every generated part of the README and the docs.

| marker | filled with |
| --- | --- |
| `<!-- run:begin COMMAND -->` | the command and what it prints, run in a folder with `reference/` |
| `<!-- help:begin VERB… -->` | the `--help` text of a verb |
| `<!-- bench:begin NAME [FIGURE] -->` | the newest rows of a benchmark |
| `<!-- claims:begin NAME -->` | the newest rows of a claim (see claims/README.md) |
| `<!-- scale:begin TABLE -->` | what larger texts would take (see benchmarks/scale.py) |

`reference/` is the Python language reference that ships in every CPython, one file a topic. The
commands of all pages run in the order they stand in, README first, so that a later one can use
what an earlier one wrote. `--only help,claims,bench,scale` skips what is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import generator as scale_table
from claims.tables import generator as claims_generator
from claims.tables import markdown
from docs_build.markers import Generator, fill_file, pages
from examples.python_reference import write
from unspool.cli._output import human_bytes, human_number, human_seconds, message
from unspool.errors import InputError, UnspoolError

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("help", "claims", "bench", "scale", "run")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs_build.generate", description=__doc__)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds to fill, by commas")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = generators(Path(folder))
            chosen = {kind: found[kind] for kind in options.only.split(",")}
            for page in pages(ROOT):
                if fill_file(page, chosen):
                    message(f"wrote {page.relative_to(ROOT)}")
    except UnspoolError as error:
        message(f"error: {error}")
        return 2
    return 0


def generators(workplace: Path) -> dict[str, Generator]:
    """What fills each kind of marker; commands run in `workplace`."""
    return {
        "claims": claims_generator(ROOT / "claims" / "results"),
        "bench": benchmark_table,
        "scale": scale_table,
        "help": help_text,
        "run": lambda command: command_output(command, workplace),
    }


def help_text(verb: str) -> str:
    """What `unspool VERB --help` prints, eighty columns wide and without colour."""
    said = _call([*shlex.split(verb), "--help"], Path.cwd())
    return f"```text\n{said.rstrip()}\n```"


def command_output(command: str, workplace: Path) -> str:
    """A command as typed and what it printed on stdout; a command that fails is an error."""
    if not (workplace / "reference").exists():
        write(workplace / "reference")
    words = shlex.split(command)
    if words[0] != "unspool":
        raise InputError(f"{command!r} does not run unspool.")
    return f"```console\n$ {command}\n{_call(words[1:], workplace).rstrip()}\n```"


def _call(arguments: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "unspool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
        check=False,
    )
    if done.returncode:
        raise InputError(f"unspool {shlex.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


def benchmark_table(argument: str) -> str:
    """The newest row of each point of a benchmark, ours beside the peers."""
    name, _, figure = argument.partition(" ")
    path = ROOT / "benchmarks" / "results" / f"{name}.jsonl"
    if not path.exists():
        return "Not measured yet."
    newest: dict[str, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        newest[json.dumps(row["point"], sort_keys=True)] = last = row
    # Points of a sweep over other settings, as an older version had it, are no rows of this table.
    rows = [row for row in newest.values() if row["point"].keys() == last["point"].keys()]
    names = list(dict.fromkeys(n for row in rows for n in row["results"]))
    parameters = list(rows[0]["point"])
    body = [
        [*(str(row["point"][p]) for p in parameters), *(_cell(row, n, figure) for n in names)]
        for row in rows
    ]
    machine = last["machine"]
    return (
        f"{markdown([*parameters, *names], body)}\n\n{machine['cpu']}, {machine['cores']} cores, "
        f"{human_bytes(machine['memory_bytes'])} of memory; commit {last['commit']}, "
        f"{last['date'][:10]}."
    )


def _cell(row: dict[str, Any], name: str, figure: str) -> str:
    result = row["results"].get(name)
    if result is None:
        return "failed" if name in row["failed"] else "-"
    value = result.get(figure or "median", result.get("facts", {}).get(figure))
    if value is None:
        return "-"
    if figure.endswith("bytes"):
        return human_bytes(value)
    if (not figure and row["unit"] == "s") or figure.endswith("seconds"):
        return human_seconds(value)
    return human_number(value) if figure else f"{human_number(value)} {row['unit']}"


if __name__ == "__main__":
    sys.exit(main())
