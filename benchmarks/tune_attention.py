"""`python -m benchmarks.tune_attention`: time the tile sizes of the dense Triton kernels on a GPU.

Every candidate is compiled by several processes first, then timed alone on one shape, beside the
vendor's kernels. The fastest are copied into `unspool.attention.flash.configs` by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_attention import dense, measured, milliseconds

FORWARD = {
    64: ((64, 128, 4, 2), (128, 64, 4, 3), (128, 128, 8, 2), (64, 64, 4, 3), (128, 64, 4, 2)),
    128: ((64, 64, 4, 3), (64, 64, 4, 2), (128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 4, 3)),
}
DQ = {
    64: ((128, 64, 8, 3), (64, 64, 4, 3), (128, 64, 4, 2), (64, 128, 4, 2)),
    128: ((128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 4, 2), (64, 64, 4, 3)),
}
DKDV = {
    64: ((64, 128, 8, 3), (64, 64, 4, 2), (32, 128, 4, 3), (64, 128, 8, 2), (64, 64, 4, 3)),
    128: ((64, 128, 8, 3), (64, 128, 8, 2), (64, 64, 4, 2), (32, 128, 8, 3)),
}


def candidates() -> Iterator[tuple[str, int, bool, tuple[int, int, int, int]]]:
    """(kernel, head size, causal, tiles)."""
    for name, table in (("forward", FORWARD), ("dq", DQ), ("dkdv", DKDV)):
        for head_dim, rows in table.items():
            for causal in (True, False):
                for row in rows:
                    yield name, head_dim, causal, row


def runner(name: str, head_dim: int, causal: bool, row: Any, tokens: int) -> Callable[[], object]:
    """One launch of one kernel with these tiles."""
    import torch

    from unspool.attention.flash import configs
    from unspool.attention.flash import dense as kernels
    from unspool.attention.flash.launch import row_facts
    from unspool.attention.spec import Spec

    heads = 2048 // head_dim
    spec, scale = Spec(causal=causal), head_dim**-0.5
    q, k, v, d_out = (
        torch.randn(1, heads, tokens, head_dim, device="cuda", dtype=torch.bfloat16)
        for _ in range(4)
    )
    cut = configs.Tiles(*row)
    if name == "forward":
        table, call = configs.DENSE_FORWARD, partial(kernels.dense_forward, q, k, v, spec, scale)
        return partial(_with, table, head_dim, cut, call)
    out, lse = kernels.dense_forward(q, k, v, spec, scale)
    facts = row_facts(out, d_out, lse, None)
    table, kernel = {
        "dq": (configs.DENSE_DQ, kernels.dense_dq),
        "dkdv": (configs.DENSE_DKDV, kernels.dense_dkdv),
    }[name]
    return partial(_with, table, head_dim, cut, partial(kernel, q, k, v, d_out, facts, spec, scale))


def _with(table: dict[int, Any], head_dim: int, cut: Any, call: Callable[[], object]) -> object:
    held, table[head_dim] = table[head_dim], cut
    try:
        return call()
    finally:
        table[head_dim] = held


def work(name: str, head_dim: int, causal: bool, tokens: int) -> float:
    """Operations: 4, 6 and 8 a channel and pair; half of the pairs under causality."""
    pairs = tokens * tokens / (2 if causal else 1) * (2048 // head_dim)
    return {"forward": 4, "dq": 6, "dkdv": 8}[name] * head_dim * pairs


def vendors(head_dim: int, causal: bool, tokens: int) -> dict[str, Any]:
    """TFLOP/s of cuDNN and of PyTorch's flash kernel, forward and backward."""
    found = {}
    for backward in (False, True):
        work_ = dense(tokens, head_dim, causal=causal, backward=backward)
        for name, row in measured(work_, ("cudnn", "torch-flash"), seconds=0.12).items():
            label = f"{name} {'backward' if backward else 'forward'}"
            found[label] = row.get("tflops", row.get("error"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--share", type=int, help="compile this share only")
    parser.add_argument("--out", type=Path, help="JSON lines of what was measured")
    options = parser.parse_args()
    every = list(candidates())
    if options.share is not None:
        for candidate in every[options.share :: options.jobs]:
            try:
                runner(*candidate, 256)()
            except Exception as error:
                sys.stdout.write(f"{candidate}: {type(error).__name__} {str(error)[:200]}\n")
        return 0
    command = [sys.executable, "-m", "benchmarks.tune_attention", "--jobs", str(options.jobs)]
    workers = [
        subprocess.Popen([*command, "--share", str(share)], env=os.environ)
        for share in range(options.jobs)
    ]
    for worker in workers:
        worker.wait()
    rows = []
    for head_dim in (64, 128):
        for causal in (True, False):
            rows.append({"head_dim": head_dim, "causal": causal, **vendors(
                head_dim, causal, options.tokens)})  # fmt: skip
    for name, head_dim, causal, tiles in every:
        row: dict[str, Any] = {
            "kernel": name,
            "head_dim": head_dim,
            "causal": causal,
            "tiles": tiles,
        }
        try:
            ms = milliseconds(runner(name, head_dim, causal, tiles, options.tokens), 0.12)
            row["ms"], row["tflops"] = ms, work(name, head_dim, causal, options.tokens) / ms / 1e9
        except Exception as error:
            row["error"] = f"{type(error).__name__} {str(error)[:100]}"
        rows.append(row)
    lines = [json.dumps(row) for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
