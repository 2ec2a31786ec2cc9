"""Needle threading without a model: the published row, the answers, the released scorer, the speed.

The release has no generator and no scorer but an example in its README, whose statements are taken
out when the claim runs and executed as they stand. Lengths in tokens are those of SmolLM2.
"""

from __future__ import annotations

import ast
import json
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import text
from claims._originals import checkout, commit_of
from claims._originals import run as run_script

REPOSITORY = "jonathan-roberts1/needle-threading"
COMMIT = "006f8f57310cad9f84d5a8104c939abc86c96fa8"
REPLIES = 2_000
SAMPLES = 500
TOKENS = 131_072

CLAIM = Claim(
    system="needle-threading",
    title="The published haystack bit for bit, right answers in every task, in seconds",
    required=(
        Figure("values of the published row that differ", "==", 0),
        Figure("answers that a solver finds otherwise", "==", 0),
        Figure("haystacks solved", "report"),
        Figure("replies judged otherwise than by the released example", "==", 0),
        Figure("replies compared", "report"),
        Figure("replies on which the released example ends with an exception", "report"),
        Figure("500 samples of 128k tokens, processor time", "<=", 60, unit="s"),
        Figure("the same by the clock", "report", unit="s"),
        Figure("of that without counting tokens, processor time", "report", unit="s"),
        Figure("longest of every eleventh of them", "<=", TOKENS, unit="tokens"),
        Figure("shortest of every eleventh of them", "report", unit="tokens"),
        Figure("characters a token, prose, SmolLM2", "report"),
        Figure("characters a token, UUIDs, SmolLM2", "report"),
    ),
    setup=(
        "Row 5 of the published single needles as its README shows it; 1,300 haystacks of 25 to "
        "400 pairs; 2,000 adversarial replies; 500 single needles at five depths fitted to 131,072 "
        "SmolLM2 tokens with their questions, on one core."
    ),
    packages=("tokenizers",),
)

_EXAMPLE = """
import ast, json, re, sys
from ast import literal_eval
readme = open("README.md", encoding="utf-8").read()
blocks = re.findall(r"```python\\n(.*?)```", readme, re.DOTALL)
(code,) = [block for block in blocks if "literal_eval(model_response)" in block]
loop = next(n for n in ast.parse(code).body if isinstance(n, ast.For)).body
kept = [n for n in loop if "generate_content" not in ast.unparse(n)]
kept = [n for n in kept if not ast.unparse(n).startswith(("results_row", "output_df"))]
program = compile(ast.Module(kept, []), "README.md", "exec")
out = []
for reply, value in json.load(open(sys.argv[1])):
    item = {"question": "", "haystack": "", "values": value, "id": 0}
    space = {"literal_eval": literal_eval, "item": item, "model_response": reply}
    try:
        exec(program, space)
        out.append(bool(space["correct"]))
    except Exception:
        out.append("exception")
print(json.dumps(out))
"""


def run(ctx: Context) -> Measured:
    """Check the generator, then the scorer, then the clock."""
    original = checkout(REPOSITORY, COMMIT, "README.md")
    inputs = {"commit": commit_of(original)}
    published = ctx.step("published", lambda: compare_row(original), inputs=inputs)
    solved = ctx.step("solved", solve_all)
    judged = ctx.step("replies", lambda: compare_replies(original, ctx.seed), inputs=inputs)
    speed = ctx.step("speed", time_generation)
    return Measured(
        {
            "values of the published row that differ": len(published),
            "answers that a solver finds otherwise": solved["different"],
            "haystacks solved": solved["haystacks"],
            "replies judged otherwise than by the released example": judged["different"],
            "replies compared": REPLIES,
            "replies on which the released example ends with an exception": judged["exceptions"],
            "500 samples of 128k tokens, processor time": speed["processor"],
            "the same by the clock": speed["seconds"],
            "of that without counting tokens, processor time": speed["made"],
            "longest of every eleventh of them": speed["longest"],
            "shortest of every eleventh of them": speed["shortest"],
            "characters a token, prose, SmolLM2": speed["prose"],
            "characters a token, UUIDs, SmolLM2": speed["uuids"],
        },
        {"original": inputs["commit"], "published": published, "examples": judged["examples"]},
    )


def compare_row(original: Path) -> list[Any]:
    """The README's row against the one that is made from the same settings."""
    from unspool.evaluation.tasks import needle_threading as needles

    readme = (original / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"\{'id': 5,.*?\}\n\"\"\"", readme, re.DOTALL)
    if shown is None:
        return ["the README shows no row"]
    row = ast.literal_eval(shown[0].removesuffix('\n"""').replace("\n", " "))
    made = needles.make("single_needle", chars=row["context_length"], depth=0.5, row_id=5)
    ours = made.to_json()
    wrong = [[name, ours[name], value] for name, value in row.items()
             if name not in ("haystack", "question") and ours[name] != value]  # fmt: skip
    # The README shows the first pair, the next key's beginning, and the last value.
    first, last = row["haystack"].split("...")
    if not made.haystack.startswith(first) or not made.haystack.endswith(last.partition(": ")[2]):
        wrong.append(["haystack", made.haystack[:100], row["haystack"]])
    return wrong


