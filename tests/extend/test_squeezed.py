"""Squeezed attention: against loops, in its exact limits, and as a context of many questions."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extend.conftest import FAMILIES, build, left_padded, tokens
from tests.oracles.squeezed import attention, cluster_shares, kept_tokens
from unspool.attention.call import Call
from unspool.attention.spec import Spec
from unspool.attention.squeezed import SqueezedAttend, select
from unspool.caches.base import KV
from unspool.caches.clusters import kmeans, unit
from unspool.caches.context import (
    STEPS,
    Context,
    Layout,
    Ranks,
    arrange,
    cluster_scores,
    make_context,
    thresholds,
)
from unspool.caches.context_store import ContextStore
from unspool.errors import ConfigError, InputError
from unspool.extension import extend

SPEC = "squeezed:window=20,keep=0.3,pct=0.1"


def normal(*shape: int, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def made(
    length: int = 90,
    layout: Layout | None = None,
    seed: int = 0,
    heads: tuple[int, int] = (2, 4),
    labels: Any = None,
) -> tuple[Context, Any, Any, Any, Layout]:
    """A context with its keys, values and calibration queries, in float64."""
    layout = layout or Layout(window=12, share=0.15)
    k, v = normal(2, heads[0], length, 8, seed=seed)
    queries = normal(heads[1], layout.window, 8, seed=seed + 1) * 2
    ranks = Ranks()
    if labels is None:
        context = make_context(k, v, queries, layout, 8**-0.5, ranks)
    else:
        number = int(labels.max()) + 1
        context = arrange(k, v, queries, labels, number, layout, 8**-0.5, ranks)
    return context, k, v, queries, layout


def labels_of(context: Context, older: int) -> Any:
    """The cluster of every older token, read back from the layout; token 0's by elimination."""
    heads, number = context.counts.shape
    labels = torch.full((heads, older), -1)
    for head in range(heads):
        for i in range(number):
            run = context.order[head, context.starts[head, i] : context.starts[head, i + 1]]
            labels[head, run.long()] = i
        held = torch.bincount(labels[head][1:], minlength=number)
        labels[head, 0] = int((context.counts[head] - held).argmax())
    return labels


# ---- clustering


def test_assignments_are_the_nearest_centers() -> None:
    x = normal(3, 200, 6).float()
    found = kmeans(x, 17)
    distances = torch.cdist(x, found.centers).square()
    nearest, labels = distances.min(-1)
    assert torch.equal(labels, found.labels)
    torch.testing.assert_close(nearest.sum(-1), found.inertia, rtol=1e-4, atol=1e-3)


def test_inertia_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    centers = normal(2, 30, 16)
    x = unit(centers[:, torch.arange(1500) % 30] + 0.6 * normal(2, 1500, 16, seed=1))
    found = kmeans(x, 75)
    for head in range(2):
        peer = sklearn.KMeans(75, n_init=1, max_iter=300, random_state=0).fit(x[head].numpy())
        assert float(found.inertia[head]) <= 1.02 * peer.inertia_


def test_small_batches_come_close() -> None:
    x = unit(normal(2, 1200, 8))
    assert bool((kmeans(x, 60, batch=256).inertia <= 1.1 * kmeans(x, 60).inertia).all())


