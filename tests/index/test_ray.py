"""An index behind Ray Serve on two nodes, one of which dies under load."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.index.small import make_corpus
from unspool.index.build import build_index

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None or importlib.util.find_spec("grpc") is None,
        reason="needs the cluster extra (ray with serve)",
    ),
]

CLUSTER = """
    import sys
    from ray.cluster_utils import Cluster
    small = {"num_cpus": 2, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    second = nodes.add_node(**small)
    nodes.wait_for_nodes()
    print(nodes.address, flush=True)
    for line in sys.stdin:
        nodes.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    nodes.shutdown()
"""


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(p for p in sys.path if p)
    quiet = {"RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": paths, **quiet, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@contextmanager
def cluster() -> Iterator[tuple[str, Any]]:
    """The address of a cluster of two nodes, and what kills the second one."""
    with start(CLUSTER) as nodes:

        def kill() -> None:
            nodes.stdin.write("kill\n")
            nodes.stdin.flush()
            assert nodes.stdout.readline().strip() == "killed"

        try:
            yield nodes.stdout.readline().strip(), kill
        finally:
            nodes.stdin.close()
            nodes.wait(timeout=120)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    make_corpus(folder / "corpus", files=200)
    build_index(folder / "corpus", folder / "ix", piece_size=10_000, shard_size=40_000)
    return folder / "ix"


ASK = """
    import json, random, sys, time
    import unspool
    from unspool.errors import ShardsMissing
    from tests.index.small import WORDS

    folder, copies, partial = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "partial"
    whole = unspool.open_index(folder)
    parts = unspool.open_index(folder, engine="ray", replicas=copies, partial=partial)
    draw = random.Random(1)
    text = b" ".join(whole.extract(n) for n in range(len(whole))).decode()
    queries = [
        text[(at := draw.randrange(len(text))) : at + draw.randrange(1, 20)] for _ in range(10_000)
    ]
    expected = whole.count_batch(queries).tolist()
    wrong = 0
    for at in range(0, len(queries), 1000):
        found = parts.count_batch(queries[at : at + 1000]).tolist()
        wrong += found != expected[at : at + 1000]
    some = queries[:40]
    wrong += parts.infgram_batch(some) != whole.infgram_batch(some)
    wrong += parts.find(some[0], limit=5) != whole.find(some[0], limit=5)
    wrong += parts.document("rec-3") != whole.document("rec-3")
    print(json.dumps({"wrong": wrong, "groups": len(parts._native.names)}), flush=True)
    rows = {"right": 0, "named": 0, "refused": 0, "wrong": 0}
    shards = [name for names in parts._native.names for name in names]
    end = None
    while end is None or time.monotonic() < end:
        batch = draw.sample(range(len(queries)), 50)
        try:
            found = parts.count_batch([queries[n] for n in batch]).tolist()
        except ShardsMissing as error:
            rows["refused" if set(error.shards) < set(shards) else "wrong"] += 1
            continue
        missing = parts.take_missing()
        truth = [expected[n] for n in batch]
        if missing:
            smaller = all(f <= t for f, t in zip(found, truth))
            rows["named" if smaller and set(missing) < set(shards) else "wrong"] += 1
        else:
            rows["right" if found == truth else "wrong"] += 1
        if end is None and rows["right"] >= 20:
            print("loaded", flush=True)
            assert sys.stdin.readline() == "the node is dead\\n"
            end = time.monotonic() + 30
    print(json.dumps(rows), flush=True)
    parts.close()
"""


def said(client: subprocess.Popen[str]) -> str:
    """The next line that is the client's own; Ray tells of its nodes in between."""
    for line in client.stdout:
        if line.startswith(("{", "loaded")):
            return line.strip()
    raise AssertionError("the client ended")


def load_and_kill(index: Path, copies: int, kind: str) -> tuple[Any, Any]:
    """What a client saw before its cluster lost a node, and after."""
    with (
        cluster() as (address, kill),
        start(ASK, str(index), str(copies), kind, RAY_ADDRESS=address) as client,
    ):
        before = json.loads(said(client))
        assert said(client) == "loaded"
        kill()
        client.stdin.write("the node is dead\n")
        client.stdin.flush()
        after = json.loads(said(client))
        client.wait(timeout=60)
        return before, after


def test_a_replica_takes_over_when_a_node_dies(index: Path) -> None:
    before, after = load_and_kill(index, 2, "whole")
    assert before == {"wrong": 0, "groups": 2}
    assert after["wrong"] == after["named"] == after["refused"] == 0
    assert after["right"] > 25


@pytest.mark.parametrize("kind", ["whole", "partial"])
def test_without_a_replica_the_missing_shards_are_named(index: Path, kind: str) -> None:
    """Until the cluster has opened them on the node that is left; never a smaller count unsaid."""
    before, after = load_and_kill(index, 1, kind)
    assert before == {"wrong": 0, "groups": 2}
    assert after["wrong"] == 0
    assert after["named" if kind == "whole" else "refused"] == 0
    assert after["right"] + after["named"] + after["refused"] > 0
