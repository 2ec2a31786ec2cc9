"""Real text for claims and benchmarks, out of Debian packages, fetched by name and checked.

`python -m claims.data NAME…` prepares corpora and prints where they are. Packages are unpacked, not
installed, into the folder `data` of the cache (or UNSPOOL_DATA). `data.lock` holds the version and
the digest of every package's files and of every corpus: other bytes under the same version are
refused; where the archive has replaced a version (security updates do), the newer one is taken, a
warning says so, and the corpus's own description names what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from unspool._cache import cache_folder
from unspool.cli._output import emit_text, message
from unspool.corpus.html import html_to_text
from unspool.corpus.readers import read_sources
from unspool.corpus.sources import ReadReport, find_sources
from unspool.errors import InputError

LOCK = Path(__file__).with_name("data.lock")

DOCS200 = (
    "rust-doc",
    "openjdk-17-doc",
    "libstdc++-12-doc",
    "python3.11-doc",
    "postgresql-doc-15",
)
"""Documentation that repeats itself, as crawls do: navigation, signatures, generated pages."""
DISTINCT = (
    *DOCS200,
    "linux-doc-6.1",
    "scala-doc",
    "libboost1.81-doc",
    "lilypond-doc-html",
    "gnome-user-docs",
    "apache2-doc",
    "installation-guide-amd64",
    "debian-handbook",
)
"""Prose and code in many languages, to be deduplicated."""
SMALL = ("manpages", "manpages-dev")
_TEXTS = ("*.html", "*.xhtml", "*.htm", "*.txt", "*.txt.gz", "*.rst.gz", "*.page", "*.dict.dz",
          "*/wordnet/data.*", "*/man/man?/*.gz")  # fmt: skip
_LONG_LINE = 16
"""Bytes from which a line that was met before is left out of the deduplicated corpus."""


_TELL_EVERY = 20_000_000


def data_dir() -> Path:
    """The folder that packages and corpora lie in: `data` in the cache (UNSPOOL_DATA names it)."""
    folder = cache_folder("data")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian_text(*packages: str) -> list[Path]:
    """Folders with the files of Debian packages, fetched and unpacked if they are not there."""
    return [_package(name) for name in packages]


def corpus_docs200() -> Path:
    """206 MB of documentation as it stands, a JSON line a page."""
    return _corpus("docs200", DOCS200, lambda: _texts(DOCS200), "pages as they stand")


def corpus_distinct() -> Path:
    """As much text as there is without repeats: no page, and no line of 16 bytes, comes twice."""
    how = (
        f"exact duplicate pages removed; of each line of at least {_LONG_LINE} bytes, leading and "
        "trailing spaces aside, only the first occurrence kept; pages left with under 256 bytes, "
        "or under half of their bytes from new lines, removed"
    )
    return _corpus("distinct", DISTINCT, lambda: _distinct(_texts(DISTINCT)), how)


def corpus_small() -> Path:
    """Manual pages as their sources have them (roff), a JSON line a page."""
    return _corpus("small", SMALL, lambda: _texts(SMALL), "roff sources as they stand")


def python_reference() -> Path:
    """A folder with one text file a topic of the language reference that ships with Python."""
    from pydoc_data.topics import topics

    folder = data_dir() / f"python-reference-{sys.version_info[0]}.{sys.version_info[1]}"
    if not folder.is_dir():
        with _making(folder) as part:
            part.mkdir()
            for name, text in sorted(topics.items()):
                (part / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


CORPORA: dict[str, Callable[[], Path]] = {
    "docs200": corpus_docs200,
    "distinct": corpus_distinct,
    "small": corpus_small,
    "python-reference": python_reference,
}


def describe(corpus: Path) -> dict[str, Any]:
    """What a corpus holds: documents, bytes_text, sha256, packages with versions, how."""
    found: dict[str, Any] = json.loads(corpus.with_suffix(".json").read_text())
    return found


def _package(name: str) -> Path:
    folder = data_dir() / "packages" / name
    if not folder.is_dir():
        with _making(folder) as part, tempfile.TemporaryDirectory() as empty:
            archive, version = _download(name, Path(empty))
            part.mkdir()
            _run(["dpkg-deb", "--extract", str(archive), str(part / "files")])
            digest = _digest_of_files(part / "files")
            _check(f"{name} {version}", digest)
            (part / "origin.json").write_text(json.dumps({"version": version, "sha256": digest}))
    return folder / "files"


def _download(name: str, folder: Path) -> tuple[Path, str]:
    """The archive of a package in its locked version if there is one, else the newest."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise InputError(
                f"The text of the Debian package {name} is not in {data_dir()}, and there is no "
                f"{tool} here to fetch it. Run 'python -m claims.data' on a Debian system and "
                "copy that folder, or set UNSPOOL_DATA to a copy of it."
            )
    locked = next((key.split()[1] for key in _lock() if key.split()[0] == name), None)
    wanted = [f"{name}={locked}"] if locked else []
    for spec in (*wanted, name):
        done = subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", spec],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            break
    else:
        raise InputError(
            f"apt-get cannot download {name}: {done.stderr.strip()[-300:]}. "
            "Run 'apt-get update' once, as root, and try again."
        )
    archive = next(folder.glob("*.deb"))
    version = _run(["dpkg-deb", "--field", str(archive), "Version"]).strip()
    if locked and version != locked:
        warnings.warn(
            f"{name} {locked} is no longer to be had; this is {version}, so figures measured on "
            "it are not exactly comparable.",
            stacklevel=2,
        )
    return archive, version


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _lock() -> dict[str, str]:
    """`name version` of a package, or `corpus name`, to a digest."""
    if not LOCK.exists():
        return {}
    rows = (line.rsplit(maxsplit=1) for line in LOCK.read_text().splitlines() if line.strip())
    return {key: digest for key, digest in rows}  # noqa: C416 - dict() of lists has no types