@settings(deadline=None, max_examples=30)
@given(points=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_number_of_clusters_works(points: int, share: float, seed: int) -> None:
    number = max(1, round(share * points))
    x = normal(2, points, 3, seed=seed).float()
    x[:, points // 2 :] = x[:, :1]  # repeats
    found = kmeans(x, number, seed=seed)
    assert found.labels.shape == (2, points)
    assert bool(((found.labels >= 0) & (found.labels < number)).all())
    assert torch.equal(found.labels, kmeans(x, number, seed=seed).labels)


def test_as_many_clusters_as_points_leaves_no_distance() -> None:
    x = normal(1, 23, 4).float()
    assert float(kmeans(x, 23).inertia) == pytest.approx(0, abs=1e-4)


# ---- layout and scores


def test_every_token_has_one_place() -> None:
    context, k, v, _, layout = made()
    for head in range(2):
        order = context.order[head].long()
        assert sorted(order.tolist()) == list(range(90))
        torch.testing.assert_close(context.k[head], k[head, order])
        torch.testing.assert_close(context.v[head], v[head, order])
        always = context.order[head, context.starts[head, -2] :].tolist()
        assert sorted(always) == [0, *range(90 - layout.window, 90)]
    assert context.counts.sum(1).tolist() == [90 - layout.window] * 2


def test_centroids_are_means_of_keys_as_they_are() -> None:
    context, k, _, _, layout = made()
    labels = labels_of(context, 90 - layout.window)
    for head in range(2):
        for i in range(context.counts.shape[1]):
            members = k[head, : 90 - layout.window][labels[head] == i]
            assert len(members) == context.counts[head, i]
            torch.testing.assert_close(context.centroids[head, i].double(), members.mean(0))


def test_scores_equal_the_loops() -> None:
    context, _, _, queries, _ = made()
    for head in range(2):
        for query in queries[head * 2 : head * 2 + 2].flatten(0, 1)[:5]:
            expected = cluster_shares(
                query[None].numpy(),
                context.centroids[head].double().numpy(),
                context.counts[head].numpy(),
                8**-0.5,
            )
            actual = cluster_scores(
                query[None, None], context.centroids[head : head + 1],
                context.counts[head : head + 1], 8**-0.5,
            )  # fmt: skip
            np.testing.assert_allclose(actual[0, 0].exp().numpy(), expected, rtol=1e-5)


def test_a_cluster_a_key_gives_the_softmax_itself() -> None:
    keys, queries = normal(2, 30, 8), normal(2, 5, 8)
    ones = torch.ones(2, 30, dtype=torch.int64)
    actual = cluster_scores(queries, keys, ones, 8**-0.5).exp()
    expected = torch.softmax(queries @ keys.transpose(1, 2) * 8**-0.5, dim=-1)
    torch.testing.assert_close(actual, expected)


def test_a_cluster_a_key_keeps_the_keys_above_the_threshold() -> None:
    labels = torch.arange(78).expand(2, -1)
    context, k, _, _, layout = made(labels=labels)
    q = normal(4, 1, 8, seed=9) * 2
    threshold = 0.02
    picked = select(q, context, (float(np.log(threshold)), 0.0), 8**-0.5, False)
    for head in range(2):
        weights = torch.softmax(
            q[head * 2 : head * 2 + 2, 0] @ k[head, :78].T * 8**-0.5, dim=-1
        ).amax(0)
        expected = set(torch.nonzero(weights > threshold)[:, 0].tolist())
        expected |= {0, *range(90 - layout.window, 90)}
        assert set(context.order[head].long()[picked[head]].tolist()) == expected


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_extreme_scores_stay_finite(size: float) -> None:
    queries = torch.full((1, 3, 4), size)
    centroids = torch.randn(1, 5, 4)
    logs = cluster_scores(queries, centroids, torch.tensor([[1, 2, 0, 3, 4]]), 1.0)
    if abs(size) < 1e20:
        assert bool(torch.isfinite(logs).all())
    best = logs[:, :, [0, 1, 3, 4]].amax(-1)
    assert bool((best <= 1e-4 * abs(size)).all())


# ---- thresholds


@settings(deadline=None, max_examples=50)
@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    share=st.floats(0, 1),
    data=st.data(),
)
def test_thresholds_keep_no_more_than_asked(scores: list[int], share: float, data: Any) -> None:
    weights = data.draw(
        st.lists(st.integers(0, 5), min_size=len(scores), max_size=len(scores)).filter(any)
    )
    table = thresholds(torch.tensor(scores).float(), torch.tensor(weights))
    step = int(share * STEPS)
    kept = [w for s, w in zip(scores, weights, strict=True) if s > table[step]]
    assert sum(kept) <= share * sum(weights) + 1e-9
    if step < STEPS:
        tied = [w for s, w in zip(scores, weights, strict=True) if s == table[step]]
        assert sum(kept) + sum(tied) > step / STEPS * sum(weights) - 1e-9
    else:
        assert sum(kept) == sum(weights)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("keep", [0.1, 0.37, 0.8])
def test_calibration_queries_keep_what_was_asked(keep: float, per_head: bool) -> None:
    layout = Layout(window=12, share=0.2, per_head=per_head)
    ranks = Ranks()
    layers = []
    for number in range(3):
        k, v = normal(2, 2, 212, 8, seed=number) * (1 + number)
        queries = normal(4, 12, 8, seed=10 + number)
        layers.append((make_context(k, v, queries, layout, 8**-0.5, ranks), queries))
    levels = ranks.levels(keep)
    kept = total = largest = 0
    for context, queries in layers:
        for places in select(queries, context, levels, 8**-0.5, per_head):
            kept += int((places < context.starts[0, -2]).sum())
            total += 200
        largest = max(largest, int(context.counts.max()))
    assert kept <= keep * total
    # Ties, the resolution of the table, and token 0, which is counted apart.
    assert kept >= keep * total - largest - total / STEPS - 12


def test_a_level_that_lets_all_pass_changes_nothing() -> None:
    layout = Layout(window=12, share=0.2, coarse_share=0.05)
    context, _, _, _, _ = made(212, layout)
    assert context.parents is not None
    assert context.coarse_counts is not None
    assert context.coarse_counts.sum(1).tolist() == [200, 200]
    flat = replace(context, coarse_centroids=None, coarse_counts=None, parents=None)
    q = normal(4, 3, 8, seed=9)
    for per_head in (False, True):
        for fine in (-8.0, -6.0, -5.0):
            two = select(q, context, (fine, float("-inf")), 8**-0.5, per_head)
            one = select(q, flat, (fine, 0.0), 8**-0.5, per_head)
            assert [x.tolist() for x in two] == [x.tolist() for x in one]


def test_children_are_compared_among_survivors_only() -> None:
    layout = Layout(window=12, share=0.2, coarse_share=0.05)
    context, _, _, _, _ = made(212, layout, heads=(1, 1))
    assert context.coarse_centroids is not None
    assert context.coarse_counts is not None
    assert context.parents is not None
    q = normal(1, 1, 8, seed=9)
    shares = cluster_shares(
        q[0].numpy(),
        context.coarse_centroids[0].double().numpy(),
        context.coarse_counts[0].numpy(),
        8**-0.5,
    )
    above = float(np.median(shares))
    alive = [i for i, p in enumerate(context.parents[0].tolist()) if shares[p] > above]
    inner = cluster_shares(
        q[0].numpy(),
        context.centroids[0, alive].double().numpy(),
        context.counts[0, alive].numpy(),
        8**-0.5,
    )
    fine = float(np.median(inner))
    expected = set(range(int(context.starts[0, -2]), 212))
    for i, share in zip(alive, inner, strict=True):
        if share > fine:
            expected |= set(range(int(context.starts[0, i]), int(context.starts[0, i + 1])))
    levels = (float(np.log(fine)), float(np.log(above)))
    (picked,) = select(q, context, levels, 8**-0.5, False)
    assert set(picked.tolist()) == expected


# ---- the whole mechanism against loops


def squeezed_call(
    store: ContextStore, q: Any, k: Any, v: Any, positions: Any = None, start: int = 0
) -> Any:
    store.seen += q.shape[2]
    store.append(KV(k, v, positions, start))
    return SqueezedAttend()(
        Call(
            q=q,
            k=k,
            v=v,
            positions=positions,
            start=start,
            spec=Spec(),
            rotate=lambda x, _: x,
            store=store,
            phase="prefill",
            layer=0,
            scale=8**-0.5,
        )
    )


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("length", [1, 5])
def test_output_equals_the_loops(length: int, per_head: bool) -> None:
    layout = Layout(window=12, share=0.15, per_head=per_head)
    context, k, v, _, _ = made(90, layout)
    labels = labels_of(context, 78).numpy()
    store = ContextStore(layout, 0.3)
    store.contexts, store.seen, store.boundary = (context,), 90, 90
    store.kept.start = 90
    q = normal(1, 4, length, 8, seed=5) * 2
    new_k, new_v = normal(2, 1, 2, length, 8, seed=6)
    out = squeezed_call(store, q, new_k, new_v, start=90)
    assert context.ranks is not None
    threshold = float(np.exp(context.ranks.levels(0.3)[0]))
    for head in range(4):
        own = head // 2
        members = [head] if per_head else [own * 2, own * 2 + 1]
        kept = kept_tokens(
            q[0, members].numpy(), k[own].numpy(), labels[own], 12, threshold, 8**-0.5
        )
        keys = np.concatenate([k[own].numpy(), new_k[0, own].numpy()])
        values = np.concatenate([v[own].numpy(), new_v[0, own].numpy()])
        for row in range(length):
            seen = kept | set(range(90, 90 + row + 1))
            expected = attention(q[0, head, row].numpy(), keys, values, seen, 8**-0.5)
            np.testing.assert_allclose(out[0, head, row].numpy(), expected, atol=1e-6)


def test_a_head_may_keep_nothing_but_the_window() -> None:
    context, _, _, _, layout = made()
    none = select(normal(4, 1, 8), context, (1.0, 0.0), 8**-0.5, False)
    assert [len(places) for places in none] == [layout.window + 1] * 2
    everything = select(normal(4, 1, 8), context, (float("-inf"), 0.0), 8**-0.5, False)
    assert [len(places) for places in everything] == [90, 90]


# ---- exact limits on models


def generated(model: Any, ids: Any, mask: Any = None, **options: Any) -> Any:
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
    return torch.stack(out.logits, 1)


def test_keeping_everything_is_dense_attention(family: str) -> None:
    model = copy.deepcopy(build(family)).double()
    ids, mask = left_padded([200, 150])

    def continued(spec: str) -> Any:
        with extend(model, spec) as extension, torch.no_grad():
            cache = extension.new_cache()
            model(ids[:, :190], attention_mask=mask[:, :190], past_key_values=cache)
            cache.end_prefill()
            return model(ids[:, 190:], attention_mask=mask, past_key_values=cache).logits

    expected = continued("dense")
    for spec in ("squeezed:keep=1,window=20", "squeezed:keep=1,window=20,per_head=true,levels=2"):
        # Rotary embeddings are float32 in every model, so equal inputs differ by 0 there.
        torch.testing.assert_close(continued(spec), expected, atol=1e-10, rtol=0)
    with extend(model.float(), "dense"):
        greedy = generated(model, ids, mask).argmax(-1)
    with extend(model, "squeezed:keep=1,window=20"):
        assert torch.equal(generated(model, ids, mask).argmax(-1), greedy)


def test_a_short_context_is_exact() -> None:
    model = build("llama")
    ids = tokens(1, 101)
    with extend(model, "dense"):
        expected = generated(model, ids)
    with extend(model, "squeezed:keep=0.01"):
        torch.testing.assert_close(generated(model, ids), expected, atol=2e-5, rtol=1e-4)


def test_keeping_less_matters() -> None:
    model = build("llama")
    ids = tokens(1, 200)
    with extend(model, "dense"):
        expected = generated(model, ids)
    with extend(model, SPEC):
        actual = generated(model, ids)
    assert torch.equal(actual[:, 0], expected[:, 0])  # the prompt itself is read densely
    assert (actual[:, 1:] - expected[:, 1:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "more"),
    [(name, "") for name in FAMILIES] + [("llama", ",levels=2"), ("llama", ",per_head=true")],
)
def test_padded_rows_equal_single_runs(family: str, more: str) -> None:
    model = build(family)
    ids, mask = left_padded([200, 131])
    with extend(model, SPEC + more):
        together = generated(model, ids, mask)
        for row, length in enumerate([200, 131]):
            alone = generated(model, ids[row : row + 1, -length:])
            torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=1e-4)


