"""LV-Eval scores beside the released scripts, and what the keyword stage does to empty sentences.

Predictions are made to be hard: damaged copies of answers, blanks, marks, several scripts, and
keywords on either side of the thresholds. The second part needs no release: sentences that repeat
an answer's empty words around another name, and ways to say the right name.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import PIECES, pair
from claims._originals import checkout, commit_of, write_lines
from claims._originals import run as run_script

REPOSITORY, COMMIT = "infinigence/LVEval", "63e7ae939bd347c76b2cdb1cebfb216faca26897"
PREDICTIONS = 250

CLAIM = Claim(
    system="lv-eval",
    title="Scores equal those of the released script to the last printed digit",
    required=(
        Figure("data sets and levels whose score differs", "==", 0),
        Figure("predictions scored otherwise", "==", 0),
        Figure("predictions compared", "report"),
        Figure("wrong sentences of empty words that the keyword stage sets to 0", ">", 0.9),
        Figure("their mean score without that stage", "report"),
        Figure("ways to say the right name that keep a score", ">=", 0.95),
    ),
    setup=(
        "250 adversarial predictions for each of the eleven data sets, over the five levels, "
        "scored by evaluation.py of the release in a process of its own with rouge 1.0.1 and "
        "jieba 0.42.1; 480 wrong and 480 right sentences about 60 drawn names."
    ),
    packages=("rouge", "jieba"),
)

# The script prints a table of its results with pandas, and its helpers load a model: neither
# changes a number.
_FILES = """
import os, runpy, sys, types
pandas, utils = types.ModuleType("pandas"), types.ModuleType("utils")
class Table:
    def __init__(self, rows): pass
    def to_csv(self, path, index): pass
pandas.DataFrame = Table
utils.ensure_dir = lambda path: os.makedirs(path, exist_ok=True)
sys.modules["pandas"], sys.modules["utils"] = pandas, utils
script, folder = sys.argv[1:]
sys.argv = [script, "--input-dir", folder]
runpy.run_path(script, run_name="__main__")
"""
_EACH = """
import json, sys
from config import DATASET_METRIC
out = []
for name, pred, answers, gold in json.load(open(sys.argv[1])):
    try:
        out.append(max([0.0, *(float(DATASET_METRIC[name](pred, a, gold)) for a in answers[:1])]))
    except ZeroDivisionError:
        out.append("undefined")
print(json.dumps(out))
"""


def run(ctx: Context) -> Measured:
    """Score the same predictions twice, then sentences that say nothing."""
    original = checkout(REPOSITORY, COMMIT, "evaluation.py")
    inputs = {"commit": commit_of(original)}
    scores = ctx.step("scores", lambda: compare(original, ctx.seed), inputs=inputs)
    empty = ctx.step("empty", lambda: sentences(ctx.seed))
    return Measured(
        {
            "data sets and levels whose score differs": len(scores["files"]),
            "predictions scored otherwise": len(scores["different"]),
            "predictions compared": scores["predictions"],
            "wrong sentences of empty words that the keyword stage sets to 0": empty["zeroed"],
            "their mean score without that stage": empty["plain"],
            "ways to say the right name that keep a score": empty["kept"],
        },
        {"original": inputs["commit"], "different": scores, "sentences": empty},
    )


def predictions(dataset: str, draw: random.Random) -> list[dict[str, Any]]:
    """Lines as `prediction.py` writes them; keywords share words with the prediction."""
    rows: list[dict[str, Any]] = []
    while len(rows) < PREDICTIONS:
        said, answer = pair(draw, draw.choice((4, 12, 40)))
        words = [*answer.split(), *said.split(), "of", "and", "的", "alpha", "北京"]
        keywords = draw.choice(
            [
                None,
                "",
                " ".join(draw.choice(words) for _ in range(draw.randint(1, 8))),
                answer,
                "".join(draw.choice(PIECES) for _ in range(3)),
            ]
        )
        answers = [answer, *([said] if draw.random() < 0.3 else [])]
        rows.append(
            {"pred": said, "answers": answers if draw.random() < 0.98 else [], "gold_ans": keywords}
        )
    return rows


def compare(original: Path, seed: int) -> dict[str, Any]:
    """The release and ours: every prediction alone, then files as the script reads them."""
    from unspool.errors import InputError
    from unspool.evaluation.tasks import lv_eval
    from unspool.evaluation.tasks.lv_eval.facts import DATASETS, LEVELS

    different: list[Any] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = {name: predictions(name, random.Random(f"{seed}:{name}")) for name in DATASETS}
        asked = [
            (name, row["pred"], row["answers"], row["gold_ans"])
            for name, several in rows.items()
            for row in several
        ]
        file = folder / "asked.json"
        file.write_text(json.dumps(asked))
        theirs = json.loads(run_script(["-c", _EACH, str(file)], original, paths=(original,)))
        fine: set[int] = set()
        for number, ((name, said, answers, keywords), wanted) in enumerate(
            zip(asked, theirs, strict=True)
        ):
            try:
                ours: Any = lv_eval.score(name, said, answers[0], keywords) if answers else 0.0
            except InputError:
                ours = "undefined"
            if ours != wanted:
                different.append([name, said, answers, keywords, ours, wanted])
            if wanted != "undefined":
                fine.add(number)
        number = 0
        for name, several in rows.items():
            kept = [row for i, row in enumerate(several, number) if i in fine]
            number += len(several)
            for i, level in enumerate(LEVELS):
                write_lines(folder / "pred" / f"{name}_{level}.jsonl", kept[i::5])
        run_script(
            ["-c", _FILES, str(original / "evaluation.py"), str(folder / "pred")],
            folder,
            paths=(original,),
        )
        printed = json.loads((folder / "pred" / "eval_result" / "result.json").read_text())
        found = lv_eval.score_dir(folder / "pred")
    files = [[k, found.get(k), v] for k, v in printed.items() if found.get(k) != v]
    return {"predictions": len(asked), "different": different[:20], "files": files,
            "undefined": len(asked) - len(fine)}  # fmt: skip


_SAID = (
    "It was in {0} that he was with her because of the war and that is what they had",
    "He and his were at {0} and it was from there that she had to be with them",
    "The one who had been in {0} was with his, and that was what it was about",
    "They are from {0} and on to it, but he was in the first of them for that",
    "It is {0}, as it was when he was with them",
    "She was at {0} because it is that which they had",
    "By {0} they had to be with him for what it was",
    "That is {0}, and it has been so for her and for them",
)
_RIGHT = (
    "{0}", "{0}.", "It is {0}.", "The answer is {0}", "the town of {0}", "{0}, I believe",
    "Answer: {0}", "They call it {0}",
)  # fmt: skip


def sentences(seed: int) -> dict[str, Any]:
    """Answers around a name; wrong ones say all but the name, right ones little but it."""
    from unspool.evaluation.tasks import lv_eval

    zeroed = plain = kept = total = 0.0
    for number in range(60):
        question = lv_eval.question(number, seed=seed)
        name, other = question.fact.object, question.confusers[0].object
        for said, right in zip(_SAID, _RIGHT, strict=True):
            answer = said.format(name)
            wrong = said.format(other)
            zeroed += lv_eval.score("hotpotwikiqa_mixup", wrong, answer, name) == 0
            plain += lv_eval.score("factrecall_en", wrong, answer)
            kept += lv_eval.score("hotpotwikiqa_mixup", right.format(name), answer, name) > 0
            total += 1
    return {"zeroed": zeroed / total, "plain": plain / total, "kept": kept / total}
