"""The input of a build: files that can be read again, or a stream that a program hands over.

Files are grouped into tasks of consecutive files of about 8 MiB on disk, so that several workers
can read at once and a task is soon done again; the groups depend on the files alone.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspool.corpus.readers import Record, read_records, read_sources
from unspool.corpus.sources import ReadReport, SourceFile, find_sources
from unspool.errors import ConfigError, InputError
from unspool.index.ingest import Item
from unspool.index.plan import SourceDigest
from unspool.index.settings import MIB, BuildSettings

_BLOCK = 1 << 20
_REASONS = 8
TASK_SIZE = 8 * MIB
"""Bytes of files, as they lie on disk, that are read as one task."""


class FileReader:
    """Documents of some source files, and what was not taken as it stood."""

    def __init__(
        self, files: Sequence[Mapping[str, Any]], settings: BuildSettings, max_document: int
    ) -> None:
        self.report = ReadReport()
        self._files = [SourceFile(**f) for f in files]
        self._options = _options(settings, max_document)

    def items(self) -> Iterator[Item]:
        for record in self.records():
            yield Item(record.id, record.data, record.meta)

    def records(self) -> Iterator[Record]:
        return read_sources(self._files, report=self.report, **self._options)

    def notes(self) -> dict[str, int]:
        return report_notes(self.report)


def report_notes(report: ReadReport) -> dict[str, int]:
    """What a reader changed, as counts with what they count."""
    return {"sequences that were not UTF-8 and became U+FFFD": report.replaced}


def _options(settings: BuildSettings, max_document: int) -> dict[str, Any]:
    return {
        "text_field": settings.text_field,
        "id_field": settings.id_field,
        "encoding_errors": settings.encoding_errors,
        "max_document": max_document,
    }


class Listing:
    """Files and folders, each file with a digest of its content."""

    def __init__(self, files: Sequence[SourceFile], report: ReadReport) -> None:
        self.files = files
        self.report = report
        self.size = sum(file.size for file in files)
        self.total: int | None = self.size
        self._names = _names(files)
        self._stats = {
            name: _stat(file.path) for name, file in zip(self._names, files, strict=True)
        }

    @property
    def tasks(self) -> list[list[dict[str, Any]]]:
        """Runs of files of about 8 MiB, as plain values."""
        groups: list[list[dict[str, Any]]] = [[]]
        size = 0
        for file in self.files:
            if groups[-1] and size + file.size > TASK_SIZE:
                groups.append([])
                size = 0
            groups[-1].append(asdict(file))
            size += file.size
        return groups

    def stats(self) -> dict[str, str]:
        """Size, times of change and inode of every file, as they were before it was read."""
        return self._stats

    def left_out(self) -> tuple[str, ...]:
        """What a walk of folders did not read, with the most frequent reasons."""
        counts = self.report.skipped
        if not counts:
            return ()
        named = counts.most_common(_REASONS)
        parts = [f"{count:,} {reason}" for reason, count in named]
        if len(counts) > len(named):
            rest = counts.total() - sum(count for _, count in named)
            parts.append(f"{rest:,} for {len(counts) - len(named):,} other reasons")
        return (f"left out {counts.total():,} files or folders: {', '.join(parts)}",)

    def digests(
        self,
        earlier: Sequence[SourceDigest] | None,
        stats: Mapping[str, str],
        workers: int,
        report: Callable[[int], None],
    ) -> tuple[SourceDigest, ...]:
        """The digest of every file; one whose size, times and inode are as they were is not read
        again."""
        known = {
            source.name: source.digest
            for source in earlier or ()
            if stats.get(source.name) == self._stats.get(source.name, "")
        }

        def digest(name: str, file: SourceFile) -> SourceDigest:
            return SourceDigest(name, file.size, known.get(name) or _digest(file.path))

        found = []
        with ThreadPoolExecutor(max(1, min(workers, 8))) as threads:
            try:
                for each in threads.map(digest, self._names, self.files):
                    report(each.size)
                    found.append(each)
            except BaseException:  # Ctrl-C: do not read on what is waiting
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return tuple(found)

    def check_unchanged(self) -> None:
        """Raise InputError if a file was written to since its digest was taken."""
        named = zip(self._names, self.files, strict=True)
        changed = [name for name, file in named if _stat(file.path) != self._stats[name]]
        if changed:
            raise InputError(
                f"The input changed while it was read ({', '.join(changed[:5])}). Run the same "
                "command again once nothing writes to it."
            )

    def locate(self, task: int, number: int, settings: BuildSettings) -> str:
        """Where document `number` of a task comes from, for a message."""
        files = self.tasks[task]
        inside: Counter[int] = Counter()
        for place, record in enumerate(FileReader(files, settings, 1 << 62).records()):
            inside[record.source] += 1
            if place == number:
                path = str(files[record.source]["path"])
                only = files[record.source]["format"] in ("txt", "html")
                return path if only else f"{path} (record {inside[record.source]:,} of it)"
        return "the input"


class Stream:
    """Documents that a program, or standard input, hands over once, in order."""

    size = 0
    total: int | None = None
    tasks: tuple[()] = ()

    def __init__(
        self, iterate: Callable[[], Iterator[Item]], notes: Callable[[], dict[str, int]]
    ) -> None:
        self.items = iterate
        self.notes = notes

    def stats(self) -> dict[str, str]:
        return {}

    def left_out(self) -> tuple[str, ...]:
        return ()

    def digests(self, earlier: object, stats: object, workers: int, report: object) -> None:
        return None

    def check_unchanged(self) -> None:
        return None

    def locate(self, task: int, number: int, settings: BuildSettings) -> str:
        return f"document {number + 1:,} of the input"


def list_sources(
    paths: Any,
    documents: Iterable[Any] | None,
    out: Path,
    settings: BuildSettings,
    max_document: int,
    walk: Mapping[str, Any],
) -> Listing | Stream:
    """What the arguments of a build stand for; `walk` has the patterns to include and exclude."""
    if documents is not None:
        given = documents
        return Stream(lambda: (as_item(each, max_document) for each in given), dict)
    report = ReadReport()
    files = find_sources(paths, skip=[out], report=report, **walk)
    if all(file.size >= 0 for file in files):
        return Listing(files, report)
    streamed = ReadReport()

    def items() -> Iterator[Item]:
        options = _options(settings, max_document)
        for record in read_records(paths, skip=[out], report=streamed, **walk, **options):
            yield Item(record.id, record.data, record.meta)

    return Stream(items, lambda: report_notes(streamed))


def as_item(document: Any, max_document: int) -> Item:
    """A document as a program gives it: a Document, or (id, text or bytes[, metadata])."""
    item = _as_item(document)
    if len(item.data) > max_document:
        raise InputError(
            f"Document {item.id!r} has {len(item.data):,} bytes, more than the {max_document:,} "
            "that one document may have. Raise max_document, or split it."
        )
    return item


def _as_item(document: Any) -> Item:
    if isinstance(document, tuple) and not hasattr(document, "id") and len(document) in (2, 3):
        identifier, text, *rest = document
        meta = rest[0] if rest else {}
    elif hasattr(document, "id") and hasattr(document, "text"):
        identifier, text, meta = document.id, document.text, document.meta
    else:
        raise ConfigError(
            "documents must give Document objects, or tuples (id, text) or (id, bytes), with an "
            f"optional mapping of metadata; got {type(document).__name__}."
        )
    if not isinstance(identifier, str):
        raise ConfigError(f"The id of a document must be a str, got {identifier!r}.")
    if isinstance(text, str):
        try:
            return Item(identifier, text.encode(), meta)
        except UnicodeEncodeError as error:
            raise InputError(
                f"Document {identifier!r} holds a lone surrogate at character {error.start:,}, "
                "which no UTF-8 text can. Give bytes, or replace it."
            ) from error
    if isinstance(text, bytes | bytearray | memoryview):
        return Item(identifier, bytes(text), meta)
    raise ConfigError(
        f"The text of document {identifier!r} must be str or bytes, got {type(text).__name__}."
    )


def _stat(path: str) -> str:
    """What changes when a file does: size, times of change in ns, and inode."""
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _digest(path: str) -> str:
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def _names(files: Sequence[SourceFile]) -> list[str]:
    """A name for each file that says nothing of this machine; a repeated one gets a number."""
    seen: Counter[str] = Counter()
    names = []
    for file in files:
        seen[file.id] += 1
        names.append(file.id if seen[file.id] == 1 else f"{file.id}#{seen[file.id]}")
    return names