def test_beams_move_contexts() -> None:
    model = build("llama")
    ids, mask = left_padded([200, 131])
    with extend(model, SPEC), torch.no_grad():
        options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
        together = model.generate(ids, attention_mask=mask, **options)
        for row, length in enumerate([200, 131]):
            alone = model.generate(ids[row : row + 1, -length:], **options)
            assert torch.equal(together[row, -6:], alone[0, -6:])


# ---- a context and its questions


@pytest.fixture
def questions() -> list[list[int]]:
    return [tokens(1, n, seed=50 + n)[0].tolist() for n in (4, 9, 4)]


def test_questions_leave_the_context_as_it_was(questions: list[list[int]]) -> None:
    with extend(build("llama"), SPEC) as extension:
        context = extension.stream().feed(tokens(1, 200)[0].tolist()).fix()
        first = context.ask(questions[0], max_new_tokens=5)
        context.ask(questions[1], max_new_tokens=5, keep=0.05)
        assert torch.equal(context.ask(questions[0], max_new_tokens=5), first)
        assert context.cache.get_seq_length() == 200
        held = context.cache.stores[0].contexts[0].k.data_ptr()
        assert context.fork().cache.stores[0].contexts[0].k.data_ptr() == held


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_batch_of_questions_equals_one_after_another(
    name: str, questions: list[list[int]]
) -> None:
    for spec in (SPEC, "dense", "squeezed:window=20,keep=0.3,layers=2", "think"):
        with extend(build(name), spec) as extension:
            context = extension.stream().feed(tokens(1, 200)[0].tolist()).fix()
            together = context.ask(questions, max_new_tokens=5, do_sample=False)
            for row, question in enumerate(questions):
                alone = context.ask(question, max_new_tokens=5, do_sample=False)
                assert torch.equal(together[row], alone[0]), (spec, row)


