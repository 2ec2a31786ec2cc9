"""Pairs, confidence, recall and look-ups by hand, by brute force and against other libraries."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unspool
from tests.backends.tiny import tokenizer
from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, InputError, PathNotFound, RunConflict
from unspool.forensics.extract import (
    Pair,
    PairSet,
    make_pairs,
    pairs_of_arrays,
    probe,
    recited,
    score,
    scores,
    verify,
)
from unspool.forensics.extract.confidence import best
from unspool.forensics.extract.pairs import load_pairs, save_pairs
from unspool.forensics.extract.recite import ProbeSettings, draw, summary
from unspool.forensics.extract.score import auc
from unspool.types import Document


def documents(count: int, words: int = 60, name: str = "d") -> list[Document]:
    draw_ = random.Random(name)
    return [
        Document(f"{name}{i}", " ".join(f"{draw_.randrange(10**6):x}" for _ in range(words)))
        for i in range(count)
    ]


def test_pairs_are_cut_and_split_by_document() -> None:
    texts, others = documents(10), documents(3, name="c")
    made = make_pairs(texts, tokenizer(), prefix=7, suffix=5, controls=others, seed=3)
    ids = {d.id: tokenizer()(d.text).input_ids for d in (*texts, *others)}
    by_split: dict[str, set[str]] = {}
    for pair in made.pairs:
        name, at = pair.id.split("@")
        assert list(pair.prefix + pair.suffix) == ids[name][int(at) : int(at) + 12]
        assert int(at) % 12 == 0
        by_split.setdefault(pair.split, set()).add(name)
    assert {k: len(v) for k, v in by_split.items()} == {
        "train": 6, "val": 1, "test": 3, "control": 3,
    }  # fmt: skip
    assert sum(map(len, by_split.values())) == len(set().union(*by_split.values()))
    assert len(made.pairs) == sum(len(i) // 12 for i in ids.values())
    assert make_pairs(texts[::-1], tokenizer(), prefix=7, suffix=5, seed=3).of("test") != []
    names = {p.id for p in make_pairs(texts[::-1], tokenizer(), prefix=7, suffix=5, seed=3).pairs}
    assert names == {p.id for p in made.pairs if p.split != "control"}
    over = make_pairs(texts, tokenizer(), prefix=7, suffix=5, stride=4, seed=3)
    assert len(over.pairs) + over.repeated == sum((len(ids[d.id]) - 12) // 4 + 1 for d in texts)


def test_a_repeated_prefix_is_kept_once_and_in_the_test_split() -> None:
    texts = [Document(f"d{i}", "the very same text " * 9) for i in range(5)]
    texts.append(Document("short", "x"))
    made = make_pairs(texts, tokenizer(), prefix=6, suffix=3, shares=(2, 1, 2), limit=2)
    prefixes = [p.prefix for p in made.pairs]
    assert len(set(prefixes)) == len(prefixes)
    assert {p.split for p in made.pairs} == {"test"}
    assert (made.too_short, len(made.pairs)) == (1, 2)
    whole = make_pairs(texts, tokenizer(), prefix=6, suffix=3, shares=(2, 1, 2), dedup=False)
    assert whole.repeated == 0
    assert len(whole.pairs) == len(made.pairs) + made.repeated + made.beyond


def test_the_arrays_of_the_public_benchmark() -> None:
    draw_ = np.random.default_rng(0)
    prefixes = draw_.integers(0, 50_000, (20, 5)).astype(np.uint16)
    prefixes[3] = prefixes[18]
    suffixes = draw_.integers(0, 50_000, (20, 4)).astype(np.uint16)
    made = pairs_of_arrays(prefixes, suffixes, val=3, test=5)
    assert [p.id for p in made.of("test")] == [f"row{i}" for i in range(15, 20)]
    assert [p.id for p in made.of("val")] == ["row12", "row13", "row14"]
    assert len(made.of("train")) == 11
    assert made.repeated == 1
    assert made.of("test")[0].suffix == tuple(suffixes[15].tolist())
    with pytest.raises(InputError, match="do not fit"):
        pairs_of_arrays(prefixes, suffixes[1:])
    with pytest.raises(InputError, match="table of token ids"):
        pairs_of_arrays(prefixes.astype(float), suffixes)


def test_refuses_texts_that_give_no_pairs() -> None:
    with pytest.raises(InputError, match="None of 2 documents has 100 tokens"):
        make_pairs([Document("a", "x"), Document("b", "")], tokenizer(), shares=(0, 0, 1))
    with pytest.raises(InputError, match="2 documents are too few"):
        make_pairs(documents(2), tokenizer())
    with pytest.raises(ConfigError, match="must be >= 1"):
        make_pairs(documents(2), tokenizer(), prefix=0)
    with pytest.raises(ConfigError, match="shares"):
        make_pairs(documents(2), tokenizer(), shares=(0, 0, 0))


def test_pairs_on_disk(tmp_path: Path) -> None:
    made = PairSet((Pair("a@0", "train", (1, 2), (3,)), Pair("b", "test", (4,))))
    path = tmp_path / "p.jsonl"
    save_pairs(made, path, "m")
    assert load_pairs(path) == made
    raw = path.read_text()
    for wrong, said in (
        ("[]", "holds no pairs"),
        (raw.replace("[1,2]", "[]"), "Line 2"),
        (raw.replace("[1,2]", "[-1]"), "Line 2"),
        (raw.replace('"test"', '"exam"'), "Line 3"),
        (raw.replace('"b"', '"a@0"'), "an id twice"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=said):
            load_pairs(path)
    with pytest.raises(PathNotFound):
        load_pairs(tmp_path / "none")


def sample(tokens: list[int], count: int, loss: float | int, **more: Any) -> dict[str, Any]:
    return {"tokens": tokens, "count": count, "loss": loss, **more}


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 3.0)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_confidence_by_brute_force(rows: list[tuple[int, float]], shuffle: random.Random) -> None:
    samples = [sample([i] * 5, n, loss) for i, (n, loss) in enumerate(rows)]
    weights = [n * math.exp(-5 * loss) for n, loss in rows]
    found = scores(samples)
    np.testing.assert_allclose(found, np.array(weights) / sum(weights), rtol=1e-9)
    assert sum(found) == pytest.approx(1)
    mixed = samples[:]
    shuffle.shuffle(mixed)
    again = dict(zip((s["tokens"][0] for s in mixed), scores(mixed), strict=True))
    np.testing.assert_allclose([again[i] for i in range(len(rows))], found, rtol=1e-9)


def test_confidence_does_not_underflow() -> None:
    samples = [sample([1] * 50, 1, 30.0), sample([2] * 50, 1, 30.0 + math.log(3) / 50)]
    assert math.exp(-50 * 30.0) == 0.0
    np.testing.assert_allclose(scores(samples), [0.75, 0.25])
    assert scores([sample([1], 7, 99.0)]) == [1.0]


def test_the_other_confidences_and_ties() -> None:
    samples = [
        sample([1, 1], 9, 2.0, zlib=10, reference=8.0),
        sample([2, 2], 1, 1.0, zlib=1, reference=1.0),
        sample([3, 3], 1, 1.0, zlib=1, reference=1.0),
    ]
    assert scores(samples, "ppl") == [-2.0, -1.0, -1.0]
    assert scores(samples, "zlib") == [-0.4, -2.0, -2.0]
    assert scores(samples, "compare") == [-0.25, -1.0, -1.0]
    assert best(samples, "ppl")[0] == 1
    assert best(samples, "zlib")[0] == 0
    for method in ("zlib", "compare"):
        with pytest.raises(InputError, match="hold no"):
            scores([sample([1], 1, 1.0)], method)
    with pytest.raises(ConfigError, match="one of"):
        scores(samples, "luck")


def record(name: str, said: list[dict[str, Any]], split: str = "test", **more: Any) -> dict:
    greedy = {"tokens": said[0]["tokens"], "loss": said[0]["loss"], "text": "?"}
    return {
        "id": name, "split": split, "drawn": sum(s["count"] for s in said), "samples": said,
        "greedy": greedy, "beam": None, "prefix_text": "", **more,
    }  # fmt: skip


def by_confidence(sure: list[float], right: list[bool]) -> tuple[list[dict], list[Pair]]:
    """Records in which the calibrated confidence is given: loss 0 against a text that is worse."""
    records, truth = [], []
    for i, (c, ok) in enumerate(zip(sure, right, strict=True)):
        other = [sample([0, 0], 1, math.log(c / (1 - c)) / 2)] if c < 1 else []
        records.append(record(f"p{i}", [sample([1, 2], 1, 0.0), *other]))
        truth.append(Pair(f"p{i}", "test", (i,), (1, 2) if ok else (1, 3)))
    return records, truth


def test_recall_at_early_stop_by_hand() -> None:
    sure = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6]
    right = [True, False, True, True, False, True, False, True]
    records, truth = by_confidence(sure, right)
    draw_ = random.Random(1)
    draw_.shuffle(records)
    expected = {1: 1 / 8, 2: 3 / 8, 3: 4 / 8, 4: 5 / 8}
    for errors, reached in expected.items():
        found = score(records, truth, stop_errors=errors)
        assert found.recall == 5 / 8
        assert found.early_stop == reached
    assert [round(p, 3) for _, p in found.curve] == [1, 0.5, 0.667, 0.75, 0.6, 0.667, 0.571, 0.625]
    assert [r for r, _ in found.curve][-1] == 5 / 8
    assert found.greedy == 5 / 8
    assert found.beam is None
    for row in found.rows:
        assert row["confidence"] == pytest.approx(sure[int(row["id"][1:])])
        assert row["agreed"] == (2 if row["exact"] else 1)
    top = found.reliability[-1]
    assert (top["from"], top["answers"], top["right"]) == (0.9, 2, 0.5)
    assert sum(b["answers"] for b in found.reliability) == 8


def test_rank_and_recall_at_k() -> None:
    said = [sample([i], 1, 0.1 * i) for i in range(1, 7)]
    records = [record(f"p{i}", said) for i in range(4)]
    truth = [Pair(f"p{i}", "test", (9, i), (t,)) for i, t in enumerate((1, 2, 6, 7))]
    found = score(records, truth)
    assert [row["rank"] for row in found.rows] == [1, 2, 6, None]
    assert found.recall_at == {1: 0.25, 2: 0.5, 5: 0.5}
    assert found.rows[0]["distinct"] == 6


def test_controls_are_counted_apart() -> None:
    records, truth = by_confidence([0.9, 0.8, 0.6], [True, True, False])
    records += [record(f"c{i}", [sample([5, 5], 1, 0.0), sample([6, 6], 1, 0.0)], "control")
                for i in range(2)]  # fmt: skip
    truth += [Pair("c0", "control", (7,), (5, 5)), Pair("c1", "control", (8,), (1, 1))]
    found = score(records, truth)
    assert (found.prefixes, found.controls, found.recall, found.control_recall) == (
        3, 2, pytest.approx(2 / 3), 0.5,
    )  # fmt: skip
    assert found.auc == 1.0
    unknown = score(records)
    assert unknown.recall is None
    assert unknown.auc == 1.0
    assert unknown.rows[0]["exact"] is None


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_the_area_by_counting(members: list[int], others: list[int]) -> None:
    counted = sum((m > o) + (m == o) / 2 for m in members for o in others)
    found = auc([float(m) for m in members], [float(o) for o in others])
    assert found == pytest.approx(counted / len(members) / len(others))


@pytest.mark.slow  # for the import of scikit-learn
def test_the_area_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
    draw_ = np.random.default_rng(0)
    members, others = draw_.normal(0.5, 1, 37), draw_.normal(0, 1, 41)
    expected = metrics.roc_auc_score([1] * 37 + [0] * 41, [*members, *others])
    assert auc(members.tolist(), others.tolist()) == pytest.approx(expected)


def test_scoring_refuses_what_does_not_belong_together() -> None:
    records, truth = by_confidence([0.9], [True])
    with pytest.raises(InputError, match="no answers"):
        score([])
    with pytest.raises(ConfigError, match="stop_errors"):
        score(records, truth, stop_errors=0)
    with pytest.raises(InputError, match="truth of 'p0' is not among"):
        score(records, [])
    with pytest.raises(InputError, match="have 2 tokens and the truth has 1"):
        score(records, [Pair("p0", "test", (1,), (1,))])


def test_fewer_tokens_than_a_suffix_has() -> None:
    records, _ = by_confidence([0.9, 0.8], [True, True])
    truth = [Pair("p0", "test", (1,), (1, 2, 3)), Pair("p1", "test", (2,), (1, 3, 2))]
    found = score(records, truth)
    assert [row["exact"] for row in found.rows] == [True, False]
    assert (found.recall, found.greedy) == (0.5, 0.5)


TEXTS = [
    ("a", "The lamp on the north shore burns until the last boat is home, whatever the weather."),
    ("b", "Nobody remembers who lit it first; the last boat is home long before anyone asks why."),
    ("é", "Der Käfer läuft über die Straße, und niemand fragt warum; the last boat is home."),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("idx") / "i"
    unspool.build_index(documents=TEXTS, out=out, memory="256MiB", workers=1)
    with unspool.open_index(out) as opened:
        yield opened


def test_answers_are_looked_up(index: Any) -> None:
    rows = [
        {"id": "1", "prefix_text": "the last boat", "text": " is home"},
        {"id": "2", "prefix_text": "no such words", "text": " is home"},
        {"id": "3", "prefix_text": "läuft ", "text": "über die Stra�"},
        {"id": "4", "prefix_text": "x", "text": "never said"},
        {"id": "5", "prefix_text": "", "text": ""},
    ]
    found = verify(rows, index)
    everything = [text for _, text in TEXTS]
    assert found[0]["found"] == sum(t.count(" is home") for t in everything) == 3
    assert [r["found"] for r in found] == [3, 3, 1, 0, 0]
    assert [r["behind"] for r in found] == [3, 0, 1, 0, 0]
    assert [r["cut"] for r in found] == [False, False, True, False, False]
    with pytest.raises(InputError, match="holds no text"):
        verify([{"id": "1", "text": None, "prefix_text": ""}], index)
    with pytest.raises(ConfigError, match="Say in which index"):
        verify(rows, [])


def test_recited_pieces_by_brute_force(index: Any) -> None:
    outputs = [
        Document("o1", "They say the last boat is home long before dawn, and nobody remembers."),
        Document("o2", "Unrelated."),
        Document("o3", "niemand fragt warum; the lamp on the north"),
    ]
    found = recited(outputs, index, min_length=12)
    raw = [text.encode() for _, text in TEXTS]
    for piece in found:
        said = next(d for d in outputs if d.id == piece.output).text.encode()
        quoted = said[piece.start : piece.end]
        assert piece.text.encode() == quoted
        assert piece.count == sum(r.count(quoted) for r in raw) > 0
    expected = set()
    for output in outputs:
        said = output.text.encode()
        ends = [
            max((e for e in range(i, len(said) + 1) if any(said[i:e] in r for r in raw)), default=i)
            for i in range(len(said))
        ]
        for i, end in enumerate(ends):
            if end - i >= 12 and end > max(ends[:i], default=0):
                expected.add((output.id, i, end))
    assert {(p.output, p.start, p.end) for p in found} == expected
    assert len(expected) > 2
    assert len(found[0].text) == max(len(p.text) for p in found)
    assert recited(outputs, index, min_length=200) == []


def test_passages_are_drawn_at_words(tmp_path: Path) -> None:
    long = " ".join(f"wörd{i}" for i in range(60))
    texts = {"words": long, "none": "漢字" * 90, "short": "a b c"}
    unspool.build_index(
        documents=list(texts.items()), out=tmp_path / "i", memory="256MiB", workers=1
    )
    setting = ProbeSettings(passages=30, prefix=21, suffix=14, seed=2)
    with unspool.open_index(tmp_path / "i") as opened:
        found = draw(opened, setting)
        assert found == draw(opened, setting)
        with pytest.raises(InputError, match="No document"):
            draw(opened, ProbeSettings(passages=1, prefix=900))
    assert len(found) == 30
    assert {shown.document for shown, _ in found} == {"words", "none"}
    for shown, wanted in found:
        data = texts[shown.document].encode()
        assert shown.document == wanted.document
        assert data[shown.start : shown.end].decode() == shown.text  # whole characters
        assert data[wanted.start :].decode()
        assert wanted.end - wanted.start == 14
        if shown.document == "words":
            assert data[shown.start - 1 : shown.start] == b" " == data[shown.end : wanted.start]
            assert 21 <= shown.end - shown.start < 32
        else:
            assert shown.end == wanted.start
    with pytest.raises(ConfigError, match="must be >= 1"):
        ProbeSettings(suffix=0)


def test_who_recites_is_found_and_who_does_not_is_not(tmp_path: Path) -> None:
    texts = [(name, f"{text} {text[::-1]} {text.upper()}") for name, text in TEXTS]
    unspool.build_index(documents=texts, out=tmp_path / "i", memory="256MiB", workers=1)
    with unspool.open_index(tmp_path / "i") as opened:
        check_probe(opened, texts, tmp_path)


def check_probe(index: Any, texts: list[tuple[str, str]], tmp_path: Path) -> None:
    setting = ProbeSettings(passages=12, prefix=40, suffix=8, max_tokens=8)

    def knows(prompt: str) -> str:
        text = next(t for _, t in texts if prompt in t)
        return text[text.index(prompt) + len(prompt) :]

    out = tmp_path / "r.jsonl"
    rows = probe(ScriptedModel(knows), index, setting, out=out)
    assert summary(rows)["recited"] == 1.0
    assert all(row["longest"] >= 8 for row in rows)
    others = probe(ScriptedModel(lambda p: "Zzz zzz zzz zzz"), index, setting)
    assert summary(others)["recited"] == 0.0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:5]) + lines[5][:9])
    assert probe(ScriptedModel(knows), index, setting, out=out) == rows
    assert out.read_bytes() == b"".join(lines)
    with pytest.raises(RunConflict, match="another settings"):
        probe(ScriptedModel(knows), index, replace(setting, passages=3), out=out)
    (quiet,) = probe(ScriptedModel(lambda p: ""), index, ProbeSettings(
        passages=1, prefix=40, suffix=8))  # fmt: skip
    assert (quiet["agreed"], quiet["recited"], quiet["short"], quiet["longest"]) == (
        0, False, True, 0,
    )  # fmt: skip
