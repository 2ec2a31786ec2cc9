"""The loss of a suffix, with the tokens that are hardest weighted once more.

Source: Zhang et al. (2023), "Ethicist", section 3 (smoothing loss): L = L_MLE + alpha * L_smooth,
where L_smooth is the mean of the N largest token losses of a suffix. One hard token is enough to
keep a suffix of 50 from ever being sampled whole; the second term evens the tokens out.
Differs from the released code: its other form, the mean of all losses above a threshold, is taken
sequence by sequence, so that micro-batches add up to the batch.
Cost: a partial sort of T losses. Shapes: B pairs, T suffix tokens, m prompt vectors, d channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unspool.errors import ConfigError


class Losses(NamedTuple):
    """Means over the batch, in nats."""

    total: Tensor
    mean: Tensor
    """Of all tokens."""
    smooth: Tensor
    """Of the hardest tokens of each suffix."""


def smoothed(
    token_losses: Float[Tensor, "B T"],
    *,
    alpha: float | int = 0.7,
    top_losses: int = 5,
    min_loss: float | int | None = None,
) -> Losses:
    """The loss of Ethicist from the losses of the tokens.

    Args:
        token_losses: Nats, a row a suffix.
        alpha: Weight of the hardest tokens; 0 is the plain loss.
        top_losses: How many they are.
        min_loss: Instead: all tokens above so many nats.

    Raises:
        ConfigError: A suffix has fewer tokens than `top_losses`.
    """
    mean = token_losses.mean()
    if min_loss is not None:
        hard = token_losses > min_loss
        smooth = ((token_losses * hard).sum(1) / hard.sum(1).clamp(min=1)).mean()
    else:
        if not 1 <= top_losses <= token_losses.shape[1]:
            raise ConfigError(
                f"top_losses must be from 1 to the {token_losses.shape[1]} tokens of a suffix, got "
                f"{top_losses}."
            )
        smooth = token_losses.topk(top_losses, dim=1).values.mean()
    return Losses(mean + alpha * smooth, mean, smooth)


def suffix_losses(
    network: Any,
    vectors: Float[Tensor, "m d"] | None,
    prefixes: Int[Tensor, "B P"],
    suffixes: Int[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """Loss in nats of every suffix token behind prompt, prefix and the suffix so far."""
    inputs = embedded(network, vectors, torch.cat([prefixes, suffixes[:, :-1]], dim=1))
    count = suffixes.shape[1]
    logits = network(inputs_embeds=inputs, use_cache=False, logits_to_keep=count).logits[:, -count:]
    losses = F.cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]), suffixes.reshape(-1), reduction="none"
    )
    return losses.view(suffixes.shape)


def embedded(
    network: Any, vectors: Float[Tensor, "m d"] | None, ids: Int[Tensor, "B N"]
) -> Float[Tensor, "B M d"]:
    """Prompt vectors in front of the embeddings of tokens."""
    found: Tensor = network.get_input_embeddings()(ids)
    if vectors is None:
        return found
    front = vectors.to(found).unsqueeze(0).expand(len(ids), -1, -1)
    return torch.cat([front, found], dim=1)
