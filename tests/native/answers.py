"""A fixed set of questions to a small index, each answered or refused by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.native.shards import write_shard
from tests.oracles.corpora import prose
from unspool import _native
from unspool.errors import IndexFileError

QUERIES = [b"", b"e", b"th", b" a", b"\xff", b"\x00\x01", b"tion of", b"zzz"]
REFUSED = "refused"
"""What stands for an answer that was refused with an error of the index."""


def small_corpus() -> list[list[int]]:
    text = prose(5000, 77)
    return [text[:1800], [], text[1800:4000], [0, 255, 255, 1], text[4000:], text[:300]]


def small_shard(path: Path, tier: str, **settings: Any) -> Path:
    sections = [("meta", bytes(range(256)) * 8)]
    write_shard(path, small_corpus(), tier, sections=sections, **settings)
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _first_rows(lo: int, hi: int) -> Any:
    return np.array(range(lo, min(hi, lo + 50)), dtype=np.uint64)


def questions(text: bytes) -> list[Callable[[_native.Index], Any]]:
    asked: list[Callable[[_native.Index], Any]] = []
    for q in [*QUERIES, text[40:48], text[100:164]]:
        asked += [
            lambda ix, q=q: ix.count(q),
            lambda ix, q=q: ix.next(q),
            lambda ix, q=q: ix.prob(q, -1),
            lambda ix, q=q: ix.infgram(b"xq" + q),
            lambda ix, q=q: ix.locate(0, _first_rows(*ix.ranges(q)[0]), len(q)),
        ]
    asked += [
        lambda ix: ix.count_batch(QUERIES),
        lambda ix: ix.longest_matches(text[50:200] + b"\x07" + text[900:1000]),
        lambda ix: ix.section(0, "meta"),
        lambda ix: ix.document_lengths(0),
    ]
    for d in range(6):
        asked.append(lambda ix, d=d: ix.document_length(0, d))
        asked.append(lambda ix, d=d: ix.extract(0, d, 0, ix.document_length(0, d)))
    return asked


def answers(path: Path, asked: list[Callable[[_native.Index], Any]]) -> list[Any]:
    """Each question's answer, REFUSED where the index said that it is damaged."""
    try:
        ix = _native.Index([str(path)])
    except IndexFileError:
        return [REFUSED] * len(asked)
    found = []
    for ask in asked:
        try:
            found.append(_plain(ask(ix)))
        except IndexFileError:
            found.append(REFUSED)
    ix.close()
    return found
