"""A small decoder that reads text and looks up lines: its tokenizer, batches, training, scores.

Text is the standard library's source and the language reference of the running Python; every tenth
file is held out. Records are those of the task `giraffe/lines`, tokenised piece by piece.
"""

from __future__ import annotations

import math
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
_MOST_BYTES = 24_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes of the model and of its training."""

    window: int = 512
    hidden: int = 384
    layers: int = 6
    vocabulary: int = 4096
    batch_tokens: int = 32_768
    first_steps: int = 1700
    more_steps: int = 300
    rate: float = 1e-3
    more_rate: float = 2e-4
    """Of the continued training: lower, as in the paper, so that little is forgotten."""
    questions: int = 8
    """Asked of each record, at its end."""
    records: int = 25
    """Of each length, when scored."""
    texts: int = 16
    """Held-out windows of each length."""


class Corpus:
    """Token ids to train on and to score with."""

    def __init__(self, vocabulary: int) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        files = _files()
        held = [text for i, text in enumerate(files) if i % 10 == 9]
        rest = [text for i, text in enumerate(files) if i % 10 != 9]
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        made.train_from_iterator([*rest[::4], *_labels()[:4000]], trainer)
        self.tokenizer = made
        self.train = self._ids(rest)
        self.held = self._ids(held)
        self.labels = [found.ids for found in made.encode_batch(_labels())]
        self.widest = max(map(len, self.labels))
        self.digits = [made.encode(str(digit)).ids for digit in range(10)]
        self.pieces = {
            name: made.encode(text).ids
            for name, text in (
                ("line", "line "),
                ("is", ": REGISTER_CONTENT is <"),
                ("end", ">\n"),
                ("ask", "The REGISTER_CONTENT of line "),
                ("answer", " is <"),
            )
        }

    def _ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        found = self.tokenizer.encode_batch(list(texts))
        return np.concatenate([np.asarray(each.ids, dtype=np.int64) for each in found])

    def windows(self, which: NDArray[np.int64], count: int, length: int, draw: Any) -> Any:
        """Random windows of text and their targets, [count, length] each."""
        starts = draw.integers(0, len(which) - length - 1, count)
        ids = np.stack([which[s : s + length + 1] for s in starts])
        return ids[:, :-1], ids[:, 1:]

    def record(self, length: int, questions: int, draw: random.Random) -> tuple[list[int], ...]:
        """Ids of one record with questions, [length], and targets: the answers, nothing else."""
        pieces = self.pieces
        line = len(pieces["line"]) + len(pieces["is"]) + 5 + len(pieces["end"])
        ask = len(pieces["ask"]) + len(pieces["answer"]) + 5 + len(pieces["end"])
        widest = self.widest
        count = (length + 1 - questions * (ask + widest)) // (line + 2)
        codes = draw.sample(range(len(self.labels)), count + 8)
        ids: list[int] = []
        answers: list[list[int]] = []
        room = length + 1 - questions * (ask + widest)
        for code in codes:
            number = [i for d in str(draw.randrange(10_000, 100_000)) for i in self.digits[int(d)]]
            row = [*pieces["line"], *self.labels[code], *pieces["is"], *number, *pieces["end"]]
            if len(ids) + len(row) > room:
                break
            ids += row
            answers.append(number)
        targets = [IGNORED] * len(ids)
        # One question from each part of the record, in drawn order.
        parts = [int((k + draw.random()) * len(answers) / questions) for k in range(questions)]
        draw.shuffle(parts)
        for which in parts:
            head = [*pieces["ask"], *self.labels[codes[which]], *pieces["answer"]]
            tail = [*answers[which], pieces["end"][0]]
            rest = pieces["end"][1:]
            ids += [*head, *tail, *rest]
            targets += [IGNORED] * len(head) + tail + [IGNORED] * len(rest)
        space = length + 1 - len(ids)
        ids += [pieces["end"][-1]] * space
        targets += [IGNORED] * space
        return ids[:-1], targets[1:]


@cache
def corpus(vocabulary: int) -> Corpus:
    """The corpus, made once a run."""
    return Corpus(vocabulary)


def _labels() -> list[str]:
    from unspool.evaluation.tasks.giraffe.words import ADJECTIVES, NOUNS

    made = [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    random.Random("labels").shuffle(made)
    return made


def _files() -> list[str]:
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    size = sum(map(len, texts))
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts or size > _MOST_BYTES:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        size += len(text)
        texts.append(text)
    random.Random("files").shuffle(texts)
    return texts


def network(settings: Settings, seed: int, device: str) -> Any:
    """An untrained decoder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=round(settings.hidden * 8 / 3 / 64) * 64 or 64,
        num_hidden_layers=settings.layers,
        num_attention_heads=max(settings.hidden // 64, 1),
        num_key_value_heads=max(settings.hidden // 64, 1),
        max_position_embeddings=settings.window,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(device)


def batches(
    data: Corpus, settings: Settings, length: int, steps: int, seed: int
) -> Iterator[tuple[Any, Any]]:
    """Half text, half records, of one length."""
    import torch

    draw, lines = np.random.default_rng(seed), random.Random(f"batches:{seed}")
    rows = max(settings.batch_tokens // length, 2)
    for _ in range(steps):
        ids, targets = data.windows(data.train, rows // 2, length, draw)
        made = [data.record(length, settings.questions, lines) for _ in range(rows - rows // 2)]
        ids = np.concatenate([ids, np.asarray([row[0] for row in made])])
        targets = np.concatenate([targets, np.asarray([row[1] for row in made])])
        yield torch.from_numpy(ids), torch.from_numpy(targets)


def train(
    model: Any,
    data: Corpus,
    settings: Settings,
    *,
    length: int,
    steps: int,
    seed: int,
    rate: float,
    randomised: bool = False,
    report: Any = None,
) -> float:
    """AdamW with a warm-up and a cosine; the mean loss of the last tenth of the steps."""
    import torch

    from unspool.positions.randomised import randomised_positions

    device = model.device
    model.train()
    best = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    warm = max(steps // 20, 1)
    last: list[float] = []
    for step, (ids, targets) in enumerate(batches(data, settings, length, steps, seed)):
        share = step / steps
        scale = min(1.0, (step + 1) / warm) * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))
        for group in best.param_groups:
            group["lr"] = rate * scale
        options: dict[str, Any] = {}
        if randomised:
            drawn = randomised_positions(*ids.shape, seed=seed * 1_000_003 + step)
            options = {
                "position_ids": drawn.to(device),
                "attention_mask": torch.ones_like(ids).to(device),
            }
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(ids.to(device), use_cache=False, **options).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.to(device).flatten(), ignore_index=IGNORED
        )
        best.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        best.step()
        if step >= steps - max(steps // 10, 1):
            last.append(float(loss.detach()))
        if report is not None:
            report(step + 1)
    model.eval()
    return sum(last) / len(last)


def lines_right(
    model: Any, data: Corpus, settings: Settings, length: int, seed: int
) -> tuple[int, int]:
    """Answers that greedy decoding gets right, and questions asked."""
    import torch

    draw = random.Random(f"score:{seed}:{length}")
    right = asked = 0
    for _ in range(settings.records):
        ids, targets = data.record(length, settings.questions, draw)
        wanted = torch.tensor(targets)
        with torch.inference_mode():
            best = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
        hits = best.argmax(-1).cpu() == wanted
        here = (wanted != IGNORED).nonzero().flatten().tolist()
        per = len(here) // settings.questions
        for k in range(settings.questions):  # the five digits; what ends the line is not asked for
            asked += 1
            right += bool(hits[here[k * per : (k + 1) * per - 1]].all())
    return right, asked


def held_out_loss(model: Any, data: Corpus, settings: Settings, length: int, seed: int) -> float:
    """Nats a token over the last quarter of held-out windows."""
    import torch

    ids, targets = data.windows(
        data.held, settings.texts, length, np.random.default_rng([seed, length])
    )
    total = 0.0
    for row, wanted in zip(ids, targets, strict=True):
        with torch.inference_mode():
            logits = model(
                torch.tensor([row.tolist()], device=model.device), use_cache=False
            ).logits
        part = slice(length - length // 4, length)
        total += float(
            torch.nn.functional.cross_entropy(
                logits[0, part].float().cpu(), torch.from_numpy(wanted[part].copy())
            )
        )
    return total / settings.texts
