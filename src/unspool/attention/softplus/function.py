"""The call: softplus attention on tensors, by the kernel where it can run, else the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from unspool.attention.kernel import attend, check_shapes, of_one_type
from unspool.attention.softplus.reference import (
    Phi,
    Scale,
    SoftplusConfig,
    reference_softplus,
    row_scale,
)
from unspool.attention.spec import Spec
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Backend = Literal["auto", "reference", "triton"]


def softplus_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    p: float | int = 15,
    offset: float | int = 1.0,
    scale: Scale | float | int = "log",
    phi: Phi = "softplus",
    causal: bool = True,
    reweight: bool = True,
    normalise: bool = True,
    spec: Spec | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """LSSA (`reweight=False`) or LSSAR, and the family that they are members of.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D], Hq a multiple of Hkv.
        v: [B, Hkv, S, Dv].
        p: Power of the re-weighting, at least 1.
        offset: Subtracted before the power; 1 is the level of equal weights.
        scale: "log", "log-n", "plain" or a number: see `SoftplusConfig`.
        phi: "softplus", "exp", "relu" or "sigmoid".
        causal: Bottom-right aligned. Not causal: a row counts all keys that it may see.
        reweight: The second stage.
        normalise: Divide rows by their sum; False only without re-weighting.
        spec: A whole pattern (padding, windows, documents) in place of `causal`.
        backend: "auto", "reference" or "triton".

    Returns:
        [B, Hq, T, Dv]; 0 in a row that sees nothing.

    Raises:
        ConfigError: Options out of range, shapes that do not fit, or a back-end that cannot run.
    """
    q, k, v = of_one_type(q, k, v)
    check_shapes(q, k, v)
    config = SoftplusConfig(
        p=p, offset=offset, scale=scale, phi=phi, reweight=reweight, normalise=normalise
    )
    return attend_softplus(
        q, k, v, spec=Spec(causal=causal) if spec is None else spec, config=config, backend=backend
    )


def attend_softplus(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    spec: Spec,
    config: SoftplusConfig,
    backend: Backend = "auto",
) -> Tensor:
    """`softplus_attention` for settings that were checked."""
    from unspool.attention.softplus.fused import fused_softplus, seen_keys, simple, why_not_triton

    if backend not in ("auto", "reference", "triton"):
        raise ConfigError(f"backend must be auto, reference or triton, got {backend!r}.")
    if spec.softcap is not None or spec.dropout:
        raise ConfigError("Softplus attention has neither a soft cap nor dropout.")
    if (spec.mask is not None and spec.mask.shape[1] > 1) or spec.blocks is not None:
        raise ConfigError("Softplus attention counts the keys of a row: one pattern for all heads.")
    if backend != "reference":
        reason = why_not_triton(q, k, v, spec, config)
        if reason is None and (backend == "triton" or q.is_cuda):
            return fused_softplus(q, k, v, spec=spec, config=config)
        if backend == "triton":
            raise ConfigError(f"backend='triton' can't run here: {reason}.")
        if config.phi == "exp" and config.normalise and not config.reweight and simple(spec):
            # A softmax of rows scaled one by one: the exact kernel's, with the scale in q.
            seen = seen_keys(spec, q, k.shape[2])
            factor = row_scale(config, q.shape[-1], seen)[:, None, :, None].to(q.dtype)
            return attend(q * factor, k, v, spec=spec, scale=1.0)
    return reference_softplus(q, k, v, spec=spec, config=config)
