"""HiP attention against plain loops, exact limits, planted scores and counted operations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.oracles import hip as oracle
from unspool.attention.controls import BestChoice, RandomChoice
from unspool.attention.hip import hip_attention, tree_search
from unspool.attention.hip.count import hip_cost
from unspool.attention.hip.functional import scaled_stages
from unspool.attention.hip.gathered import gathered_attend
from unspool.attention.hip.layout import BlockLayout
from unspool.attention.hip.search import TreeSearch
from unspool.attention.hip.sparse import Blocks
from unspool.attention.hip.stages import Stage, StagedSearch
from unspool.attention.hip.union import block_mask, share_heads
from unspool.errors import ConfigError

SMALL = {"k_tokens": 8, "block_q": 8, "block_k": 2, "window": 12, "sink": 4, "stride": 2}


def make(num_queries: int, num_keys: int, heads: tuple[int, int] = (2, 1), seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int, length: int) -> torch.Tensor:
        return torch.randn(2, n, length, 8, generator=generator, dtype=torch.float64)

    return draw(heads[0], num_queries), draw(heads[1], num_keys), draw(heads[1], num_keys)


def integers(num_queries: int, num_keys: int, seed: int) -> Any:
    """Small whole numbers: scores are exact and often equal."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-2, 3, (1, 2, num_queries, 4), generator=generator)
    k = torch.randint(-2, 3, (1, 1, num_keys, 4), generator=generator)
    return q.float(), k.float()


@given(
    num_keys=st.integers(1, 150),
    num_queries=st.integers(1, 40),
    kept=st.integers(1, 9),
    size=st.sampled_from([1, 2, 3]),
    block_q=st.sampled_from([1, 8, 13]),
    stands=st.sampled_from(["first", "center", "last"]),
    window=st.integers(0, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_the_search_equals_a_plain_loop_ties_included(
    num_keys: int, num_queries: int, kept: int, size: int, block_q: int, stands: Any, window: int,
    seed: int,
) -> None:  # fmt: skip
    num_queries = min(num_queries, num_keys)
    q, k = integers(num_queries, num_keys, seed)
    sizes = {"k_tokens": kept * size, "block_q": block_q, "block_k": size, "sink": size}
    layout = BlockLayout(**sizes, window=window, stride=2).rounded(say=False)
    frame = layout.frame(num_queries, num_keys)
    found = tree_search(q, k, frame, representative=stands, backend="torch")
    dense = block_mask(found, frame).dense(num_queries + frame.lead, num_keys)[:, :, frame.lead :]
    ahead = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    for head in range(2):
        seen = oracle.met(
            q[0, head].numpy(), k[0, 0].numpy(), **sizes, window=layout.window, stride=2,
            stands=stands,
        )  # fmt: skip
        assert np.array_equal((dense[0, head] & ahead).numpy(), seen)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 61), (40, 131), (131, 131), (7, 64)])
