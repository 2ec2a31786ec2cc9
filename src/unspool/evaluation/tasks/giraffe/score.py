"""How the three tasks are scored: the first whole number, or the reference inside the output.

Source: Pal et al. (2023), "Giraffe", section 4, and its released scripts.
Differs from the released code: an empty reference is an error (there it is in every output), and
the number of written tokens is kept beside the score, since presence rewards long outputs.
Cost: O(length).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unspool.errors import InputError
from unspool.evaluation.spec import Response, Sample, mean_percent

_INTEGER = re.compile(r"[0-9]+")


def score_first_integer(output: str, truth: int | str) -> bool:
    """Whether the first run of digits in the output is the number.

    Raises:
        InputError: The truth is not a whole number.
    """
    wanted = str(truth).strip()
    if not _INTEGER.fullmatch(wanted):
        raise InputError(f"The truth must be a whole number, got {truth!r}.")
    found = _INTEGER.search(output)
    return found is not None and int(found[0]) == int(wanted)


def score_presence(output: str, reference: str) -> bool:
    """Whether the reference, without blanks at its ends, stands in the output.

    Raises:
        InputError: The reference is empty, so it would be in any output.
    """
    wanted = reference.strip()
    if not wanted:
        raise InputError("The reference is empty, so any output would hold it.")
    return wanted in output


@dataclass(frozen=True, slots=True)
class Scored:
    """One of the two scores, and how much was written for it."""

    rule: Literal["first-integer", "presence"]
    packages: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"giraffe-{self.rule}@1"

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """1 or 0, with the tokens and characters of the output."""
        rule = score_presence if self.rule == "presence" else score_first_integer
        return {
            "score": float(any(rule(response.text, r) for r in sample.references)),
            "output_tokens": float(response.completion_tokens),
            "output_chars": float(len(response.text)),
        }

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Percent right, and the mean length of an output."""
        percent = mean_percent(scores)
        names = ("output_tokens", "output_chars")
        means = {name: sum(each[name] for each in scores) / len(scores) for name in names}
        return {"score": percent, **means}
