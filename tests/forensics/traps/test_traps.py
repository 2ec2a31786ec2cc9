"""Traps: drawing, planting, scoring, deciding, by brute force and against other libraries."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.cli import main as cli
from unspool.errors import ConfigError, InputError, PathNotFound, RunConflict
from unspool.forensics.traps import (
    Pool,
    PoolSettings,
    commitment,
    decide,
    find,
    generate,
    inject,
    inject_corpus,
    remove,
    score,
)
from unspool.forensics.traps.decide import auc, detected, power, sign_flip, smallest
from unspool.forensics.traps.generate import perplexity
from unspool.forensics.traps.manifest import (
    check_commitment,
    coin,
    load,
    load_pool,
    save,
    save_pool,
)
from unspool.forensics.traps.score import scores
from unspool.types import Document

SMALL = PoolSettings(lengths=(6, 9), pairs=8, low=1, high=9, buckets=4, jaccard=0.4)
SALT = "ab" * 32


def speaker(seed: int = 0, known: frozenset[str] = frozenset()) -> ScriptedModel:
    """Draws words; a word's loss is in its digits, and texts that are known cost 1 nat less."""
    draw = random.Random(seed)

    def say(prompt: str) -> str:
        heat = draw.randrange(22)
        return " ".join(f"w{heat}x{draw.randrange(400)}" for _ in range(30))

    def loss(prompt: str, token: str) -> float:
        heat = int(token.strip()[1:].split("x")[0]) / 10
        return -heat + (1.0 if token.strip() in known else 0.0)

    return ScriptedModel(say, score=loss)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return generate(speaker(), SMALL)


def test_a_pool_is_uniform_paired_and_different(pool: Pool) -> None:
    assert len(pool.pairs) == 16
    assert not pool.missing
    for length in (6, 9):
        pairs = [p for p in pool.pairs if p.length == length]
        units = [int(x) for p in pairs for x in p.perplexities]
        assert sorted(units) == sorted([*range(1, 9)] * 2)  # 8 divides by 8 units: all equal
        assert [sum(p.bucket == b for p in pairs) for b in range(4)] == [2, 2, 2, 2]
        texts = [t.split() for p in pairs for t in p.texts]
        assert all(len(t) == length for t in texts)
        for a, b in itertools.combinations(texts, 2):
            # The scripted tokenizer tells a first word from others, so its sets differ by that.
            first, second = ({w[0], *(f" {x}" for x in w[1:])} for w in (a, b))
            assert len(first & second) / len(first | second) <= 0.4
        for p in pairs:
            for text, said in zip(p.texts, p.perplexities, strict=True):
                heats = [int(w[1:].split("x")[0]) / 10 for w in text.split()]
                assert said == pytest.approx(math.exp(sum(heats) / len(heats)))
    assert generate(speaker(), SMALL) == pool


def test_a_search_that_cannot_end_ends_and_says_what_is_missing() -> None:
    dull = ScriptedModel(lambda p: "same words every single time here", score=lambda p, t: -1.0)
    found = generate(dull, PoolSettings(lengths=(6,), pairs=4, low=1, high=5, buckets=2,
                                        max_draws=50))  # fmt: skip
    assert (found.pairs, found.draws) == ((), 50)
    assert found.missing == {"6:0": 2, "6:1": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pairs": 15}, "nearest is 20"),
        ({"low": 5, "high": 5}, "low < high"),
        ({"lengths": ()}, "lengths"),
        ({"jaccard": 0.0}, "jaccard"),
        ({"temperatures": (0.0,)}, "temperatures"),
    ],
)
def test_refuses_pools_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PoolSettings(**change)


@settings(deadline=None, max_examples=80)
@given(
    st.text(alphabet="ab é漢.!\n", max_size=120),
    st.integers(1, 6),
    st.sampled_from(["words", "sentences", "paragraphs"]),
    st.integers(0, 99),
)
def test_removing_gives_the_document_back(text: str, repeat: int, where: str, seed: int) -> None:
    try:
        done = inject(text, "TRAP señal", repeat=repeat, where=where, seed=seed, allow_repeat=True)
    except InputError as error:
        assert "has 0 places" in str(error)  # noqa: PT017  # most texts have places
        return
    assert done.text.count("TRAP señal") == repeat == len(done.offsets)
    raw = done.text.encode()
    assert all(raw[o : o + 11] == "TRAP señal".encode() for o in done.offsets)
    assert remove(done.text, done) == text


