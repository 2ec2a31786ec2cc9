"""Neighbours to probabilities, and two distributions to one: the arithmetic of kNN-LM.

What: p_kNN(y) is the share of exp(-distance / T) that the neighbours with value y hold; the mixture
is λ p_kNN + (1 - λ) p_LM, in logarithms.
Source: Khandelwal et al. (2020), equations 2 and 3; Drozdov et al. (2022), "You can't pick your
neighbors, or can you?", section 4: λ as a step function of how good the retrieval is.
Differs from neulab/knn-transformers: a token without a neighbour has log-probability -inf, not
-10000; λ = 0 returns the model's logits bit for bit; where nothing was retrieved the model stands
alone.
Cost: O(k) a query and O(V) for a dense row. Shapes: n queries, k neighbours, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class Neighbours(NamedTuple):
    """What was retrieved for each query, nearest first; a missing neighbour has distance inf."""

    values: Tensor
    """Token ids [n, k], int64."""
    distances: Tensor
    """[n, k], float32, smaller is nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """How neighbours are weighed and mixed in."""

    k: int = 1024
    """Neighbours of a query."""
    lam: float | int = 0.25
    """λ, the weight of the retrieved distribution."""
    temperature: float | int = 1.0
    """Distances are divided by this; in the unit of the distance."""
    edges: tuple[float | int, ...] = ()
    """With `lams`: distances of the nearest neighbour at which λ changes, ascending."""
    lams: tuple[float | int, ...] = ()
    """One λ a bucket, nearest first; in place of `lam`."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k must be >= 1, got {self.k}.")
        if not math.isfinite(self.temperature) or self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0 and finite, got {self.temperature}.")
        for lam in (self.lam, *self.lams):
            if not 0 <= lam <= 1:
                raise ConfigError(f"λ (lam) must be between 0 and 1, got {lam}.")
        if self.lams and len(self.lams) != len(self.edges) + 1:
            raise ConfigError(
                f"{len(self.edges)} edges make {len(self.edges) + 1} buckets, and there are "
                f"{len(self.lams)} values of λ."
            )
        if list(self.edges) != sorted(self.edges) or (self.edges and not self.lams):
            raise ConfigError(f"edges must ascend and come with lams, got {self.edges}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Mixture:
        """The reverse of `to_json`.

        Raises:
            ConfigError: A field is missing, unknown or out of range.
        """
        try:
            return cls(
                k=int(value["k"]),
                lam=float(value["lam"]),
                temperature=float(value["temperature"]),
                edges=tuple(map(float, value["edges"])),
                lams=tuple(map(float, value["lams"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"This is not a mixture: {error}.") from error


def log_weights(distances: Tensor, temperature: float | int = 1.0) -> Tensor:
    """Log-softmax of -distance / T over the neighbours of each query, [n, k]; a row without any
    neighbour is -inf throughout."""
    import torch

    scores = -distances / temperature
    best = scores.amax(dim=1, keepdim=True)
    none = best.isneginf()
    scores = scores - best.masked_fill(none, 0.0)
    total = torch.logsumexp(scores, dim=1, keepdim=True)
    return (scores - total).masked_fill(none, -math.inf)


def log_knn(neighbours: Neighbours, temperature: float | int, vocabulary: int) -> Tensor:
    """log p_kNN of every token, [n, V]; -inf where no neighbour has it.

    Raises:
        ConfigError: A neighbour's value is not an id of the vocabulary.
    """
    values = neighbours.values
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= vocabulary):
        raise ConfigError(
            f"A neighbour has the token id {int(values.max())}, and the vocabulary has {vocabulary}"
            f" tokens. The datastore belongs to another tokenizer."
        )
    weights = log_weights(neighbours.distances, temperature).exp()
    dense = weights.new_zeros(len(values), vocabulary)
    return dense.scatter_add_(1, values, weights).log()


def log_knn_of(neighbours: Neighbours, temperature: float | int, targets: Tensor) -> Tensor:
    """log p_kNN of one token a query, [n]."""
    import torch

    weights = log_weights(neighbours.distances, temperature)
    hit = neighbours.values == targets[:, None]
    return torch.logsumexp(weights.masked_fill(~hit, -math.inf), dim=1)


def weight_of(neighbours: Neighbours, mixture: Mixture) -> Tensor:
    """λ of each query, [n]; 0 where nothing was retrieved."""
    import torch

    nearest = neighbours.distances[:, 0].contiguous()
    lam = torch.full_like(nearest, float(mixture.lam))
    if mixture.lams:
        edges = torch.tensor(mixture.edges, device=nearest.device, dtype=nearest.dtype)
        table = torch.tensor(mixture.lams, device=nearest.device, dtype=nearest.dtype)
        lam = table[torch.bucketize(nearest, edges)]
    return lam.masked_fill(nearest.isinf(), 0.0)


def mix(log_lm: Tensor, log_retrieved: Tensor, lam: Tensor) -> Tensor:
    """log(λ p + (1 - λ) q); λ broadcasts against the rows.

    Args:
        log_lm: log q, [n, V] or [n].
        log_retrieved: log p of the same shape, -inf allowed.
        lam: [n].
    """
    import torch

    lam = lam.to(log_lm.dtype).reshape(-1, *[1] * (log_lm.ndim - 1))
    mixed = torch.logaddexp(lam.log() + log_retrieved, torch.log1p(-lam) + log_lm)
    return torch.where(lam == 0, log_lm, mixed)
