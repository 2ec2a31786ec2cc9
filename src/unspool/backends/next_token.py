"""The next token of a transformers model: which one, when it is the last, and how to stop waiting.

What: a draw from logits that one seed repeats on every device, the tokens that end an answer, and a
forward pass that can be given up between two layers.
Cost: a sampled token copies one row of logits to the CPU; a greedy one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unspool.backends.stream import Cancelled

if TYPE_CHECKING:
    import torch


class Picker:
    """The next token from logits: the largest, or drawn with a seed of its own."""

    def __init__(self, temperature: float, seed: int) -> None:
        import torch

        self.temperature = temperature
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> int:
        import torch

        if self.temperature == 0:
            return int(logits.argmax(-1))
        # On the CPU in float64, so that one seed gives one text on every device.
        chances = torch.softmax(logits.double().cpu() / self.temperature, dim=-1)
        return int(torch.multinomial(chances, 1, generator=self.generator))


@contextmanager
def interruptible(model: Any, cancelled: Callable[[], bool] | None) -> Iterator[None]:
    """Let a long forward pass end before its next layer once `cancelled` says yes."""
    if cancelled is None:
        yield
        return
    import torch

    def check(*_: Any) -> None:
        if cancelled():
            raise Cancelled("The answer is no longer wanted.")

    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    hooks = [layer.register_forward_pre_hook(check) for layer in next(lists, ())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer, of the generation settings and of the tokenizer."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = list(said) if isinstance(said, (list, tuple)) else [said]
    return frozenset(e for e in [*ends, tokenizer.eos_token_id] if e is not None)
