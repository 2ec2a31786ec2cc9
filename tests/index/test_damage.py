"""A damaged index file: an error that says so, or the right answer; never a crash, never a lie."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.native.answers import REFUSED, answers, questions, small_corpus, small_shard
from unspool import _native
from unspool.errors import IndexCorrupt, IndexFileError, IndexVersion

TEXT = bytes(small_corpus()[0])
TIERS = pytest.mark.parametrize("tier", ["fm", "sa"])


@pytest.fixture(params=["fm", "sa"])
def shard(request, tmp_path: Path) -> Path:
    return small_shard(tmp_path / "shard.idx", request.param)


def errors_found(path: Path) -> list[str]:
    """What `verify` reports, a refusal to open included."""
    try:
        ix = _native.Index([str(path)])
    except IndexFileError as error:
        return [str(error)]
    found = ix.verify(0)
    ix.close()
    return found


def check_flip(path: Path, data: bytes, place: int, flip: int, asked, sound) -> None:
    bad = bytearray(data)
    bad[place] ^= flip
    path.write_bytes(bad)
    for expected, found in zip(sound, answers(path, asked), strict=True):
        assert found in (expected, REFUSED), f"byte {place} ^ {flip:#x} changed an answer"
    assert errors_found(path), f"verify misses byte {place} ^ {flip:#x}"


def test_flipped_bytes_never_change_an_answer(shard: Path, tmp_path: Path):
    data = shard.read_bytes()
    asked = questions(TEXT)
    sound = answers(shard, asked)
    assert REFUSED not in sound
    assert errors_found(shard) == []
    rng = random.Random(1)
    places = [*range(0, 256, 3), *range(len(data) - 40, len(data))]
    places += [rng.randrange(len(data)) for _ in range(900)]
    for place in places:
        check_flip(tmp_path / "bad.idx", data, place, 1 << rng.randrange(8), asked, sound)


@pytest.mark.slow
def test_every_flipped_byte_is_found(shard: Path, tmp_path: Path):
    data = shard.read_bytes()
    asked = questions(TEXT)
    sound = answers(shard, asked)
    for place in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            check_flip(tmp_path / "bad.idx", data, place, flip, asked, sound)


def test_flips_are_found_when_read_into_memory_too(shard: Path, tmp_path: Path):
    data = shard.read_bytes()
    rng = random.Random(2)
    bad = tmp_path / "bad.idx"
    expected = _native.Index([str(shard)]).count(b"th")
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        bad.write_bytes(damaged)
        with contextlib.suppress(IndexFileError):
            assert _native.Index([str(bad)], ram=True).count(b"th") == expected


def test_truncation_at_every_kind_of_length(shard: Path, tmp_path: Path):
    data = shard.read_bytes()
    bad = tmp_path / "bad.idx"
    lengths = {0, 1, 7, 8, 15, 16, 63, 64, 100, 4095, 4096, 4097, len(data) // 2}
    lengths |= {len(data) - k for k in (1, 2, 8, 64, 4095, 4096, 4097)}
    for length in sorted(n for n in lengths if 0 <= n < len(data)):
        bad.write_bytes(data[:length])
        with pytest.raises(IndexCorrupt) as caught:
            _native.Index([str(bad)])
        assert "bad.idx" in str(caught.value), length
    bad.write_bytes(data + b"\0")
    with pytest.raises(IndexCorrupt):
        _native.Index([str(bad)])


def test_files_that_are_no_index(tmp_path: Path):
    bad = tmp_path / "bad.idx"
    for content in (b"", b"\0" * 9000, b"not an index\n" * 900, b"\xff" * 4096):
        bad.write_bytes(content)
        with pytest.raises(IndexCorrupt):
            _native.Index([str(bad)])
    with pytest.raises((FileNotFoundError, IndexFileError)):
        _native.Index([str(tmp_path / "absent.idx")])
    with pytest.raises((OSError, IndexFileError)):
        _native.Index([str(tmp_path)])


# What is run in a process of its own: open, touch little, let the file be cut, and ask again.
CUT = """
    import os, sys
    from pathlib import Path
    from unspool import _native
    from unspool.errors import IndexCorrupt
    path, keep = sys.argv[1], int(sys.argv[2])
    ix = _native.Index([path])
    os.truncate(path, keep)
    refused = 0
    from tests.native.answers import questions
    for ask in questions(Path(sys.argv[3]).read_bytes()):
        try:
            ask(ix)
        except IndexCorrupt:
            refused += 1
    print("refused", refused)
    try:
        assert ix.verify(0)
    except IndexCorrupt:
        pass
"""


@TIERS
def test_a_file_cut_short_under_a_live_map_is_an_error(tmp_path: Path, tier):
    shard = small_shard(tmp_path / "shard.idx", tier)
    data = shard.read_bytes()
    (tmp_path / "text").write_bytes(TEXT)
    for keep in (0, 4096, len(data) // 2 & ~4095):
        shard.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CUT), str(shard), str(keep), "text"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (keep, done.returncode, done.stderr[-2000:])
        assert int(done.stdout.split()[1]) > 0


@TIERS
def test_other_bus_errors_still_end_the_process(tmp_path: Path, tier):
    """The handler is for our maps alone: another map cut short must not be papered over."""
    shard = small_shard(tmp_path / "shard.idx", tier)
    code = """
        import mmap, os, sys
        from unspool import _native
        ix = _native.Index([sys.argv[1]])
        assert ix.count(b"e") > 0
        with open("other", "wb") as f:
            f.write(b"x" * 8192)
        fd = os.open("other", os.O_RDWR)
        view = mmap.mmap(fd, 8192)
        os.truncate("other", 0)
        view[5000]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(shard)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -7, done  # SIGBUS


def test_a_newer_version_is_refused_as_such(shard: Path, tmp_path: Path):
    """The version stands in the first 64 bytes; a copy with it raised must name the version."""
    data = shard.read_bytes()
    version = _native.FORMAT_VERSION
    seen = 0
    for place in range(0, 64, 4):
        if int.from_bytes(data[place : place + 4], "little") != version:
            continue
        bad = bytearray(data)
        bad[place : place + 4] = (version + 1).to_bytes(4, "little")
        path = tmp_path / "newer.idx"
        path.write_bytes(bad)
        with pytest.raises(IndexFileError) as caught:
            _native.Index([str(path)])
        if isinstance(caught.value, IndexVersion):
            seen += 1
            assert str(version + 1) in str(caught.value)
    assert seen == 1