def _check(key: str, digest: str) -> None:
    """Compare with the lock; with UNSPOOL_DATA_LOCK=write, enter what is new."""
    locked = _lock()
    if os.environ.get("UNSPOOL_DATA_LOCK") == "write":
        entries = {**locked, key: digest}
        LOCK.write_text("".join(f"{k} {v}\n" for k, v in sorted(entries.items())))
    elif locked.get(key, digest) != digest:
        raise InputError(
            f"{key}: what was made has the SHA-256 {digest}, and {LOCK.name} has {locked[key]}. "
            "If the change is meant, run it again with UNSPOOL_DATA_LOCK=write."
        )


def _digest_of_files(folder: Path) -> str:
    """SHA-256 over relative paths and contents of regular files, in the order of paths."""
    total = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in sorted(files, key=lambda path: os.fsencode(path.relative_to(folder))):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(os.fsencode(path.relative_to(folder)) + b"\0" + content.encode() + b"\n")
    return total.hexdigest()


def _texts(packages: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Id and text of the pages of packages; pages that are not UTF-8 are left out."""
    for name in packages:
        folder = _package(name)
        sources = [
            replace(source, compression="gz") if source.path.endswith(".dz") else source
            for source in find_sources(folder, include=_TEXTS)
            if not os.path.islink(source.path)  # another name of a page that is there
        ]
        report = ReadReport()
        replaced = 0
        for record in read_sources(sources, report=report, encoding_errors="replace"):
            is_sound = report.replaced == replaced and b"\0" not in record.data
            replaced = report.replaced
            if is_sound and record.data.strip():
                is_page = record.id.endswith(".page")
                text = html_to_text(record.data).text.encode() if is_page else record.data
                yield f"{name}/{record.id.removeprefix('usr/share/')}", text


def _distinct(texts: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    pages: set[bytes] = set()
    lines: set[bytes] = set()
    for id, text in texts:
        page = hashlib.blake2b(text, digest_size=16).digest()
        if page in pages:
            continue
        pages.add(page)
        kept: list[bytes] = []
        new = 0
        for line in text.split(b"\n"):
            stripped = line.strip()
            if len(stripped) >= _LONG_LINE:
                key = hashlib.blake2b(stripped, digest_size=8).digest()
                if key in lines:
                    continue
                lines.add(key)
                new += len(line)
            if stripped or (kept and kept[-1]):
                kept.append(line if stripped else b"")
        left = b"\n".join(kept)
        if len(left) >= 256 and 2 * new >= len(left):
            yield id, left


def _corpus(
    name: str, packages: Sequence[str], texts: Callable[[], Iterator[tuple[str, bytes]]], how: str
) -> Path:
    path = data_dir() / f"{name}.jsonl"
    if path.exists() and path.with_suffix(".json").exists():
        return path
    total = hashlib.sha256()
    documents = size = 0
    with _making(path) as part:
        with open(part, "wb") as file:
            for id, text in texts():
                line = orjson.dumps({"id": id, "text": text.decode()}) + b"\n"
                file.write(line)
                total.update(line)
                documents += 1
                size += len(text)
                if size // _TELL_EVERY > (size - len(text)) // _TELL_EVERY:
                    message(f"{name}: {size / 1e6:.0f} MB, {documents:,} pages, now {id}")
        origins = {
            p: json.loads((_package(p).parent / "origin.json").read_text()) for p in packages
        }
        versions = {p: origin["version"] for p, origin in origins.items()}
        if all(f"{p} {version}" in _lock() for p, version in versions.items()):
            _check(f"corpus {name}", total.hexdigest())
        facts = {
            "documents": documents,
            "bytes_text": size,
            "sha256": total.hexdigest(),
            "how": how,
            "packages": versions,
        }
        path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return path


@contextmanager
def _making(target: Path) -> Iterator[Path]:
    """A temporary name beside the target that takes its place when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        try:
            os.replace(part, target)
        except OSError:
            if not target.is_dir():  # else another process has made the same folder by now
                raise
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def main(names: Sequence[str]) -> int:
    """Prepare corpora and write where they are."""
    unknown = [name for name in names if name not in CORPORA]
    if unknown or not names:
        message(f"Known corpora: {', '.join(CORPORA)}.")
        return 2
    try:
        for name in names:
            emit_text(str(CORPORA[name]()))
    except InputError as error:
        message(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
