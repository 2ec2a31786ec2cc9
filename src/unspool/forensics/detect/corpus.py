"""Score a corpus of any size: in chunks, by several processes, going on where it was stopped.

Documents are scored in chunks of a fixed size, each by one thread, so that the scores do not depend
on how many processes there are. With a folder, `scores.jsonl.part` grows a chunk at a time and
`summary.json` says how much of it counts; a finished run renames the first. A digest of the input
so far is kept, so that a rerun over other documents is refused.
Cost: memory is a few chunks of documents and one copy of the detector a process.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import orjson

from unspool._machine import peak_rss
from unspool.errors import ConfigError, InputError, RunConflict, WorkerLost
from unspool.forensics._folder import check_free, check_plan, locked
from unspool.forensics.detect.detector import EMPTY, Detector, describe
from unspool.forensics.detect.metrics import Unit
from unspool.index._files import canonical, remove_temporary, storage, write_atomic
from unspool.types import Document, Overflow

CHUNK = 256
"""Documents that are scored together."""
SCORES, PART, SUMMARY, RUN = "scores.jsonl", "scores.jsonl.part", "summary.json", "run.json"

Progress = Callable[[int], None]
"""Called with the number of documents that are done."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a run: of texts, or of sentences."""

    documents: int = 0
    scored: int = 0
    flagged: int = 0
    undecided: int = 0
    """Too short to say, or no decision at their length."""
    empty: int = 0
    windowed: int = 0
    """Read in more than one window."""
    dropped_tokens: int = 0
    bytes: int = 0
    """Of the rows that are written."""
    input: str = ""
    """A digest of the documents so far."""
    done: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CorpusScores:
    """The summary of a run, and its rows where they were not written into a folder."""

    summary: Summary
    rows: tuple[Row, ...] = ()
    resumed: int = 0
    """Documents that an earlier run had scored."""


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Scores chunks here, or in other processes that each hold a detector."""

    folder: Path
    unit: Unit
    on_overflow: Overflow
    workers: int
    device: str

    def __call__(self, chunks: Iterable[list[Document]]) -> Iterator[tuple[list[Document], bytes]]:
        """Chunks and their rows, in order."""
        if self.workers == 1:
            _load(self.folder, self.device)
            for chunk in chunks:
                yield chunk, _score(chunk, self.unit, self.on_overflow)
            return
        waiting: deque[tuple[list[Document], Future[bytes]]] = deque()
        # Not fork: a child of a process whose libraries have threads can wait for ever.
        with ProcessPoolExecutor(
            self.workers, get_context("spawn"), _load, (self.folder, self.device)
        ) as pool:
            try:
                for chunk in chunks:
                    waiting.append((chunk, pool.submit(_score, chunk, self.unit, self.on_overflow)))
                    if len(waiting) > 2 * self.workers:
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _next(waiting: deque[tuple[list[Document], Future[bytes]]]) -> tuple[list[Document], bytes]:
    chunk, future = waiting.popleft()
    try:
        return chunk, future.result()
    except BrokenProcessPool as error:
        raise WorkerLost(
            "A process that scored texts died, most likely for want of memory. Run the same "
            "command again with fewer --workers; what is done is kept."
        ) from error


_DETECTOR: list[Detector] = []
"""The detector of this process."""


def _load(folder: Path, device: str) -> None:
    _DETECTOR[:] = [Detector.load(folder, device=device)]


def _score(chunk: Sequence[Document], unit: Unit, on_overflow: Overflow) -> bytes:
    detector = _DETECTOR[0]
    if unit == "text":
        names = [d.id for d in chunk]
        scores = detector.score([d.text for d in chunk], on_overflow=on_overflow, names=names)
        rows = [{"document": d.id, **s.to_json()} for d, s in zip(chunk, scores, strict=True)]
    else:
        rows = [
            each.to_json()
            for d in chunk
            for each in detector.score_spans(d.text, document=d.id, on_overflow=on_overflow)
        ]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def score_corpus(
    detector: str | Path,
    documents: Iterable[Document],
    *,
    out: str | Path | None = None,
    unit: Unit = "text",
    on_overflow: Overflow = "error",
    workers: int = 1,
    device: str = "auto",
    on_progress: Progress | None = None,
) -> CorpusScores:
    """Score documents with the detector in a folder.

    Args:
        detector: The folder that `train` wrote.
        documents: Read once, in order.
        out: A folder for the rows; the same call goes on after a stop.
        unit: Whole texts, or each sentence.
        on_overflow: As for `Detector.score`.
        workers: Processes, each with one thread and the detector in its memory.
        device: auto, cpu or cuda; cuda takes one worker.
        on_progress: Told how many documents are done.

    Raises:
        ConfigError: A setting cannot work.
        RunConflict: The folder holds a run over other documents or with other settings.
        WorkerLost: A worker died.
    """
    if unit not in get_args(Unit):
        raise ConfigError(f"unit must be text or sentence, got {unit!r}.")
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}.")
    place = Path(detector)
    name = describe(place).facts["name"]
    scorer = _Scorer(place, unit, on_overflow, workers, device)
    if out is None:
        rows: list[Row] = []
        summary = Summary()
        for chunk, data in scorer(_chunks(documents)):
            summary = _add(summary, chunk, data)
            rows += [orjson.loads(line) for line in data.splitlines()]
            if on_progress is not None:
                on_progress(summary.documents)
        return CorpusScores(replace(summary, done=True), tuple(rows))
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(out)!r} is a file, and --out names a folder.")
    check_free(folder)
    with storage(folder), locked(folder):
        remove_temporary(folder)
        settings = {"unit": unit, "on_overflow": on_overflow, "chunk": CHUNK}
        check_plan(folder, {"format": 1, "settings": settings, "detector": name})
        return _into(folder, scorer, documents, on_progress)


def _into(
    folder: Path, scorer: _Scorer, documents: Iterable[Document], on_progress: Progress | None
) -> CorpusScores:
    started = time.perf_counter()
    held = _held(folder)
    stream = iter(documents)
    _check_same(folder, stream, held)
    if held.done:
        if next(stream, None) is not None:
            raise RunConflict(_OTHER.format(folder.name))
        _finish(folder)
        return CorpusScores(held, resumed=held.documents)
    summary = held
    with (folder / PART).open("ab", buffering=0) as file:
        os.truncate(folder / PART, held.bytes)
        for chunk, data in scorer(_chunks(stream)):
            view = memoryview(data)
            while view:
                view = view[file.write(view) or 0 :]
            os.fsync(file.fileno())
            summary = _add(summary, chunk, data)
            write_atomic(folder / SUMMARY, [canonical(summary.to_json())])
            if on_progress is not None:
                on_progress(summary.documents)
    summary = replace(summary, done=True)
    write_atomic(folder / SUMMARY, [canonical(summary.to_json())])
    _finish(folder)
    note = {"seconds": round(time.perf_counter() - started, 1), "peak_bytes": peak_rss(),
            "documents_scored_before": held.documents}  # fmt: skip
    write_atomic(folder / RUN, [canonical(note)])
    return CorpusScores(summary, resumed=held.documents)


_OTHER = (
    "The run in {} was begun with other documents. Choose another folder, or give the documents "
    "that it was begun with."
)


def _held(folder: Path) -> Summary:
    path = folder / SUMMARY
    if not path.is_file():
        return Summary()
    try:
        return Summary(**orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise InputError(f"{SUMMARY} in {folder.name} is not of this command.") from error


def _check_same(folder: Path, stream: Iterator[Document], held: Summary) -> None:
    """Read past the documents that are done, and see that they are the same."""
    digest = ""
    for _ in range(held.documents):
        document = next(stream, None)
        if document is None:
            raise RunConflict(_OTHER.format(folder.name))
        digest = _chain(digest, document)
    if digest != held.input:
        raise RunConflict(_OTHER.format(folder.name))


def _finish(folder: Path) -> None:
    if (folder / PART).exists():
        os.replace(folder / PART, folder / SCORES)


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    stream = iter(documents)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def _chain(digest: str, document: Document) -> str:
    head = f"{digest}\0{document.id}\0".encode(errors="surrogatepass")
    return hashlib.sha256(head + document.text.encode()).hexdigest()


def _add(summary: Summary, chunk: Sequence[Document], data: bytes) -> Summary:
    rows = [orjson.loads(line) for line in data.splitlines()]
    digest = summary.input
    for document in chunk:
        digest = _chain(digest, document)
    empty = sum(row["reason"] == EMPTY for row in rows)
    return Summary(
        documents=summary.documents + len(chunk),
        scored=summary.scored + len(rows) - empty,
        flagged=summary.flagged + sum(row["flagged"] is True for row in rows),
        undecided=summary.undecided + sum(row["flagged"] is None for row in rows) - empty,
        empty=summary.empty + empty,
        windowed=summary.windowed + sum(row["windows"] > 1 for row in rows),
        dropped_tokens=summary.dropped_tokens + sum(row["dropped_tokens"] for row in rows),
        bytes=summary.bytes + len(data),
        input=digest,
    )
