"""The attention kernels of the engine, as arrays, against attention written out in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import listed
from unspool import _native
from unspool.errors import DeadlineExceeded, QueryError


def _available() -> list[str]:
    found = []
    for name in ("portable", "avx2", "avx512", "avx512_bf16"):
        try:
            _run(*_inputs(0, 1, 1, 1, 1, 1, 4, 4), _native.AttentionPattern(causal=False), name)
        except QueryError:
            continue
        found.append(name)
    return found


def _inputs(seed: int, batch: int, heads: int, kv: int, t: int, s: int, d: int, dv: int) -> Any:
    draw = np.random.default_rng(seed).standard_normal
    shapes = ((batch, heads, t, d), (batch, kv, s, d), (batch, kv, s, dv))
    return tuple(draw(shape, dtype=np.float32) for shape in shapes)


def _run(q: Any, k: Any, v: Any, pattern: Any, kernels: str = "", **settings: Any) -> Any:
    out = np.full((*q.shape[:3], v.shape[-1]), np.nan, dtype=np.float32)
    lse = np.full(q.shape[:3], np.nan, dtype=np.float32)
    settings = {"scale": q.shape[-1] ** -0.5, **settings}
    _native.attention_forward(q, k, v, out, lse, pattern, kernels=kernels, **settings)
    return out, lse


def _lists(seed: int, t: int, s: int, heads: int, block_q: int, block_k: int, share: float) -> Any:
    """indices, counts, and the lists themselves, of one batch row."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-t // block_q), -(-s // block_k)
    met = rng.random((heads, rows, columns)) < share
    indices = np.zeros((1, heads, rows, int(met.sum(-1).max(initial=0))), dtype=np.int32)
    lists = [[np.nonzero(row)[0] for row in head] for head in met]
    for h in range(heads):
        for i in range(rows):
            indices[0, h, i, : len(lists[h][i])] = lists[h][i]
    return indices, met.sum(-1)[None].astype(np.int32), lists


KERNELS = _available()


