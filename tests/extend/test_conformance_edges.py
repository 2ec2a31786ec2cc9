"""The laws at their edges: any cuts, too much text, other engines, weights that lie elsewhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extend.conftest import build, tokens
from tests.extend.methods import EXEMPT
from tests.extend.suite import FULL, opened, pairs, read, stock
from unspool.errors import ConfigError, OverflowPolicyError, Unsupported
from unspool.extension import extend


class EightBits(torch.nn.Module):
    """A linear layer as quantised models have them: no weight in a floating type."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(x.dtype) * self.scale.to(x.dtype)  # type: ignore[operator]  # buffers
        return torch.nn.functional.linear(x, weight, self.bias)


def eight_bits(model: Any) -> Any:
    """A copy of the model with its layers in 8 bits."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and "layers" in name:
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, EightBits(layer))
    return model


def dispatched(model: Any, folder: Path) -> Any:
    """A copy of the model whose embedding and middle layer are read from disk at every use."""
    accelerate = pytest.importorskip("accelerate")
    model = copy.deepcopy(model)
    base = model.base_model_prefix
    table = next(n for n, m in model.named_modules() if m is model.get_input_embeddings())
    places = {}
    for name, _ in [*model.named_children(), *getattr(model, base).named_children()]:
        if name not in (base, "layers"):
            inside = hasattr(getattr(model, base), name)
            places[f"{base}.{name}" if inside else name] = "cpu"
    places |= {f"{base}.layers.{n}": "cpu" for n in range(3)}
    places[table] = places[f"{base}.layers.1"] = "disk"
    return accelerate.dispatch_model(model, places, offload_dir=str(folder), force_hooks=True)


def same_within_reach(model: Any, laws: Any) -> None:
    """Equals the model as it stands where the law says so, and writes; then is as it was."""
    ids = tokens(1, min(laws.exact_within or 45, 45))
    expected = stock(model, ids)
    with opened(model, laws) as ext:
        found = read(ext, ids, [int(ids.shape[1])])
        written = model.generate(tokens(1, 90), max_new_tokens=4, do_sample=False)
    assert torch.isfinite(found).all()
    assert written.shape == (1, 94)
    if laws.exact_within:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(stock(model, ids), expected)


@pairs("equals the stock model")
def test_any_cuts_are_the_stock_model_while_nothing_is_left_out(name: str, family: str) -> None:
    if name not in EXEMPT["any chunks"]:
        pytest.skip("any cuts equal one pass at any length, as another test finds")
    laws, model = FULL[name], build(family)
    length = min(laws.exact_within, 45)
    ids = tokens(2, length)
    expected = stock(model, ids)
    with opened(model, laws) as ext:
        for cuts in ([1, 4, 5, 11, 12, 13], [3, 10, 17], list(range(1, length))):
            torch.testing.assert_close(read(ext, ids, [*cuts, length]), expected, rtol=0, atol=1e-4)


@pairs(quick=False)
def test_ten_windows_are_counted_or_refused(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 10 * 256)
    with opened(model, laws) as ext:
        stream, most = ext.stream(), ext.capacity
        if most is not None and most < 10 * 256 + 2:
            with pytest.raises(OverflowPolicyError, match=f"{most:,}"):
                stream.feed(ids[0].tolist()).generate(max_new_tokens=2, do_sample=False)
        else:
            stream.feed(ids[0].tolist())
            stream.generate(max_new_tokens=2, do_sample=False)
            report = stream.report()
            assert report.usage.input_tokens == 10 * 256 + 2
            unread = report.usage.input_tokens - report.usage.read_tokens
            counted = report.attended_tokens + report.stored_tokens + report.dropped_tokens
            assert counted + unread == report.usage.input_tokens
    if most is None or most >= 10 * 256 + 2:
        return
    with opened(model, laws, on_overflow="truncate") as ext:
        ext.generate(ids, max_new_tokens=2, do_sample=False)
        report = ext.report()
    assert report.usage.input_tokens == 10 * 256 + 1  # nobody read the last one written
    assert report.dropped_tokens >= 10 * 256 + 2 - most
    counted = report.attended_tokens + report.stored_tokens + report.dropped_tokens
    assert counted == report.usage.input_tokens


@pairs(quick=False)
def test_what_is_exported_is_the_same_model_elsewhere(name: str, family: str) -> None:
    laws, model, ids = FULL[name], build(family), tokens(1, 60)
    with opened(model, laws) as ext:
        try:
            changed = ext.export()
        except Unsupported as refused:
            refusal = str(refused)
        else:
            refusal = ""
            ours = read(ext, ids, [60])
        names = [method.name for method in ext.methods]
    if refusal:
        assert any(name in refusal for name in names)
        return
    if "rope" in names:
        if family == "phi3":
            pytest.skip("its configuration takes longrope only, as tests of rope have it")
        changed = {"rope_parameters": changed}
    config = type(model.config)(**{**model.config.to_dict(), **changed})
    plain = type(model)(config).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(stock(plain, ids), ours, rtol=0, atol=1e-4)


@pairs(quick=False)
def test_weights_in_eight_bits_are_read_as_they_are(name: str, family: str) -> None:
    same_within_reach(eight_bits(build(family)), FULL[name])


# transformers 5.17 takes the device of the first weight, which lies on disk here, for the model's.
@pytest.mark.filterwarnings("ignore:You are calling .generate.. with the `input_ids`:UserWarning")
@pairs(quick=False)
def test_weights_on_disk_are_fetched_as_ever(name: str, family: str, tmp_path: Path) -> None:
    same_within_reach(dispatched(build(family), tmp_path), FULL[name])


def test_a_model_without_weights_is_refused() -> None:
    with torch.device("meta"):
        empty = type(build("llama"))(build("llama").config)
    with pytest.raises(ConfigError, match="no weights"):
        extend(empty, "dense")
