"""A build killed anywhere never opens, and the same command finishes it to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.index.small import files_of, make_corpus
from unspool.errors import IndexIncomplete
from unspool.index.build import build_index
from unspool.index.open import open_index

SMALL = {"piece_size": 1500, "shard_size": 5000}
ROOT = Path(__file__).parents[2]

# Runs in a process of its own that forks a child for each kill point: the child dies by SIGKILL
# at the n-th time it opens, renames, removes or makes a file.
KILL = """
    import json, os, signal, sys
    from pathlib import Path
    from unspool.index.build import build_index
    from unspool.index.open import open_index
    from unspool.errors import IndexIncomplete
    from tests.index.small import files_of

    corpus, work, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    points = int(sys.argv[4])
    EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}

    def child(out, kill_at):
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[1]
        seen = [0]
        def hook(event, args):
            if event in EVENTS and str(work) in str(args[0]):
                seen[0] += 1
                if seen[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        build_index(corpus, out, **options)
        (work / "events").write_text(str(seen[0]))
        os._exit(0)

    assert child(work / "whole", 0) == 0
    whole = files_of(work / "whole")
    events = int((work / "events").read_text())
    step = max(1, events // points)
    tried, opened = 0, 0
    for kill_at in range(1, events, step):
        out = work / f"killed-{kill_at}"
        status = child(out, kill_at)
        assert os.WIFSIGNALED(status), (kill_at, status)
        tried += 1
        if (out / "index.json").exists():
            opened += 1
            assert len(open_index(out)) > 0
        elif out.exists():
            try:
                open_index(out)
            except IndexIncomplete:
                pass
            else:
                raise AssertionError(f"opened after a kill at {kill_at}")
        assert child(out, 0) == 0, kill_at
        found = files_of(out)
        assert found.keys() == whole.keys(), (kill_at, found.keys() ^ whole.keys())
        for name in whole:
            assert found[name] == whole[name], (kill_at, name)
    shards = len([name for name in whole if "shard" in name])
    print(json.dumps({"tried": tried, "opened": opened, "shards": shards}))
"""


def run_killer(tmp_path: Path, points: int, **options: object) -> dict[str, int]:
    make_corpus(tmp_path / "corpus")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILL),
            str(tmp_path / "corpus"),
            str(tmp_path / "work"),
            json.dumps({**SMALL, **options}),
            str(points),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_killed_at_any_file_operation_it_resumes_to_the_same_bytes(tmp_path):
    result = run_killer(tmp_path, 30)
    assert result["tried"] >= 20
    assert result["shards"] >= 3
    assert result["opened"] < result["tried"]


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["fm", "sa", "both"])
def test_killed_at_every_file_operation(tmp_path, tier):
    assert run_killer(tmp_path, 10**6, tier=tier, store_text="zstd")["tried"] >= 100


BUILD = """
    import sys
    from unspool.index import builder
    from unspool.index.build import build_index
    builder.IN_PROCESS = 0
    sizes = {"piece_size": 60_000, "shard_size": 300_000}
    build_index(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), **sizes)
"""


def start_build(corpus: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD), str(corpus), str(out), str(workers)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments_with_worker_processes(tmp_path):
    make_corpus(tmp_path / "corpus", files=1500)
    started = time.monotonic()
    assert start_build(tmp_path / "corpus", tmp_path / "whole", 2).wait() == 0
    seconds = time.monotonic() - started
    whole = files_of(tmp_path / "whole")
    rng = random.Random(5)
    for attempt in range(20):
        out = tmp_path / f"killed-{attempt}"
        for _ in range(2):  # killed, continued, killed again
            build = start_build(tmp_path / "corpus", out, rng.choice([1, 2, 3]))
            time.sleep(rng.uniform(0.2 * seconds, seconds))
            # The builder alone: its workers must notice and go by themselves.
            os.kill(build.pid, signal.SIGKILL)
            build.wait()
        if not (out / "index.json").exists() and out.exists():
            with pytest.raises(IndexIncomplete, match=r"never finished|no index"):
                open_index(out)
        last = start_build(tmp_path / "corpus", out, rng.choice([1, 2, 3]))
        assert last.wait() == 0
        assert files_of(out) == whole


def test_other_workers_and_memory_follow_the_plan(tmp_path):
    make_corpus(tmp_path / "corpus")
    build_index(tmp_path / "corpus", tmp_path / "one", workers=1, memory="1GiB", **SMALL)
    build_index(tmp_path / "corpus", tmp_path / "two", workers=5, memory="2GiB", **SMALL)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_nothing_in_the_index_says_when_where_or_by_whom(tmp_path):
    make_corpus(tmp_path / "corpus")
    build_index(tmp_path / "corpus", tmp_path / "ix", workers=3)
    for name, data in files_of(tmp_path / "ix").items():
        assert str(tmp_path).encode() not in data, name
        assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 4, name
    assert b"workers" not in (tmp_path / "ix" / "plan.json").read_bytes()


def test_a_finished_index_is_left_alone(tmp_path):
    make_corpus(tmp_path / "corpus")
    first = build_index(tmp_path / "corpus", tmp_path / "ix")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "ix").iterdir()}
    again = build_index(tmp_path / "corpus", tmp_path / "ix")
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "ix").iterdir()} == before
    assert (again.documents, again.symbols, again.bytes_index) == (
        first.documents,
        first.symbols,
        first.bytes_index,
    )


def test_files_touched_but_not_changed_are_no_conflict(tmp_path):
    make_corpus(tmp_path / "corpus")
    build_index(tmp_path / "corpus", tmp_path / "ix")
    before = files_of(tmp_path / "ix")
    for path in (tmp_path / "corpus").rglob("*.txt"):
        os.utime(path, (1, 1))
    build_index(tmp_path / "corpus", tmp_path / "ix")
    assert files_of(tmp_path / "ix") == before


def test_documents_from_a_program_continue(tmp_path):
    documents = [(f"d{i}", b"some \xff bytes %d " % i * 20) for i in range(60)]

    def failing(after: int):
        yield from documents[:after]
        raise RuntimeError("the source broke")

    build_index(documents=documents, out=tmp_path / "whole", **SMALL)
    with pytest.raises(RuntimeError, match="broke"):
        build_index(documents=failing(40), out=tmp_path / "ix", **SMALL)
    with pytest.raises(IndexIncomplete):
        open_index(tmp_path / "ix")
    build_index(documents=documents, out=tmp_path / "ix", **SMALL)
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")
    build_index(documents=documents, out=tmp_path / "ix", **SMALL)  # finished: compared, kept
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")
