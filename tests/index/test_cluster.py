"""Builds on a cluster: the same bytes as on one machine, also when a node dies on the way."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.index.small import files_of, make_corpus
from unspool.errors import ConfigError
from unspool.index import builder
from unspool.index.build import build_index

needs_datatrove = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None, reason="needs the cluster extra (datatrove)"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the cluster extra (ray)"
)

BUILD = """
    import sys
    from unspool.index.build import build_index
    report = build_index(
        sys.argv[1], sys.argv[2], engine=sys.argv[3], memory="512MiB", workers=2,
        piece_size=20_000, shard_size=100_000,
        progress=lambda stage, done, total: print(stage, done, flush=True),
    )
    print("documents", report.documents, flush=True)
"""


def start_build(corpus: Path, out: Path, engine: str, **env: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD), str(corpus), str(out), engine],
        env={**os.environ, "PYTHONPATH": paths, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    make_corpus(tmp_path / "corpus", files=800)
    return tmp_path / "corpus"


@pytest.fixture
def whole(corpus: Path, tmp_path: Path) -> dict[str, bytes]:
    build_index(corpus, tmp_path / "whole", piece_size=20_000, shard_size=100_000)
    return files_of(tmp_path / "whole")


@pytest.mark.slow
@needs_datatrove
@needs_ray
def test_ray_on_two_nodes_one_of_which_dies(corpus, whole, tmp_path, monkeypatch):
    # The raylets, and so their workers, take the paths of this process from the environment.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    script = """
        import sys
        from ray.cluster_utils import Cluster
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        second = nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        print(nodes.address, flush=True)
        for line in sys.stdin:
            nodes.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
        nodes.shutdown()
    """
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        address = cluster.stdout.readline().strip()
        try:
            output, failed = build_and_kill(corpus, tmp_path / "ix", address, cluster)
            if failed:  # what was lost with the node: the same command goes on
                assert "run the same command again" in output, output[-3000:]
                with start_build(corpus, tmp_path / "ix", "ray", RAY_ADDRESS=address) as again:
                    output, _ = again.communicate(timeout=240)
                assert again.returncode == 0, output[-3000:]
        finally:
            cluster.stdin.close()
            cluster.wait(timeout=60)
    assert files_of(tmp_path / "ix") == whole
    assert len([name for name in whole if name.endswith(".fm")]) >= 4


def build_and_kill(corpus: Path, out: Path, address: str, cluster) -> tuple[str, int]:
    """Build on a cluster, and have its second node killed when the first shard is done."""
    lines, killed = [], False
    with start_build(corpus, out, "ray", RAY_ADDRESS=address) as build:
        for line in build.stdout:
            lines.append(line)
            if not killed and line.startswith("indexing") and float(line.split()[1]) > 0:
                cluster.stdin.write("kill the second node\n")
                cluster.stdin.flush()
                assert cluster.stdout.readline().strip() == "killed"
                killed = True
    assert killed, "".join(lines[-30:])
    return "".join(lines), build.returncode


SBATCH = """#!/bin/bash
# Stands for Slurm: runs every task of an array job on this machine, and says it has an id.
for argument in "$@"; do [[ -f "$argument" ]] && script="$argument"; done
grep -q merge_stats "$script" && { echo "Submitted batch job 8"; exit 0; }
job=$(date +%s%N)
cp "$script" "$FAKE_SLURM/script-$job"
last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' "$script")
touch "$FAKE_SLURM/queued-$job"
(
  for task in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=localhost SLURM_JOB_ID=7 \\
    bash "$FAKE_SLURM/script-$job"
  done > "$FAKE_SLURM/log" 2>&1
  rm "$FAKE_SLURM/queued-$job"
) < /dev/null > /dev/null 2>&1 &
echo "Submitted batch job $job"
"""


@pytest.mark.slow
@needs_datatrove
def test_slurm_tasks(corpus, whole, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "sbatch": SBATCH,
        "squeue": '#!/bin/bash\n[[ -f "$FAKE_SLURM/queued-$3" ]] && echo R; exit 0\n',
        "srun": '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 = -n ]] && shift; shift; done; "$@"\n',
        "scontrol": "#!/bin/bash\necho localhost\n",
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755 | stat.S_IXUSR)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "FAKE_SLURM": str(tools), "SBATCH_PARTITION": "main"}
    build = start_build(corpus, tmp_path / "ix", "slurm", **environment)
    output, _ = build.communicate(timeout=400)
    log = (tools / "log").read_text() if (tools / "log").exists() else ""
    assert build.returncode == 0, output[-3000:] + log[-3000:]
    assert files_of(tmp_path / "ix") == whole


@needs_datatrove
def test_slurm_without_slurm_says_what_it_needs(tmp_path, monkeypatch):
    make_corpus(tmp_path / "corpus")
    monkeypatch.delenv("SBATCH_PARTITION", raising=False)
    with pytest.raises(ConfigError, match="SBATCH_PARTITION"):
        build_index(tmp_path / "corpus", tmp_path / "ix", engine="slurm")


@needs_ray
def test_a_step_answers_with_a_file(tmp_path, monkeypatch):
    """What a task does on any cluster, called as datatrove calls it."""
    from unspool.index import cluster

    class Direct(cluster.Cluster):
        def _start(self, tasks, workers):
            step = cluster.JobStep(str(self._folder))
            for rank in range(tasks):
                if len(lost) < 3 and rank % 2:  # lost with its node
                    lost.append(rank)
                    continue
                step(None, rank, tasks)
            return lambda: False

    make_corpus(tmp_path / "corpus", files=150)
    corpus, lost = tmp_path / "corpus", []
    monkeypatch.setattr(cluster, "Cluster", Direct)
    build_index(corpus, tmp_path / "ix", engine="ray", piece_size=4_000, shard_size=20_000)
    build_index(corpus, tmp_path / "whole", piece_size=4_000, shard_size=20_000)
    assert lost
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")
    (corpus / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(builder.InputError, match=r"bad\.txt"):
        build_index(corpus, tmp_path / "bad", engine="ray")
