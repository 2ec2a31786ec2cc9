"""The steps of a build as plain jobs, so that any engine can run them anywhere, again and again.

A job is a dict of plain values. Running one that is done already costs a check and changes
nothing; running one that was interrupted finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from unspool.errors import BudgetError
from unspool.index._files import storage
from unspool.index.alphabet import TOKENIZER_FILE, Tokens
from unspool.index.ingest import ingest
from unspool.index.layout import check_document
from unspool.index.settings import BuildSettings
from unspool.index.shard import SPOOL, build_shard

Job: TypeAlias = Mapping[str, Any]
Report: TypeAlias = Callable[[int | float], None]
"""Called with the amount done since the last call: bytes of files read, or rows indexed."""


def run_job(job: Job, report: Report) -> Any:
    """Run one job to its end and return what it found out, as plain values."""
    out = Path(job["out"])
    settings = BuildSettings(**job["settings"])
    with storage(out):
        if job["step"] == "ingest":
            return _ingest_files(job, out, settings, report)
        return _build_shard(job, out, settings, report)


def load_tokens(out: Path, settings: BuildSettings) -> Tokens | None:
    """The tokenizer that the plan put beside the index."""
    return Tokens.from_bytes((out / TOKENIZER_FILE).read_bytes()) if settings.tokenised else None


def size_check(settings: BuildSettings, width: int, memory: int) -> Callable[[int, str], None]:
    """A check of each document against the memory budget, cheap for all but the largest."""
    known = 0

    def check(symbols: int, document: str) -> None:
        nonlocal known
        if symbols > known:
            check_document(symbols, settings.tiers, width, memory, f"Document {document!r}")
            known = symbols

    return check


def _ingest_files(job: Job, out: Path, settings: BuildSettings, report: Report) -> Any:
    from unspool.index.source import FileReader

    reader = FileReader(job["files"], settings, job["max_document"])
    size, told = sum(file["size"] for file in job["files"]), 0

    def progress(_: int) -> None:  # in bytes on disk, which is what the whole is known in
        nonlocal told
        now = min(reader.report.bytes_read, size)
        report(now - told)
        told = now

    heads = ingest(
        job["name"],
        reader.items(),
        out / SPOOL,
        settings,
        load_tokens(out, settings),
        check_size=size_check(settings, job["width"], job["memory"]),
        progress=progress,
        notes=reader.notes,
    )
    report(size - told)
    return heads


_DONE_BEFORE = {
    "fm": {"read": 0.0, "sort": 0.01, "transform": 0.78, "write": 0.9},
    "sa": {"read": 0.0, "sort": 0.01, "write": 0.97},
}
"""What share of a tier's time has passed when a stage of it begins, as measured."""


def _build_shard(job: Job, out: Path, settings: BuildSettings, report: Report) -> Any:
    rows, done = job["rows"], 0.0
    tiers = len(settings.tiers)

    def progress(tier: str, stage: str, fraction: float) -> None:
        nonlocal done
        stages = _DONE_BEFORE[tier]
        begun = stages.get(stage, 0.0)
        ends = min((share for share in stages.values() if share > begun), default=1.0)
        share = begun + fraction * (ends - begun)
        now = rows * (settings.tiers.index(tier) + share) / tiers
        if now > done:
            report(now - done)
            done = now

    try:
        result = build_shard(
            out,
            job["number"],
            job["pieces"],
            bytes.fromhex(job["origin"]),
            settings,
            job["width"],
            progress,
        )
    except MemoryError as error:
        raise BudgetError(
            f"Shard {job['number']} did not fit into the memory of this machine. Everything "
            "finished so far is kept: run the same command again with --workers 1."
        ) from error
    report(rows - done)
    return result
