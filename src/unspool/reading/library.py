"""Texts prepared once for many questions: units, word search and exact search, kept in the cache.

What: the documents of some paths, cut into units (`reading.units`), a BM25 table of the units'
words (bm25s), and an exact index (`unspool.index`), which also quotes the units. The folder is
named by a digest of every document's id and text and of the settings, so the same texts are
prepared once, wherever they lie, and changed ones anew.
Source: Robertson and Zaragoza 2009 for BM25, Lù 2024 (arXiv 2407.03618) for scoring at build time.
Differs from plain BM25: a unit's heading and its document's name count as words of the unit.
Cost: reading the texts each time (for the digest), about 1 GB/s from memory; preparing, about
0.5 MB/s a core; on disk about as much as the texts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool import _native
from unspool._cache import cache_folder
from unspool._optional import require
from unspool.corpus.readers import read_documents
from unspool.errors import IndexFileError, InputError
from unspool.index.build import build_index
from unspool.index.open import open_index
from unspool.reading.terms import terms
from unspool.reading.units import UNIT_BYTES, units
from unspool.types import Document, Span


@runtime_checkable
class Progress(Protocol):
    """Called with what is being done, how much is done and, if known, of how much."""

    def __call__(self, stage: str, done: int | float, total: int | float | None) -> None: ...


K1, B = 1.2, 0.5
_FORMAT = 1
_MANIFEST = "library.json"
_BATCH = 512


def silent(stage: str, done: int | float, total: int | float | None) -> None:
    return None


class Library:
    """Prepared texts, opened. `open_library` makes one."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        listed = json.loads((folder / _MANIFEST).read_bytes())
        bm25s = require("bm25s", extra="read", purpose="Picking what to read")
        self.folder = folder
        self.documents: list[str] = listed["documents"]
        self.headings: list[str] = listed["headings"]
        arrays = load_file(folder / "units.safetensors")
        self.document = arrays["document"]
        self.start = arrays["start"]
        self.end = arrays["end"]
        self.heading = arrays["heading"]
        self.index = open_index(folder / "index")
        self._words = bm25s.BM25.load(str(folder / "words"), mmap=True, show_progress=False)

    def __len__(self) -> int:
        """How many units there are."""
        return len(self.start)

    @property
    def bytes_text(self) -> int:
        """Bytes of all documents together."""
        return int((self.end - self.start).sum())

    def word_scores(self, question: str) -> NDArray[np.float32]:
        """BM25 of each unit for the words of a question."""
        known = [t for t in terms(question) if t in self._words.vocab_dict]
        if not known:
            return np.zeros(len(self), dtype=np.float32)
        scores: NDArray[np.float32] = self._words.get_scores(known)
        return scores[: len(self)]

    def unit_at(self, document: str, offset: int) -> int:
        """The unit that holds a byte of a document."""
        number = self._numbers[document]
        first, last = np.searchsorted(self.document, [number, number + 1])
        return int(first + np.searchsorted(self.start[first:last], offset, side="right") - 1)

    def quote(self, first: int, last: int) -> Span:
        """Units `first` to `last`, both included and of one document, as one span."""
        document = self.documents[int(self.document[first])]
        start, end = int(self.start[first]), int(self.end[last])
        return Span(document, start, end, self.index.extract(document, start, end).decode())

    def texts(self) -> Iterator[str]:
        """The text of each unit, in order."""
        spans = zip(self.document, self.start, self.end, strict=True)
        while batch := list(islice(spans, _BATCH)):
            asked = [(self.documents[int(d)], int(s), int(e)) for d, s, e in batch]
            for data in self.index.extract_batch(asked):
                yield data.decode()

    def token_counts(
        self,
        identity: str,
        count: Callable[[Sequence[str]], Sequence[int]],
        progress: Progress = silent,
    ) -> NDArray[np.uint32]:
        """Tokens of each unit, counted once a tokenizer and kept.

        Args:
            identity: Of the tokenizer: the name and revision of its model.
            count: From texts to their numbers of tokens.
            progress: Told how far the count is.
        """
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        path = self.folder / f"tokens-{name}.npy"
        try:
            kept: NDArray[np.uint32] = np.load(path, allow_pickle=False)
            if kept.shape == (len(self),) and kept.dtype == np.uint32:
                return kept
        except (OSError, ValueError):
            pass
        counts = np.zeros(len(self), dtype=np.uint32)
        done = 0
        texts = self.texts()
        while batch := list(islice(texts, _BATCH)):
            counts[done : done + len(batch)] = count(batch)
            done += len(batch)
            progress("Counting tokens", done, len(self))
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".npy", delete=False) as file:
            np.save(file, counts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
        return counts

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.documents)}


def open_library(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    progress: Progress = silent,
) -> Library:
    """Open the prepared texts of some paths; prepare them if that was not done before.

    Args:
        paths: Files, folders or "-" (standard input), as `read_documents` takes them.
        progress: Told what is being done.

    Raises:
        InputError: There is no text in the paths, or it changed while it was read.
    """
    read = _reader(paths)
    key = _digest(read())
    folder = cache_folder("ask", key[:32])
    opened = _open(folder)
    if opened is not None:
        return opened
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        opened = _open(folder)  # another process may have prepared it by now
        if opened is None:
            _prepare(read, key, folder, progress)
            opened = Library(folder)
    return opened


