"""RULER's two question tasks: the answer stands in one document of many, or in two.

What: documents are short paragraphs of prose; those that are needed hold made-up facts on made-up
people and towns, so no model knows the answer. `qa_2` asks across two documents.
Source: Hsieh et al. (2024), arXiv 2404.06654, section 3.
Differs from the release: it takes questions of SQuAD and HotpotQA with their paragraphs; facts here
are generated, as are distractors of the same form about others.
Cost: O(length) text a sample.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from unspool.evaluation.spec import LengthLevel, Parts
from unspool.evaluation.tasks._grown import Ground, Grown, Made
from unspool.evaluation.tasks._prose import NAMES, made_words, plain_sentences, turned

QA = (
    "Answer the question from the documents below, in a few words.\n\n",
    "\n\nQuestion: {question}",
    " Answer:",
)
BORN = "{name} {family} was born in the town of {town} and went to school there."
TRADE = "{name} {family} works as a restorer of {things} and likes long walks."
RIVER = "The town of {town} lies on the river {river} and has a market on Fridays."
_THINGS = ("clocks", "violins", "maps", "boats", "carpets", "bells", "globes", "kites", "saddles")
_SENTENCES = 3
_RIVALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions(Grown):
    """A question whose answer takes one or two documents."""

    hops: int = 1

    def least(self, level: LengthLevel) -> int:
        """Only the documents with facts."""
        return 0

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a document without facts."""
        draw = ground.draw()
        people = 1 + _RIVALS
        names = draw.sample(NAMES, people)
        words = [word.capitalize() for word in made_words(draw, 3 * people)]
        families, towns, rivers = words[:people], words[people : 2 * people], words[2 * people :]
        things = draw.sample(_THINGS, people)
        facts: list[str] = []
        for i in range(people):
            facts.append(
                BORN.format(name=names[i], family=families[i], town=towns[i])
                + " "
                + TRADE.format(name=names[i], family=families[i], things=things[i])
            )
            if self.hops == 2:
                facts.append(RIVER.format(town=towns[i], river=rivers[i]))
        whole = f"{names[0]} {families[0]}"
        if self.hops == 2:
            question = f"On which river lies the town where {whole} was born?"
            answer = rivers[0]
        else:
            question = f"In which town was {whole} born?"
            answer = towns[0]
        pool = plain_sentences(ground.source)
        first = draw.randrange(len(pool))
        order = random.Random(f"{ground.seed}:order")
        documents = [
            " ".join(turned(pool, first + i * _SENTENCES, _SENTENCES)) for i in range(count)
        ]
        for fact in facts:
            documents.insert(order.randint(0, len(documents)), fact)
        before, asked, cue = QA
        text = "\n\n".join(f"Document {i}:\n{each}" for i, each in enumerate(documents, 1))
        return Made(Parts(before, text, asked.format(question=question), cue), (answer,))
