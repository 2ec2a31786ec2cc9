"""The small files of an index: any changed byte is noticed, and never changes an answer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.index.test_search import TEXTS, byte_level
from unspool.errors import IndexCorrupt, IndexFileError
from unspool.index.build import build_index
from unspool.index.open import open_index, verify_index


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("manifest")
    documents = [(str(i), text) for i, text in enumerate(TEXTS)]
    alphabet = f"tokenizer:{byte_level(root)}"
    build_index(documents=documents, out=root / "ix", alphabet=alphabet, tier="both")
    assert verify_index(root / "ix") == []
    return root / "ix"


def damaged(path: Path, count: int):
    """The same file with one byte changed, many times; whole again at the end."""
    data = path.read_bytes()
    rng = random.Random(path.name)
    places = rng.sample(range(len(data)), min(count, len(data)))
    try:
        for place in places:
            bad = bytearray(data)
            bad[place] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            yield place
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["index.json", "tokenizer.json"])
def test_a_changed_byte_does_not_open(index, name):
    for place in damaged(index / name, 300):
        with pytest.raises(IndexFileError):
            open_index(index)
        assert verify_index_refuses(index), place
    open_index(index).close()


def verify_index_refuses(index: Path) -> bool:
    try:
        return bool(verify_index(index))
    except IndexFileError:
        return True


def test_a_changed_byte_of_the_plan_is_found(index):
    for place in damaged(index / "plan.json", 100):
        assert verify_index_refuses(index), place
        open_index(index).close()  # nothing that answers depends on the plan


def test_run_json_may_hold_anything(index):
    (index / "run.json").write_bytes(b"\xff{")
    with open_index(index) as ix:
        assert ix.info().seconds is None
    (index / "run.json").unlink()
    open_index(index).close()


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_manifest_cut_short(index, cut):
    data = (index / "index.json").read_bytes()
    (index / "index.json").write_bytes(data[:cut])
    try:
        with pytest.raises(IndexCorrupt, match=r"index\.json"):
            open_index(index)
    finally:
        (index / "index.json").write_bytes(data)


def test_a_shard_of_another_index_is_noticed(index, tmp_path):
    build_index(documents=[("x", "the other one")], out=tmp_path / "other")
    mine = index / "shard-00000.fm"
    data = mine.read_bytes()
    mine.write_bytes((tmp_path / "other" / "shard-00000.fm").read_bytes())
    try:
        with pytest.raises(IndexCorrupt, match=r"shard-00000\.fm"):
            open_index(index, tier="fm")
        assert verify_index(index)
    finally:
        mine.write_bytes(data)
