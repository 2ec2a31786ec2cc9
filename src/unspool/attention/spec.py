"""Which keys a query may meet, as data: every mechanism states its pattern in one of these.

What: causality, a window or its complement, sinks, global tokens, documents, block lists and an
explicit mask, all in terms of positions, so that padding, eviction and chunked reading need no
special cases; and what is done to the scores besides: soft cap and dropout.
Source: the patterns of Longformer (window, global), StreamingLLM and LM-Infinite (sinks),
FlashAttention (block lists) and packed training (documents); the bottom-right alignment is that of
every cached decoder.
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

    from unspool.attention.blocks import BlockMask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Spec:
    """A visibility pattern. A pair must satisfy every rule that is set."""

    causal: bool = True
    """A key is visible from its own position on."""
    window: int | None = None
    """Only keys nearer than this: distance < window, the distance being query - key position."""
    right: int | None = None
    """Only keys at most this far ahead, for patterns that are not causal: distance >= -right."""
    beyond: int | None = None
    """Only keys at least this far back: the complement of a window."""
    sinks: int = 0
    """Keys at positions below this stay visible whatever `window` and `right` say."""
    q_global: Tensor | None = None
    """[B|1, T] bool: queries that `window` and `right` do not bind."""
    k_global: Tensor | None = None
    """[B|1, S] bool: keys that `window` and `right` hide from nobody."""
    q_positions: Tensor | None = None
    """[B, T], -1 for padding; None: the last T of S positions, no padding."""
    k_positions: Tensor | None = None
    """[B, S], -1 for padding and empty slots; None: 0..S-1."""
    q_documents: Tensor | None = None
    """[B|1, T] document numbers of a packed row: a query meets keys of its own document only."""
    k_documents: Tensor | None = None
    """[B|1, S], as `q_documents`."""
    cu_seqlens: Tensor | None = None
    """int32 [documents + 1], the boundaries that `packed` made the documents from, where queries
    and keys share them: kernels for packed rows read it. Decides nothing."""
    max_seqlen: int | None = None
    """Longest document between the boundaries, as `cu_seqlens`."""
    mask: Tensor | None = None
    """[B|1, H|1, T, S] bool, True is visible; in addition to the rules above."""
    blocks: BlockMask | None = None
    """Only keys of the listed blocks; in addition to the rules above."""
    softcap: float | int | None = None
    """Scores become softcap * tanh(score / softcap) before they are masked."""
    dropout: float | int = 0.0
    """Probability that a weight is zeroed after the softmax, the others growing in proportion."""
    seed: int = 0
    """Of `dropout`: the same seed drops the same weights in every back-end, and in backward."""
    deterministic: bool = False
    """Gradients must be the same bits every time: no atomic sums."""

    def __post_init__(self) -> None:
        for name in ("window", "beyond"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Spec needs {name} >= 1, got {name}={value}.")
        if self.right is not None and self.right < 0:
            raise ConfigError(f"Spec needs right >= 0, got right={self.right}.")
        if self.softcap is not None and self.softcap <= 0:
            raise ConfigError(f"Spec needs softcap > 0, got softcap={self.softcap}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"Spec needs 0 <= dropout < 1, got dropout={self.dropout}.")
        if self.sinks < 0:
            raise ConfigError(f"Spec needs sinks >= 0, got sinks={self.sinks}.")
        if (self.q_documents is None) != (self.k_documents is None):
            raise ConfigError("Spec needs q_documents and k_documents together, got only one.")

    @classmethod
    def packed(
        cls,
        cu_seqlens: Tensor,
        cu_seqlens_k: Tensor | None = None,
        *,
        num_queries: int,
        num_keys: int | None = None,
        max_seqlen: int | None = None,
        causal: bool = False,
        window: int | None = None,
        right: int | None = None,
    ) -> Spec:
        """Documents one behind the other in a single row, none of which sees another.

        Args:
            cu_seqlens: [documents + 1] integers from 0: document i is rows cu_seqlens[i] …
                cu_seqlens[i + 1] - 1. Rows past the last boundary are padding.
            cu_seqlens_k: The same for keys; None: as the queries. The last query of a document
                stands at its last key.
            num_queries: T.
            num_keys: S; None: T.
            max_seqlen: Longest document, if the caller knows it: kernels for packed rows need it.
            causal: As the field.
            window: As the field.
            right: As the field.
        """
        for name, given in (("cu_seqlens", cu_seqlens), ("cu_seqlens_k", cu_seqlens_k)):
            if given is not None and (given.ndim != 1 or given.numel() < 2):
                raise ConfigError(
                    f"Spec.packed needs {name} of shape [documents + 1], got {tuple(given.shape)}."
                )
        num_keys = num_queries if num_keys is None else num_keys
        if cu_seqlens_k is None and num_keys != num_queries:
            raise ConfigError(
                f"{num_queries} queries and {num_keys} keys need cu_seqlens_k, got none."
            )
        q_documents, q_offset = _documents(cu_seqlens, num_queries)
        if cu_seqlens_k is None:
            return cls(
                q_documents=q_documents,
                k_documents=q_documents.masked_fill(q_documents < 0, -2),  # padding meets nothing
                cu_seqlens=cu_seqlens.int(),
                max_seqlen=max_seqlen,
                causal=causal,
                window=window,
                right=right,
            )
        if cu_seqlens_k.numel() != cu_seqlens.numel():
            raise ConfigError(
                f"cu_seqlens has {cu_seqlens.numel() - 1} documents and cu_seqlens_k "
                f"{cu_seqlens_k.numel() - 1}."
            )
        k_documents, k_offset = _documents(cu_seqlens_k, num_keys)
        longer = (cu_seqlens_k.diff() - cu_seqlens.diff()).long()
        # Positions start where the first query and the first key of a document are both >= 0.
        q_shift, k_shift = longer.clamp(min=0), (-longer).clamp(min=0)
        return cls(
            q_documents=q_documents,
            k_documents=k_documents,
            q_positions=_shifted(q_documents, q_offset, q_shift),
            k_positions=_shifted(k_documents, k_offset, k_shift),
            causal=causal,
            window=window,
            right=right,
        )

    @property
    def unmasked(self) -> bool:
        """Causality (or nothing) is the only rule of visibility, over unpadded positions."""
        return (
            self.window is None
            and self.right is None
            and self.beyond is None
            and self.q_positions is None
            and self.k_positions is None
            and self.q_documents is None
            and self.mask is None
            and self.blocks is None
        )

    @property
    def plain(self) -> bool:
        """`unmasked`, and the scores are left as they are."""
        return self.unmasked and self.softcap is None and not self.dropout


def _documents(cu_seqlens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Document number, -1 past the last boundary, and offset in the document: [1, length] each."""
    import torch

    row = torch.arange(length, device=cu_seqlens.device)
    bounds = cu_seqlens.long()
    number = torch.searchsorted(bounds, row, right=True) - 1
    offset = row - bounds[number]
    return number.masked_fill(row >= bounds[-1], -1)[None], offset[None]


