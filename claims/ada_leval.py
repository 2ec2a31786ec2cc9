"""Ada-LEval scores beside the released rules, and how often strict reading differs.

Replies are made to be hard: JSON of every kind, partial lists, several lists, labels inside labels,
bare numbers, and the cue word at odd places. Replies on which the released code ends with an
exception are counted; ours counts them as wrong.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import text
from claims._originals import checkout, commit_of
from claims._originals import run as run_script

REPOSITORY, COMMIT = "open-compass/Ada-LEval", "2154258d5fa3969ac5429b3132d505570ef8a57a"
REPLIES = 2_000

CLAIM = Claim(
    system="ada-leval",
    title="Accuracy equals that of the released code on every reply",
    required=(
        Figure("orders judged otherwise", "==", 0),
        Figure("labels judged otherwise", "==", 0),
        Figure("accuracies that differ in the first decimal", "==", 0),
        Figure("replies compared", "report"),
        Figure("replies on which the released code ends with an exception", "report"),
        Figure("orders right by the release and wrong strictly", "report"),
        Figure("orders wrong by the release and right strictly", "report"),
        Figure("labels right by the release and wrong strictly", "report"),
        Figure("labels wrong by the release and right strictly", "report"),
    ),
    setup=(
        "2,000 adversarial replies for each task, judged by dataset.py of the release in a process "
        "of its own; its tables of pandas are replaced by a list of rows."
    ),
)

_JUDGE = """
import json, sys, types
import numpy as np
smp = types.ModuleType("ada_leval.smp")
smp.np, smp.json = np, json
smp.pd, smp.load = None, None
smp.__all__ = ["np", "json", "pd", "load"]
sys.modules["ada_leval.smp"] = smp
from ada_leval.dataset import StackSelect, TextSort

class Table:
    def __init__(self, rows): self.rows, self.columns = rows, {}
    def __contains__(self, name): return name in self.columns or name in self.rows[0]
    def __len__(self): return len(self.rows)
    def __setitem__(self, name, values): self.columns[name] = values
    def __getitem__(self, name): return self.columns.get(name) or [r[name] for r in self.rows]
    @property
    def iloc(self): return self.rows

given = json.load(open(sys.argv[1]))
out = {}
for kind, cls in (("tsort", TextSort), ("bestanswer", StackSelect)):
    judge = cls.__new__(cls)
    judge.setting = "1k"
    each = []
    for row in given[kind]:
        try:
            each.append(bool(judge.evaluate(Table([row]))))
        except TypeError:
            each.append("exception")
    fine = [row for row, found in zip(given[kind], each) if found != "exception"]
    out[kind] = {"each": each, "accuracy": f"{judge.evaluate(Table(fine)):.1f}"}