def test_keep_is_a_share_that_a_question_may_change(questions: list[list[int]]) -> None:
    with extend(build("llama"), SPEC) as extension:
        context = extension.stream().feed(tokens(1, 200)[0].tolist()).fix()
        shares = []
        for keep in (0.05, 0.4, 1.0):
            fork = context.fork()
            from unspool.caches.context_store import set_keep

            set_keep(fork.cache, keep)
            fork.generate(questions[0], max_new_tokens=2)
            stores = fork.cache.stores
            report = fork.report()
            added = report.attended_tokens + report.stored_tokens + report.dropped_tokens
            assert (report.dropped_tokens, added) == (0, 205)
            shares.append(sum(sum(s.kept_shares()) for s in stores) if keep < 1 else 6)
        assert shares == sorted(shares)


def test_save_and_load(tmp_path: Path, questions: list[list[int]]) -> None:
    model = build("llama")
    for number, spec in enumerate([SPEC, SPEC + ",levels=2", "squeezed:keep=0.5"]):
        with extend(model, spec) as extension:
            context = extension.stream().feed(tokens(1, 180)[0].tolist()).fix()
            context.save(tmp_path / str(number))
            expected = context.ask(questions[1], max_new_tokens=5, keep=0.2)
        with extend(model, spec) as extension:
            again = extension.stream().load(tmp_path / str(number), verify=False)
            assert torch.equal(again.ask(questions[1], max_new_tokens=5, keep=0.2), expected)
            again.feed([5, 6, 7]).generate(max_new_tokens=2)  # and goes on


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    with extend(build("llama"), SPEC) as extension:
        extension.stream().feed(tokens(1, 180)[0].tolist()).fix().save(tmp_path / "c")
        file = tmp_path / "c" / "stream.safetensors"
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
        with pytest.raises(InputError, match="checksum differs"):
            extension.stream().load(tmp_path / "c")
        file.write_bytes(data[:-1])
        with pytest.raises(InputError, match="cut short"):
            extension.stream().load(tmp_path / "c", verify=False)