def _shifted(number: Tensor, offset: Tensor, shift: Tensor) -> Tensor:
    """Positions [1, length]: offset in the document and its shift, -1 at padding."""
    at = offset + shift[number.clamp(min=0)]
    return at.masked_fill(number < 0, -1)


def visible(
    spec: Spec,
    num_queries: int,
    num_keys: int,
    device: torch.device,
    rows: slice | None = None,
    num_heads: int | None = None,
) -> Tensor | None:
    """The pattern as a bool mask, True where a query may look; None where it may look everywhere.

    Args:
        spec: The pattern.
        num_queries: T.
        num_keys: S.
        device: Where to build the mask.
        rows: Only these queries; None: all of them.
        num_heads: Hq, for block lists that are one a key-value head; None: leave them so.

    Returns:
        [B|1, H|1, rows, S].
    """
    import torch

    if spec.unmasked and not spec.causal:
        return None
    if spec.unmasked and num_queries == 1:
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
    if spec.window is not None or spec.right is not None:
        seen = seen & _near(spec, distance, k, rows)
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
    if spec.blocks is not None:
        listed = spec.blocks.to(device).dense(num_queries, num_keys, rows)
        if num_heads is not None and listed.shape[1] not in (1, num_heads):
            if num_heads % listed.shape[1]:
                raise ConfigError(
                    f"Block lists of {listed.shape[1]} heads do not fit {num_heads} query heads."
                )
            listed = listed.repeat_interleave(num_heads // listed.shape[1], dim=1)
        seen = seen & listed
    return seen


def _near(spec: Spec, distance: Tensor, k: Tensor, rows: slice | None) -> Tensor:
    """Pairs within `window` and `right`, or excused from them."""
    import torch

    near = torch.ones_like(distance, dtype=torch.bool)
    if spec.window is not None:
        near = near & (distance < spec.window)
    if spec.right is not None:
        near = near & (distance >= -spec.right)
    if spec.sinks:
        near = near | (k < spec.sinks)[:, None, :]
    if spec.k_global is not None:
        near = near | spec.k_global.to(distance.device)[:, None, :]
    if spec.q_global is not None:
        q_global = spec.q_global.to(distance.device)
        near = near | (q_global if rows is None else q_global[:, rows])[:, :, None]
    return near
