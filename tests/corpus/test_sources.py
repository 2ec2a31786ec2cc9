"""Finding files: order, links, special files, patterns, and what was left out and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unspool.corpus.sources import ReadReport, find_sources, format_of
from unspool.errors import InputError, PathNotFound

NAMES = st.sampled_from(["a", "b", "a-b", "a.b", "Z", "é", "a!"])


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def ids(root: Path, **settings: object) -> list[str]:
    return [source.id for source in find_sources(root, **settings)]  # type: ignore[arg-type] # test


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ("txt", "")),
        ("a.unknown", ("txt", "")),
        ("README", ("txt", "")),
        ("a.HTML", ("html", "")),
        ("a.jsonl.gz", ("jsonl", "gz")),
        ("a.ndjson.zst", ("jsonl", "zst")),
        ("a.parquet", ("parquet", "")),
        ("a.gz", ("txt", "gz")),
        ("a.tar.gz", ("txt", "gz")),
        (".html", ("txt", "")),
        ("a.json", ("json", "")),
    ],
)
def test_format_follows_the_name(name, expected):
    assert format_of(name) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12))
def test_order_is_that_of_the_bytes_of_paths(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("walk")
    made = [f"{name}.d/{name.split('/')[-1]}.txt" for name in names] + [f"{n}.txt" for n in names]
    make(root, *made)
    assert ids(root) == sorted(set(made), key=os.fsencode)


def test_a_walk_counts_what_it_leaves_out(tmp_path):
    make(tmp_path, "a.txt", "b.png", "c.png", "d", "LICENSE", "e.json", "sub/x.md", "out/y.txt")
    make(tmp_path, "skip.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.txt")
    report = ReadReport()
    found = find_sources(tmp_path, skip=[tmp_path / "out"], exclude=["skip*"], report=report)
    assert [source.id for source in found] == ["LICENSE", "a.txt", "sub/x.md"]
    assert report.skipped == {
        "extension .png": 2,
        "no extension": 1,
        "extension .json (name it, or include='*.json')": 1,
        "output folder": 1,
        "excluded": 1,
        "broken link": 1,
        "special file": 1,
    }


def test_links(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    make(inside, "a.txt", "sub/b.txt")
    make(outside, "secret.txt")
    (inside / "alias.txt").symlink_to("sub/b.txt")
    (inside / "leak.txt").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    report = ReadReport()
    found = find_sources(inside, report=report)
    assert [source.id for source in found] == ["a.txt", "alias.txt", "sub/b.txt"]
    assert report.skipped == {"link out of the folder": 1, "link to a folder": 2}
    # A link that is given itself is followed: that is what was asked for.
    assert ids(inside / "folder") == ["secret.txt"]


def test_include_takes_exactly_what_it_names(tmp_path):
    make(tmp_path, "man/ls.1", "man/ls.txt", "man/deep/cp.1")
    assert ids(tmp_path, include=["*.1"]) == ["man/deep/cp.1", "man/ls.1"]
    assert ids(tmp_path, include=["man/*"], exclude=["deep"]) == ["man/ls.1", "man/ls.txt"]


def test_a_given_file_is_read_whatever_its_name(tmp_path):
    make(tmp_path, "data.bin")
    assert [s.id for s in find_sources([tmp_path / "data.bin"])] == ["data.bin"]
    assert [s.id for s in find_sources(str(tmp_path / "data.bin"))] == ["data.bin"]


def test_missing_path_names_the_nearest(tmp_path):
    make(tmp_path, "novel.txt")
    with pytest.raises(PathNotFound, match=r"Did you mean '.*novel\.txt'"):
        find_sources(tmp_path / "novle.txt")
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*zzz/y'\.$"):
        find_sources(tmp_path / "zzz" / "y")
    with pytest.raises(PathNotFound):
        find_sources(tmp_path / "novel.txt" / "below")


@pytest.mark.parametrize("paths", [[], ["EMPTY"], ["PNG"]])
def test_nothing_to_read_is_an_error(tmp_path, paths):
    (tmp_path / "EMPTY").mkdir()
    make(tmp_path, "PNG/a.png")
    with pytest.raises(InputError, match=r"No path|no file|left out: 1 extension \.png"):
        find_sources([tmp_path / path for path in paths])


def test_names_that_are_not_utf8_have_printable_ids(tmp_path):
    try:
        open(os.fsencode(tmp_path) + b"/\xff.txt", "w").close()
    except OSError:
        pytest.skip("this file system takes no such name")
    assert ids(tmp_path) == ["\\xff.txt"]
