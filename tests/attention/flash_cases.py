"""Calls that the kernels are tried on, each with its pattern in two forms that share no code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tests.oracles import attention as oracle
from unspool.attention.blocks import BlockMask
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes, rules, and what they mean as a dense pattern."""

    name: str
    queries: int = 37
    keys: int = 53
    heads: int = 2
    kv_heads: int = 1
    batch: int = 1
    dim: int = 16
    value_dim: int = 16
    scale: float = 0.3
    rules: dict[str, Any] = field(default_factory=dict)
    """Fields of Spec that `oracle.pattern` takes under the same names."""
    more: Callable[[Case], tuple[dict[str, Any], np.ndarray | None]] | None = None
    """Further fields of Spec, and the pattern [B|1, H|1, T, S] that they stand for."""
    slow: bool = True

    def spec(self) -> tuple[Spec, np.ndarray]:
        """The rules, and the pairs that they let through."""
        fields, seen = self.more(self) if self.more else ({}, None)
        rules = {"causal": False, **self.rules}
        named = dict(rules)
        if "globals_" in named:
            chosen = torch.from_numpy(named.pop("globals_"))
            first = self.keys - self.queries
            named["k_global"], named["q_global"] = chosen[None], chosen[None, first:]
        for name, field_ in (("q_at", "q_positions"), ("k_at", "k_positions")):
            if name in named:
                named[field_] = torch.from_numpy(named.pop(name))[None]
        for name in ("q_documents", "k_documents"):
            if name in named:
                named[name] = torch.from_numpy(named[name])[None]
        dense = oracle.pattern(self.queries, self.keys, **rules)[None, None]
        dense = dense if seen is None else dense & seen
        return Spec(**named, **fields), dense


def inputs(case: Case, seed: int = 0) -> tuple[np.ndarray, ...]:
    """q, k, v and the gradients of output and log-sum-exp."""
    rng = np.random.default_rng(seed)
    b, h, g = case.batch, case.heads, case.kv_heads
    return (
        rng.standard_normal((b, h, case.queries, case.dim)),
        rng.standard_normal((b, g, case.keys, case.dim)),
        rng.standard_normal((b, g, case.keys, case.value_dim)),
        rng.standard_normal((b, h, case.queries, case.value_dim)),
        rng.standard_normal((b, h, case.queries)),
    )


def dropped(case: Case, spec: Spec) -> np.ndarray | None:
    """What dropout multiplies the weights by."""
    if not spec.dropout:
        return None
    shape = (case.batch, case.heads, case.queries, case.keys)
    factor = np.zeros(shape)
    for b, h, i, j in np.ndindex(shape):
        word = oracle.philox_word(spec.seed, j, i, b * case.heads + h)
        factor[b, h, i, j] = (word >= spec.dropout * 2**32) / (1 - spec.dropout)
    return factor


def expected(case: Case, spec: Spec, seen: np.ndarray) -> oracle.Written:
    q, k, v, d_out, d_lse = inputs(case)
    return oracle.attention(
        q, k, v, seen, scale=case.scale, softcap=spec.softcap, factor=dropped(case, spec),
        d_out=d_out, d_lse=d_lse,
    )  # fmt: skip


def computed(
    case: Case, spec: Spec, backend: str, device: str, dtype: torch.dtype
) -> oracle.Written:
    """The same by `attend`, forward and backward."""
    arrays = inputs(case)
    q, k, v = (torch.from_numpy(x).to(device, dtype).requires_grad_() for x in arrays[:3])
    out, lse = attend(q, k, v, spec=spec, scale=case.scale, return_lse=True, backend=backend)
    d_out, d_lse = (torch.from_numpy(x).to(device) for x in arrays[3:])
    # -inf stays out of the sum, and its gradient must stay out of the rest
    loss = (out * d_out).sum() + (lse.masked_fill(lse.isneginf(), 0.0) * d_lse).sum()
    loss.backward()  # type: ignore[no-untyped-call] # torch
    found = (out, lse, q.grad, k.grad, v.grad)
    return oracle.Written(*(x.detach().double().cpu().numpy() for x in found))


def errors(found: oracle.Written, wanted: oracle.Written) -> dict[str, float]:
    """Largest difference of each part; rows that see nothing must agree exactly."""
    assert np.array_equal(np.isneginf(found.lse), np.isneginf(wanted.lse))
    result = {}
    for name in found._fields:
        a, b = getattr(found, name), getattr(wanted, name)
        finite = np.isfinite(b)
        assert np.isfinite(a[finite]).all(), name
        result[name] = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return result


