"""M4LE scores beside the released script: all 39 configurations, three buckets each.

Predictions are made to be hard: damaged copies of answers, lists of ids with other stops and
commas, blanks, several scripts, lines without an answer.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import pair, text
from claims._originals import checkout, commit_of, write_lines
from claims._originals import run as run_script

REPOSITORY, COMMIT = "KwanWaiChung/M4LE", "47c2af92c5ddf60941d8564e96ba19652e9caa77"
PREDICTIONS = 300
BUCKETS = (1000, 2000, 4000)

CLAIM = Claim(
    system="m4le",
    title="Scores equal those of the released script in every digit of a double",
    required=(
        Figure("configurations with a bucket that differs", "==", 0),
        Figure("configurations compared", "==", 39),
        Figure("predictions compared", "report"),
        Figure("lines without an answer", "report"),
    ),
    setup=(
        "300 adversarial predictions for each configuration, scored by evaluation.py of the "
        "release in a process of its own with rouge 1.0.1, rouge-chinese 1.0.3, jieba 0.42.1 and "
        "its BLEU."
    ),
    packages=("rouge", "rouge-chinese", "jieba", "pandas"),
    code=("evaluation/metrics", "evaluation/tasks/m4le"),
)

_SCRIPT = """
import sys, types
module = types.ModuleType("strictfire")  # only reads the command line
module.StrictFire = lambda function: None
sys.modules["strictfire"] = module
import evaluation
evaluation.evaluate()
"""


def run(ctx: Context) -> Measured:
    """Score the same predictions twice."""
    original = checkout(REPOSITORY, COMMIT, "evaluation.py")
    inputs = {"commit": commit_of(original)}
    found = ctx.step("scores", lambda: compare(original, ctx.seed), inputs=inputs)
    return Measured(
        {
            "configurations with a bucket that differs": len(found["different"]),
            "configurations compared": found["configurations"],
            "predictions compared": found["predictions"],
            "lines without an answer": found["missing"],
        },
        {"original": inputs["commit"], "different": found["different"]},
    )


def compare(original: Path, seed: int) -> dict[str, Any]:
    """`evaluation.py` and ours on every configuration."""
    from unspool.evaluation.tasks import m4le
    from unspool.evaluation.tasks.m4le.facts import CONFIGS

    missing = compared = 0
    different: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, config in CONFIGS.items():
            rows = predictions(name, random.Random(f"{seed}:{name}"))
            missing += sum("gen_resp" not in row for row in rows)
            write_lines(folder / "outputs" / "m" / f"{name}{config.suffix}.jsonl", rows)
        run_script(["-c", _SCRIPT], folder, paths=(original,))
        theirs: dict[str, dict[int, float]] = {}
        with (folder / "results" / "all_result.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                theirs.setdefault(row["Task"], {})[int(row["Bucket"])] = float(row["Score"])
        for name, config in CONFIGS.items():
            file_name = f"{name}{config.suffix}"
            ours = m4le.score_file(folder / "outputs" / "m" / f"{file_name}.jsonl")
            compared += 1
            if dict(ours.buckets) != theirs.get(file_name):
                different.append([name, json.dumps(ours.buckets), theirs.get(file_name)])
    return {
        "configurations": compared,
        "predictions": PREDICTIONS * compared,
        "missing": missing,
        "different": different,
    }


def predictions(name: str, draw: random.Random) -> list[dict[str, Any]]:
    """Lines as `inference.py` writes them."""
    from unspool.evaluation.tasks.m4le.facts import CONFIGS

    config = CONFIGS[name]
    comma, stop = ("\uff0c", "。") if config.language == "zh" else (", ", ".")
    rows = []
    for _ in range(PREDICTIONS):
        prediction, gold = pair(draw, 24)
        answers = [gold, *(text(draw, 10) for _ in range(draw.randint(0, 2)))]
        if config.kind == "ids":
            held = [f"{draw.getrandbits(6):02X}" for _ in range(6)]
            answers = [comma.join(held[: draw.randint(1, 4)]) + draw.choice([stop, ""])]
            some = draw.sample(held, draw.randint(0, 5))
            prediction = draw.choice([comma.join(some), ",".join(some), answers[0], prediction])
            prediction += draw.choice(["", stop, f"{stop} x", "\n"])
        elif config.rule == "cut-gold":
            answers = [f"{draw.randint(0, 3)}{draw.choice([stop, '', f'{stop} x'])}"]
            prediction = f"{draw.randint(0, 3)}{draw.choice([stop, '', ' ', f'{stop} x', 'x'])}"
        elif config.rule == "quoted":
            prediction = draw.choice([prediction, f'so "{gold}" x', f'so "{gold}', f'"{gold}"'])
        elif config.kind == "bleu":
            answers = [f"{answer} x" for answer in answers]
            prediction = f"{prediction} x"
        row = {"answers": answers, "length_bucket": draw.choice(BUCKETS), "gen_resp": prediction}
        if draw.random() < 0.05 and config.kind != "bleu":
            row["gen_resp"] = draw.choice(["", " ", "\n", stop])
        if draw.random() < 0.05:
            del row["gen_resp"]
        rows.append(row)
    return rows
