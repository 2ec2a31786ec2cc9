"""A training step of a prefix without a length beside prefixes and LoRA of PEFT.

SmolLM2-135M-Instruct in float32 on a CPU (autocast to bfloat16 on a GPU), 8 texts of up to 64
tokens, forward and backward. `length` is that of PEFT's prefix; ours has none, and LoRA of rank 20
has as many parameters as ours.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.bench_attention import milliseconds, peak_bytes
from benchmarks.registry import OURS, Timed, benchmark, peer

ROWS, TOKENS = 8, 64


@benchmark(
    "prefix-step",
    tests=("tests/extend/test_ntk.py",),
    against=("peft-prefix", "peft-lora"),
    sweep={"length": (10, 200)},
    unit="ms",
    fresh=True,
    runs=3,
)
def prefix_step(length: int) -> Timed:
    """Milliseconds of one step, the optimizer left out."""
    return Timed(partial(_measure, OURS, length))


def _measure(name: str, length: int) -> dict[str, Any]:
    import torch

    from claims.ntk_attention import adapted, ask

    methods = {OURS: "ntk", "peft-prefix": f"prefix-{length}", "peft-lora": "lora-20"}
    rows = [(f"def step_{i}(value): return value + {i}\n" * 8, i % 4) for i in range(ROWS)]
    with ExitStack() as undo:
        model, parameters = adapted(methods[name], 0, undo)

        def step() -> None:
            logits, wanted = ask(model, rows, ("a", "b", "c", "d"), TOKENS)
            torch.nn.functional.cross_entropy(logits, wanted).backward()
            for weight in parameters:
                weight.grad = None

        return {
            "value": milliseconds(step),
            "peak_bytes": peak_bytes(step),
            "parameters": sum(weight.numel() for weight in parameters),
        }


def _other(name: str, length: int) -> Timed:
    return Timed(partial(_measure, name, length))


for _name in ("peft-prefix", "peft-lora"):
    peer("prefix-step", _name, package="peft", missing="peft")(partial(_other, _name))
