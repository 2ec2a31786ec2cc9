"""L-Eval scores beside the released script, and what telling the length does to them.

The released predictions of three models are scored by the release's script and by ours, then
predictions made to be hard. Then, without any model: systems of known quality write references with
words deleted and others put in; when their lengths are left free, metrics rank them worse than when
each answer has the length of its reference.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import pair, text
from claims._originals import checkout, commit_of, write_lines
from claims._originals import run as run_script

REPOSITORY, COMMIT = "OpenLMLab/LEval", "cd34b050269148aed75acbbe4a599873ad0f37e9"
PREDICTIONS = 250
SEEDS, SYSTEMS, ITEMS = 20, 12, 30
PUBLISHED = {
    "coursera": 63.51, "gsm100": 84.00, "quality": 61.38, "tpo": 78.43,
    "topic_retrieval_longchat": 79.33, "codeU": 12.22,
}  # fmt: skip
"""Of turbo-16k-0613 in the paper, cut (not rounded) to two decimals."""

CLAIM = Claim(
    system="l-eval",
    title="Scores equal those of the released script, and stated lengths make metrics fairer",
    required=(
        Figure("released prediction files whose score differs", "==", 0),
        Figure("made prediction files whose score differs", "==", 0),
        Figure("published scores of turbo-16k that are not reached again", "==", 0),
        Figure("rise of Kendall's tau with stated lengths, ROUGE", ">=", 0.2),
        Figure("rise of Kendall's tau with stated lengths, F1", ">=", 0.2),
        Figure("seeds without a rise", "==", 0),
        Figure("released predictions compared", "report"),
        Figure("made predictions compared", "report"),
        Figure("Kendall's tau of ROUGE, lengths free", "report"),
        Figure("Kendall's tau of F1, lengths free", "report"),
    ),
    setup=(
        "All exam and n-gram prediction files of the release and 250 adversarial predictions for "
        "each of nine kinds of task, scored by auto_eval.py with rouge-score 0.1.2 (sentences not "
        "split, which only rougeLsum sees). Lengths: 12 systems of known quality, 30 references "
        "from the Python language reference, lengths free within a factor of 4 or as the "
        "reference's, 20 seeds."
    ),
    packages=("rouge-score",),
    code=("evaluation/metrics", "evaluation/tasks/l_eval"),
)

_SCRIPT = """
import contextlib, io, json, multiprocessing, os, re, runpy, sys, types
root, listed = sys.argv[1:3]
datasets = types.ModuleType("datasets")  # Metric was removed from datasets 3
class Metric:
    def __init__(self, config_name=None):
        self.config_name = config_name
    def compute(self, predictions, references):
        return self._compute(predictions, references)
datasets.Metric, datasets.load_dataset = Metric, None
datasets.MetricInfo = datasets.Features = datasets.Value = datasets.Sequence = dict
sys.modules["datasets"] = datasets
import nltk
nltk.sent_tokenize = lambda text: [text]
class Pool:
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def starmap(self, function, items):
        return [function(*item) for item in items]
multiprocessing.Pool = Pool
os.chdir(root + "/Evaluation")
sys.path.insert(0, root + "/Evaluation")
found = {}
for path in json.load(open(listed)):
    for name in ("rouge", "em", "f1"):
        sys.modules.pop(name, None)
    sys.argv = ["auto_eval.py", "--pred_file", path]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(root + "/Evaluation/auto_eval.py", run_name="__main__")
    last = said.getvalue().strip().splitlines()[-1]
    mean = re.search(r"average score of .*: ([0-9.e-]+)$", last)
    found[path] = {"score": float(mean[1])} if mean else eval(last, {"__builtins__": {}})
