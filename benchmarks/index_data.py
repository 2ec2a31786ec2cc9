"""The real text that the index is measured on, and where workloads and built indexes lie.

- `docs`: documentation packages of Debian as they stand; they repeat themselves, as crawls do
  (navigation, signatures, generated pages);
- `distinct`: more packages, with every page and every longer line kept only where it first stands;
- `twice`: half as much of `docs`, every document there twice.

A smaller size takes whole documents drawn at random, in their order. Prompts come from packages
that are in none of the corpora. See `claims/data.py` for how the text is fetched and checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks import index_workload
from claims import data
from unspool._cache import cache_folder
from unspool.corpus.readers import read_documents
from unspool.errors import ConfigError

MILLION = 1_000_000
HELD_OUT = ("git-doc", "perl-doc")
CORPORA = ("docs", "distinct", "twice")


def documents(path: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of the records of a JSON lines file."""
    with open(path, "rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            yield record["id"], record["text"]


def drawn(path: Path, size: int) -> Iterator[tuple[str, str]]:
    """Documents of a file in its order, drawn at random until they hold `size` bytes of text."""
    lengths = [len(text.encode()) for _, text in documents(path)]
    order = list(range(len(lengths)))
    random.Random(0).shuffle(order)
    chosen, total = set(), 0
    for number in order:
        if total >= size:
            break
        chosen.add(number)
        total += lengths[number]
    return (found for number, found in enumerate(documents(path)) if number in chosen)


def held_out() -> Iterator[str]:
    """Text of packages that are in no corpus, 400 pages of it."""
    folders = data.debian_text(*HELD_OUT)
    found = read_documents(folders, include=["*.html", "*.pod"], encoding_errors="replace")
    texts = [document.text for document in found if len(document.text) > 500]
    random.Random(0).shuffle(texts)
    yield from texts[:400]


@dataclass(slots=True)
class Workload:
    """A corpus of a given size with its queries, and where the engines' indexes of it lie."""

    corpus: str
    megabytes: int
    folder: Path
    asked: dict[str, Any] = field(repr=False)

    @classmethod
    def make(cls, corpus: str, megabytes: int) -> Workload:
        if corpus not in CORPORA:
            raise ConfigError(f"There is no corpus {corpus!r}: {', '.join(CORPORA)}.")
        folder = cache_folder("bench", "index", f"{corpus}-{megabytes}")
        if not (folder / "workload.json").exists():
            path = data.corpus_distinct() if corpus == "distinct" else data.corpus_docs200()
            size = megabytes * MILLION
            chosen = drawn(path, size // 2 if corpus == "twice" else size)
            if corpus == "twice":
                chosen = index_workload.twice(chosen)
            index_workload.make(folder, chosen, held_out())
        return cls(corpus, megabytes, folder, index_workload.load(folder))

    def built(self, contender: str) -> Path:
        return self.folder / "built" / contender

    def ours(self, tier: str, samples: str, store_text: str | None = None) -> Path:
        return self.built("-".join(["unspool", tier, samples, *filter(None, [store_text])]))

    def release(self) -> None:
        """Forget the queries, so that they do not weigh on a measurement of memory."""
        self.asked = {k: v for k, v in self.asked.items() if k in ("bytes", "documents")}
