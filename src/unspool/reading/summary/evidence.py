"""Where the sentences of a summary come from: the pieces of them that stand in the text, exactly.

What: an exact index of the texts is built in a temporary folder, and each sentence is traced in it.
Of the pieces that occur, those of at least `MIN_WORDS` words and one content word are evidence, the
longest first.
Source: `unspool.index.trace`. A summary that says everything in words of its own has no evidence
here, which is not the same as being wrong.
Differs from a judge of entailment: only words are compared.
Cost: one index of the texts, then microseconds a sentence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool.corpus.split import sentences
from unspool.reading.terms import terms
from unspool.types import Document, Passage

MIN_WORDS = 3
"""Words of the shortest piece that counts."""
_MOST = 3
_MEMORY = "256MiB"


@dataclass(frozen=True, slots=True)
class SummarySentence:
    """A sentence of a summary and the passages that hold pieces of it; scores are bytes."""

    text: str
    evidence: tuple[Passage, ...]

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "evidence": [p.to_json() for p in self.evidence]}


def with_evidence(summary: str, documents: Sequence[Document]) -> tuple[SummarySentence, ...]:
    """The sentences of a summary, each with at most three passages of the texts."""
    data = summary.encode()
    pieces = [data[a:b].decode().strip() for a, b in sentences(summary)]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return ()
    from unspool.index.build import build_index
    from unspool.index.open import open_index

    with tempfile.TemporaryDirectory(prefix="unspool-summary-") as folder:
        out = Path(folder) / "index"
        build_index(documents=documents, out=out, memory=_MEMORY, workers=1)
        with open_index(out) as index:
            traced = index.trace_batch(
                pieces, min_length=8, whole_words=True, rank="length", max_sources=1
            )
    return tuple(
        SummarySentence(piece, tuple(_passages(found)))
        for piece, found in zip(pieces, traced, strict=True)
    )


def _passages(found: Sequence[Any]) -> list[Passage]:
    kept: list[Passage] = []
    for span in found:
        if len(span.text.split()) < MIN_WORDS or not terms(span.text) or len(kept) == _MOST:
            continue
        kept += [Passage(source, float(source.end - source.start)) for source in span.sources]
    return kept
