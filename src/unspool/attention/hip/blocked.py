"""From chosen blocks to attention: the back-end that can take the lists, or the one that fetches.

What: pads queries to whole blocks, joins choice, sinks and window, and runs the fastest back-end.
Source: Lee et al. (2024), "HiP Attention", section 3.2.
Differs from the released code: no kernel is required; without one the keys are fetched.
Cost: O(T * kept * D). Shapes: q [B, Hq, T, D], chosen [B, H, NQ, n].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unspool.attention.backends import BACKENDS
from unspool.attention.hip.gathered import gathered_attend
from unspool.attention.hip.layout import Frame
from unspool.attention.hip.union import block_mask
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec


def attend_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chosen: Tensor,
    frame: Frame,
    *,
    scale: float,
    softcap: float | int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention over chosen blocks, sinks and window.

    Args:
        q: [B, Hq, T, D], the last T of S positions.
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        chosen: [B, Hq|Hkv, NQ, n] key blocks, -1 unused.
        frame: Of the call.
        scale: Factor on the scores.
        softcap: As `Spec.softcap`.
        backend: "gathered", or one of `attend`; "auto": a kernel that reads lists of blocks, or
            else "gathered".

    Returns:
        [B, Hq, T, Dv].
    """
    mask = block_mask(chosen, frame)
    # Causality is counted from the end, so rows are added in front only: where a block lacks some.
    padded = F.pad(q, (0, 0, frame.lead, 0)) if frame.lead else q
    spec = Spec(causal=frame.causal, blocks=mask, softcap=softcap)
    if backend == "auto":
        backend = kernel_for(padded, k, v, spec)
    if backend == "gathered":
        out, _ = gathered_attend(
            padded, k, v, mask, scale=scale, causal=frame.causal, softcap=softcap
        )
    else:
        out = attend(padded, k, v, spec=spec, scale=scale, backend=backend)
    return out[:, :, frame.lead :] if frame.lead else out


def kernel_for(q: Tensor, k: Tensor, v: Tensor, spec: Spec) -> str:
    """The back-end that reads lists of blocks here, and is made for it."""
    name = "triton" if q.device.type == "cuda" else "native"
    reason = BACKENDS[name].why_not(q, k, v, spec=spec, return_lse=False)
    return "gathered" if reason is not None else name
