"""Models whose behaviour is known, on every task that is made without a network."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.scripts import RandomChoice
from unspool import _registry
from unspool.backends.scripted import ScriptedModel
from unspool.errors import BackendError
from unspool.evaluation.report import Report
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import Sample
from unspool.evaluation.tasks import task as task_named
from unspool.evaluation.tasks.base import Task
from unspool.types import Overflow, Prompt, Scored

pytestmark = pytest.mark.slow

_RELEASES = (
    "longbench", "longbench-e", "longbench-retrieved", "longbench-v2", "l-eval", "m4le",
)  # fmt: skip
_RELEASED = {"lv-eval": ("twin",), "long-icl": ("modules",), "booookscore": ("planted",)}


def _is_generated(name: str) -> bool:
    benchmark, _, short = name.partition("/")
    return benchmark not in _RELEASES and any(
        part in short for part in _RELEASED.get(benchmark, ("",))
    )


GENERATED = [name for name in _registry.names("task") if _is_generated(name)]
CHOICES = [name for name in GENERATED if task_named(name).spec.kind == "choice"]
LEVELS = {
    "tokens": ("1500", "3000"),
    "chars": ("4k", "8k"),
    "words": ("1k", "2k"),
    "shots": ("1", "2"),
    "pairs": ("20", "40"),
}
_LONGER = {"mrcr": ("3000", "5000"), "ada-leval": ("2000", "4000")}
_FOUND_ANYWHERE = {"m4le-twin/global"}
"""The release's accuracy counts an answer that holds the right label anywhere, and the prompt lists
all labels."""
FILES = ("report.json", "scores.jsonl", "samples.jsonl", "manifest.json")


def levels(task: Task) -> tuple[str, ...]:
    unit = task.spec.unit.partition(":")[0]
    return _LONGER.get(task.spec.benchmark, LEVELS[unit])


class ByHeart(ScriptedModel):
    """Knows the answer of every sample of a run folder; sees prompts up to a length."""

    def __init__(self, folder: Path, task: Task, sight: int | None = None) -> None:
        super().__init__(self.say)
        self.folder, self.task, self.sight = folder, task, sight
        self.known: list[tuple[str, Sample]] = []
        self.fails_at: int | None = None
        self.calls = 0

    def sample_of(self, prompt: str) -> Sample | None:
        if not self.known:
            for line in (self.folder / "samples.jsonl").read_text().splitlines():
                sample = Sample.from_json(json.loads(line)["sample"])
                built = self.task.build(sample)
                text = built.prompt
                if not isinstance(text, str):
                    text = "".join(turn["content"] for turn in text)
                self.known.append((text, sample))
        self.calls += 1
        if self.calls == self.fails_at:
            raise BackendError("crash")
        if self.sight is not None and len(self._tokenizer(prompt).input_ids) > self.sight:
            return None
        found = [sample for text, sample in self.known if text in prompt]
        if not found:  # conversations are joined by the template
            found = [
                s for text, s in self.known if s.parts.query and s.parts.query in prompt
                and s.parts.context in prompt
            ]  # fmt: skip
        return max(found, key=lambda s: len(s.parts.context)) if found else None

    def say(self, prompt: str) -> str:
        sample = self.sample_of(prompt)
        return "" if sample is None else right_answer(self.task, sample)

    def logprobs(
        self, prompt: Prompt, continuations: list[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        base = super().logprobs(prompt, continuations, on_overflow=on_overflow)
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        sample = self.sample_of(text)
        right = sample.references if sample is not None else ()
        return [
            Scored(0.0 if each in right else -9.0 * len(s.per_token), s.per_token, each in right,
                   s.usage)
            for each, s in zip(continuations, base, strict=True)
        ]  # fmt: skip


def right_answer(task: Task, sample: Sample) -> str:
    """What a model that is right writes, in the form that the task asks for."""
    if sample.meta.get("listed"):
        return json.dumps(list(sample.references))
    several = task.spec.benchmark == "ruler" and not task.spec.name.startswith("ruler/qa")
    if several or task.spec.name == "babilong/qa8":
        return ", ".join(sample.references)
    return sample.references[0]


def run(model: ScriptedModel, task: Task, folder: Path, limit: int = 4) -> Report:
    return evaluate(model, [task], out=folder, lengths=levels(task), limit=limit,
                    rules=("threshold:0.85",))  # fmt: skip


@pytest.mark.parametrize("name", GENERATED)
def test_perfect_scores_100(name: str, tmp_path: Path) -> None:
    task = task_named(name)
    report = run(ByHeart(tmp_path, task), task, tmp_path)
    assert report.score(name) == pytest.approx(100.0, abs=1e-4)  # rouge: 2PR / (P + R + 1e-8)


@pytest.mark.parametrize("name", GENERATED)
def test_a_window_gives_a_clean_step(name: str, tmp_path: Path) -> None:
    task = task_named(name)
    planned = ByHeart(tmp_path / "all", task)
    run(planned, task, tmp_path / "all")
    sizes: dict[str, list[int]] = {}
    for line in (tmp_path / "all" / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)["sample"]
        sizes.setdefault(sample["level"], []).append(sample["lengths"]["tokens"])
    (a, short), (b, long) = sizes.items()
    assert max(short) < min(long)
    blind = ByHeart(tmp_path / "blind", task, sight=max(short) + 16)
    report = run(blind, task, tmp_path / "blind")
    at_first, at_second = report.score(name, a), report.score(name, b)
    assert at_first == pytest.approx(100.0, abs=1e-4)
    assert at_second < 100.0 if task.spec.kind == "choice" else at_second == 0.0
    if at_second < 85:
        shorter = sorted(report.data["tasks"][name]["levels"].values(), key=lambda x: x["length"])
        assert report.effective_length(name, "threshold:0.85") == shorter[0]["length"]


@pytest.mark.parametrize("name", [n for n in GENERATED if n not in CHOICES])
@pytest.mark.parametrize("kind", ["empty", "echo"])
def test_models_that_do_not_answer(name: str, kind: str, tmp_path: Path) -> None:
    task = task_named(name)
    script: Callable[[str], str] = {"empty": lambda p: "", "echo": lambda p: p}[kind]
    if task.spec.kind == "loglikelihood":
        pytest.skip("a continuation that is scored has no text of the model's")
    report = run(ScriptedModel(script), task, tmp_path)
    if kind == "empty":
        assert report.score(name) == 0.0
    elif name not in _FOUND_ANYWHERE:  # the prompt's beginning, as far as the limit of an answer
        assert report.score(name) < 100.0
    assert report.data["missing"] == 0


@pytest.mark.parametrize("name", CHOICES)
def test_random_choices_lie_in_their_binomial_interval(name: str, tmp_path: Path) -> None:
    task = task_named(name)
    n = 60
    report = evaluate(RandomChoice(seed=7), [task], out=tmp_path, lengths=levels(task)[:1], limit=n)
    chances = []
    for line in (tmp_path / "samples.jsonl").read_text().splitlines():
        sample = Sample.from_json(json.loads(line)["sample"])
        right = sum(each in sample.references for each in sample.choices)
        chances.append(right / len(sample.choices))
    # The exact distribution of the number of right answers, by convolution.
    law = [1.0]
    for p in chances:
        law = [
            (law[k] * (1 - p) if k < len(law) else 0.0) + (law[k - 1] * p if k else 0.0)
            for k in range(len(law) + 1)
        ]
    right = round(report.score(name) * len(chances) / 100)
    assert sum(law[: right + 1]) > 1e-4
    assert sum(law[right:]) > 1e-4


@pytest.mark.parametrize("name", GENERATED)
def test_a_crash_is_continued_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    task = task_named(name)
    run(ByHeart(tmp_path / "whole", task), task, tmp_path / "whole", limit=3)
    broken = ByHeart(tmp_path / "broken", task)
    broken.fails_at = random.Random(name).randint(1, 6)
    with pytest.raises(BackendError, match="crash"):
        run(broken, task, tmp_path / "broken", limit=3)
    again = ByHeart(tmp_path / "broken", task)
    run(again, task, tmp_path / "broken", limit=3)
    assert again.calls == 6 - (broken.fails_at - 1)
    for file in FILES:
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
