"""Which samples of a run occur in a corpus, and what the score is without them.

What: the longest piece of each sample's own text (context, question and references; not the
template) that the index holds verbatim, in bytes, and the share of its bytes in pieces of at least
the threshold. A sample is contaminated if its longest piece reaches the threshold.
Source: exact matching as in infini-gram (Liu et al. 2024) and the overlap studies of GPT-3 and
Llama 2; those count 13-grams or 10-token runs, here a run is as long as it is.
Differs from them: no normalisation, so a changed blank hides an overlap, and nothing is estimated.
Cost: one search from every position of each sample's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from unspool.errors import ConfigError
from unspool.evaluation import _io
from unspool.evaluation.intervals import mean_of
from unspool.evaluation.plan import SAMPLES, Progress
from unspool.evaluation.report import REPORT, SCORES, Report, read_report
from unspool.evaluation.spec import Sample

CONTAMINATION = "contamination.json"
THRESHOLD = 200
"""Bytes: about 13 tokens of prose are 60; 200 is two sentences."""


def check_folder(
    folder: Path,
    index: str | Sequence[str],
    *,
    threshold: int = THRESHOLD,
    progress: Progress | None = None,
) -> Report:
    """Mark the samples of a run that occur in an index, and add both scores to the report.

    Args:
        folder: A run that was scored.
        index: A directory that `build_index` wrote, or several.
        threshold: Bytes of the longest overlap from which a sample counts as contaminated.
        progress: Called with stage, how much is done, of how much.

    Returns:
        The report, with `contamination` in each task; also written to `report.json`.
    """
    if threshold < 1:
        raise ConfigError(f"threshold must be >= 1 byte, got {threshold}.")
    from unspool.index.open import open_index

    report = read_report(folder)
    opened = open_index(index if isinstance(index, str) else list(index))
    found: dict[str, dict[str, Any]] = {}
    for number, (_, record) in enumerate(_io.read_lines(folder / SAMPLES), 1):
        sample = Sample.from_json(record["sample"])
        row = overlap(opened, own_text(sample), threshold)
        found.setdefault(record["task"], {})[f"{sample.level}\t{sample.id}"] = row
        if progress is not None:
            progress("checking for contamination", number, None)
    data = {"threshold": threshold, "tasks": found}
    _io.write_atomic(folder / CONTAMINATION, [_io.canonical(data)])
    return _with_scores(report, folder, data)


def own_text(sample: Sample) -> list[str]:
    """The texts of a sample that are not the template's."""
    return [t for t in (sample.parts.context, sample.parts.query, *sample.references) if t.strip()]


def overlap(index: Any, texts: Sequence[str], threshold: int) -> dict[str, Any]:
    """The longest piece of some texts that an index holds, in bytes."""
    longest, where, covered, total = 0, "", 0, 0
    for text in texts:
        raw = text.encode()
        total += len(raw)
        lengths = np.asarray(index.longest_match(text).lengths)
        if not len(lengths):
            continue
        starts, sizes = _in_bytes(index, text, lengths, len(raw))
        best = int(sizes.argmax())
        if sizes[best] > longest:
            longest = int(sizes[best])
            begin = int(starts[best])
            where = raw[begin : begin + longest].decode("utf-8", "replace")
        covered += _covered(starts[sizes >= threshold], sizes[sizes >= threshold])
    return {
        "longest": longest,
        "text": where,
        "covered": round(covered / total, 6) if total else 0.0,
        "contaminated": longest >= threshold,
    }


def _in_bytes(index: Any, text: str, lengths: Any, size: int) -> tuple[Any, Any]:
    """Starts and sizes in bytes of the longest match at each symbol."""
    if len(lengths) == size:
        return np.arange(size), lengths
    raise ConfigError(
        "The index holds tokens, and overlaps are counted in bytes. Build one with "
        "--alphabet bytes."
    )


def _covered(starts: Any, sizes: Any) -> int:
    """Bytes in the union of some pieces, given by start in rising order."""
    reached = total = 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        end = start + size
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def _with_scores(report: Report, folder: Path, data: dict[str, Any]) -> Report:
    rows = [row for _, row in _io.read_lines(folder / SCORES)]
    seed = int(report.data["settings"]["seed"])
    for task, samples in data["tasks"].items():
        if task not in report.data["tasks"]:
            continue
        sides: dict[bool, list[float]] = {True: [], False: []}
        for row in rows:
            if row["task"] == task:
                mark = samples[f"{row['level']}\t{row['sample']}"]["contaminated"]
                sides[mark].append(row["scores"]["score"])
        report.data["tasks"][task]["contamination"] = {
            "threshold": data["threshold"],
            "samples": len(samples),
            "contaminated": sum(row["contaminated"] for row in samples.values()),
            "longest": max(row["longest"] for row in samples.values()),
            "clean": mean_of(sides[False], seed=seed).to_json() if sides[False] else None,
            "dirty": mean_of(sides[True], seed=seed).to_json() if sides[True] else None,
        }
    _io.write_atomic(folder / REPORT, [_io.canonical(report.data)])
    return report


def read_marks(folder: Path) -> dict[str, dict[str, Any]]:
    """What `check_folder` wrote, by task; empty if it never ran."""
    try:
        return dict(orjson.loads((folder / CONTAMINATION).read_bytes())["tasks"])
    except (OSError, ValueError, KeyError):
        return {}
