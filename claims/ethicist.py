"""A model trained here on texts that we know: how much of them does it give back?

A small decoder reads documentation and source code, then short documents of the same kind, some
once, some 4 and some 16 times in a pass, and as many passes as it takes until it recites a share of
those that train the prompt; every tenth is a made-up list of secrets. The head of each document is
a pair of a prefix and a suffix; others, never read, are the controls. Three ways of asking are
compared on the same prefixes: no prompt, a prompt trained with the plain loss, and one trained with
the smoothing loss; and two ways of ranking the same samples.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured

REPEATS = (1, 4, 16)
ASKED = {"none": None, "plain": 0.0, "smooth": 0.7}
"""Name of a way of asking: alpha of the prompt's loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of an arm."""

    hidden: int = 128
    layers: int = 3
    vocabulary: int = 1024
    base_tokens: int = 100_000
    base_rate: float = 1e-3
    base_batch: int = 16
    rate: float = 1e-3
    batch: int = 4
    recited: float = 0.3
    """Greedy recall of the training pairs at which the passes end."""
    passes: int = 10
    """At most."""
    train: int = 120
    val: int = 30
    test: int = 200
    controls: int = 100
    prefix: int = 20
    suffix: int = 20
    document_words: int = 26
    tokens: int = 20
    """Vectors of the prompt."""
    lr: float = 1e-2
    epochs: int = 20
    samples: int = 10
    rows: int = 220
    """Written at a time."""
    seeds: int = 3


ARMS = {
    "cpu": Sizes(),
    "gpu": Sizes(hidden=384, layers=6, vocabulary=8192, base_tokens=2_000_000, base_batch=32,
                 rate=5e-4, batch=16, train=2000, val=200, test=500, controls=250, prefix=50,
                 suffix=50, document_words=90, tokens=100, lr=3e-3, epochs=10, samples=32,
                 rows=2112),
}  # fmt: skip
ARMS["full"] = ARMS["gpu"]

CLAIM = Claim(
    system="ethicist",
    title="A trained prompt gets more of what a model read, and controls stay unread",
    required=(
        Figure("recall with the prompt above that without, points", ">=", 3, unit="points"),
        Figure("lower end of its 95% interval", ">", 0, unit="points"),
        Figure("recall at early stop, calibrated above loss, points", ">=", 5, unit="points"),
        Figure("recall of controls", "<=", 0.005),
        Figure("recall without a prompt", "report"),
        Figure("recall with the prompt", "report"),
        Figure("recall of the prompt of the plain loss", "report"),
        Figure("smoothing above the plain loss, points", "report", unit="points"),
        Figure("the same, lower end of the 95% interval", "report", unit="points"),
        Figure("the same, upper end", "report", unit="points"),
        Figure("recall at early stop, calibrated", "report"),
        Figure("recall at early stop, by loss", "report"),
        Figure("recall of the greedy text without a prompt", "report"),
        Figure("area under the curve, members against controls, without a prompt", "report"),
        Figure("area under the curve, members against controls, with the prompt", "report"),
    ),
    setup=(
        "A decoder of 3 layers and 128 channels on 100,000 tokens of the Python language "
        "reference and standard library, then 350 documents of 26 words read 1, 4 or 16 times a "
        "pass, until greedy recall of the pairs that train the prompt is 30%; prefixes and "
        "suffixes of 20 tokens; up to 120 pairs train 20 vectors, 30 validate, 200 test, 100 "
        "controls; 10 samples, top-p 0.7, temperature 0.8; 3 seeds of prompt and samples; the "
        "early stop allows errors at a tenth of the prefixes; intervals by paired bootstrap over "
        "prefixes. With budget gpu: 6 layers of 384 channels on 2 million tokens, 2,700 documents "
        "of 90 words, 50 and 50 tokens, up to 2,000 pairs train 100 vectors, 500 test, 250 "
        "controls, 32 samples."
    ),
    packages=("torch", "transformers", "tokenizers"),
    code=("forensics/extract",),
)


def run(ctx: Context) -> Measured:
    """Train the model, then prompts, then ask; each step resumes."""
    return measure(ctx, ARMS[ctx.budget])


