"""What the slot `layout` needs to know of a model, and what it does to one at install.

What: where position numbers start and how many there are, sentences to try a model with, the
choice of this project's attention function, compilation of the layers, and outputs unpacked.
Source: transformers' encoders as they are; nothing of an architecture is copied.
Differs from a table of architectures: everything is found by looking at modules and outputs.
Cost: none to speak of. Shapes: as `layout`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from unspool._dispatch import NAME

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.padding_free.layout import Layout

_PROBE = (5, 3, 7)
"""Lengths of the sentences that are tried at install."""


def positions_of(base: Any) -> tuple[int, int | None]:
    """The number of a sentence's first position, and the longest sentence with learned ones."""
    start, longest = 0, None
    for name, module in base.named_modules():
        if hasattr(module, "create_position_ids_from_input_ids"):
            start = int(module.padding_idx) + 1
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            longest = int(module.num_embeddings)
    return start, None if longest is None else longest - start


def modules_of(child: Any) -> list[Any]:
    """A child, or the members of a list of modules, which is itself never called."""
    import torch

    if isinstance(child, torch.nn.ModuleList):
        return [m for member in child for m in modules_of(member)]
    return [child]


def probe_sentences(base: Any, start: int) -> list[Tensor]:
    import torch

    vocabulary = int(base.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    low = min(start + 1, vocabulary - 1)  # the padding token numbers its positions otherwise
    ids = [torch.randint(low, vocabulary, (n,), generator=generator) for n in _PROBE]
    return [row.to(base.device) for row in ids]


@contextlib.contextmanager
def evaluating(base: Any) -> Iterator[None]:
    """Evaluation mode for a while."""
    flags = [(module, module.training) for module in base.modules()]
    try:
        base.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def use_function(model: Any, undo: contextlib.ExitStack) -> None:
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for config in configs.values():
        if hasattr(config, "_attn_implementation_internal"):
            before = config._attn_implementation_internal
            undo.callback(setattr, config, "_attn_implementation_internal", before)
    model.set_attn_implementation(NAME)


def compile_layers(base: Any, undo: contextlib.ExitStack) -> None:
    """Compile what holds the layers: in one piece if it is a module, else each layer."""
    import torch

    for child in base.children():
        layers = [m for m in child.modules() if isinstance(m, torch.nn.ModuleList)]
        if isinstance(child, torch.nn.ModuleList):
            targets = list(child)
        elif layers and child.forward is not None:
            targets = [child]
        else:
            continue
        for target in targets:
            target.forward = torch.compile(target.forward, dynamic=True)
            undo.callback(target.__dict__.pop, "forward", None)


def own_attention(base: Any) -> str:
    names = {type(m).__name__ for m in base.modules() if "Attention" in type(m).__name__}
    return ", ".join(sorted(names)) or "no module called attention"


def main_of(output: Any) -> Any:
    """The hidden states of an output of any form."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("last_hidden_state")
    if isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    return None


def unpack_all(
    output: Any, layout: Layout, *, only_last: bool = False, copied: bool = False
) -> Any:
    """Every tensor of packed rows in an output as a padded batch; the others are copied if asked
    for, as an output of a CUDA graph has to be."""
    import torch

    width = int(layout.position_ids.shape[0])

    def one(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.ndim >= 3 and value.shape[:2] == (1, width):
                return layout.unpack(value)
            return value.clone() if copied else value
        if isinstance(value, tuple) and not only_last:
            return tuple(one(each) for each in value)
        return value

    if isinstance(output, torch.Tensor):
        return one(output)
    if isinstance(output, Mapping):
        return type(output)(**{name: one(value) for name, value in output.items()})
    return tuple(one(value) for value in output) if isinstance(output, tuple) else output
