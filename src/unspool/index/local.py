"""Run jobs in plain local processes: no framework, clean memory, no orphan.

Workers are fresh interpreters rather than forks, so that what a builder has loaded (a model, say)
costs them nothing, and a program that calls build_index needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import builtins
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from unspool import errors
from unspool.errors import UnspoolError, WorkerLost
from unspool.index.steps import Job, Report


class _Worker:
    """One process, and the thread that passes its answers on."""

    def __init__(self, number: int, answers: queue.SimpleQueue[Any], keep_open: int) -> None:
        source = str(Path(__file__).parents[2])
        paths = [source, *(p for p in sys.path if p)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unspool.index._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
            pass_fds=(keep_open,),
        )
        self.number = number
        self.job: int | None = None
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def _listen(self, answers: queue.SimpleQueue[Any]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answers.put((self.number, orjson.loads(line)))
        answers.put((self.number, None))

    def start(self, index: int, job: Job) -> None:
        assert self.process.stdin is not None
        self.job = index
        with suppress(BrokenPipeError):  # it is dead then, and its listener says so
            self.process.stdin.write(orjson.dumps(dict(job)) + b"\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError, ValueError):
                    pipe.close()


class Pool:
    """A few worker processes that take jobs in turn."""

    def __init__(self, workers: int, keep_open: int) -> None:
        """Args:
        workers: How many processes there may be; each is started when a job needs it.
        keep_open: A file handle that every worker inherits (the lock of the directory).
        """
        self.size = workers
        self._keep_open = keep_open
        self._workers: list[_Worker] = []
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, jobs: Sequence[Job], report: Report, at_once: int | None = None) -> list[Any]:
        """Run jobs, at most `at_once` at a time, and return their results in order.

        Raises:
            WorkerLost: A process died, with what to try.
            UnspoolError: Whatever a job raised.
        """
        results: list[Any] = [None] * len(jobs)
        limit = min(at_once or self.size, self.size, len(jobs))
        while len(self._workers) < limit:
            self._workers.append(_Worker(len(self._workers), self._answers, self._keep_open))
        waiting = iter(enumerate(jobs))
        running = 0
        for worker in self._workers[:limit]:
            worker.start(*next(waiting))
            running += 1
        while running:
            number, answer = self._answers.get()
            worker = self._workers[number]
            if answer is None:
                raise self._lost(worker, jobs)
            if "error" in answer:
                raise revived(answer)
            report(answer["amount"])
            if "result" not in answer:
                continue
            assert worker.job is not None
            results[worker.job] = answer["result"]
            following = next(waiting, None)
            worker.job = None
            if following is None:
                running -= 1
            else:
                worker.start(*following)
        return results

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def _lost(self, worker: _Worker, jobs: Sequence[Job]) -> WorkerLost:
        code = worker.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        what = "before its first job"
        if worker.job is not None:
            job = jobs[worker.job]
            what = (
                f"reading {job['name']}"
                if job["step"] == "ingest"
                else (f"building shard {job['number']}")
            )
        memory = " (the system may have been out of memory)" if code == -signal.SIGKILL else ""
        return WorkerLost(
            f"A worker process {how} while {what}{memory}. Everything finished so far is kept: "
            "run the same command again, with --workers 1 if it happens twice."
        )


def revived(answer: dict[str, Any]) -> BaseException:
    """The exception that a worker met, of the same class where that class is known."""
    name, message = answer["error"], answer["message"]
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, UnspoolError | OSError | MemoryError):
        return kind(message)
    return WorkerLost(f"A worker process failed: {name}: {message}")


@contextmanager
def pool(workers: int, keep_open: int) -> Iterator[Pool]:
    """A Pool whose processes are gone when the block ends, however it ends."""
    opened = Pool(workers, keep_open)
    try:
        yield opened
    finally:
        opened.close()
