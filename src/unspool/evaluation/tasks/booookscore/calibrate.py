"""Is a model fit to be a judge: what it says of sentences that are known to be clean or spoilt.

What: short summaries of plain sentences, half of them with one planted error; the judge is asked
about the spoilt sentence or about a clean one, as in a real scoring.
Source: planted errors are this project's own (`plant`); the paper checks its judge with people.
Differs from a measure of quality: planted errors are plain, so passing is needed, not enough.
Cost: a call a question, two or three hundred tokens each.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from unspool.errors import ConfigError
from unspool.evaluation.intervals import wilson
from unspool.evaluation.tasks._prose import plain_sentences
from unspool.evaluation.tasks.booookscore.judge import judge_sentence
from unspool.evaluation.tasks.booookscore.plant import plant_at
from unspool.types import LanguageModel

_SENTENCES = 6
_FAR = 8


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a judge got right of questions with known answers."""

    questions: int
    right: int
    unread: int
    """Answers that had not the form that was asked for; they count as wrong."""

    @property
    def agreement(self) -> float:
        """Share that it got right."""
        return self.right / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the agreement (Wilson)."""
        return wilson(self.right, self.questions)

    @property
    def fit(self) -> bool:
        """Whether it is better than a coin."""
        return self.interval[0] > 0.5

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "agreement": self.agreement,
            "interval": list(self.interval),
            "fit": self.fit,
        }


def calibrate(judge: LanguageModel, questions: int = 12, *, seed: int = 0) -> Calibration:
    """Ask a judge about sentences that are known to be clean or spoilt, half of each.

    Raises:
        ConfigError: `questions` is below 2.
    """
    if questions < 2:
        raise ConfigError(f"A calibration takes at least 2 questions, got {questions}.")
    pool = plain_sentences()
    right = unread = 0
    for number in range(questions):
        draw = random.Random(f"{seed}:calibrate:{number}")
        first = draw.randrange(len(pool))
        turned = [*pool[first:], *pool[:first]]
        pieces, far = turned[:_SENTENCES], turned[_SENTENCES : _SENTENCES + _FAR]
        place, spoilt = draw.randrange(1, _SENTENCES), number % 2 == 0
        if spoilt:
            pieces[place], _ = plant_at(pieces, place, draw, far)
        found = judge_sentence(" ".join(pieces), pieces[place], judge)
        unread += not found.scored
        right += found.scored and found.confusing == spoilt
    return Calibration(questions, right, unread)
