"""RULER's two scores: the share of expected strings in the answer, or whether any is.

Source: Hsieh et al. (2024), arXiv 2404.06654, released `synthetic/constants.py`
(`string_match_all`, `string_match_part`): lower case, substrings, percent with two digits.
Cost: linear in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspool.evaluation.spec import Response, Sample, mean_percent


@dataclass(frozen=True, slots=True)
class StringMatch:
    """All expected strings count in equal shares, or one of them is enough (`any_of`)."""

    any_of: bool = False
    packages: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return "ruler-part@1" if self.any_of else "ruler-all@1"

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """The share in 0-1."""
        said = response.text.lower()
        found = [reference.lower() in said for reference in sample.references]
        share = float(any(found)) if self.any_of else sum(found) / len(found)
        return {"score": share}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": mean_percent(scores)}
