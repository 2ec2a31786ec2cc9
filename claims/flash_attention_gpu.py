"""FlashAttention on a GPU: TFLOP/s beside cuDNN, PyTorch's flash kernel and FlexAttention, and a
training step beside attention written out.

Source: Dao et al. (2022), "FlashAttention", section 4; Dao (2023), "FlashAttention-2", section 4.
Differs from the papers: rivals are those of today; a step of a GPT-2-small-shaped decoder with
random weights, since no time depends on them.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from benchmarks import bench_attention as bench
from claims import Claim, Context, Figure, Measured

TOKENS = 8192
SHORT = 2048
STEP_TOKENS, LONG = 16_384, 4096

CLAIM = Claim(
    system="flash-attention",
    title="Exact attention in Triton beside cuDNN, on a GPU",
    required=(
        Figure("forward over cuDNN, heads of 64, the worse of causal and full", ">=", 0.90, "x"),
        Figure("forward over cuDNN, heads of 128, the worse of causal and full", ">=", 0.85, "x"),
        Figure("backward over cuDNN, the worst of four", ">=", 0.75, "x"),
        Figure("over PyTorch's flash kernel, the worst of eight", ">=", 1.4, "x"),
        Figure(
            f"training step of GPT-2 small at {LONG} tokens, written out over ours", ">=", 1.7, "x"
        ),
        Figure(
            "training step of GPT-2 small at 1024 tokens, written out over ours", ">=", 1.7, "x"
        ),
        *(
            Figure(f"{way}, d{dim} {kind} {tokens}: {name}", "report", unit="TFLOP/s")
            for tokens in (TOKENS, SHORT)
            for dim in (64, 128)
            for kind in ("causal", "full")
            for way in ("forward", "backward")
            for name in ("unspool", "cudnn", "torch-flash", "flex")
            if name != "flex" or (dim, tokens) == (128, TOKENS)
        ),
        Figure(
            "peak memory of forward and backward at 131072 tokens over that at 16384",
            "<=",
            9.0,
            "x",
        ),
    ),
    setup=(
        f"bfloat16, 2,048 channels in heads of 64 or 128, {TOKENS:,} tokens (the four ratios) and "
        f"{SHORT:,} in batches of 8; medians of 5 groups of calls, by events; half of the pairs "
        "count under causality, and backward counts 10 operations a channel and pair. The step: "
        f"12 layers of 768, {STEP_TOKENS:,} tokens in rows of 1,024 or {LONG:,}, forward, backward "
        "and AdamW in bfloat16."
    ),
    budget="gpu",
    packages=("torch", "triton", "transformers"),
    code=("attention/flash", "attention/kernel.py", "attention/spec.py"),
)


def run(ctx: Context) -> Measured:
    from unspool.attention.flash import configs

    tables = {"forward": configs.DENSE_FORWARD, "dQ": configs.DENSE_DQ, "dK dV": configs.DENSE_DKDV}
    facts: dict[str, Any] = {
        f"tiles, {name}": {f"d{d} {'causal' if c else 'full'}": list(t) for (d, c), t in of.items()}
        for name, of in tables.items()
    }
    roles = {
        "forward": configs.HOPPER_FORWARD,
        "dQ": configs.HOPPER_DQ,
        "dK dV": configs.HOPPER_DKDV,
    }
    for name, of in roles.items():
        facts[f"tiles in roles on Hopper, {name}"] = {f"d{d}": list(t) for d, t in of.items()}
    figures: dict[str, float | int | None] = {}
    for tokens in (TOKENS, SHORT):
        for dim in (64, 128):
            for kind in ("causal", "full"):
                for way in ("forward", "backward"):
                    name = f"{way}, d{dim} {kind} {tokens}"
                    found = ctx.step(
                        name.replace(",", "").replace(" ", "-"),
                        lambda t=tokens, d=dim, k=kind, w=way: _shape(t, d, k, w),
                    )
                    for rival, row in found.items():
                        figures[f"{name}: {rival}"] = row.get("tflops")
                        if "error" in row:
                            facts[f"{name}: {rival}"] = row["error"]

    def ratio(way: str, dims: tuple[int, ...], rival: str) -> float | None:
        found = []
        for dim in dims:
            for kind in ("causal", "full"):
                at = f"{way}, d{dim} {kind} {TOKENS}"
                ours, theirs = figures.get(f"{at}: unspool"), figures.get(f"{at}: {rival}")
                if ours is None or theirs is None:
                    return None
                found.append(ours / theirs)
        return min(found)

    at = "the worse of causal and full"
    figures[f"forward over cuDNN, heads of 64, {at}"] = ratio("forward", (64,), "cudnn")
    figures[f"forward over cuDNN, heads of 128, {at}"] = ratio("forward", (128,), "cudnn")
    figures["backward over cuDNN, the worst of four"] = ratio("backward", (64, 128), "cudnn")
    flash = [ratio(way, (64, 128), "torch-flash") for way in ("forward", "backward")]
    both = [value for value in flash if value is not None]
    figures["over PyTorch's flash kernel, the worst of eight"] = min(both) if both else None
    peaks = ctx.step("memory", lambda: {str(n): _peak(n) for n in (16_384, 131_072)})
    figures["peak memory of forward and backward at 131072 tokens over that at 16384"] = (
        peaks["131072"] / peaks["16384"]
    )
    facts["peak bytes"] = peaks
    for tokens in (1024, LONG):
        steps = {
            way: ctx.step(f"step-{tokens}-{way}", lambda w=way, n=tokens: _step(w, n))
            for way in ("eager", "ours")
        }
        facts[f"step ms at {tokens}"] = steps
        figures[f"training step of GPT-2 small at {tokens} tokens, written out over ours"] = (
            steps["eager"]["ms"] / steps["ours"]["ms"]
            if all("ms" in step for step in steps.values())
            else None
        )
    return Measured(figures, facts)


def _shape(tokens: int, dim: int, kind: str, way: str) -> dict[str, Any]:
    batch = 1 if tokens == TOKENS else 8
    work = bench.dense(
        tokens, dim, causal=kind == "causal", backward=way == "backward", batch=batch
    )
    names = ["unspool", "cudnn", "torch-flash"]
    if (dim, tokens) == (128, TOKENS):
        names.append("flex")
    return bench.measured(work, names, seconds=0.2)


def _peak(tokens: int) -> int:
    """Bytes that a forward and backward pass takes beside its inputs."""
    import torch

    from unspool.attention import Spec, attend

    leaves = [
        torch.randn(1, 2, tokens, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]

    def call() -> None:
        out, lse = attend(*leaves, spec=Spec(), return_lse=True, backend="triton")
        (out.float().sum() + lse.sum()).backward()  # type: ignore[no-untyped-call] # torch
        for leaf in leaves:
            leaf.grad = None

    call()
    return bench.peak_bytes(call) or 0


def _step(way: str, tokens: int) -> dict[str, Any]:
    """Milliseconds of a training step."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from unspool.attention.flash import Flash
    from unspool.extension import extend

    torch.manual_seed(0)
    config = GPT2Config(
        n_positions=tokens, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, use_cache=False,
        attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to("cuda", torch.bfloat16).train()
    ids = torch.randint(0, config.vocab_size, (STEP_TOKENS // tokens, tokens), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        with extend(model, Flash(backend="triton")) if way == "ours" else nullcontext():
            return {"ms": bench.milliseconds(step, 1.5), "peak_bytes": bench.peak_bytes(step)}
    except Exception as error:  # kept beside the figures that there are
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
