"""Rank, select and prefix codes of the native engine: C++ tests, compiled and run here."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
VECTORS = ["-march=x86-64-v2"] if platform.machine() in ("x86_64", "AMD64") else []
FLAGS = {
    "plain": ["-O1"],
    "without-vectors": ["-O1", "-U__SSE2__"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "kind", ["plain", *(pytest.param(k, marks=pytest.mark.slow) for k in list(FLAGS)[1:])]
)
@pytest.mark.parametrize("name", ["bits", "quads"])
def test_bits_and_codes_against_loops(tmp_path: Path, kind, name):
    program = tmp_path / name
    sources = [f"tests/native/{name}_test.cpp", f"native/{name}.cpp", "native/mapped_file.cpp"]
    flags = [*FLAGS[kind], *(VECTORS if kind != "without-vectors" else [])]
    command = [str(COMPILER), "-std=c++20", *flags, "-Inative", "-Itests/native", *sources]
    built = subprocess.run(
        [*command, "-o", str(program)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run(
        [str(program), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 500_000
