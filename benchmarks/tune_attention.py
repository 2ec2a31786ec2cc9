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
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from benchmarks.bench_attention import dense, measured, milliseconds

FORWARD = {
    64: ((64, 128, 4, 2), (64, 128, 4, 2, True), (128, 128, 8, 2, True)),
    128: ((64, 64, 4, 3), (128, 128, 8, 2, True), (64, 64, 4, 2, True), (64, 128, 4, 2, True)),
}
DQ = {
    64: ((128, 64, 8, 3), (64, 64, 4, 3)),
    128: ((128, 64, 8, 3), (64, 64, 4, 3)),
}
DKDV = {
    64: ((64, 64, 4, 2), (32, 128, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2, False, True)),
    128: ((64, 64, 4, 2), (64, 128, 8, 3), (64, 64, 4, 2, False, True), (32, 64, 4, 4)),
}
TOKENS = 8192


def candidates() -> Iterator[tuple[str, int, bool, tuple[int, ...]]]:
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
    cut, at = configs.Tiles(*row), (head_dim, causal)
    if name == "forward":
        table, call = configs.DENSE_FORWARD, partial(kernels.dense_forward, q, k, v, spec, scale)
        return partial(_with, table, configs.HOPPER_FORWARD, at, cut, call)
    out, lse = kernels.dense_forward(q, k, v, spec, scale)
    facts = row_facts(out, d_out, lse, None)
    table, first, kernel = {
        "dq": (configs.DENSE_DQ, configs.HOPPER_DQ, kernels.dense_dq),
        "dkdv": (configs.DENSE_DKDV, configs.HOPPER_DKDV, kernels.dense_dkdv),
    }[name]
    call = partial(kernel, q, k, v, d_out, facts, spec, scale)
    return partial(_with, table, first, at, cut, call)


def _with(
    table: Any, first: Any, at: tuple[int, bool], cut: Any, call: Callable[[], object]
) -> object:
    """`first` is asked before `table`, where it has a row of that head size."""
    held, table[at] = table[at], cut
    before = first.pop(at[0], None)
    try:
        return call()
    finally:
        table[at] = held
        if before is not None:
            first[at[0]] = before


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


def compile_all(jobs: int) -> None:
    """Compile every candidate, in several processes."""
    command = [sys.executable, "-m", "benchmarks.tune_attention", "--jobs", str(jobs)]
    workers = [
        subprocess.Popen([*command, "--share", str(share)], env=os.environ) for share in range(jobs)
    ]
    for worker in workers:
        worker.wait()


def timed(tokens: int = TOKENS, passes: int = 2) -> list[dict[str, Any]]:
    """Milliseconds and TFLOP/s of every candidate: the better of a few passes over all of them,
    so that a cool start or a slow moment favours none."""
    rows: dict[Any, dict[str, Any]] = {}
    for name, head_dim, causal, cut in [*candidates()] * passes:
        row = rows.setdefault(
            (name, head_dim, causal, cut),
            {"kernel": name, "head_dim": head_dim, "causal": causal, "tiles": cut},
        )
        try:
            ms = milliseconds(runner(name, head_dim, causal, cut, tokens), 0.12)
            row["ms"] = min(ms, row.get("ms", ms))
            row["tflops"] = work(name, head_dim, causal, tokens) / row["ms"] / 1e9
        except Exception as error:
            row["error"] = f"{type(error).__name__} {str(error)[:100]}"
    return list(rows.values())


def use_fastest(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put the fastest tiles into the tables of this process; which they are."""
    from unspool.attention.flash import configs

    tables = {"forward": configs.DENSE_FORWARD, "dq": configs.DENSE_DQ, "dkdv": configs.DENSE_DKDV}
    chosen = {}
    for row in sorted((r for r in rows if "ms" in r), key=lambda r: -r["ms"]):  # fastest last
        tables[row["kernel"]][row["head_dim"], row["causal"]] = configs.Tiles(*row["tiles"])
        which = "causal" if row["causal"] else "full"
        chosen[f"{row['kernel']} d{row['head_dim']} {which}"] = row["tiles"]
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--share", type=int, help="compile this share only")
    options = parser.parse_args()
    if options.share is not None:
        for candidate in list(candidates())[options.share :: options.jobs]:
            try:
                runner(*candidate, 256)()
            except Exception as error:
                sys.stdout.write(f"{candidate}: {type(error).__name__} {str(error)[:200]}\n")
        return 0
    compile_all(options.jobs)
    for head_dim in (64, 128):
        for causal in (True, False):
            found = vendors(head_dim, causal, TOKENS)
            row = {"head_dim": head_dim, "causal": causal, **found}
            sys.stdout.write(json.dumps(row) + "\n")
    rows = timed()
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.write(json.dumps(use_fastest(rows)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
