"""Inverse frequencies of rotary positions, stretched in every way that is in use.

Source: Pal et al. (2023), "Giraffe", section 3: linear scaling, power basis, truncated basis. NTK:
the static form of the dynamic one, base * factor ** (d / (d - 2)). ABF: Xiong et al. (2023),
section 2.1, which only changes the base. All others are computed by transformers itself.
Differs from the released code of Giraffe: base and trained window are arguments, not 10,000 and
2,048; a factor below 1 is refused, where the code ignores it; an option that a kind does not read
is refused. As in that code, linear scaling comes first, then the power, then the truncation.
Cost: O(dim), float32, on the CPU. Shapes: inverse frequencies [dim / 2], dim the rotated width.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool._optional import require
from unspool.errors import ConfigError, Unsupported

if TYPE_CHECKING:
    import torch


class Frequencies(NamedTuple):
    """What a rotary embedding rotates by."""

    inv_freq: torch.Tensor
    """Radians a position, [dim / 2], float32, fastest first."""
    attention_factor: float
    """Multiplies cosine and sine, so the logits by its square."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of stretching reads, and what it needs to be told."""

    about: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    by_length: bool = False
    """Whether the frequencies depend on how long the text is."""


_KINDS: dict[str, Kind] = {
    "default": Kind("as trained"),
    "linear": Kind("all frequencies divided by factor (position interpolation)", ("factor",)),
    "power": Kind(
        "slow frequencies slowed most, by (1 - j / n) ** power",
        takes=("factor", "power"),
        defaults={"factor": 1.0, "power": 0.5},
    ),
    "truncated": Kind(
        "frequencies with no full turn in training stopped, or held at one very slow value",
        ("truncate_at",),
        ("factor", "power"),
        {"factor": 1.0, "power": 0.0},
    ),
    "ntk": Kind("the base raised, so that the slowest frequency is divided by factor", ("factor",)),
    "abf": Kind("another base, for models trained further with it"),
    "dynamic": Kind(
        "ntk that grows with the text past the window",
        ("window",),
        ("factor", "length"),
        {"factor": 1.0},
        by_length=True,
    ),
    "yarn": Kind(
        "fast frequencies kept, slow ones divided, a ramp between; sharper attention",
        ("factor", "window"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "llama3": Kind(
        "as yarn by wavelength, attention as it was",
        ("factor", "window"),
        ("low_freq_factor", "high_freq_factor"),
        {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "longrope": Kind(
        "a divisor for each frequency, one list up to the window and one past it",
        ("short_factor", "long_factor", "window"),
        ("factor", "attention_factor", "length"),
        by_length=True,
    ),
    "proportional": Kind(
        "only a share of the frequencies turns",
        takes=("factor", "proportion"),
        defaults={"factor": 1.0, "proportion": 1.0},
    ),
}

_NAMES = {"window": "original_max_position_embeddings", "proportion": "partial_rotary_factor"}
"""Our words for what transformers calls otherwise."""


def kinds() -> Mapping[str, Kind]:
    """Every kind by name, with the options it needs and takes."""
    return dict(_KINDS)


def rope_frequencies(kind: str, dim: int, base: int | float, **opts: Any) -> Frequencies:
    """Inverse frequencies and attention factor of a rotary embedding.

    Args:
        kind: One of `kinds()`: default, linear, power, truncated, ntk, abf, dynamic, yarn, llama3,
            longrope or proportional.
        dim: Rotated width of a head, even. Only for `proportional` is it the whole head.
        base: Base of the frequencies: the model's own `rope_theta`; for `abf` the new one.
        **opts: What the kind takes.
            factor (1 or more): How many times the trained window is wanted.
            power (0 or more): Exponent of the power basis; 0 leaves it as it is.
            truncate_at (tokens): Trained window of the truncated basis.
            window (tokens): Trained window, for dynamic, yarn, llama3 and longrope.
            length (tokens): Length of the text so far, for dynamic and longrope.
            attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate: Of yarn (the
            first of longrope too), as transformers has them.
            low_freq_factor, high_freq_factor: Of llama3.
            short_factor, long_factor: Of longrope, dim / 2 numbers each.
            proportion (0 to 1): Share of the head that turns, for proportional.

    Raises:
        ConfigError: No such kind, an option that it needs is missing, one that it does not read is
            given, or a value is out of range.
        MissingExtra: torch, or transformers for a kind of its own, is not installed.
    """
    chosen = _checked(kind, dim, base, opts)
    torch = require("torch", extra="read", purpose="Rotary frequencies")
    if kind in ("default", "abf", "ntk", "power", "truncated"):
        if kind == "ntk":
            base = raised_base(base, dim, chosen["factor"])
        exponents = torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim
        inv_freq = 1.0 / (base**exponents)
        if kind in ("power", "truncated"):
            inv_freq = stretched(inv_freq, **chosen)
        return Frequencies(inv_freq, 1.0)
    rope = require(
        "transformers.modeling_rope_utils", extra="read", purpose=f"Rope kind {kind!r}"
    ).ROPE_INIT_FUNCTIONS
    window = int(chosen.get("window", 1))
    config = SimpleNamespace(
        head_dim=dim,
        hidden_size=dim,
        num_attention_heads=1,
        max_position_embeddings=window,
        rope_parameters=_spoken(kind, base, chosen),
        standardize_rope_params=lambda: None,
    )
    inv_freq, factor = rope[kind](config, None, seq_len=chosen.get("length"))
    return Frequencies(inv_freq, float(factor))


def rope_parameters(
    kind: str, dim: int, base: int | float, *, as_longrope: bool = False, **opts: Any
) -> dict[str, Any]:
    """The same frequencies as `config.rope_parameters`, which any engine of the format can load.

    Power and truncated bases become lists of divisors under `longrope`, with the attention factor
    that this type would add set to theirs, so they also need `window`.

    Args:
        kind: As in `rope_frequencies`.
        dim: As there.
        base: As there.
        as_longrope: Write any kind that does not change with the length in that way: Phi-3 takes
            no other type.
        **opts: As there; `window` too, where a list is written.

    Raises:
        ConfigError: As `rope_frequencies`.
        Unsupported: A frequency is 0, or they change with the length, which no list can say.
    """
    if as_longrope or kind in ("power", "truncated"):
        return _divisors(kind, dim, base, opts)
    chosen = _checked(kind, dim, base, opts)
    if kind in ("default", "abf", "ntk"):
        theta = raised_base(base, dim, chosen["factor"]) if kind == "ntk" else base
        return {"rope_type": "default", "rope_theta": theta}
    return _spoken(kind, base, {k: v for k, v in chosen.items() if k != "length"})


def _divisors(kind: str, dim: int, base: int | float, opts: Mapping[str, Any]) -> dict[str, Any]:
    """Frequencies as longrope's two lists, both the same."""
    window = opts.get("window", opts.get("truncate_at"))
    if window is None:
        raise ConfigError(f"Writing rope kind {kind!r} out needs window, the trained length.")
    known = (*_KINDS[kind].needs, *_KINDS[kind].takes) if kind in _KINDS else ("window",)
    own = {k: v for k, v in opts.items() if k != "window" or k in known}
    stretched_by = rope_frequencies(kind, dim, base, **own)
    if _KINDS[kind].by_length:
        raise Unsupported(f"rope kind {kind!r} changes with the length, which no list can say.")
    trained = rope_frequencies("default", dim, base).inv_freq.double()
    stopped = int((stretched_by.inv_freq == 0).sum())
    if stopped:
        raise Unsupported(
            f"rope_parameters cannot hold {stopped} of {len(trained)} frequencies that are 0, "
            f"which kind={kind!r} gives with {', '.join(f'{k}={v}' for k, v in own.items())}. "
            f"Save the model with the method instead, or use kind='power'."
        )
    divisors = (trained / stretched_by.inv_freq.double()).tolist()
    return {
        "rope_type": "longrope",
        "rope_theta": base,
        "short_factor": divisors,
        "long_factor": list(divisors),
        "factor": float(own.get("factor", 1.0)),
        "attention_factor": stretched_by.attention_factor,
        "original_max_position_embeddings": int(window),
    }


def raised_base(base: int | float, dim: int, factor: int | float) -> float:
    """The base whose slowest frequency is that of `base` divided by `factor`."""
    return float(base * factor ** (dim / (dim - 2)))


def stretched(
    inv_freq: torch.Tensor,
    *,
    factor: int | float = 1,
    power: int | float = 0,
    truncate_at: int | float | None = None,
) -> torch.Tensor:
    """Any frequencies, [dim / 2], by Giraffe's three steps in their order: linear, power, cut."""
    import torch

    share = torch.arange(len(inv_freq), device=inv_freq.device) / len(inv_freq)
    inv_freq = inv_freq / factor * (1 - share) ** power
    if truncate_at is None:
        return inv_freq
    cut = 2 * math.pi / truncate_at  # one full turn over the trained window
    slow = torch.where(inv_freq < cut / 8, 0.0, cut / 16)
    return torch.where(inv_freq < cut, slow, inv_freq)


def _spoken(kind: str, base: int | float, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Options in transformers' words."""
    spoken = {_NAMES.get(name, name): value for name, value in chosen.items() if name != "length"}
    if kind == "dynamic":  # there the trained window is the model's max_position_embeddings
        del spoken["original_max_position_embeddings"]
    for name in ("short_factor", "long_factor"):
        if name in spoken:
            spoken[name] = [float(x) for x in spoken[name]]
    return {"rope_type": kind, "rope_theta": base, **spoken}


def check_options(kind: str, told: Mapping[str, Any], *, later: Container[str] = ()) -> None:
    """Refuse an unknown kind, and options that it does not read, lacks or cannot work with.

    Args:
        kind: A name of `kinds()`.
        told: Options by name; None is as good as not given.
        later: Options that need not be known yet.

    Raises:
        ConfigError: Names the kind, the option and its value.
    """
    if kind not in _KINDS:
        raise ConfigError(f"There is no rope kind {kind!r}. Known: {', '.join(_KINDS)}.")
    about, told = _KINDS[kind], {k: v for k, v in told.items() if v is not None}
    known = (*about.needs, *about.takes)
    for name, value in told.items():
        if name not in known:
            raise ConfigError(
                f"rope kind {kind!r} does not read {name}={value!r}. "
                f"It takes {', '.join(known) or 'no options'}."
            )
    for name in about.needs:
        if name not in told and name not in later:
            raise ConfigError(f"rope kind {kind!r} needs {name}: {_MEANING[name]}.")
    chosen = {**about.defaults, **told}
    for name, value in chosen.items():
        _check(kind, name, value)
    if chosen.get("low_freq_factor", 0) >= chosen.get("high_freq_factor", math.inf):
        raise ConfigError(
            f"low_freq_factor must be below high_freq_factor, got {chosen['low_freq_factor']} and "
            f"{chosen['high_freq_factor']}."
        )
    if chosen.get("beta_fast", 32) < chosen.get("beta_slow", 1):
        raise ConfigError(
            f"beta_fast must be at least beta_slow, got {chosen.get('beta_fast', 32)} and "
            f"{chosen.get('beta_slow', 1)}."
        )


def _checked(kind: str, dim: int, base: int | float, opts: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a kind with its value; a ConfigError names what is wrong."""
    check_options(kind, opts)
    if dim < 2 or dim % 2:
        raise ConfigError(f"The rotated width of a head must be even and >= 2, got dim={dim}.")
    if dim == 2 and kind in ("ntk", "dynamic"):
        raise ConfigError(f"rope kind {kind!r} needs dim >= 4, got {dim}: its exponent is d/(d-2).")
    if not 1 < base < math.inf:
        raise ConfigError(f"base must be a finite number above 1, got {base}.")
    told = {name: value for name, value in opts.items() if value is not None}
    for name in ("short_factor", "long_factor"):
        if name in told and len(told[name]) != dim // 2:
            raise ConfigError(
                f"{name} must hold {dim // 2} numbers, one a frequency, got {len(told[name])}."
            )
    return {**_KINDS[kind].defaults, **told}


_MEANING = {
    "factor": "how many times the trained window is wanted, 4 for four times",
    "window": "the length in tokens that the model was trained on",
    "truncate_at": "the length in tokens that the model was trained on",
    "short_factor": "a divisor for each frequency, for texts within the window",
    "long_factor": "a divisor for each frequency, for texts past the window",
}


def _check(kind: str, name: str, value: Any) -> None:
    """Refuse a value that is out of range."""
    if name in ("short_factor", "long_factor"):
        if not all(0 < x < math.inf for x in value):
            raise ConfigError(f"{name} must hold positive numbers, got {list(value)}.")
        return
    if name == "truncate":
        return
    least, most, words = _RANGES.get(name, (0.0, math.inf, "above 0"))
    above = value > least if words == "above 0" else value >= least
    if not (above and value <= most and value < math.inf):
        hint = " 1 is the trained window." if name == "factor" else ""
        raise ConfigError(f"rope kind {kind!r} needs {name} {words}, got {value}.{hint}")


_RANGES: dict[str, tuple[float, float, str]] = {
    "factor": (1.0, math.inf, ">= 1"),
    "power": (0.0, math.inf, ">= 0"),
    "truncate_at": (1.0, math.inf, ">= 1"),
    "window": (1.0, math.inf, ">= 1"),
    "length": (0.0, math.inf, ">= 0"),
    "proportion": (0.0, 1.0, "between 0 and 1"),
}
