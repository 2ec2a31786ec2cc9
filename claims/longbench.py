"""LongBench scores beside the released scripts: every data set, LongBench-E, retrieval, v2.

Predictions are made to be hard: damaged copies of answers, blanks, marks, several scripts, numbers,
code fences, and long texts on which the package `rouge` meets Python's recursion limit. The
functions of lm-evaluation-harness meet the same kinds of pairs in greater number; it changed one
metric (blank lines of code), which is left out.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import pair, text
from claims._originals import checkout, commit_of, write_lines
from claims._originals import run as run_script

REPOSITORY, COMMIT = "THUDM/LongBench", "2e00731f8d0bff23dc4325161044d0ed8af94c1e"
PREDICTIONS = 250
FUZZED = 10_000

CLAIM = Claim(
    system="longbench",
    title="Scores equal those of the released scripts to the last printed digit",
    required=(
        Figure("data sets whose score differs", "==", 0),
        Figure("data sets of LongBench-E with a bucket that differs", "==", 0),
        Figure("data sets whose score for retrieved contexts differs", "==", 0),
        Figure("answers of LongBench v2 read otherwise", "==", 0),
        Figure("fuzzed pairs scored otherwise than by lm-evaluation-harness", "==", 0),
        Figure("predictions compared", "report"),
        Figure("fuzzed pairs compared", "report"),
        Figure("predictions on which rouge meets the recursion limit", "report"),
    ),
    setup=(
        "250 adversarial predictions for each of the 21 data sets, scored by eval.py of the "
        "release in a process of its own with rouge 1.0.1, jieba 0.42.1 and fuzzywuzzy 0.18.0 "
        "over difflib; 10,000 fuzzed pairs for each of seven metrics of lm-evaluation-harness."
    ),
    packages=("rouge", "jieba", "fuzzywuzzy", "lm-eval", "numpy"),
    code=("evaluation/metrics", "evaluation/tasks/longbench"),
)


def run(ctx: Context) -> Measured:
    """Score the same predictions twice."""
    original = checkout(REPOSITORY, COMMIT, "LongBench/eval.py")
    inputs = {"commit": commit_of(original)}
    plain = ctx.step("plain", lambda: compare(original, ctx.seed, even=False), inputs=inputs)
    even = ctx.step("even", lambda: compare(original, ctx.seed, even=True), inputs=inputs)
    retrieved = ctx.step("retrieved", lambda: compare_retrieved(original, ctx.seed), inputs=inputs)
    letters = ctx.step("v2", lambda: compare_letters(original, ctx.seed), inputs=inputs)
    fuzzed = ctx.step("harness", lambda: compare_harness(ctx.seed))
    return Measured(
        {
            "data sets whose score differs": len(plain["different"]),
            "data sets of LongBench-E with a bucket that differs": len(even["different"]),
            "data sets whose score for retrieved contexts differs": len(retrieved["different"]),
            "answers of LongBench v2 read otherwise": letters["different"],
            "fuzzed pairs scored otherwise than by lm-evaluation-harness": fuzzed["different"],
            "predictions compared": sum(
                part["predictions"] for part in (plain, even, retrieved, letters)
            ),
            "fuzzed pairs compared": fuzzed["pairs"],
            "predictions on which rouge meets the recursion limit": plain["limit"],
        },
        {"original": inputs["commit"], "different": [plain, even, retrieved]},
    )


def predictions(dataset: str, draw: random.Random) -> list[dict[str, Any]]:
    """Lines as `pred.py` writes them."""
    from unspool.evaluation.tasks.longbench.facts import DATASETS

    kind = DATASETS[dataset].kind
    labels = ["Human", "Human being", "Place", "Place: city", "city", "体育", "体育新闻", "a"]
    rows = []
    for i in range(PREDICTIONS):
        prediction, answer = pair(draw, 30)
        answers = [answer] + [text(draw, 12) for _ in range(draw.randint(0, 2))]
        if kind == "classification":
            answers = [draw.choice(labels)]
            prediction = draw.choice(["", "\n", "x "]) + draw.choice(
                [" ".join(draw.sample(labels, draw.randint(0, 3))), prediction, answers[0]]
            )
        elif kind in ("count", "retrieval"):
            number = str(draw.randint(1, 5))
            word = "段落" if dataset.endswith("_zh") else "Paragraph "
            answers = [number if kind == "count" else f"{word}{number}"]
            prediction = draw.choice(["", word, "\n"]) + " ".join(
                draw.choice([str(draw.randint(1, 5)), text(draw, 2), word]) for _ in range(4)
            )
        elif kind == "code":
            answers = [draw.choice(["    return tide(x)", "x = 1", answer.replace("\n", " ")])]
            damaged = answers[0].replace("e", draw.choice("ei"), 1)
            lines = [draw.choice(["# note", "```", "", "// x", damaged, prediction])]
            prediction = "\n" * draw.randint(0, 2) + "\n".join([*lines, damaged])
        elif kind in ("rouge", "rouge_zh") and i % 25 == 0:
            words = [f"w{j}" for j in range(draw.choice((600, 991, 1200)))]
            prediction, answers = " ".join(words), [" ".join(draw.sample(words, len(words) - 5))]
            if i % 50 == 0:
                answers = [prediction]
        rows.append(
            {
                "pred": prediction,
                "answers": answers,
                "all_classes": labels if kind == "classification" else None,
                "length": draw.choice([0, 3999, 4000, 7999, 8000, 20000]),
            }
        )
    return rows


def compare(original: Path, seed: int, *, even: bool) -> dict[str, Any]:
    """`eval.py` and ours on every data set."""
    from unspool.evaluation.tasks import longbench
    from unspool.evaluation.tasks.longbench.facts import DATASETS, EVEN

    names = EVEN if even else tuple(DATASETS)
    folder_name = "pred_e" if even else "pred"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        limit = count = 0
        for name in names:
            rows = predictions(name, random.Random(f"{seed}:{name}:{even}"))
            count += len(rows)
            limit += 0 if even else over_limit(name, rows)
            write_lines(folder / folder_name / "m" / f"{name}.jsonl", rows)
        arguments = ["--model", "m", *(["--e"] if even else [])]
        run_script(
            [str(original / "LongBench" / "eval.py"), *arguments],
            folder,
            paths=(original / "LongBench",),
        )
        theirs = json.loads((folder / folder_name / "m" / "result.json").read_text())
        different = []
        for name in names:
            found = longbench.score_file(folder / folder_name / "m" / f"{name}.jsonl", e=even)
            ours = {k: v for k, v in found.items() if k != "score"} if even else found["score"]
            wanted = theirs[name]
            if even:  # ours leaves empty buckets out, theirs are NaN
                wanted = {k: v for k, v in wanted.items() if v == v}
            if ours != wanted:
                different.append([name, ours, theirs[name]])
    return {"predictions": count, "different": different, "limit": limit}


def over_limit(dataset: str, rows: Sequence[dict[str, Any]]) -> int:
    """Predictions that score 0 only because of the recursion limit."""
    from unspool.evaluation.metrics.rouge import rouge_l, spaced
    from unspool.evaluation.tasks.longbench.facts import DATASETS

    kind = DATASETS[dataset].kind
    if kind not in ("rouge", "rouge_zh"):
        return 0
    form: Callable[[str], str] = spaced if kind == "rouge_zh" else str
    return sum(
        rouge_l(form(row["pred"]), form(answer)) is not None
        and rouge_l(form(row["pred"]), form(answer), recursion_limit=1000) is None
        for row in rows
        for answer in row["answers"][:1]
    )


def compare_retrieved(original: Path, seed: int) -> dict[str, Any]:
    """The scorer of retrieved contexts, which has no first-line rule."""
    from unspool.evaluation.tasks import longbench
    from unspool.evaluation.tasks.longbench.facts import DATASETS

    names = [name for name in DATASETS if name not in ("multi_news", "samsum")]  # it lacks them
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        held = {name: predictions(name, random.Random(f"{seed}:{name}:r")) for name in names}
        for name, rows in held.items():
            write_lines(folder / "m_pred_C200_7" / f"{name}.jsonl", rows)
        run_script(
            [str(original / "LongBench" / "retrieval" / "eval.py"), "--model", "m"],
            folder,
            paths=(original / "LongBench",),
        )
        theirs = json.loads((folder / "result_m" / "C200_7.json").read_text())
    different = []
    for name, rows in held.items():
        ours = longbench.score(
            name,
            [row["pred"] for row in rows],
            [row["answers"] for row in rows],
            rows[0]["all_classes"],
            first_line=False,
        )
        if ours != theirs[name]:
            different.append([name, ours, theirs[name]])
    return {"predictions": sum(map(len, held.values())), "different": different}


_EXTRACT = """
import json, sys, types
for name in ("datasets", "openai", "transformers", "tiktoken", "tqdm"):
    module = types.ModuleType(name)
    module.load_dataset = module.OpenAI = module.AutoTokenizer = module.tqdm = None
    sys.modules[name] = module
