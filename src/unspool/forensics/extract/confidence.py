"""How sure a recovered suffix is, from the samples themselves.

Source: Zhang et al. (2023), "Ethicist", section 3 (calibrated confidence): C(s) is
n(s) * exp(-T * loss(s)) over the sum of the same for all distinct samples, n(s) being how often s
was drawn. Carlini et al. (2021), "Extracting Training Data from Large Language Models", section 5:
the loss alone (`ppl`), over the loss under another model (`compare`), over the size under zlib.
Differs from the released code: computed in logarithms, since exp(-T * loss) of a hard suffix is 0.
The sum runs over what was sampled, so C is relative to that, and no probability of being right
until it has been compared with how often it is (see the reliability table of the report).
Cost: linear in the samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unspool.errors import ConfigError, InputError

METHODS = ("calibrated", "ppl", "zlib", "compare")


def scores(samples: Sequence[Mapping[str, Any]], method: str = "calibrated") -> list[float]:
    """The confidence in each distinct sample of one prefix; higher is surer.

    Args:
        samples: `tokens`, `count` and `loss` (mean nats a token) of each; `zlib` (bytes) and
            `reference` (mean nats a token) where the method needs them.
        method: calibrated (sums to 1 over the samples), ppl (minus the loss), zlib (minus nats a
            byte of the compressed text) or compare (minus the ratio of both losses).

    Raises:
        ConfigError: There is no such method.
        InputError: The samples lack what the method needs.
    """
    if method not in METHODS:
        raise ConfigError(f"confidence must be one of {', '.join(METHODS)}, got {method!r}.")
    if method == "calibrated":
        logs = [math.log(s["count"]) - len(s["tokens"]) * s["loss"] for s in samples]
        top = max(logs, default=0.0)
        weights = [math.exp(x - top) for x in logs]
        whole = math.fsum(weights)
        return [w / whole for w in weights]
    if method == "ppl":
        return [-s["loss"] for s in samples]
    field = "zlib" if method == "zlib" else "reference"
    if any(s.get(field) is None for s in samples):
        raise InputError(
            f"The samples hold no {field!r}. "
            + (
                "Run 'unspool audit extract run' with --reference MODEL."
                if method == "compare"
                else "Texts are compressed only where there is a tokenizer."
            )
        )
    if method == "zlib":
        return [-s["loss"] * len(s["tokens"]) / s["zlib"] for s in samples]
    return [-s["loss"] / max(s["reference"], 1e-9) for s in samples]


def best(samples: Sequence[Mapping[str, Any]], method: str) -> tuple[int, list[float]]:
    """The sample that a method is surest of, and all confidences; ties go to the lower loss."""
    found = scores(samples, method)
    at = max(range(len(samples)), key=lambda i: (found[i], -samples[i]["loss"], -i))
    return at, found
