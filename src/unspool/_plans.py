"""What each layer does and keeps under a composition: stores, plans, and the rotary hook.

What: turns the owners of every layer's slots into factories of stores, into `LayerPlan`s, and into
one hook on the model's rotary modules.
Source: this project's own contract (how a mechanism meets a model).
Differs from a method's own view: a layer type that one layer needs raw is raw for all layers of
that type, since a model rotates by layer type; the others then rotate at entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from unspool._dispatch import LayerPlan
from unspool._slots import is_late
from unspool.attention.dense import Dense
from unspool.caches.dense import DenseStore
from unspool.caches.sliding import SlidingStore
from unspool.errors import ConfigError
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    import contextlib

    from unspool._facts import ModelFacts
    from unspool.caches.base import Store
    from unspool.methods import Method

Owners = Mapping[int, dict[str, list["Method"]]]


def make_stores(facts: ModelFacts, owners: Owners) -> dict[int, Callable[[], Store]]:
    """A factory of empty stores for every layer that is ours."""
    factories: dict[int, Callable[[], Store]] = {}
    raw = _raw_layers(facts, owners)
    for number in range(facts.num_layers):
        slots = owners.get(number, {})
        compress = slots.get("compress", [])
        if "store" in slots:
            factories[number] = _bind(slots["store"][0].store, facts, number)
        elif compress:
            from unspool.caches.compressed import CompressedStore

            stages = [method.compress(facts, number) for method in compress]
            factories[number] = _bind(CompressedStore, stages)
        elif _keeps_window(facts, number, slots, raw):
            factories[number] = _bind(SlidingStore, facts.sliding_window)
        elif slots or facts.layer_types[number] == "full_attention":
            factories[number] = _bind(DenseStore, number not in raw)
    return factories


def make_plans(
    facts: ModelFacts, owners: Owners, spec: str, *, can_be_late: bool
) -> dict[int, LayerPlan]:
    """The plan of every layer.

    Args:
        facts: Of the model.
        owners: Who fills which slot of which layer.
        spec: The composition, for messages.
        can_be_late: Whether the model gives its own logits when it is rotated late.

    Raises:
        ConfigError: A layer needs raw keys, and the model cannot give them.
    """
    raw = _raw_layers(facts, owners)
    if raw and not facts.rotations:
        raise ConfigError(
            f"{facts.name} has no rotary embedding, which {spec!r} needs. Methods that leave "
            f"positions as they are can be used on it: masformer, hip, hyper, snapkv, squeezed."
        )
    if raw and not can_be_late:
        raise ConfigError(
            f"{facts.name} gives other logits when its rotation is applied late, so "
            f"{spec!r} cannot be used on it. Frequency and prompt methods can."
        )
    kinds = facts.layer_types
    late_kinds = {kinds[number] for number in raw}
    plans = {}
    for number in range(facts.num_layers):
        slots = owners.get(number, {})
        plan = LayerPlan(layer=number, needs_store=bool(slots.keys() & {"store", "compress"}))
        if kinds[number] in late_kinds:
            rotation = facts.rotations[kinds[number]]
            plan.rotation = Rotation(rotation.inv_freq, rotation.factor, rotation.layout)
            plan.rotate_at_entry = number not in raw
        if "frequency" in slots:
            frequency = slots["frequency"][0].frequency(facts, kinds[number])
            if frequency.late:
                plan.frequency = frequency
            elif plan.rotation is not None:
                plan.rotation.inv_freq, plan.rotation.factor = frequency(0)
        if "attend" in slots:
            plan.attend = slots["attend"][0].attend(facts, number)
        elif number in raw:
            plan.attend = Dense(late=True)
        plan.scales = tuple(method.scale(facts, number) for method in slots.get("scale", []))
        plans[number] = plan
    return plans


def hook_rotary(
    facts: ModelFacts,
    owners: Owners,
    plans: Mapping[int, LayerPlan],
    undo: contextlib.ExitStack,
) -> None:
    """Switch the model's own rotation off where keys are rotated here, and change its frequencies.

    `undo` takes the hooks away.
    """
    from unspool.positions.hook import RotaryHook

    kinds = facts.layer_types
    late = {kinds[number] for number, plan in plans.items() if plan.rotation is not None}
    frequencies = {}
    for number, slots in owners.items():
        if "frequency" in slots and kinds[number] not in late:
            owner = slots["frequency"][0]
            frequencies[kinds[number]] = owner.frequency(facts, kinds[number])
    if not late and not frequencies:
        return
    hook = RotaryHook(late=frozenset(late), frequencies=frequencies, only=set(kinds))
    for module in facts.rotary_modules:
        undo.callback(module.register_forward_hook(hook, with_kwargs=True).remove)


def _raw_layers(facts: ModelFacts, owners: Owners) -> set[int]:
    """Layers whose keys are stored before rotation."""
    return {number for number, slots in owners.items() if is_late(slots, facts, number)}


def _keeps_window(
    facts: ModelFacts, number: int, slots: Mapping[str, list[Method]], raw: set[int]
) -> bool:
    """Whether a layer attends as it was trained to, in a sliding window."""
    sliding = facts.layer_types[number] == "sliding_attention" and facts.sliding_window is not None
    return sliding and "attend" not in slots and number not in raw


def _bind(function: Callable[..., Store], *arguments: Any) -> Callable[[], Store]:
    return lambda: function(*arguments)