print()
print(json.dumps(out))
"""


def run(ctx: Context) -> Measured:
    """Judge the same replies twice."""
    original = checkout(REPOSITORY, COMMIT, "ada_leval/dataset.py")
    inputs = {"commit": commit_of(original)}
    found = ctx.step("replies", lambda: compare(original, ctx.seed), inputs=inputs)
    return Measured(
        {
            "orders judged otherwise": found["tsort"]["different"],
            "labels judged otherwise": found["bestanswer"]["different"],
            "accuracies that differ in the first decimal": found["accuracies"],
            "replies compared": 2 * REPLIES,
            "replies on which the released code ends with an exception": found["exceptions"],
            "orders right by the release and wrong strictly": found["tsort"]["only_release"],
            "orders wrong by the release and right strictly": found["tsort"]["only_strict"],
            "labels right by the release and wrong strictly": found["bestanswer"]["only_release"],
            "labels wrong by the release and right strictly": found["bestanswer"]["only_strict"],
        },
        {"original": inputs["commit"], "examples": found["examples"]},
    )


def orders(draw: random.Random) -> dict[str, Any]:
    """A reply to TSort with its right order."""
    gold = draw.sample([1, 2, 3, 4], 4)
    said = gold if draw.random() < 0.5 else draw.sample([1, 2, 3, 4], 4)
    form = draw.choice(
        [
            json.dumps(said),
            json.dumps(said[: draw.randint(0, 3)]),
            json.dumps([*said, 5]),
            json.dumps([str(n) for n in said]),
            json.dumps([float(n) for n in said]),
            json.dumps({"order": said}),
            json.dumps([said]),
            draw.choice([", ", " ", "-", " > ", "", "\n"]).join(map(str, said)),
            draw.choice(["", "{}", '""', "3", "true", "null", "[]", "NaN", "[1, 2"]),
            f"{json.dumps(said)} or {json.dumps(gold)}",
            f"Segment {said[0]} then {said[1]}, {said[2]}, {said[3]}",
        ]
    )
    before = draw.choice(["", "", "Answer: ", "Answer:", "answer: ", text(draw, 4), "Of 1 to 4: "])
    after = draw.choice(["", "", "\n", ".", f" Answer: {json.dumps(gold)}", text(draw, 4)])
    answer = json.dumps(gold) if draw.random() < 0.5 else gold
    return {"prediction": before + form + after, "answer": answer}


def labels(draw: random.Random) -> dict[str, Any]:
    """A reply to BestAnswer with its right label and number of candidates."""
    n = draw.choice([1, 2, 3, 9, 10, 11, 12, 40, 120])
    gold = f"A{draw.randint(1, n)}"
    said = gold if draw.random() < 0.5 else f"A{draw.randint(0, n + 3)}"
    form = draw.choice(
        [
            said, said.lower(), said[1:], f"A {said[1:]}", f"A0{said[1:]}", f"({said})",
            f"{said} is better than A{draw.randint(1, n)}", f"{said}{said}", f"B{said}C",
            f"the {said[1:]}th of {n}", "", "none",
        ]
    )  # fmt: skip
    before = draw.choice(["", "", "Answer: ", "Answer:", text(draw, 4)])
    after = draw.choice(["", "", "\n", ".", f" Answer: {gold}", text(draw, 4)])
    return {"prediction": before + form + after, "answer": gold, "num_choice": n}


def compare(original: Path, seed: int) -> dict[str, Any]:
    """The release and ours on every reply."""
    from unspool.evaluation.tasks import ada_leval

    draw = random.Random(seed)
    given = {
        "tsort": [orders(draw) for _ in range(REPLIES)],
        "bestanswer": [labels(draw) for _ in range(REPLIES)],
    }
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "given.json"
        file.write_text(json.dumps(given))
        printed = run_script(["-c", _JUDGE, str(file)], original, paths=(original,))
    theirs = json.loads(printed.rstrip().rpartition("\n")[2])
    out: dict[str, Any] = {"accuracies": 0, "exceptions": 0, "examples": []}
    for kind, rows in given.items():
        hits: list[Any] = []
        strict: list[bool] = []
        for row in rows:
            if kind == "tsort":
                judged = ada_leval.judge_tsort(row["prediction"], row["answer"], strict=False)
                hits.append("exception" if judged.crashed else judged.hit)
                strict.append(ada_leval.score_tsort(row["prediction"], row["answer"]))
            else:
                said, gold, n = row["prediction"], row["answer"], row["num_choice"]
                hits.append(ada_leval.score_bestanswer(said, gold, n))
                strict.append(ada_leval.score_bestanswer(said, gold, n, strict=True))
        each = theirs[kind]["each"]
        wrong = [i for i, (a, b) in enumerate(zip(hits, each, strict=True)) if a != b]
        out["examples"] += [[rows[i], hits[i], each[i]] for i in wrong[:10]]
        kept = [hit for hit, b in zip(hits, each, strict=True) if b != "exception"]
        accuracy = f"{100 * sum(kept) / len(kept):.1f}"
        out["accuracies"] += accuracy != theirs[kind]["accuracy"]
        out["exceptions"] += each.count("exception")
        pairs = list(zip(hits, strict, strict=True))
        out[kind] = {
            "different": len(wrong),
            "only_release": sum(h is True and not s for h, s in pairs),
            "only_strict": sum(h is not True and s for h, s in pairs),
        }
    return out
