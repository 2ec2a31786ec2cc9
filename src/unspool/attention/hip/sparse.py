"""Attention over chosen blocks of keys, while a text is read and while one is written.

What: each block of queries meets the first keys, the newest keys, and what a chooser picked between
them, in one softmax; a written token reuses the last choice for some steps.
Source: Lee et al. (2024), "HiP Attention", sections 3.2 and 3.3.
Differs from the released code: rows of a padded batch are taken one by one, from their own first
key, so that each gives what it gives alone; the newest keys of a reused choice reach back to where
they began when it was made, so no key falls between choice and window; queries that would meet
every key anyway are attended densely.
Cost: that of the chooser, and O(T * (k_tokens + window + sink) * D). Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unspool.attention.hip.blocked import attend_blocks
from unspool.attention.hip.kernel import triton_meet, why_not_meet
from unspool.attention.hip.layout import BlockLayout, Frame
from unspool.attention.hip.search import UNUSED, Chooser, take_rows
from unspool.attention.hip.union import share_heads
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.caches.chosen import Choice, ChosenStore
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.attention.call import Call


@dataclass(frozen=True, slots=True)
class Blocks:
    """A pattern of chosen blocks: its sizes, and who chooses."""

    layout: BlockLayout
    chooser: Chooser
    dense_below: int = 0
    """Queries at positions below this meet every key."""
    share: bool = False
    """Query heads that share keys meet what any of them chose."""
    softcap: float | int | None = None
    backend: str = "auto"

    def read(self, q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool = True) -> Tensor:
        """Many queries at the end of the keys (of sequences without padding): [B, Hq, T, Dv]."""
        num_queries, num_keys = q.shape[2], k.shape[2]
        frame = self.layout.frame(num_queries, num_keys, causal=causal)
        exact = self._exact_rows(frame)
        if exact == num_queries:
            spec = Spec(causal=causal, softcap=self.softcap)
            return attend(q, k, v, spec=spec, scale=scale)
        parts = []
        if exact:
            end = num_keys - num_queries + exact
            spec = Spec(causal=True, softcap=self.softcap)
            some = (q[:, :, :exact], k[:, :, :end], v[:, :, :end])
            parts.append(attend(*some, spec=spec, scale=scale))
            q = q[:, :, exact:]
            frame = self.layout.frame(num_queries - exact, num_keys, causal=causal)
        chosen = self.choose(q, k, frame, scale)
        parts.append(
            attend_blocks(
                q, k, v, chosen, frame, scale=scale, softcap=self.softcap, backend=self.backend
            )
        )
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def choose(self, q: Tensor, k: Tensor, frame: Frame, scale: float) -> Tensor:
        """Key blocks [B, H, NQ, n] that blocks of queries meet beside sinks and window."""
        chosen = self.chooser(q, k, frame, scale)[-1]
        return share_heads(chosen, k.shape[1]) if self.share else chosen

    def write(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, last: Choice | None
    ) -> tuple[Tensor, Choice | None]:
        """One query at the end of the keys, and the choice that it met (None: it met every key)."""
        num_keys = k.shape[2]
        near = max(0, min(num_keys - self.layout.window, num_keys - 1)) // self.layout.block_k
        searched = near - self.layout.sink // self.layout.block_k
        if num_keys <= self.dense_below or searched <= self.layout.num_kept:
            spec = Spec(causal=False, softcap=self.softcap)
            return attend(q, k, v, spec=spec, scale=scale), None
        stage = 0 if last is None else _due(last.age, self.chooser.refresh)
        if last is not None and stage is None:
            choice = last
        else:
            frame = self.layout.frame(1, num_keys, block_q=1)
            choice = self._choice(q, k, v, frame, scale, last if stage else None, stage or 0)
        out = self._meet(q, k[:, :, choice.near :], v[:, :, choice.near :], choice, scale)
        return out, replace(choice, age=choice.age + 1)

    def attended(self, num_keys: int, choice: Choice | None, *, reading: bool) -> int:
        """Keys that the query at the end of `num_keys` keys met."""
        if choice is not None:
            far = choice.k.shape[2] if choice.seen is None else int(choice.seen[0].sum(-1).max())
            return min(num_keys, far + num_keys - choice.near)
        if not reading:
            return num_keys
        frame = self.layout.frame(1, num_keys)
        if num_keys <= self.dense_below:
            return num_keys
        far = min(int(frame.searched), self.layout.num_kept) + frame.low
        return min(num_keys, num_keys - int(frame.near - far) * self.layout.block_k)

    def _exact_rows(self, frame: Frame) -> int:
        """First rows that meet every key: by the crossover, or because nothing is left out."""
        if not frame.causal:
            whole = int(frame.searched[0]) <= self.layout.num_kept
            return frame.num_queries if whole else 0
        if int(frame.searched[-1]) <= self.layout.num_kept:
            return frame.num_queries
        crossover = -(-self.dense_below // frame.block_q) * frame.block_q
        return min(frame.num_queries, max(0, crossover - frame.start))

    def _choice(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        frame: Frame,
        scale: float,
        last: Choice | None,
        stage: int,
    ) -> Choice:
        unit = self.layout.block_k
        if last is not None:  # earlier stages stay, and with them the range that they searched
            frame = replace(frame, near=torch.full_like(frame.near, last.near // unit))
        given = [x[:, :, None] for x in last.trail[:stage]] if last is not None else []
        with torch.no_grad():
            found = self.chooser(q, k, frame, scale, given)
        trail = (*(x[:, :, 0] for x in given), *(x[:, :, 0] for x in found))
        chosen = share_heads(found[-1], k.shape[1]) if self.share else found[-1]
        columns = chosen[:, :, 0].long()[..., None] * unit + torch.arange(unit, device=q.device)
        used = chosen[:, :, 0] != UNUSED
        seen = None
        if not bool(used.all()):
            sinks = used.new_ones(*used.shape[:2], self.layout.sink)
            seen = torch.cat((sinks, used.repeat_interleave(unit, dim=-1)), dim=-1)
        columns = columns.flatten(-2).clamp(min=0)
        first = torch.arange(self.layout.sink, device=q.device).expand(*columns.shape[:2], -1)
        columns = torch.cat((first, columns), dim=-1)
        far = (take_rows(k, columns), take_rows(v, columns))
        return Choice(*far, seen, trail, int(frame.near) * unit, last.age if last else 0)

    def _meet(self, q: Tensor, k: Tensor, v: Tensor, choice: Choice, scale: float) -> Tensor:
        """One softmax over the newest keys and the chosen ones."""
        if why_not_meet(q) is None:
            return triton_meet(q, choice.k, choice.v, choice.seen, k, v, scale, self.softcap)
        batch, num_heads = q.shape[:2]
        asked = q * scale
        far = _products(asked, choice.k)
        if choice.seen is not None:
            hidden = ~choice.seen.repeat_interleave(num_heads // choice.seen.shape[1], dim=1)
        scores = torch.cat((far, _products(asked, k)), dim=-1)
        scores = scores.to(torch.promote_types(q.dtype, torch.float32))
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if choice.seen is not None:
            scores[..., : far.shape[-1]].masked_fill_(hidden, float("-inf"))
        p = torch.softmax(scores, dim=-1).to(q.dtype)
        split = far.shape[-1]
        out = _weighted(p[..., :split], choice.v) + _weighted(p[..., split:], v)
        return out.view(batch, num_heads, 1, -1)


def _products(q: Tensor, k: Tensor) -> Tensor:
    """[B, Hq, S] of one query [B, Hq, 1, D] with keys [B, H, S, D], Hq a multiple of H."""
    batch, num_heads, _, width = q.shape
    return (q.reshape(batch, k.shape[1], -1, width) @ k.transpose(-1, -2)).reshape(
        batch, num_heads, -1
    )


def _weighted(p: Tensor, v: Tensor) -> Tensor:
    """[B, Hq, Dv] of weights [B, Hq, S] with values [B, H, S, Dv]."""
    batch, num_heads, num_keys = p.shape
    grouped = p.reshape(batch, v.shape[1], -1, num_keys)
    return (grouped @ v).reshape(batch, num_heads, -1)


def _due(age: int, refresh: tuple[int, ...]) -> int | None:
    """The first stage that is due anew after `age` written tokens; None: none is."""
    return next((i for i, steps in enumerate(refresh) if age % steps == 0), None)


@dataclass(frozen=True, slots=True)
class BlocksAttend:
    """The mechanism of a layer."""

    blocks: Blocks
    name: str
    late: bool = False
    reads_segments: bool = False
    softcaps: bool = True

    def __call__(self, call: Call) -> Tensor:
        spec = call.spec
        if spec.mask is not None or spec.window is not None or not spec.causal:
            raise ConfigError(
                f"{self.name} reads plain causal text: packed rows, sliding layers and masks of "
                f"other shapes are refused. Use dense there, and one text a row."
            )
        store = call.store if isinstance(call.store, ChosenStore) else None
        if call.store is None:
            segment = KV(call.k, call.v, call.positions, call.start)
        else:
            (segment,) = call.store.segments()
        blocks = replace(
            self.blocks, chooser=self.blocks.chooser.of_call(call), softcap=spec.softcap
        )
        if segment.positions is None:
            out, choice = _step(blocks, call.q, segment.k, segment.v, call, store, 0)
            choices = [choice]
        else:
            out, choices = _rows(blocks, call, segment, store)
        if store is not None:
            store.keep(choices)
        return out


def _step(
    blocks: Blocks, q: Tensor, k: Tensor, v: Tensor, call: Call, store: ChosenStore | None, row: int
) -> tuple[Tensor, Choice | None]:
    """Queries of sequences without padding."""
    choice = None
    writing = call.q.shape[2] == 1 and store is not None
    if writing and store is not None:
        out, choice = blocks.write(q, k, v, call.scale, store.choice(row))
    else:
        out = blocks.read(q, k, v, call.scale)
    if store is not None and row == 0:
        store.attended = blocks.attended(k.shape[2], choice, reading=not writing)
    return out, choice


def _rows(
    blocks: Blocks, call: Call, segment: KV, store: ChosenStore | None
) -> tuple[Tensor, list[Choice | None]]:
    """Sequence by sequence, each without its padding."""
    where = segment.where()
    asking = where[:, -call.q.shape[2] :] if call.positions is None else call.positions
    out = call.q.new_zeros(*call.q.shape[:3], segment.v.shape[-1])
    choices: list[Choice | None] = []
    for row in range(call.q.shape[0]):
        columns, rows = _real(where[row]), _real(asking[row])
        if rows is None or columns is None:
            choices.append(None if store is None else store.choice(row))
            continue
        one = slice(row, row + 1)
        k, v = segment.k[one][:, :, columns], segment.v[one][:, :, columns]
        found, choice = _step(blocks, call.q[one][:, :, rows], k, v, call, store, row)
        out[one, :, rows] = found
        choices.append(choice)
    return out, choices


def _real(positions: Tensor) -> slice | Tensor | None:
    """Where a row is no padding: a slice if it is one run, else indices; None: nowhere."""
    (at,) = (positions >= 0).nonzero(as_tuple=True)
    if not len(at):
        return None
    first, last = int(at[0]), int(at[-1])
    return slice(first, last + 1) if last - first + 1 == len(at) else at
