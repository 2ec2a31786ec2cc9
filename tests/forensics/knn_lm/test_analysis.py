"""Tokens helped and hurt, entropies, MAUVE, quality and sheets, on numbers made by hand."""

from __future__ import annotations

import csv
import io
import math
import random
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unspool
from tests.backends import tiny
from tests.forensics.knn_lm import models
from unspool.errors import ConfigError, InputError, RunConflict
from unspool.forensics import knn_lm
from unspool.forensics.knn_lm import Continuing, Datastore, Mixture, split_tokens
from unspool.forensics.knn_lm.drift import drift, slopes
from unspool.forensics.knn_lm.generate import Course, continue_texts, cut_prompts, entropy, observe
from unspool.forensics.knn_lm.hits import Hits
from unspool.forensics.knn_lm.mauve import MauveSettings, area, mauve
from unspool.forensics.knn_lm.mixture import log_knn
from unspool.forensics.knn_lm.overlap import shared_tokens
from unspool.forensics.knn_lm.plot import Line, curves, ticks
from unspool.forensics.knn_lm.quality import (
    distinct,
    features,
    name_overlap,
    paired,
    seq_rep,
    word_overlap,
)
from unspool.forensics.knn_lm.report import page, to_json, verdict
from unspool.forensics.knn_lm.sheets import fleiss, make_sheet, score_sheets, sign_test
from unspool.forensics.knn_lm.tokens import kind_of
from unspool.forensics.knn_lm.windows import joined


def four_tokens() -> Hits:
    """One neighbour each: right for the first, wrong for two, none for the last."""
    return Hits(
        targets=np.array([1, 2, 3, 4], np.int32),
        documents=np.zeros(4, np.int32),
        positions=np.array([1, 20, 100, 5000], np.int32),
        log_lm=np.log([0.1, 0.5, 0.9, 0.4]),
        values=np.array([[1], [9], [9], [0]], np.int32),
        distances=np.array([[1], [1], [1], [np.inf]], np.float32),
    )


def test_gains_are_what_the_definition_gives() -> None:
    counts = np.array([0, 0, 5, 2000])
    found = split_tokens(four_tokens(), Mixture(k=1, lam=0.2), counts, lambda i: f" w{i}")
    mixed = [0.2 + 0.8 * 0.1, 0.8 * 0.5, 0.8 * 0.9, 0.4]
    plain = [0.1, 0.5, 0.9, 0.4]
    gains = np.log(mixed) - np.log(plain)
    assert (found.share_hurt, found.share_helped) == (0.5, 0.25)
    assert found.ppl_lm == pytest.approx(math.exp(-np.log(plain).mean()))
    assert found.ppl_mix == pytest.approx(math.exp(-np.log(mixed).mean()))
    assert found.ppl_knn is None
    assert found.without_neighbour == 0.75
    assert found.mean_delta_hurt == pytest.approx(math.log(0.8))
    assert found.mean_delta_helped == pytest.approx(gains[0])
    assert found.ppl_helped == pytest.approx((10, 1 / 0.28))
    assert found.ppl_hurt == pytest.approx((1 / math.sqrt(0.45), 1 / math.sqrt(0.4 * 0.72)))
    assert found.top_decile_share == 1
    assert found.drop[0] == pytest.approx(1 - found.ppl_mix / found.ppl_lm)
    assert found.contribution[0] == 0
    assert found.contribution[25] == pytest.approx(gains[0] / 4)
    assert found.contribution[-1] == pytest.approx(gains.mean())
    names = [(g.name, g.tokens, g.hurt) for g in found.by_frequency]
    assert names == [("0", 2, 0.0), ("1 to 9", 1, 1.0), ("1,000 to 9,999", 1, 1.0)]
    for groups in (found.by_frequency, found.by_kind, found.by_position):
        assert sum(g.tokens for g in groups) == 4
        assert sum(g.total for g in groups) == pytest.approx(gains.mean())
    assert [g.name for g in found.by_position][-1] == "1,024 and more"
    row = next(r for r in found.by_weight if r["lam"] == 0.2)
    assert row["perplexity"] == pytest.approx(found.ppl_mix)
    assert row["share_hurt"] == 0.5


def test_without_weight_nothing_changes() -> None:
    found = split_tokens(four_tokens(), Mixture(k=1, lam=0.0))
    assert (found.share_hurt, found.share_helped, found.drop) == (0, 0, (0, 0, 0))
    assert found.ppl_mix == found.ppl_lm
    assert found.by_frequency == found.by_kind == ()


