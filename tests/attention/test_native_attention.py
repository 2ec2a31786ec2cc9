"""The native back-end on tensors: layouts, half precision, gradients, choice, interruption."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles import listed
from unspool import _native
from unspool.attention import attend, merge, native
from unspool.attention.backends import BACKENDS, choose
from unspool.attention.blocks import BlockMask
from unspool.attention.spec import Spec
from unspool.errors import ConfigError


@pytest.fixture(params=["", "avx512", "avx2", "portable"])
def _each_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    best = ("portable", "avx2", "avx512", "avx512_bf16").index(_native.attention_kernels())
    if request.param and best <= ("portable", "avx2", "avx512").index(request.param):
        pytest.skip("tried as the best of this processor, or not its own")
    monkeypatch.setattr(native, "_kernels", request.param)


def _inputs(heads: int, kv: int, t: int, s: int, d: int, **more: Any) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(t + s)
    return tuple(
        torch.randn(2, h, n, d, generator=generator, **more)
        for h, n in ((heads, t), (kv, s), (kv, s))
    )


def _blocks(t: int, s: int, heads: int, block_q: int, block_k: int) -> BlockMask:
    generator = torch.Generator().manual_seed(block_k)
    met = torch.rand(heads, -(-t // block_q), -(-s // block_k), generator=generator) < 0.4
    return BlockMask.from_dense(met, block_q=block_q, block_k=block_k)


def _seen(spec: Spec, heads: int, t: int, s: int) -> Any:
    """bool [2, Hq, T, S] by the loops of the oracle."""
    blocks = spec.blocks
    rules = {"causal": spec.causal, "window": spec.window, "sinks": spec.sinks}
    if blocks is None:
        return np.broadcast_to(listed.seen(t, s, **rules), (2, heads, t, s))
    each = []
    for lists, counts in zip(blocks.indices[0], blocks.counts[0], strict=True):
        own = [row[:n].tolist() for row, n in zip(lists, counts, strict=True)]
        sizes = {"block_q": blocks.block_q, "block_k": blocks.block_k}
        each.append(listed.seen(t, s, **rules, lists=own, **sizes))
    return np.repeat(np.array(each)[None], 2, 0).repeat(heads // len(each), 1)


SPECS: dict[str, Callable[[int, int], Spec]] = {
    "causal": lambda t, s: Spec(),
    "window": lambda t, s: Spec(window=20, sinks=2),
    "blocks": lambda t, s: Spec(blocks=_blocks(t, s, 1, 64, 64)),
    "pairs": lambda t, s: Spec(blocks=_blocks(t, s, 6, 64, 2)),
    "kept": lambda t, s: Spec(
        causal=False, blocks=BlockMask.kept(torch.tensor([[[5, 1, -1, s - 1], [0, -1, -1, -1]]]))
    ),
}


@pytest.mark.usefixtures("_each_kernel")
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("t", "s"), [(1, 77), (65, 130)])
def test_output_and_gradients(name: str, t: int, s: int) -> None:
    q, k, v = (x.requires_grad_() for x in _inputs(6, 2, t, s, 24))
    spec = SPECS[name](t, s)
    mask = _seen(spec, 6, t, s)
    out, lse = attend(q, k, v, spec=spec, return_lse=True, backend="native")
    arrays = [x.detach().double().numpy() for x in (q, k, v)]
    expected, expected_lse = listed.attention(*arrays, mask, 24**-0.5)
    np.testing.assert_allclose(out.detach(), expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(lse.detach(), expected_lse, rtol=1e-5, atol=5e-6)

    d_out, d_lse = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad([out, lse], [q, k, v], [d_out, d_lse])
    truth = listed.gradients(*arrays, mask, 24**-0.5, d_out.double().numpy(), d_lse.numpy())
    for one, other in zip(found, truth, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5 * abs(other).max())


@pytest.mark.usefixtures("_each_kernel")
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("t", "s", "d"), [(1, 77, 24), (65, 130, 24), (65, 130, 23)])
def test_half_precision_errs_no_more_than_written_out(name: str, t: int, s: int, d: int) -> None:
    q, k, v = (x.bfloat16().requires_grad_() for x in _inputs(6, 2, t, s, d))
    spec = SPECS[name](t, s)
    mask = _seen(spec, 6, t, s)
    d_out = torch.randn(2, 6, t, d).bfloat16()
    arrays = [x.detach().double().numpy() for x in (q, k, v)]
    truth = (
        listed.attention(*arrays, mask, d**-0.5)[0],
        *listed.gradients(*arrays, mask, d**-0.5, d_out.double().numpy(), np.zeros((2, 6, t))),
    )

    def results(out: Tensor) -> tuple[Tensor, ...]:
        return (out, *torch.autograd.grad(out, [q, k, v], d_out))

    keys, values = (x.repeat_interleave(3, 1) for x in (k, v))
    scores = (q @ keys.transpose(-1, -2) * d**-0.5).masked_fill(
        ~torch.from_numpy(np.ascontiguousarray(mask)), float("-inf")
    )
    weights = torch.softmax(scores, -1).nan_to_num()
    plain = results(weights @ values)
    found = results(attend(q, k, v, spec=spec, backend="native"))
    for one, other, right in zip(found, plain, truth, strict=True):
        error, allowed = (np.nanmax(abs(x.detach().double().numpy() - right)) for x in (one, other))
        # The written-out gradients of rows that see nothing are NaN, and so left out.
        assert error <= 2 * allowed + 2**-8 * abs(right).max()


def test_parts_merge_into_the_whole_and_so_do_their_gradients() -> None:
    q, k, v = (x.requires_grad_() for x in _inputs(4, 2, 33, 90, 16))
    halves = [torch.arange(0, 90, 2), torch.arange(1, 90, 2)]
    parts = [
        attend(
            q,
            k,
            v,
            spec=Spec(blocks=BlockMask.kept(half.expand(1, 1, -1))),
            return_lse=True,
            backend="native",
        )
        for half in halves
    ]
    whole = attend(q, k, v, spec=Spec(), return_lse=True, backend="reference")
    d_out, d_lse = torch.randn_like(whole[0]), torch.randn_like(whole[1])
    for one, other in zip(merge(parts), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    both = [
        torch.autograd.grad(list(pair), [q, k, v], [d_out, d_lse]) for pair in (merge(parts), whole)
    ]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_any_layout_and_room_behind_the_keys() -> None:
    q, k, v = _inputs(6, 2, 70, 130, 24)
    spec = Spec(blocks=_blocks(70, 130, 2, 16, 8))
    expected = attend(q, k, v, spec=spec, backend="native")
    rows = q.transpose(1, 2).contiguous().transpose(1, 2)  # as projections leave it
    room = torch.full((2, 2, 400, 24), float("nan"))
    room[:, :, :130] = k
    spread = torch.zeros(2, 2, 130, 48)[..., ::2].copy_(v)
    found = attend(rows, room[:, :, :130], spread, spec=spec, backend="native")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_rows_that_see_nothing() -> None:
    q, k, v = (x.requires_grad_() for x in _inputs(2, 1, 70, 70, 8))
    met = torch.tensor([[False, False], [False, True]])
    spec = Spec(blocks=BlockMask.from_dense(met, block_q=64, block_k=64))
    out, lse = attend(q, k, v, spec=spec, return_lse=True, backend="native")
    assert not out[:, :, :64].any()
    assert torch.isneginf(lse[:, :, :64]).all()
    grads = torch.autograd.grad(out.sum(), [q, k, v])
    assert all(torch.isfinite(x).all() for x in grads)
    assert not grads[0][:, :, :64].any()
    assert not grads[2][:, :, :64].any()


def test_gradients_are_the_same_bits_on_any_number_of_threads() -> None:
    q, k, v = (x.requires_grad_() for x in _inputs(4, 2, 200, 200, 16))
    spec = Spec(blocks=_blocks(200, 200, 4, 64, 2))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = attend(q, k, v, spec=spec, backend="native")
            found.append((out, *torch.autograd.grad(out.sum(), [q, k, v])))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_it_is_chosen_for_blocks_and_says_why_not() -> None:
    q, k, v = _inputs(2, 2, 64, 64, 8)
    listed_spec = Spec(blocks=_blocks(64, 64, 1, 16, 16))
    assert choose("auto", q, k, v, spec=listed_spec, return_lse=True).name == "native"

    def refused(spec: Spec, *tensors: Tensor) -> str | None:
        return BACKENDS["native"].why_not(*tensors, spec=spec, return_lse=False)

    assert refused(listed_spec, q, k, v) is None
    masked = Spec(mask=torch.ones(1, 1, 64, 64, dtype=torch.bool))
    assert "mask" in (refused(masked, q, k, v) or "")
    assert "dropout" in (refused(Spec(dropout=0.1), q, k, v) or "")
    assert "float64" in (refused(Spec(), *(x.double() for x in (q, k, v))) or "")
    assert "bfloat16" in (refused(Spec(), q, k, v.bfloat16()) or "")
    assert "nothing" in (refused(Spec(), q, k[:, :, :0], v[:, :, :0]) or "")


def test_lists_that_do_not_fit_are_refused() -> None:
    q, k, v = _inputs(4, 2, 64, 64, 8)
    for blocks, why in (
        (_blocks(64, 64, 3, 16, 16), "3 heads do not fit 4"),
        (_blocks(32, 64, 1, 16, 16), "2 blocks of 16 queries"),
    ):
        with pytest.raises(ConfigError, match=why):
            attend(q, k, v, spec=Spec(blocks=blocks), backend="native")
    three = _blocks(64, 64, 1, 16, 16)
    three = BlockMask(
        block_q=16,
        block_k=16,
        indices=three.indices.expand(3, -1, -1, -1),
        counts=three.counts.expand(3, -1, -1),
    )
    with pytest.raises(ConfigError, match="3 batch rows do not fit 2"):
        attend(q, k, v, spec=Spec(blocks=three), backend="native")


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """A function after which Ctrl-C comes within a moment."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)

    def start() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_it_can_be_interrupted(alarm: Callable[[], None]) -> None:
    q = torch.zeros(1, 64, 8192, 16)
    alarm()
    with pytest.raises(KeyboardInterrupt):
        attend(q, q, q, spec=Spec(), backend="native")
