"""An index on a Ray cluster of two nodes: the answers of one machine, also when a node dies.

Source: this project's own promise; "Infini-gram" serves its shards from several machines, too.
Differs from a cluster in use: both nodes are processes of one machine, so the network costs nothing
and the two share its processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from unspool.errors import BackendError

CLAIM = Claim(
    system="serve",
    title="Shards on a cluster answer as one index, and never too little without saying so",
    required=(
        Figure("answers of 10,000 queries that differ from one machine's", "==", 0),
        Figure("answers lost when one of two nodes dies, two replicas", "==", 0),
        Figure("answers that are wrong or too small without a word", "==", 0),
        Figure("longest answer while a node dies, two replicas", "report", None, "s"),
        Figure("answers refused or partial, one replica", "report"),
        Figure("counts in batches of 1,000", "report", None, "a second"),
        Figure("one count, median", "report", None, "ms"),
    ),
    setup=(
        "200 MB of documentation, tier fm in two shards, a group a node; two nodes of Ray as "
        "processes of one machine, of which one is killed under a load of batches of 50 counts; "
        "40 seconds after that; the same with one replica, whole and partial."
    ),
    packages=("ray",),
    code=("index",),
)
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


def run(ctx: Context) -> Measured:
    from benchmarks.bench_index_query import opened

    ix, workload = opened("docs", 200, "fm")
    ix.close()
    folder = workload.ours("fm", "32-64")
    rows = {
        f"{copies}-{kind}": ctx.step(
            f"{copies}-{kind}",
            lambda copies=copies, kind=kind: trial(folder, copies, kind),
            inputs={"copies": copies, "kind": kind},
        )
        for copies, kind in ((2, "whole"), (1, "whole"), (1, "partial"))
    }
    two, alone, partly = (rows[name] for name in ("2-whole", "1-whole", "1-partial"))
    return Measured(
        {
            "answers of 10,000 queries that differ from one machine's": sum(
                row["before"]["wrong"] for row in rows.values()
            ),
            "answers lost when one of two nodes dies, two replicas": two["after"]["refused"]
            + two["after"]["named"],
            "answers that are wrong or too small without a word": sum(
                row["after"]["wrong"] for row in rows.values()
            ),
            "longest answer while a node dies, two replicas": two["after"]["longest"],
            "answers refused or partial, one replica": alone["after"]["refused"]
            + partly["after"]["named"],
            "counts in batches of 1,000": two["before"]["rate"],
            "one count, median": two["before"]["call_ms"],
        },
        facts=rows,
    )


def trial(folder: Path, copies: int, kind: str) -> dict[str, Any]:
    """What a client saw before its cluster lost a node, and after."""
    client = [sys.executable, "-W", "ignore", "-m", "claims._ray_client"]
    with (
        cluster() as (address, kill),
        _start([*client, str(folder), str(copies), kind], RAY_ADDRESS=address) as asking,
    ):
        before = json.loads(_said(asking))
        _said(asking)
        kill()
        assert asking.stdin is not None
        asking.stdin.write("dead\n")
        asking.stdin.flush()
        after = json.loads(_said(asking))
        asking.wait(timeout=120)
    return {"before": before, "after": after}


@contextmanager
def cluster() -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a cluster of two nodes, and what kills the second."""
    with _start([sys.executable, "-W", "ignore", "-c", textwrap.dedent(CLUSTER)]) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        given = nodes.stdin

        def kill() -> None:
            given.write("kill\n")
            given.flush()
            assert nodes.stdout is not None
            nodes.stdout.readline()

        try:
            yield nodes.stdout.readline().strip(), kill
        finally:
            given.close()
            nodes.wait(timeout=120)


def _start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    quiet = {"RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths, **quiet, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _said(client: subprocess.Popen[str]) -> str:
    """The client's next line; Ray tells of its nodes in between."""
    assert client.stdout is not None
    for line in client.stdout:
        if line.startswith(("{", "loaded")):
            return line.strip()
    raise BackendError("The client of the cluster ended before it had said everything.")