def test_intervals_of_a_drop_hold_it() -> None:
    draw = np.random.default_rng(0)
    count = 2000
    right = draw.random(count) < 0.3
    hits = Hits(
        np.ones(count, np.int32), np.arange(count, dtype=np.int32) // 40,
        np.zeros(count, np.int32), np.full(count, math.log(0.2)),
        np.where(right, 1, 2).astype(np.int32)[:, None], np.ones((count, 1), np.float32),
    )  # fmt: skip
    found = split_tokens(hits, Mixture(k=1, lam=0.25))
    drop, low, high = found.drop
    assert low < drop < high
    # Of 2,000 independent tokens: the standard error of the mean gain, by the textbook.
    spread = math.log((0.25 + 0.15) / 0.15) * math.sqrt(0.3 * 0.7 / count)
    assert high - low == pytest.approx(2 * 1.96 * spread * (1 - drop), rel=0.25)
    assert found.share_hurt_interval[0] < 0.7 < found.share_hurt_interval[1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [(" the", "function word"), (" dog", "other word"), ("ing", "piece of a word"), (" ", "space"),
     ("\n\n", "space"), (" 12.5", "number"), (" --", "mark"), ("The", "function word")],
)  # fmt: skip
def test_kinds_of_tokens(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@given(
    values=st.lists(st.integers(0, 3), max_size=60),
    ids=st.lists(st.integers(0, 3), max_size=40),
    length=st.integers(1, 6),
)
def test_shared_runs_equal_a_search(values: list[int], ids: list[int], length: int) -> None:
    known = {tuple(values[i : i + length]) for i in range(len(values) - length + 1)}
    expected = [False] * len(ids)
    for i in range(len(ids) - length + 1):
        if tuple(ids[i : i + length]) in known:
            expected[i : i + length] = [True] * length
    found = shared_tokens(np.array(values, np.int32), np.array(ids, np.int32), length)
    assert found.tolist() == expected


# --- entropies


def test_slopes_of_straight_lines() -> None:
    x = np.arange(50)
    knn = np.stack([1 + 0.03 * x, 2 + 0.01 * x])
    lm = np.stack([3 - 0.01 * x, 2 + 0 * x])
    found = drift(Course(knn, lm, knn - lm), bins=5)
    assert found.slope_knn == pytest.approx(2)
    assert found.slope_lm == pytest.approx(-0.5)
    assert found.difference == pytest.approx((2.5, 1, 4))  # of two texts: each drawn twice, or both
    assert found.places == (4.5, 14.5, 24.5, 34.5, 44.5)
    assert found.knn[0] == pytest.approx((1 + 0.03 * 4.5 + 2 + 0.01 * 4.5) / 2)
    holed = knn[:1].copy()
    holed[0, ::3] = np.nan
    np.testing.assert_allclose(slopes(holed), [3.0])
    nothing = np.full((2, 4), np.nan)
    assert np.isnan(slopes(nothing)).all()
    assert math.isnan(drift(Course(nothing, np.ones((2, 4)), nothing)).difference[1])
    both = drift(
        Course(np.tile(knn, (2, 1)), np.tile(lm, (2, 1)), np.tile(knn, (2, 1))), [0, 1, 0, 1]
    )
    assert both.difference == pytest.approx(found.difference)  # seeds of a prefix stay together


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    return models.store(tmp_path_factory.mktemp("analysis"))


MIXTURE = Mixture(k=9, lam=0.4, temperature=2.0)


def course_by_hand(
    store: Datastore, ids: list[int], start: int
) -> list[tuple[float, float, float]]:
    from tests.forensics.knn_lm.test_mixture import by_hand

    said = by_hand(models.network(), store, ids, Mixture(k=9, lam=0.0, temperature=2.0)).exp()
    near = by_hand(models.network(), store, ids, Mixture(k=9, lam=1.0, temperature=2.0)).exp()
    rows = []
    for t in range(start, len(ids)):
        p, q = near[t - 1].numpy(), said[t - 1].numpy()
        m = (p + q) / 2

        def h(x: Any) -> float:
            return -sum(float(v) * math.log(v) for v in x if v > 0)

        rows.append((h(p), h(q), h(m) - (h(p) + h(q)) / 2))
    return rows


def test_entropies_are_their_definition(store: Datastore) -> None:
    ids = models.tokens().document(1).tolist()[:14]
    rows = np.array([ids, ids[::-1]], np.int32)
    found = observe(models.network(), store, MIXTURE, rows[:, :6], rows[:, 6:])
    for number, row in enumerate(rows.tolist()):
        for i, (h_knn, h_lm, js) in enumerate(course_by_hand(store, row, 6)):
            assert found.knn[number, i] == pytest.approx(h_knn, abs=2e-3)
            assert found.lm[number, i] == pytest.approx(h_lm, abs=2e-3)
            assert found.js[number, i] == pytest.approx(js, abs=2e-3)
    assert float(entropy(torch.tensor([[0.0, -math.inf]]))) == 0


def test_the_likeliest_continuation_equals_a_loop(store: Datastore) -> None:
    from tests.forensics.knn_lm.test_mixture import by_hand

    prompts = np.array([models.tokens().document(i).tolist()[:7] for i in (0, 1)], np.int32)
    for retriever, mixture in ((store, MIXTURE), (None, Mixture(k=9, lam=0.0))):
        made = continue_texts(models.network(), retriever, mixture, prompts, 6,
                              streams=[(0,), (1,)], top_p=0)  # fmt: skip
        for prompt, row in zip(prompts.tolist(), made.tolist(), strict=True):
            ids = list(prompt)
            for token in row:
                assert token == int(by_hand(models.network(), store, ids, mixture)[-1].argmax())
                ids.append(token)


def test_draws_stay_in_the_nucleus_and_do_not_depend_on_the_batch(store: Datastore) -> None:
    from tests.forensics.knn_lm.test_mixture import by_hand

    net = models.network()
    prompts = np.array([[5, 6, 7, 8], [9, 8, 7, 6], [5, 6, 7, 8]], np.int32)
    streams = [(0, 0), (0, 1), (0, 2)]
    options: dict[str, Any] = {"top_p": 0.5, "ends": [1]}
    together = continue_texts(net, store, MIXTURE, prompts, 12, streams=streams, **options)
    for i in range(3):
        alone = continue_texts(net, store, MIXTURE, prompts[i : i + 1], 12,
                               streams=[streams[i]], **options)  # fmt: skip
        assert alone[0].tolist() == together[i].tolist()
    assert together[0].tolist() != together[2].tolist()
    assert 1 not in together
    ids = prompts[0].tolist()
    for token in together[0].tolist():
        row = by_hand(net, store, ids, MIXTURE)[-1].exp()
        row[1] = 0
        row = row / row.sum()
        likelier = float(row[row > row[token] * (1 + 1e-3)].sum())
        assert likelier < 0.5 + 1e-3
        ids.append(token)


def test_draws_have_the_right_shares() -> None:
    from unspool.forensics.knn_lm.generate import _drawn

    said = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1])).expand(4000, 4)
    uniform = torch.from_numpy(np.random.default_rng(0).random(4000))
    for top_p, expected in (
        (1.0, [0.4, 0.3, 0.2, 0.1]),
        (0.6, [4 / 7, 3 / 7, 0, 0]),
        (0.3, [1, 0, 0, 0]),
    ):
        shares = torch.bincount(_drawn(said, uniform, top_p), minlength=4) / 4000
        np.testing.assert_allclose(shares, expected, atol=0.03)


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_prompts_are_pieces_that_do_not_overlap(sizes: list[int], seed: int) -> None:
    ends = np.cumsum([0, *sizes])
    most = sum(size // 7 for size in sizes)
    if not most:
        return
    texts = joined([np.arange(a, b) for a, b in pairwise(ends)], (0,))
    found = cut_prompts(texts, Continuing(n=most, prefix=4, new=3, seed=seed))
    whole = np.concatenate([found.prefixes, found.human], axis=1)
    assert (np.diff(whole, axis=1) == 1).all()
    assert len(np.unique(whole)) == 7 * most
    with pytest.raises(InputError, match="Give more text, or ask for fewer"):
        cut_prompts(texts, Continuing(n=most + 1, prefix=4, new=3))


# --- quality


@pytest.mark.slow
def test_mauve_equals_the_authors_package() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("mauve.compute_mauve", reason="the oracle is mauve-text")
    draw = np.random.default_rng(0)
    for n, m, size, shift in ((40, 40, 20, 0.5), (100, 80, 64, 0.3), (25, 25, 5, 2.0)):
        p = draw.normal(size=(n, size))
        q = draw.normal(size=(m, size)) + shift * (np.arange(size) < 3)
        expected = theirs.compute_mauve(p_features=p, q_features=q).mauve
        assert mauve(p, q) == pytest.approx(expected, abs=1e-9)


def test_mauve_of_equal_and_of_disjoint_sets() -> None:
    pytest.importorskip("faiss", reason="the clusters are faiss's")
    draw = np.random.default_rng(1)
    p = draw.normal(size=(60, 4))
    assert mauve(p, p) == pytest.approx(1)
    assert mauve(p, -np.abs(p) - 50) < 0.1
    with pytest.raises(InputError, match="at least two features of one dimension"):
        mauve(p, p[:, :2])
    # Histograms without a common cluster: the curve is known in closed form.
    points = 1001
    found = area(np.array([1.0, 0]), np.array([0, 1.0]), MauveSettings(points=points))
    w = np.linspace(0, 1, points)
    expected = np.abs(np.trapezoid((1 - w) ** 5, w**5))
    assert found == pytest.approx(expected, abs=1e-4)


def test_repetition_and_overlap() -> None:
    assert seq_rep([1, 2, 3, 4, 5]) == 0
    assert seq_rep([1, 2, 1, 2, 1, 2, 1, 2]) == pytest.approx(1 - 2 / 5)
    assert seq_rep([1]) == 0
    assert distinct([[1, 2, 3], [1, 2, 4]]) == pytest.approx(3 / 4)
    assert distinct([[1]]) == 0
    assert word_overlap("The dog, the cat", "the DOG") == pytest.approx(2 * 2 / 6)
    assert word_overlap("", "x") == 0
    assert name_overlap("Ada met Bob at 5", "bob and Ada") == pytest.approx(2 * 1 / 4)
    gap = paired([1, 2, 3, 4], [2, 3, 4, 5])
    assert gap == (1, 1, 1)


def test_features_are_the_last_state_before_the_output_layer() -> None:
    net = models.network()
    rows = np.array([[5, 6, 7], [9, 8, 7]], np.int32)
    found = features(net, rows, batch=1)
    with torch.no_grad():
        expected = net.model(torch.from_numpy(rows.astype(np.int64))).last_hidden_state[:, -1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    before = features(net, rows[:, 1:], before=(5,))
    np.testing.assert_allclose(before[0], found[0], atol=1e-5)


def test_a_sheet_is_blinded_and_its_marks_come_home() -> None:
    items = [(f"begin {i}", f"=lm {i}", f"mix, {i}\r\n") for i in range(12)]
    sheet = make_sheet(items, seed=1)
    assert set(sheet.key.values()) == {"lm", "mix"}
    assert "'=lm" in sheet.table
    rows = list(csv.reader(io.StringIO(sheet.table)))
    assert [len(row) for row in rows] == [5] * 13
    assert "\r" not in sheet.table
    lines = []
    for i in range(12):  # a judge who always likes the mixture
        lines.append(f"{i},x,x,x,{'A' if sheet.key[str(i)] == 'mix' else 'b'}")
    head = sheet.table.splitlines()[0]
    filled = "\n".join([head, *lines])
    found = score_sheets([filled], sheet.key)
    assert (found.wins, found.ties, found.kappa) == ({"lm": 0, "mix": 12}, 0, None)
    assert found.p_value == pytest.approx(2 / 2**12)
    with pytest.raises(InputError, match="Sheet 1, item 0: the mark must be A, B or ="):
        score_sheets([sheet.table], sheet.key)
    with pytest.raises(InputError, match="does not have the 12 items"):
        score_sheets([head], sheet.key)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (3, 9), (20, 41)])
