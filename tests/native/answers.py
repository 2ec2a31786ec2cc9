"""A fixed set of questions to a small index, each answered or refused by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.native.shards import query, write_shard
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


def questions(text: bytes, width: int = 1) -> list[Callable[[_native.Index], Any]]:
    asked: list[Callable[[_native.Index], Any]] = []
    for raw in [*QUERIES, text[40:48], text[100:164]]:
        q, length = query(raw, width), len(raw)
        longer = query(b"xq" + raw, width)
        asked += [
            lambda ix, q=q: ix.count(q),
            lambda ix, q=q: ix.next(q),
            lambda ix, q=q: ix.prob(q, -1),
            lambda ix, q=longer: ix.infgram(q),
            lambda ix, q=q, n=length: ix.locate(0, _first_rows(*ix.ranges(q)[0]), n),
        ]
    traced = query(text[50:200] + b"\x07" + text[900:1000], width)
    batch = [query(raw, width) for raw in QUERIES]
    asked += [
        lambda ix: ix.count_batch(batch),
        lambda ix: ix.count_batch(batch * 20),  # so many that the file is read through first
        lambda ix: ix.longest_matches(traced),
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
