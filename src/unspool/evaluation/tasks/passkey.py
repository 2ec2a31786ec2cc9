"""Passkey retrieval, the smallest complete benchmark: a number hidden in a text of no interest.

Source: Mohtashami and Jaggi (2023), "Landmark Attention", section 4.2 and appendix D, where the
filler is a few sentences that repeat and the key is given twice.
Differs from the paper: own wording; the filler is cut at sentences, so that the prompt meets its
level; the key has five digits and is drawn from a seed. Three forms: writing the key (`digits`),
its log-probability (`loglikelihood`), and picking it among ten (`choice`).
Cost: one measurement of the prompt a level and depth, O(length) text a sample.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from unspool.errors import InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Response,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
    mean_percent,
)
from unspool.evaluation.tasks.base import GENERATED, Task

_PREFIX = "Somewhere in the text below stands a pass key. Find it and remember it.\n\n"
_FILLER = (
    "The meadow is wide. The river is slow. The hill is round. We walk along it. We come back. "
)
_NEEDLE = "The pass key is {key}. Remember it: {key} is the pass key. "
_QUERY = "\n\nWhat is the pass key?"
_ANSWER = " The pass key is"
_CANDIDATES = 10
_LEVELS = tuple(LengthLevel("tokens", n) for n in (512, 1024, 2048, 4096, 8192))


@dataclass(frozen=True, slots=True)
class KeyFound:
    """1 if the first run of digits in the answer is the key; by rank or greed without a text."""

    id: str = "passkey@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        if sample.choices:
            best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
            return {"score": float(sample.choices[best] in sample.references)}
        if response.logprobs:
            return {"score": float(response.greedy[0]), "logprob": response.logprobs[0]}
        text = response.text.lstrip()
        digits = text[: next((i for i, c in enumerate(text) if not c.isdigit()), len(text))]
        return {"score": float(digits == sample.references[0].strip())}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": mean_percent(scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey(Task):
    """A key among filler, at the depths of the spec."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; nothing is read."""
        level = level or _LEVELS[0]
        depths = self.spec.depths or (0.5,)
        repeats: dict[float, int] = {}
        for i in range(n):
            depth = depths[i % len(depths)]
            draw = random.Random(f"{seed}:{level.name}:{i}")
            keys = [str(key) for key in draw.sample(range(10000, 100000), _CANDIDATES)]
            if depth not in repeats:
                repeats[depth] = _repeats(keys[0], depth, level, size)
            context = _context(keys[0], depth, repeats[depth])
            while repeats[depth] and size(_text(context)) > level.upper:  # tokens of this key
                repeats[depth] -= 1
                context = _context(keys[0], depth, repeats[depth])
            choices = tuple(sorted(f" {key}" for key in keys))
            yield Sample(
                id=f"{level.name}-{i}",
                parts=Parts(_PREFIX, context, _QUERY, _ANSWER),
                references=(f" {keys[0]}",),
                choices=choices if self.spec.kind == "choice" else (),
                level=level.name,
                depth=depth,
                seed=seed,
            )


def _context(key: str, depth: float, repeats: int) -> str:
    before = round(depth * repeats)
    return _FILLER * before + _NEEDLE.format(key=key) + _FILLER * (repeats - before)


def _text(context: str) -> str:
    return _PREFIX + context + _QUERY + _ANSWER


def _repeats(key: str, depth: float, level: LengthLevel, size: Sizer) -> int:
    """Most copies of the filler that fit."""

    def fits(repeats: int) -> bool:
        return size(_text(_context(key, depth, repeats))) <= level.upper

    if not fits(0):
        needed = size(_text(_context(key, depth, 0)))
        raise InputError(
            f"The shortest pass key prompt takes {needed} {level.unit} with its answer, and level "
            f"{level.name} holds {level.upper}. Choose a longer level."
        )
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


_SPEC = TaskSpec(
    name="passkey/digits",
    ability="retrieval",
    kind="generate",
    max_new_tokens=8,
    levels=_LEVELS,
    depths=(0.0, 0.25, 0.5, 0.75, 1.0),
    metric="passkey@1",
    prompt_fingerprint=fingerprint(_PREFIX, _FILLER, _NEEDLE, _QUERY, _ANSWER),
)

TASKS: dict[str, Task] = {
    "digits": Passkey(spec=_SPEC, metric=KeyFound()),
    "loglikelihood": Passkey(
        spec=replace(_SPEC, name="passkey/loglikelihood", kind="loglikelihood"), metric=KeyFound()
    ),
    "choice": Passkey(spec=replace(_SPEC, name="passkey/choice", kind="choice"), metric=KeyFound()),
}
