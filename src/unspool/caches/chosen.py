"""The store of methods that choose blocks of keys: everything, and what was chosen last.

What: a dense cache beside which the last choice of the layer lies, with copies of the chosen keys
and values, so that the next written tokens meet them without a search.
Source: Lee et al. (2024), "HiP Attention", section 3.3 (the mask is reused for some steps).
Differs from the released code: a choice belongs to a sequence, so beams, batches of different
lengths, forks and files carry it along, and giving tokens back forgets it.
Cost: memory of the dense cache and, for each query head, of the chosen keys. Shapes: k
[B, Hkv, S, D]; chosen keys [b, H, m, D] of b sequences that have read equally far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unspool.caches.base import StoreReport, held_bytes
from unspool.caches.dense import DenseStore, real_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a written token met beside the newest keys; the next ones meet the same."""

    k: Tensor
    """[b, H, m, D] of the first keys and of the chosen ones; H is that of queries or of keys."""
    v: Tensor
    seen: Tensor | None
    """[b, H, m] bool, False at unused places; None: all are used."""
    trail: tuple[Tensor, ...]
    """What each stage of the search left."""
    near: int
    """Position from which on every key is met."""
    age: int
    """Written tokens that it has served."""

    def tensors(self) -> list[Tensor]:
        """Everything held."""
        seen = () if self.seen is None else (self.seen,)
        return [self.k, self.v, *seen, *self.trail]

    def map(self, change: Callable[[Tensor], Tensor]) -> Choice:
        """With every tensor changed (batch first)."""
        return replace(
            self,
            k=change(self.k),
            v=change(self.v),
            seen=None if self.seen is None else change(self.seen),
            trail=tuple(change(x) for x in self.trail),
        )

    def state(self) -> dict[str, Tensor]:
        """As named tensors."""
        named = {"k": self.k, "v": self.v, "counts": torch.tensor([self.near, self.age])}
        if self.seen is not None:
            named["seen"] = self.seen
        return named | {f"trail{i}": x for i, x in enumerate(self.trail)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Choice:
        """Take back what `state` gave."""
        near, age = state["counts"].tolist()
        trail = tuple(state[f"trail{i}"] for i in range(sum("trail" in name for name in state)))
        return cls(state["k"], state["v"], state.get("seen"), trail, near, age)


class ChosenStore(DenseStore):
    """All keys and values, and the last choice of each group of sequences."""

    def __init__(self) -> None:
        super().__init__(rotated=True)
        self.choices: list[Choice | None] = []
        """One for all sequences while none is padded, else one for each; empty: none."""
        self.attended = 0
        """Keys that the last query of the first sequence met."""

    def choice(self, row: int) -> Choice | None:
        """The choice of a sequence (or of all)."""
        return self.choices[row] if row < len(self.choices) else None

    def keep(self, choices: Sequence[Choice | None]) -> None:
        """Remember the choices of all groups."""
        self.choices = list(choices) if any(c is not None for c in choices) else []

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        if tokens_to_remove:
            self.choices = []

    def report(self) -> StoreReport:
        real = real_tokens(self.kept.positions, len(self.kept))
        attended = min(real, self.attended)
        held = [x for choice in self.choices if choice is not None for x in choice.tensors()]
        return StoreReport(
            seen=real,
            attended=attended,
            stored=real - attended,
            bytes_device=held_bytes([*self.kept.tensors(), *held]),
        )

    def state(self) -> dict[str, Tensor]:
        named = super().state()
        named["choices"] = torch.tensor([len(self.choices), self.attended])
        for number, choice in enumerate(self.choices):
            if choice is not None:
                named |= {f"choice{number}.{n}": x.contiguous() for n, x in choice.state().items()}
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        count, self.attended = state["choices"].tolist()
        self.choices = []
        for number in range(count):
            prefix = f"choice{number}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            self.choices.append(Choice.from_state(own) if own else None)

    def _arguments(self) -> tuple[Any, ...]:
        return ()

    def _map(self, change: Any) -> None:
        super()._map(change)
        if len(self.choices) > 1 or self.padded:
            # One a sequence: the sequences are told apart by letting the change act on numbers.
            order = change(torch.arange(len(self.choices))).tolist() if self.choices else []
            self.choices = [self.choices[row] for row in order]
        else:
            self.choices = [None if c is None else c.map(change) for c in self.choices]
