"""p_kNN, the mixture, tuning and the wrapped model, against loops and against known limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.backends import tiny
from tests.forensics.knn_lm import models
from tests.forensics.knn_lm.models import knn_by_hand
from unspool.errors import ConfigError, RunConflict
from unspool.forensics.knn_lm import (
    Datastore,
    Mixture,
    Reading,
    StoreSettings,
    build_store,
    detach,
    record_hits,
    tune,
    wrap,
)
from unspool.forensics.knn_lm.hits import Hits
from unspool.forensics.knn_lm.mixture import Neighbours, log_knn, log_knn_of, mix, weight_of
from unspool.forensics.knn_lm.search import Flat
from unspool.forensics.knn_lm.states import Capture, locate
from unspool.forensics.knn_lm.tune import bucketed, log_mixed, weights
from unspool.forensics.knn_lm.windows import joined


def made_store(count: int = 500, size: int = 8, vocabulary: int = 23) -> Datastore:
    draw = np.random.default_rng(3)
    keys = draw.normal(size=(count, size)).astype(np.float16)
    store = Datastore(Path(), {}, keys, draw.integers(0, vocabulary, count).astype(np.int32))
    store._search = Flat(keys)
    return store


QUERIES = np.random.default_rng(4).normal(size=(4, 8)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, 500, 9000])
@pytest.mark.parametrize("heat", [0.1, 1.0, 30.0])
def test_p_knn_is_its_definition(k: int, heat: float) -> None:
    store = made_store()
    near = store.neighbours(torch.from_numpy(QUERIES), k)
    found = log_knn(near, heat, 23).exp()
    for row, query in zip(found, QUERIES, strict=True):
        expected = knn_by_hand(store.keys, store.values, query, k, heat, 23)
        np.testing.assert_allclose(row, expected, atol=2e-5)
    targets = torch.tensor([3, 0, 22, 7])
    of = log_knn_of(near, heat, targets).exp()
    torch.testing.assert_close(of, found[range(4), targets])


def test_limits_of_the_temperature() -> None:
    store = made_store()
    near = store.neighbours(torch.from_numpy(QUERIES), 500)
    shares = np.bincount(store.values, minlength=23) / 500
    np.testing.assert_allclose(log_knn(near, 1e9, 23)[0].exp(), shares, atol=1e-5)
    cold = log_knn(near, 1e-6, 23).exp()
    assert cold.argmax(1).tolist() == near.values[:, 0].tolist()
    assert float(cold.max(1).values.min()) == pytest.approx(1)


@given(
    distances=st.lists(st.lists(st.floats(0, 1e4) | st.just(math.inf), min_size=5, max_size=5),
                       min_size=1, max_size=4),
    lam=st.floats(0, 1),
    heat=st.floats(0.01, 1e4),
)  # fmt: skip
def test_mixtures_sum_to_one(distances: list[list[float]], lam: float, heat: float) -> None:
    rows = torch.tensor(distances).sort(dim=1).values
    values = torch.arange(5).expand(len(rows), 5) % 3
    near = Neighbours(values, rows)
    said = torch.log_softmax(torch.randn(len(rows), 7), dim=1)
    weight = weight_of(near, Mixture(k=5, lam=lam))
    mixed = mix(said, log_knn(near, heat, 7), weight)
    torch.testing.assert_close(mixed.exp().sum(1), torch.ones(len(rows)))
    for row, one, alone in zip(rows, mixed, said, strict=True):
        if row.isinf().all():
            assert torch.equal(one, alone)  # nothing was found: the model stands alone
    if lam == 1:
        kept = weight > 0
        assert torch.equal(mixed[kept], log_knn(near, heat, 7)[kept])


def test_a_value_outside_the_vocabulary_is_an_error() -> None:
    near = Neighbours(torch.tensor([[3, 9]]), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ConfigError, match="token id 9, and the vocabulary has 9 tokens"):
        log_knn(near, 1.0, 9)


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"lam": 1.1}, {"lam": math.nan}, {"temperature": 0},
     {"lams": (0.1,), "edges": (1.0,)}, {"edges": (1.0,)},
     {"lams": (0.1, 0.2, 0.3), "edges": (2.0, 1.0)}],
)  # fmt: skip
def test_refuses_mixtures_that_mean_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Mixture(**change)
    with pytest.raises(ConfigError):
        Mixture.from_json({"k": 1})
    assert Mixture.from_json(Mixture(lam=0.3).to_json()) == Mixture(lam=0.3)


# --- in a model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    return models.store(tmp_path_factory.mktemp("knn"))


def by_hand(net: Any, store: Datastore, ids: list[int], mixture: Mixture) -> torch.Tensor:
    """Log-probabilities of the mixture at every position of one text, from the definition."""
    with Capture(locate(net, store.layer)) as capture, torch.no_grad():
        logits = net(torch.tensor([ids]), use_cache=False).logits[0].double()
        states = capture.take(1)[0].numpy()
    said = torch.softmax(logits, dim=-1)
    rows = [
        knn_by_hand(store.keys, store.values, q, mixture.k, float(mixture.temperature),
                    said.shape[1])
        for q in states
    ]  # fmt: skip
    return (mixture.lam * torch.from_numpy(np.stack(rows)) + (1 - mixture.lam) * said).log()


MIXTURE = Mixture(k=9, lam=0.4, temperature=2.0)


def test_forward_is_the_definition(store: Datastore) -> None:
    net, ids = models.network(), models.tokens().document(1).tolist()[:20]
    expected = by_hand(net, store, ids, MIXTURE)
    with wrap(net, store, MIXTURE, tokenizer=tiny.tokenizer()):
        out = net(torch.tensor([ids]), labels=torch.tensor([ids]))
        torch.testing.assert_close(out.logits[0].double(), expected, atol=1e-4, rtol=1e-4)
        loss = -expected[range(len(ids) - 1), ids[1:]].mean()
        assert float(out.loss.detach()) == pytest.approx(float(loss), abs=1e-4)
        last = net(torch.tensor([ids]), logits_to_keep=3).logits[0]
        torch.testing.assert_close(last.double(), expected[-3:], atol=1e-4, rtol=1e-4)
        some = net(torch.tensor([ids]), logits_to_keep=torch.tensor([2, 5])).logits[0]
        torch.testing.assert_close(some.double(), expected[[2, 5]], atol=1e-4, rtol=1e-4)
        plain = net(torch.tensor([ids]), return_dict=False)
        torch.testing.assert_close(plain[0], out.logits)


def test_lambda_zero_changes_no_bit_and_detaching_puts_all_back(store: Datastore) -> None:
    net, ids = models.network(), torch.tensor([[5, 6, 7, 8]])
    before = net(ids).logits
    keys = set(vars(net))
    lm = wrap(net, store, lam=0.0)
    assert torch.equal(net(ids).logits, before)
    with pytest.raises(ConfigError, match="mixed into this model already"):
        wrap(net, store)
    assert detach(lm) is net
    assert set(vars(net)) == keys
    assert torch.equal(net(ids).logits, before)
    empty = Datastore(store.folder, store.facts, store.keys[:0], store.values[:0])
    with wrap(net, empty, lam=1.0):
        assert torch.equal(net(ids).logits, before)
    with pytest.raises(ZeroDivisionError), wrap(net, store):
        raise ZeroDivisionError
    assert torch.equal(net(ids).logits, before)
    with pytest.raises(ConfigError, match="Give either a mixture or lam"):
        wrap(net, store, MIXTURE, lam=0.1)


def test_stored_contexts_reproduce_their_text(store: Datastore) -> None:
    net, ids = models.network(), models.tokens().document(3).tolist()[:30]
    assert len(ids) >= 26
    with wrap(net, store, k=1, lam=1.0), torch.no_grad():
        assert net(torch.tensor([ids])).logits[0, :-1].argmax(-1).tolist() == ids[1:]
        made = net.generate(torch.tensor([ids[:6]]), max_new_tokens=20, do_sample=False)
    assert made[0].tolist() == ids[:26]


def test_generate_equals_a_loop_that_reads_everything_again(store: Datastore) -> None:
    net, prompt = models.network(), models.tokens().document(1).tolist()[:9]
    ids = list(prompt)
    for _ in range(12):
        ids.append(int(by_hand(net, store, ids, MIXTURE)[-1].argmax()))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with wrap(net, store, MIXTURE):
        made = net.generate(torch.tensor([prompt]), **options)[0].tolist()
        short = prompt[-4:]
        alone = net.generate(torch.tensor([short]), **options)[0].tolist()
        padded = torch.tensor([prompt, [0] * 5 + short])
        mask = torch.tensor([[1] * 9, [0] * 5 + [1] * 4])
        both = net.generate(padded, attention_mask=mask, **options).tolist()
        beams = net.generate(torch.tensor([prompt]), num_beams=3, **options)[0].tolist()
        scores = by_hand_score(net, store, beams, len(prompt))
        assert scores >= by_hand_score(net, store, made, len(prompt)) - 1e-3
    assert made == ids
    assert both[0] == ids
    assert both[1][5:] == alone


def by_hand_score(net: Any, store: Datastore, ids: list[int], start: int) -> float:
    with torch.no_grad():
        rows = net(torch.tensor([ids])).logits[0]
    return float(sum(rows[t - 1, ids[t]] for t in range(start, len(ids))))


def test_padding_is_not_searched(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    net, asked = models.network(), []
    search = store._search
    assert search is not None
    monkeypatch.setattr(store, "_search", lambda q, k: asked.append(len(q)) or search(q, k))
    with wrap(net, store, MIXTURE):
        net(torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]]),
            attention_mask=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))  # fmt: skip
    assert sum(asked) == 6


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "opt", "gpt-neox"])
def test_families_generate_as_they_are_read(family: str, tmp_path: Path) -> None:
    net = models.model(family)
    draw = np.random.default_rng(0)
    texts = joined([draw.integers(2, 100, 60), draw.integers(2, 100, 25)])
    settings = StoreSettings(reading=Reading(window=24, stride=12), dtype="float32")
    store = build_store(net, tiny.tokenizer(), texts, tmp_path / "s", settings)
    prompt = [5, 6, 7, 8, 9]
    with wrap(net, store, k=4, lam=0.5, temperature=5.0):
        made = net.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False,
                            eos_token_id=None, pad_token_id=0)[0].tolist()  # fmt: skip
    for t in range(len(prompt), len(made)):
        row = by_hand(net, store, made[:t], Mixture(k=4, lam=0.5, temperature=5.0))[-1]
        assert float(row[made[t]]) >= float(row.max()) - 1e-3


# --- recorded and tuned


def test_hits_are_what_forward_gives(store: Datastore, tmp_path: Path) -> None:
    net = models.network()
    tokens = models.tokens(("A fox asks a dog to jump, or not. ", "1 2 3 4 and so on: 5 6 7."))
    hits = record_hits(net, store, tokens, tmp_path / "h", k=9, tokenizer=tiny.tokenizer())
    assert len(hits) == sum(len(tokens.document(i)) - 1 for i in (0, 1))
    mixed = log_mixed(np.array(hits.log_lm), hits.log_retrieved(9, 2.0), weights(hits, MIXTURE))
    at = 0
    for number in (0, 1):
        ids = tokens.document(number).tolist()
        expected = by_hand(net, store, ids, MIXTURE)
        for t in range(1, len(ids)):
            assert (hits.documents[at], hits.positions[at], hits.targets[at]) == (number, t, ids[t])
            assert mixed[at] == pytest.approx(float(expected[t - 1, ids[t]]), abs=1e-3)
            at += 1
    again = record_hits(net, store, tokens, tmp_path / "h", k=9)
    assert again.distances.tobytes() == hits.distances.tobytes()
    with pytest.raises(RunConflict, match="k was 9, now 8"):
        record_hits(net, store, tokens, tmp_path / "h", k=8)
    with pytest.raises(ConfigError, match="k=10 was asked for, and 9"):
        hits.log_retrieved(10, 1.0)


def made_hits(count: int = 400, k: int = 16) -> Hits:
    draw = np.random.default_rng(1)
    distances = np.sort(draw.gamma(4, 5, (count, k)), axis=1).astype(np.float32)
    distances[::50] = np.inf
    targets = draw.integers(0, 9, count).astype(np.int32)
    values = draw.integers(0, 9, (count, k)).astype(np.int32)
    near = distances[:, 0] < np.median(distances[:, 0])
    values[near, 0] = targets[near]  # what is near is right
    return Hits(targets, np.arange(count, dtype=np.int32) // 20, np.zeros(count, np.int32),
                np.log(draw.uniform(0.01, 0.9, count)), values, distances)  # fmt: skip


def test_tuning_finds_the_best_of_the_grid() -> None:
    hits = made_hits()
    grid = {"k": (1, 4, 16), "temperature": (0.5, 5.0), "lam": (0.0, 0.2, 0.6)}
    found = tune(hits, **grid)
    best = None
    for k in grid["k"]:
        for heat in grid["temperature"]:
            for lam in grid["lam"]:
                total = 0.0
                for i in range(len(hits)):
                    d = hits.distances[i, :k].astype(float)
                    w = np.exp(-(d - d[0]) / heat) if np.isfinite(d[0]) else np.zeros(k)
                    p = math.exp(hits.log_lm[i])
                    if np.isfinite(d[0]):
                        share = w[hits.values[i, :k] == hits.targets[i]].sum() / w.sum()
                        p = lam * share + (1 - lam) * p
                    total -= math.log(p)
                reached = math.exp(total / len(hits))
                best = min(best or (reached, k, heat, lam), (reached, k, heat, lam))
    assert best is not None
    assert found.perplexity == pytest.approx(best[0])
    chosen = found.mixture
    assert (chosen.k, chosen.temperature, chosen.lam) == best[1:]
    assert len(found.tried) == 18
    assert found.perplexity_lm == pytest.approx(math.exp(-hits.log_lm.mean()))
    with pytest.raises(ConfigError, match="Tuning needs"):
        tune(hits, lam=())


def test_steps_of_the_weight_follow_the_distance() -> None:
    hits = made_hits()
    plain = tune(hits, temperature=(1.0,), k=(1,))
    stepped = tune(hits, temperature=(1.0,), k=(1,), buckets=2)
    assert stepped.perplexity < plain.perplexity
    near, far = stepped.mixture.lams
    assert near > far
    lam = weights(hits, stepped.mixture)
    everything = hits.neighbours(slice(0, len(hits)), 1)
    np.testing.assert_allclose(lam, weight_of(everything, stepped.mixture).numpy(), atol=1e-7)
    assert lam[0] == 0  # nothing was found there
    edge = stepped.mixture.edges[0]
    for d, w in zip(hits.distances[:, 0], lam, strict=True):
        if np.isfinite(d):
            assert w == pytest.approx(near if d <= edge else far)
    one = bucketed(hits, plain.mixture, hits.log_retrieved(1, 1.0), (0.3,), 4)
    assert set(one.lams) == {0.3}
