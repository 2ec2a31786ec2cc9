"""Post-processing and metrics of LongICLBench, by its scripts.

What: what a reply is taken to say for each of the six data sets, and accuracy or micro F1 over a
run, with the released smoothing.
Source: Li et al. (2024), arXiv 2404.02060, section 4; the `*_infer.py` scripts,
`dialogueRE_evaluate.py` and `fewnerd_evaluate.py` of the release.
Differs from the released code: none in the numbers. An entity score with nothing right, where the
release divides by zero, is 0. An empty test input, at which it cannot split, is not echoed.
Cost: linear in the reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from unspool.evaluation.spec import Response, Sample
from unspool.evaluation.tasks.long_icl.facts import (
    DIALOGRE_RELATIONS,
    MOST_TESTS,
    TACRED_RELATIONS,
    Name,
)

SMOOTH = 1e-8
_QUOTES = re.compile('[\u201c\u201d,."]')


class Cue(NamedTuple):
    """How a data set finds the label in a reply."""

    label: str
    """Stands before the label."""
    following: str
    """Begins the next item; empty: replies are not cut there."""


CUES: dict[str, Cue] = {
    "goemotion": Cue("emotion category:", "comment: "),
    "banking77": Cue("intent category:", "service query"),
    "tacred": Cue("the relation between the two entities is:", "sentence:"),
    "discovery": Cue("the most suitable conjunction word in the previous ( ) is", ""),
}


def said_label(name: Name | str, reply: str, echoed: str) -> str:
    """The label that a reply gives, post-processed as the release does.

    Args:
        name: goemotion, banking77, tacred or discovery.
        reply: What the model wrote, the prompt included or not.
        echoed: The test input; if it is in the reply, what follows its last occurrence counts.
    """
    cue = CUES[name]
    text = reply
    if echoed and echoed in reply:
        pieces = reply.split(echoed)[-1].strip().split(cue.label)
        text = _before(pieces[1], cue.following) if len(pieces) > 1 else pieces[0]
    else:
        text = _before(reply, cue.following)
    line = text.strip().split("\n")[0]
    if name == "tacred":
        return line.strip()
    if name == "discovery":
        line = _QUOTES.sub("", line.strip())
    return line.lower().strip()


def plain_label(name: Name | str, label: str) -> str:
    """A label as replies are compared with it."""
    if name == "tacred":
        return label
    if name == "discovery":
        label = _QUOTES.sub("", label.strip())
    return label.lower()


def said_relations(reply: str, dialogue: str, count: int) -> str:
    """The list of relations that a reply gives for `count` pairs of a dialogue, as text."""
    cue = f"The {count} respective relations between each entity pair are:"
    text = reply.split(dialogue)[-1] if dialogue else reply
    text = text.strip().split(cue)[-1].strip().split("dialogue")[0]
    text = text.strip().split("Dialogue")[0].strip().split("\n")[0]
    return text.strip().split("[/INST]")[0].strip()


def said_entities(reply: str, sentence: str) -> dict[str, str]:
    """The entities and types that a reply lists, up to the first line that lists none."""
    text = reply.split(sentence)[-1] if sentence and sentence in reply else reply
    found: dict[str, str] = {}
    for line in text.strip().split("\n"):
        if ": " not in line or line.startswith(("Sentence", "sentence")):
            break
        pieces = line.split(": ")
        found[pieces[0]] = pieces[1]
    return found


class Counts(NamedTuple):
    """Of one item: how many were predicted, right, and wanted."""

    predicted: int
    correct: int
    wanted: int


def relation_counts(said: str, gold: str) -> Counts:
    """DialogRE: lists split at commas, compared position by position.

    A piece counts as predicted if it holds any of the 34 relations, as right if it equals the gold
    relation at its place or holds it.
    """
    wanted = [piece.strip() for piece in gold.split(",")]
    pieces = [piece.strip() for piece in said.split(",")]
    predicted = sum(any(r in piece for r in DIALOGRE_RELATIONS) for piece in pieces)
    correct = sum(g in p for g, p in zip(wanted, pieces, strict=False))
    return Counts(predicted, correct, len(wanted))


def entity_counts(said: Mapping[str, str], gold: Mapping[str, str]) -> Counts:
    """Few-NERD: an entity is right if its text is in gold with the same type."""
    correct = sum(gold.get(entity) == kind for entity, kind in said.items() if entity in gold)
    return Counts(len(said), correct, len(gold))


def micro(counts: Sequence[Counts], *, smooth_f1: bool = True) -> dict[str, float]:
    """Precision, recall and F1 over a run, smoothed by 1e-8 as released, in 0-1."""
    predicted, correct, wanted = (sum(column) for column in zip(*counts, strict=True))
    precision = correct / (predicted + SMOOTH)
    recall = correct / (wanted + SMOOTH)
    below = precision + recall + (SMOOTH if smooth_f1 else 0.0)
    f1 = 2 * precision * recall / below if below else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def up_to(counts: Sequence[Counts], most: int = MOST_TESTS) -> list[Counts]:
    """The items up to the one in which `most` wanted labels are reached."""
    found: list[Counts] = []
    total = 0
    for each in counts:
        found.append(each)
        total += each.wanted
        if total >= most:
            break
    return found


@dataclass(frozen=True, slots=True)
class Icl:
    """The metric of one data set, or of any labelled data (`label`)."""

    name: str
    ranks_by_token: ClassVar[bool] = True
    """Choices are ranked by log-probability a token, which takes the tokens of each."""

    @property
    def id(self) -> str:
        """Name and version of the arithmetic."""
        return f"long-icl:{self.name}@1"

    @property
    def packages(self) -> tuple[str, ...]:
        """None moves the numbers."""
        return ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`score` of an item, and the counts that the figure of a run is made of.

        `meta["echoed"]` is the test input. A sample with `meta["extracted"]` holds a prediction
        that was post-processed before.
        """
        if sample.choices:
            return _ranked(sample, response)
        counts = self.counts(sample, response.text)
        share = counts.correct / counts.wanted if counts.wanted else 0.0
        return {
            "score": min(1.0, share),
            "predicted": float(counts.predicted),
            "correct": float(counts.correct),
            "wanted": float(counts.wanted),
        }

    def counts(self, sample: Sample, reply: str) -> Counts:
        """Predicted, right and wanted of an item."""
        gold = sample.references[0]
        echoed, done = str(sample.meta.get("echoed", "")), bool(sample.meta.get("extracted"))
        if self.name == "dialogre":
            count = len(gold.split(","))
            said = reply if done else said_relations(reply, echoed, count)
            return relation_counts(said, gold)
        if self.name == "fewnerd":
            entities = sample.meta.get("said") if done else said_entities(reply, echoed)
            return entity_counts(entities or {}, sample.meta["entities"])
        if self.name == "label":
            said = reply.strip().split("\n")[0].strip().lower()
            return Counts(int(bool(said)), int(said == gold.strip().lower()), 1)
        said = reply if done else said_label(self.name, reply, echoed)
        right = said == (gold if done else plain_label(self.name, gold))
        predicted = said in TACRED_RELATIONS if self.name == "tacred" else bool(said)
        return Counts(int(predicted), int(right), 1)

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Accuracy in 0-1, or micro F1 (in percent for dialogre), as the scripts print it."""
        if "correct" not in scores[0]:
            names = list(scores[0])
            return {n: sum(each[n] for each in scores) / len(scores) for n in names}
        counts = [Counts(*(int(e[k]) for k in ("predicted", "correct", "wanted"))) for e in scores]
        if self.name == "dialogre":
            found = micro(up_to(counts))
            return {"score": found["f1"] * 100, **found}
        if self.name == "fewnerd":
            found = micro(counts, smooth_f1=False)
            return {"score": found["f1"], **found}
        if self.name == "tacred":
            found = micro(counts)
            return {"score": found["f1"], **found}
        return {"score": sum(c.correct for c in counts) / len(counts)}


def _ranked(sample: Sample, response: Response) -> dict[str, float]:
    """Whether the right label is the likeliest by token (`score`) and in total."""
    tokens = response.logprob_tokens or tuple(1 for _ in response.logprobs)
    each = [p / max(1, t) for p, t in zip(response.logprobs, tokens, strict=True)]
    by_token = max(range(len(each)), key=lambda i: (each[i], -i))
    in_total = max(range(len(each)), key=lambda i: (response.logprobs[i], -i))
    right = [choice in sample.references for choice in sample.choices]
    # Where the label that was chosen stands among the demonstrations, 0 (first) to 1 (last).
    place = by_token / max(1, len(right) - 1)
    return {"score": float(right[by_token]), "total": float(right[in_total]), "place": place}


def _before(text: str, following: str) -> str:
    return text.split(following)[0] if following else text
