"""Which keys a query may meet, as data: every mechanism states its pattern in one of these.

What: causality, a window or its complement, sinks, documents and an explicit mask, all in terms of
positions, so that padding, eviction and chunked reading need no special cases.
Source: the patterns of Longformer (window, global), StreamingLLM and LM-Infinite (sinks), and
packed training (documents); the bottom-right alignment is that of every cached decoder.
Differs from mask tensors: nothing of size T x S exists until a back-end asks for it.
Shapes: B batch, T queries, S keys; positions are int64 [B, T] and [B, S], -1 is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spec:
    """A visibility pattern. A pair must satisfy every rule that is set."""

    causal: bool = True
    """A key is visible from its own position on."""
    window: int | None = None
    """Only keys nearer than this: distance < window."""
    beyond: int | None = None
    """Only keys at least this far back: the complement of a window."""
    sinks: int = 0
    """Keys at positions below this stay visible whatever `window` says."""
    q_positions: Tensor | None = None
    """[B, T], -1 for padding; None: the last T of S positions, no padding."""
    k_positions: Tensor | None = None
    """[B, S], -1 for padding and empty slots; None: 0..S-1."""
    q_documents: Tensor | None = None
    """[B, T] document numbers of a packed row: a query meets keys of its own document only."""
    k_documents: Tensor | None = None
    """[B, S], as `q_documents`."""
    mask: Tensor | None = None
    """[B|1, H|1, T, S] bool, True is visible; in addition to the rules above."""

    def __post_init__(self) -> None:
        for name in ("window", "beyond"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Spec needs {name} >= 1, got {name}={value}.")
        if self.sinks < 0:
            raise ConfigError(f"Spec needs sinks >= 0, got sinks={self.sinks}.")
        if (self.q_documents is None) != (self.k_documents is None):
            raise ConfigError("Spec needs q_documents and k_documents together, got only one.")

    @property
    def plain(self) -> bool:
        """Causality (or nothing) is the only rule, over unpadded positions."""
        return (
            self.window is None
            and self.beyond is None
            and self.q_positions is None
            and self.k_positions is None
            and self.q_documents is None
            and self.mask is None
        )


def visible(
    spec: Spec, num_queries: int, num_keys: int, device: torch.device, rows: slice | None = None
) -> Tensor | None:
    """The pattern as a bool mask, True where a query may look; None where it may look everywhere.

    Args:
        spec: The pattern.
        num_queries: T.
        num_keys: S.
        device: Where to build the mask.
        rows: Only these queries; None: all of them.

    Returns:
        [B|1, H|1, rows, S].
    """
    import torch

    if spec.plain and not spec.causal:
        return None
    if spec.plain and num_queries == 1:
        return None  # bottom-right aligned: the one query is the newest position
    if spec.q_positions is None:
        q = torch.arange(num_keys - num_queries, num_keys, device=device)[None]
    else:
        q = spec.q_positions.to(device)
    k = torch.arange(num_keys, device=device)[None]
    if spec.k_positions is not None:
        k = spec.k_positions.to(device)
    if rows is not None:
        q = q[:, rows]
    distance = q[:, :, None] - k[:, None, :]
    seen = (k >= 0)[:, None, :].expand_as(distance)
    if spec.causal:
        seen = seen & (distance >= 0)
    if spec.window is not None:
        near = distance < spec.window
        if spec.sinks:
            near = near | (k < spec.sinks)[:, None, :]
        seen = seen & near
    if spec.beyond is not None:
        seen = seen & (distance >= spec.beyond)
    if spec.q_documents is not None and spec.k_documents is not None:
        q_documents = spec.q_documents.to(device)
        if rows is not None:
            q_documents = q_documents[:, rows]
        seen = seen & (q_documents[:, :, None] == spec.k_documents.to(device)[:, None, :])
    if spec.q_positions is not None:
        seen = seen & (q >= 0)[:, :, None]  # a padded query meets nothing
    seen = seen[:, None]
    if spec.mask is not None:
        extra = spec.mask.to(device)
        seen = seen & (extra if rows is None else extra[:, :, rows])
    return seen
