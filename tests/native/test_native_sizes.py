"""Texts as long as the blocks of the engine, one more and one less; wide alphabets; same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.native.shards import build, contents, hits, pack, query, write_shard
from tests.oracles.corpora import cut, prose, random_text
from tests.oracles.text import Brute
from unspool import _native

WIDE = [(2, n) for n in (255, 256, 4096, 49_152, 65_534, 65_535, 65_536)]
WIDE += [(4, 70_000), (4, 131_072)]
BOUNDARIES = [n + d for n in (64, 256, 512, 2048, 4096) for d in (-2, -1, 0, 1)]


@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize("size", BOUNDARIES)
def test_sizes_around_internal_blocks(tmp_path: Path, size, tier):
    """`size` stored symbols with separators, give or take the one sentinel."""
    for alphabet in (1, 2, 40):
        text = random_text(size - 3, alphabet, size, 97)
        documents = [text[: size // 2], [], text[size // 2 :]]
        ix = build(tmp_path, documents, tier)
        brute = Brute(documents)
        assert contents(ix) == documents
        for symbol in range(97, 97 + min(alphabet, 5)):
            for pattern in ([symbol], [symbol, 97], [97, symbol, symbol]):
                assert ix.count(bytes(pattern)) == brute.count(pattern)
                assert hits(ix, pattern) == brute.positions(pattern)


@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 65_537])
@pytest.mark.parametrize("kind", ["random", "runs"])
def test_sizes_around_sixteen_bits(tmp_path: Path, size, kind, tier):
    text = random_text(size - 1, 256 if tier == "sa" else 90, size)
    if kind == "runs":
        text = sorted(text)
    ix = build(tmp_path, [text], tier)
    data = bytes(text)
    assert ix.extract(0, 0, 0, len(text)) == data
    for pattern in (data[:1], data[-1:], data[:7], data[-7:], data[30_000:30_004], b"\x05\x09"):
        expected = [p for p in range(len(data)) if data.startswith(pattern, p)]
        assert [p for _, p in hits(ix, pattern)] == expected


@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize(("width", "alphabet"), WIDE)
def test_wide_alphabets(tmp_path: Path, tier, width, alphabet):
    first = 0 if width == 2 else 2**32 - alphabet
    text = random_text(2 * alphabet, alphabet, alphabet, first)
    documents = cut(text, 5, 3)
    ix = build(tmp_path, documents, tier, width)
    assert ix.info(0)["alphabet"] == alphabet
    assert contents(ix, width) == documents
    brute = Brute([[s - first for s in d] for d in documents])
    for at in range(0, len(text) - 4, len(text) // 40):
        for length in (1, 2, 3):
            piece = text[at : at + length]
            low = [s - first for s in piece]
            q = query(piece, width)
            assert ix.count(q) == brute.count(low)
            assert hits(ix, piece, width) == brute.positions(low)
            total, symbols, counts = ix.next(q)
            expected = {s + first if s >= 0 else s: c for s, c in brute.next(low).items()}
            assert dict(zip(symbols.tolist(), counts.tolist(), strict=True)) == expected
            assert total == brute.count(low)


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, tier):
    documents = cut(prose(50_000, 3), 40, 3)
    digests = set()
    for i in range(3):
        out = tmp_path / f"{i}.idx"
        write_shard(out, documents, tier)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_pieces_are_joined_and_their_cuts_leave_no_trace(tmp_path: Path, tier):
    documents = cut(prose(20_000, 4), 9, 4)
    whole = tmp_path / "whole.idx"
    write_shard(whole, documents, tier)
    parts, data = [], b"".join(pack(d, 1) for d in documents)
    for i, (a, b) in enumerate([(0, 1), (1, 1), (1, 7000), (7000, 20_000)]):
        spool = tmp_path / f"part{i}.spool"
        spool.write_bytes(b"junk" + data[a:b] + b"tail")
        parts.append((str(spool), 4, b - a))
    out = tmp_path / "parts.idx"
    lengths = np.array([len(d) for d in documents], dtype=np.uint64)
    report = _native.build_shard(str(out), tier=tier, width=1, pieces=parts, lengths=lengths)
    assert out.read_bytes() == whole.read_bytes()
    assert report["symbols"] == 20_000
    assert report["documents"] == 9
    assert report["bytes_file"] == out.stat().st_size


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_opaque_sections_come_back(tmp_path: Path, tier):
    big = bytes(range(256)) * 300
    sections = [("meta", big), ("ids", b""), ("eightchr", b"\0")]
    ix = build(tmp_path, [list(b"abc"), []], tier, sections=sections)
    for name, data in sections:
        assert ix.section(0, name) == data
    assert ix.section(0, "meta", 4090, 4100) == big[4090:4100]
    assert ix.verify(0) == []
    with pytest.raises((KeyError, ValueError)):
        ix.section(0, "absent")


def test_progress_is_told_and_may_stop_the_build(tmp_path: Path):
    told: list[tuple[str, float]] = []
    documents = [prose(200_000, 2)]
    write_shard(tmp_path / "a.idx", documents, "fm", progress=lambda s, f: told.append((s, f)))
    assert told
    assert all(0.0 <= fraction <= 1.0 for _, fraction in told)

    def stop(stage: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "b.idx", documents, "fm", progress=stop)
    assert not (tmp_path / "b.idx").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("b.idx")]


def test_planned_memory_covers_the_measured_peak():
    for tier in ("fm", "sa"):
        small = _native.shard_memory(tier, 1, 10_000_000, 10)
        assert 10_000_000 * 4 < small <= 10_000_000 * 7
        assert _native.shard_memory(tier, 2, 10_000_000, 10) >= small
