"""FlashAttention on a processor: traffic between memories as the theorem says, gradients exact, and
a training step beside attention written out.

Source: Dao et al. (2022), "FlashAttention", theorem 2, proposition 4 and section 4.1.
Differs from the paper: the traffic is counted by walking the loops of the algorithm, since a
processor's caches are not addressed by programs; the step has four layers.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import Any

from claims import Claim, Context, Figure, Measured

TOKENS = (16_384, 30_000)
HEAD_DIMS = (32, 64, 128)
ON_CHIP = (24_576, 49_152, 98_304)
STEP_TOKENS, STEPS = 2048, 3

CLAIM = Claim(
    system="flash-attention",
    title="Exact attention without the square matrix",
    required=(
        Figure("largest error of the formula for traffic, relative", "<=", 0.05),
        Figure("largest error of the formula with blocks skipped, relative", "<=", 0.05),
        Figure("traffic of attention written out over tiles, 16k tokens, heads of 64", ">", 1, "x"),
        Figure("largest difference of output and gradients from float64", "<=", 1e-4),
        Figure("training step, attention written out over ours", ">", 1, "x"),
        Figure("training step: written out", "report", unit="s"),
        Figure("training step: ours", "report", unit="s"),
        Figure("difference of the loss", "<=", 1e-3),
    ),
    setup=(
        f"Traffic: {TOKENS[0]:,} and {TOKENS[-1]:,} tokens, heads of 32 to 128, 24,576 to 98,304 "
        "elements on the chip, both loop orders, against theorem 2 with its "
        "constants, and a butterfly of tiles. Gradients: block lists, "
        "windows and sinks by every back-end that runs here. The step: GPT-2 of 4 layers and width "
        f"768 with random weights, {STEP_TOKENS:,} tokens, float32, forward and backward; median "
        f"of {STEPS}."
    ),
    packages=("torch", "transformers"),
    code=("attention",),
)


def run(ctx: Context) -> Measured:
    traffic = ctx.step("traffic", _traffic)
    exact = ctx.step("gradients", lambda: _gradients(ctx.seed))
    steps = {way: ctx.step(f"step-{way}", lambda w=way: _step(w)) for way in ("eager", "ours")}
    figures: dict[str, float | int | None] = {
        "largest error of the formula for traffic, relative": traffic["error"],
        "largest error of the formula with blocks skipped, relative": traffic["sparse"],
        "traffic of attention written out over tiles, 16k tokens, heads of 64": traffic["saved"],
        "largest difference of output and gradients from float64": max(exact.values()),
        "training step, attention written out over ours": (
            steps["eager"]["seconds"] / steps["ours"]["seconds"]
        ),
        "training step: written out": steps["eager"]["seconds"],
        "training step: ours": steps["ours"]["seconds"],
        "difference of the loss": abs(steps["eager"]["loss"] - steps["ours"]["loss"]),
    }
    return Measured(figures, {"difference by back-end and pattern": exact})


def _traffic() -> dict[str, float]:
    """Counted against predicted, over lengths, head sizes and sizes of the chip."""
    from unspool.attention.flash import io, patterns

    worst = sparse = 0.0
    orders: tuple[io.Order, ...] = ("keys-outside", "queries-outside")
    for tokens in TOKENS:
        for head_dim in HEAD_DIMS:
            for on_chip in ON_CHIP:
                rows, columns = io.tile_sizes(head_dim, on_chip)
                for order in orders:
                    count = io.simulate(tokens, tokens, head_dim, on_chip, order=order).total
                    formula = io.flash_elements(
                        tokens, tokens, head_dim, rows, columns, order=order, whole=False
                    )
                    worst = max(worst, abs(formula / count - 1))
                whole = tokens // max(rows, columns) * max(rows, columns)
                nq, nk = whole // rows, whole // columns
                met = patterns.butterfly(nq, nk) if nq <= nk else patterns.butterfly(nk, nq).T
                tiles = [(int(i), int(j)) for i, j in met.nonzero()]
                counted = io.simulate(whole, whole, head_dim, on_chip, met=tiles).total
                share = patterns.share(met)
                report = io.io_report(whole, head_dim, on_chip, share=share, itemsize=1)
                assert report.block_sparse_bytes is not None  # a share was given
                sparse = max(sparse, abs(report.block_sparse_bytes / counted - 1))
    return {
        "error": worst,
        "sparse": sparse,
        "saved": io.io_report(16_384, 64, 98_304).saved,
    }


def _gradients(seed: int) -> dict[str, float]:
    """Output, log-sum-exp and gradients of every back-end that runs here, against float64."""
    import torch

    from unspool.attention import Spec, attend
    from unspool.attention.backends import BACKENDS
    from unspool.attention.blocks import BlockMask
    from unspool.attention.flash import patterns

    generator = torch.Generator().manual_seed(seed)
    tokens = 500
    leaves = [torch.randn(1, h, tokens, 64, generator=generator) for h in (4, 2, 2)]
    d_out = torch.randn(1, 4, tokens, 64, generator=generator)
    d_lse = torch.randn(1, 4, tokens, generator=generator)
    blocks = patterns.union(patterns.butterfly(16, 16), patterns.sinks(16, 16, first=1))
    specs = {
        "causal": Spec(),
        "window and sinks": Spec(window=100, sinks=4),
        "butterfly": Spec(blocks=BlockMask.from_dense(blocks, block_q=32, block_k=32)),
    }

    def found(spec: Spec, backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
        given = [x.to(dtype).requires_grad_() for x in leaves]
        out, lse = attend(*given, spec=spec, return_lse=True, backend=backend)
        loss = (out * d_out.to(dtype)).sum() + (lse * d_lse.to(dtype)).sum()
        return [x.double() for x in (out, lse, *torch.autograd.grad(loss, given))]

    errors = {}
    for label, spec in specs.items():
        truth = found(spec, "reference", torch.float64)
        probe = [x.clone().requires_grad_() for x in leaves]
        for name, backend in BACKENDS.items():
            if name in ("flex", "triton"):  # compiled for long, and interpreted, on a processor
                continue
            if backend.why_not(*probe, spec=spec, return_lse=True) is None:
                ours = found(spec, name, torch.float32)
                errors[f"{name}: {label}"] = max(
                    float((a - b).detach().abs().max()) for a, b in zip(ours, truth, strict=True)
                )
    return errors


def _step(way: str) -> dict[str, Any]:
    """Seconds of forward and backward, and the loss."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from unspool.attention.flash import Flash
    from unspool.extension import extend

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=4, n_positions=STEP_TOKENS, vocab_size=4096, attn_pdrop=0.0, embd_pdrop=0.0,
        resid_pdrop=0.0, use_cache=False, attn_implementation="eager", bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    ids = torch.randint(0, config.vocab_size, (1, STEP_TOKENS))
    seconds = []
    loss = 0.0
    with extend(model, Flash()) if way == "ours" else nullcontext():
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            found = model(input_ids=ids, labels=ids).loss
            found.backward()
            seconds.append(time.perf_counter() - began)
            loss = float(found.detach())
            model.zero_grad()
    return {"seconds": statistics.median(seconds[1:]), "loss": loss}