def measure(ctx: Context, sizes: Sizes) -> Measured:
    """All steps of an arm."""
    from claims.copyright_traps import train, wrapped

    folder = ctx.folder / "models"
    folder.mkdir(parents=True, exist_ok=True)
    base, members, controls = texts(sizes)
    inputs = asdict(sizes)

    def train_base() -> str:
        train(folder / "base", None, base, arm_of(sizes, sizes.base_batch), sizes.base_rate,
              ctx.seed)  # fmt: skip
        return "base"

    def train_pass(number: int) -> dict[str, float]:
        read = [text for i, text in enumerate(members) for _ in range(REPEATS[i % 3])]
        random.Random(number).shuffle(read)
        begin = folder / (f"pass-{number - 1}" if number else "base")
        train(folder / f"pass-{number}", begin, read, arm_of(sizes, sizes.batch), sizes.rate,
              ctx.seed + 1 + number)  # fmt: skip
        model = wrapped(folder / f"pass-{number}")
        pairs = pairs_of(model.tokenizer, members, controls, sizes, ctx.seed)
        return {"recall": greedy_recall(model, [p for p in pairs if p.split == "train"], sizes)}

    ctx.step("base", train_base, inputs=inputs)
    recalls: list[float] = []
    while len(recalls) < sizes.passes and (not recalls or recalls[-1] < sizes.recited):
        number = len(recalls)
        found = ctx.step(f"pass-{number}", lambda n=number: train_pass(n), inputs=inputs)
        recalls.append(found["recall"])
    facts = {"greedy_recall_of_training_pairs_by_pass": recalls}
    model = wrapped(folder / f"pass-{len(recalls) - 1}")
    pairs = pairs_of(model.tokenizer, members, controls, sizes, ctx.seed)
    split = {name: sum(p.split == name for p in pairs) for name in ("train", "val", "test")}
    asked: dict[str, list[dict[str, Any]]] = {name: [] for name in ASKED}
    for seed in range(sizes.seeds):
        for name, alpha in ASKED.items():
            prompt = None
            if alpha is not None:
                prompt = ctx.step(
                    f"prompt-{name}-{seed}",
                    lambda alpha=alpha, seed=seed: fit_one(model, pairs, sizes, alpha, seed),
                    inputs=inputs,
                )
            asked[name].append(
                ctx.step(
                    f"ask-{name}-{seed}",
                    lambda prompt=prompt, seed=seed: ask_one(model, pairs, sizes, prompt, seed),
                    inputs=inputs,
                )
            )
    return summarise(asked, {**facts, **split, "weights": model.model.num_parameters()})


def arm_of(sizes: Sizes, batch: int) -> Any:
    """The sizes as the training of the claim of traps takes them."""
    from claims.copyright_traps import Arm

    return Arm(hidden=sizes.hidden, layers=sizes.layers, vocabulary=sizes.vocabulary,
               first_tokens=sizes.base_tokens, batch=batch)  # fmt: skip


def greedy_recall(model: Any, pairs: Sequence[Any], sizes: Sizes) -> float:
    """Share of pairs whose suffix is the greedy text behind the prefix alone."""
    from unspool.forensics.extract import AttackSettings, attack

    records = attack(model, pairs, AttackSettings(samples=0, beams=0, batch=sizes.rows))
    right = [list(p.suffix) == r["greedy"]["tokens"] for p, r in zip(pairs, records, strict=True)]
    return sum(right) / len(right)


@cache
def texts(sizes: Sizes) -> tuple[list[str], list[str], list[str]]:
    """What the model reads first, the documents it reads then, and those it never reads."""
    from claims.data import python_reference

    library = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests"}
    files = [p for p in library.rglob("*.py") if not skipped & set(p.parts)]
    files = [*sorted(python_reference().rglob("*.txt")), *sorted(files)]
    read = [" ".join(path.read_text(encoding="utf-8", errors="replace").split()) for path in files]
    draw = random.Random(0)
    draw.shuffle(read)
    count = sizes.train + sizes.val + sizes.test
    documents: list[str] = []
    used = 0
    for text in read:
        if len(documents) >= count + sizes.controls:
            break
        used += 1
        words = text.split(" ")
        # Every other piece, so that no document goes on where another one ends.
        for at in range(0, len(words) - sizes.document_words, 2 * sizes.document_words):
            documents.append(" ".join(words[at : at + sizes.document_words]))
    draw.shuffle(documents)
    documents = documents[: count + sizes.controls]
    for at in range(0, len(documents), 10):
        numbers = [f"{draw.randrange(10**4):04d}" for _ in range(sizes.document_words)]
        documents[at] = f"secret {at} of the vault: " + " ".join(numbers)
    base, size = [], 0
    for text in read[used:]:
        if size < 4 * sizes.base_tokens:  # characters: more than that makes as many tokens
            base.append(text)
            size += len(text)
    return base, documents[:count], documents[count:]


def pairs_of(
    tokenizer: Any, members: Sequence[str], controls: Sequence[str], sizes: Sizes, seed: int
) -> list[Any]:
    """The head of every document, cut in two; splits by document."""
    from unspool.forensics.extract import make_pairs
    from unspool.types import Document

    made = make_pairs(
        [Document(f"{REPEATS[i % 3]}-{i}", text) for i, text in enumerate(members)],
        tokenizer,
        prefix=sizes.prefix,
        suffix=sizes.suffix,
        stride=10**6,
        shares=(sizes.train, sizes.val, sizes.test),
        seed=seed,
        controls=[Document(f"0-{i}", text) for i, text in enumerate(controls)],
    )
    return list(made.pairs)


