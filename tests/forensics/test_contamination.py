"""Contamination against its definition: windows, shares, labels, places, files, resuming."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import unspool
from tests.oracles import contamination as oracle
from unspool.errors import (
    ConfigError,
    DuplicateDocument,
    EncodingError,
    InputError,
    PathNotFound,
    RunConflict,
)
from unspool.forensics import contamination_run
from unspool.forensics.benchmark_files import benchmark, read_benchmarks, short_names
from unspool.forensics.contamination import ContaminationSettings
from unspool.forensics.contamination_run import contamination
from unspool.forensics.windows import byte_offsets, union, window_starts

WORDS = ["the", "of", "long", "text", "naïve", "漢字", "🙂", "café", "search\n", "=1+1", "<b>"]
BLANKS = st.sampled_from([" ", "\n", "\t", "\u3000", "\x1c", "ab", "ß", "漢", "🙂", "x"])


@given(st.lists(BLANKS).map("".join), st.integers(1, 12), st.sampled_from(["word", 1, 3]))
@example("  a b", 2, "word")
@example("a  ", 2, "word")
@example("a    b", 3, "word")
def test_windows_start_where_the_definition_says(text: str, size: int, stride: Any) -> None:
    assert window_starts(text, size, stride) == oracle.starts(text, size, stride)


@given(st.text(max_size=30), st.data())
def test_offsets_are_bytes(text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    assert byte_offsets(text, places) == [len(text[:p].encode()) for p in places]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda p: (p[0], sum(p)))))
def test_union_covers_the_same(pieces: list[tuple[int, int]]) -> None:
    joined = union(pieces)
    assert {i for a, b in joined for i in range(a, b)} == {
        i for a, b in pieces for i in range(a, b)
    }
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(joined))


def make(folder: Path, name: str, texts: dict[str, str], **options: Any) -> Path:
    out = folder / name
    unspool.build_index(
        documents=list(texts.items()), out=out, memory="256MiB", workers=1, **options
    )
    return out


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[dict[str, str]]]:
    """Two indexes, of both tiers, that hold a document of the same id."""
    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(0)
    texts = [
        {f"d{n}": " ".join(rng.choices(WORDS, k=120)) for n in range(low, low + 5)}
        for low in (0, 4)
    ]
    return [
        make(folder, f"{t}.idx", x, tier=t) for t, x in zip(("fm", "sa"), texts, strict=True)
    ], [*texts]


def entries(texts: list[dict[str, str]], seed: int) -> list[dict[str, Any]]:
    """Records with pieces of the corpus, noise, both, and nothing."""
    rng = random.Random(seed)
    sources = [text for each in texts for text in each.values()]
    made: list[dict[str, Any]] = []
    for number in range(30):
        source = rng.choice(sources)
        at = rng.randrange(len(source) - 60)
        copied = source[at : at + rng.choice([10, 19, 20, 21, 60])]
        noise = " ".join(str(rng.random()) for _ in range(rng.choice([0, 1, 8])))
        made.append({"id": f"e{number}", "question": f"{noise} {copied}", "answer": noise[:15]})
    made.append({"id": "blank", "question": "", "answer": " \n"})
    return made


@pytest.mark.parametrize("stride", ["word", 7])
@pytest.mark.parametrize("which", [[0], [1], [0, 1]], ids=str)
def test_equals_brute_force(corpora: Any, which: list[int], stride: Any) -> None:
    paths, texts = corpora
    records = entries(texts, 1)
    documents = [t.encode() for n in which for t in texts[n].values()]
    found = contamination(
        [benchmark("b", records)], [paths[n] for n in which], window=20, stride=stride
    )
    assert len(found.entries) == len(records)
    for record, row in zip(records, found.entries, strict=True):
        fields = [record["question"], record["answer"]]
        wanted = oracle.eta(fields, documents, 20, stride)
        assert row["eta"] == (None if wanted is None else pytest.approx(wanted, abs=1e-6))
        assert row["windows"] == len(oracle.windows(fields, 20, stride))
        label = "skipped" if wanted is None else "dirty" if wanted >= 0.8 else "clean"
        if wanted is not None and 0.2 < wanted < 0.8:
            label = "suspicious"
        assert row["label"] == label
        assert sum(f["hits"] for f in row["fields"].values()) == row["hits"]
        assert bool(row["examples"]) == bool(row["hits"])
        for shown in row["examples"]:
            index = int(shown["index"] == "sa.idx")
            data = texts[index][shown["document"]].encode()
            assert data[shown["start"] : shown["end"]].decode() == shown["text"]
            assert data.count(shown["text"].encode()) <= shown["count"]
            assert shown["text"] in record[shown["field"]]
        for name, field in row["fields"].items():
            for span in field["spans"]:
                assert record[name].encode()[span["start"] : span["end"]].decode() == span["text"]
    summary = found.benchmarks[0]
    assert (
        summary["entries"]
        == len(records)
        == sum(summary[label] for label in ("dirty", "suspicious", "clean", "skipped"))
    )


@pytest.mark.parametrize(
    ("share", "label"),
    [(None, "skipped"), (0, "clean"), (0.2, "clean"), (0.21, "suspicious"), (0.8, "dirty")],
)
def test_bounds_belong_where_the_method_says(share: Any, label: str) -> None:
    assert ContaminationSettings().label(share) == label


def test_which_side_matched(tmp_path: Path) -> None:
    question = "what is the name of the long river that runs north of the old town"
    index = make(
        tmp_path,
        "i",
        {"both": f"Quiz. {question}? Zaire, it says.", "part": f"{question[:-9]} Zairean"},
    )
    records = [
        {"question": question, "answer": "Zaire"},
        {"question": question, "answer": "air"},  # only inside a word
        {"question": question, "answer": None},
        {"question": "nobody ever wrote this question into any text at all", "answer": "Zaire"},
    ]
    found = contamination([benchmark("b", records, fields=["question", "answer"])], index)
    matched = [row["matched"] for row in found.entries]
    assert matched == [["question", "answer"], ["question"], ["question"], []]
    assert found.benchmarks[0]["matched"] == {"question": 2, "question+answer": 1}
    assert (
        found.entries[0]["examples"][0]["text"]
        == question[: found.entries[0]["examples"][0]["end"] - 6]
    )


def test_windows_never_cross_items_of_a_list(tmp_path: Path) -> None:
    index = make(tmp_path, "i", {"d": "one two\nthree four"})
    records = [{"choices": ["one two", "three four"]}]
    found = contamination([benchmark("b", records)], index, window=8)
    assert found.entries[0]["windows"] == 1  # only "three four" is long enough
    assert found.entries[0]["fields"]["choices"]["spans"] == [
        {"start": 8, "end": 16, "text": "three fo"}
    ]


def test_repeated_spans_in_a_normalised_index(tmp_path: Path) -> None:
    index = make(
        tmp_path,
        "i",
        {"d": "A Long  Text That Says Something About Everything"},
        normalise="lower|space",
    )
    records = [{"text": "a long text that SAYS something about everything"}]
    found = contamination([benchmark("b", records)], index, window=20)
    assert found.entries[0]["eta"] == 1.0


def test_token_index_is_refused(tmp_path: Path) -> None:
    from tests.index.test_search import byte_level

    index = make(tmp_path, "i", {"d": "a text"}, alphabet=f"tokenizer:{byte_level(tmp_path)}")
    with pytest.raises(ConfigError, match="holds tokens"):
        contamination([benchmark("b", [{"text": "a text"}])], index)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"stride": 0},
        {"dirty": 1.1},
        {"dirty": 0.2},
        {"suspicious": -0.1},
        {"examples": -1},
        {"sample": 0},
        {"fields": ("a", "a")},
    ],
    ids=str,
)
def test_settings_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ContaminationSettings(**options)


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_every_format_holds_the_same(tmp_path: Path) -> None:
    rows = [{"id": "a", "q": 'what, "then"?\nsaid he', "n": "1"}, {"id": "b", "q": "", "n": "2"}]
    write(tmp_path / "l.jsonl", "\ufeff" + "\n\n".join(json.dumps(r) for r in rows))
    write(tmp_path / "a.json", rows)
    write(tmp_path / "c.csv", 'id,q,n\na,"what, ""then""?\nsaid he",1\nb,,2\n')
    write(tmp_path / "t.tsv", 'id\tq\tn\na\t"what, ""then""?\nsaid he"\t1\nb\t\t2\n')
    found = read_benchmarks(tmp_path)
    assert [each.name for each in found] == ["a.json", "c.csv", "l.jsonl", "t.tsv"]
    assert len({each.entries for each in found}) == 1
    assert [f.name for f in found[0].entries[0].fields] == ["q", "n"]


def test_text_field_is_preferred_and_nested_names_work(tmp_path: Path) -> None:
    record = {"text": "t", "other": "o", "question": {"stem": "s"}}
    path = write(tmp_path / "x.jsonl", record)
    assert [f.name for f in read_benchmarks(path)[0].entries[0].fields] == ["text"]
    chosen = read_benchmarks(path, fields=["question.stem"])[0].entries[0]
    assert (chosen.id, chosen.fields[0].text) == ("1", "s")


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("x.jsonl", "", InputError, "no entries"),
        ("x.jsonl", "{]", InputError, "x.jsonl:1: not valid JSON"),
        ("x.jsonl", "[1]", InputError, "must be a JSON object"),
        ("x.jsonl", '{"n": 1}', InputError, "no field holds text. Fields found: 'n'"),
        ("x.json", "{}", InputError, "array of entries"),
        ("x.csv", "a,b\n1\n", InputError, "x.csv:2: .* as many cells"),
        ("x.jsonl", '{"id":1,"t":"a"}\n{"id":1,"t":"b"}', DuplicateDocument, "entries 1 and 2"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, name: str, content: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_benchmarks(write(tmp_path / name, content))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"t": "\xff"}')
    with pytest.raises(EncodingError, match="byte 7"):
        read_benchmarks(tmp_path / "x.jsonl")


def test_a_sample_is_stable_and_says_how_many_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", "\n".join(f'{{"t": "entry {n}"}}' for n in range(50)))
    one, two = (read_benchmarks(path, sample=7, seed=3)[0] for _ in range(2))
    assert one == two
    assert (len(one.entries), one.total) == (7, 50)
    assert [int(e.id) for e in one.entries] == sorted(int(e.id) for e in one.entries)
    assert read_benchmarks(path, sample=7, seed=4)[0] != one


def test_names_tell_files_apart(tmp_path: Path) -> None:
    assert short_names(["/a/x/t.jsonl", "/b/x/t.jsonl", "/c/u"]) == [
        "a/x/t.jsonl",
        "b/x/t.jsonl",
        "u",
    ]
    with pytest.raises(InputError, match="twice"):
        short_names([str(tmp_path), f"{tmp_path}/."])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "run.json"
    }


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    corpora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contamination_run, "_PART", 4)
    paths, texts = corpora
    bench = benchmark("b", entries(texts, 2))
    whole = contamination([bench], paths, out=tmp_path / "whole", window=20)
    wanted = files_of(tmp_path / "whole")
    assert set(wanted) >= {"entries.jsonl", "entries.csv", "report.html", "benchmarks.jsonl"}

    original = contamination_run.write_atomic
    for stop in range(1, 16, 2):
        left = [stop]

        def dying(path: Path, parts: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            original(path, parts)

        out = tmp_path / f"killed-{stop}"
        monkeypatch.setattr(contamination_run, "write_atomic", dying)
        try:
            contamination([bench], paths, out=out, window=20)
        except KeyboardInterrupt:
            monkeypatch.setattr(contamination_run, "write_atomic", original)
            again = contamination([bench], paths, out=out, window=20)
            assert again.entries == whole.entries
            assert again.resumed >= min(len(bench.entries), 4 * max(0, stop - 1)) or stop > 8
        assert files_of(out) == wanted
        assert not (out / "parts").exists()


def test_other_settings_inputs_or_folders_are_refused(corpora: Any, tmp_path: Path) -> None:
    paths, texts = corpora
    bench, other = benchmark("b", entries(texts, 2)), benchmark("b", entries(texts, 3))
    out = tmp_path / "out"
    contamination([bench], paths, out=out)
    with pytest.raises(RunConflict, match="window was 50 and is 40"):
        contamination([bench], paths, out=out, window=40)
    with pytest.raises(RunConflict, match="b has changed"):
        contamination([other], paths, out=out)
    with pytest.raises(RunConflict, match=r"sa\.idx only then"):
        contamination([bench], paths[:1], out=out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(InputError, match=r"diary\.txt"):
        contamination([bench], paths, out=tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    with pytest.raises(PathNotFound):
        contamination([bench], tmp_path / "none")


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.sampled_from("<>&\"'=@\x00\x1b\u202eab \n"), min_size=1, max_size=40))
def test_reports_disarm_hostile_text(text: str) -> None:
    import csv
    import io
    from html.parser import HTMLParser

    from unspool.forensics.contamination_report import entries_csv, page_of
    from unspool.forensics.contamination_run import ContaminationReport

    span = {"start": 0, "end": 1, "text": text}
    row = {
        "benchmark": text, "id": text, "eta": 1.0, "label": "dirty", "windows": 1, "hits": 1,
        "matched": [text], "indexes": {text: 1},
        "fields": {text: {"eta": 1.0, "windows": 1, "hits": 1, "beside": None, "spans": [span]}},
        "examples": [{"document": text, **span, "index": text, "field": text, "count": 1}],
    }  # fmt: skip
    summary = {
        "benchmark": text, "entries": 1, "entries_in_file": 1, "dirty": 1, "suspicious": 0,
        "clean": 0, "skipped": 0, "dirty_rate": 1.0, "matched": {text: 1}, "indexes": {},
    }  # fmt: skip
    report = ContaminationReport((row,), (summary,), ContaminationSettings(), (text,))
    page = page_of(report).decode()
    seen: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.add(tag)
            assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    Tags().feed(page)
    assert seen <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "p", "section",
        "h2", "div", "table", "thead", "tbody", "tr", "th", "td", "b", "span", "small", "details",
        "summary", "blockquote", "mark",
    }  # fmt: skip
    assert "default-src 'none'" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    for line in list(csv.reader(io.StringIO(entries_csv(report).decode(), newline="")))[1:]:
        assert not any(cell[:1] in ("=", "@") for cell in line)