def solve_all() -> dict[str, Any]:
    """Every task and setting at several sizes, answered by reading the text."""
    from unspool.evaluation.tasks import needle_threading as needles

    settings: list[tuple[str, dict[str, Any]]] = [
        ("single_needle", {}),
        ("multiple_needles", {"n_needles": 10}),
        ("multiple_needles", {"n_needles": 10, "placement": "clustered"}),
        ("conditional_needles", {"n_needles": 10}),
        ("conditional_needles", {"n_needles": 10, "placement": "clustered", "condition": "&"}),
        *(("single_thread", {"thread_length": 9, "direction": d})
          for d in ("forward", "backward", "random")),
        *(("multi_thread", {"thread_length": 4, "n_threads": 5, "direction": d})
          for d in ("forward", "backward", "random", "mixed")),
        ("branched_thread", {"thread_length": 6, "branches": 3}),
    ]  # fmt: skip
    haystacks = different = 0
    for task, chosen in settings:
        for pairs in (25, 50, 101, 400):
            for seed in range(25):
                row = needles.make(task, pairs=pairs, seed=seed, **chosen)
                haystacks += 1
                different += read(row) != row.values
    return {"haystacks": haystacks, "different": different}


def read(row: Any) -> Any:
    """The answer from the text, without the package: a walk over its pairs."""
    pairs = re.findall(r'"([^"]+)": "([^"]+)"', row.haystack)
    if row.conditional_character != "N/A":
        return [value for key, value in pairs if row.conditional_character in key]

    def ends(key: str, steps: int) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for k, value in pairs:
            if k == key:
                found += ends(value, steps + 1) or [(steps, value)]
        return found

    asked = [row.keys] if isinstance(row.keys, str) else row.keys
    if not row.num_threads:
        table = dict(pairs)
        answers = [table[key] for key in asked]
    else:
        answers = [max(ends(key, 1))[1] for key in asked]
    return answers[0] if isinstance(row.values, str) else answers


def replies(draw: random.Random, value: str, other: str) -> str:
    """A reply about a value."""
    said = draw.choice([value, value, other, value[:-1], value.upper(), f"{value}x", f" {value}"])
    form = draw.choice(
        [
            '"{}"',
            "'{}'",
            "{}",
            '["{}"]',
            '"""{}"""',
            "b'{}'",
            '{{"v": "{}"}}',
            "`{}`",
            '"{}',
            "({!r})",
        ]
    )
    reply = form.format(said)
    return (
        draw.choice(["", "", "", " ", "\n", text(draw, 3)])
        + reply
        + draw.choice(["", "", "", "\n", ".", " ", text(draw, 3)])
    )


def compare_replies(original: Path, seed: int) -> dict[str, Any]:
    """The released example and the rule `literal`."""
    from unspool.evaluation.tasks import needle_threading as needles

    draw = random.Random(seed)
    values = needles.uuids(200, seed)
    asked = []
    for _ in range(REPLIES):
        value, other = draw.sample(values, 2)
        asked.append((replies(draw, value, other), value))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "asked.json"
        file.write_text(json.dumps(asked))
        theirs = json.loads(run_script(["-c", _EXAMPLE, str(file)], original))
    wrong = []
    for (reply, value), judged in zip(asked, theirs, strict=True):
        found = bool(needles.score_single(reply, value)["literal"])
        if found != (judged is True):
            wrong.append([reply, value, found, judged])
    return {"different": len(wrong), "exceptions": theirs.count("exception"), "examples": wrong[:5]}


def time_generation() -> dict[str, Any]:
    """500 samples that fill 131,072 tokens, counted by SmolLM2's tokenizer."""
    from unspool.corpus.tokenise import load_tokenizer
    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks import needle_threading as needles
    from unspool.evaluation.tasks._texts import language_reference

    tokenizer = load_tokenizer("smollm2")

    def size(prompt: str) -> int:
        return len(tokenizer.encode(prompt).ids)

    task = needles.TASKS["single_needle"]
    kept: list[str] = []
    started, busy = time.perf_counter(), time.process_time()
    pairs = 0
    for number, sample in enumerate(
        task.samples(LengthLevel("tokens", TOKENS), SAMPLES, size=size)
    ):
        pairs = sample.lengths["pairs"]
        if number % 11 == 0:  # every depth
            parts = sample.parts
            kept.append(parts.context + parts.query + parts.answer_prefix)
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    counted = [size(prompt) for prompt in kept]
    busy = time.process_time()
    for seed in range(SAMPLES):
        needles.make("single_needle", pairs=pairs, depth=0.5, seed=seed)
    made = time.process_time() - busy
    prose = "\n".join(document.text for document in language_reference())
    (row,) = needles.tokenizer_table({"smollm2": lambda s: tokenizer.encode(s).ids}, prose)
    return {
        "seconds": seconds,
        "processor": processor,
        "made": made,
        "longest": max(counted),
        "shortest": min(counted),
        "counted": len(counted),
        "prose": row.prose,
        "uuids": row.uuids,
    }
