"""The real text that the index is measured on: documentation packages of Debian.

- `docs`: the packages as they are, pages in an order shuffled once: they repeat themselves, as
  crawls do (navigation, templates, generated pages);
- `distinct`: the same with every line kept only where it first stands;
- `twice`: half as much of `docs`, every document there twice.

Prompts come from packages that are in none of them. Everything lies in the cache folder
(UNSPOOL_DATA, else ~/.cache/unspool): unpacked packages, workloads, and the built indexes.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import index_workload
from unspool.errors import ConfigError

MILLION = 1_000_000
INDEXED = (
    "rust-doc",
    "openjdk-17-doc",
    "libstdc++-12-doc",
    "postgresql-doc-15",
    "linux-doc-6.1",
    "python3.11-doc",
    "nodejs-doc",
)
MORE = (
    "libboost1.74-doc",
    "qtbase5-doc-html",
    "ghc-doc",
    "erlang-doc",
    "python-scipy-doc",
    "llvm-14-doc",
    "libgtk-4-doc",
    "racket-doc",
    "sqlite3-doc",
    "octave-doc",
)
"""Added for `distinct`, since the others hold only 116 MB of lines that are not repeated."""
HELD_OUT = ("git-doc", "perl-doc")


def cache() -> Path:
    from benchmarks.peers.sdsl import cache as sdsl_cache

    return sdsl_cache().parent


def package_text(name: str) -> Path:
    """One JSONL file with the text of the package's HTML and text pages, made the first time."""
    import orjson

    from unspool.corpus.readers import read_documents

    done = cache() / "debian" / f"{name}.jsonl"
    if done.exists():
        return done
    part = done.with_suffix(".part")
    with open(part, "wb") as lines:
        for found in read_documents(
            unpacked(name), include=["*.html", "*.pod"], encoding_errors="replace"
        ):
            if found.text.strip():
                lines.write(orjson.dumps({"id": f"{name}/{found.id}", "text": found.text}) + b"\n")
    part.rename(done)
    return done


def unpacked(name: str) -> Path:
    """The package's files, fetched and unpacked (not installed) the first time."""
    folder = cache() / "debian" / name
    if folder.exists():
        return folder
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise ConfigError(
                f"The benchmarks of the index read the Debian package {name}, and {tool} is not "
                f"installed here. Unpack the package into {folder}."
            )
    with tempfile.TemporaryDirectory(dir=made(cache() / "debian")) as temporary:
        fetch = ["apt-get", "-q", "download", name]
        subprocess.run(fetch, cwd=temporary, check=True, stdout=sys.stderr)
        package = next(Path(temporary).glob("*.deb"))
        subprocess.run(["dpkg", "-x", str(package), f"{temporary}/files"], check=True)
        Path(temporary, "files").rename(folder)
    return folder


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def documents(packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(id, text) of every page of these packages, in one shuffled order that never changes."""
    import orjson

    places: list[tuple[str, int]] = []
    for name in packages:
        with open(package_text(name), "rb") as lines:
            at = 0
            for line in lines:
                places.append((name, at))
                at += len(line)
    random.Random(0).shuffle(places)
    files = {name: open(package_text(name), "rb") for name in packages}  # noqa: SIM115 - closed below
    try:
        for name, at in places:
            files[name].seek(at)
            record = orjson.loads(files[name].readline())
            yield record["id"], record["text"]
    finally:
        for file in files.values():
            file.close()


@dataclass(slots=True)
class Workload:
    """A corpus of a given size with its queries, and where the engines' indexes of it lie."""

    corpus: str
    megabytes: int
    folder: Path
    asked: dict[str, Any] = field(repr=False)

    @classmethod
    def make(cls, corpus: str, megabytes: int) -> Workload:
        folder = cache() / "index" / f"{corpus}-{megabytes}"
        size = megabytes * MILLION
        if corpus == "docs":
            chosen = index_workload.take(documents(INDEXED), size)
        elif corpus == "distinct":
            every = index_workload.distinct_lines(documents((*INDEXED, *MORE)))
            chosen = index_workload.take(every, size)
        elif corpus == "twice":
            half = index_workload.take(documents(INDEXED), size // 2)
            chosen = index_workload.twice(half)
        else:
            raise ConfigError(f"There is no corpus {corpus!r}: docs, distinct or twice.")
        held_out = (text for _, text in islice(documents(HELD_OUT), 400))
        return cls(corpus, megabytes, folder, index_workload.make(folder, chosen, held_out))

    def built(self, contender: str) -> Path:
        return self.folder / "built" / contender

    def ours(self, tier: str, samples: str) -> Path:
        return self.built(f"unspool-{tier}-{samples}")

    def release(self) -> None:
        """Forget the queries, so that they do not weigh on a measurement of memory."""
        self.asked = {k: v for k, v in self.asked.items() if k in ("bytes", "documents")}
