"""RULER's tracking and counting tasks: variables, common words, frequent words.

What: `vt` follows assignments from one value; `cwe` asks for the ten words that are listed most
often; `fwe` for the three most frequent words of a coded text whose frequencies follow a zeta law.
Source: Hsieh et al. (2024), arXiv 2404.06654, section 3, appendix B.
Differs from the release: own wording; words mean nothing, where it takes English words for `cwe`;
no worked example stands before the question.
Cost: O(length) text a sample.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from itertools import pairwise

from unspool.evaluation.spec import LengthLevel, Parts
from unspool.evaluation.tasks._grown import Ground, Grown, Made
from unspool.evaluation.tasks._prose import made_words, scattered
from unspool.evaluation.tasks.ruler.needles import NOISE

VT = (
    "Follow the variables that are assigned in the text below.\n\n",
    "\n\nWhich variables hold the value {value}, directly or by way of others? Name all of them.",
    " The variables that hold {value} are",
)
CWE = (
    "Below is a numbered list of words. Some are listed far more often than others.\n\n",
    "\n\nWhich 10 words are listed most often?",
    " The 10 words listed most often are",
)
FWE = (
    "Below is a text in code, whose meaning does not matter. Count how often each coded word "
    "comes, and leave out the dots.\n\n",
    "\n\nWhich 3 coded words come most often?",
    " The 3 coded words that come most often are",
)
_ZETA_2 = 1.6449340668482264
_SHORT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking(Grown):
    """Chains of assignments; the first is asked for."""

    chains: int = 1
    hops: int = 4

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a sentence of noise."""
        draw = ground.draw()
        length = self.hops + 1
        names: dict[str, None] = {}
        while len(names) < self.chains * length:
            names.setdefault("".join(draw.choices(string.ascii_uppercase, k=5)))
        values = [str(each) for each in draw.sample(range(10_000, 100_000), self.chains)]
        listed = list(names)
        chains = [listed[i * length : (i + 1) * length] for i in range(self.chains)]
        planted: list[list[str]] = []
        for chain, value in zip(chains, values, strict=True):
            steps = [f"VAR {chain[0]} = {value}"]
            steps += [f"VAR {b} = VAR {a}" for a, b in pairwise(chain)]
            planted.append(steps)
        order = [i for i, steps in enumerate(planted) for _ in steps]
        draw.shuffle(order)
        mixed = [planted[i].pop(0) for i in order]
        filler = [NOISE[i % len(NOISE)] for i in range(count)]
        lines = scattered(filler, mixed, draw)
        before, question, cue = VT
        return Made(
            Parts(
                before,
                "\n".join(lines),
                question.format(value=values[0]),
                cue.format(value=values[0]),
            ),
            tuple(chains[0]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonWords(Grown):
    """Ten words among many that are listed less often."""

    common: int = 10
    often: int = 30
    seldom: int = 3
    """Times that common and other words are listed; 6 and 1 below 4k."""

    def least(self, level: LengthLevel) -> int:
        """At least as many other words as common ones."""
        return self.common

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is an uncommon word."""
        draw = ground.draw()
        short = ground.level.upper < _SHORT
        often, seldom = (6, 1) if short else (self.often, self.seldom)
        words = made_words(random.Random(f"{ground.seed}:words"), self.common + count)
        common = words[: self.common]
        listed = common * often + words[self.common :] * seldom
        draw.shuffle(listed)
        before, question, cue = CWE
        lines = (f"{i}. {word}" for i, word in enumerate(listed, 1))
        return Made(Parts(before, " ".join(lines), question, cue), tuple(common))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentWords(Grown):
    """The three most frequent words of a text whose frequencies fall with rank squared."""

    def least(self, level: LengthLevel) -> int:
        """Words below which frequencies would be equal."""
        return 160

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a word. The most frequent one is written as dots."""
        draw = ground.draw()
        words: list[str] = []
        pool = made_words(random.Random(f"{ground.seed}:words"), 4 + int(count**0.5))
        for rank, word in enumerate(pool, 1):
            times = int(count / (_ZETA_2 * rank * rank))
            words += [("..." if rank == 1 else word)] * times
        draw.shuffle(words)
        before, question, cue = FWE
        return Made(Parts(before, " ".join(words), question, cue), tuple(pool[1:4]))