torch = types.ModuleType("torch")
sys.modules["torch"] = torch
sys.modules["torch.multiprocessing"] = torch.multiprocessing = types.ModuleType("mp")
import pred
print(json.dumps([pred.extract_answer(r.strip()) for r in json.load(open(sys.argv[1]))]))
"""


def compare_letters(original: Path, seed: int) -> dict[str, Any]:
    """The letter that LongBench v2 reads out of an answer."""
    from unspool.evaluation.tasks.longbench.v2 import extract

    draw = random.Random(f"{seed}:v2")
    said = ["The correct answer is", "the correct answer is", "The *correct* answer is", "Answer:"]
    answers = [
        text(draw, 3)
        + draw.choice(said)
        + draw.choice([" ", "", "\n", " **", ": "])
        + draw.choice(["(A)", "B", "(C", "D)", "(E)", "*(A)*", "(Apple)", "\uff22"])
        + text(draw, 3)
        + draw.choice(["", " The correct answer is (D)", " The correct answer is C"])
        for _ in range(2000)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "answers.json"
        file.write_text(json.dumps(answers))
        theirs = json.loads(run_script(["-c", _EXTRACT, str(file)], original, paths=(original,)))
    ours = [extract(answer.strip()) for answer in answers]
    return {
        "predictions": len(answers),
        "different": sum(a != b for a, b in zip(ours, theirs, strict=True)),
    }


def compare_harness(seed: int) -> dict[str, Any]:
    """Ours and the functions of lm-evaluation-harness on many pairs."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.tasks.longbench import metrics as theirs
    from unspool.evaluation.metrics.choice import classification, count, retrieval
    from unspool.evaluation.metrics.f1 import qa_f1, qa_f1_zh
    from unspool.evaluation.metrics.rouge import rouge_l, spaced

    def rouge(prediction: str, answer: str) -> float:
        found = rouge_l(prediction, answer)
        return found.f if found else 0.0

    labels = ["Human", "Human being", "being", "a", "the", "体育", "体育新闻"]
    metrics: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
        "qa_f1": (qa_f1, theirs.qa_f1_score),
        "qa_f1_zh": (qa_f1_zh, theirs.qa_f1_zh_score),
        "rouge": (rouge, theirs.rouge_score),
        "rouge_zh": (lambda p, a: rouge(spaced(p), spaced(a)), theirs.rouge_zh_score),
        "count": (count, theirs.count_score),
        "retrieval": (
            lambda p, a: retrieval(p, f"Paragraph 3 {a}"),
            lambda p, a: theirs.retrieval_score(p, f"Paragraph 3 {a}"),
        ),
        "classification": (
            lambda p, a: classification(f"{p}{a}", "Human being", labels),
            lambda p, a: theirs.classification_score(f"{p}{a}", "Human being", all_classes=labels),
        ),
    }
    different = 0
    for name, (ours, original) in metrics.items():
        draw = random.Random(f"{seed}:{name}")
        for _ in range(FUZZED):
            prediction, answer = pair(draw, 20)
            different += ours(prediction, answer) != original(prediction, answer)
    return {"pairs": FUZZED * len(metrics), "different": different}
