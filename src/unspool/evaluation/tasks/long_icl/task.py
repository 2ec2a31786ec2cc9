"""Long in-context learning as tasks: the six data sets, and any labelled data.

What: levels are rounds of demonstrations. `<dataset>` reads the release; `modules` and
`modules_choice` are built from labelled texts of the user or from the standard library.
Source: Li et al. (2024), arXiv 2404.02060, section 3 and the released scripts.
Differs from the release: decoding is greedy (there: temperature 1 for some models, unset for
others); prompts are this project's wording around the released field lines.
Cost: one pass over the data a level; every prompt of a level begins with the same demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool.errors import ConfigError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.long_icl import data, facts
from unspool.evaluation.tasks.long_icl.build import Demonstrations, Order, build, check_labels
from unspool.evaluation.tasks.long_icl.prompt import INSTRUCTIONS, answered, echoed, head, shown
from unspool.evaluation.tasks.long_icl.score import Icl
from unspool.evaluation.tasks.long_icl.select import by_rounds, merge_dialogues
from unspool.evaluation.tasks.long_icl.sources import labelled

_LEVELS = tuple(LengthLevel("shots", n) for n in (1, 2, 3, 4, 5))
MOST_LABELS = 60
"""Labels of `modules`, those with the most items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IclTask(Task):
    """One of the six data sets."""

    name: str
    order: str = "rounds"
    """`grouped`: demonstrations of a relation stand together (tacred)."""
    instruct: bool = False

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The release's test items after the level's rounds; `seed` and `size` decide nothing."""
        level = level or _LEVELS[0]
        if level.nominal not in facts.DATASETS[self.name].rounds:
            raise ConfigError(f"{self.spec.name} has 1 to 5 rounds, got {level.nominal}.")
        path = source.path if source.kind == "release" else None
        train = data.items(self.name, "train", path)
        places = data.demonstrations(self.name, train, level.nominal)
        items = [train[place] for place in places]
        if self.order == "grouped":
            items.sort(key=lambda item: str(item["label"]))
        context, positions = self._context(items)
        for number, item in enumerate(data.tests(self.name, data.items(self.name, "test", path))):
            if number == n:
                return
            yield self._sample(item, context, positions, level, number)

    def _context(self, items: list[dict[str, Any]]) -> tuple[str, dict[str, list[int]]]:
        if self.name == "dialogre":
            items = merge_dialogues(items)
            labels = [", ".join(r["relation"] for r in item["relations"]) for item in items]
        else:
            labels = [str(item.get("label", "")) for item in items]
        positions: dict[str, list[int]] = {}
        for place, label in enumerate(labels, 1):
            positions.setdefault(label, []).append(place)
        listed = sorted(positions) if self.instruct else []
        text = "".join(
            answered(self.name, item, label) for item, label in zip(items, labels, strict=True)
        )
        return head(self.name, listed) + text, positions

    def _sample(
        self,
        item: dict[str, Any],
        context: str,
        positions: dict[str, list[int]],
        level: LengthLevel,
        number: int,
    ) -> Sample:
        meta: dict[str, Any] = {"echoed": echoed(self.name, item)}
        if self.name == "dialogre":
            label = ", ".join(r["relation"] for r in item["relations"])
        elif self.name == "fewnerd":
            label = ""
            meta["entities"] = item["entities"]
        else:
            label = str(item["label"])
            meta["positions"] = positions.get(label, [])
        return Sample(
            id=str(number),
            parts=Parts(context=context, query=shown(self.name, item)),
            references=(label,),
            level=level.name,
            meta=meta,
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """See `data.read_predictions`."""
        return data.read_predictions(self.name, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTask(Task):
    """Any labelled texts."""

    labels: int | None = MOST_LABELS
    """How many labels, those with the most items; None: all with two items or more."""
    order: Order | str = "rounds"
    instruct: bool = False
    shuffled_labels: bool = False
    """A control: the demonstrations' labels are dealt out anew, so that nothing can be learnt."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. A level in `shots` is rounds; in tokens, a bound for the prompt.

        Tests go round the labels, so that the first ones cover all of them.
        """
        level = level or _LEVELS[0]
        found = labelled(source, labels=self.labels, seed=seed)
        texts, labels = [t for t, _ in found.train], [label for _, label in found.train]
        check_labels(labels, len(texts))
        order = by_rounds([label for _, label in found.test], len(found.test)).items
        tests = [found.test[place] for place in dict.fromkeys(order)][:n]
        made = self._demonstrations(texts, labels, tests, level, size, seed)
        for number, (text, label) in enumerate(tests):
            yield self._sample(made, text, label, level, number, seed)

    def _demonstrations(
        self,
        texts: list[str],
        labels: list[str],
        tests: list[tuple[str, str]],
        level: LengthLevel,
        size: Sizer,
        seed: int,
    ) -> Demonstrations:
        if self.shuffled_labels:
            import random

            labels = list(labels)
            random.Random(f"control/{seed}").shuffle(labels)
        if level.unit == "shots":
            return build(texts, labels, rounds=level.nominal, order=self.order,
                         instruct=self.instruct, seed=seed)  # fmt: skip
        # The longest test decides, so that all share one prefix.
        longest = max((shown("label", {"text": text}) for text, _ in tests), key=size)
        return build(texts, labels, tokens=level.upper, count=lambda t: size(t + longest),
                     order=self.order, instruct=self.instruct, seed=seed)  # fmt: skip

    def _sample(
        self,
        made: Demonstrations,
        text: str,
        label: str,
        level: LengthLevel,
        number: int,
        seed: int,
    ) -> Sample:
        choice = self.spec.kind == "choice"
        order = made.by_last_place
        return Sample(
            id=f"{level.name}-{number}",
            parts=Parts(context=made.text, query=shown("label", {"text": text})),
            references=(f" {label}" if choice else label,),
            choices=tuple(f" {each}" for each in order) if choice else (),
            level=level.name,
            lengths={"shots": len(made.items)},
            seed=seed,
            classes=order,
            meta={
                "positions": made.positions.get(label, []),
                "left_out": made.left_out,
                "short": dict(made.short),
            },
        )


def labelled_task(
    name: str,
    *,
    labels: int | None = MOST_LABELS,
    order: Order | str = "rounds",
    instruct: bool = False,
    shuffled_labels: bool = False,
    choice: bool = False,
) -> LabelledTask:
    """A task on labelled texts with settings of one's own; see `LabelledTask`."""
    return LabelledTask(
        spec=TaskSpec(
            name=f"long-icl/{name}",
            ability="classification",
            kind="choice" if choice else "generate",
            max_new_tokens=16,
            stop=() if choice else ("\n",),
            chat="never",
            unit="shots",
            levels=_LEVELS,
            metric=Icl("label").id,
            prompt_fingerprint=fingerprint(INSTRUCTIONS["label"], shown("label", {"text": ""})),
        ),
        metric=Icl("label"),
        labels=labels,
        order=order,
        instruct=instruct,
        shuffled_labels=shuffled_labels,
    )


def _release_task(name: str, *, order: str = "rounds", instruct: bool = False) -> IclTask:
    found = facts.DATASETS[name]
    return IclTask(
        spec=TaskSpec(
            name=f"long-icl/{name}" + ("_grouped" if order == "grouped" else ""),
            ability=found.task,
            max_new_tokens=found.max_new_tokens,
            unit="shots",
            levels=_LEVELS,
            metric=Icl(name).id,
            data_source=facts.release(name, "test").dataset,
            prompt_fingerprint=fingerprint(INSTRUCTIONS[name]),
            licence=found.licence,
        ),
        metric=Icl(name),
        release=facts.release(name, "test"),
        name=name,
        order=order,
        instruct=instruct,
    )


TASKS: dict[str, Task] = {
    **{name: _release_task(name) for name in facts.DATASETS},
    "tacred_grouped": _release_task("tacred", order="grouped"),
    "modules": labelled_task("modules"),
    "modules_choice": labelled_task("modules_choice", choice=True),
}
