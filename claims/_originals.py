"""Released evaluation scripts, run beside ours on the same predictions.

Their code is never part of this repository: `--original PATH` or UNSPOOL_ORIGINAL names a checkout,
or a folder with checkouts in it. Each script runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from unspool.errors import InputError


def checkout(repository: str, commit: str, marker: str) -> Path:
    """The folder of a checkout of `OWNER/NAME` that holds the file `marker`.

    Raises:
        InputError: No folder was named, or it does not hold it; the message says what to clone.
    """
    owner, name = repository.split("/")
    advice = (
        f"Clone https://github.com/{repository}, check out {commit}, and give the folder: "
        f"python -m claims NAME --original PATH."
    )
    given = os.environ.get("UNSPOOL_ORIGINAL")
    if not given:
        raise InputError(f"This claim runs beside the code that was released. {advice}")
    root = Path(given)
    places = [root, root / name, root / owner / name, root / f"{owner}+{name}"]
    found = next((place for place in places if (place / marker).is_file()), None)
    if found is None:
        raise InputError(f"{given} holds no {marker} of {repository}. {advice}")
    return found


def commit_of(folder: Path) -> str:
    """The commit that a checkout is at; `unknown` without git."""
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    top = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--show-toplevel"],
        capture_output=True,
        text=True,
        check=False,
    )
    is_own = top.returncode == 0 and Path(top.stdout.strip()) == folder.resolve()
    return done.stdout.strip() if is_own else "unknown"


def run(arguments: list[str], folder: Path, *, paths: tuple[Path, ...] = ()) -> str:
    """What a Python process prints, run in a folder with paths put before all others.

    Raises:
        InputError: It failed; the message ends with what it said.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"The released script failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines, as the releases read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
