"""NTK-Attention: the algebra of its state, its stable form, and adapters on real model classes."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extend.conftest import FAMILIES, build, tokens
from unspool.attention.ntk import NTK, NTKAdapters, PrefixState, add_prefix
from unspool.attention.ntk.features import features, taylor, width
from unspool.attention.ntk.layer import NTKLayer
from unspool.errors import ConfigError, InputError
from unspool.extension import extend


def _quick(family: str) -> Any:
    return () if family in ("llama", "gemma3") else pytest.mark.slow


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def direct(q: Any, k: Any, v: Any, z: Any, kappa: Any, phi: Any, scale: float) -> Any:
    """Numerator over denominator as written, one query at a time, in float64."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    length, first = q.shape[2], k.shape[2] - q.shape[2]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(length):
                s = [float(q[b, h, i] @ k[b, h, j]) * scale for j in range(first + i + 1)]
                f = phi(q[b, h, i])
                # Both over exp of the largest score, which cancels
                most = max(s)
                top = sum(math.exp(x - most) * v[b, h, j] for j, x in enumerate(s))
                top = top + math.exp(-most) * (f @ z[h])
                bottom = sum(math.exp(x - most) for x in s) + math.exp(-most) * float(f @ kappa[h])
                out[b, h, i] = top / bottom
    return out


def trained(model: Any, **options: Any) -> Any:
    """An extension whose adapter is far from 0."""
    ext = extend(model, NTK(**options))
    with torch.no_grad():
        for number, parameter in enumerate(NTKAdapters(ext).parameters()):
            parameter.copy_(0.3 * normal(*parameter.shape, seed=number, dtype=torch.float32))
    return ext


@pytest.mark.parametrize("spec", ["ntk", "ntk:phi=taylor2,heads=kv"])
@pytest.mark.parametrize("family", [pytest.param(f, marks=_quick(f)) for f in FAMILIES])
def test_an_untrained_adapter_is_the_base_model(spec: str, family: str) -> None:
    model, ids = build(family), tokens(2, 30)
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        with extend(model, spec):
            actual = model(ids, use_cache=False).logits
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_kappa_under_softplus_is_what_was_put_in() -> None:
    layer = NTKLayer(layer=0, heads=2, head_dim=4, phi="elu1", positive="softplus")
    kappa = torch.tensor([1e-4, 0.3, 5.0, 200.0]).repeat(2, 1)
    layer.put_state("a", torch.zeros(2, 4, 4), kappa)
    layer.add("b", "zero", 0)
    layer.active = "a"
    torch.testing.assert_close(layer.state()[1], kappa, rtol=1e-3, atol=1e-7)  # type: ignore[index]
    layer.active = "b"
    assert float(layer.state()[1].detach().max()) < 1e-5  # type: ignore[index]  # an adapter is in use


