"""The steps of a build in their order, each of which may be interrupted and run again.

plan.json -> spool pieces -> layout into plan.json -> shard files -> index.json -> spool removed.
A directory is an index once index.json is there, and not a moment earlier.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unspool import _native
from unspool.errors import BudgetError, BuildConflict, IndexCorrupt, InputError
from unspool.index._files import Lock, remove_temporary, storage, write_atomic
from unspool.index._memory import PeakMemory, proportional_bytes
from unspool.index._run import Run, digest, notes, read_run
from unspool.index.alphabet import TOKENIZER_FILE, Tokens, load_tokenizer
from unspool.index.folder import discard, prepare, require_space
from unspool.index.ids import check_unique
from unspool.index.ingest import ingest
from unspool.index.layout import (
    Piece,
    concurrency,
    join_pieces,
    limits_for,
    pinned_shards,
    shard_memory,
)
from unspool.index.local import pool
from unspool.index.manifest import (
    PLAN,
    Manifest,
    ShardEntry,
    check_files,
    is_finished,
    read_manifest,
)
from unspool.index.plan import Layout, Plan, check_same, read_plan
from unspool.index.settings import MIB, BuildReport, BuildSettings, Engine
from unspool.index.shard import SPOOL, shard_origin
from unspool.index.source import Listing, Stream, list_sources
from unspool.index.steps import Job, Report, run_job, size_check

IN_PROCESS = 16 * MIB
"""A corpus up to this size is built in the calling process: starting others would take longer."""


@runtime_checkable
class BuildProgress(Protocol):
    """How a build says where it is."""

    def __call__(self, stage: str, done: int | float, total: int | float | None) -> None:
        """`stage` is `checking`, `reading` or `indexing`; amounts are bytes (or tokens)."""


@runtime_checkable
class Runner(Protocol):
    """What runs jobs: local processes or a cluster."""

    def run(self, jobs: Sequence[Job], report: Report, at_once: int | None = None) -> list[Any]:
        """Run jobs, at most `at_once` at a time; results in the order of the jobs."""

    def pids(self) -> list[int]:
        """Processes on this machine whose memory counts."""


class Builder:
    """One run of a build: what was asked for, and the steps."""

    def __init__(
        self,
        *,
        out: Path,
        settings: BuildSettings,
        memory: int,
        workers: int,
        engine: Engine,
        max_document: int,
        progress: BuildProgress,
        started: float,
    ) -> None:
        self.out = out
        self.spool = out / SPOOL
        self.settings = settings
        self.memory = memory
        self.workers = workers
        self.engine = engine
        self.max_document = max_document
        self.progress = progress
        self.started = started
        self.tokens: Tokens | None = None
        self.raw_tokenizer: bytes | None = None
        self.width = 1
        self.left_out: tuple[str, ...] = ()
        self._laid_out = False

    def build(
        self, paths: Any, documents: Iterable[Any] | None, walk: Mapping[str, Any]
    ) -> BuildReport:
        """Do everything that is not done yet; the arguments are those of `build_index`."""
        source = list_sources(paths, documents, self.out, self.settings, self.max_document, walk)
        self.left_out = source.left_out()
        self._load_alphabet()
        with storage(self.out):
            created = prepare(self.out)
            lock = Lock(self.out)
            try:
                return self._locked(source, lock)
            except (InputError, BudgetError):
                # Input that cannot be read never will be, unless it or the settings change: leave
                # nothing that would make the next try a conflict.
                if not self._laid_out:
                    discard(self.out)
                raise
            finally:
                if is_finished(self.out):
                    shutil.rmtree(self.spool, ignore_errors=True)
                begun = (self.out / PLAN).exists() and not is_finished(self.out)
                lock.release(remove=not begun)
                if created:
                    with contextlib.suppress(OSError):
                        self.out.rmdir()  # only if nothing is in it

    def _load_alphabet(self) -> None:
        if self.settings.tokenised:
            name = self.settings.alphabet.removeprefix("tokenizer:")
            self.tokens = load_tokenizer(name)
            self.raw_tokenizer = self.tokens.to_bytes()
            self.width = self.tokens.width
            # A path would say where this machine keeps it; the digest says which one it is.
            self.settings = self.settings.with_alphabet(f"tokenizer:{Path(name).name}")

    def _locked(self, source: Listing | Stream, lock: Lock) -> BuildReport:
        remove_temporary(self.out)
        remove_temporary(self.spool)
        run = read_run(self.out)
        old = read_plan(self.out)
        self._laid_out = old is not None and old.layout is not None
        plan = self._plan(source, old, run)
        if is_finished(self.out) and isinstance(source, Listing):
            return self._done_before()
        run.begin({"workers": self.workers, "memory": self.memory, "engine": self.engine})
        if old is None:
            self._check_space(source.size)
            if self.raw_tokenizer is not None:
                write_atomic(self.out / TOKENIZER_FILE, [self.raw_tokenizer])
            run.write(self.out)
            plan.write(self.out)
        self.spool.mkdir(exist_ok=True)
        with self._engine(lock) as runner, PeakMemory(runner.pids) as peak:
            heads = self._read(source, runner)
            source.check_unchanged()
            plan, layout = self._lay_out(plan, heads, source)
            if is_finished(self.out):
                return self._done_before()
            entries = self._index(layout, heads, runner)
        return self._finish(plan, heads, entries, run, peak.bytes)

    def _plan(self, source: Listing | Stream, old: Plan | None, run: Run) -> Plan:
        """The plan to follow: the one on disk if it asks for the same, else a new one."""
        earlier = old.sources if old else None
        report = self._reporter("checking", source.total)
        sources = source.digests(earlier, run.stats, self.workers, report)
        run.stats = source.stats()
        limits = None
        if old is None and not self.settings.shard_size:
            limits = limits_for(self.settings.tiers, self.width, self.memory, self.workers)
        new = Plan(self.settings, digest(self.raw_tokenizer), sources, limits)
        if old is None:
            return new
        check_same(self.out, old, new)
        self.settings = old.settings
        return old

    def _engine(self, lock: Lock) -> AbstractContextManager[Runner]:
        if self.engine == "local":
            return pool(self.workers, lock.handle)
        from unspool.index.cluster import cluster

        return cluster(self.engine, self.out, self.workers, self.memory)

    def _read(self, source: Listing | Stream, runner: Runner) -> list[tuple[str, dict[str, Any]]]:
        """Bring the whole input into the spool; the name and head of every piece, in order."""
        report = self._reporter("reading", source.total)
        common = {"out": str(self.out), "settings": self.settings.to_json()}
        if isinstance(source, Stream):
            found = [
                ingest(
                    "00000",
                    source.items(),
                    self.spool,
                    self.settings,
                    self.tokens,
                    check_size=size_check(self.settings, self.width, self.memory),
                    progress=report,
                    notes=source.notes,
                    reread=True,
                )
            ]
            names = ["00000"]
        else:
            names = [f"{number:05d}" for number in range(len(source.tasks))]
            jobs = [
                {
                    **common,
                    "step": "ingest",
                    "name": name,
                    "files": files,
                    "max_document": self.max_document,
                    "width": self.width,
                    "memory": self.memory,
                }
                for name, files in zip(names, source.tasks, strict=True)
            ]
            found = self._run(jobs, report, runner, small=source.size <= IN_PROCESS)
        return [
            (f"{name}-{number:04d}", head)
            for name, heads in zip(names, found, strict=True)
            for number, head in enumerate(heads)
        ]

    def _lay_out(
        self, plan: Plan, heads: Sequence[tuple[str, dict[str, Any]]], source: Listing | Stream
    ) -> tuple[Plan, Layout]:
        """Decide which pieces make which shard, once, and write it down."""
        pieces = tuple(
            Piece(name, head["symbols"], head["documents"], head["digest"])
            for name, head in heads
            if head["documents"]
        )
        if plan.layout is not None:
            if plan.layout.pieces != pieces:
                raise BuildConflict(
                    "The documents given now are not those that this index was begun with. Give "
                    "the same documents in the same order, or build into another directory."
                )
            return plan, plan.layout
        if not pieces:
            raise InputError("There is nothing to index: the input holds no document.")
        check_unique(self.spool, pieces, source, self.settings)
        if plan.limits is None:
            assert self.settings.shard_size is not None
            shards = pinned_shards(pieces, self.settings.shard_size, self.width)
        else:
            text = sum(head["bytes_text"] for _, head in heads)
            shards = join_pieces(pieces, plan.limits, text)
        layout = Layout(pieces, tuple(shards))
        self._needs(layout, heads)  # before it is written: a layout that no budget fits is no plan
        plan = plan.with_layout(layout)
        plan.write(self.out)
        self._laid_out = True
        return plan, layout

    def _needs(self, layout: Layout, heads: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
        """Peak bytes of building each shard; refuses what does not fit the budget at all."""
        values = 0
        for _, head in heads:
            values |= int(head["values"], 16)
        # 256 byte values, a separator and an end do not fit into one byte a symbol.
        width = 2 if self.width == 1 and values.bit_count() > 254 else self.width
        needs = []
        for first, end in layout.shards:
            group = layout.pieces[first:end]
            symbols, documents = (sum(x) for x in zip(*(p[1:3] for p in group), strict=True))
            needs.append(shard_memory(self.settings.tiers, width, symbols, documents))
        concurrency(needs, self.memory, self.workers)
        return needs

    def _index(
        self, layout: Layout, heads: Sequence[tuple[str, dict[str, Any]]], runner: Runner
    ) -> list[ShardEntry]:
        """Build every shard that is not there yet."""
        needs = self._needs(layout, heads)
        jobs = []
        for number, (first, end) in enumerate(layout.shards):
            group = layout.pieces[first:end]
            jobs.append(
                {
                    "step": "shard",
                    "out": str(self.out),
                    "settings": self.settings.to_json(),
                    "number": number,
                    "pieces": [piece.name for piece in group],
                    "origin": shard_origin(self.settings, [p.digest for p in group]).hex(),
                    "rows": sum(piece.rows for piece in group),
                    "width": self.width,
                }
            )
        total = sum(piece.rows for piece in layout.pieces)
        self._check_space_left(total)
        at_once = concurrency(needs, self.memory, self.workers)
        small = total * self.width <= IN_PROCESS
        report = self._reporter("indexing", total)
        found = self._run(jobs, report, runner, small=small, at_once=at_once)
        entries, first = [], 0
        for shard in found:
            entries.append(ShardEntry(shard["symbols"], shard["documents"], first, shard["files"]))
            first += shard["documents"]
        return entries

    def _run(
        self,
        jobs: Sequence[Job],
        report: Report,
        runner: Runner,
        *,
        small: bool,
        at_once: int | None = None,
    ) -> list[Any]:
        if small and self.engine == "local":
            return [run_job(job, report) for job in jobs]
        return runner.run(jobs, report, at_once)

    def _reporter(self, stage: str, total: int | float | None) -> Report:
        done = 0.0

        def report(amount: int | float) -> None:
            nonlocal done
            done += amount
            self.progress(stage, done, total)

        self.progress(stage, 0, total)
        return report

    def _check_space(self, size: int) -> None:
        """Refuse at once what the disk cannot hold: the spool, and the index beside it."""
        factor = 1.0 + sum({"fm": 0.5, "sa": 5.0}[tier] for tier in self.settings.tiers)
        require_space(self.out, int(size * factor), "The spool and the index")

    def _check_space_left(self, rows: int) -> None:
        here = sum(f.stat().st_size for f in self.out.glob("shard-*"))
        bytes_a_row = {"fm": 0.4 * self.width, "sa": 4.0 + self.width}
        need = int(rows * sum(bytes_a_row[tier] for tier in self.settings.tiers))
        require_space(self.out, need - here, "The index")

    def _done_before(self) -> BuildReport:
        """What a run on a finished index reports, once the files are seen to be there."""
        manifest = read_manifest(self.out)
        wrong = [w for tier in manifest.tiers for w in check_files(self.out, manifest, tier)]
        if wrong:
            raise IndexCorrupt(
                f"The index in {self.out} was finished, but {'; '.join(wrong)}. Restore the files, "
                "or remove the directory and build again."
            )
        return self._report(manifest, proportional_bytes("self"))

    def _finish(
        self,
        plan: Plan,
        heads: Sequence[tuple[str, dict[str, Any]]],
        entries: Sequence[ShardEntry],
        run: Run,
        peak: int,
    ) -> BuildReport:
        files = [file for entry in entries for file in entry.files.values()]
        raw = self.raw_tokenizer
        manifest = Manifest(
            documents=sum(entry.documents for entry in entries),
            symbols=sum(entry.symbols for entry in entries),
            bytes_text=sum(head["bytes_text"] for _, head in heads),
            bytes_index=sum(file["bytes"] for file in files) + len(raw or b""),
            alphabet=self.settings.alphabet,
            width=self.width,
            tiers=self.settings.tiers,
            sa_sample=self.settings.sa_sample,
            isa_sample=self.settings.isa_sample,
            store_text=self.settings.store_text,
            normalise=self.settings.normalise,
            tokenizer=None if raw is None else {"bytes": len(raw), "crc": _native.crc32c(raw)},
            notes=notes([head for _, head in heads]),
            shards=tuple(entries),
        )
        report = self._report(manifest, peak)
        run.end(report.seconds, report.peak_bytes)
        run.write(self.out)
        manifest.write(self.out)
        return report

    def _report(self, manifest: Manifest, peak: int) -> BuildReport:
        return BuildReport(
            documents=manifest.documents,
            symbols=manifest.symbols,
            bytes_text=manifest.bytes_text,
            bytes_index=manifest.bytes_index,
            seconds=time.monotonic() - self.started,
            peak_bytes=peak,
            notes=(*manifest.notes, *self.left_out),
        )