print(json.dumps(found))
"""


def run(ctx: Context) -> Measured:
    """Score the same predictions twice, then rank systems of known quality."""
    original = checkout(REPOSITORY, COMMIT, "Evaluation/auto_eval.py")
    inputs = {"commit": commit_of(original)}
    released = ctx.step("released", lambda: compare_released(original), inputs=inputs)
    made = ctx.step("made", lambda: compare_made(original, ctx.seed), inputs=inputs)
    lengths = ctx.step("lengths", lambda: [rank(seed) for seed in range(SEEDS)])
    rises = {
        name: [each[f"{name} stated"] - each[f"{name} free"] for each in lengths]
        for name in ("rouge", "f1")
    }
    return Measured(
        {
            "released prediction files whose score differs": len(released["different"]),
            "made prediction files whose score differs": len(made["different"]),
            "published scores of turbo-16k that are not reached again": released["unpublished"],
            "rise of Kendall's tau with stated lengths, ROUGE": mean(rises["rouge"]),
            "rise of Kendall's tau with stated lengths, F1": mean(rises["f1"]),
            "seeds without a rise": sum(each <= 0 for part in rises.values() for each in part),
            "released predictions compared": released["predictions"],
            "made predictions compared": made["predictions"],
            "Kendall's tau of ROUGE, lengths free": mean([e["rouge free"] for e in lengths]),
            "Kendall's tau of F1, lengths free": mean([e["f1 free"] for e in lengths]),
        },
        {"original": inputs["commit"], "different": released["different"] + made["different"]},
    )


def compare_released(original: Path) -> dict[str, Any]:
    """Every file of predictions that the release scores by program."""
    from unspool.evaluation.tasks import l_eval

    folder = original / "Predictions"
    files = sorted([*folder.glob("exam_eval/*/*.jsonl"), *folder.glob("ngram_eval/*/*.jsonl")])
    different = _compare(original, files)
    unpublished = sum(
        abs(l_eval.score_file(folder / "exam_eval/turbo-16k-0613" / f"{name}.pred.jsonl")["score"]
            - published) >= 0.01
        for name, published in PUBLISHED.items()
    )  # fmt: skip
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    return {"predictions": lines, "different": different, "unpublished": unpublished}


def compare_made(original: Path, seed: int) -> dict[str, Any]:
    """Predictions that are hard to read."""
    names = ["coursera", "quality", "tpo", "gsm100", "codeU", "topic_retrieval_longchat", "sci_fi",
             "financial_qa", "gov_report_summ"]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for name in names:
            draw = random.Random(f"{seed}:{name}")
            files.append(Path(temporary) / f"{name}.pred.jsonl")
            write_lines(files[-1], [_line(name, draw) for _ in range(PREDICTIONS)])
        different = _compare(original, files)
    return {"predictions": PREDICTIONS * len(names), "different": different}


def _line(name: str, draw: random.Random) -> dict[str, Any]:
    prediction, gold = pair(draw, 16)
    kind = "exam"
    if name in ("coursera", "quality", "tpo"):
        gold = "".join(sorted(draw.sample("ABCD", draw.randint(1, 3)))) + draw.choice([" ", ". x"])
        letters = [draw.choice(["A", "B", "C", "D", "E", "AB", "(C)", "D.", " ", "Question", "x"])
                   for _ in range(draw.randint(0, 5))]  # fmt: skip
        prediction = draw.choice([prediction, "".join(letters), " ".join(letters)])
    elif name == "gsm100":
        gold = f"... The answer is {draw.randint(0, 9)}{draw.choice(['', '.', '.5', ',000'])}"
        prediction = draw.choice([prediction, gold, f"{prediction}\n\n{gold}", gold[-3:]])
    elif name == "codeU":
        gold = f"[{draw.randint(0, 9)}, '{draw.choice('ab')}'] " + draw.choice(["", "2.0", "x\n"])
        gold = gold if gold.strip() else "1"
        said = draw.choice(["the final output is ", "it will be ", "so the value of x is "])
        prediction = draw.choice([prediction, said + gold, said + prediction + gold])
    elif name == "topic_retrieval_longchat":
        gold = draw.choice([gold, str(draw.randint(0, 9)), "The role of Art"]) or "x"
        prediction = draw.choice([prediction, f"It is {gold}.", gold.upper()])
    elif name == "sci_fi":
        gold = f"{draw.choice(['True', 'False'])} [fact: {draw.choice(['True', 'False'])}]"
        prediction = (
            f"{draw.choice(['True', 'false.', 'untrue', prediction])} "
            f"[fact: {draw.choice(['True', 'it is FALSE', text(draw, 3)])}]"
        )
    else:
        kind = "f1" if name == "financial_qa" else "rouge"
    return {"query": "q", "gt": gold, "m_pred": prediction, "evaluation": kind}


def _compare(original: Path, files: Sequence[Path]) -> list[list[Any]]:
    """Files whose numbers differ, with both."""
    from unspool.evaluation.tasks import l_eval

    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "files.json"
        listed.write_text(json.dumps([str(path) for path in files]))
        said = run_script(["-c", _SCRIPT, str(original), str(listed)], Path(temporary))
    theirs = json.loads(said)
    different: list[list[Any]] = []
    for path in files:
        ours, wanted = l_eval.score_file(path), theirs[str(path)]
        score = wanted.get("score", wanted.get("LEval_score"))
        parts = {k: wanted[f"rouge/{k}"] for k in ("rouge1", "rouge2", "rougeL")
                 if f"rouge/{k}" in wanted}  # fmt: skip
        if ours["score"] != score or any(ours[k] != v for k, v in parts.items()):
            different.append([path.name, ours, wanted])
    return different


def rank(seed: int) -> dict[str, float]:
    """Kendall's tau between the quality of systems and what metrics say of them."""
    from unspool.evaluation.metrics.f1 import qa_f1
    from unspool.evaluation.metrics.rouge_score import rouge_scores
    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks.l_eval import TWIN_TASKS

    items = [
        (sample.references[0].split(), sample.parts.context.split())
        for sample in TWIN_TASKS["summary"].samples(
            LengthLevel("words", 1000), ITEMS, seed=seed, size=lambda text: len(text.split())
        )
    ]
    draw = random.Random(seed)
    qualities = [0.2 + 0.6 * i / (SYSTEMS - 1) for i in range(SYSTEMS)]
    factors = [4 ** draw.uniform(-1, 1) for _ in qualities]
    found: dict[str, float] = {}
    for way in ("free", "stated"):
        means: dict[str, list[float]] = {"rouge": [], "f1": []}
        for quality, factor in zip(qualities, factors, strict=True):
            scores: dict[str, list[float]] = {"rouge": [], "f1": []}
            for reference, context in items:
                length = round(len(reference) * (factor if way == "free" else 1))
                answer = " ".join(write(reference, context, quality, max(length, 1), draw))
                wanted = " ".join(reference)
                rouge = rouge_scores(answer, wanted)
                scores["rouge"].append((rouge.rouge1 * rouge.rouge2 * rouge.rougeL) ** (1 / 3))
                scores["f1"].append(qa_f1(answer, wanted))
            for name, values in scores.items():
                means[name].append(mean(values))
        for name, values in means.items():
            found[f"{name} {way}"] = kendall(qualities, values)
    return found


def write(
    reference: Sequence[str],
    context: Sequence[str],
    quality: float,
    length: int,
    draw: random.Random,
) -> list[str]:
    """An answer of a length: each word is the reference's next with the probability `quality`,
    else one of the document."""
    words: list[str] = []
    place = 0
    while len(words) < length:
        if draw.random() < quality and place < len(reference):
            words.append(reference[place])
            place += 1
        else:
            words.append(draw.choice(context))
            place += draw.random() < 1 - quality
    return words


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a of two lists."""
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [((a[i] > a[j]) - (a[i] < a[j])) * ((b[i] > b[j]) - (b[i] < b[j])) for i, j in pairs]
    return sum(signs) / len(pairs)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
