"""Generated benchmarks through the runner: perfect answers score 100, short sight gives a step."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from unspool.backends.scripted import ScriptedModel
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import LengthLevel
from unspool.evaluation.tasks import find_tasks, long_icl
from unspool.evaluation.tasks import needle_threading as needles
from unspool.evaluation.tasks.base import Task

GENERATED = {
    "needle-threading/single_needle": "2k",
    "needle-threading/multiple_needles_clustered": "2k",
    "needle-threading/conditional_needles": "2k",
    "needle-threading/single_thread_backward": "2k",
    "needle-threading/multi_thread": "2k",
    "needle-threading/branched_thread": "2k",
    "lv-eval/mixup_twin": "300",
    "lv-eval/factrecall_twin": "300",
}


def knows(task: Task, level: LengthLevel, n: int) -> ScriptedModel:
    """A model that has the answer of every sample by heart."""
    answers = {}
    for sample in task.samples(level, n):
        listed = sample.meta.get("listed")
        said = json.dumps(list(sample.references)) if listed else sample.references[0]
        answers[sample.parts.context + sample.parts.query] = said

    def answer(prompt: str) -> str:
        found = [said for text, said in answers.items() if text in prompt]
        return found[0] if len(found) == 1 else ""

    return ScriptedModel(answer)


@pytest.mark.parametrize("name", GENERATED)
def test_perfect_answers_score_100_through_the_runner(name: str, tmp_path: Path) -> None:
    (task,) = find_tasks(name)
    level = LengthLevel.parse(GENERATED[name], task.spec.unit)
    report = evaluate(
        knows(task, level, 6), [task], out=tmp_path, lengths=[GENERATED[name]], limit=6
    )
    assert report.score(name) == 100.0


def test_labels_learnt_by_heart_score_100(tmp_path: Path) -> None:
    rows = [{"text": f"word{i % 4} text {i}", "label": f"kind{i % 4}"} for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = replace(long_icl.labelled_task("mine", labels=4), release=None)

    def answer(prompt: str) -> str:
        return f" kind{re.findall(r'input: word(.)', prompt)[-1]}\n"

    from unspool.evaluation.plan import RunSettings

    report = evaluate(
        ScriptedModel(answer),
        [task],
        out=tmp_path / "run",
        lengths=["2"],
        limit=8,
        settings=RunSettings(texts=str(tmp_path / "texts.jsonl")),
    )
    assert report.score("long-icl/mine") == 100.0


def test_a_model_of_short_sight_gives_a_step_and_its_effective_length(tmp_path: Path) -> None:
    sight = 4_500  # characters of the end of the prompt

    def answer(prompt: str) -> str:
        key = re.findall(r'key "([^"]+)"', prompt)[-1]
        found = re.search(rf'"{key}": "([^"]+)"', prompt[-sight:])
        return found[1] if found else ""

    task = needles.task("single_needle").with_depths((0.0, 0.25, 0.5, 0.75, 1.0))
    report = evaluate(
        ScriptedModel(answer),
        [task],
        out=tmp_path,
        lengths=["2k", "4k", "8k", "16k"],
        limit=10,
        rules=("threshold:0.85",),
    )
    cells = {
        (cell["level"], cell["depth"]): cell["mean"]
        for cell in report.data["tasks"]["needle-threading/single_needle"]["cells"]
    }
    for (level, depth), mean in cells.items():
        chars = {"2k": 2_000, "4k": 4_000, "8k": 8_000, "16k": 16_000}[level]
        seen = round(depth * (chars // 80 - 1)) * 80 >= chars - 4_200
        assert mean == (100.0 if seen else 0.0), (level, depth)
    name = "needle-threading/single_needle"
    assert report.effective_length(name, "threshold:0.85") == 4_000
