"""The attention call of a packed row: what a padding-free model's layers run.

What: the packed row that a forward pass works on, handed down as a keyword argument and, for
modules that swallow keyword arguments, per thread; and the call itself.
Source: this project's own contract (slot `layout`).
Differs from a mask: sentences are told by boundaries, so a row of any length costs no T x T mask,
and no mask function can forget them.
Cost: that of `varlen_attend`. Shapes: q [1, Hq, T, D]; the function returns [1, T, Hq, D].
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.attention.padding_free.varlen import VarlenBackend, varlen_attend
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unspool.attention.padding_free.layout import Layout

KEY = "unspool_packed"
"""Name of the keyword argument."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """The layout of a forward pass, and the back-end that the method names."""

    layout: Layout
    backend: VarlenBackend = "auto"
    met: list[Tensor] | None = None
    """While a model is tried: a place for the queries that reach this project's attention."""


class _Now(threading.local):
    def __init__(self) -> None:
        self.row: PackedRow | None = None


_now = _Now()


@contextmanager
def packed(row: PackedRow) -> Iterator[None]:
    """While it lasts, this thread's attention calls belong to a packed row."""
    before, _now.row = _now.row, row
    try:
        yield
    finally:
        _now.row = before


def packed_now() -> PackedRow | None:
    """The packed row of this thread's forward pass; None: there is none."""
    return _now.row


def packed_attention(
    module: nn.Module,
    row: PackedRow,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    dropout: float | int,
    bias: Tensor | None,
) -> Tensor:
    """Attention inside each sentence, [1, T, Hq, D].

    Raises:
        UnspoolError: The module attends to something else than the packed row.
    """
    tokens = row.layout.position_ids.shape[0]
    if q.shape[0] != 1 or q.shape[2] != tokens or k.shape[2] != tokens:
        raise UnspoolError(
            f"{type(module).__name__} attends with {tuple(q.shape)} queries and {tuple(k.shape)} "
            f"keys to a packed row of {tokens} tokens: padding-free execution does not fit it."
        )
    if row.met is not None:
        row.met.append(q)
    out = varlen_attend(
        q,
        k,
        v,
        row.layout,
        causal=causal,
        window=window,
        bias=bias,
        scale=scale,
        dropout=dropout,
        backend=row.backend,
    )
    return out.transpose(1, 2)
