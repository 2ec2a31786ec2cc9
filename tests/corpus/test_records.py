"""Records: fields, metadata, bad lines by number and offset, arrays, Parquet."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unspool.corpus import records
from unspool.corpus.readers import Record, read_records
from unspool.corpus.sources import ReadReport
from unspool.errors import EncodingError, InputError

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | UNICODE
META = st.dictionaries(UNICODE.filter(lambda key: key not in ("id", "text")), VALUE, max_size=3)


def read(path: Path, **options: object) -> list[Record]:
    return list(read_records(path, **options))  # type: ignore[arg-type] # options of a test


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
    deadline=None,
)
@given(
    rows=st.lists(st.tuples(UNICODE, META), min_size=1, max_size=6),
    escaped=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]),
    last=st.booleans(),
)
def test_lines_in_any_blocks(tmp_path, monkeypatch, block, rows, escaped, end, last):
    monkeypatch.setattr(records, "_BLOCK", block)
    lines = [json.dumps({"text": text, **meta}, ensure_ascii=escaped) for text, meta in rows]
    data = (end.join(lines) + (end if last else "")).encode()
    step = 1 + end.count("\n") - 1
    expected = [
        Record(f"a.jsonl:{1 + i * step}", text.encode(), meta, 0)
        for i, (text, meta) in enumerate(rows)
    ]
    assert read(write(tmp_path / "a.jsonl", data)) == expected
    assert [r.data for r in read(write(tmp_path / "a.jsonl.gz", gzip.compress(data)))] == [
        record.data for record in expected
    ]


def test_fields_may_have_other_names(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"body": "x", "key": "k", "text": "meta", "id": 3}\n')
    (record,) = read(path, text_field="body", id_field="key")
    assert record == Record("k", b"x", {"text": "meta", "id": 3}, 0)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"{oops}", r"a\.jsonl:3: not valid JSON"),
        (b'{"text": NaN}', r"a\.jsonl:3: not valid JSON"),
        (b'{"text": "x"', r"a\.jsonl:3: not valid JSON"),
        (b'{"text": "\\ud800"}', r"a\.jsonl:3: not valid JSON"),
        (b'{"body": 1, "title": 2}', r"a\.jsonl:3: .*'text'\. Fields found: 'body', 'title'\."),
        (b"{}", r"a\.jsonl:3: .*Fields found: none"),
        (b"[1]", r"a\.jsonl:3: a record must be a JSON object, and this is an array"),
        (b'"x"', r"this is text"),
        (b"null", r"this is null"),
        (b'{"text": 3}', r"a\.jsonl:3: the field 'text' must be text and is a number"),
        (b'{"text": null}', r"must be text and is null"),
        (b'{"text": "x", "id": 1.5}', r"the id field 'id' must be text or a whole number"),
        (b'{"text": "x", "id": true}', r"is true or false"),
        (b'{"text": "x", "id": ["a"]}', r"is an array"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, match):
    path = write(tmp_path / "a.jsonl", b'{"text": "x"}\n\n' + line + b'\n{"text": "y"}\n')
    with pytest.raises(InputError, match=match):
        read(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_in_a_line_names_the_byte_of_the_file(tmp_path, mark):
    before = mark + b'{"text": "\xc3\xa9"}\r\n'
    path = write(tmp_path / "a.jsonl", before + b'{"text": "ab\xff"}\n')
    with pytest.raises(EncodingError, match=rf":2: byte {len(before) + 12} of the file.*0xff"):
        read(path)
    report = ReadReport()
    found = read(path, encoding_errors="replace", report=report)
    assert [r.data.decode() for r in found] == ["é", "ab\ufffd"]
    assert (report.replaced, report.replaced_bytes) == (1, 1)


def test_lone_surrogates_are_replaced_if_asked(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a\\ud800b \\ud83d\\ude00", "m": ["\\udc00"]}\n')
    report = ReadReport()
    (record,) = read(path, encoding_errors="replace", report=report)
    assert record.data.decode() == "a\ufffdb 😀"
    assert record.meta == {"m": ["\ufffd"]}
    assert report.replaced == 2


def test_array_of_records(tmp_path):
    path = write(tmp_path / "a.json", b' [{"text": "x", "k": 1}, {"text": "y", "id": "own"}] ')
    assert [(r.id, r.data, r.meta) for r in read(path)] == [
        ("a.json:1", b"x", {"k": 1}),
        ("own", b"y", {}),
    ]
    with pytest.raises(
        InputError, match=r"must hold an array of records, and this one holds an obj"
    ):
        read(write(path, b'{"text": "x"}'))
    with pytest.raises(InputError, match=r"a\.json, record 2: there is no field"):
        read(write(path, b'[{"text": "x"}, {}]'))
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read(write(path, b"["))


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = 1000
    table = arrow.table(
        {
            "text": [f"row {i} é" for i in range(rows)],
            "id": [f"id{i}" if i % 2 else None for i in range(rows)],
            "when": arrow.array([0] * rows, arrow.timestamp("s")),
            "raw": [b"\xff"] * rows,
            "tags": [["a", "b"]] * rows,
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=300)
    found = read(path)
    assert [r.data.decode() for r in found] == [f"row {i} é" for i in range(rows)]
    assert [r.id for r in found[:3]] == ["a.parquet:1", "id1", "a.parquet:3"]
    assert found[0].meta == {"when": "1970-01-01T00:00:00", "raw": "/w==", "tags": ["a", "b"]}
    squeezed = write(tmp_path / "b.parquet.gz", gzip.compress(path.read_bytes()))
    assert [r.data for r in read(squeezed)] == [r.data for r in found]
    with pytest.raises(InputError, match=r"there is no field 'body'\. Fields found: 'text', 'id'"):
        read(path, text_field="body")
    with pytest.raises(InputError, match=r"c\.parquet' is not a sound Parquet file"):
        read(write(tmp_path / "c.parquet", path.read_bytes()[:-9]))
    with pytest.raises(InputError, match=r"is not a sound Parquet file"):
        read(write(tmp_path / "d.parquet", b"text"))