def test_copies_stand_between_separators() -> None:
    text = " ".join(f"word{i}" for i in range(50))
    done = inject(text, "A TRAP", repeat=20, seed=3)
    assert done.text.split(" ") != text.split(" ")
    assert all(c in ("", " ") for c in (done.text[m - 1 : m] for m in _starts(done.text)))
    assert "A TRAPword" not in done.text
    with pytest.raises(InputError, match="has 50 places before words, and 51"):
        inject(text, "A TRAP", repeat=51)
    with pytest.raises(InputError, match="holds the trap already"):
        inject(text, "word7", repeat=1)
    with pytest.raises(ConfigError, match="where must be"):
        inject(text, "A TRAP", repeat=1, where="lines")
    with pytest.raises(InputError, match="was changed"):
        remove(done.text[1:], done)


def _starts(text: str) -> list[int]:
    return [i for i in range(len(text)) if text.startswith("A TRAP", i)]


def documents(count: int = 24, words: int = 40) -> list[Document]:
    return [
        Document(f"d{i}", " ".join(f"doc{i}w{j}" for j in range(words)), {"n": i})
        for i in range(count)
    ]


def test_a_corpus_is_planted_as_its_manifest_says(pool: Pool, tmp_path: Path) -> None:
    given_documents = [*documents(), Document("short", "few words")]
    done = inject_corpus(given_documents, pool, repeats=(0, 3, 20), seed=1, salt=SALT)
    texts = {d.id: d.text for d in done.documents}
    originals = {d.id: d.text for d in given_documents}
    used = [p.document for p in done.manifest.planted if p.document]
    assert len(set(used)) == len(used) == sum(p.repeat > 0 for p in done.manifest.planted)
    everything = "\n".join(texts.values())
    for p in done.manifest.planted:
        assert everything.count(p.trap) == p.repeat
        assert everything.count(p.control) == 0
        if p.document:
            assert remove(texts[p.document], p) == originals[p.document]
    for name in set(texts) - set(used):
        assert texts[name] == originals[name]
    path = tmp_path / "m.json"
    save(done.manifest, path)
    assert load(path) == done.manifest
    assert hashlib.sha256(path.read_bytes()).hexdigest() == commitment(done.manifest)
    check_commitment(done.manifest, commitment(done.manifest))
    with pytest.raises(InputError, match="does not match the commitment"):
        check_commitment(done.manifest, "0" * 64)
    again = inject_corpus(given_documents, pool, repeats=(0, 3, 20), seed=1, salt=SALT)
    assert again == done
    other = inject_corpus(given_documents, pool, repeats=(0, 3, 20), seed=1)
    assert commitment(other.manifest) != commitment(done.manifest)
    with pytest.raises(InputError, match="found no document"):
        inject_corpus(given_documents, pool, repeats=(41,))
    with pytest.raises(ConfigError, match="repeats must be different"):
        inject_corpus(given_documents, pool, repeats=(1, 1))
    with pytest.raises(ConfigError, match="salt"):
        inject_corpus(given_documents, pool, salt="short")


def test_coins_are_fair_and_depend_on_the_salt() -> None:
    tossed = [coin(SALT, str(i)) for i in range(4000)]
    assert abs(sum(tossed) - 2000) < 4 * math.sqrt(1000)
    assert tossed != [coin("cd" * 32, str(i)) for i in range(4000)]


def test_an_index_counts_what_was_planted(pool: Pool, tmp_path: Path) -> None:
    import unspool

    done = inject_corpus(documents(), pool, repeats=(2, 15), salt=SALT)
    for d in done.documents:
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{d.id}.txt").write_text(d.text)
    unspool.build_index([str(tmp_path / "texts")], str(tmp_path / "idx"), workers=1)
    for record, p in zip(find(done.manifest, [tmp_path / "idx"]), done.manifest.planted,
                         strict=True):  # fmt: skip
        assert record == {"id": p.pair.id, "repeat": p.repeat, "trap": p.repeat, "control": 0}