@pytest.mark.parametrize("kernels", KERNELS)
@settings(max_examples=60)
@given(
    seed=st.integers(0, 999),
    batch=st.sampled_from([1, 2]),
    kv=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 3]),
    t=st.sampled_from([1, 2, 5, 17, 70]),
    s=st.sampled_from([1, 7, 64, 131]),
    d=st.sampled_from([1, 8, 39, 64]),
    dv=st.sampled_from([1, 33, 64]),
    block_q=st.sampled_from([1, 8, 64, 1000]),
    block_k=st.sampled_from([1, 2, 5, 64]),
    shared=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 20]),
    softcap=st.sampled_from([None, 2.0]),
)
def test_block_lists_and_their_gradients(
    kernels: str,
    seed: int,
    batch: int,
    kv: int,
    group: int,
    t: int,
    s: int,
    d: int,
    dv: int,
    block_q: int,
    block_k: int,
    shared: bool,
    share: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> None:
    q, k, v = _inputs(seed, batch, kv * group, kv, t, s, d, dv)
    heads = 1 if shared else kv * group
    indices, counts, lists = _lists(seed, t, s, heads, block_q, block_k, share)
    rules = {"causal": causal, "window": window, "block_q": block_q, "block_k": block_k}
    masks = [listed.seen(t, s, **rules, lists=one) for one in lists]
    mask = np.array([[masks[h * heads // (kv * group)] for h in range(kv * group)]] * batch)
    pattern = _native.AttentionPattern(**rules, indices=indices, counts=counts)
    out, lse = _run(q, k, v, pattern, kernels, softcap=softcap or 0.0)
    expected, expected_lse = listed.attention(q, k, v, mask, d**-0.5, softcap)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=5e-6)

    rng = np.random.default_rng(seed)
    d_out = rng.standard_normal(out.shape, dtype=np.float32)
    d_lse = rng.standard_normal(lse.shape, dtype=np.float32)
    delta = ((d_out.astype(np.float64) * expected).sum(-1) - d_lse).astype(np.float32)
    d_q = np.full(q.shape, np.nan, dtype=np.float32)
    d_k, d_v = (np.zeros((batch, kv, s, -(-n // 16) * 16), dtype=np.float32) for n in (d, dv))
    settings = {"scale": d**-0.5, "softcap": softcap or 0.0, "kernels": kernels}
    _native.attention_backward(q, k, v, lse, d_out, delta, d_q, d_k, d_v, pattern, **settings)
    found = (d_q, d_k[..., :d], d_v[..., :dv])
    truth = listed.gradients(q, k, v, mask, d**-0.5, d_out, d_lse, softcap)
    for one, other in zip(found, truth, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * max(1, abs(other).max()))
    assert not d_k[..., d:].any()
    assert not d_v[..., dv:].any()


_PER_TOKEN: dict[str, Any] = {
    "padding": {
        "q_positions": np.array([[-1, 3, 4, 8, 9, 9]]),
        "k_positions": np.array([[-1, -1, *range(9), -1, 7, 9]]),
    },
    "documents": {
        "q_documents": np.array([[3, 3, 5, 5, 5, 2**40]]),
        "k_documents": np.array([[3] * 6 + [5] * 6 + [5 - 2**32, 2**40]]),
    },
    "global": {
        "window": 2,
        "right": 1,
        "q_global": np.array([[False, True, False, False, False, False]]),
        "k_global": np.array([[j == 4 for j in range(14)]]),
    },
    "beyond": {"beyond": 3},
    "sinks": {"window": 2, "sinks": 2, "causal": True},
    "far": {
        "q_positions": np.arange(6)[None] + 2**40,
        "k_positions": np.arange(14)[None] + 2**40 - 8,
        "window": 3,
        "causal": True,
    },
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("heads", [1, 6])
@pytest.mark.parametrize("case", _PER_TOKEN)
def test_rules_of_positions_documents_and_global_tokens(
    kernels: str, heads: int, case: str
) -> None:
    rules = {"causal": False, **_PER_TOKEN[case]}
    q, k, v = _inputs(1, 2, heads, 1, 6, 14, 8, 8)
    out, lse = _run(q, k, v, _native.AttentionPattern(**rules), kernels)
    one_row = {name: x[0] if isinstance(x, np.ndarray) else x for name, x in rules.items()}
    mask = np.broadcast_to(listed.seen(6, 14, **one_row), (2, heads, 6, 14))
    assert not mask.all()
    expected, expected_lse = listed.attention(q, k, v, mask, 8**-0.5)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("queries", [1, 40])
def test_weights_are_within_a_millionth(kernels: str, queries: int) -> None:
    """Two keys whose scores are x ln 2 apart: the smaller weight is 1 / (1 + 2^x)."""
    x = np.linspace(0, 120, 200 * queries, dtype=np.float32).reshape(200, 1, queries, 1)
    ones = np.ones((200, 1, 2, 1), dtype=np.float32)
    k, v = ones * np.array([[0], [-1]], np.float32), ones * np.array([[0], [1]], np.float32)
    out, _ = _run(x, k, v, _native.AttentionPattern(causal=False), kernels, scale=float(np.log(2)))
    np.testing.assert_allclose(out, 1 / (1 + np.exp2(x.astype(np.float64))), rtol=1e-6)


def test_threads_change_no_bit() -> None:
    q, k, v = _inputs(3, 2, 4, 2, 130, 130, 32, 32)
    indices, counts, _ = _lists(3, 130, 130, 2, 16, 4, 0.5)
    lists = {"indices": indices, "counts": counts, "block_q": 16, "block_k": 4}
    pattern = _native.AttentionPattern(causal=True, **lists)
    found = [_run(q, k, v, pattern, threads=n) for n in (1, 3)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    # One query: its list is cut into parts, and each part may be another thread's.
    q, k, v = _inputs(4, 1, 2, 1, 1, 20_001, 16, 16)
    found = [_run(q, k, v, _native.AttentionPattern(causal=True), threads=n) for n in (1, 4)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    expected, lse = listed.attention(q, k, v, np.ones((1, 2, 1, 20_001), bool), 16**-0.5)
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(found[0][1], lse, rtol=1e-6)


def test_entries_that_name_no_block_are_passed_over() -> None:
    q, k, v = _inputs(5, 1, 1, 1, 3, 10, 4, 4)
    indices = np.array([[[[-7, 1, 99, 2**31 - 1]]]], dtype=np.int32)
    counts = np.array([[[1000]]], dtype=np.int32)
    lists = {"indices": indices, "counts": counts, "block_q": 64, "block_k": 4}
    out, _ = _run(q, k, v, _native.AttentionPattern(causal=False, **lists))
    mask = listed.seen(3, 10, causal=False, lists=[[1]], block_q=64, block_k=4)[None, None]
    np.testing.assert_allclose(out, listed.attention(q, k, v, mask, 0.5)[0], atol=5e-6)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v = _inputs(0, 1, 4, 2, 3, 10, 4, 4)
    plain = _native.AttentionPattern(causal=True)
    with pytest.raises(ValueError, match="k has another shape"):
        _run(q, k[..., :3].copy(), v, plain)
    with pytest.raises(ValueError, match="gaps"):
        _run(q, np.repeat(k, 2, -1)[..., ::2], v, plain)
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        _run(q, k.astype(np.float64), v, plain)
    with pytest.raises(ValueError, match="shared unevenly"):
        _run(q[:, :3].copy(), k, v, plain)
    with pytest.raises(ValueError, match="q_positions"):
        _run(q, k, v, _native.AttentionPattern(causal=True, q_positions=np.zeros((1, 4), np.int64)))
    indices, counts, _ = _lists(0, 3, 10, 3, 1, 1, 1.0)
    with pytest.raises(ValueError, match="number of heads"):
        _run(q, k, v, _native.AttentionPattern(causal=True, indices=indices, counts=counts))
    few = {"indices": indices[:, :1, :2].copy(), "counts": counts[:, :1, :2].copy()}
    with pytest.raises(ValueError, match="fewer queries"):
        _run(q, k, v, _native.AttentionPattern(causal=True, **few))
    with pytest.raises(QueryError, match="no attention kernels named abacus"):
        _run(q, k, v, plain, "abacus")


def test_a_deadline_ends_it() -> None:
    q, k, v = _inputs(0, 1, 1, 1, 5000, 5000, 16, 16)
    _native.set_deadline(0.001)
    try:
        with pytest.raises(DeadlineExceeded):
            _run(q, k, v, _native.AttentionPattern(causal=True), threads=2)
    finally:
        _native.set_deadline(None)