def test_appended_text_is_exact(questions: list[list[int]]) -> None:
    model = build("llama")
    with extend(model, SPEC) as extension, torch.no_grad():
        stream = extension.stream().feed(tokens(1, 150)[0].tolist()).fix()
        other = stream.fork()
        more = tokens(1, 40, seed=8)
        stream.feed(more[0].tolist()).fix()  # the second fix changes nothing
        assert stream.cache.stores[0].boundary == other.cache.stores[0].boundary == 150
        assert len(stream.cache.stores[0].tail()) == 40


def test_crop_stops_at_the_context() -> None:
    with extend(build("llama"), SPEC) as extension, torch.no_grad():
        stream = extension.stream().feed(tokens(1, 150)[0].tolist()).fix()
        extension.model(tokens(1, 4), past_key_values=stream.cache)
        stream.cache.crop(-4)
        with pytest.raises(ConfigError, match="150 are a fixed context"):
            stream.cache.crop(-1)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("squeezed:keep=0", "0 < keep <= 1, got keep=0"),
        ("squeezed:keep=1.5", "got keep=1.5"),
        ("squeezed:pct=0", "got pct=0"),
        ("squeezed:levels=3", "levels=3"),
        ("squeezed:window=0", "window=0"),
        ("squeezed+think", "brings its own store"),
        ("squeezed+lm-infinite", "both fill slot"),
    ],
)
def test_what_cannot_work_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extend(build("llama"), spec)


def test_bad_questions_are_refused() -> None:
    with extend(build("llama"), SPEC) as extension:
        stream = extension.stream()
        with pytest.raises(InputError, match="no context to fix"):
            stream.fix()
        stream.feed(tokens(1, 200)[0].tolist())
        with pytest.raises(InputError, match="list of questions is empty"):
            stream.ask([])
        with pytest.raises(ConfigError, match="got keep=2"):
            stream.ask([4], keep=2.0)
    with extend(build("llama"), "dense") as extension:
        stream = extension.stream().feed([4, 5])
        with pytest.raises(ConfigError, match="option of method 'squeezed'"):
            stream.ask([4], keep=0.5)
