"""`rope`: another stretch of a model's rotary positions, chosen by name.

What: fills the slot `frequency` with any kind of `frequencies.kinds()`, from the model's own base
and trained window, and writes it out as `rope_parameters`.
Source: Pal et al. (2023), "Giraffe", section 3, and the papers of `frequencies`.
Differs from the released code: base and window come from the model; linear, power and truncated
also go on top of a stretch that the model was trained with. A kind whose frequencies change with
the length of the text (dynamic, longrope) rotates keys when they are attended, so that all of them
turn by the same frequencies, which stock transformers does not do once keys are cached.
Cost: none while reading, for kinds that do not change; else one rotation of all keys a pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.positions.frequencies import (
    Frequencies,
    check_options,
    kinds,
    rope_frequencies,
    rope_parameters,
    stretched,
)

if TYPE_CHECKING:
    import torch

    from unspool._facts import ModelFacts

RopeKind = Literal[
    "default", "linear", "power", "truncated", "ntk", "abf", "dynamic", "yarn", "llama3",
    "longrope", "proportional",
]  # fmt: skip
_ON_TOP = ("default", "linear", "power", "truncated")
"""Kinds that take any frequencies, also such as are stretched already."""
_ANY_LENGTH = ("power", "truncated", "abf", "dynamic")
_SETTINGS = ("layers", "kind", "base")


@dataclass(frozen=True, kw_only=True)
class Rope(Method):
    """Rotary positions stretched, so that a text past the window stays in trained territory."""

    name: ClassVar[str] = "rope"
    family: ClassVar[str] = "frequency"
    slots: ClassVar[tuple[Slot, ...]] = ("frequency",)
    recalls: ClassVar[str] = "all of the text, less sharply the further it is stretched"
    costs: ClassVar[str] = "memory and time of full attention"
    system: ClassVar[str] = "giraffe"

    kind: RopeKind = "linear"
    """Which stretch; see `unspool.positions.kinds()`."""
    factor: int | float | None = None
    """How many times the trained window is wanted; linear, ntk, yarn and llama3 need it."""
    power: int | float | None = None
    """Exponent of the power basis, 0.5 if not given; truncated takes it too, and then 0."""
    truncate_at: int | None = None
    """Trained window of the truncated basis; none: the model's."""
    base: int | float | None = None
    """Base of the frequencies; none: the model's own. abf needs it."""
    window: int | None = None
    """Trained window for the kinds that ask for it; none: the model's."""
    attention_factor: int | float | None = None
    """Of yarn and longrope; none: what their papers derive from the factor."""
    beta_fast: int | float | None = None
    """yarn keeps frequencies with more turns than this in the window; none: 32."""
    beta_slow: int | float | None = None
    """yarn divides frequencies with fewer turns than this in the window; none: 1."""
    low_freq_factor: int | float | None = None
    """llama3 divides wavelengths longer than window / this; none: 1."""
    high_freq_factor: int | float | None = None
    """llama3 keeps wavelengths shorter than window / this; none: 4."""
    short_factor: tuple[int | float, ...] | None = None
    """longrope's divisors up to the window, one a frequency."""
    long_factor: tuple[int | float, ...] | None = None
    """longrope's divisors past the window, one a frequency."""
    proportion: int | float | None = None
    """Share of the head that turns, for proportional; none: 1."""

    def __post_init__(self) -> None:
        if self.kind == "abf" and self.base is None:
            raise ConfigError("rope kind 'abf' needs base, the new one, such as base=500000.")
        check_options(self.kind, self._told(), later=("window", "truncate_at"))

    def resolve(self, facts: ModelFacts) -> Rope:
        """With the model's window in place, where the kind reads one."""
        needs = kinds()[self.kind].needs
        missing: dict[str, Any] = {
            name: facts.window
            for name in ("window", "truncate_at")
            if name in needs and getattr(self, name) is None
        }
        return dataclasses.replace(self, **missing)

    def frequency(self, facts: ModelFacts, layer_type: str) -> RopeFrequency:
        """The frequencies of the layers of a type.

        Raises:
            ConfigError: The model has no rotary embedding, shares it with layers that are not
                named, or is stretched already in a way that this kind cannot go on top of.
        """
        ours = set(facts.pick_layers(self.layers))
        sharing = {n for n, kind in enumerate(facts.layer_types) if kind == layer_type}
        if not sharing <= ours:
            raise ConfigError(
                f"{self.name} with layers={self.layers!r} would stretch some of the {layer_type} "
                f"layers of {facts.name}, and one rotary embedding serves them all. "
                f"Use layers={'full' if layer_type == 'full_attention' else 'all'}."
            )
        if layer_type not in facts.rotations:
            raise ConfigError(
                f"{facts.name} has no rotary embedding, which {self.name} stretches. Take a method "
                f"that leaves positions as they are, as snapkv or hip."
            )
        rotation, said = facts.rotations[layer_type], facts.rope.get(layer_type, {})
        trained_as = said.get("rope_type", "default")
        opts = tuple(sorted(self._told().items()))
        if self.base is None and (trained_as != "default" or "rope_theta" not in said):
            if self.kind not in _ON_TOP:
                raise ConfigError(
                    f"{facts.name} is stretched by rope_type {trained_as!r} already. On top of it "
                    f"go {', '.join(_ON_TOP)}; for {self.kind!r} give base=, as if it were not."
                )
            return RopeFrequency(self.kind, rotation.inv_freq, rotation.factor, None, opts)
        base = float(self.base if self.base is not None else said["rope_theta"])
        return RopeFrequency(self.kind, rotation.inv_freq, 1.0, base, opts)

    def capacity(self, facts: ModelFacts) -> int | None:
        """The window times the factor; any number for kinds that name no length."""
        window = self.window or facts.window
        if window is None or self.kind in _ANY_LENGTH:
            return None
        return int(window * (self.factor or 1))

    def export(self, facts: ModelFacts) -> dict[str, Any]:
        """`config.rope_parameters` with this stretch, by layer type where the model has them so.

        Raises:
            Unsupported: A frequency is 0, which no engine's format can say.
            ConfigError: The model's own stretch is kept below this one.
        """
        resolved = self.resolve(facts)
        named = {facts.layer_types[n] for n in facts.pick_layers(self.layers)}
        out = {
            kind: resolved._written(facts, kind) if kind in named else dict(said)
            for kind, said in facts.rope.items()
        }
        shared = len({id(said) for said in facts.rope.values()}) == 1
        return next(iter(out.values())) if shared else out

    def _written(self, facts: ModelFacts, layer_type: str) -> dict[str, Any]:
        frequency, said = self.frequency(facts, layer_type), facts.rope[layer_type]
        if frequency.base is None:
            raise ConfigError(
                f"{facts.name} is stretched by rope_type {said.get('rope_type')!r} already, and "
                f"rope_parameters cannot say {self.spec()!r} on top of it. Save the method instead."
            )
        opts = {"window": facts.window, **self._told()} if self.kind == "power" else self._told()
        out = rope_parameters(self.kind, 2 * len(frequency.trained), frequency.base, **opts)
        if "partial_rotary_factor" in said:
            out.setdefault("partial_rotary_factor", said["partial_rotary_factor"])
        return out

    def _told(self) -> dict[str, Any]:
        """Options of `rope_frequencies` that were given."""
        named = (f.name for f in dataclasses.fields(self) if f.name not in _SETTINGS)
        return {n: getattr(self, n) for n in named if getattr(self, n) is not None}


