"""Small decoders trained from nothing under different attentions: data, training and scores.

Text is documentation of Debian packages (GPU arm) or the standard library's source and the language
reference (CPU arm); every tenth piece is held out. A share of the rows holds a pass key somewhere
in the text and asks for it at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Context
from claims._giraffe_training import Settings, network

IGNORED = -100
TRAINED: dict[str, str | None] = {
    "softmax": None,
    "softmax, log n": "softplus:phi=exp,reweight=false",
    "ALiBi": "alibi",
    "LSSA": "softplus:reweight=false",
    "LSSAR": "softplus",
}
"""Trained with this on the model."""
SCORED: dict[str, tuple[str, str | None]] = {
    **{name: (name, spec) for name, spec in TRAINED.items()},
    "LSSA+rw": ("LSSA", "softplus"),
}
"""Name: which weights, scored with what."""
KEY_DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Sizes of a run."""

    layers: int
    width: int
    window: int
    vocabulary: int
    batch_tokens: int
    steps: int
    rate: float
    times: tuple[int, ...]
    """Lengths that are scored, in windows."""
    ways: tuple[str, ...]
    seeds: tuple[int, ...]
    text_bytes: int
    debian: bool
    keys: float
    """Share of the rows that hold a pass key."""
    texts: int = 32
    """Held-out texts a length."""


ARMS = {
    "cpu": Arm(
        layers=4,
        width=128,
        window=128,
        vocabulary=2048,
        batch_tokens=4096,
        steps=300,
        rate=3e-3,
        times=(1, 2, 4, 8, 16),
        ways=("softmax", "softmax, log n", "LSSAR"),
        seeds=(0, 1),
        text_bytes=8_000_000,
        debian=False,
        keys=0.0,
        texts=24,
    ),
    "gpu": Arm(
        layers=6,
        width=384,
        window=256,
        vocabulary=8192,
        batch_tokens=32_768,
        steps=520,
        rate=2e-3,
        times=(1, 2, 4, 8, 16),
        ways=tuple(SCORED),
        seeds=(0, 1, 2),
        text_bytes=60_000_000,
        debian=True,
        keys=0.25,
    ),
}


@dataclass(frozen=True, slots=True)
class Data:
    """Token ids to train on and to score with, and the pieces of a pass key."""

    train: NDArray[np.uint16]
    held: NDArray[np.uint16]
    says: list[int]
    stops: list[int]
    digits: list[int]


def prepare(ctx: Context, arm: Arm) -> dict[str, Any]:
    """Write the ids of an arm into the claims' data folder; what they are made of."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = _debian(arm.text_bytes) if arm.debian else _library(arm.text_bytes)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=arm.vocabulary,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(texts[:: max(len(texts) // 2000, 1)], trainer)
    held = [text for i, text in enumerate(texts) if i % 10 == 9]
    rest = [text for i, text in enumerate(texts) if i % 10 != 9]
    path = _place(ctx, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {
        "says": made.encode("\nThe pass key is ").ids,
        "stops": made.encode(".\n").ids,
        "digits": [made.encode(str(d)).ids[0] for d in range(10)],
    }
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(
        partial,
        train=_ids(made, rest),
        held=_ids(made, held),
        words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8),
    )
    partial.replace(path)
    with np.load(path) as found:
        return {
            "characters": sum(map(len, texts)),
            "train tokens": int(found["train"].size),
            "held-out tokens": int(found["held"].size),
        }


def _place(ctx: Context, arm: Arm) -> Path:
    name = "debian" if arm.debian else "library"
    return ctx.data("softplus-attention") / f"{name}-{arm.vocabulary}-{arm.text_bytes}.npz"


def prepared(ctx: Context, arm: Arm) -> bool:
    """Whether the ids of an arm lie there already, made here or brought along."""
    return _place(ctx, arm).exists()


@cache
def _load(path: Path) -> Data:
    with np.load(path) as found:
        words = json.loads(found["words"].tobytes())
        return Data(found["train"], found["held"], **words)


def load(ctx: Context, arm: Arm) -> Data:
    """The ids that `prepare` wrote."""
    return _load(_place(ctx, arm))


def _ids(tokenizer: Any, texts: list[str]) -> NDArray[np.uint16]:
    found = []
    for start in range(0, len(texts), 512):
        batch = tokenizer.encode_batch(texts[start : start + 512])
        found += [np.asarray(each.ids, dtype=np.uint16) for each in batch]
    return np.concatenate(found)


def _library(most: int) -> list[str]:
    from claims._giraffe_training import _files

    found: list[str] = []
    size = 0
    for text in _files():
        if size > most:
            break
        found.append(text)
        size += len(text)
    return found


def _debian(most: int) -> list[str]:
    """Pages of the deduplicated corpus, every so many, up to a number of characters."""
    import random

    from claims.data import corpus_distinct, describe

    path = corpus_distinct()
    share = min(1.0, 1.05 * most / describe(path)["bytes_text"])
    draw = random.Random(0)
    found: list[str] = []
    size = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            if draw.random() < share and size < most:
                found.append(json.loads(line)["text"])
                size += len(found[-1])
    draw.shuffle(found)
    return found


# ---- rows


def windows(
    ids: NDArray[np.uint16], count: int, length: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """[count, length + 1] random pieces of text."""
    starts = draw.integers(0, len(ids) - length - 1, count)
    return np.stack([ids[s : s + length + 1] for s in starts]).astype(np.int64)


def hide_key(
    row: NDArray[np.int64], data: Data, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A row with a pass key in it that is asked for at its end: ids and targets.

    Only the digits at the end are targets.
    """
    digits = [data.digits[d] for d in draw.integers(0, 10, KEY_DIGITS)]
    said = [*data.says, *digits, *data.stops]
    asked = [*data.says, *digits]
    body = row[: len(row) - len(said) - len(asked)]
    at = int(draw.integers(0, len(body) + 1))
    ids = np.concatenate([body[:at], said, body[at:], asked])
    targets = np.full(len(ids), IGNORED, dtype=np.int64)
    targets[-KEY_DIGITS:] = digits
    return ids[:-1], targets[1:]


