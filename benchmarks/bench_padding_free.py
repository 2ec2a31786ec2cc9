"""Sentence embeddings of mixed lengths: padding-free beside padded and sorted batches.

all-MiniLM-L6-v2 in float32 on one-line descriptions and paragraphs of manual pages, tokenised
beforehand. The peers are transformers with its sdpa attention, in the order given and sorted by
length: the usual way out where all sentences are known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from benchmarks.registry import Timed, benchmark, peer

TESTS = ("tests/attention/test_padding_free.py", "tests/extend/test_padding_free_models.py")
SENTENCES = 512


@cache
def _rows() -> list[list[int]]:
    from claims.byte_transformer import choose

    rows: list[list[int]] = choose(SENTENCES, 0)["rows"]
    return rows


def _timed(rows: Sequence[Sequence[int]], batch: int, around: AbstractContextManager[Any]) -> Timed:
    from claims._minilm import _model
    from claims.byte_transformer import embed, pad

    _, model = _model()
    ready = [pad(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    around.__enter__()  # each run has a process of its own, which ends with it
    embed(model, ready[0])

    def call() -> dict[str, Any]:
        began = time.perf_counter()
        for each in ready:
            embed(model, each)
        return {"value": len(rows) / (time.perf_counter() - began)}

    return Timed(call)


@benchmark(
    "embed",
    tests=TESTS,
    against=("transformers", "transformers-sorted"),
    sweep={"batch": (32, 128)},
    unit="sentences/s",
    fresh=True,
    runs=3,
)
def embed_packed(batch: int) -> Timed:
    """Sentences a second, packed."""
    from claims._minilm import _model
    from unspool.extension import extend

    return _timed(_rows(), batch, extend(_model()[1], "padding-free"))


@peer("embed", "transformers", missing="transformers")
def embed_padded(batch: int) -> Timed:
    """Padded, in the order given."""
    return _timed(_rows(), batch, nullcontext())


@peer("embed", "transformers-sorted", package="transformers", missing="transformers")
def embed_sorted(batch: int) -> Timed:
    """Padded, sorted by length."""
    return _timed(sorted(_rows(), key=len), batch, nullcontext())
