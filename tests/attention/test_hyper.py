"""HyperAttention on tensors: exact limits, the estimator against loops, gradients, the kernels."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.attention.hyper import fused, hyper_attention
from unspool.attention.hyper.cost import count_pairs, forward_flops
from unspool.attention.hyper.functional import is_exact
from unspool.attention.hyper.leaves import leaf_attention, leaf_gradients
from unspool.attention.hyper.lsh import (
    draw_directions,
    gray_code,
    gray_rank,
    hash_buckets,
    sort_order,
)
from unspool.attention.hyper.parts import join_level
from unspool.attention.hyper.plan import Plan, Settings, make_plan, windows
from unspool.attention.hyper.reference import log_weights, reference_hyper
from unspool.attention.hyper.sampled import Drawn, Sample
from unspool.attention.hyper.union import Union
from unspool.errors import ConfigError
from unspool.methods import resolve_method

CPU = torch.device("cpu")
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class EveryKeyOnce:
    """In place of the sampler: all keys, each standing for itself."""

    by_value = False

    def __call__(
        self,
        shape: tuple[int, int, int],
        usable: Sequence[int],
        count: int,
        sizes: torch.Tensor | None,
        device: torch.device,
    ) -> Sample:
        slots = torch.arange(count, device=device).expand(*shape, count)
        logs = torch.zeros(*shape, count, dtype=torch.float64, device=device)
        for piece, there in enumerate(usable):
            logs[:, :, piece, there:] = float("-inf")
        return Sample(slots, logs)


def parts(
    queries: int, keys: int, *, heads: int = 4, kv_heads: int = 2, dim: int = 8, seed: int = 0
) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, heads, queries, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, dim))
    q, k, v = (torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)
    return q, k, v


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q k^T * scale) v by einsum, causality bottom-right, and the log of the row sums."""
    groups = q.shape[1] // k.shape[1]
    k, v = (torch.stack([x[:, h // groups] for h in range(q.shape[1])], 1) for x in (k, v))
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) * scale
    if causal:
        rows, columns = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None]
        ahead = columns > rows + k.shape[2] - q.shape[2]
        scores = scores.masked_fill(ahead, float("-inf"))
    return torch.softmax(scores, -1) @ v, scores.exp().sum(-1).log()


def a_plan(q: Any, k: Any, v: Any, draw: Any = None, bits: int = 4, **options: Any) -> Plan:
    generator = torch.Generator(q.device).manual_seed(1)
    directions = draw_directions(q.shape[-1], bits, generator, q.device)
    sampler = draw or Drawn("uniform", generator)
    return make_plan(q, k, v, Settings(**options), directions, sampler, generator)


# ---- the hash


def test_neighbouring_buckets_differ_in_one_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = draw_directions(6, 5, generator, CPU)
    x = torch.randn(1, 1, 4000, 6, generator=generator)
    signs = (x @ directions > 0)[0, 0]
    for released, worst in ((False, 1), (True, 5)):
        buckets = hash_buckets(x, directions, released=released)[0, 0]
        assert len(buckets.unique()) == 32
        pattern = {int(b): signs[(buckets == b).nonzero()[0, 0]] for b in buckets.unique()}
        for bucket in range(32):  # a bucket is one pattern
            assert bool((signs[buckets == bucket] == pattern[bucket]).all())
        steps = [int((pattern[b] != pattern[b + 1]).sum()) for b in range(31)]
        assert max(steps) == 1 if not released else 1 < max(steps) <= worst


def test_ranks_undo_the_gray_sequence() -> None:
    sequence = [0]  # the recursive definition
    for bit in range(12):
        sequence += [code + (1 << bit) for code in reversed(sequence)]
    places = torch.arange(1 << 12, dtype=torch.int32)
    assert gray_code(places).tolist() == sequence
    assert [sequence[rank] for rank in gray_rank(places).tolist()] == places.tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_sorting_is_stable(buckets: list[int]) -> None:
    found = sort_order(torch.tensor([[buckets]], dtype=torch.int32))[0, 0].tolist()
    assert found == sorted(range(len(buckets)), key=lambda i: buckets[i])


# ---- exact limits

LENGTHS = (1, 2, 97, 130)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("block", "min_seq_len"), [(256, 1), (130, 7), (4, 400)])
def test_one_block_or_a_short_text_is_exact(
    length: int, block: int, min_seq_len: int, causal: bool
) -> None:
    q, k, v = parts(length, length)
    out, lse = hyper_attention(
        q, k, v, causal=causal, block=block, min_seq_len=min_seq_len, return_lse=True
    )
    expected, row_sums = written_out(q, k, v, causal=causal, scale=8**-0.5)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(lse, row_sums, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("block", [0, 7, 16])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(130, 130, True), (97, 97, False), (64, 203, True), (33, 64, False), (257, 257, True)],
)
def test_all_keys_drawn_once_is_exact(
    queries: int, keys: int, causal: bool, block: int, sinks: int
) -> None:
    """Own blocks are left out, weights and merges are right, whatever the hash says."""
    q, k, v = parts(queries, keys)
    out, lse = hyper_attention(
        q,
        k,
        v,
        causal=causal,
        scale=0.7,
        block=block,
        samples=1 << 20,
        min_seq_len=8,
        sinks=sinks,
        draw=EveryKeyOnce(),
        return_lse=True,
    )
    expected, row_sums = written_out(q, k, v, causal=causal, scale=0.7)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(lse, row_sums, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("length", [4097, 10_000, 16_384])
def test_the_recursion_with_exact_rectangles_is_causal_attention(length: int) -> None:
    q, k, v = parts(length, length, heads=1, kv_heads=1, dim=4)
    q, k, v = q[:1], k[:1], v[:1]
    out = hyper_attention(q, k, v, causal=True, block=1 << 20, samples=0, min_seq_len=1024)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


# ---- the estimator


@pytest.mark.parametrize("sampling", ["uniform", "value-norm"])
def test_row_sums_are_right_on_average(sampling: Any) -> None:
    """The hash fixed, over 4,000 samples: every row within 4 standard errors, and on average."""
    length, seeds = 48, 4000
    q, k, v = (x[:1, :1] for x in parts(length, length))
    directions = draw_directions(8, 3, torch.Generator().manual_seed(3), CPU)
    options = Settings(causal=False, block=8, samples=6, min_seq_len=1)
    generator = torch.Generator().manual_seed(7)
    many = [x.expand(seeds, -1, -1, -1) for x in (q, k, v)]
    plan = make_plan(*many, options, directions, Drawn(sampling, generator), generator)
    _, lse = Union.apply(*many, plan, 0.5, False)
    sums = lse.exp()[:, 0]
    _, row_sums = written_out(q, k, v, causal=False, scale=0.5)
    errors = (sums.mean(0) - row_sums[0, 0].exp()) / (sums.std(0) / math.sqrt(seeds))
    # Of 48 normal errors, the largest passes 3 in one run of eight; their mean square is near 1.
    assert float(errors.abs().max()) < 4
    assert 0.5 < float(errors.square().mean()) < 1.6


def test_what_hashing_finds_is_what_matters() -> None:
    """Keys in tight clusters, queries near one: the block part has their heavy pairs, and a random
    permutation of the same budget is five times as far off."""
    clusters, size, dim = 16, 32, 32
    generator = torch.Generator().manual_seed(5)
    centres = torch.nn.functional.normalize(
        torch.randn(clusters // 2, dim, dtype=torch.float64, generator=generator), dim=-1
    )
    centres = torch.cat([centres, -centres])  # antipodal
    member = torch.randperm(clusters * size, generator=generator) % clusters

    def near(scale: float) -> torch.Tensor:
        noise = torch.randn(clusters * size, dim, dtype=torch.float64, generator=generator)
        return (centres[member] + 0.002 * noise)[None, None] * scale

    q, k = near(6.0), near(6.0)
    v = torch.randn(1, 1, clusters * size, dim, dtype=torch.float64, generator=generator)
    exact, _ = written_out(q, k, v, causal=False, scale=1.0)
    errors, recalls = {}, {}
    for order in ("lsh", "random"):
        runs = []
        for seed in range(5):
            torch.manual_seed(seed)
            common: dict[str, Any] = {"causal": False, "block": 64, "samples": 64, "order": order}
            directions = draw_directions(dim, 8, None, CPU)
            plan = make_plan(q, k, v, Settings(min_seq_len=1, **common), directions, Drawn(), None)
            out, _ = Union.apply(q, k, v, plan, 1.0, False)
            level = plan.levels[0]
            met = torch.zeros(clusters * size, clusters * size, dtype=torch.bool)
            for block in range(level.q_rows.shape[3]):
                rows, keys = level.q_rows[0, 0, 0, block], level.k_rows[0, 0, 0, block]
                met[rows.long()[:, None], keys.long()[None]] = True
            heavy = member[:, None] == member[None]
            recall = float(met[heavy].double().mean())
            runs.append((float((out - exact).norm() / exact.norm()), recall))
        errors[order] = sum(error for error, _ in runs) / len(runs)
        recalls[order] = sum(recall for _, recall in runs) / len(runs)
    assert recalls["lsh"] > 0.95 > 0.3 > recalls["random"]
    assert errors["random"] > 5 * errors["lsh"]


def test_centring_finds_clusters_in_a_narrow_cone() -> None:
    """A shift of all keys changes no exact attention, but most signs."""
    generator = torch.Generator().manual_seed(5)
    member = torch.randperm(256, generator=generator) % 8
    x = torch.randn(8, 32, dtype=torch.float64, generator=generator)[member][None, None]
    shift = 5 * torch.randn(32, dtype=torch.float64, generator=generator)
    found = {}
    for order in ("lsh", "centred"):
        plan = a_plan(
            x, x + shift, x, bits=8, causal=False, block=32, samples=0, min_seq_len=1, order=order
        )
        met = log_weights(plan, 1, 1, 1, 256, 256)[0, 0].isfinite()
        found[order] = float(met[member[:, None] == member[None]].double().mean())
    assert found["centred"] > 0.95 > 0.5 > found["lsh"]


@pytest.mark.parametrize("sampling", ["uniform", "value-norm"])
@pytest.mark.parametrize("order", ["lsh", "centred", "released", "random"])
def test_outputs_are_the_weighted_softmax_of_the_plan(order: Any, sampling: Any) -> None:
    q, k, v = parts(131, 150)
    draw = Drawn(sampling, torch.Generator().manual_seed(2))
    plan = a_plan(q, k, v, draw, block=10, samples=9, min_seq_len=16, sinks=3, order=order)
    out, lse = Union.apply(q, k, v, plan, 0.5, False)
    expected, expected_lse = reference_hyper(q, k, v, plan, 0.5)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=1e-10)


def test_nothing_ahead_is_met_and_weights_count_every_key() -> None:
    """Weights of a row add up to the keys it may see, on average over samples."""
    q, k, v = (x[:1, :2] for x in parts(64, 64))
    k, v = k[:, :1], v[:, :1]
    total = torch.zeros(64)
    for seed in range(60):
        draw = Drawn("uniform", torch.Generator().manual_seed(seed))
        plan = a_plan(q, k, v, draw, block=4, samples=5, min_seq_len=8, sinks=2)
        weights = log_weights(plan, 1, 2, 1, 64, 64).exp()[0, 0]
        assert float(weights.triu(1).abs().max()) == 0
        assert bool((weights[:, :2] == torch.ones(64, 2).tril()).all())  # sinks: once, exactly
        total += weights.sum(-1).float() / 60
    torch.testing.assert_close(total, torch.arange(1.0, 65.0), rtol=0.15, atol=0.5)


# ---- gradients


@pytest.mark.parametrize(("queries", "keys", "causal"), [(19, 19, True), (12, 17, False)])
def test_gradients_flow_through_both_sums(queries: int, keys: int, causal: bool) -> None:
    inputs = [x[:1, :, :, :4].requires_grad_() for x in parts(queries, keys, heads=2, kv_heads=1)]
    plan = a_plan(*inputs, causal=causal, block=3, samples=4, min_seq_len=4, sinks=1)
    assert torch.autograd.gradcheck(
        lambda *x: Union.apply(*x, plan, 0.5, False), inputs, fast_mode=True
    )


@pytest.mark.parametrize(("queries", "keys", "causal"), [(700, 1300, True), (257, 300, False)])
def test_gradients_equal_those_of_the_dense_definition(
    queries: int, keys: int, causal: bool
) -> None:
    inputs = [x[:1].requires_grad_() for x in parts(queries, keys)]
    plan = a_plan(*inputs, causal=causal, block=32, samples=40, min_seq_len=300, sinks=3)
    out, lse = Union.apply(*inputs, plan, 0.5, False)
    expected = reference_hyper(*inputs, plan, 0.5)
    weights = [torch.randn_like(x) for x in (out, lse)]
    for use in ((0,), (1,), (0, 1)):
        ours, theirs = (
            torch.autograd.grad(
                sum((pair[i] * weights[i]).sum() for i in use),
                inputs,
                retain_graph=True,
                materialize_grads=True,
            )
            for pair in ((out, lse), expected)
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


# ---- randomness, shapes, bad input


def test_the_same_seed_gives_the_same_bits() -> None:
    q, k, v = (x.float() for x in parts(200, 200))

    def run(seed: int, **options: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return hyper_attention(
            q, k, v, causal=True, block=8, samples=8, min_seq_len=16, generator=generator, **options
        )

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
    seen = [run(3), run(3, order="released"), run(3, order="random"), run(3, sinks=4)]
    seen.append(run(3, sampling="value-norm"))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_grouped_heads_share_the_keys_of_their_head() -> None:
    """Equal to repeated keys where the plan is equal: one block of everything but the sample."""
    q, k, v = parts(64, 64, heads=6, kv_heads=2)
    options: dict[str, Any] = {"causal": False, "block": 0, "samples": 1 << 20, "min_seq_len": 1}
    grouped = hyper_attention(q, k, v, draw=EveryKeyOnce(), **options)
    repeated = (x.repeat_interleave(3, dim=1) for x in (k, v))
    torch.testing.assert_close(
        grouped, hyper_attention(q, *repeated, draw=EveryKeyOnce(), **options)
    )


def test_half_precision_is_near_the_truth_of_its_own_plan() -> None:
    q, k, v = (x.bfloat16() for x in parts(150, 150, dim=16))
    plan = a_plan(q, k, v, block=8, samples=8, min_seq_len=16)
    out, _ = Union.apply(q, k, v, plan, 0.25, False)
    truth, _ = reference_hyper(q.double(), k.double(), v.double(), plan, 0.25)
    rounding = (truth.bfloat16().double() - truth).abs().mean()
    assert (out.double() - truth).abs().mean() < 2 * rounding + 2e-3


@pytest.mark.parametrize(
    ("queries", "expected"), [(1, True), (15, True), (16, True), (31, True), (32, False)]
)
def test_short_squares_are_exact_whatever_the_settings(queries: int, expected: bool) -> None:
    assert is_exact(queries, queries, Settings(min_seq_len=16)) is expected
    assert is_exact(1, 10_000, Settings(min_seq_len=16))
    assert not is_exact(16, 17, Settings(min_seq_len=16))


def test_levels_halve_until_leaves_are_short() -> None:
    found, leaves, leaf = windows(131_072, 131_072, Settings())
    assert (leaves, leaf) == (32, 4096)
    assert [w.queries for w in found] == [65_536, 32_768, 16_384, 8192, 4096]
    assert [w.pieces for w in found] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lsh_bits": 0}, "lsh_bits from 1 to 12, got lsh_bits=0"),
        ({"block": -1}, "block >= 0, got block=-1"),
        ({"block": 0, "samples": 0}, "block or samples above 0"),
        ({"min_seq_len": 0}, "min_seq_len >= 1"),
        ({"backend": "cuda"}, "auto, torch, triton"),
        ({"backend": "triton"}, "tensors are on cpu"),
    ],
)
def test_bad_settings_say_what_is_wrong(options: dict[str, Any], said: str) -> None:
    q, k, v = (x.float() for x in parts(8, 8))
    with pytest.raises(ConfigError, match=said):
        hyper_attention(q, k, v, causal=True, **options)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hyper:order=sorted", "order='sorted' is not lsh or centred or released or random"),
        ("hyper:sampling=norm", "sampling='norm' is not uniform or value-norm"),
        ("hyper:block=0,samples=0", "block or samples above 0"),
    ],
)
def test_bad_methods_say_what_is_wrong(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_method(spec)


def test_shapes_that_do_not_fit_are_refused() -> None:
    q, k, v = (x.float() for x in parts(8, 8))
    with pytest.raises(ConfigError, match="8 queries for 5 keys"):
        hyper_attention(q, k[:, :, :5], v[:, :, :5], causal=True)
    three = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ConfigError, match="4 query heads are not a multiple of 3"):
        hyper_attention(q, three, three, causal=True)
    with pytest.raises(ConfigError, match="do not fit together"):
        hyper_attention(q[..., :4], k, v, causal=True)


