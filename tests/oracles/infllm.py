"""InfLLM by explicit loops in float64, one token and one head at a time. Slow and plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.oracles.distances import turn


@dataclass
class Trace:
    """What the loops saw."""

    out: np.ndarray
    """[Hq, T, D]."""
    met: list[list[int]] = field(default_factory=list)
    """Key positions that each query met, in any order."""
    chosen: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    """(first query, last query, blocks) of each execution block that had blocks to meet."""
    margin: float = math.inf
    """Least difference between the score of the last block chosen and of the next."""
    vectors: list[np.ndarray] = field(default_factory=list)


def infllm(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    inv_freq: np.ndarray,
    *,
    local: int,
    init: int,
    block: int,
    top_k: int,
    representatives: int,
    exec_block: int,
    score: str = "prob",
    cuts: Sequence[int] = (),
    every: int = 1,
) -> Trace:
    """Attention of q [Hq, T, D] over k, v [Hkv, T, D], all raw.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        inv_freq: Of the rotation.
        local: Window.
        init: First tokens.
        block: Tokens a block.
        top_k: Blocks an execution block meets.
        representatives: Tokens that stand for a block.
        exec_block: Queries that look up together.
        score: "prob" or "logit".
        cuts: Where the input was cut into calls; an execution block ends there too.
        every: Calls of one token that share a look-up.
    """
    num_heads, total, dim = q.shape
    groups = num_heads // k.shape[0]
    first: list[int] = []
    rest: list[int] = []
    blocks: list[list[int]] = []
    scores = np.zeros((num_heads, total))
    trace = Trace(out=np.zeros((num_heads, total, v.shape[2])))
    ends = sorted({*cuts, total})
    start = age = known = 0
    held: list[int] = []
    while start < total:
        end = min((start // exec_block + 1) * exec_block, next(e for e in ends if e > start))
        rest += range(start, end)
        far_q = np.array(
            [
                [turn(q[h, i], local - 1, inv_freq) for i in range(start, end)]
                for h in range(num_heads)
            ]
        )
        if blocks:
            if end - start > 1 or known != len(blocks) or age >= every:
                mean = far_q.mean(axis=1).reshape(-1)
                value = np.array([mean @ m for m in trace.vectors])
                order = sorted(range(len(blocks)), key=lambda b: (-value[b], b))
                held = sorted(order[:top_k])
                if len(order) > top_k:
                    gap = value[order[top_k - 1]] - value[order[top_k]]
                    trace.margin = min(trace.margin, float(gap))
                age, known = 0, len(blocks)
            age += 1
            trace.chosen.append((start, end - 1, tuple(held)))
        far_keys = first + [j for b in held for j in blocks[b]]
        for i in range(start, end):
            near = [j for j in rest if 0 <= i - j < local]
            far = far_keys + [j for j in rest if i - j >= local]
            trace.met.append(near + far)
            for h in range(num_heads):
                g = h // groups
                logits = [float(turn(q[h, i], i - j, inv_freq) @ k[g, j]) for j in near]
                if score == "logit":
                    for j, value_ in zip(near, logits, strict=True):
                        scores[h, j] += value_
                logits += [float(far_q[h, i - start] @ k[g, j]) for j in far]
                s = np.array(logits) / math.sqrt(dim)
                p = np.exp(s - s.max())
                p /= p.sum()
                trace.out[h, i] = p @ np.array([v[g, j] for j in near + far])
                if score == "prob":
                    for j, p_ in zip(near, p, strict=False):
                        scores[h, j] += p_
        while len(rest) > local and len(first) < init:
            first.append(rest.pop(0))
        while len(first) == init and len(rest) - block >= local:
            cut, rest = rest[:block], rest[block:]
            blocks.append(cut)
            vector = []
            for h in range(num_heads):
                best = sorted(cut, key=lambda j: -scores[h, j])[:representatives]
                vector.append(np.mean([k[h // groups, j] for j in best], axis=0))
            trace.vectors.append(np.concatenate(vector))
        start = end
    return trace
