"""hyper_attention: approximate attention of any length, on tensors.

What: what hashing finds large is computed exactly, the rest is estimated from a sample, and causal
attention is halved until its squares are small enough to be exact.
Source: Han et al. (2023), "HyperAttention: Long-context Attention in Near-Linear Time".
Differs from the released code: see `lsh`, `sampled`, `plan`, `parts`; queries that follow keys they
all see (a chunk of a text) meet those as one rectangle.
Cost: O(N (block + samples) D + N log N), times the depth of the recursion;
memory O(N).
Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D], Hq a multiple of Hkv.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args, overload

from unspool.attention.hyper.lsh import MAX_BITS, draw_directions
from unspool.attention.hyper.plan import Order, Settings, make_plan, windows
from unspool.attention.hyper.sampled import Draw, Drawn, Sampling
from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BACKENDS = ("auto", "torch", "triton")


@overload
def hyper_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float | None = None,
    lsh_bits: int = 7,
    block: int = 256,
    samples: int = 256,
    min_seq_len: int = 4096,
    sampling: Sampling = "uniform",
    sinks: int = 0,
    order: Order = "lsh",
    generator: torch.Generator | None = None,
    draw: Draw | None = None,
    return_lse: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...
@overload
def hyper_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float | None = None,
    lsh_bits: int = 7,
    block: int = 256,
    samples: int = 256,
    min_seq_len: int = 4096,
    sampling: Sampling = "uniform",
    sinks: int = 0,
    order: Order = "lsh",
    generator: torch.Generator | None = None,
    draw: Draw | None = None,
    return_lse: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...
def hyper_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float | None = None,
    lsh_bits: int = 7,
    block: int = 256,
    samples: int = 256,
    min_seq_len: int = 4096,
    sampling: Sampling = "uniform",
    sinks: int = 0,
    order: Order = "lsh",
    generator: torch.Generator | None = None,
    draw: Draw | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Approximate attention; exact where it is short. Differentiable.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D], Hq a multiple of Hkv.
        v: [B, Hkv, S, Dv].
        causal: The last query is at the last key, and none looks ahead.
        scale: Factor on the scores; None: D ** -0.5.
        lsh_bits: Random directions of the hash.
        block: Keys of a block, which a block of queries meets exactly; 0: none.
        samples: Keys that stand for the rest; 0: none, the rest is left out.
        min_seq_len: Fewer queries than this meet a rectangle of keys exactly, and a causal square
            of less than twice as many is exact.
        sampling: "uniform", or "value-norm": in proportion to the squared norms of the values.
        sinks: First keys that every query meets exactly (0 as published; 4 suits language models).
        order: What sorts: "lsh"; "centred", the same of queries and keys less their mean;
            "released" (the released code's buckets); or "random" (a control).
        generator: Of all that is random: the same seed gives the same bits. None: PyTorch's own.
        draw: Takes the place of the sampler, for tests.
        return_lse: Also return the log-sum-exp of each row, float32 (float64 for float64).
        backend: "auto", "torch", or "triton" (CUDA, half precision).

    Returns:
        [B, Hq, T, Dv], or that and [B, Hq, T].

    Raises:
        ConfigError: Settings out of range, shapes that do not fit, or a back-end that cannot run.
    """
    from unspool.attention.kernel import attend, of_one_type
    from unspool.attention.spec import Spec

    q, k, v = of_one_type(q, k, v)
    check(lsh_bits, block, samples, min_seq_len, sampling, sinks, order)
    _check_shapes(q, k, v, causal)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    settings = Settings(causal, block, samples, min_seq_len, sinks, order)
    fused = _is_fused(backend, q, v)
    if is_exact(q.shape[2], k.shape[2], settings):
        spec = Spec(causal=causal)
        if return_lse:
            return attend(q, k, v, spec=spec, scale=scale, return_lse=True)
        return attend(q, k, v, spec=spec, scale=scale)
    from unspool.attention.hyper.union import Union

    directions = draw_directions(q.shape[-1], lsh_bits, generator, q.device)
    plan = make_plan(q, k, v, settings, directions, draw or Drawn(sampling, generator), generator)
    out, lse = Union.apply(q, k, v, plan, scale, fused)
    return (out, lse) if return_lse else out


def is_exact(num_queries: int, num_keys: int, settings: Settings) -> bool:
    """Whether a call of this size approximates nothing."""
    if num_queries < settings.min_seq_len or num_keys == 0:
        return True
    return not windows(num_queries, num_keys, settings)[0]


def check(
    lsh_bits: int,
    block: int,
    samples: int,
    min_seq_len: int,
    sampling: str,
    sinks: int,
    order: str,
) -> None:
    """Refuse settings that make no sense."""
    if not 1 <= lsh_bits <= MAX_BITS:
        raise ConfigError(f"hyper needs lsh_bits from 1 to {MAX_BITS}, got lsh_bits={lsh_bits}.")
    for name, value in (("block", block), ("samples", samples), ("sinks", sinks)):
        if value < 0:
            raise ConfigError(f"hyper needs {name} >= 0, got {name}={value}.")
    if block == 0 and samples == 0:
        raise ConfigError("hyper needs block or samples above 0, or nothing is met; got neither.")
    if min_seq_len < 1:
        raise ConfigError(f"hyper needs min_seq_len >= 1, got min_seq_len={min_seq_len}.")
    for name, text, known in (
        ("sampling", sampling, get_args(Sampling)),
        ("order", order, get_args(Order)),
    ):
        if text not in known:
            raise ConfigError(f"hyper needs {name} to be one of {', '.join(known)}, got {text!r}.")


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> None:
    fits = q.ndim == k.ndim == v.ndim == 4 and k.shape[:3] == v.shape[:3]
    if not fits or q.shape[0] != k.shape[0] or q.shape[-1] != k.shape[-1]:
        raise ConfigError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit together: "
            f"hyper_attention takes [B, Hq, T, D], [B, Hkv, S, D] and [B, Hkv, S, Dv]."
        )
    if q.shape[1] % k.shape[1]:
        raise ConfigError(
            f"{q.shape[1]} query heads are not a multiple of {k.shape[1]} key-value heads."
        )
    if causal and q.shape[2] > k.shape[2]:
        raise ConfigError(
            f"Causal attention aligns the last query with the last key, and there are "
            f"{q.shape[2]:,} queries for {k.shape[2]:,} keys: the first would see nothing. Pass "
            f"the queries of these keys only."
        )


def _is_fused(backend: str, q: Tensor, v: Tensor) -> bool:
    if backend not in _BACKENDS:
        raise ConfigError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}.")
    if backend == "torch":
        return False
    from unspool.attention.hyper.fused import why_not_fused

    reason = why_not_fused(q, v)
    if backend == "triton" and reason is not None:
        raise ConfigError(f"backend='triton' can't run here: {reason}.")
    return reason is None