@pytest.mark.parametrize("softcap", [None, 3.0], ids=["plain", "capped"])
def test_attention_equals_loops_in_float64(
    num_queries: int, num_keys: int, softcap: float | None
) -> None:
    q, k, v = make(num_queries, num_keys, (4, 2))
    out = hip_attention(q, k, v, **SMALL, softcap=softcap)
    sizes = {**SMALL, "block_q": 1} if num_queries == 1 else SMALL
    for row in range(2):
        for head in range(4):
            one = [x[row, h].numpy() for x, h in ((q, head), (k, head // 2), (v, head // 2))]
            seen = oracle.met(one[0], one[1], **sizes)
            expected = oracle.attend(*one, seen, 8**-0.5, softcap)
            np.testing.assert_allclose(out[row, head].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "backend", ["native", "reference", pytest.param("triton", marks=pytest.mark.slow)]
)
def test_every_back_end_reads_the_lists(backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    q, k, v = (x.float() for x in make(70, 150, (4, 2)))
    sizes = {**SMALL, "block_q": 32, "window": 16}
    expected = hip_attention(q, k, v, **sizes, backend="gathered")
    out = hip_attention(q, k, v, **sizes, backend=backend)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["tree", "multistage"])
def test_as_many_keys_as_there_are_is_dense_attention(variant: Any) -> None:
    q, k, v = make(97, 97)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    out = hip_attention(q, k, v, k_tokens=104, variant=variant, block_q=16)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    last = hip_attention(q[:, :, -1:], k, v, k_tokens=104, variant=variant)
    torch.testing.assert_close(last, expected[:, :, -1:], rtol=0, atol=1e-12)


def test_no_kept_keys_is_sinks_and_a_window() -> None:
    q, k, v = make(70, 70)
    out = hip_attention(q, k, v, **{**SMALL, "k_tokens": 0})
    seen = np.zeros((70, 70), dtype=bool)
    for i in range(70):
        last = min(i // 8 * 8 + 7, 69)
        for j in range(i + 1):
            seen[i, j] = j < 4 or j >= (last + 1 - 12) // 2 * 2
    mask = torch.from_numpy(seen)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def planted(worth: Any) -> Any:
    """A query and keys whose products are the given numbers, two keys a block."""
    k = torch.tensor(worth, dtype=torch.float64).repeat_interleave(2)[None, None, :, None]
    tail = torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    return torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.cat((k, tail), dim=2)


@given(
    count=st.integers(20, 700), peak=st.floats(0, 1), stands=st.sampled_from(["first", "center"])
)
@settings(max_examples=25, deadline=None)
def test_a_single_peak_is_found_but_for_its_rim(count: int, peak: float, stands: Any) -> None:
    """Of the 16 best blocks at least 14: where groups of one and two blocks meet, the rim of the
    peak may be hidden behind a worse neighbour that stands for it."""
    top = peak * (count - 1)
    worth = [-abs(i - top) for i in range(count)]
    q, k = planted(worth)
    layout = BlockLayout(k_tokens=32, block_k=2, block_q=1, window=0, sink=0)
    found = tree_search(q, k, layout.frame(1, len(k[0, 0])), representative=stands)
    best = sorted(range(count), key=lambda i: -worth[i])[:16]
    assert len(set(found[0, 0, 0].tolist()) & set(best)) >= 14


@pytest.mark.parametrize("count", [100, 150, 333, 1000, 1535])
@pytest.mark.parametrize("peak", [0, 3, 47, 99])
def test_planted_peaks_are_found_exactly(count: int, peak: int) -> None:
    worth = [-abs(i - peak) - 0.25 * (i > peak) for i in range(count)]
    q, k = planted(worth)
    layout = BlockLayout(k_tokens=32, block_k=2, block_q=1, window=0, sink=0)
    found = tree_search(q, k, layout.frame(1, len(k[0, 0])))
    best = sorted(range(count), key=lambda i: -worth[i])[:16]
    assert found[0, 0, 0].tolist() == sorted(best)


def test_every_position_is_reachable() -> None:
    """Keys that turn slowly: the query that points at a key finds it, wherever it is."""
    count, layout = 257, BlockLayout(k_tokens=16, block_k=2, block_q=1, window=0, sink=0)
    turn = torch.arange(2 * count, dtype=torch.float64) * math.pi / (2 * count)
    k = torch.stack((turn.cos(), turn.sin()), dim=-1)[None, None]
    q = k.transpose(0, 2)[:-2]  # one query a key, each its own batch row
    frame = layout.frame(1, 2 * count)
    found = tree_search(q, k.expand(len(q), -1, -1, -1), frame)[:, 0, 0]
    wanted = torch.arange(len(q)) // 2
    assert (found == wanted[:, None]).any(-1).all()


@pytest.mark.parametrize("variant", ["tree", "multistage"])
def test_spikes_between_dissimilar_keys_are_not_always_found(variant: Any) -> None:
    """What a search rests on: without likeness of neighbours it can miss the best key."""
    generator = torch.Generator().manual_seed(0)
    q = torch.zeros(40, 1, 1, 8).index_fill_(3, torch.tensor([0]), 1.0)
    k = 0.1 * torch.randn(40, 1, 2000, 8, generator=generator)
    at = torch.randint(32, 1500, (40,), generator=generator)
    k[torch.arange(40), 0, at, 0] = 5.0
    result = hip_attention(
        q, k, k, k_tokens=64, window=128, sink=8, variant=variant, return_mask=True
    )
    seen = result.mask.dense(1, 2000)[:, 0, 0]
    recall = float(seen[torch.arange(40), at].float().mean())
    assert recall < 0.9


@pytest.mark.parametrize("share", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("variant", ["tree", "multistage"])
def test_written_tokens_equal_a_longer_reading(variant: str, share: bool) -> None:
    q, k, v = make(150, 150, (4, 2))
    tree = variant == "tree"
    layout = BlockLayout(
        k_tokens=16, block_q=1, block_k=2 if tree else 8, window=16, sink=8, stride=2
    )
    search = TreeSearch(refresh=(1,)) if tree else StagedSearch(scaled_stages(16, (1, 1, 1)))
    blocks = Blocks(layout, search, share=share)
    expected = blocks.read(q, k, v, 0.3)
    last, outs = None, []
    for end in range(120, 151):
        out, last = blocks.write(q[:, :, end - 1 : end], k[:, :, :end], v[:, :, :end], 0.3, last)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), expected[:, :, 119:], rtol=0, atol=1e-12)


def test_coarse_stages_are_kept_longer_than_fine_ones() -> None:
    q, k, v = make(200, 200)
    layout = BlockLayout(k_tokens=16, block_q=1, block_k=8, window=16, sink=8, stride=2)
    blocks = Blocks(layout, StagedSearch(scaled_stages(16, (4, 2, 1))))
    last, trails, nears = None, [], []
    for end in range(190, 199):
        _, last = blocks.write(q[:, :, end - 1 : end], k[:, :, :end], v[:, :, :end], 0.3, last)
        assert last is not None
        trails.append(last.trail)
        nears.append(last.near)
    assert [
        trails[i][0].data_ptr() == trails[i - 1][0].data_ptr() for i in range(1, 9)
    ] == [
        True, True, True, False, True, True, True, False
    ]  # fmt: skip
    assert len(set(nears[:4])) == 1  # the range of the coarsest stage still in use
    assert nears[4] > nears[3]


def test_a_choice_is_kept_until_it_is_due_and_leaves_no_gap() -> None:
    q, k, v = make(140, 140)
    last, masks = None, []
    for end in range(120, 132):
        result = hip_attention(
            q[:, :, end - 1 : end], k[:, :, :end], v[:, :, :end], **SMALL, refresh=4, last=last,
            return_mask=True,
        )  # fmt: skip
        last = result.choice
        masks.append(result.mask.dense(1, end)[:, :, 0])
        seen = masks[-1]
        begin = masks[len(masks) // 4 * 4 - 4 if len(masks) % 4 == 0 else len(masks) // 4 * 4]
        assert torch.equal(seen[..., : begin.shape[-1]], begin)  # the same choice, four times
        assert seen[..., end - 12 :].all()
        expected = torch.nn.functional.scaled_dot_product_attention(
            q[:, :, end - 1 : end], k[:, :, :end], v[:, :, :end], attn_mask=seen[:, :, None],
            enable_gqa=True,
        )  # fmt: skip
        torch.testing.assert_close(result.out, expected, rtol=0, atol=1e-12)
    assert not torch.equal(masks[3][..., :100], masks[4][..., :100])


def test_stages_keep_the_best_chunks() -> None:
    """Without descents (chunks of one key) a stage is a plain choice of the best keys."""
    q, k, _ = make(30, 90)
    search = StagedSearch((Stage(chunk=1, keep=7, stride=1),))
    layout = BlockLayout(k_tokens=7, block_k=1, block_q=8, window=8, sink=3, stride=1)
    frame = layout.frame(30, 90)
    found = search(q, k, frame, 1.0)[-1]
    for block in range(frame.num_blocks):
        first, last, near = (int(x[block]) for x in (frame.first, frame.last, frame.near))
        for row in range(2):
            for head in range(2):
                asked = q[row, head, first - 60 : last + 1 - 60]
                worth = (asked @ k[row, 0, 3:near].T).amax(0)
                best = (worth.topk(7).indices + 3).sort().values
                assert found[row, head, block].tolist() == best.tolist()


def test_a_descent_follows_the_better_half() -> None:
    worth = torch.tensor([0, 5, 1, 2, 3, 4, 9, 6, 8, 7, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    k, q = worth[None, None, :, None], torch.ones(1, 1, 1, 1, dtype=torch.float64)
    layout = BlockLayout(k_tokens=8, block_k=8, block_q=1, window=0, sink=0)
    q1 = torch.cat((k, torch.zeros(1, 1, 8, 1, dtype=torch.float64)), dim=2)
    search = StagedSearch((Stage(chunk=8, keep=8),))
    # keys 0 -> 4 -> 6 in the first chunk: 9; keys 8 … in the second: 8.
    assert search(q, q1, layout.frame(1, 24), 1.0)[-1].flatten().tolist() == [0]


def test_shared_heads_meet_the_union() -> None:
    chosen = torch.tensor([[[[1, 4, -1]], [[2, 4, 7]], [[3, -1, -1]], [[3, -1, -1]]]]).int()
    shared = share_heads(chosen, 2)
    assert shared.tolist() == [[[[1, 2, 4, 7]], [[3, -1, -1, -1]]]]


def test_heads_that_share_choices_meet_the_same_keys() -> None:
    q, k, v = make(40, 130, (4, 2))
    result = hip_attention(q, k, v, **SMALL, share_heads=True, return_mask=True)
    alone = hip_attention(q, k, v, **SMALL, return_mask=True)
    lead = result.lead
    union = result.mask.dense(40 + lead, 130)[:, :, lead:]
    each = alone.mask.dense(40 + lead, 130)[:, :, lead:].unflatten(1, (2, 2))
    assert torch.equal(union, each.any(2))
    ahead = torch.ones(40, 130, dtype=torch.bool).tril(90)
    seen = union.repeat_interleave(2, 1) & ahead
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, enable_gqa=True
    )
    torch.testing.assert_close(result.out, expected, rtol=0, atol=1e-12)


def test_documents_of_a_packed_row_do_not_meet() -> None:
    q, k, v = (x[:1] for x in make(100, 100))
    edges = torch.tensor([0, 40, 41, 93])
    out = hip_attention(q, k, v, **SMALL, cu_seqlens=edges)
    for a, b in ((0, 40), (40, 41), (41, 93)):
        alone = hip_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], **SMALL)
        torch.testing.assert_close(out[:, :, a:b], alone, rtol=0, atol=0)
    assert (out[:, :, 93:] == 0).all()


def test_without_causality_the_whole_text_is_searched() -> None:
    q, k, v = make(20, 75)
    result = hip_attention(q, k, v, **SMALL, causal=False, return_mask=True)
    seen = result.mask.dense(24, 75)[:, :, :20]
    assert seen[..., :4].all()
    assert seen[..., 74].all()  # the last, short block
    assert (seen.sum(-1) == 4 + 8 + 1).all()
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, enable_gqa=True
    )
    torch.testing.assert_close(result.out, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_gradients_pass_through_the_attention() -> None:
    sizes = {**SMALL, "k_tokens": 4, "block_q": 4, "window": 4, "sink": 2}
    q, k, v = (x[:1, :, :, :3].clone().requires_grad_() for x in make(5, 19))
    assert torch.autograd.gradcheck(lambda *x: hip_attention(*x, **sizes), (q, k, v))


@pytest.mark.parametrize("num_keys", [999, 4000])
def test_counted_operations_are_those_that_run(num_keys: int) -> None:
    layout = BlockLayout(k_tokens=32, block_q=16, block_k=2, window=48, sink=8, stride=2)
    q, k, v = make(33, num_keys)  # blocks with equally many rounds
    q = q[:, :, -(32 + (num_keys % 16)) :]
    frame = layout.frame(q.shape[2], num_keys)
    with FlopCounterMode(display=False) as counter:
        chosen = tree_search(q, k, frame, backend="torch")
    heads = q.shape[0] * q.shape[1]
    counted = hip_cost(q.shape[2], num_keys, layout, 8)
    assert counter.get_total_flops() == heads * counted.search
    rows = torch.nn.functional.pad(q, (0, 0, frame.lead, 0))
    with FlopCounterMode(display=False) as counter:
        gathered_attend(rows, k, v, block_mask(chosen, frame), scale=1.0)
    # Lists are padded to the longest, blocks of queries to whole ones.
    assert counted.attend <= counter.get_total_flops() / heads <= 1.6 * counted.attend


def test_operations_grow_as_t_log_t() -> None:
    lengths = (1 << 14, 1 << 16, 1 << 18)
    costs = [hip_cost(n, n, BlockLayout(), 64) for n in lengths]
    for small, large in itertools.pairwise(costs):
        assert 4 < large.search / small.search < 4 * 1.55  # four times T, and a log
        assert 3.9 < large.attend / small.attend < 4.1
        assert large.dense / small.dense > 15
    each = [cost.search / (n * math.log2(n / 512)) for cost, n in zip(costs, lengths, strict=True)]
    assert max(each) / min(each) < 1.15


def test_the_loop_looks_at_as_many_blocks_as_are_counted() -> None:
    layout = BlockLayout(k_tokens=32, block_q=1, block_k=2, window=16, sink=8, stride=1)
    for num_keys in (150, 700, 1500):
        frame = layout.frame(1, num_keys)
        near = int(frame.near)
        keys = np.random.default_rng(0).standard_normal((num_keys, 4))
        _, looked = oracle.search([keys[-1]], keys, frame.low, near, 16, 2)
        counted = hip_cost(1, num_keys, layout, 4).search // (2 * 4 * 2)
        assert counted * 0.9 <= looked <= counted  # halves without blocks are not looked at


def test_the_best_blocks_hold_most_of_the_attention() -> None:
    """The controls bracket the search, and the oracle agrees with sorting."""
    generator = torch.Generator().manual_seed(3)
    smooth = torch.randn(1, 1, 600, 8, generator=generator).cumsum(2) * 0.3
    q = smooth.flip(2)[:, :, :64]
    layout = BlockLayout(k_tokens=32, block_q=16, block_k=2, window=16, sink=4)
    frame = layout.frame(64, 600)
    best = BestChoice()(q, smooth, frame, 1.0)[-1]
    tree = tree_search(q, smooth, frame)
    drawn = RandomChoice(0)(q, smooth, frame, 1.0)[-1]
    p = torch.softmax(
        (q @ smooth.transpose(-1, -2)).masked_fill(
            ~torch.ones(64, 600, dtype=torch.bool).tril(536), float("-inf")
        ),
        dim=-1,
    )
    held = []
    for chosen in (drawn, tree, best):
        seen = block_mask(chosen, frame).dense(64 + frame.lead, 600)[:, :, frame.lead :]
        held.append(float((p * seen).sum() / p.sum()))
    assert held[0] < held[1] <= held[2] + 1e-6


def test_random_blocks_do_not_depend_on_the_cut() -> None:
    q, k, v = make(128, 128)
    layout = BlockLayout(**SMALL)
    blocks = Blocks(layout, RandomChoice(seed=5, layer=2))
    whole = blocks.read(q, k, v, 0.5)
    cuts = ((0, 48), (48, 128))
    parts = [blocks.read(q[:, :, a:b], k[:, :, :b], v[:, :, :b], 0.5) for a, b in cuts]
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=1e-12)
    other = Blocks(layout, RandomChoice(seed=6, layer=2)).read(q, k, v, 0.5)
    assert not torch.equal(other, whole)


@pytest.mark.parametrize("chooser", [RandomChoice(), BestChoice()], ids=["random", "best"])
def test_controls_keep_as_many_blocks_as_the_search(chooser: Any) -> None:
    q, k, _ = make(40, 200)
    frame = BlockLayout(**SMALL).frame(40, 200)
    found = chooser(q, k, frame, 1.0)[-1]
    assert found.shape == tree_search(q, k, frame).shape
    assert (found >= frame.low).all()
    assert (found.diff(dim=-1) > 0).all()
    assert (found < frame.near[:, None]).all()


def test_sizes_are_rounded_up_with_a_word() -> None:
    q, k, v = make(10, 50)
    with pytest.warns(UserWarning, match="window=12"):
        odd = hip_attention(q, k, v, **{**SMALL, "window": 11})
    torch.testing.assert_close(odd, hip_attention(q, k, v, **SMALL), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"k_tokens": -1}, "k_tokens=-1"),
        ({"block_q": 0}, "block_q=0"),
        ({"refresh": 0}, "refresh >= 1"),
        ({"cu_seqlens": torch.tensor([0, 99])}, "at most 30"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_bad_settings_are_named(wrong: dict[str, Any], said: str) -> None:
    q, k, v = make(30, 30)
    with pytest.raises(ConfigError, match=said):
        hip_attention(q, k, v, **{**SMALL, **wrong})


def test_stages_must_fit_into_each_other() -> None:
    with pytest.raises(ConfigError, match="divide"):
        StagedSearch((Stage(chunk=24, keep=48), Stage(chunk=16, keep=32)))
    with pytest.raises(ConfigError, match="power of two"):
        StagedSearch((Stage(chunk=12, keep=24),))
