"""Run the jobs of a build on a Ray or Slurm cluster, through datatrove's executors.

What: the same jobs as on one machine, one task each; every result is a file that is renamed into
the spool, so a task that runs twice, or after its node came back, changes nothing.
Source: datatrove (the `PipelineExecutor` contract: a step is called with rank and world size).
Departures: whether a task is done is decided by the job itself, which checks its own output, not by
datatrove's completion files; tasks lost with a node are sent again until nothing more comes back.
The index directory and the input must lie on storage that every node sees under the same path.
Cost: one process a task; a second or two to schedule each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from unspool._optional import require
from unspool.errors import ConfigError, WorkerLost
from unspool.index._files import write_atomic
from unspool.index.local import revived
from unspool.index.settings import Engine
from unspool.index.shard import SPOOL
from unspool.index.steps import Job, Report, run_job

_POLL = 0.2
_ROUNDS = 5
"""How often tasks that a cluster lost are sent again."""


class JobStep:
    """A datatrove step that runs one job: that of its rank."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        folder = Path(self.folder)
        jobs = orjson.loads((folder / "jobs.json").read_bytes())
        answer: dict[str, Any]
        try:
            answer = {"result": run_job(jobs[rank], lambda amount: None)}
        except Exception as error:  # told to the builder, which raises it as it was
            answer = {"error": type(error).__name__, "message": str(error)}
        write_atomic(folder / f"answer-{rank}.json", [orjson.dumps(answer)])


class Cluster:
    """Runs jobs as the tasks of a cluster, and waits for their answers."""

    def __init__(self, engine: Engine, out: Path, workers: int, memory: int) -> None:
        self._engine = engine
        self._folder = out / SPOOL / "cluster"
        self._workers = workers
        self._memory = memory

    def run(self, jobs: Sequence[Job], report: Report, at_once: int | None = None) -> list[Any]:
        """Run jobs, at most `at_once` at a time; results in the order of the jobs."""
        answers: dict[int, Any] = {}
        for _ in range(_ROUNDS):
            left = [number for number in range(len(jobs)) if number not in answers]
            if not left:
                break
            before = len(answers)
            for place, answer in self._round([jobs[n] for n in left], at_once):
                if "error" in answer:
                    raise revived(answer)
                answers[left[place]] = answer["result"]
                report(_amount(jobs[left[place]]))
            if len(answers) == before:
                break
        lost = len(jobs) - len(answers)
        if lost:
            raise WorkerLost(
                f"{lost:,} of {len(jobs):,} tasks were lost by the {self._engine} cluster. "
                "Everything finished so far is kept: run the same command again; the logs are in "
                f"{self._folder}."
            )
        return [answers[number] for number in range(len(jobs))]

    def pids(self) -> list[int]:
        """None: memory on other machines is not watched."""
        return []

    def _round(
        self, jobs: Sequence[Job], at_once: int | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Send jobs out once, and give the answers as they come, until no more can."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        write_atomic(self._folder / "jobs.json", [orjson.dumps([dict(job) for job in jobs])])
        running = self._start(len(jobs), min(at_once or self._workers, len(jobs)))
        seen: set[int] = set()
        while True:
            over = not running()  # asked before looking, so that no last answer is missed
            for place in range(len(jobs)):
                path = self._folder / f"answer-{place}.json"
                if place not in seen and path.exists():
                    seen.add(place)
                    yield place, orjson.loads(path.read_bytes())
            if over or len(seen) == len(jobs):
                return
            time.sleep(_POLL)

    def _start(self, tasks: int, workers: int) -> Any:
        """Hand the tasks to the cluster; returns a function that says whether it is at work."""
        executor = (self._ray if self._engine == "ray" else self._slurm)(tasks, workers)
        if self._engine == "slurm":
            executor.run()
            return lambda: _is_queued(executor.job_id)
        thread = threading.Thread(target=executor.run, daemon=True)
        thread.start()
        return thread.is_alive

    def _ray(self, tasks: int, workers: int) -> Any:
        ray = require("ray", extra="cluster", purpose="--engine ray")
        executors = require("datatrove.executor.ray", extra="cluster", purpose="--engine ray")
        _quiet()
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        return executors.RayPipelineExecutor(
            pipeline=[JobStep(str(self._folder))],
            tasks=tasks,
            workers=workers,
            skip_completed=False,
            logging_dir=str(self._folder / "logs"),
            mem_per_cpu_gb=self._memory / self._workers / (1 << 30),
        )

    def _slurm(self, tasks: int, workers: int) -> Any:
        executors = require("datatrove.executor.slurm", extra="cluster", purpose="--engine slurm")
        _quiet()
        partition = os.environ.get("SBATCH_PARTITION")
        if not partition or shutil.which("sbatch") is None:
            raise ConfigError(
                "--engine slurm needs sbatch on this machine and the name of a partition in the "
                "environment variable SBATCH_PARTITION (SBATCH_TIMELIMIT sets a time limit)."
            )
        return executors.SlurmPipelineExecutor(
            pipeline=[JobStep(str(self._folder))],
            tasks=tasks,
            workers=workers,
            time=os.environ.get("SBATCH_TIMELIMIT", "24:00:00"),
            partition=partition,
            qos=os.environ.get("SBATCH_QOS", ""),
            mem_per_cpu_gb=max(1, -(-self._memory // self._workers >> 30)),
            skip_completed=False,
            logging_dir=str(self._folder / "logs"),
            job_name="unspool-index",
        )


def _amount(job: Job) -> int | float:
    """What a finished job adds to the progress: bytes read, or rows indexed."""
    if job["step"] == "ingest":
        return int(sum(file["size"] for file in job["files"]))
    return int(job["rows"])


def _is_queued(job: Any) -> bool:
    """Whether Slurm still has a job waiting or running."""
    asked = ["squeue", "--noheader", "--jobs", str(job)]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.returncode == 0 and bool(found.stdout.strip())


def _quiet() -> None:
    """Leave the terminal to the progress bar: datatrove's own log is in files."""
    require("loguru", extra="cluster", purpose="running on a cluster").logger.disable("datatrove")


@contextmanager
def cluster(engine: Engine, out: Path, workers: int, memory: int) -> Iterator[Cluster]:
    """A Cluster that lets go of Ray at the end, if it was the one that took hold of it."""
    held = False
    if engine == "ray":
        ray = require("ray", extra="cluster", purpose="--engine ray")
        held = bool(ray.is_initialized())
    try:
        yield Cluster(engine, out, workers, memory)
    finally:
        if engine == "ray" and not held and ray.is_initialized():
            ray.shutdown()
