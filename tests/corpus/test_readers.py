"""Reading documents: bytes kept, ids, encodings, limits, archives, standard input."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unspool.corpus.readers import Record, read_documents, read_records
from unspool.corpus.sources import ReadReport
from unspool.errors import ConfigError, DuplicateDocument, EncodingError, InputError

ANY_TEXT = "a\r\nb\rc\n\ufeffé e\u0301\u2028\u00a0 日本 😀\x00\x0c\n"


def read(*paths: Path, **options: object) -> list[Record]:
    return list(read_records([*paths], **options))  # type: ignore[arg-type] # options of a test


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=300))
def test_text_is_kept_byte_for_byte(tmp_path, text):
    data = text.replace("\0", "0").encode("utf-8", "replace")
    path = write(tmp_path / "a.txt", data)
    assert read(path) == [Record("a.txt", data, {}, 0)]
    (document,) = read_documents(path)
    assert document.text.encode() == data


def test_nothing_is_translated_stripped_or_normalised(tmp_path):
    data = b"\xef\xbb\xbf" + b"x" * 8192 + ANY_TEXT.encode()
    (record,) = read(write(tmp_path / "a.md", data))
    assert record.data == data


def test_empty_file_is_an_empty_document(tmp_path):
    assert read(write(tmp_path / "a.txt", b"")) == [Record("a.txt", b"", {}, 0)]


def test_ids_are_paths_below_the_argument(tmp_path):
    write(tmp_path / "in/deep/b.txt", b"b")
    write(tmp_path / "in/a.jsonl", b'{"text":"1"}\n{"text":"2","id":"own"}\n{"text":"3","id":7}\n')
    write(tmp_path / "c.html", b"<title>T</title>c")
    found = read(tmp_path / "in", tmp_path / "c.html")
    assert [(r.id, r.data, r.meta, r.source) for r in found] == [
        ("a.jsonl:1", b"1", {}, 0),
        ("own", b"2", {}, 0),
        ("7", b"3", {}, 0),
        ("deep/b.txt", b"b", {}, 1),
        ("c.html", b"c", {"title": "T"}, 2),
    ]


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["x/a.txt", "y/a.txt"], r"'a\.txt': .*x/a\.txt and .*y/a\.txt\. Give the folder"),
        (["x/a.txt", "x/a.txt"], "The same file is given twice"),
    ],
)
def test_repeated_ids_of_files(tmp_path, names, match):
    for name in names:
        write(tmp_path / name, b"x")
    with pytest.raises(DuplicateDocument, match=match):
        read(*(tmp_path / name for name in names))


def test_repeated_ids_of_records_name_both_lines(tmp_path):
    one = write(tmp_path / "a.jsonl", b'{"text":"","id":"x"}\n\n{"text":"","id":"x"}\n')
    with pytest.raises(DuplicateDocument, match=r"'x': .*a\.jsonl:1 and .*a\.jsonl:3\. Ids must"):
        read(one)


@pytest.mark.parametrize("at", [0, 1, 8191, 8193, (1 << 20) - 1, 1 << 20, (1 << 20) + 2, 3 << 20])
def test_invalid_utf8_names_file_and_offset(tmp_path, at):
    data = bytearray(b"\xc3\xa9" * (3 << 19) + b"abc")
    data[at : at + 1] = b"\xff"
    # The replaced byte leaves half a character, before it or after it.
    expected = at - 1 if at % 2 and at < 3 << 20 else at
    path = write(tmp_path / "a.txt", bytes(data))
    with pytest.raises(EncodingError, match=rf"a\.txt' is not valid UTF-8 at byte {expected:,} "):
        read(path)
    zipped = write(tmp_path / "b.txt.gz", gzip.compress(bytes(data), 1))
    with pytest.raises(EncodingError, match=rf"byte {expected:,} "):
        read(zipped)


def test_replace_counts_what_it_replaces(tmp_path):
    report = ReadReport()
    data = b"a\xff\xfeb\xe2\x82c\xef\xbf\xbd\0"
    found = read(write(tmp_path / "a.txt", data), encoding_errors="replace", report=report)
    assert found[0].data.decode() == data.decode("utf-8", "replace")
    assert (report.replaced, report.replaced_bytes) == (3, 4)


def test_binary_files_are_refused(tmp_path):
    path = write(tmp_path / "a.txt", "text".encode("utf-16"))
    with pytest.raises(EncodingError, match=r"a\.txt' is .*UTF-8"):
        read(path)
    path = write(tmp_path / "a.txt", "text".encode("utf-16-be"))
    with pytest.raises(EncodingError, match=r"byte 0 is zero.*exclude"):
        read(path)


def test_the_error_says_how_to_convert(tmp_path):
    with pytest.raises(EncodingError, match=r"iconv -f UTF-16 -t UTF-8"):
        read(write(tmp_path / "a.txt", "é".encode("utf-16")))
    page = b'<meta charset="iso-8859-1"><p>caf\xe9'
    with pytest.raises(EncodingError, match=r"says that it is iso-8859-1: convert .*iso-8859-1 -t"):
        read(write(tmp_path / "a.html", page))
    with pytest.raises(EncodingError, match=r"0xe9\)\. Convert it, or leave"):
        read(write(tmp_path / "a.html", page.replace(b"iso-8859-1", b"utf-8")))


ARCHIVES = {
    "gz": (lambda data: gzip.compress(data, 1), gzip.decompress),
    "zst": (zstandard.ZstdCompressor(level=1).compress, None),
}


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_archives(tmp_path, kind):
    squeeze = ARCHIVES[kind][0]
    text = os.urandom(700_000).hex().encode()
    whole = squeeze(text)
    path = write(tmp_path / f"a.txt.{kind}", whole)
    assert read(path) == [Record(f"a.txt.{kind}", text, {}, 0)]
    members = squeeze(b"one ") + squeeze(b"") + squeeze(b"two " * 50_000) + squeeze(b"three")
    assert read(write(path, members))[0].data == b"one " + b"two " * 50_000 + b"three"
    for cut in (1, 5, len(whole) // 2, len(whole) - 1):
        with pytest.raises(InputError, match=rf"archive '.*a\.txt\.{kind}' is (cut short|not sou)"):
            read(write(path, whole[:cut]))
    for broken in (b"no archive", whole + b"rubbish", whole[:-20] + b"x" * 20):
        with pytest.raises(InputError, match=rf"a\.txt\.{kind}' is (cut short|not sound)"):
            read(write(path, broken))
    assert read(write(path, b""))[0].data == b""


def test_skippable_zstd_frames(tmp_path):
    frame = zstandard.ZstdCompressor().compress(b"text")
    data = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + frame + b"\x5f\x2a\x4d\x18\x00\x00\x00\x00"
    assert read(write(tmp_path / "a.zst", data))[0].data == b"text"


@pytest.mark.parametrize("size", [1, 3, 511, 512, 513, 1025])
def test_zstd_frames_of_any_size_follow_each_other(tmp_path, size):
    squeeze = zstandard.ZstdCompressor(write_checksum=True).compress
    parts = [os.urandom(size) for _ in range(20)]
    path = write(tmp_path / "a.txt.zst", b"".join(squeeze(p.hex().encode()) for p in parts))
    assert read(path)[0].data == b"".join(parts).hex().encode()


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "txt.zst", "html", "jsonl"])
def test_one_document_too_large_is_refused(tmp_path, kind):
    body = b'{"text": "' + b"x" * 3_000_000 + b'"}\n' if kind == "jsonl" else b"x" * 3_000_000
    squeeze = ARCHIVES.get(kind.partition(".")[2], (lambda data: data,))[0]
    path = write(tmp_path / f"a.{kind}", squeeze(body))
    with pytest.raises(InputError, match=r"a\.\w+(\.\w+)?.* (has|is longer).*max_document"):
        read(path, max_document=2_999_999)
    assert len(read(path, max_document=3_000_100)) == 1


def test_an_archive_made_to_expand_does_not_fill_memory(tmp_path):
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    path = write(tmp_path / "a.txt.zst", bomb)
    code = (
        "import resource, sys\n"
        "from unspool.corpus.readers import read_records\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    list(read_records(sys.argv[1], max_document=1 << 20))\n"
        "except ValueError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 80_000  # KiB


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (b"plain\ntext", ["-"]),
        (b"", ["-"]),
        (b"{not json}", ["-"]),
        (b'{"other": 1}\n', ["-"]),
        (b'{"text": "a"}\n{"text": "b", "id": "x"}\n', ["-:1", "x"]),
        (b'{"text": "' + b"a" * 200_000 + b'"}\n{"text": ""}', ["-:1", "-:2"]),
    ],
)
def test_standard_input(given, ids, tmp_path):
    code = (
        "import sys\n"
        "from unspool.corpus.readers import read_records\n"
        "for record in read_records('-'):\n"
        "    print(record.id)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True)
    assert done.stdout.decode().split() == ids, done.stderr


def test_a_named_pipe_that_is_given_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = subprocess.Popen(["sh", "-c", f"printf 'through a pipe' > {path}"])
    assert read(path)[0].data == b"through a pipe"
    assert writer.wait() == 0


def test_report_and_progress(tmp_path):
    write(tmp_path / "a.txt", b"x" * 3_000_000)
    write(tmp_path / "b.jsonl", b'{"text":"yy"}\n\n{"text":"z"}')
    write(tmp_path / "c.png", b"")
    report, calls = ReadReport(), []
    found = read(
        tmp_path, report=report, on_progress=lambda done, total: calls.append((done, total))
    )
    assert len(found) == 3
    assert report.to_json() == {
        "files": 2,
        "documents": 3,
        "bytes_read": 3_000_027,
        "bytes_text": 3_000_003,
        "replaced": 0,
        "replaced_bytes": 0,
        "blank_lines": 1,
        "skipped": {"extension .png": 1},
    }
    assert calls[-1] == (3_000_027, 3_000_027)
    assert all(done <= total for done, total in calls)


def test_wrong_settings(tmp_path):
    with pytest.raises(ConfigError, match="max_document must be at least 1"):
        read(write(tmp_path / "a.txt", b""), max_document=0)
    # The suite checks types at run time, so a wrong word is tried where nothing does.
    code = "from unspool.corpus.readers import *; read_records('.', encoding_errors='ignore')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "encoding_errors must be strict or replace, got 'ignore'" in done.stderr


def test_reading_starts_when_it_is_asked_for_but_paths_are_checked_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_records(tmp_path / "missing")


def test_unreadable_file(tmp_path):
    path = write(tmp_path / "a.txt", b"x")
    found = read_records(path)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.txt' cannot be read: No such file"):
        list(found)
