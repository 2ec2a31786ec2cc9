"""InfLLM against loops over tokens and heads in float64, and what a memory must keep true."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.extend.conftest import WINDOW, build, left_padded, tokens
from tests.oracles.distances import attention_by_distance
from tests.oracles.infllm import Trace, infllm
from unspool._facts import read_facts
from unspool.attention.call import Call
from unspool.attention.infllm import InfLLM, retrieved
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.caches.memory import MemoryStore
from unspool.errors import BudgetError, ConfigError
from unspool.extension import extend
from unspool.positions.rotation import Rotation

INV_FREQ = torch.tensor([1.0, 0.31, 0.07])
SMALL = {"local": 16, "init": 3, "block": 4, "top_k": 3, "representatives": 2, "exec_block": 8}
SPEC = "infllm:local=16,init=3,block=4,top_k=3,representatives=2,exec_block=8"


def random_qkv(length: int, seed: int = 0) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    q = 1.5 * torch.randn(1, 4, length, 7, generator=generator, dtype=torch.float64)
    k = torch.randn(1, 2, length, 7, generator=generator, dtype=torch.float64)
    v = torch.randn(1, 2, length, 7, generator=generator, dtype=torch.float64)
    return q, k, v


@functools.cache
def facts() -> Any:
    return read_facts(build("llama"))


def resolved(options: dict[str, Any]) -> InfLLM:
    return InfLLM(**options).resolve(facts())


def run(
    options: dict[str, Any],
    q: Any,
    k: Any,
    v: Any,
    cuts: list[int],
    store: MemoryStore | None = None,
    positions: Any = None,
    rotation: Rotation | None = None,
) -> tuple[Any, MemoryStore]:
    """The mechanism over a text that arrives in chunks ending at `cuts`."""
    method = resolved(options)
    attend = method.attend(facts(), 0)
    store = store or method.store(facts(), 0)  # type: ignore[assignment]  # its own kind
    assert isinstance(store, MemoryStore)
    outs, start = [], store.seen
    for end in cuts:
        where = None if positions is None else positions[:, start:end]
        chunk = KV(k[:, :, start:end], v[:, :, start:end], where, start, rotated=False)
        store.update(chunk.k, chunk.v)
        store.meet()
        store.append(chunk)
        call = Call(
            q=q[:, :, start:end],
            k=chunk.k,
            v=chunk.v,
            positions=where,
            start=start,
            spec=Spec(),
            rotate=rotation or Rotation(INV_FREQ),
            store=store,
            phase="prefill",
            layer=0,
            scale=q.shape[-1] ** -0.5,
        )
        outs.append(attend(call))
        store.settle()
        start = end
    return torch.cat(outs, dim=2), store


def loops(
    options: dict[str, Any], q: Any, k: Any, v: Any, cuts: list[int], every: int = 1
) -> Trace:
    plain = {name: value for name, value in options.items() if name in (*SMALL, "score")}
    arrays = (x[0].numpy() for x in (q, k, v))
    return infllm(*arrays, INV_FREQ.numpy().astype(np.float64), **plain, cuts=cuts, every=every)


def check(options: dict[str, Any], length: int, cuts: list[int], seed: int, every: int = 1) -> None:
    q, k, v = random_qkv(length, seed)
    expected = loops(options, q, k, v, cuts, every)
    assert expected.margin > 1e-5, "two blocks tie: take another seed"
    out, store = run({**options, "lookup_every": every}, q, k, v, cuts)
    torch.testing.assert_close(out[0], torch.from_numpy(expected.out), rtol=0, atol=2e-5)
    for met in expected.met:  # every key at most once: what the released code gets wrong
        assert len(set(met)) == len(met)
    last = [tuple(x) for x in store.look_ups()]
    assert last == expected.chosen[len(expected.chosen) - len(last) :]


@pytest.mark.parametrize("score", ["prob", "logit"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"init": 0, "block": 5, "top_k": 1},
        {"exec_block": 16, "representatives": 4},
        {"local": 17, "exec_block": 5, "block": 3, "top_k": 2, "representatives": 1},
        {"block": 1, "representatives": 1, "top_k": 6},
    ],
    ids=["small", "one-block", "large-groups", "odd", "single-tokens"],
)
@pytest.mark.parametrize("length", [1, 17, 61], ids="T{}".format)
def test_it_is_what_the_loops_give(length: int, changes: dict[str, Any], score: str) -> None:
    check({**SMALL, **changes, "score": score}, length, [length], seed=length)


def test_written_tokens_are_what_the_loops_give() -> None:
    check(SMALL, 70, [40, *range(41, 71)], seed=3)


@pytest.mark.parametrize("every", [2, 5])
def test_look_ups_can_be_shared_by_written_tokens(every: int) -> None:
    check(SMALL, 70, [40, *range(41, 71)], seed=4, every=every)


def test_the_window_moves_far_without_losing_exactness() -> None:
    """Past four windows the rotation of the window is counted anew, several times."""
    check({**SMALL, "local": 8}, 150, [90, *range(91, 151)], seed=5)


def test_a_query_that_meets_every_block_meets_everything_at_a_capped_distance() -> None:
    q, k, v = random_qkv(83)
    options = {**SMALL, "top_k": 30}
    out, _ = run(options, q, k, v, [83])
    arrays = (x[0].numpy() for x in (q, k, v))
    expected = attention_by_distance(
        *arrays, INV_FREQ.numpy(), lambda i, j: None if j > i else min(i - j, 15)
    )
    torch.testing.assert_close(out[0], torch.from_numpy(expected), rtol=0, atol=2e-5)


def test_chunks_of_whole_execution_blocks_change_nothing() -> None:
    q, k, v = random_qkv(99)
    whole, _ = run(SMALL, q, k, v, [99])
    for step in (8, 16, 40):
        chunked, _ = run(SMALL, q, k, v, [*range(step, 99, step), 99])
        torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-9)


def test_padded_rows_equal_single_runs_in_one_pass_and_while_writing() -> None:
    lengths = (90, 61, 90, 37, 1)
    texts = [random_qkv(length, seed) for seed, length in enumerate(lengths)]
    together = [torch.zeros(5, h, 90, 7, dtype=torch.float64) for h in (4, 2, 2)]
    positions = torch.full((5, 90), -1)
    for row, (length, text) in enumerate(zip(lengths, texts, strict=True)):
        positions[row, 90 - length :] = torch.arange(length)
        for x, part in zip(together, text, strict=True):
            x[row, :, 90 - length :] = part[0]
    cuts = [80, *range(81, 91)]
    out, store = run(SMALL, *together, cuts, positions=positions)
    assert sorted(lane.rows for lane in store.lanes) == [[0, 2], [1], [3], [4]]
    for row, (length, text) in enumerate(zip(lengths, texts, strict=True)):
        own = [cut - 90 + length for cut in cuts if cut - 90 + length > 0]
        alone, single = run(SMALL, *text, own)
        torch.testing.assert_close(out[row, :, 90 - length :], alone[0], rtol=0, atol=1e-9)
        assert store.look_ups(row) == single.look_ups()
        assert not out[row, :, : 90 - length].any()


def test_a_planted_key_is_found_wherever_it_lies() -> None:
    """One key in the direction of the question: its block is among those met, and its value is the
    answer; without a look-up it would be out of reach."""
    rotation = Rotation(INV_FREQ)
    for place in (20, 55, 90):
        q, k, v = random_qkv(160, seed=place)
        asked = rotation.at_one(q, 15)[0, :, 152:].mean(1)  # of the last execution block
        q[0, :, 152:] = q[0, :, 152:].mean(1, keepdim=True)
        for head in range(2):
            k[0, head, place] = 12 * asked[2 * head] / asked[2 * head].norm()
        q[0, :, place : place + 16] += 0  # nobody else asks for it
        _, store = run(SMALL, q, k, v, [160])
        (last,) = store.look_ups()
        spans = [store.span(block) for block in last.blocks]
        assert any(start <= place < end for start, end in spans), place


def test_faiss_finds_the_same_blocks() -> None:
    pytest.importorskip("faiss")
    q, k, v = random_qkv(130)
    exact, one = run(SMALL, q, k, v, [80, *range(81, 131)])
    flat, two = run({**SMALL, "index": "faiss"}, q, k, v, [80, *range(81, 131)])
    assert one.look_ups() == two.look_ups()
    torch.testing.assert_close(flat, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("policy", ["lru", "lru-s"])
def test_where_blocks_lie_changes_no_bit(tmp_path: Path, policy: str) -> None:
    q, k, v = random_qkv(130)
    cuts = [80, *range(81, 131)]
    options = {**SMALL, "policy": policy, "resident_blocks": 4}
    expected, memory = run({**options, "offload": "cpu"}, q, k, v, cuts)
    for place in ("none", str(tmp_path)):
        out, store = run({**options, "offload": place}, q, k, v, cuts)
        assert torch.equal(out, expected)
    assert store.counts()["misses"] > 0
    assert store.counts()["hits"] > 0
    blocks = memory.counts()["blocks"]
    assert blocks == store.counts()["blocks"] == (130 - 16 - 3) // 4
    slabs = -(-blocks // 16) * 16 * 4 * 2 * 2 * 7 * 8  # tokens, heads, k and v, channels, bytes
    assert memory.report().bytes_host == slabs
    assert store.report().bytes_disk == slabs
    assert memory.report().bytes_disk == store.report().bytes_host == 0


def test_tokens_are_attended_or_stored_and_never_dropped() -> None:
    q, k, v = random_qkv(100)
    _, store = run(SMALL, q, k, v, [100])
    report = store.report()
    assert (report.seen, report.dropped) == (100, 0)
    assert report.attended == 3 + 3 * 4 + 17  # first tokens, blocks at hand, window
    assert report.stored == 100 - report.attended


def test_a_fork_shares_its_blocks_and_goes_its_own_way() -> None:
    q, k, v = random_qkv(140)
    _, store = run(SMALL, q, k, v, [100])
    fork = store.copy()
    assert fork.lanes[0].blocks[0][0].slab is store.lanes[0].blocks[0][0].slab
    other = [x.clone() for x in (q, k, v)]
    for x in other:
        x[:, :, 100:] = x[:, :, 100:].flip(2)
    run(SMALL, *other, [140], store=fork)  # writes blocks of its own
    after, _ = run(SMALL, q, k, v, [140], store=store)
    expected, _ = run(SMALL, q, k, v, [100, 140])
    assert torch.equal(after, expected[:, :, 100:])


def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    q, k, v = random_qkv(150)
    for place in ("cpu", str(tmp_path)):
        options = {**SMALL, "offload": place}
        _, store = run(options, q, k, v, [100, 101, 102])
        state = {name: value.clone() for name, value in store.state().items()}
        expected, _ = run(options, q, k, v, [103, 140, 150], store=store)
        again = resolved(options).store(facts(), 0)
        again.load_state(state)
        assert isinstance(again, MemoryStore)
        out, _ = run(options, q, k, v, [103, 140, 150], store=again)
        assert torch.equal(out, expected)


def test_rows_can_be_repeated_reordered_and_selected() -> None:
    texts = [random_qkv(120, seed) for seed in (1, 2)]
    q, k, v = (torch.cat(parts) for parts in zip(*texts, strict=True))
    _, store = run(SMALL, q, k, v, [90])
    store.batch_repeat_interleave(2)
    store.reorder_cache(torch.tensor([3, 0, 1, 2]))
    store.batch_select_indices(torch.tensor([0, 1]))
    order = [1, 0]
    swapped = [x[order] for x in (q, k, v)]
    out, _ = run(SMALL, *swapped, [120], store=store)
    expected, _ = run(SMALL, *swapped, [90, 120])
    torch.testing.assert_close(out, expected[:, :, 90:], rtol=0, atol=1e-9)


def test_another_frequency_turns_the_window_anew() -> None:
    q, k, v = random_qkv(60)
    stretched = Rotation(INV_FREQ / 2)
    options = {**SMALL, "top_k": 20}  # every block is met: the choice does not differ
    _, store = run(options, q, k, v, [40])
    out, _ = run(options, q, k, v, [48], store=store, rotation=stretched)
    same, _ = run(options, q, k, v, [40, 48], rotation=stretched)
    _, fresh = run(options, q, k, v, [40])
    unturned, _ = run(options, q, k, v, [48], store=fresh)
    torch.testing.assert_close(out, same[:, :, 40:], rtol=0, atol=1e-6)
    assert not torch.allclose(out, unturned, atol=1e-3)


def test_an_attention_factor_reaches_far_keys_too() -> None:
    q, k, v = random_qkv(83)
    factor = 1.3
    out, _ = run({**SMALL, "top_k": 30}, q, k, v, [83], rotation=Rotation(INV_FREQ, factor))
    scaled = q.clone()
    scaled[..., :6] *= factor**2
    expected, _ = run({**SMALL, "top_k": 30}, scaled, k, v, [83])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_retrieved_spans_name_positions_of_the_text() -> None:
    model = build("llama")
    with extend(model, SPEC) as ext:
        cache = ext.new_cache()
        model.generate(tokens(1, 120), past_key_values=cache, max_new_tokens=4, do_sample=False)
        found = retrieved(cache)
    assert [x.position for x in found] == [119, 120, 121, 122]
    for entry in found:
        assert sum(entry.spans.values()) == 3 * 3  # blocks met, in three layers
        for start, end in entry.spans:
            assert (start - 3) % 4 == 0
            assert end == start + 4
            assert end <= entry.position - 15


def test_a_batch_with_padding_and_beams_generates_as_alone() -> None:
    model = build("qwen3")
    ids, mask = left_padded([110, 64])
    options: dict[str, Any] = {
        "max_new_tokens": 6, "do_sample": False, "num_beams": 2, "pad_token_id": 0
    }  # fmt: skip
    with extend(model, SPEC):
        together = model.generate(ids, attention_mask=mask, **options)
        for row, length in enumerate((110, 64)):
            alone = model.generate(ids[row : row + 1, -length:], **options)
            assert together[row, -6:].tolist() == alone[0, -6:].tolist()


def test_half_precision_past_the_window_is_no_worse_than_products_in_it() -> None:
    q, k, v = random_qkv(240)  # every block is met, so that rounding changes no choice
    options = {**SMALL, "local": 128, "block": 16, "exec_block": 64, "top_k": 7}
    truth, _ = run(options, q, k, v, [240])
    half = [x.bfloat16() for x in (q, k, v)]
    rounded, _ = run(options, *(x.double() for x in half), [240])
    out, _ = run(options, *half, [240])
    ours = (out.double() - truth).abs().mean()
    inputs = (rounded - truth).abs().mean()  # what rounding the inputs alone costs
    assert ours <= 2 * inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local": 16, "block": 8, "exec_block": 17}, "exec_block <= local"),
        ({"local": 16, "block": 17}, "block <= local"),
        ({"block": 4, "representatives": 5}, "representatives=5"),
        ({"top_k": 40, "resident_blocks": 32}, "resident_blocks >= top_k"),
        ({"block": 0}, "block >= 1"),
        ({"init": -1}, "init >= 0"),
        ({"decay": 1.5}, "decay"),
        ({"lookup_every": 0}, "lookup_every >= 1"),
        ({"offload": "/no/such/folder"}, "existing folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InfLLM(**options)


def test_more_tokens_than_were_trained_on_are_refused_or_warned_of() -> None:
    assert facts().window == WINDOW == 256
    with pytest.raises(ConfigError, match="fewer or smaller blocks"):
        InfLLM(local=64, block=16, top_k=16).resolve(facts())
    with pytest.warns(UserWarning, match="264 tokens to attend to"):
        InfLLM(local=192, init=8, block=16, top_k=4).resolve(facts())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InfLLM(local=128, init=8, block=16).resolve(facts())


def test_defaults_are_those_of_the_paper_for_a_window_of_8192() -> None:
    wide = read_facts(build("llama", 8192))
    method = InfLLM().resolve(wide)
    assert (method.local, method.init, method.top_k, method.exec_block) == (4096, 128, 16, 512)
    assert method.prefill_chunk(wide) % 512 == 0


def test_sliding_layers_and_masks_are_refused() -> None:
    with (
        extend(build("gemma3"), SPEC + ",layers=all"),
        pytest.raises(ConfigError, match="layers=full"),
    ):
        build("gemma3").generate(tokens(1, 40), max_new_tokens=2)


def test_what_memory_cannot_hold_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import unspool.attention.infllm as module

    monkeypatch.setattr(module, "room_for", lambda place, device: 100_000)
    model = build("llama")
    with extend(model, SPEC) as ext:
        model.generate(tokens(1, 60), max_new_tokens=2)
        with pytest.raises(BudgetError, match="offload="):
            model.generate(tokens(1, 4000), max_new_tokens=2)
        with pytest.raises(BudgetError, match="4,000 tokens"):
            ext.stream().feed(tokens(1, 4000)[0].tolist())
