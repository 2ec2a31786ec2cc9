"""Fetching real text: the lock, what is missing, what is left out. No package is fetched here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from claims import data
from unspool.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("UNSPOOL_DATA_LOCK", raising=False)
    monkeypatch.setattr(data, "LOCK", tmp_path / "data.lock")
    return data.data_dir()


def unpacked(folder: Path, package: str, files: dict[str, str]) -> None:
    root = folder / "packages" / package
    for name, text in files.items():
        path = root / "files/usr/share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "origin.json").write_text(json.dumps({"version": "1-1", "sha256": "0"}))


def built_package(folder: Path, name: str, text: str) -> Path:
    """A real archive, built with the system's own tool."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 2-1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: x\n"
    )
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "usr/share/doc/a.txt").write_text(text)
    archive = folder / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--build", str(root), str(archive)], check=True, capture_output=True
    )
    return archive


@pytest.fixture
def archive(tmp_path, monkeypatch):
    if not data.shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not installed")
    made = built_package(tmp_path / "made", "some-doc", "hello\n")

    def download(name: str, folder: Path) -> tuple[Path, str]:
        return made, "2-1"

    monkeypatch.setattr(data, "_download", download)
    return made


def test_a_package_is_unpacked_checked_and_locked(folder, archive, monkeypatch):
    monkeypatch.setenv("UNSPOOL_DATA_LOCK", "write")
    (files,) = data.debian_text("some-doc")
    assert (files / "usr/share/doc/a.txt").read_text() == "hello\n"
    key, digest = data.LOCK.read_text().rsplit(maxsplit=1)
    assert key == "some-doc 2-1"
    assert len(digest) == 64


def test_other_bytes_under_a_locked_version_are_refused(folder, archive):
    data.LOCK.write_text("some-doc 2-1 " + "0" * 64 + "\n")
    with pytest.raises(InputError, match=r"some-doc 2-1: .*SHA-256.*UNSPOOL_DATA_LOCK=write"):
        data.debian_text("some-doc")
    assert not list((folder / "packages").iterdir())


def test_without_apt_the_error_says_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(data.shutil, "which", lambda tool: None)
    with pytest.raises(InputError, match=r"no apt-get here.*UNSPOOL_DATA"):
        data.debian_text("rust-doc")


def test_a_corpus_is_described_and_made_once(folder, monkeypatch):
    pages = {
        "doc/a.html": "<p>One &amp; two.<p>Three.",
        "doc/b.txt": "text",
        "doc/c.txt": "\ufeff",
        "doc/latin.txt": "",
        "help/d.page": "<page><title>T</title><p>Mallard</p></page>",
        "doc/e.png": "x",
    }
    for name in data.DOCS200:
        unpacked(folder, name, pages if name == "rust-doc" else {"doc/empty.txt": " \n"})
    latin = folder / "packages/rust-doc/files/usr/share/doc/latin.txt"
    latin.write_bytes("caf\xe9".encode("latin-1"))
    (latin.parent / "alias.txt").symlink_to("b.txt")
    path = data.corpus_docs200()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [
        ("rust-doc/doc/a.html", "One & two.\n\nThree."),
        ("rust-doc/doc/b.txt", "text"),
        ("rust-doc/doc/c.txt", "\ufeff"),
        ("rust-doc/help/d.page", "T\n\nMallard"),
    ]
    facts = data.describe(path)
    assert facts["documents"] == 4
    assert facts["bytes_text"] == sum(len(row["text"].encode()) for row in rows)
    assert facts["packages"] == dict.fromkeys(data.DOCS200, "1-1")
    path.write_text("kept")
    assert data.corpus_docs200().read_text() == "kept"


def test_distinct_keeps_each_page_and_long_line_once():
    line = "a line of more than sixteen bytes, number %d"
    own = "\n".join(line % i for i in range(20)).encode()
    other = "\n".join(line % i for i in range(100, 120)).encode()
    pages = [
        ("first", own),
        ("again", own),
        ("mostly old", own + b"\nshort\n" + (line % 99).encode()),
        ("half new", other + b"\n\n\n  \n}\n" + own + b"\n}\nend of this page, which is new"),
        ("small", b"too small to keep as a page"),
    ]
    kept = dict(data._distinct(iter(pages)))
    assert kept == {
        "first": own,
        "half new": other + b"\n\n}\n}\nend of this page, which is new",
    }


def test_python_reference(folder):
    path = data.python_reference()
    from pydoc_data.topics import topics

    assert {file.stem: file.read_text() for file in path.iterdir()} == topics


def test_command_line(folder):
    done = subprocess.run(
        [sys.executable, "-m", "claims.data", "nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "docs200, distinct, small, python-reference" in done.stderr
