"""A worker process of a local build: reads jobs from stdin, runs them, answers on stdout.

One JSON object a line. It ends when its stdin closes, so that no worker outlives its builder, and
leaves Ctrl-C to the builder.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

import orjson


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        _run(orjson.loads(jobs.get()), answers)


def _listen(jobs: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)


def _run(job: dict[str, Any], answers: BinaryIO) -> None:
    from unspool.index.steps import run_job

    pending, told = 0.0, 0.0

    def report(amount: int | float) -> None:
        nonlocal pending, told
        pending += amount
        now = time.monotonic()
        if now - told >= 0.1:
            answers.write(orjson.dumps({"amount": pending}) + b"\n")
            pending, told = 0.0, now

    try:
        result = run_job(job, report)
    except BaseException as error:
        answer: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    else:
        answer = {"amount": pending, "result": result}
    answers.write(orjson.dumps(answer) + b"\n")


if __name__ == "__main__":
    main()
