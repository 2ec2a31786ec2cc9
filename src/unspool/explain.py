"""What a composition of methods does to a model, in a few lines a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool._facts import ModelFacts
    from unspool.methods import Method


def explain(facts: ModelFacts, methods: Sequence[Method]) -> str:
    """Method, window, attended tokens, memory a thousand tokens, and what is lost."""
    window = f"{facts.window:,} tokens" if facts.window else "no stated limit"
    full = len(facts.full_layers)
    per_thousand = 1000 * facts.bytes_per_token * full
    lines = [
        f"{facts.name}: trained window {window}; {full} of {facts.num_layers} layers attend fully; "
        f"{per_thousand / 1e6:.1f} MB of keys and values a thousand tokens.",
    ]
    for method in methods:
        kept = method.kept_tokens(facts)
        capacity = method.capacity(facts)
        reads = "any length" if capacity is None else f"up to {capacity:,} tokens"
        keeps = "every token" if kept is None else f"at most {kept:,} tokens a layer"
        lines.append(
            f"{method.spec()}: reads {reads}; keeps {keeps}; recalls {method.recalls}; "
            f"costs: {method.costs}."
        )
    return "\n".join(lines)
