"""Who fills which slot of which layer, and what cannot stand side by side.

Two methods compose if no layer has one slot filled twice (scale and compress stack), if nothing
that needs keys stored rotated shares a layer with something late, and if what cuts a cache into
segments meets a mechanism that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unspool.caches.stages import check_order
from unspool.errors import ConfigError
from unspool.methods import STACKING, Method

if TYPE_CHECKING:
    from unspool._facts import ModelFacts


def is_late(owners: dict[str, list[Method]], facts: ModelFacts, layer: int) -> bool:
    if "attend" in owners and owners["attend"][0].attend(facts, layer).late:
        return True
    if "frequency" in owners:
        kind = facts.layer_types[layer]
        return bool(owners["frequency"][0].frequency(facts, kind).late)
    return False


def fill_slots(methods: Sequence[Method], facts: ModelFacts) -> dict[int, dict[str, list[Method]]]:
    """Who fills which slot of which layer.

    Raises:
        ConfigError: Two methods want one slot, or what one needs another prevents.
    """
    owners: dict[int, dict[str, list[Method]]] = {}
    for method in methods:
        layers = facts.pick_layers(method.layers)
        if not layers and set(method.slots) - {"prompt"}:
            raise ConfigError(
                f"{facts.name} has no full-attention layer for {method.name}. Name layers "
                f"yourself, as in '{method.name}:layers=all'."
            )
        for slot in method.slots:
            for number in layers:
                filled = owners.setdefault(number, {}).setdefault(slot, [])
                if filled and slot not in STACKING:
                    raise ConfigError(
                        f"{filled[0].name} and {method.name} both fill slot {slot!r} of layer "
                        f"{number}. Give them different layers, or choose one."
                    )
                filled.append(method)
    for number, slots in owners.items():
        _check_layer(number, slots, facts)
    return owners


def _check_layer(number: int, slots: dict[str, list[Method]], facts: ModelFacts) -> None:
    for method in dict.fromkeys(m for filled in slots.values() for m in filled):
        if method.needs_rotated and is_late(slots, facts, number):
            other = (slots.get("attend") or slots["frequency"])[0]
            raise ConfigError(
                f"{method.name} needs keys stored rotated, but {other.name} stores them raw in "
                f"layer {number}. Use them on different layers."
            )
    check_order(slots.get("compress", ()))
    if "compress" in slots and "store" in slots:
        raise ConfigError(
            f"{slots['compress'][0].name} compresses what a dense store keeps, but "
            f"{slots['store'][0].name} brings its own store in layer {number}."
        )
    if "compress" in slots and "attend" in slots:
        attend = slots["attend"][0]
        if not attend.attend(facts, number).reads_segments:
            raise ConfigError(
                f"{attend.name} cannot read a cache that {slots['compress'][0].name} has cut into "
                f"segments (layer {number})."
            )
