"""Stretched rotary frequencies against loops in float64, transformers' own, and known limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from unspool.errors import ConfigError, Unsupported
from unspool.positions import kinds, rope_frequencies, rope_parameters

BASES = (10_000, 100_000, 1_000_000.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 3},
    "power": {"factor": 1.5, "power": 0.3},
    "truncated": {"truncate_at": 64},
    "ntk": {"factor": 4},
    "abf": {},
    "dynamic": {"factor": 2.0, "window": 64, "length": 200},
    "yarn": {"factor": 4.0, "window": 64},
    "llama3": {"factor": 8.0, "window": 64},
    "longrope": {
        "short_factor": [1.0] * 8,
        "long_factor": [1.0 + j for j in range(8)],
        "window": 64,
        "factor": 2.0,
        "length": 100,
    },
    "proportional": {"proportion": 0.5},
}


def trained(dim: int, base: float) -> list[float]:
    return [base ** (-2 * j / dim) for j in range(dim // 2)]


def giraffe(dim: int, base: float, s: float, k: float, t: float | None) -> list[float]:
    """The definition, one frequency at a time."""
    out = []
    for j, theta in enumerate(trained(dim, base)):
        theta = theta / s * (1 - j / (dim // 2)) ** k
        if t is not None:
            b = 2 * math.pi / t
            rho, a = 2 * math.pi / (16 * t), b / 8
            theta = theta if theta >= b else rho if theta >= a else 0.0
        out.append(theta)
    return out


def close(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(
        actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=2e-6, atol=1e-12
    )


def test_every_kind_is_tried_here() -> None:
    assert set(OPTIONS) == set(kinds())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dim", [2, 6, 64, 66, 128])
def test_giraffe_matches_the_definition(dim: int, base: float) -> None:
    close(rope_frequencies("default", dim, base).inv_freq, trained(dim, base))
    close(rope_frequencies("linear", dim, base, factor=3).inv_freq, giraffe(dim, base, 3, 0, None))
    power = rope_frequencies("power", dim, base, factor=2, power=0.7).inv_freq
    close(power, giraffe(dim, base, 2, 0.7, None))
    both = rope_frequencies("truncated", dim, base, factor=2, power=0.1, truncate_at=2048).inv_freq
    close(both, giraffe(dim, base, 2, 0.1, 2048))


@pytest.mark.parametrize("dim", [4, 64])
@pytest.mark.parametrize("base", BASES)
def test_ntk_keeps_the_fastest_and_divides_the_slowest(dim: int, base: float) -> None:
    stretched = rope_frequencies("ntk", dim, base, factor=4).inv_freq
    close(stretched[:1], [1.0])
    close(stretched[-1:], [trained(dim, base)[-1] / 4])


def test_abf_is_the_new_base() -> None:
    close(rope_frequencies("abf", 64, 500_000).inv_freq, trained(64, 500_000))


@pytest.mark.parametrize(
    "kind", ["linear", "dynamic", "yarn", "llama3", "longrope", "proportional"]
)
def test_kinds_of_transformers_are_its_own(kind: str) -> None:
    """Built from a real configuration, bit for bit."""
    opts = dict(OPTIONS[kind])
    length = opts.get("length")
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=64 if kind == "dynamic" else 256,
        rope_parameters=rope_parameters(kind, 16, 10_000.0, **opts),
    )
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=length)
    actual = rope_frequencies(kind, 16, 10_000.0, **opts)
    assert torch.equal(actual.inv_freq, expected)
    assert actual.attention_factor == factor


def test_dividing_frequencies_is_dividing_positions() -> None:
    positions = torch.arange(512, dtype=torch.float64)
    trained_angles = (positions / 3)[:, None] * rope_frequencies("default", 64, 1e5).inv_freq
    angles = positions[:, None] * rope_frequencies("linear", 64, 1e5, factor=3).inv_freq
    torch.testing.assert_close(angles, trained_angles, rtol=1e-6, atol=1e-6)


def test_limits_are_the_trained_frequencies() -> None:
    same = rope_frequencies("default", 64, 1e5).inv_freq
    assert torch.equal(rope_frequencies("power", 64, 1e5, power=0).inv_freq, same)
    assert torch.equal(rope_frequencies("linear", 64, 1e5, factor=1).inv_freq, same)
    assert torch.equal(rope_frequencies("ntk", 64, 1e5, factor=1).inv_freq, same)
    endless = rope_frequencies("truncated", 64, 1e5, truncate_at=10**9).inv_freq
    assert torch.equal(endless, same)
    within = rope_frequencies("dynamic", 64, 1e5, window=8192, length=8192).inv_freq
    assert torch.equal(within, same)
    for kind, opts in OPTIONS.items():  # and each of them is something else, or none
        stretched = rope_frequencies(kind, 16, 1e5, **opts).inv_freq
        unchanged = kind in ("default", "abf")
        assert torch.equal(stretched, rope_frequencies("default", 16, 1e5).inv_freq) == unchanged


@given(
    st.sampled_from([2, 10, 64, 128]),
    st.sampled_from(BASES),
    st.integers(1, 200_000),
    st.floats(1, 64),
)
def test_truncated_takes_three_kinds_of_values(dim: int, base: float, t: int, s: float) -> None:
    values = rope_frequencies("truncated", dim, base, factor=s, truncate_at=t).inv_freq
    held = torch.tensor(2 * math.pi / (16 * t))
    kept = rope_frequencies("linear", dim, base, factor=s).inv_freq
    assert bool(((values == 0) | (values == held) | (values == kept)).all())
    assert bool((values.diff() <= 0).all())  # slower and slower, as the trained ones
    assert bool((values[kept >= 2 * math.pi / t * (1 + 1e-6)] > 0).all())


@pytest.mark.parametrize("kind", list(OPTIONS))
def test_written_out_it_is_loaded_by_plain_transformers(kind: str) -> None:
    """The parameters, put into a configuration, give our frequencies and factor."""
    opts = dict(OPTIONS[kind])
    if kind == "truncated":
        opts = {"truncate_at": 10**7}  # nothing stops
    elif kind == "power":
        opts["window"] = 64
    said = rope_parameters(kind, 16, 10_000.0, **opts)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64 if kind == "dynamic" else 256,
        rope_parameters=said,
    )
    rotary = LlamaForCausalLM(config).model.rotary_emb
    length = opts.get("length", 256)
    with torch.no_grad():
        rotary(torch.zeros(1, length, 16), torch.arange(length)[None])
    opts.pop("window", None) if kind == "power" else None
    ours = rope_frequencies(kind, 16, 10_000.0, **opts)
    torch.testing.assert_close(rotary.inv_freq, ours.inv_freq, rtol=1e-6, atol=0)
    assert rotary.attention_scaling == ours.attention_factor


@pytest.mark.parametrize("kind", ["default", "linear", "ntk", "yarn", "llama3", "proportional"])
def test_any_fixed_kind_can_be_written_as_lists(kind: str) -> None:
    opts = {**OPTIONS[kind], "window": 64} | ({"proportion": 1.0} if kind == "proportional" else {})
    said = rope_parameters(kind, 16, 10_000.0, as_longrope=True, **opts)
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=256, rope_parameters=said
    )
    for length in (1, 1000):
        found, factor = ROPE_INIT_FUNCTIONS["longrope"](config, None, seq_len=length)
        ours = rope_frequencies(
            kind, 16, 10_000.0, **{k: v for k, v in opts.items() if k in OPTIONS[kind]}
        )
        torch.testing.assert_close(found, ours.inv_freq, rtol=1e-6, atol=0)
        assert factor == ours.attention_factor
    with pytest.raises(Unsupported, match="changes with the length"):
        rope_parameters("dynamic", 16, 1e4, as_longrope=True, window=64)


def test_a_frequency_of_zero_cannot_be_written_out() -> None:
    with pytest.raises(Unsupported, match=r"6 of 32 frequencies.*truncate_at=8192. Save"):
        rope_parameters("truncated", 64, 1e5, truncate_at=8192)
    with pytest.raises(ConfigError, match="needs window"):
        rope_parameters("power", 64, 1e5)
    with pytest.raises(ConfigError, match="no rope kind 'pwr'"):
        rope_parameters("pwr", 64, 1e5, as_longrope=True, window=8)


@pytest.mark.parametrize(
    ("kind", "dim", "base", "opts", "says"),
    [
        ("linnear", 64, 1e4, {}, r"no rope kind 'linnear'. Known: default, linear"),
        ("linear", 64, 1e4, {}, "needs factor: how many times"),
        ("linear", 64, 1e4, {"factor": 0.5}, r"factor >= 1, got 0.5. 1 is the trained window"),
        ("linear", 64, 1e4, {"factor": math.nan}, "got nan"),
        ("linear", 64, 1e4, {"factor": math.inf}, "got inf"),
        ("linear", 64, 1e4, {"factor": 2, "power": 1}, "does not read power=1. It takes factor"),
        ("default", 64, 1e4, {"factor": 2}, "takes no options"),
        ("power", 64, 1e4, {"power": -1}, "power >= 0, got -1"),
        ("truncated", 64, 1e4, {}, "needs truncate_at: the length"),
        ("truncated", 64, 1e4, {"truncate_at": 0}, "truncate_at >= 1, got 0"),
        ("default", 63, 1e4, {}, "even and >= 2, got dim=63"),
        ("default", 0, 1e4, {}, "got dim=0"),
        ("ntk", 2, 1e4, {"factor": 2}, "needs dim >= 4"),
        ("default", 64, 1, {}, "above 1, got 1"),
        ("yarn", 64, 1e4, {"factor": 2}, "needs window"),
        ("yarn", 64, 1e4, {"factor": 2, "window": 8, "attention_factor": 0}, "above 0, got 0"),
        ("yarn", 64, 1e4, {"factor": 2, "window": 8, "beta_fast": 0.5}, "got 0.5 and 1"),
        ("llama3", 64, 1e4, {"factor": 2, "window": 8, "low_freq_factor": 4}, "got 4 and 4"),
        ("proportional", 64, 1e4, {"proportion": 1.5}, "between 0 and 1, got 1.5"),
        (
            "longrope",
            8,
            1e4,
            {"short_factor": [1.0] * 4, "long_factor": [1.0, 0.0], "window": 8},
            "must hold positive numbers",
        ),
        (
            "longrope",
            8,
            1e4,
            {"short_factor": [1.0] * 4, "long_factor": [1.0] * 3, "window": 8},
            "long_factor must hold 4 numbers, one a frequency, got 3",
        ),
    ],
)
def test_bad_input_says_what_and_what_instead(
    kind: str, dim: int, base: float, opts: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        rope_frequencies(kind, dim, base, **opts)