def test_scores_by_hand() -> None:
    target, reference = [-1.0, -4.0, -2.0, -0.5, -3.0], [-2.0, -2.0, -2.0, -2.0, -4.0]
    found = scores(target, reference, 0.4)
    assert found["loss"] == pytest.approx(2.1)
    assert found["min_k"] == pytest.approx((4 + 3) / 2)
    assert found["ratio"] == pytest.approx(math.exp(2.1) / math.exp(2.4))
    assert found["log_ratio"] == pytest.approx(2.1 / 2.4)
    assert scores([-3.0], None, 0.2) == {"loss": 3.0, "min_k": 3.0}  # at least one token
    assert perplexity(-6.0, 3) == pytest.approx(math.exp(2))
    assert perplexity(-1e6, 3) == math.inf


def test_what_was_read_is_found_and_nothing_else(pool: Pool, tmp_path: Path) -> None:
    done = inject_corpus(documents(), pool, repeats=(0, 20), salt=SALT)
    read = frozenset(w for p in done.manifest.planted if p.repeat for w in p.trap.split())
    out = tmp_path / "scores.jsonl"
    records = score(speaker(known=read), speaker(), done.manifest, out=out)
    never, often = decide(records, by=("repeat",))
    assert often.auc == 1.0
    assert often.p_value == 2.0**-8  # 8 pairs: only one of all signs is as extreme
    assert never.p_value > 0.05
    # A stop in the middle of a line loses nothing and doubles nothing.
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    assert score(speaker(known=read), speaker(), done.manifest, out=out) == records
    assert out.read_bytes() == b"".join(lines)
    with pytest.raises(RunConflict, match="another min_k"):
        score(speaker(known=read), speaker(), done.manifest, out=out, min_k=0.5)
    with pytest.raises(InputError, match="Ratios need a reference"):
        decide(score(speaker(), None, done.manifest))


def test_a_context_is_what_stood_before_without_copies(pool: Pool) -> None:
    done = inject_corpus(documents(), pool, repeats=(5,), salt=SALT)
    model = speaker()
    asked: list[str] = []
    plain = model.logprobs
    model.logprobs = lambda prompt, texts, **k: (asked.append(str(prompt)), plain("x", texts))[1]  # type: ignore[method-assign, arg-type, func-returns-value]  # a spy
    texts = {d.id: d.text for d in done.documents}
    score(model, None, done.manifest, context=3, documents=texts)
    originals = {d.id: d.text for d in documents()}
    for n, p in enumerate(done.manifest.planted):
        before = asked[2 * n]
        assert before == asked[2 * n + 1]
        assert before in originals[str(p.document)]
        assert len(before.split()) <= 3
    with pytest.raises(InputError, match="needs the published document"):
        score(model, None, done.manifest, context=3)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_auc_by_counting(traps: list[int], controls: list[int]) -> None:
    counted = sum((t < c) + (t == c) / 2 for t in traps for c in controls)
    found = auc(np.array(traps, dtype=float), np.array(controls, dtype=float))
    assert found == pytest.approx(counted / len(traps) / len(controls))


def test_auc_equals_scikit_learn_and_the_u_statistic() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
    stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    draw = np.random.default_rng(0)
    traps, controls = draw.normal(0, 1, 37), draw.normal(0.5, 1, 41)
    found = auc(traps, controls)
    labels = [0] * 37 + [1] * 41
    assert found == pytest.approx(metrics.roc_auc_score(labels, [*traps, *controls]))
    assert found == pytest.approx(stats.mannwhitneyu(controls, traps).statistic / 37 / 41)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-5, 9), min_size=1, max_size=9))
def test_sign_flip_by_every_sign(gains: list[int]) -> None:
    sums = [
        sum(s * g for s, g in zip(signs, gains, strict=True))
        for signs in itertools.product((1, -1), repeat=len(gains))
    ]
    expected = sum(s >= sum(gains) for s in sums) / len(sums)
    assert sign_flip(np.array(gains, dtype=float), 0) == pytest.approx(expected)


def test_sign_flip_equals_scipy_on_many_pairs() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    gains = np.random.default_rng(2).normal(0.3, 1, 30)
    oracle = stats.permutation_test(
        (gains, np.zeros(30)), lambda a, b: (a - b).mean(), permutation_type="samples",
        alternative="greater", n_resamples=20_000, rng=0,
    )  # fmt: skip
    assert sign_flip(gains, 0) == pytest.approx(oracle.pvalue, abs=0.01)