def batches(data: Data, arm: Arm, seed: int) -> Iterator[tuple[Any, Any]]:
    """The same order of rows for every way."""
    import torch

    draw = np.random.default_rng(seed)
    rows = arm.batch_tokens // arm.window
    keyed = round(arm.keys * rows)
    for _ in range(arm.steps):
        found = windows(data.train, rows, arm.window, draw)
        ids, targets = found[:, :-1].copy(), found[:, 1:].copy()
        for i in range(keyed):
            ids[i], targets[i] = hide_key(found[i], data, draw)
        yield torch.from_numpy(ids), torch.from_numpy(targets)


# ---- training and scores


def device() -> str:
    """Where to train."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def decoder(arm: Arm, seed: int) -> Any:
    """An untrained Llama."""
    shape = Settings(
        window=arm.window, hidden=arm.width, layers=arm.layers, vocabulary=arm.vocabulary
    )
    return network(shape, seed, device())


def trained(ctx: Context, arm: Arm, way: str, seed: int) -> dict[str, Any]:
    """Train a decoder in one way and score it in all that its weights serve."""
    import contextlib

    from unspool.extension import extend

    data, model, spec = load(ctx, arm), decoder(arm, seed), TRAINED[way]
    with (
        extend(model, spec) if spec else contextlib.nullcontext(),
        ctx.progress(f"{way}, seed {seed}", total=arm.steps, unit="steps") as bar,
    ):
        loss = train(model, data, arm, seed, bar.update)
    scores = {}
    for name, (weights, scored_with) in SCORED.items():
        if weights == way and name in arm.ways:
            with extend(model, scored_with) if scored_with else contextlib.nullcontext():
                scores[name] = score(model, data, arm)
    return {"training loss": loss, "scores": scores, "arm": asdict(arm)}


def train(model: Any, data: Data, arm: Arm, seed: int, tell: Any) -> float:
    """AdamW with a warm-up and a cosine; the mean loss of the last tenth of the steps."""
    import torch

    where = model.device
    model.train()
    best = torch.optim.AdamW(
        model.parameters(), lr=arm.rate, betas=(0.9, 0.95), weight_decay=0.1,
        fused=where.type == "cuda",
    )  # fmt: skip
    warm = max(arm.steps // 20, 1)
    last: list[Any] = []
    for step, (ids, targets) in enumerate(batches(data, arm, seed)):
        cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * step / arm.steps))
        for group in best.param_groups:
            group["lr"] = arm.rate * min(1.0, (step + 1) / warm) * cosine
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            logits = model(ids.to(where, non_blocking=True), use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.to(where).flatten(), ignore_index=IGNORED
        )
        best.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        best.step()
        if step >= arm.steps - max(arm.steps // 10, 1):
            last.append(loss.detach())
        tell(step + 1)
    model.eval()
    return float(torch.stack(last).mean())


def score(model: Any, data: Data, arm: Arm) -> dict[str, dict[str, float]]:
    """By length in windows: nats a token over the last window of positions, digits copied."""
    found: dict[str, dict[str, float]] = {}
    for times in arm.times:
        length = times * arm.window
        draw = np.random.default_rng([7, length])
        rows = windows(data.held, arm.texts, length, draw)
        nats = sum(_nats(model, row, arm.window) for row in rows) / arm.texts
        found[str(times)] = {"nats": nats}
        if arm.keys:
            right = sum(_copied(model, hide_key(row, data, draw)) for row in rows)
            found[str(times)]["copied"] = right / (arm.texts * KEY_DIGITS)
    return found


def _nats(model: Any, row: NDArray[np.int64], window: int) -> float:
    import torch

    logits = _logits(model, row[:-1], window)
    wanted = torch.from_numpy(row[-window:]).to(logits.device)
    return float(torch.nn.functional.cross_entropy(logits, wanted))


def _copied(model: Any, keyed: tuple[NDArray[np.int64], NDArray[np.int64]]) -> int:
    import torch

    ids, targets = keyed
    best = _logits(model, ids, KEY_DIGITS).argmax(-1).cpu()
    return int((best == torch.from_numpy(targets[-KEY_DIGITS:])).sum())


def _logits(model: Any, ids: NDArray[np.int64], last: int) -> Any:
    import torch

    given = torch.from_numpy(ids.copy())[None].to(model.device)
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"),
    ):
        return model(given, use_cache=False, logits_to_keep=last).logits[0].float()
