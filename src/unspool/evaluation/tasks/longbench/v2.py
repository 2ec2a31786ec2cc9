"""LongBench v2: 503 questions with four choices over 8,000 to 2 million words.

What: the answer is the letter after "The correct answer is", with or without brackets, asterisks
deleted first; an answer without it is wrong, or a quarter right on request.
Source: Bai et al. (2024), "LongBench v2", arXiv 2412.15204; `pred.py` and `result.py` of the
release. Prompt in our own words, or the release's `prompts/0shot.txt`.
Differs from the released code: a group without items is left out (there: a division by zero); a
blank answer is wrong (there: it is not written and so not counted).
Cost: –
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from unspool.errors import InputError, PathNotFound
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Release,
    Request,
    Response,
    Room,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._release import field, prediction_lines, records
from unspool.evaluation.tasks.base import GENERATED, NO_ROOM, Task

_BRACKETS = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
_PLACES = ("$DOC$", "$Q$", "$C_A$", "$C_B$", "$C_C$", "$C_D$")
_OWN = (
    "Read the text and answer the question after it.\n\n<text>\n$DOC$\n</text>\n\n"
    "Question: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\n\n"
    'Reply in the form "The correct answer is (X)", X being a letter.'
)
_GROUPS = ("easy", "hard", "short", "medium", "long")
_RELEASE = Release(
    dataset="THUDM/LongBench-v2",
    files=("data.json",),
    revision="2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9",
    schema={
        "_id": "str",
        "domain": "str",
        "sub_domain": "str",
        "difficulty": "easy | hard",
        "length": "short | medium | long",
        "question": "str",
        **{f"choice_{letter}": "str" for letter in "ABCD"},
        "answer": "A | B | C | D",
        "context": "str",
    },
    licence="Apache-2.0",
    note="The file is one JSON list; JSON lines are read too.",
)


def extract(response: str) -> str | None:
    """The letter that an answer settles on; None if it does not."""
    response = response.replace("*", "")
    match = _BRACKETS.search(response) or _BARE.search(response)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class V2Metric:
    """1 for the right letter; accuracy in percent to one decimal, whole and by group."""

    compensated: bool = False
    """A quarter for answers that settle on no letter."""
    packages: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"longbench-v2{'.compensated' if self.compensated else ''}@1"

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`score`, and a 1 for each group that the item is in."""
        letter = extract(response.text.strip())
        value = float(letter == sample.references[0])
        if letter is None and self.compensated:
            value = 0.25
        groups = {str(sample.meta.get(key)) for key in ("difficulty", "length")}
        return {"score": value, **{name: 1.0 for name in _GROUPS if name in groups}}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Accuracy of all and of each group that has items."""
        total = sum(each["score"] for each in scores)
        found = {"score": round(100 * total / len(scores), 1)}
        for name in _GROUPS:
            values = [each["score"] for each in scores if name in each]
            if values:
                found[name] = round(100 * sum(values) / len(values), 1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Task(Task):
    """All 503 questions."""

    template: str = _OWN

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first questions of the release, in its order."""
        path = source.path if source.kind == "release" else None
        found = records(_RELEASE, path, twin="There is no generated twin.")
        for number, record in enumerate(islice(found, n), 1):
            where = f"Question {number}"
            values = [field(record, name, str, where).strip() for name in _FIELDS]
            yield Sample(
                id=str(record.get("_id") or number),
                parts=_parts(self.template, values),
                references=(field(record, "answer", str, where),),
                meta={key: record.get(key) for key in ("difficulty", "length", "domain")},
            )

    def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
        """The default request at the release's temperature, 0.1."""
        return replace(Task.build(self, sample, room), temperature=0.1)

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The lines that the release writes: response, answer, difficulty, length."""
        for number, record in prediction_lines(path):
            where = f"Line {number} of {path.name}"
            sample = Sample(
                id=str(record.get("_id") or number),
                parts=Parts(),
                references=(field(record, "answer", str, where),),
                meta={key: record.get(key) for key in ("difficulty", "length", "domain")},
            )
            yield Prediction(sample, Response(text=field(record, "response", str, where)))

    def with_templates(self, source: str) -> V2Task:
        """The same task with the release's prompt: a file, or a checkout's `prompts/0shot.txt`."""
        path = Path(source)
        file = path / "prompts" / "0shot.txt" if path.is_dir() else path
        if not file.is_file():
            raise PathNotFound(f"{file} does not exist; it should hold the release's prompt.")
        template = file.read_text(encoding="utf-8")
        if [template.count(place) for place in _PLACES] != [1] * len(_PLACES):
            raise InputError(f"{file.name} should hold {', '.join(_PLACES)} once each.")
        spec = replace(
            self.spec, prompt_source="reference", prompt_fingerprint=fingerprint(template)
        )
        return replace(self, template=template, spec=spec)


_FIELDS = ("context", "question", "choice_A", "choice_B", "choice_C", "choice_D")


def _parts(template: str, values: Sequence[str]) -> Parts:
    """The filled template, in pieces; a `$Q$` inside a text means nothing."""
    pieces = re.split("(" + "|".join(re.escape(place) for place in _PLACES) + ")", template)
    named = dict(zip(_PLACES, values, strict=True))
    at = pieces.index("$DOC$")

    def filled(some: Sequence[str]) -> str:
        return "".join(named.get(piece, piece) for piece in some)

    return Parts(filled(pieces[:at]), named["$DOC$"], filled(pieces[at + 1 :]))


V2_TASKS: dict[str, Task] = {
    "all": V2Task(
        spec=TaskSpec(
            name="longbench-v2/all",
            ability="choice",
            max_new_tokens=128,
            overflow="ends",
            unit="words",
            metric=V2Metric().id,
            data_source="the release, 503 items",
            prompt_fingerprint=fingerprint(_OWN),
            licence="Apache-2.0",
        ),
        metric=V2Metric(),
        release=_RELEASE,
    )
}