# ---- the kernels, in Triton's interpreter where there is no GPU


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor kernel of the squares, written out."""

    def flash(inputs: Any, scale: float) -> Any:
        leaf = inputs[0].shape[2]
        return leaf_attention(*inputs, 1, leaf, scale)

    def gradients(inputs: Any, out: Any, lse: Any, d_out: Any, plan: Plan, scale: float) -> Any:
        delta = (out.float() * d_out.float()).sum(-1)
        return leaf_gradients(inputs, plan.leaves, plan.leaf, scale, (d_out.float(), lse, delta))

    monkeypatch.setattr(fused, "_flash", flash)
    monkeypatch.setattr(fused, "_flash_gradients", gradients)
    monkeypatch.setattr(fused, "_tile", lambda rows, q: {"BM": 16, "BN": 32})
    monkeypatch.setattr(fused, "_key_tile", lambda q: {"BM": 32, "BN": 16})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves run here")
@pytest.mark.parametrize(
    ("queries", "keys", "causal", "block", "sinks"),
    [
        (67, 67, True, 20, 3),
        pytest.param(64, 83, True, 10, 2, marks=pytest.mark.slow),
        pytest.param(100, 100, False, 0, 5, marks=pytest.mark.slow),
        pytest.param(131, 131, True, 40, 0, marks=pytest.mark.slow),
    ],
)
def test_kernels_equal_plain_pytorch(
    queries: int, keys: int, causal: bool, block: int, sinks: int, stand_ins: None
) -> None:
    pytest.importorskip("triton")
    inputs = [x[:1].float().requires_grad_() for x in parts(queries, keys, dim=16)]
    plan = a_plan(*inputs, causal=causal, block=block, samples=20, min_seq_len=16, sinks=sinks)
    both = [Union.apply(*inputs, plan, 0.3, kernels) for kernels in (False, True)]
    weights = [torch.randn_like(x) for x in both[0]]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for use in ((0,), (0, 1)):
        found = [
            torch.autograd.grad(
                sum((pair[i] * weights[i]).sum() for i in use),
                inputs,
                retain_graph=True,
                materialize_grads=True,
            )
            for pair in both
        ]
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# ---- the count of operations


@pytest.mark.parametrize(
    ("queries", "keys", "options"),
    [
        (512, 512, {"causal": False}),
        (512, 512, {"sinks": 4}),
        (300, 700, {"sinks": 4}),
        (777, 777, {"block": 0}),
        (640, 640, {"samples": 0}),
    ],
)
def test_counted_operations_are_those_that_run(
    queries: int, keys: int, options: dict[str, Any]
) -> None:
    """PyTorch's own counter of operations, over the levels; the squares are a sum of 1 … leaf."""
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = (x[:1].half() for x in parts(queries, keys, dim=16))
    chosen: dict[str, Any] = {"block": 32, "samples": 24, "min_seq_len": 64, **options}
    plan = a_plan(q, k, v, **chosen)
    flat = [x.flatten(0, 2) for x in (q, k, v)]
    out, lse = torch.zeros(len(flat[0]), 16), torch.full((len(flat[0]),), float("-inf"))
    with FlopCounterMode(display=False) as counter:
        for level in plan.levels:
            join_level(level, *flat, 0.25, out, lse)
    made = Settings(**chosen)
    counted = count_pairs(queries, keys, made)
    assert counter.get_total_flops() == 4 * 4 * 16 * (counted.blocks + counted.samples)
    assert counted.exact == plan.leaves * sum(range(1, plan.leaf + 1))
    assert forward_flops(queries, keys, 4, 16, made) == 4 * 4 * 16 * counted.total