def test_sign_test_equals_scipy(wins: int, losses: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected)


def test_kappa_of_known_marks() -> None:
    assert fleiss(["AB=A", "AB=A"]) == 1
    assert fleiss(["AAAA", "AAAA"]) == 1
    assert fleiss(["ABAB", "BABA"]) == pytest.approx(-1)


def test_ticks_span_the_range() -> None:
    draw = random.Random(0)
    for _ in range(200):
        low = draw.uniform(-5, 5) * 10 ** draw.randint(-4, 4)
        high = low + draw.random() * 10 ** draw.randint(-4, 4)
        found = ticks(low, high)
        assert found[0] <= low + 1e-9 * abs(low)
        assert found[-1] >= high - 1e-9 * abs(high)
        assert 2 <= len(found) <= 9
    assert curves([Line("x", [1.0], [math.nan])], "a", "b") == ""
    assert "&lt;x" in curves([Line("<x", [1, 2], [3, 4])], "a", "b")


# --- all of it


@pytest.mark.slow
def test_an_analysis_that_is_stopped_ends_the_same(store: Datastore, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="MAUVE clusters with faiss")
    net, tokenizer = models.network(), tiny.tokenizer()
    tokens = models.tokens(tuple(f"{t} {i}. The fox and the dog jump. " * 3
                                 for i, t in enumerate(models.TEXTS)) * 4)  # fmt: skip
    settings = Continuing(n=20, prefix=6, new=8, seeds=2)
    calls = 0

    def stop(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt

    found = {}
    for name, progress in (("whole", lambda *_: None), ("stopped", stop)):
        out = tmp_path / name
        for _ in range(40):
            try:
                ours = knn_lm.evaluate(
                    net, tokenizer, store, tokens, out, MIXTURE, progress=progress
                )
                texts = knn_lm.generate(net, store, tokens, out, MIXTURE, settings, batch=7,
                                        progress=progress)  # fmt: skip
                break
            except KeyboardInterrupt:
                continue
        judged = knn_lm.judge(net, tokenizer, texts)
        found[name] = (to_json(ours, judged), page(ours, judged))
    assert calls > 8
    assert found["whole"] == found["stopped"]
    result, shown = found["whole"]
    for key in ("ppl_lm", "ppl_mix", "share_hurt", "share_helped", "mean_delta_hurt",
                "mean_delta_helped", "top_decile_share", "slope_H_knn", "slope_H_lm", "mauve",
                "settings"):  # fmt: skip
        assert key in result
    assert set(result["mauve"]) == {"lm", "mix"}
    assert len(result["mauve"]["mix"]) == 2
    assert b"<script" not in shown
    assert shown.count(b"<polyline") == 1 + 6 + 3
    said = " ".join(verdict(ours, judged))
    assert "Do not trust this gain" in said  # the sentences of the store stand in the test, too
    assert "MAUVE differs by" in said
    with pytest.raises(RunConflict, match="mixture was"):
        knn_lm.generate(net, store, tokens, tmp_path / "whole", Mixture(k=9), settings, batch=7)
    with pytest.raises(ConfigError, match="batch must be"):
        knn_lm.generate(net, store, tokens, tmp_path / "whole", MIXTURE, settings, batch=0)


@pytest.mark.slow
def test_an_index_of_tokens_takes_the_place_of_a_datastore(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "The fox jumps. The dog jumps. The fox asks. " * 3
    unspool.build_index(documents=[("a", text)], out=tmp_path / "i", memory="256MiB", workers=1,
                        alphabet=f"tokenizer:{tmp_path / 'tokenizer.json'}", tier="sa")  # fmt: skip
    index = unspool.open_index(tmp_path / "i")
    grams = knn_lm.NgramRetriever(index, tokenizer, models.READING)
    ids = models.tokens((text,)).document(0).tolist()
    contexts = [np.array(ids[:n], np.int32) for n in (1, 4, 9)] + [np.array([5, 9], np.int32)]
    near = grams.retrieve(torch.zeros(4, 16), contexts, 50)
    found = log_knn(near, 1.0, 302).exp()
    for row, context in zip(found, contexts, strict=True):
        for start in range(len(context) + 1):  # the longest suffix that occurs and is followed
            tail = context[start:].tolist()
            after = [ids[i + len(tail)] for i in range(len(ids) - len(tail))
                     if ids[i : i + len(tail)] == tail]  # fmt: skip
            if after:
                break
        expected = np.bincount(after, minlength=302) / len(after)
        np.testing.assert_allclose(row, expected, atol=1e-6)
    hits = knn_lm.record_hits(models.network(), grams, models.tokens((text,)), tmp_path / "h", k=50)
    alone = split_tokens(hits, Mixture(k=50, lam=0.9))
    assert alone.ppl_mix < alone.ppl_lm / 10
    unspool.build_index(documents=[("a", text)], out=tmp_path / "b", memory="256MiB", workers=1)
    with pytest.raises(ConfigError, match="needs an index of its tokens"):
        knn_lm.NgramRetriever(unspool.open_index(tmp_path / "b"), tokenizer)