@pytest.mark.parametrize("phi", ["elu1", "taylor1", "taylor2"])
@pytest.mark.parametrize("length", [1, 7, 1000])
def test_a_state_is_the_sum_over_its_prefix(phi: Any, length: int) -> None:
    """With an explicit map in place of the exponential, m terms and the state say the same."""
    k, v, q = normal(2, length, 4), normal(2, length, 3, seed=1), normal(2, 2, 4, seed=2)
    state = PrefixState.of(k, v, phi=phi, scale=0.5)
    f = features(q, phi, 0.5)
    for h in range(2):
        keys = [features(k[h, c], phi, 0.5) for c in range(length)]
        for i in range(2):
            terms = [f[h, i] @ key for key in keys]
            top = sum(term * v[h, c] for c, term in enumerate(terms))
            torch.testing.assert_close(f[h, i] @ state.z[h], top, atol=1e-10, rtol=1e-10)
            bottom = torch.stack(terms).sum()
            torch.testing.assert_close(f[h, i] @ state.kappa[h], bottom, atol=1e-10, rtol=1e-10)
    order = torch.randperm(length, generator=torch.Generator().manual_seed(3))
    other = PrefixState.of(k[:, order], v[:, order], phi=phi, scale=0.5)
    torch.testing.assert_close(other.z, state.z, atol=1e-10, rtol=1e-10)
    half = length // 2
    parts = [PrefixState.of(k[:, s], v[:, s], phi=phi, scale=0.5)
             for s in (slice(half), slice(half, None))]  # fmt: skip
    torch.testing.assert_close((parts[0] + parts[1]).z, state.z, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close((parts[0] + parts[1]).kappa, state.kappa, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("highest", [-200.0, -20.0, 0.0, 20.0, 200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_stable_form_is_the_direct_one(highest: float, dtype: Any) -> None:
    q, k, v = (normal(1, 2, 6, 4, seed=n) for n in range(3))
    q[..., 0], k[..., 0] = 1.0, highest  # every score near `highest`
    z, kappa = normal(2, 4, 4, seed=4), normal(2, 4, seed=5).abs()

    def phi(x: Any) -> Any:
        return torch.where(x > 0, x, torch.expm1(x)) + 1

    expected = direct(q, k, v, z, kappa, phi, 1.0)
    s = (q @ k.transpose(2, 3)).masked_fill(~torch.ones(6, 6).tril().bool(), float("-inf"))
    lse = torch.logsumexp(s, -1)
    out = torch.softmax(s, -1) @ v
    f = features(q.to(dtype), "elu1", 1.0)
    given = (x.to(dtype) for x in (out, lse))
    floor = -80.0 if dtype == torch.float32 else -400.0
    actual = add_prefix(*given, f, z.to(dtype), kappa.to(dtype), floor=floor)
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(actual.double(), expected, atol=bound, rtol=bound)


def test_gradients_of_z_and_kappa_and_of_what_they_meet() -> None:
    out, lse, f = normal(1, 4, 3, 2), normal(1, 4, 3, seed=1), normal(1, 4, 3, 5, seed=2).abs()
    z, kappa = normal(2, 5, 2, seed=3), normal(2, 5, seed=4).abs()
    given = [x.requires_grad_() for x in (out, lse, f, z, kappa)]
    assert torch.autograd.gradcheck(add_prefix, given)


def test_more_terms_of_the_series_come_nearer_to_the_real_prefix() -> None:
    """Bounded entries: the error against softmax over prefix and text falls with the degree."""
    q, k, v = (normal(1, 1, 6, 3, seed=n).clamp(-1, 1) for n in range(3))
    pk, pv = normal(1, 9, 3, seed=4).clamp(-1, 1), normal(1, 9, 3, seed=5)
    text = (q @ k.transpose(2, 3)).masked_fill(~torch.ones(6, 6).tril().bool(), float("-inf"))
    both = torch.cat([q @ pk[None].transpose(2, 3), text], dim=-1)
    exact = torch.softmax(both, -1) @ torch.cat([pv[None], v], dim=2)
    out, lse = torch.softmax(text, -1) @ v, torch.logsumexp(text, -1)
    errors = []
    for degree in (0, 2, 4, 6):
        f = taylor(pk, degree)
        z, kappa = f.transpose(1, 2) @ pv, f.sum(1)
        errors.append(
            float((add_prefix(out, lse, taylor(q, degree), z, kappa) - exact).abs().max())
        )
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 5e-3 < errors[0]
    assert width(3, "taylor2") == taylor(pk, 2).shape[-1] == 13


@pytest.mark.parametrize("family", ["llama", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_decoding_step_by_step_is_the_full_forward(family: str) -> None:
    model, ids = build(family), tokens(2, 24)
    with trained(model) as ext, torch.no_grad():
        whole = model(ids, use_cache=False).logits
        cache = ext.new_cache()
        steps = [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(24)]
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=0)
        NTKAdapters(ext).use(None)
        assert (model(ids, use_cache=False).logits - whole).abs().max() > 0.1


def test_an_adapter_of_a_text_meets_it_from_where_it_stood() -> None:
    """Taylor features of small keys are nearly the exponential, so the text after a context reads
    as it would behind the context itself."""
    model = copy.deepcopy(build("llama"))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(0.03)
    ids = tokens(1, 50)
    with torch.no_grad():
        behind = model(ids, use_cache=False).logits[:, 20:]
        alone = model(ids[:, 20:], use_cache=False).logits
    with extend(model, "ntk:phi=taylor2") as ext, torch.no_grad():
        adapters = NTKAdapters(ext).from_context(ids[0, :20].tolist())
        assert adapters.active == "context"
        near = model(ids[:, 20:], use_cache=False).logits
    assert (near - behind).abs().max() < 0.05 * (alone - behind).abs().max()


def test_it_learns_and_nothing_else_does(tmp_path: Path) -> None:
    model = copy.deepcopy(build("llama"))
    ids = tokens(4, 12)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with extend(model, "ntk") as ext:
        adapters = NTKAdapters(ext)
        report = adapters.report()
        assert report.parameters == 3 * 4 * (8 * 8 + 8)
        assert report.share == pytest.approx(report.parameters / model.num_parameters())
        assert not any(p.requires_grad for p in model.parameters())
        best = torch.optim.Adam(adapters.parameters(), lr=0.05)
        losses = []
        for _ in range(15):
            loss = model(ids, labels=ids, use_cache=False).loss
            best.zero_grad()
            loss.backward()
            best.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0] - 0.1
        assert all(float(p.detach().abs().max()) > 0 for p in adapters.parameters())
        with torch.no_grad():
            taught = model(ids, use_cache=False).logits
        adapters.save(tmp_path / "one")
        with pytest.raises(ConfigError, match="not in the model"):
            ext.save(tmp_path / "whole")
        adapters.add("second")
        with torch.no_grad():
            assert (model(ids, use_cache=False).logits - taught).abs().max() > 1e-3
            adapters.use("default")
            assert torch.equal(model(ids, use_cache=False).logits, taught)
        assert adapters.names == ("default", "second")
        with pytest.raises(ConfigError, match="already"):
            adapters.add("second")
        with pytest.raises(ConfigError, match="no adapter 'third'"):
            adapters.use("third")
        assert adapters.remove("default").active is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    with extend(model, f"ntk:adapter={tmp_path / 'one'}"), torch.no_grad():
        assert torch.equal(model(ids, use_cache=False).logits, taught)
    with extend(model, "ntk") as ext, torch.no_grad():
        NTKAdapters(ext).load(tmp_path / "one")
        assert torch.equal(model(ids, use_cache=False).logits, taught)


def test_a_damaged_or_foreign_adapter_is_refused(tmp_path: Path) -> None:
    with extend(build("llama"), "ntk:layers=0,2") as ext:
        folder = NTKAdapters(ext).save(tmp_path / "kept")
        NTKAdapters(ext).save(folder)  # one that is there is replaced
    config = copy.deepcopy(build("llama").config)
    config.hidden_size, config.head_dim = 64, 16
    wide = type(build("llama"))(config).eval()
    with pytest.raises(ConfigError, match="heads of 8 channels"):
        extend(wide, f"ntk:adapter={folder}")
    with (
        extend(build("llama"), "ntk:heads=kv") as ext,
        pytest.raises(ConfigError, match="heads=query"),
    ):
        NTKAdapters(ext).load(folder)
    with extend(build("llama"), "ntk") as ext, pytest.raises(ConfigError, match="layers"):
        NTKAdapters(ext).load(folder)
    data = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="damaged"):
        extend(build("llama"), f"ntk:adapter={folder}")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match="not one of NTK"):
        extend(build("llama"), f"ntk:adapter={folder}")
    with (
        extend(build("llama"), "ntk") as ext,
        pytest.raises(ConfigError, match="another adapter"),
    ):
        NTKAdapters(ext).save(folder)
    with pytest.raises(InputError, match="no adapter"):
        extend(build("llama"), f"ntk:adapter={tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ntk:dropout=1", "dropout < 1"),
        ("ntk:floor=3", "floor <= 0"),
        ("ntk:phi=cosine", "elu1"),
        ("ntk+lm-infinite", "both fill slot 'attend'"),
        ("ntk:layers=9", "has layers 0 to 2"),
    ],
)
def test_what_is_wrong_is_named(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extend(build("llama"), spec)


def test_only_its_own_extensions_have_adapters() -> None:
    with extend(build("llama"), "dense") as ext, pytest.raises(ConfigError, match="no adapters"):
        NTKAdapters(ext)
    with extend(build("llama"), "ntk") as ext, pytest.raises(InputError, match="at least 1"):
        NTKAdapters(ext).from_context([])


def test_a_base_in_half_precision_keeps_its_adapter_in_full() -> None:
    model = copy.deepcopy(build("llama")).bfloat16()
    ids = tokens(2, 20)
    with trained(model) as ext:
        assert {p.dtype for p in NTKAdapters(ext).parameters()} == {torch.float32}
        with torch.no_grad():
            half = model(ids, use_cache=False).logits.float()
    with trained(build("llama")), torch.no_grad():
        full = build("llama")(ids, use_cache=False).logits
    assert (half - full).abs().mean() < 0.1 * full.abs().mean()


@pytest.mark.slow
def test_a_trainer_trains_it(tmp_path: Path) -> None:
    import warnings

    from transformers import Trainer, TrainingArguments

    model = copy.deepcopy(build("llama"))
    ids = tokens(16, 12)
    rows = [{"input_ids": row, "labels": row} for row in ids]
    with extend(model, "ntk") as ext, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Trainer, about this machine
        adapters = NTKAdapters(ext)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_train_epochs=4,
            learning_rate=0.05,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
        )
        with torch.no_grad():
            first = float(model(ids, labels=ids, use_cache=False).loss)
        Trainer(model=adapters.trainable(), args=arguments, train_dataset=rows).train()
        with torch.no_grad():
            last = float(model(ids, labels=ids, use_cache=False).loss)
    assert last < first - 0.1
