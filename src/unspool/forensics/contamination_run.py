"""A contamination check from files to a report; with a folder it goes on where it was stopped.

A folder is worked on in parts of so many entries: `plan.json` is written first, every finished
part appears whole under its name, and the reports last. Running again with the same settings and
files does the parts that are missing; the files come out the same, byte for byte. Only `run.json`
says when a run was and how long it took.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool.corpus.sources import AnyPath
from unspool.errors import ConfigError, InputError
from unspool.forensics._folder import check_free, check_plan, locked
from unspool.forensics.benchmark_files import Benchmark, read_benchmarks, short_names
from unspool.forensics.contamination import (
    ContaminationSettings,
    Corpora,
    check_indexes,
    measure,
    summarise,
)
from unspool.index._files import canonical, remove_temporary, storage, write_atomic
from unspool.index.engine import Index
from unspool.index.manifest import MANIFEST
from unspool.index.open import open_index

Progress = Callable[[int, int], None]
"""Called with entries checked so far and entries in all."""

ENTRIES, SUMMARY, RUN = "entries.jsonl", "benchmarks.jsonl", "run.json"
PAGE, TABLE, SUMMARY_TABLE = "report.html", "entries.csv", "benchmarks.csv"
_PART = 128
"""Entries a part: about a second of work at most."""


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """What was found: a row an entry and a row a benchmark."""

    entries: tuple[dict[str, Any], ...]
    benchmarks: tuple[dict[str, Any], ...]
    settings: ContaminationSettings
    indexes: tuple[str, ...]
    resumed: int = 0
    """Entries that an earlier run of the same folder had checked."""
    seconds: float = 0.0


def contamination(
    benchmarks: AnyPath | Sequence[AnyPath] | Sequence[Benchmark],
    indexes: AnyPath | Sequence[AnyPath] | Index,
    *,
    out: AnyPath | None = None,
    progress: Progress | None = None,
    settings: ContaminationSettings | None = None,
    **options: Any,
) -> ContaminationReport:
    """Check which entries of some benchmarks stand in some indexes.

    Args:
        benchmarks: Files or folders (see `read_benchmarks`), or benchmarks already read.
        indexes: Directories of byte indexes; a window counts if it occurs in any.
        out: Folder for the reports; an interrupted run goes on from what is there.
        progress: Told how far it has come.
        settings: Everything else; or give its fields as keyword arguments.

    Raises:
        ConfigError: A setting cannot work, or an index holds tokens.
        InputError: A benchmark cannot be used.
        RunConflict: The folder holds a run with other settings, benchmarks or indexes.
        RunLocked: Another process works in the folder.
    """
    if settings is not None and options:
        raise ConfigError(f"Give either settings or {', '.join(options)}, not both.")
    settings = settings or ContaminationSettings(**options)
    started = time.perf_counter()
    corpora, prints = _open(indexes)
    check_indexes(corpora)
    read = _read(benchmarks, settings)
    names = tuple(name for name, _ in corpora)
    if out is None:
        parts = _Parts(None)
        rows = list(_rows(read, corpora, settings, parts, progress))
        report = _report(read, rows, names, settings)
    else:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{os.fspath(out)!r} is a file, and --out names a folder.")
        check_free(folder)
        with storage(folder), locked(folder):
            remove_temporary(folder)
            check_plan(folder, _plan(read, prints, settings))
            parts = _Parts(folder)
            rows = list(_rows(read, corpora, settings, parts, progress))
            report = _report(read, rows, names, settings)
            _write(folder, report)
            parts.remove()
            note = {
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.perf_counter() - started, 3),
                "entries_checked_before": parts.resumed,
            }
            write_atomic(folder / RUN, [canonical(note)])
    return ContaminationReport(
        report.entries,
        report.benchmarks,
        settings,
        names,
        parts.resumed,
        time.perf_counter() - started,
    )


def _report(
    read: Sequence[Benchmark],
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    settings: ContaminationSettings,
) -> ContaminationReport:
    summaries, at = [], 0
    for each in read:
        own = rows[at : at + len(each.entries)]
        at += len(own)
        summaries.append(summarise(each.name, own, each.total, names, settings))
    return ContaminationReport(tuple(rows), tuple(summaries), settings, tuple(names))


def _rows(
    read: Sequence[Benchmark],
    corpora: Corpora,
    settings: ContaminationSettings,
    parts: _Parts,
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    total = sum(len(each.entries) for each in read)
    done = number = 0
    for each in read:
        for low in range(0, len(each.entries), _PART):
            entries = each.entries[low : low + _PART]
            rows = parts.read(number, len(entries))
            if rows is None:
                rows = measure(each.name, entries, corpora, settings)
                parts.write(number, rows)
            yield from rows
            number += 1
            done += len(entries)
            if progress is not None:
                progress(done, total)


class _Parts:
    """Finished parts of a run on disk; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.resumed = 0
        self._folder = None if folder is None else folder / "parts"
        self._whole = None if folder is None else _lines(folder / ENTRIES)
        self._at = 0
        if self._folder is not None and self._whole is None:
            self._folder.mkdir(exist_ok=True)
            remove_temporary(self._folder)

    def read(self, number: int, size: int) -> list[dict[str, Any]] | None:
        if self._folder is None:
            return None
        if self._whole is not None:
            rows: list[dict[str, Any]] | None = self._whole[self._at : self._at + size]
            self._at += size
        else:
            rows = _lines(self._folder / f"{number:06d}.jsonl")
        if rows is None or len(rows) != size:
            return None
        self.resumed += size
        return rows

    def write(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._folder / f"{number:06d}.jsonl", [json_lines(rows)])

    def remove(self) -> None:
        if self._folder is not None and self._folder.is_dir():
            for path in self._folder.glob("[0-9]*.jsonl"):
                path.unlink()
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _lines(path: Path) -> list[dict[str, Any]] | None:
    try:
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{path.name} was changed and is not JSON lines any more: {error}. Delete it and run "
            "the command again."
        ) from error


