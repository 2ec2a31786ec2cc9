"""LongICLBench's figures beside its scripts: replies read, runs counted, demonstrations selected.

The released scripts load models and data when they are imported, so their functions and the
statements that read a reply are taken out of the source when the claim runs, and executed as they
stand on made replies and made data. The two evaluation scripts run as they are.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._hard_texts import text
from claims._originals import checkout, commit_of
from claims._originals import run as run_script

REPOSITORY, COMMIT = "TIGER-AI-Lab/LongICLBench", "9c5da3df908dbd01ae6f259d9669241c1a92fe59"
REPLIES = 600

CLAIM = Claim(
    system="long-icl",
    title="Replies are read and runs are counted as by the released scripts",
    required=(
        Figure("replies read otherwise", "==", 0),
        Figure("figures of a run that differ", "==", 0),
        Figure("selections of demonstrations or tests that differ", "==", 0),
        Figure("replies compared", "report"),
        Figure("runs compared", "report"),
        Figure("selections compared", "report"),
    ),
    setup=(
        "600 adversarial replies for each of the six data sets through the statements of the "
        "released scripts, with the running accuracy or F1 after every reply; 20 runs of the two "
        "evaluation scripts; 300 selections over drawn labels."
    ),
)

# Executes parts of a script as they stand: functions by name, tables, and a stretch of its loop.
_PARTS = """
import ast, contextlib, io, json, re, sys

def parts(path, first, last):
    tree = ast.parse(open(path, encoding="utf-8").read())
    space = {"re": re, "json": json, "print": lambda *a, **k: None}
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef) and node.name.startswith(("select", "merge"))
        table = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
            "all_labels", "LABELS", "selected_labels")
        if named or table:
            exec(compile(ast.Module([node], []), path, "exec"), space)
    loop = [n for n in tree.body if isinstance(n, ast.For)][-1].body
    def at(test):
        return next(i for i, n in enumerate(loop) if test(ast.unparse(n)))
    body = loop[at(first) : at(last)] if first else []
    return space, compile(ast.Module(body, []), path, "exec")
"""
_READ = (
    _PARTS
    + """
given = json.load(open(sys.argv[1]))
out = {}
for name, rows in given.items():
    script = {"banking77": "banking77_infer.py", "goemotion": "goemotion_infer.py",
              "tacred": "tacred_infer.py", "discovery": "discovery_infer.py",
              "dialogre": "dialoguere_infer.py", "fewnerd": "fewnerd_infer.py"}[name]
    if name == "fewnerd":
        ends = (lambda s: s.startswith("if example['sentence'] in response"),
                lambda s: s.startswith("count += 1"))
    elif name == "dialogre":
        ends = (lambda s: s.startswith("temp_prompt ="), lambda s: s.startswith("total_label +="))
    else:
        ends = (lambda s: s.startswith("temp_prompt ="), lambda s: s.startswith("output_dict = {}"))
    space, code = parts(script, *ends)
    space.update(correct=0, total=0, total_pred=0, total_correct=0, total_label=0)
    found = []
    for row in rows:
        space.update(example=row["example"], response=row["response"])
        space["expected_relations"] = row.get("relations", [])
        exec(code, space)
        if name == "fewnerd":
            found.append([dict(space["output_dict"]), None])
        elif name == "dialogre":
            found.append([space["pred"], None])
        elif name == "tacred":
            found.append([space["pred"], space["f1"]])
        else:
            found.append([space["response"], space["correct"] / space["total"]])
    out[name] = found
    out[name + ":labels"] = space.get("all_labels") or space.get("LABELS") or []
print(json.dumps(out))
"""
)
_SELECT = (
    _PARTS
    + """
given = json.load(open(sys.argv[1]))
bank, _ = parts("banking77_infer.py", None, None)
rel, _ = parts("tacred_infer.py", None, None)
talk, _ = parts("dialoguere_infer.py", None, None)
out = []
for labels, rounds in given["rounds"]:
    data = [{"label": label, "place": i} for i, label in enumerate(labels)]
    out.append([row["place"] for row in bank["select_data"](data, rounds)])
for labels, rounds in given["scans"]:
    data = [{"relation": label, "place": i} for i, label in enumerate(labels)]
    out.append([row["place"] for row in rel["select_data"](data, rounds)])
    out.append([row["place"] for row in rel["select_test"](data, rounds)])
for rows in given["dialogues"]:
    out.append(talk["merge_data"](rows))
