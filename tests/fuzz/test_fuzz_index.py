"""The fuzzer of the index reader, a short run in a process of its own; a long one when asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fuzz(*arguments: str, module: str = "tests.fuzz.fuzz_index") -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr[-3000:].replace("\r", "\n")
    assert done.returncode == 0, f"exit status {done.returncode}: {said}"
    assert "nothing found" in done.stdout


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_wrong_content_under_right_checksums(tier):
    fuzz("--cases", "400", "--seconds", "120", "--seed", "1", "--tier", tier)


def test_damaged_directories_of_the_released_format():
    fuzz("--cases", "400", "--seconds", "120", "--seed", "1", module="tests.fuzz.fuzz_v4")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_wrong_content_for_longer(seed):
    fuzz("--seconds", "120", "--seed", str(100 + seed))
    fuzz("--seconds", "60", "--seed", str(100 + seed), module="tests.fuzz.fuzz_v4")
