"""The native rows of the decode step and its attention, against PyTorch in float64."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.extend.conftest import build, tokens
from unspool import _native
from unspool.attention.one import attend_one, attend_products
from unspool.backends.decode import DecodeStep
from unspool.errors import ConfigError, Unsupported
from unspool.extension import extend

needs_kernels = pytest.mark.skipif(
    _native.DECODER_KERNELS is None, reason="the engine was built without vectors"
)


def stepped(model: Any, count: int = 3, **options: Any) -> torch.Tensor:
    """Logits of a few steps [B, count, V] after a prompt, through a step of its own."""
    with extend(model, "dense") as ext, torch.inference_mode():
        step = DecodeStep(ext, **options)
        cache = ext.new_cache()
        ids = tokens(2, 21)
        model(ids[:, :-count], past_key_values=cache)
        rows = [step(ids[:, i : i + 1], cache) for i in range(21 - count, 21)]
    return torch.cat(rows, 1)


@pytest.fixture(params=[0, 1, 2], ids=["best", "second", "third"])
def kernels(request: pytest.FixtureRequest) -> Any:
    """Every set of instructions that this processor has."""
    if _native.DECODER_KERNELS is None or request.param >= len(_native.kernel_names()):
        pytest.skip("this processor or build has fewer")
    _native.use_kernels(_native.kernel_names()[request.param])
    yield
    _native.use_kernels(None)


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3"])
def test_native_rows_are_those_of_pytorch(family: str, kernels: None) -> None:
    model = build(family)
    plain = stepped(model, native=False)
    torch.testing.assert_close(stepped(model, native=True), plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(stepped(model, native=False, fuse=False), plain, rtol=0, atol=1e-5)


def test_eight_bits_are_the_rounded_weights_and_nothing_else(kernels: None) -> None:
    model = build("llama")
    found = stepped(model, weights="int8", native=True)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for module in rounded.modules():
            if type(module) is torch.nn.Linear:
                w = module.weight.double()
                step = w.abs().amax(1, keepdim=True) / 127
                module.weight = torch.nn.Parameter(((w / step).round() * step).float())
    # every layer reads rounded weights, so the prompt must have been read with the model's own
    with extend(model, "dense") as ext, torch.inference_mode():
        cache = ext.new_cache()
        ids = tokens(2, 21)
        model(ids[:, :-3], past_key_values=cache)
    with extend(rounded, "dense") as ext, torch.inference_mode():
        expected = torch.cat(
            [rounded(ids[:, i : i + 1], past_key_values=cache).logits for i in range(18, 21)], 1
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@needs_kernels
def test_half_precision_weights_are_read_where_they_lie() -> None:
    model = copy.deepcopy(build("llama")).to(torch.bfloat16)
    wide = copy.deepcopy(model).float()
    expected = stepped(wide, native=True)
    apart = [
        float((stepped(model, native=native).float() - expected).norm() / expected.norm())
        for native in (True, False)
    ]
    assert 1e-4 < apart[0] < 1.5 * apart[1]  # the prompt itself was read in half precision


@needs_kernels
def test_what_the_engine_does_not_know_is_said() -> None:
    model = copy.deepcopy(build("llama"))
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.Tanh()
    with extend(model, "dense") as ext:
        assert not DecodeStep(ext).native
        with pytest.raises(ConfigError, match="activates with Tanh"):
            DecodeStep(ext, native=True)
    torch.testing.assert_close(
        stepped(model, native=None), stepped(model, native=False), rtol=0, atol=1e-5
    )


def test_a_part_that_is_misread_does_not_pass_for_eight_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A swap of gate and up moves the logits of a small model by less than 8 bits may.
    from unspool.backends import decode

    model = build("llama")
    original = decode.read_parts

    def misread(*arguments: Any) -> Any:
        parts = original(*arguments)
        for layer in parts.layers:
            layer.gate_up.reverse()
        return parts

    monkeypatch.setattr(decode, "read_parts", misread)
    with pytest.raises(Unsupported, match="other logits"):
        extend(model, "dense", weights="int8")


def exact(parts: list[Any], scale: float) -> torch.Tensor:
    """One softmax over all parts, in float64, head by head."""
    q0, _, v0 = parts[0]
    out = torch.zeros(*q0.shape[:3], v0.shape[-1], dtype=torch.float64)
    for b in range(q0.shape[0]):
        for h in range(q0.shape[1]):
            s, values = [], []
            for q, k, v in parts:
                g = h * k.shape[1] // q.shape[1]
                s.append(k[b, g].double() @ q[b, h, 0].double() * scale)
                values.append(v[b, g].double())
            out[b, h, 0] = torch.softmax(torch.cat(s), 0) @ torch.cat(values)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("heads", [(9, 3), (4, 4), (16, 2)], ids=str)
def test_one_query_attends_exactly(
    dtype: torch.dtype, heads: tuple[int, int], kernels: None
) -> None:
    torch.manual_seed(1)
    for keys, more, dim in ((1, 0, 16), (257, 3, 64), (511, 16, 112), (1030, 0, 32)):
        parts = []
        for count in (keys, more) if more else (keys,):
            q = torch.randn(2, heads[0], 1, dim)
            k, v = (torch.randn(2, heads[1], count + 9, dim)[:, :, 5 : 5 + count] for _ in "kv")
            parts.append(tuple(x.to(dtype) for x in (q, k, v)))
        expected = exact(parts, 0.3)
        bound = 1e-5 if dtype == torch.float32 else 2e-2
        found = attend_one(parts, 0.3)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)
        if dtype == torch.float32:
            products = attend_products(parts, 0.3).double()
            torch.testing.assert_close(products, expected, rtol=0, atol=1e-5)


@needs_kernels
def test_scores_of_any_size_and_other_head_sizes() -> None:
    q, k, v = (torch.randn(1, 2, n, 16) for n in (1, 300, 300))
    huge = [(q * 1e4, k, v)]
    torch.testing.assert_close(attend_one(huge, 1.0).double(), exact(huge, 1.0), rtol=0, atol=1e-5)
    odd = [(torch.randn(1, 4, 1, 20), torch.randn(1, 2, 7, 20), torch.randn(1, 2, 7, 20))]
    torch.testing.assert_close(attend_one(odd, 0.2).double(), exact(odd, 0.2), rtol=0, atol=2e-6)


@pytest.fixture(params=[True, False], ids=["openmp", "own"])
def pool(request: pytest.FixtureRequest) -> Any:
    """Both kinds of threads."""
    _native.share_threads(request.param)
    yield
    _native.share_threads(True)


@needs_kernels
def test_threads_change_no_bit(pool: None) -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, 6, n, 64) for n in (1, 4000, 4000))
    outs = []
    for threads in (1, 2, 3, 7, 2) * 20:
        out = torch.empty(1, 6, 1, 64)
        _native.attend_one([(q, k[:, :2], v[:, :2])], 0.1, threads, out)
        outs.append(out)
    assert all(torch.equal(out, outs[0]) for out in outs)


@needs_kernels
def test_threads_of_python_share_the_engine(pool: None) -> None:
    torch.manual_seed(3)
    inputs = [[torch.randn(1, 2, n, 64) for n in (1, 900, 900)] for _ in range(4)]
    alone = [attend_one([tuple(x)], 0.1) for x in inputs]

    def work(number: int) -> bool:
        out = torch.empty(1, 2, 1, 64)
        same = []
        for _ in range(50):
            _native.attend_one([tuple(inputs[number])], 0.1, 2, out)
            same.append(torch.equal(out, alone[number]))
        return all(same)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


def _in_a_child(pipe: Any, inputs: Any, out: Any) -> None:
    # PyTorch's own loops over threads hang in a child of fork, so the tensors are the parent's.
    _native.attend_one([inputs], 0.1, 2, out)
    pipe.send(bool(torch.allclose(out, torch.ones(()))))


@needs_kernels
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
def test_a_child_of_fork_works_without_the_threads(pool: None) -> None:
    inputs = tuple(torch.ones(1, 2, n, 64) for n in (1, 3000, 3000))
    _native.attend_one([inputs], 0.1, 2, torch.empty(1, 2, 1, 64))  # starts the threads here
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_a_child, args=(there, inputs, torch.empty(1, 2, 1, 64)))
    child.start()
    assert here.poll(60)
    assert here.recv() is True
    child.join(60)
    assert child.exitcode == 0


@needs_kernels
def test_arrays_that_do_not_fit_are_refused() -> None:
    q, k, v = (torch.ones(1, 2, n, 16) for n in (1, 5, 5))
    out = torch.empty(1, 2, 1, 16)
    for parts in (
        [],
        [(q, k[:, :, :3], v)],
        [(q, k[..., :8], v)],
        [(q.expand(2, 2, 1, 16).contiguous(), k, v)],
        [(q, k.double(), v.double())],
    ):
        with pytest.raises((ValueError, TypeError)):
            _native.attend_one(parts, 1.0, 1, out)
    layers = _native.Layers(16, 1)
    with pytest.raises(ValueError, match="bind"):
        layers.logits()
    with pytest.raises(ValueError, match="bind"):
        layers.before(0)
    with pytest.raises(ValueError, match="do not fit"):
        layers.bind(*(torch.zeros(1, 8) for _ in range(4)))