def remake_library(library: Library, paths: Any, *, progress: Progress = silent) -> Library:
    """Prepare the texts anew, after use found the kept index damaged."""
    library.index.close()
    with _locked(library.folder):
        shutil.rmtree(library.folder, ignore_errors=True)
    return open_library(paths, progress=progress)


def _reader(paths: Any) -> Callable[[], Iterable[Document]]:
    """Documents as often as they are needed: standard input can be read once and is held."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if any(os.fspath(p) == "-" for p in given):
        held = list(read_documents(given))
        return lambda: held
    return lambda: read_documents(given)


def _digest(documents: Iterable[Document]) -> str:
    settings = f"unspool ask {_FORMAT} {_native.FORMAT_VERSION} {UNIT_BYTES} {K1} {B}"
    total = hashlib.sha256(settings.encode())
    num_bytes = num_documents = 0
    for document in documents:
        data = document.text.encode()
        for part in (document.id.encode(), data):
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
        num_bytes += len(data)
        num_documents += 1
    if not num_bytes:
        held = f"{num_documents:,} documents, all empty" if num_documents else "no documents"
        raise InputError(
            f"There is no text to read: the paths hold {held}. Give a file or a folder of txt, "
            f"md, html, jsonl or parquet files."
        )
    return total.hexdigest()


def _open(folder: Path) -> Library | None:
    """The library of a folder whose files are sound, else None."""
    try:
        listed = json.loads((folder / _MANIFEST).read_bytes())
        for name, known in listed["files"].items():
            if _sha256(folder / name) != known:
                return None
        return Library(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexFileError):
        return None


def _prepare(
    read: Callable[[], Iterable[Document]], key: str, folder: Path, progress: Progress
) -> None:
    """Make a library in a folder of its own, and rename it when it is complete."""
    from safetensors.numpy import save_file

    bm25s = require("bm25s", extra="read", purpose="Picking what to read")
    prefix = f".making-{folder.name}-"
    for stale in folder.parent.glob(f"{prefix}*"):  # left by a killed run; the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        cutter = _Cutter()
        build_index(out=making / "index", documents=cutter.watch(read()), progress=progress)
        if _digest(read()) != key:
            raise InputError("The texts changed while they were read. Ask again.")
        words = bm25s.BM25(k1=K1, b=B, method="lucene")
        progress("Indexing words", 0, None)
        words.index((cutter.words, cutter.vocabulary), show_progress=False)
        words.save(str(making / "words"), show_progress=False)
        save_file(cutter.arrays(), making / "units.safetensors")
        files = sorted(p for p in making.rglob("*") if p.is_file() and p.parent.name != "index")
        manifest = {
            "format": _FORMAT,
            "documents": cutter.documents,
            "headings": list(cutter.headings),
            "files": {p.relative_to(making).as_posix(): _sha256(p) for p in files},
        }
        (making / _MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
        for path in (*files, making / _MANIFEST):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():  # unsound, or it would have been opened
            shutil.rmtree(folder)
        os.rename(making, folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


class _Cutter:
    """Notes units and their words while the documents go by into the exact index."""

    def __init__(self) -> None:
        self.documents: list[str] = []
        self.headings: dict[str, int] = {"": 0}
        self.vocabulary: dict[str, int] = {"": 0}  # bm25s reads 0 as "no known word"
        self.words: list[list[int]] = []
        self._rows: list[tuple[int, int, int, int]] = []

    def watch(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if document.text:
                self._cut(document)
            yield document

    def _cut(self, document: Document) -> None:
        number = len(self.documents)
        self.documents.append(document.id)
        data = document.text.encode()
        of_name = self._ids(terms(Path(document.id).stem))
        for unit in units(document.text):
            heading = self.headings.setdefault(unit.heading, len(self.headings))
            self._rows.append((number, unit.start, unit.end, heading))
            body = self._ids(terms(data[unit.start : unit.end].decode()))
            self.words.append(body + of_name + self._ids(terms(unit.heading)))

    def _ids(self, found: Iterable[str]) -> list[int]:
        return [self.vocabulary.setdefault(term, len(self.vocabulary)) for term in found]

    def arrays(self) -> dict[str, NDArray[Any]]:
        rows = np.array(self._rows, dtype=np.uint64).reshape(-1, 4)
        return {
            "document": rows[:, 0].astype(np.uint32),
            "start": np.ascontiguousarray(rows[:, 1]),
            "end": np.ascontiguousarray(rows[:, 2]),
            "heading": rows[:, 3].astype(np.uint32),
        }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process prepares a text at a time; the others wait and then find it done."""
    try:
        import fcntl
    except ImportError:  # Windows: preparing twice costs time, the rename still decides
        yield
        return
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