def _listed(heads: int, block_q: int, block_k: int, share: float) -> Callable[[Case], Any]:
    def more(case: Case) -> tuple[dict[str, Any], np.ndarray]:
        rng = np.random.default_rng(heads * 100 + block_k)
        nq, nk = -(-case.queries // block_q), -(-case.keys // block_k)
        blocks = rng.random((case.batch, heads, nq, nk)) < share
        mask = BlockMask.from_dense(torch.from_numpy(blocks), block_q=block_q, block_k=block_k)
        seen = np.zeros((case.batch, heads, case.queries, case.keys), dtype=bool)
        for b, h in np.ndindex(case.batch, heads):
            seen[b, h] = oracle.pattern(
                case.queries, case.keys, blocks=blocks[b, h], block_q=block_q, block_k=block_k
            )
        return {"blocks": mask}, np.repeat(seen, 1 if heads == 1 else case.heads // heads, axis=1)

    return more


def _kept(heads: int, count: int) -> Callable[[Case], Any]:
    def more(case: Case) -> tuple[dict[str, Any], np.ndarray]:
        rng = np.random.default_rng(count)
        keys = np.full((case.batch, heads, count + 3), -1)
        seen = np.zeros((case.batch, heads, case.queries, case.keys), dtype=bool)
        for b, h in np.ndindex(case.batch, heads):
            chosen = rng.choice(case.keys, count - h % 2, replace=False)
            keys[b, h, : len(chosen)] = chosen
            seen[b, h][:, chosen] = True
        mask = BlockMask.kept(torch.from_numpy(keys))
        return {"blocks": mask}, np.repeat(seen, 1 if heads == 1 else case.heads // heads, axis=1)

    return more


def _masked(case: Case) -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(5)
    mask = rng.random((1, case.heads, case.queries, case.keys)) < 0.3
    return {"mask": torch.from_numpy(mask)}, mask


def _formula(**fields: Any) -> Callable[[Case], Any]:
    return lambda case: (fields, None)


def _cases() -> Iterator[Case]:
    rng = np.random.default_rng(3)
    documents = np.sort(rng.integers(0, 4, 40))
    padded = np.concatenate([np.full(3, -1), np.arange(37)])
    chosen = rng.random(53) < 0.1
    yield Case(name="everything", value_dim=24)
    yield Case(name="causal", rules={"causal": True}, slow=False)
    yield Case(name="more queries than keys", queries=53, keys=37, rules={"causal": True})
    yield Case(name="window", queries=60, keys=70, rules={"causal": True, "window": 7})
    yield Case(name="two sides", rules={"window": 7, "right": 3}, heads=4, kv_heads=2)
    yield Case(name="odd heads", dim=20, value_dim=24, rules={"causal": True, "window": 9})
    yield Case(name="sinks", rules={"causal": True, "window": 7, "sinks": 3})
    yield Case(name="beyond", rules={"causal": True, "beyond": 9})
    yield Case(name="cap and dropout", rules={"causal": True}, more=_formula(
        softcap=2.0, dropout=0.3, seed=11 << 32 | 7))  # fmt: skip
    yield Case(name="documents", queries=40, keys=40, rules={
        "causal": True, "q_documents": documents, "k_documents": documents})  # fmt: skip
    yield Case(name="padding", queries=40, keys=40, rules={
        "causal": True, "window": 20, "q_at": padded, "k_at": padded})  # fmt: skip
    yield Case(name="globals", rules={"window": 5, "right": 5, "globals_": chosen})
    yield Case(name="mask", more=_masked)
    yield Case(name="blocks", rules={"causal": True}, queries=40, keys=40, more=_listed(
        1, 16, 16, 0.5), slow=False)  # fmt: skip
    yield Case(name="blocks a key head", heads=4, kv_heads=2, more=_listed(2, 24, 48, 0.6))
    yield Case(name="blocks a query head", heads=4, kv_heads=2, batch=2, more=_listed(
        4, 16, 32, 0.5))  # fmt: skip
    yield Case(name="runs of two", queries=40, keys=70, rules={"causal": True}, more=_listed(
        2, 32, 2, 0.3), slow=False)  # fmt: skip
    yield Case(name="kept keys", queries=7, heads=4, kv_heads=2, more=_kept(4, 20))
    yield Case(name="kept keys a key head", queries=5, heads=4, kv_heads=2, more=_kept(2, 11))


CASES = {case.name: case for case in _cases()}
