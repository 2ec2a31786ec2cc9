"""Long batches on several threads: the same answers, and every error reaches the caller."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.native.answers import small_shard
from tests.native.shards import TIERS, build
from tests.oracles.corpora import cut, prose
from unspool import _native
from unspool.errors import DeadlineExceeded, IndexCorrupt, QueryError


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    _native.set_threads(request.param)
    yield request.param
    _native.set_threads(0)


def pieces(documents: list[list[int]], number: int, longest: int = 30) -> list[bytes]:
    rng = random.Random(3)
    whole = bytes(s for d in documents for s in d)
    starts = [rng.randrange(len(whole)) for _ in range(number)]
    return [whole[s : s + rng.randrange(longest)] for s in starts]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("number", [1, 255, 256, 257, 1000, 5003])
def test_answers_do_not_depend_on_threads(tmp_path: Path, threads, tier, number):
    documents = cut(prose(3000, 1), 4, 2)
    ix = build(tmp_path, documents, tier, shards=2)
    asked = pieces(documents, number)
    assert ix.count_batch(asked).tolist() == [ix.count(q) for q in asked]
    found = ix.infgram_prob_batch(asked, np.full(number, 101))
    assert found.tolist() == [list(ix.infgram_prob(q, 101)) for q in asked]


def test_a_bad_question_anywhere_in_a_batch_is_reported(tmp_path: Path, threads):
    documents = cut(prose(3000, 1), 4, 2)
    ix = build(tmp_path, documents, "fm")
    asked = pieces(documents, 3000)
    for place in (0, 1500, 2999):
        symbols = np.full(len(asked), 101)
        symbols[place] = -7
        with pytest.raises(QueryError, match="-7"):
            ix.prob_batch(asked, symbols)
    assert ix.count_batch(asked).tolist() == [ix.count(q) for q in asked]


@pytest.mark.parametrize("tier", TIERS)
def test_damage_that_any_thread_meets_is_reported(tmp_path: Path, threads, tier):
    path = small_shard(tmp_path / "shard.idx", tier)
    asked = pieces([list(range(32, 127)), prose(3000, 77)], 3000)
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    assert at > 4096
    data[at : at + 4096] = bytes(4096)
    path.write_bytes(data)
    with pytest.raises(IndexCorrupt):
        _native.Index([str(path)]).count_batch(asked)


def test_a_deadline_ends_every_thread(tmp_path: Path, threads):
    documents = [prose(3000, 1)]
    ix = build(tmp_path, documents, "fm")
    asked = pieces(documents, 100_000, 200)
    _native.set_deadline(0.001)
    try:
        with pytest.raises(DeadlineExceeded):
            ix.count_batch(asked)
    finally:
        _native.set_deadline(None)
    assert ix.count_batch(asked[:500]).tolist() == [ix.count(q) for q in asked[:500]]


def test_a_signal_ends_every_thread(tmp_path: Path, threads):
    documents = [prose(3000, 1)]
    ix = build(tmp_path, documents, "fm")
    asked = pieces(documents, 20_000, 200) * 20

    class Stopped(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stopped

    def ask_for_ever() -> None:
        while True:
            ix.count_batch(asked)

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Stopped):
            ask_for_ever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert ix.count_batch(asked[:500]).tolist() == [ix.count(q) for q in asked[:500]]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_no_thread_is_left(tmp_path: Path, threads):
    documents = [prose(3000, 1)]
    ix = build(tmp_path, documents, "sa")
    before = len(os.listdir("/proc/self/task"))
    ix.count_batch(pieces(documents, 3000))
    assert len(os.listdir("/proc/self/task")) == before


def test_the_environment_limits_the_threads():
    code = "from unspool import _native; print(_native.num_threads())"
    shown = {}
    for value in ("1", "1000000", "no number", ""):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "UNSPOOL_THREADS": value,
                "PYTHONPATH": ":".join(p for p in sys.path if p),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        shown[value] = int(done.stdout)
    processors = len(os.sched_getaffinity(0))
    assert shown == {"1": 1, "1000000": processors, "no number": processors, "": processors}
