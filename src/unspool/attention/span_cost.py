"""What a plan of spans costs before anything is run: pairs, operations, cache, and ratios.

What: exact counts for a text of n tokens, layer by layer, beside those of the same model in full.
Source: Zhang et al. (2023), MASFormer, section 3 and the abstract's 75%.
Differs from the paper: two accounts, since its figure follows from one of them only: `ratio` counts
visible pairs (half a block and the whole one before it), `dense_ratio` whole rectangles (n columns
a row in full layers, `reach` in the others).
Cost: O(n / block). Units: tokens, pairs a head, operations (a multiplication and an addition are
two), bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unspool._facts import pick_layers
from unspool.attention.masformer import MASFormer, pick_full
from unspool.attention.spans import Span, triangle
from unspool.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanCost:
    """Of one text through all layers with attention."""

    tokens: int
    full: tuple[int, ...]
    """Layers that see everything."""
    local: tuple[int, ...]
    pairs: int
    """Visible (query, key) pairs a head, over all layers."""
    ratio: float
    """Of the pairs that the model computes as it was."""
    dense_ratio: float
    """The same, counting rows times columns touched."""
    flops: int
    """Of scores and weighted sums in one forward pass."""
    kv_bytes: int
    """Most that the caches hold at the end."""
    kv_ratio: float
    note: str = ""


def plan_cost(
    config: Any, tokens: int, method: MASFormer | None = None, *, bytes_per_value: int = 2
) -> SpanCost:
    """Cost of attention over a text under a plan of spans.

    Args:
        config: A transformers configuration of a decoder.
        tokens: Of the text.
        method: Its spans; None: the defaults.
        bytes_per_value: Of a number in the cache.

    Raises:
        ConfigError: Fewer than one token, or layers that the model lacks.
    """
    if tokens < 1:
        raise ConfigError(f"A cost needs at least 1 token, got {tokens}.")
    method = method or MASFormer()
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    kinds = tuple(
        getattr(text, "layer_types", None) or ("full_attention",) * int(text.num_hidden_layers)
    )
    complete = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    name = type(config).__name__
    candidates = pick_layers(method.layers, len(kinds), complete, name)
    chosen = pick_full(method.full, candidates, name)
    local = tuple(layer for layer in candidates if layer not in chosen)
    own = Span(int(getattr(text, "sliding_window", None) or tokens), kind="window")
    was = [None if kind == "full_attention" else own for kind in kinds]
    spans = [method.span if layer in local else was[layer] for layer in range(len(kinds))]
    heads = int(text.num_attention_heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    token_bytes = 2 * kv_heads * width * bytes_per_value
    pairs, before = (sum(_pairs(s, tokens) for s in each) for each in (spans, was))
    held, held_before = (sum(_held(s, tokens) for s in each) for each in (spans, was))
    covered = method.span.oldest(tokens - 1) == 0 and bool(local)
    return SpanCost(
        tokens=tokens,
        full=chosen,
        local=local,
        pairs=pairs,
        ratio=pairs / before,
        dense_ratio=held / held_before,
        flops=4 * heads * width * pairs,
        kv_bytes=held * token_bytes,
        kv_ratio=held / held_before,
        note=f"The spans reach {method.span.reach:,} tokens, so all layers are full here."
        if covered
        else "",
    )


def _pairs(span: Span | None, tokens: int) -> int:
    return triangle(tokens) if span is None else span.pairs(tokens)


def _held(span: Span | None, tokens: int) -> int:
    return tokens if span is None else min(tokens, span.reach)