def test_operations_grow_almost_linearly() -> None:
    """A text eight times as long costs under 14 times as much, where exact attention takes 64."""
    short, long = (forward_flops(n, n, 32, 64, Settings()) for n in (16_384, 131_072))
    assert long < 14 * short
    dense = 2 * 32 * 64 * 131_072**2
    assert dense > 15 * long
    assert count_pairs(100, 300, Settings()).total == 100 * 200 + sum(range(1, 101))
    assert count_pairs(100, 300, Settings(causal=False)).total == 100 * 300


_COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from unspool.attention.hyper import kernel
from unspool.attention.hyper.fused import _key_tile, _tile

halves, wholes = "Q K V G", "Q_ROWS K_ROWS S_ROWS S_BLOCKS"
floats = "OUT LSE DELTA DQ DK DV S_LOGS"
types = {**dict.fromkeys(halves.split(), "*bf16"), **dict.fromkeys(wholes.split(), "*i32")}
types |= {**dict.fromkeys(floats.split(), "*fp32"), "scale": "fp32"}
for dim in (64, 128):
    q = torch.zeros(1, 1, 1, dim)
    for name in ("delta", "forward", "query", "block_key", "sample_key"):
        made = getattr(kernel, name + "_kernel")
        tile = {"BM": 128} if name == "delta" else _key_tile(q) if "key" in name else _tile(256, q)
        options = {k: tile.pop(k) for k in ("num_warps", "num_stages") if k in tile}
        constants = {"D": dim, **tile}
        signature = {
            n: "constexpr" if n in constants else types.get(n, "i32") for n in made.arg_names
        }
        at = {(made.arg_names.index(n),): value for n, value in constants.items()}
        source = ASTSource(fn=made, signature=signature, constexprs=at)
        triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        print(name, dim)
"""


@pytest.mark.slow
def test_kernels_compile_for_a_hopper_gpu_on_any_machine() -> None:
    pytest.importorskip("triton")
    without = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], env=without, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 20
