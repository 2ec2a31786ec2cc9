"""The sample of keys that stands for what hashing leaves out.

What: keys drawn with replacement, each with the log of how many keys it stands for, so that the sum
of the weighted exponentials is right on average for every query.
Source: Han et al. (2023), "HyperAttention", algorithm 2 (row sums by uniform sampling) and lemma 2
(product with V by rows sampled in proportion to their squared norms).
Differs from the paper: one sample serves the row sums and the product, as in the released code, and
nothing is capped. `value-norm` draws in proportion to the squared norms of the values and weighs
both sums by them; probabilities count as constants in the gradient.
Cost: O(M), with norms O(N). Shapes: B batch, H key heads, L rectangles, S sorted keys, M sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Sampling = Literal["uniform", "value-norm"]


class Sample(NamedTuple):
    """Sampled keys of every rectangle, as slots of the sorted keys."""

    slots: Tensor
    """int64 [B, H, L, M]."""
    log_weights: Tensor
    """[B, H, L, M]: log of the number of keys that each stands for; -inf: unused."""


@runtime_checkable
class Draw(Protocol):
    """How keys are drawn."""

    @property
    def by_value(self) -> bool:
        """Whether the squared norms of the values are needed."""

    def __call__(
        self,
        shape: tuple[int, int, int],
        usable: Sequence[int],
        count: int,
        sizes: Tensor | None,
        device: torch.device,
    ) -> Sample:
        """Draw.

        Args:
            shape: (B, H, L).
            usable: By rectangle, how many of the sorted keys there are; the slots after them are
                empty.
            count: M.
            sizes: [B, H, L, S] squared norms of the values of the sorted keys.
            device: Of the result.
        """


@dataclass(frozen=True, slots=True)
class Drawn:
    """With replacement, by a generator."""

    sampling: Sampling = "uniform"
    generator: torch.Generator | None = None
    shared: bool = False
    """One draw for all rows of a batch, so that a row gives what it gives alone."""

    @property
    def by_value(self) -> bool:
        return self.sampling == "value-norm"

    def __call__(
        self,
        shape: tuple[int, int, int],
        usable: Sequence[int],
        count: int,
        sizes: Tensor | None,
        device: torch.device,
    ) -> Sample:
        import torch

        batch, heads, pieces = shape
        drawn = torch.rand(
            1 if self.shared else batch,
            heads,
            pieces,
            count,
            dtype=torch.float64,
            device=device if self.generator is None else self.generator.device,
            generator=self.generator,
        )
        drawn = drawn.to(device).expand(batch, -1, -1, -1)
        if sizes is None:
            limits = torch.tensor(usable, dtype=torch.float64, device=device)[:, None]
            slots = (drawn * limits).long().minimum((limits.long() - 1).clamp(min=0))
            return Sample(slots, (limits / count).log().expand_as(drawn))
        limits = torch.tensor(usable, device=device)[:, None]
        there = torch.arange(sizes.shape[-1], device=device) < limits
        shares = sizes.double().clamp(min=torch.finfo(torch.float32).tiny).masked_fill(~there, 0.0)
        reached = shares.cumsum(-1)
        total = reached[..., -1:]
        slots = torch.searchsorted(reached, drawn * total, right=True)
        slots = slots.minimum((limits - 1).clamp(min=0))
        return Sample(slots, (total / (count * shares.gather(-1, slots))).log())
