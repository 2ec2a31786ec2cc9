"""A build keeps to its memory budget, as another program sees it, and says what it held."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from unspool.index.layout import Limits, Piece, join_pieces, pinned_shards

BUILD = """
    import json, sys
    from unspool.index.build import build_index
    report = build_index(sys.argv[1], sys.argv[2], memory="256MiB", workers=2, tier=sys.argv[3])
    print(json.dumps(report.to_json()))
"""


def held(process: psutil.Process) -> int:
    """Proportional memory of a process and its children."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_the_budget_is_kept(tmp_path: Path, tier: str):
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(3000)]
    (tmp_path / "corpus").mkdir()
    for number in range(60):
        text = " ".join(rng.choices(words, k=160_000))
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    paths = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-c", textwrap.dedent(BUILD), str(tmp_path / "corpus")]
    with subprocess.Popen(
        [*command, str(tmp_path / "ix"), tier],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    ) as build:
        peak = 0
        while build.poll() is None:
            peak = max(peak, held(psutil.Process(build.pid)))
            time.sleep(0.02)
        report = json.loads(build.stdout.read())
    assert build.returncode == 0
    assert report["bytes_text"] > 50 << 20
    assert len(list((tmp_path / "ix").glob("shard-*"))) > 2
    budget = 256 << 20
    assert peak <= 1.1 * budget
    assert abs(report["peak_bytes"] - peak) < 0.15 * budget


def pieces(*rows: int) -> list[Piece]:
    return [Piece(str(i), n, 0, "") for i, n in enumerate(rows)]


def test_shards_are_nearly_equal_and_none_too_large():
    rng = random.Random(1)
    for _ in range(300):
        given = pieces(*(rng.randint(1, 100) for _ in range(rng.randint(1, 60))))
        limits = Limits(rng.randint(100, 2000), rng.randint(1, 5))
        shards = join_pieces(given, limits, 1 << 30)
        assert [i for a, b in shards for i in range(a, b)] == list(range(len(given)))
        sizes = [sum(p.rows for p in given[a:b]) for a, b in shards]
        assert max(sizes) <= limits.largest
        assert len(shards) >= min(limits.least, len(given))
        if len(given) >= 8 * len(shards):
            assert max(sizes) - min(sizes) <= 220


def test_small_corpora_are_one_shard_and_huge_documents_stand_alone():
    assert join_pieces(pieces(5, 5, 5), Limits(1000, 4), 1 << 20) == [(0, 3)]
    assert join_pieces(pieces(5, 5, 5), Limits(1000, 2), 1 << 30) in (
        [(0, 1), (1, 3)],
        [(0, 2), (2, 3)],
    )
    assert join_pieces(pieces(5, 900, 5), Limits(100, 1), 1 << 30) == [(0, 1), (1, 2), (2, 3)]
    assert pinned_shards(pieces(5, 5, 90, 5), 10, 1) == [(0, 2), (2, 3), (3, 4)]