@dataclass(frozen=True, kw_only=True)
class GiraffeLinear(Rope):
    """Linear scaling under the name that it has in Giraffe."""

    name: ClassVar[str] = "giraffe-linear"


@dataclass(frozen=True, kw_only=True)
class GiraffePower(Rope):
    """The power basis under the name that it has in Giraffe."""

    name: ClassVar[str] = "giraffe-power"
    kind: RopeKind = "power"


@dataclass(frozen=True, kw_only=True)
class GiraffeTruncated(Rope):
    """The truncated basis under the name that it has in Giraffe."""

    name: ClassVar[str] = "giraffe-truncated"
    kind: RopeKind = "truncated"


@dataclass(frozen=True, slots=True, eq=False)
class RopeFrequency:
    """What fills the slot: inverse frequencies and attention factor for a length."""

    kind: str
    trained: torch.Tensor
    """The model's own, [rotary / 2]."""
    factor: float
    """The model's own attention factor, kept where `trained` is."""
    base: float | None
    """None: stretch `trained`, whatever it is."""
    opts: tuple[tuple[str, Any], ...]

    @property
    def late(self) -> bool:
        """Whether they change while the text grows."""
        return kinds()[self.kind].by_length

    def __eq__(self, other: object) -> bool:
        """Whether both turn alike: layer types that share a rotary embedding must."""
        import torch

        if not isinstance(other, RopeFrequency):
            return NotImplemented
        ours, theirs = ((f.kind, f.factor, f.base, f.opts) for f in (self, other))
        return ours == theirs and torch.equal(self.trained, other.trained)

    __hash__ = None  # type: ignore[assignment]  # compared by the values of a tensor

    def __call__(self, length: int) -> tuple[torch.Tensor, float]:
        """Inverse frequencies [rotary / 2] and attention factor for so many tokens."""
        if self.base is None:
            steps: Mapping[str, Any] = {**kinds()[self.kind].defaults, **dict(self.opts)}
            return stretched(self.trained, **steps), self.factor
        told = length if self.late else None
        found = _cached(self.kind, 2 * len(self.trained), self.base, self.opts, told)
        return found.inv_freq, found.attention_factor


@lru_cache(maxsize=256)
def _cached(
    kind: str, dim: int, base: float, opts: tuple[tuple[str, Any], ...], length: int | None
) -> Frequencies:
    told = {} if length is None else {"length": length}
    return rope_frequencies(kind, dim, base, **dict(opts), **told)
