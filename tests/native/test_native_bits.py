"""Rank, select and prefix codes of the native engine: a C++ test, compiled and run here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
FLAGS = {
    "plain": ["-O1"],
    "without-vectors": ["-O1", "-U__SSE2__"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "kind", ["plain", *(pytest.param(k, marks=pytest.mark.slow) for k in list(FLAGS)[1:])]
)
def test_bits_and_codes_against_loops(tmp_path: Path, kind):
    program = tmp_path / "bits_test"
    sources = ["tests/native/bits_test.cpp", "native/bits.cpp", "native/mapped_file.cpp"]
    command = [str(COMPILER), "-std=c++20", *FLAGS[kind], "-Inative", *sources]
    built = subprocess.run(
        [*command, "-o", str(program)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run(
        [str(program), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 1_000_000