def _write(folder: Path, report: ContaminationReport) -> None:
    from unspool.forensics import contamination_report as render

    write_atomic(folder / TABLE, [render.entries_csv(report)])
    write_atomic(folder / SUMMARY_TABLE, [render.benchmarks_csv(report)])
    write_atomic(folder / PAGE, [render.page_of(report)])
    write_atomic(folder / SUMMARY, [json_lines(report.benchmarks)])
    # Last: with it the parts are no longer needed.
    write_atomic(folder / ENTRIES, [json_lines(report.entries)])


def _read(
    benchmarks: AnyPath | Sequence[AnyPath] | Sequence[Benchmark], settings: ContaminationSettings
) -> list[Benchmark]:
    if isinstance(benchmarks, str | os.PathLike):
        benchmarks = [benchmarks]
    if not benchmarks:
        raise InputError("Say which benchmarks to check: files or folders.")
    ready = [each for each in benchmarks if isinstance(each, Benchmark)]
    if ready:
        if len(ready) < len(benchmarks):
            raise ConfigError("Give either benchmarks or paths, not both.")
        return ready
    return read_benchmarks(
        [each for each in benchmarks if not isinstance(each, Benchmark)],
        fields=settings.fields,
        id_field=settings.id_field,
        sample=settings.sample,
        seed=settings.seed,
    )


def _open(indexes: AnyPath | Sequence[AnyPath] | Index) -> tuple[Corpora, dict[str, str]]:
    if isinstance(indexes, Index):
        facts = canonical(indexes.info().to_json())
        return [("index", indexes)], {"index": hashlib.sha256(facts).hexdigest()}
    paths = [indexes] if isinstance(indexes, str | os.PathLike) else list(indexes)
    if not paths:
        raise ConfigError("Say in which indexes to look: --index DIR, as often as there are.")
    names = short_names([os.fspath(path) for path in paths])
    corpora = [(name, open_index(path)) for name, path in zip(names, paths, strict=True)]
    return corpora, {n: _print(Path(p)) for n, p in zip(names, paths, strict=True)}


def _print(folder: Path) -> str:
    """What tells an index from another: its manifest, or of a foreign one names and sizes."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    files = sorted((p.name, p.stat().st_size) for p in folder.iterdir() if p.is_file())
    return hashlib.sha256(canonical(files)).hexdigest()


def _plan(
    read: Sequence[Benchmark], prints: dict[str, str], settings: ContaminationSettings
) -> dict[str, Any]:
    return {
        "format": 1,
        "entries_a_part": _PART,
        "settings": {**asdict(settings), "fields": list(settings.fields)},
        "indexes": prints,
        "benchmarks": {
            each.name: hashlib.sha256(
                orjson.dumps([asdict(entry) for entry in each.entries])
            ).hexdigest()
            for each in read
        },
    }