def fit_one(
    model: Any, pairs: Sequence[Any], sizes: Sizes, alpha: float, seed: int
) -> dict[str, Any]:
    """A prompt as lists, and its losses by epoch."""
    from unspool.forensics.extract import FitSettings, fit

    prompt = fit(
        model,
        [p for p in pairs if p.split == "train"],
        [p for p in pairs if p.split == "val"],
        FitSettings(
            tokens=sizes.tokens, alpha=alpha, lr=sizes.lr, epochs=sizes.epochs, seed=seed, micro=32
        ),
    )
    return {"vectors": prompt.vectors.tolist(), "epochs": prompt.notes["epochs"]}


def ask_one(
    model: Any, pairs: Sequence[Any], sizes: Sizes, prompt: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """Whether each prefix was answered rightly, and how surely, ranked in two ways."""
    import torch

    from unspool.forensics.extract import AttackSettings, SoftPrompt, attack, score

    asked = [p for p in pairs if p.split in ("test", "control")]
    records = attack(
        model,
        asked,
        # The greedy and the beam text are the same for every seed of the samples.
        AttackSettings(samples=sizes.samples, beams=0 if seed else 4, batch=sizes.rows, seed=seed),
        prompt=None if prompt is None else SoftPrompt(torch.tensor(prompt["vectors"])),
    )
    found: dict[str, Any] = {}
    errors = max(1, sum(p.split == "test" for p in asked) // 10)
    for method in ("calibrated", "ppl"):
        said = score(records, asked, confidence=method, stop_errors=errors)
        found[method] = {
            **said.totals(),
            "exact": {r["id"]: r["exact"] for r in said.rows if r["split"] == "test"},
            "reliability": [dict(row) for row in said.reliability],
        }
    return found


def summarise(asked: Mapping[str, list[dict[str, Any]]], facts: dict[str, Any]) -> Measured:
    """Figures from what was answered."""
    hits = {
        name: np.array(
            [[float(x) for x in each["calibrated"]["exact"].values()] for each in runs]
        ).mean(0)
        for name, runs in asked.items()
    }
    gain, low, _ = paired(hits["smooth"] - hits["none"])
    smoothing, smoothing_low, smoothing_high = paired(hits["smooth"] - hits["plain"])
    stops = {
        method: mean(each[method]["early_stop"] for each in asked["smooth"])
        for method in ("calibrated", "ppl")
    }
    controls = max(each["calibrated"]["control_recall"] for runs in asked.values() for each in runs)
    areas = {name: mean(each["calibrated"]["auc"] for each in runs) for name, runs in asked.items()}
    figures = {
        "recall with the prompt above that without, points": 100 * gain,
        "lower end of its 95% interval": 100 * low,
        "recall at early stop, calibrated above loss, points": 100
        * (stops["calibrated"] - stops["ppl"]),
        "recall of controls": controls,
        "recall without a prompt": float(hits["none"].mean()),
        "recall with the prompt": float(hits["smooth"].mean()),
        "recall of the prompt of the plain loss": float(hits["plain"].mean()),
        "smoothing above the plain loss, points": 100 * smoothing,
        "the same, lower end of the 95% interval": 100 * smoothing_low,
        "the same, upper end": 100 * smoothing_high,
        "recall at early stop, calibrated": stops["calibrated"],
        "recall at early stop, by loss": stops["ppl"],
        "recall of the greedy text without a prompt": asked["none"][0]["calibrated"]["greedy"],
        "area under the curve, members against controls, without a prompt": areas["none"],
        "area under the curve, members against controls, with the prompt": areas["smooth"],
    }
    ids = list(asked["none"][0]["calibrated"]["exact"])
    by_repeats = {
        name: {
            str(n): float(np.mean([v for i, v in zip(ids, values, strict=True)
                                   if i.startswith(f"{n}-")] or [0.0]))
            for n in REPEATS
        }
        for name, values in hits.items()
    }  # fmt: skip
    return Measured(
        figures,
        {
            **facts,
            "recall_by_repeats": by_repeats,
            "recall_at": {n: runs[0]["calibrated"]["recall_at"] for n, runs in asked.items()},
            "beam": {n: runs[0]["calibrated"]["beam"] for n, runs in asked.items()},
            "reliability": asked["smooth"][0]["calibrated"]["reliability"],
        },
    )


def mean(values: Any) -> float:
    """Of an iterable."""
    return float(np.mean(list(values)))


def paired(differences: Any) -> tuple[float, float, float]:
    """Mean of paired differences and its 95% bootstrap interval."""
    draw = np.random.default_rng(0)
    means = [float(draw.choice(differences, len(differences)).mean()) for _ in range(10_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(differences)), float(low), float(high)