def test_p_values_are_uniform_when_nothing_was_read() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    draw = np.random.default_rng(5)
    found = [sign_flip(draw.standard_normal(12), 0) for _ in range(1000)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_detection_at_a_false_alarm_rate() -> None:
    controls = np.arange(100.0)
    assert detected(np.array([-1.0, 0.5, 1.0, 2.0]), controls, 0.01) == 0.5
    assert (controls < np.sort(controls)[1]).mean() == 0.01


def test_power_and_the_fewest_pairs() -> None:
    sure = np.ones(30)
    assert power(sure, 4, 0) == 0.0  # 1/16 is above 5%
    assert power(sure, 5, 0) == 1.0
    assert smallest(sure, 0) == 5
    weak = np.random.default_rng(0).normal(0.5, 1, 4000)
    # A one-sided z test on 0.5 deviations needs (1.645 + 0.842)^2 / 0.25 = 24.7 pairs.
    found = smallest(weak, 0)
    assert found is not None
    assert 20 <= found <= 32
    assert smallest(np.random.default_rng(0).normal(-0.1, 1, 400), 0) is None


def test_decide_refuses_bad_input() -> None:
    record = {"id": "a", "length": 5, "repeat": 1, "trap": {"ratio": 1.0}, "control": {}}
    with pytest.raises(InputError, match="no scores"):
        decide([])
    with pytest.raises(ConfigError, match="method must be"):
        decide([record], method="guess")
    with pytest.raises(ConfigError, match="by takes"):
        decide([record], by=("colour",))
    with pytest.raises(InputError, match="hold no 'ratio' for pair 'a'"):
        decide([record])


def test_files_that_are_something_else(tmp_path: Path, pool: Pool) -> None:
    save_pool(pool, tmp_path / "pool.json")
    assert load_pool(tmp_path / "pool.json") == pool
    for text in ("[]", "{}", "x", '{"format": 1}'):
        (tmp_path / "bad.json").write_text(text)
        for read in (load, load_pool):
            with pytest.raises(InputError):
                read(tmp_path / "bad.json")
    with pytest.raises(PathNotFound):
        load(tmp_path / "none.json")


def test_commands(tmp_path: Path, pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "texts", tmp_path / "out"
    source.mkdir()
    for d in documents():
        (source / f"{d.id}.txt").write_text(d.text)
    save_pool(pool, tmp_path / "pool.json")
    words = ["audit", "traps", "inject", str(source), "--pool", str(tmp_path / "pool.json"),
             "--out", str(out), "--repeats", "20"]  # fmt: skip
    assert cli.run([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["planted"] == 16
    assert said["commitment"] == (out / "commitment.txt").read_text().strip()
    assert len((out / "documents.jsonl").read_text().splitlines()) == 24
    assert cli.run(words) == 2  # a manifest is never written over
    assert "Choose another folder" in capsys.readouterr().err

    manifest = load(out / "manifest.json")
    known = frozenset(w for p in manifest.planted for w in p.trap.split())
    scored = tmp_path / "s.jsonl"
    score(speaker(known=known), speaker(), manifest, out=scored)
    report = ["audit", "traps", "report", str(scored), "--manifest", str(out / "manifest.json")]
    assert cli.run([*report, "--commitment", said["commitment"], "--json"]) == 0
    groups = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [g["group"] for g in groups] == [{"length": 6, "repeat": 20},
                                            {"length": 9, "repeat": 20}, {}]  # fmt: skip
    assert groups[-1]["p_value"] < 0.001
    assert cli.run(report) == 0
    assert "the traps were read" in capsys.readouterr().out
    assert cli.run([*report, "--commitment", "0" * 64]) == 2
    assert "does not match" in capsys.readouterr().err
    scored.write_bytes(b"".join(scored.read_bytes().splitlines(keepends=True)[:5]))
    assert cli.run(report) == 2
    assert "lacks 12 of 16 pairs" in capsys.readouterr().err
    assert cli.run(["audit", "traps", "score", str(out / "manifest.json"), "--out", "x"]) == 2
    assert "same model" in capsys.readouterr().err