print(json.dumps(out))
"""
)


def run(ctx: Context) -> Measured:
    """Read, count and select twice."""
    original = checkout(REPOSITORY, COMMIT, "banking77_infer.py")
    inputs = {"commit": commit_of(original)}
    read = ctx.step("replies", lambda: compare_replies(original, ctx.seed), inputs=inputs)
    runs = ctx.step("runs", lambda: compare_runs(original, ctx.seed), inputs=inputs)
    chosen = ctx.step("selections", lambda: compare_selections(original, ctx.seed), inputs=inputs)
    return Measured(
        {
            "replies read otherwise": read["different"],
            "figures of a run that differ": read["figures"] + runs["different"],
            "selections of demonstrations or tests that differ": chosen["different"],
            "replies compared": read["replies"],
            "runs compared": runs["runs"],
            "selections compared": chosen["selections"],
        },
        {"original": inputs["commit"], "examples": read["examples"] + runs["examples"]},
    )


def reply(draw: random.Random, cue: str, following: str, echoed: str, label: str) -> str:
    """A reply with the pieces that reading looks for, in any order."""
    pieces = [cue, following, echoed, label, label.upper(), "\n", " ", "[/INST]", ".", ",", '"',
              "\u201c", "dialogue", "Dialogue", "Sentence: x", text(draw, 3), f"{label}: type",
              f"\n{label}: a: b\n"]  # fmt: skip
    likely = draw.choice([label, f" {label}\n{following}x", f"{echoed}\n{cue} {label}\n"])
    return likely if draw.random() < 0.3 else "".join(draw.choices(pieces, k=draw.randint(0, 9)))


def examples(name: str, draw: random.Random) -> dict[str, Any]:
    """A test item of a data set and a reply to it."""
    from unspool.evaluation.tasks.long_icl.facts import DIALOGRE_RELATIONS, TACRED_RELATIONS
    from unspool.evaluation.tasks.long_icl.score import CUES

    asked = draw.choice(["Where is it?", "I, said he.", "x", "What (now)?", text(draw, 5) + "q"])
    if name in ("banking77", "goemotion", "discovery"):
        number = draw.randrange(28)
        example = {"text": asked, "label": number, "labels": [number], "sentence1": "One.",
                   "sentence2": asked}  # fmt: skip
        label = f"@{number}@"  # replaced by its name where the table is known
        cue, following = CUES[name]
        return {"example": example, "response": reply(draw, cue, following, asked, label)}
    if name == "tacred":
        gold = draw.choice(sorted(TACRED_RELATIONS))
        example = {"sentence": asked, "relation": gold, "subject_entity": "A", "object_entity": "B"}
        said = draw.choice([gold, gold, draw.choice(sorted(TACRED_RELATIONS)), "no_relation"])
        cue, following = CUES[name]
        return {"example": example, "response": reply(draw, cue, following, asked, said)}
    if name == "dialogre":
        relations = draw.choices(DIALOGRE_RELATIONS, k=draw.randint(1, 4))
        cue = f"The {len(relations)} respective relations between each entity pair are:"
        said = ", ".join(relations)
        return {
            "example": {"dialogue": asked},
            "relations": relations,
            "response": reply(draw, cue, "Dialogue", asked, said),
        }
    return {"example": {"sentence": asked},
            "response": reply(draw, "Sentence", "\n", asked, "Ann")}  # fmt: skip


def compare_replies(original: Path, seed: int) -> dict[str, Any]:
    """What a reply says, and the figure of the run after it."""
    from unspool.evaluation.spec import Parts, Response, Sample
    from unspool.evaluation.tasks.long_icl.facts import DATASETS
    from unspool.evaluation.tasks.long_icl.score import (
        Icl,
        said_entities,
        said_label,
        said_relations,
    )

    draw = random.Random(seed)
    given = {name: [examples(name, draw) for _ in range(REPLIES)] for name in DATASETS}
    tables = label_tables(original)
    for name, table in tables.items():
        for row in given[name]:
            pieces = re.split(r"@(\d+)@", row["response"])
            pieces[1::2] = [table[int(number)] for number in pieces[1::2]]
            row["response"] = "".join(pieces)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "given.json"
        file.write_text(json.dumps(given))
        theirs = json.loads(run_script(["-c", _READ, str(file)], original))
    different, figures = 0, 0
    shown: list[Any] = []
    for name, rows in given.items():
        scores: list[dict[str, float]] = []
        metric = Icl(name)
        for row, (wanted, figure) in zip(rows, theirs[name], strict=True):
            example, response = row["example"], row["response"]
            if name == "fewnerd":
                ours: Any = said_entities(response, example["sentence"])
            elif name == "dialogre":
                ours = said_relations(response, example["dialogue"], len(row["relations"]))
            else:
                field = {"discovery": "sentence2", "tacred": "sentence"}.get(name, "text")
                ours = said_label(name, response, example[field])
            if ours != wanted:
                different += 1
                shown.append([name, row, ours, wanted])
            if figure is None:
                continue
            label = example["relation"] if name == "tacred" else tables[name][example["label"]]
            sample = Sample(
                id="1", parts=Parts(), references=(label,), meta={"echoed": example[field]}
            )
            scores.append(metric.score(sample, Response(text=response)))
            if metric.aggregate(scores)["score"] != figure:
                figures += 1
                shown.append([name, "figure", metric.aggregate(scores), figure])
    return {"replies": REPLIES * len(given), "different": different, "figures": figures,
            "examples": shown[:10]}  # fmt: skip


def label_tables(original: Path) -> dict[str, list[str]]:
    """The names of numbered labels, out of the scripts."""
    from unspool.evaluation.tasks.long_icl.data import label_names

    return {
        name: label_names(name, str(original)) for name in ("banking77", "goemotion", "discovery")
    }


def compare_runs(original: Path, seed: int) -> dict[str, Any]:
    """The F1 that the two evaluation scripts print."""
    from unspool.evaluation.tasks import find_tasks
    from unspool.evaluation.tasks.long_icl.facts import DIALOGRE_RELATIONS

    draw = random.Random(f"{seed}:runs")
    different = 0
    shown: list[Any] = []
    runs = 20
    kinds = ["person", "place", "art-film"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(runs):
            name = ("dialogre", "fewnerd")[number % 2]
            rows: list[dict[str, Any]] = []
            gold = []
            for _ in range(draw.randint(1, 260)):
                wanted = draw.choices(DIALOGRE_RELATIONS, k=draw.randint(1, 4))
                said = [w if draw.random() < 0.6 else draw.choice([text(draw, 2), "x", w + "s"])
                        for w in wanted]  # fmt: skip
                if name == "dialogre":
                    rows.append({"dialogue": "d", "label": ", ".join(wanted),
                                 "pred": draw.choice([", ", ","]).join(said)})  # fmt: skip
                    continue
                entities = {f"E{draw.randrange(9)}": draw.choice(kinds) for _ in range(3)}
                gold.append({"sentence": "s", "entities": entities})
                rows.append({e: k if draw.random() < 0.7 else "x" for e, k in entities.items()})
            if name == "fewnerd":
                rows[0] = dict(gold[0]["entities"])  # the script divides by zero without a hit
            results = {"dialogre": "dialogueRE", "fewnerd": "fewnerd"}[name]
            file = folder / f"{results}_round_result" / "m_1.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(rows))
            (folder / "processed_data").mkdir(exist_ok=True)
            (folder / "processed_data" / "fewnerd_test_1800.json").write_text(json.dumps(gold))
            script = str(original / f"{results}_evaluate.py")
            printed = run_script([script, "--model", "m", "--round", "1"], folder)
            f1 = float(re.findall(r"^f1: +(\S+)", printed, re.MULTILINE)[-1])
            (task,) = find_tasks(f"long-icl/{name}")
            scores = [task.metric.score(p.sample, p.response) for p in task.read_predictions(file)]
            ours = task.metric.aggregate(scores)["score"]
            if ours != f1:
                different += 1
                shown.append([name, ours, f1])
    return {"runs": runs, "different": different, "examples": shown[:5]}


def compare_selections(original: Path, seed: int) -> dict[str, Any]:
    """Demonstrations, tests and merged dialogues on drawn data."""
    from unspool.evaluation.tasks import long_icl
    from unspool.evaluation.tasks.long_icl.facts import TACRED_RELATIONS

    draw = random.Random(f"{seed}:select")
    relations = [*sorted(TACRED_RELATIONS), "no_relation"]
    given: dict[str, Any] = {
        "rounds": [
            ([draw.choice("abcdefgh") for _ in range(draw.randint(0, 60))], draw.randint(1, 9))
            for _ in range(100)
        ],
        "scans": [
            ([draw.choice(relations) for _ in range(draw.randint(0, 900))], draw.randint(1, 4))
            for _ in range(60)
        ],
        "dialogues": [
            [
                {"dialogue": draw.choice("xyz"), "relation": draw.choice("ab"),
                 "subject_entity": "s", "object_entity": "o"}
                for _ in range(draw.randint(0, 12))
            ]
            for _ in range(80)
        ],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "given.json"
        file.write_text(json.dumps(given))
        theirs = json.loads(run_script(["-c", _SELECT, str(file)], original))
    ours: list[Any] = [long_icl.by_rounds(labels, n).items for labels, n in given["rounds"]]
    for labels, n in given["scans"]:
        ours.append(long_icl.by_scan(labels, n, TACRED_RELATIONS).items)
        ours.append(long_icl.at_most_each(labels, n, TACRED_RELATIONS))
    ours += [long_icl.merge_dialogues(rows) for rows in given["dialogues"]]
    wrong = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return {"selections": len(ours), "different": wrong}
