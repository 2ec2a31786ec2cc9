"""Projections of one input in one product: against the model without it, through every change."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from unspool._joint import Watch, join

SHAPE: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
IDS = torch.arange(5, 25).reshape(2, 10)


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SHAPE, **options)
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def states(model: Any, **given: Any) -> Any:
    with torch.no_grad():
        return model(IDS, **given).last_hidden_state


def products(model: Any) -> int:
    """Matrix products of a pass outside of attention's own."""
    with FlopCounterMode(display=False) as counter:
        states(model)
    return counter.get_total_flops()


def test_the_same_comes_out_of_fewer_products_and_the_model_comes_back() -> None:
    model = build()
    right, flops = states(model), products(model)
    attributes = {name: set(m.__dict__) for name, m in model.named_modules()}
    with contextlib.ExitStack() as undo:
        assert len(join(model, undo)) == 2
        calls: list[int] = []
        stock = torch.nn.functional.linear
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.nn.functional, "linear", lambda *a: calls.append(a[1].shape[0]) or stock(*a)
            )
            torch.testing.assert_close(states(model), right, rtol=0, atol=1e-6)
        assert calls == [96, 32, 48, 32] * 2
        assert products(model) == flops
    assert {name: set(m.__dict__) for name, m in model.named_modules()} == attributes
    assert torch.equal(states(model), right)
    part = model.encoder.layer[0].attention.self
    assert part.key.weight.untyped_storage().size() == part.key.weight.nbytes


def test_weights_that_change_are_used() -> None:
    model, twin = build(), build()
    with contextlib.ExitStack() as undo:
        joints = join(model, undo)
        watch = Watch(model)

        def settle() -> None:
            for joint in joints:
                joint.gather()

        assert watch.moved(settle)
        assert not watch.moved(settle)
        for net in (model, twin):
            key = net.encoder.layer[1].attention.self.key
            with torch.no_grad():
                key.weight.mul_(3)
        assert not watch.moved(settle)
        torch.testing.assert_close(states(model), states(twin), rtol=0, atol=1e-6)
        for net in (model, twin):
            query = net.encoder.layer[0].attention.self.query
            query.weight.data = query.weight.data * 2
            query.bias.data = query.bias.data + 1
        assert watch.moved(settle)
        assert not watch.moved(settle)
        torch.testing.assert_close(states(model), states(twin), rtol=0, atol=1e-6)
        model.double(), twin.double()
        assert watch.moved(settle)
        torch.testing.assert_close(states(model), states(twin), rtol=0, atol=1e-12)


def test_gradients_reach_the_layers_and_other_inputs_are_projected_alone() -> None:
    model, twin = build(), build()
    memory = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    crossing = {"is_decoder": True, "add_cross_attention": True}
    reader, other = build(**crossing), build(**crossing)
    with contextlib.ExitStack() as undo:
        join(model, undo)
        assert len(join(reader, undo)) == 4
        for net in (model, twin):
            net(IDS).last_hidden_state.square().sum().backward()
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        ours = states(reader, encoder_hidden_states=memory)
        torch.testing.assert_close(
            ours, states(other, encoder_hidden_states=memory), rtol=0, atol=1e-6
        )


def test_a_compiler_sees_one_product(tmp_path: Any) -> None:
    model = build()
    right, graphs = states(model), []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with contextlib.ExitStack() as undo:
        join(model, undo)
        torch._dynamo.reset()
        model.encoder.forward = torch.compile(model.encoder.forward, dynamic=True, backend=backend)
        undo.callback(model.encoder.__dict__.pop, "forward")
        torch.testing.assert_close(states(model), right, rtol=0, atol=1e-6)
        assert len(graphs) == 1
        linear = [n for n in graphs[0].graph.nodes if n.target is torch._C._nn.linear]
        assert len(linear) == 8
        model.save_pretrained(tmp_path)  # weights in one memory are saved as they are named
    again = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
