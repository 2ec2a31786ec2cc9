"""Which layers should stay full: those whose attention goes far, measured on real text.

What: the share of each layer's attention that lies beyond a span, and the layers with most of it.
Source: not in MASFormer, which tries placements; the measure is the mass of Zhang et al.'s own
argument, that most layers look near.
Differs from a search over losses: one pass over a text, whatever the number of layers.
Cost: one forward pass a text, and scores of a few queries a layer. Shapes: as `Call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool.attention.spans import Span
from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from unspool.attention.call import Call

_ROWS = 64
"""Queries a text that are looked at, spread over what lies beyond the first span."""


def far_shares(
    model: Any, texts: Sequence[Sequence[int]], span: Span, *, layers: str = "full"
) -> dict[int, float]:
    """Of each layer, the share of attention that lies beyond the span: from 0 to 1, over texts,
    heads and queries.

    Args:
        model: A stock decoder, not extended.
        texts: Token ids; each longer than the span reaches.
        span: What a local layer would see.
        layers: As the setting of a method.

    Raises:
        InputError: A text is too short for anything to lie beyond the span.
    """
    import torch

    from unspool._dispatch import tapped
    from unspool.extension import extend

    shortest = min((len(text) for text in texts), default=0)
    if span.oldest(shortest - 1) < 1:
        raise InputError(
            f"Spans of {span.reach:,} tokens leave nothing beyond them in a text of {shortest:,}. "
            f"Give longer texts, or a smaller block."
        )
    totals: dict[int, float] = {}
    with extend(model, "dense") as ext, torch.no_grad():
        wanted = ext.facts.pick_layers(layers)

        def see(call: Call) -> None:
            if call.layer in wanted:
                totals[call.layer] = totals.get(call.layer, 0.0) + _far(call, span)

        last = {"logits_to_keep": 1} if ext.keeps_logits else {}
        for text in texts:
            ids = torch.tensor([list(text)], device=ext.facts.device)
            with tapped(see):
                model(ids, use_cache=False, **last)
    return {layer: totals[layer] / len(texts) for layer in wanted}


def choose_layers(
    model: Any,
    texts: Sequence[Sequence[int]],
    count: int,
    *,
    span: Span | None = None,
    layers: str = "full",
) -> tuple[int, ...]:
    """The `count` layers that lose most if they see only the span, ascending.

    Args:
        model: A stock decoder, not extended.
        texts: Token ids of long real texts.
        count: Full layers to keep.
        span: What the others would see; None: blocks of 1,024 and the one before.
        layers: As the setting of a method: what is chosen from.
    """
    shares = far_shares(model, texts, span or Span(1024), layers=layers)
    if not 0 <= count <= len(shares):
        raise ConfigError(f"Of {len(shares)} layers {count} cannot stay full.")
    return tuple(sorted(sorted(shares, key=lambda layer: -shares[layer])[:count]))


def reference_ids(tokenizer: Any, tokens: int) -> list[int]:
    """The beginning of the language reference that ships with Python, as token ids."""
    from pydoc_data.topics import topics

    ids: list[int] = []
    for _, text in sorted(topics.items()):
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.extend(found)
        if len(ids) >= tokens:
            break
    from unspool._overflow import shorten

    return list(shorten(ids, tokens, keep="head").ids)


def _far(call: Call, span: Span) -> float:
    """Share of one layer's attention beyond the span, for some of its queries."""
    import torch

    from unspool.attention.reference import scores

    length = call.q.shape[2]
    begin = next(p for p in range(span.block, length) if span.oldest(p) > 0)
    rows = torch.linspace(begin, length - 1, min(_ROWS, length - begin)).long().unique()
    rows = rows.to(call.q.device)
    s = scores(call.q[:, :, rows].float(), call.k.float(), call.scale)
    where = torch.arange(length, device=rows.device)
    s = s.masked_fill(where > rows[:, None], float("-inf"))
    p = torch.softmax(s, dim=-1)
    beyond = where < span.oldest_of(rows)[:, None]
    return float((p * beyond).sum(-1).mean())
