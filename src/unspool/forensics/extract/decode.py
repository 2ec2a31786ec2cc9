"""Continue prefixes behind a soft prompt: many samples at once, the greedy text, the best beam.

Source: Zhang et al. (2023), "Ethicist", section 3; Holtzman et al. (2020), nucleus sampling.
Differs from `generate` of transformers: every text has exactly the length that was asked for (an
end token is a token as any other, since a suffix may hold one); a token is the one at which the
cumulated nucleus passes a number that was drawn beforehand, so that a sample does not depend on
what else is in the batch; the loss of a text, untempered, comes out of the same pass.
Cost: a prefix is read once for all its samples; T - 1 passes of one token for all rows together.
Shapes: G prefixes, R rows, T tokens to write, V vocabulary, m prompt vectors, d channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unspool.forensics.extract.loss import embedded

_LIKELY = 1024
"""Tokens that are sorted first; the whole vocabulary only where these do not hold the nucleus."""


class Written(NamedTuple):
    """Texts and their losses."""

    tokens: Int[Tensor, "R T"]
    losses: Float[Tensor, " R"]
    """Mean over the tokens, in nats, without temperature."""


def nucleus(
    logits: Float[Tensor, "R V"],
    numbers: Float[Tensor, " R"],
    *,
    top_p: float | int,
    temperature: float | int,
) -> Int[Tensor, " R"]:
    """Of the smallest set of tokens that holds `top_p`, the one that a number falls on."""
    chances = torch.softmax(logits.float() / temperature, dim=-1)
    ordered, tokens = chances.topk(min(_LIKELY, chances.shape[-1]), dim=-1)
    upto = ordered.double().cumsum(-1)
    if bool((upto[:, -1] < top_p).any()):
        ordered, tokens = chances.sort(dim=-1, descending=True)
        upto = ordered.double().cumsum(-1)
    count = ((upto - ordered) < top_p).sum(-1, keepdim=True).clamp(min=1)
    mass = upto.gather(-1, count - 1)
    place = torch.searchsorted(upto, numbers.double().unsqueeze(-1) * mass, right=True)
    return tokens.gather(-1, torch.minimum(place, count - 1)).squeeze(-1)


def read(
    network: Any, vectors: Float[Tensor, "m d"] | None, prefixes: Int[Tensor, "G P"]
) -> tuple[Float[Tensor, "G V"], Any]:
    """Logits behind every prefix, and the cache of what was read."""
    out = network(
        inputs_embeds=embedded(network, vectors, prefixes), use_cache=True, logits_to_keep=1
    )
    return out.logits[:, -1], out.past_key_values


def write(
    network: Any,
    vectors: Float[Tensor, "m d"] | None,
    prefixes: Int[Tensor, "G P"],
    numbers: Float[Tensor, "R T"],
    greedy: Bool[Tensor, " R"],
    *,
    top_p: float | int,
    temperature: float | int,
) -> Written:
    """As many texts of every prefix as there are rows for it, prefix by prefix.

    Args:
        network: A causal language model of transformers.
        vectors: The prompt, or None.
        prefixes: One a group of rows.
        numbers: In [0, 1), one a token.
        greedy: Rows that take the likeliest token instead.
        top_p: Share of the probability that is drawn from.
        temperature: Above 0.
    """
    logits, cache = read(network, vectors, prefixes)
    repeats = len(numbers) // len(prefixes)
    logits = logits.repeat_interleave(repeats, dim=0)
    cache.batch_repeat_interleave(repeats)
    total = torch.zeros(len(numbers), dtype=torch.float64, device=logits.device)
    written: list[Tensor] = []
    for step in range(numbers.shape[1]):
        if step:
            logits = network(written[-1].unsqueeze(1), past_key_values=cache).logits[:, -1]
        drawn = nucleus(logits, numbers[:, step], top_p=top_p, temperature=temperature)
        token = torch.where(greedy, logits.argmax(-1), drawn)
        chances = torch.log_softmax(logits.float(), dim=-1)
        total -= chances.gather(-1, token.unsqueeze(-1)).squeeze(-1).double()
        written.append(token)
    return Written(torch.stack(written, dim=1), total / numbers.shape[1])


def beam(
    network: Any,
    vectors: Float[Tensor, "m d"] | None,
    prefixes: Int[Tensor, "G P"],
    length: int,
    beams: int,
) -> Written:
    """The likeliest of the texts that `beams` of them, kept at every token, lead to."""
    logits, cache = read(network, vectors, prefixes)
    groups, vocabulary = logits.shape
    logits = logits.repeat_interleave(beams, dim=0)
    cache.batch_repeat_interleave(beams)
    scores = torch.full((groups, beams), -torch.inf, dtype=torch.float64, device=logits.device)
    scores[:, 0] = 0.0
    texts = torch.empty(groups, beams, 0, dtype=torch.long, device=logits.device)
    base = torch.arange(groups, device=logits.device).unsqueeze(1) * beams
    for step in range(length):
        if step:
            logits = network(texts[:, :, -1].reshape(-1, 1), past_key_values=cache).logits[:, -1]
        chances = torch.log_softmax(logits.float(), dim=-1).double().view(groups, beams, -1)
        scores, flat = (scores.unsqueeze(-1) + chances).flatten(1).topk(beams, dim=1)
        parent = flat // vocabulary
        texts = torch.cat(
            [
                texts.gather(1, parent.unsqueeze(-1).expand(-1, -1, step)),
                (flat % vocabulary).unsqueeze(-1),
            ],
            dim=2,
        )
        cache.reorder_cache((base + parent).flatten())
    return Written(texts[:, 0], -scores[:, 0] / length)
