"""What the real runs share: six tasks at lengths in tokens, a run folder, a report's figures.

Needle threading, LV-Eval's twin and long in-context learning, each written and ranked by
log-probability. A length bounds prompt, chat wrapper and answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claims import Figure

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = 3
LIMIT = len(DEPTHS) * SEEDS
RULES = ("ruler", "nolima", "threshold:0.75")
NAMES = {
    "needle-threading/needle_written": "single needle, written",
    "needle-threading/needle_ranked": "single needle, ranked among 4",
    "lv-eval/mixup_written": "LV-Eval twin, written",
    "lv-eval/mixup_ranked": "LV-Eval twin, ranked among 5",
    "long-icl/modules_written": "20 modules, written",
    "long-icl/modules_ranked": "20 modules, ranked",
}
RANKED = tuple(name for name in NAMES if name.endswith("ranked"))
WRITTEN = tuple(name for name in NAMES if name.endswith("written"))
PLANNED = "planned prompt tokens less observed ones"
CUT = "samples that were cut"


def figures_of(lengths: Sequence[str], names: Sequence[str] = tuple(NAMES)) -> tuple[Figure, ...]:
    """A figure a task and length, and what a run must keep to."""
    return (
        *(
            Figure(f"{NAMES[name]}, {length}", "report", unit="%")
            for name in names
            for length in lengths
        ),
        Figure(PLANNED, "==", 0),
        Figure(CUT, "==", 0),
    )


def tasks(names: Sequence[str] = tuple(NAMES)) -> list[Any]:
    """The tasks of the names, with lengths in tokens of the model."""
    from unspool.evaluation.tasks import long_icl, lv_eval
    from unspool.evaluation.tasks import needle_threading as needles

    made = [
        needles.task("single_needle", name="needle_written", unit="tokens"),
        needles.task(
            "single_needle", form="choice", name="needle_ranked", unit="tokens", candidates=4
        ),
        lv_eval.twin("mixup", name="mixup_written"),
        lv_eval.twin("mixup", choice=True, name="mixup_ranked"),
        long_icl.labelled_task("modules_written", labels=20),
        long_icl.labelled_task("modules_ranked", labels=20, choice=True),
    ]
    in_tokens = [replace(t, spec=replace(t.spec, unit="tokens", levels=())) for t in made]
    return [task for task in in_tokens if task.spec.name in names]


def measure(
    model: Any,
    folder: Path,
    lengths: Sequence[str],
    *,
    limit: int = LIMIT,
    names: Sequence[str] = tuple(NAMES),
) -> Any:
    """The report of the run in a folder; what was answered there before is not asked again."""
    from unspool.evaluation.run import evaluate

    return evaluate(model, tasks(names), out=folder, lengths=lengths, limit=limit, rules=RULES)


def scores(report: Any, lengths: Sequence[str]) -> dict[str, float | int | None]:
    """The means of a report by task and length, in percent; None where there is no answer."""
    return {
        f"{NAMES[name]}, {length}": found["levels"].get(length, {}).get("mean")
        for name, found in report.data["tasks"].items()
        for length in lengths
    }


def effective(report: Any) -> dict[str, Any]:
    """Effective lengths by task and rule."""
    return {
        NAMES[name]: {each["rule"]: each["length"] for each in found["effective_length"]}
        for name, found in report.data["tasks"].items()
    }


def tokens_of(folder: Path) -> Mapping[str, int]:
    """Prompt tokens planned less those read, and samples that were cut."""
    import orjson

    planned = observed = cut = 0
    for line in (folder / "samples.jsonl").read_bytes().splitlines():
        planned += orjson.loads(line)["sample"]["lengths"]["tokens"]
    for line in (folder / "responses.jsonl").read_bytes().splitlines():
        response = orjson.loads(line)["response"]
        observed += response["prompt_tokens"]
        cut += response["truncated_tokens"] > 0
    return {PLANNED: planned - observed, CUT: cut}
