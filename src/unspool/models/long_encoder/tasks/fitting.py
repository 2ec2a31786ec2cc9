"""Train a long encoder on a task; a run that stopped goes on.

What: cross-entropy (binary for texts with several classes) over labelled records, AdamW with a
warm-up, every record once an epoch in an order drawn anew.
Source: Li et al. (2022), "Clinical-Longformer and Clinical-BigBird", fine-tuning: 4 epochs, batches
of 4, 3e-5. Sub-words: the first token of a word carries its tag.
Differs from the released scripts: a record longer than the encoder gives all its windows to one
step; attention weights are not dropped; the order and dropout of a step hang on its number only,
so that a resumed run equals one that was never stopped.
Cost: a pass forward and back over the windows of `batch` records a step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.resume import rate_at, restore, store
from unspool.models.long_encoder.tasks.examples import OUTSIDE, Example, TaskName
from unspool.models.long_encoder.tasks.windows import Encoded, Reading, encode, reading_of
from unspool.types import Overflow

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.models.long_encoder.model import LongEncoder
    from unspool.models.long_encoder.tasks.heads import TaskModel

STATE = "fit.safetensors"
_NO_LABEL = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSettings:
    """How a task is trained."""

    epochs: int = 4
    batch: int = 4
    """Records a step."""
    learning_rate: float | int = 3e-5
    warmup: float | int = 0.1
    """Share of the steps in which the learning rate rises; it then falls to 0."""
    weight_decay: float | int = 0.01
    length: int | None = None
    """Tokens of a window, special ones included; None: what the encoder reads."""
    overlap: int = 128
    """Tokens that two windows of a record share."""
    on_overflow: Overflow = "window"
    """What happens to a record longer than that: refused, cut and counted, or windowed."""
    attention_dropout: float | int = 0.0
    """Share of attention weights that training zeroes. Above 0 it is many times slower on a
    processor, whose fast kernels have none; the dropout of hidden states is the encoder's own."""
    seed: int = 0
    save_every: int = 100
    """Steps between two saved states."""
    checkpointing: bool = False
    """Compute activations twice and keep fewer: slower, and longer records fit."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.attention_dropout < 1:
            raise ConfigError(
                f"attention_dropout must lie between 0 and 1, got {self.attention_dropout}."
            )
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup is a share of the steps, got {self.warmup}.")
        if self.overlap < 0:
            raise ConfigError(f"overlap must be at least 0, got {self.overlap}.")


class Fitted(NamedTuple):
    """What a training run did."""

    model: TaskModel
    steps: int
    resumed_at: int
    losses: tuple[float, ...]
    """Of each step of this run."""
    reading: Reading
    unreachable: int
    """qa: records whose answers all lie outside any one window: they train nothing."""


def labels_of(task: TaskName, examples: Sequence[Example]) -> tuple[tuple[str, ...], bool]:
    """The labels of some records, and whether a record may have any number of them.

    Raises:
        InputError: A record has no label.
    """
    for example in examples:
        known = example.answers if task == "qa" else example.labels
        if known is None:
            raise InputError(f"Record {example.id!r} has no label, and one is needed here.")
    if task == "qa":
        return (), False
    found = {label for example in examples for label in example.labels or ()}
    if task == "ner":
        return (OUTSIDE, *sorted(found - {OUTSIDE})), False
    several = task == "classify" and any(len(e.labels or ()) != 1 for e in examples)
    return tuple(sorted(found)), several


def check_length(encoder: LongEncoder, length: int | None) -> int:
    """Tokens of a window, or an error if the encoder reads fewer."""
    most = encoder.config.max_length
    if length is not None and not 8 <= length <= most:
        raise ConfigError(f"length must lie between 8 and the encoder's {most:,}, got {length:,}.")
    return length or most


def fit(
    task: TaskName,
    encoder: LongEncoder,
    tokenizer: Any,
    examples: Sequence[Example],
    out: Path,
    settings: FitSettings | None = None,
    *,
    label_fields: Sequence[str] = (),
    device: str | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Fitted:
    """Train a head and its encoder, saving as it goes; the same call continues a stopped run.

    Args:
        task: ner, qa, classify or nli.
        encoder: Is changed in place.
        tokenizer: The encoder's.
        examples: Labelled.
        out: Folder of the state; the finished model is for the caller to save.
        settings: How.
        label_fields: classify: classes that texts have any number of, in this order.
        device: "cpu" or "cuda"; None: cuda where there is one.
        on_step: Told the step, how many there are, and its loss.

    Raises:
        InputError: A record has no label.
        RunConflict: `out` holds a run with other settings or records.
    """
    import torch

    from unspool.models.long_encoder.tasks.heads import TaskModel

    settings = settings or FitSettings()
    labels, several = labels_of(task, examples)
    if label_fields:
        labels, several = tuple(label_fields), True
    null = task == "qa" and any(not example.answers for example in examples)
    length = check_length(encoder, settings.length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TaskModel(encoder, tokenizer, task, labels, several=several, null=null)
    encoded = [
        encode(
            task,
            example,
            tokenizer,
            length=length,
            overlap=settings.overlap,
            on_overflow=settings.on_overflow,
            segments=model.segments,
        )
        for example in examples
    ]
    targets = [_targets(model, *pair) for pair in zip(examples, encoded, strict=True)]
    lost = sum(
        bool(example.answers) and all(spot == (0, 0) for spot in target)
        for example, target in zip(examples, targets, strict=True)
        if task == "qa"
    )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    encoder.drop_attention(settings.attention_dropout)
    encoder.gradient_checkpointing = settings.checkpointing
    unused = ("encoder.pooler.", "encoder.lm_head.")
    named = {name: p for name, p in model.named_parameters() if not name.startswith(unused)}
    optimizer = torch.optim.AdamW(
        named.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    each = -(-len(examples) // settings.batch)
    steps = each * settings.epochs
    key = _key(settings, examples, labels, encoder)
    out.mkdir(parents=True, exist_ok=True)
    start = restore(out / STATE, model, named, optimizer, key, steps)
    losses: list[float] = []
    for step in range(start, steps):
        epoch, number = divmod(step, each)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(examples), generator=generator).tolist()
        at = order[number * settings.batch : (number + 1) * settings.batch]
        torch.manual_seed(settings.seed * 1_000_003 + step)  # of dropout
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            scores = model.scores_of([w for i in at for w in encoded[i].windows], device)
        loss = _loss(model, scores.float(), [encoded[i] for i in at], [targets[i] for i in at])
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        for group in optimizer.param_groups:
            rate = rate_at(step, steps, round(settings.warmup * steps))
            group["lr"] = settings.learning_rate * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if on_step is not None:
            on_step(step + 1, steps, losses[-1])
        if (step + 1) % settings.save_every == 0 or step + 1 == steps:
            kept = named if step + 1 < steps else {}
            store(out / STATE, model, kept, optimizer, {**key, "step": str(step + 1)})
    encoder.gradient_checkpointing = False
    return Fitted(model.eval(), steps, start, tuple(losses), reading_of(encoded), lost)


def _targets(model: TaskModel, example: Example, encoded: Encoded) -> list[Any]:
    """What the head should say: a list of tags a window, a pair a window, or classes."""
    if model.task == "qa":
        return [_spot(example, encoded, number) for number in range(len(encoded.windows))]
    known = example.labels or ()
    for label in known:
        if label not in model.labels:
            raise InputError(
                f"Record {example.id!r} has the label {label!r}; there are "
                f"{', '.join(model.labels)}."
            )
    if model.task != "ner":
        return [model.labels.index(label) for label in known]
    out = []
    for window in encoded.windows:
        row = [_NO_LABEL] * len(window.ids)
        for token in range(*window.own):
            word = encoded.words[token]
            if token == 0 or encoded.words[token - 1] != word:
                row[window.first + token - window.start] = model.labels.index(known[word])
        out.append(row)
    return out


def _spot(example: Example, encoded: Encoded, number: int) -> tuple[int, int]:
    """First and last position of an answer in a window; (0, 0), the first token, if it has none."""
    window = encoded.windows[number]
    for answer in example.answers or ():
        inside = [
            token
            for token, (first, last) in enumerate(encoded.offsets)
            if first < answer.end and last > answer.start
        ]
        if inside and window.start <= inside[0] and inside[-1] < window.stop:
            shift = window.first - window.start
            return inside[0] + shift, inside[-1] + shift
    return 0, 0


def _loss(
    model: TaskModel, scores: Tensor, encoded: Sequence[Encoded], targets: Sequence[list[Any]]
) -> Tensor:
    import torch
    import torch.nn.functional as F

    if model.task == "ner":
        flat = [row for each in targets for row in each]
        padded = [row + [_NO_LABEL] * (scores.shape[1] - len(row)) for row in flat]
        wanted = torch.tensor(padded, device=scores.device)
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=_NO_LABEL)
    if model.task == "qa":
        lengths = torch.tensor([len(w.ids) for each in encoded for w in each.windows])
        past = torch.arange(scores.shape[1])[None] >= lengths[:, None]
        open_ = scores.masked_fill(past.to(scores.device)[..., None], -1e9)
        spots = torch.tensor([spot for each in targets for spot in each], device=scores.device)
        begins, ends = (F.cross_entropy(open_[..., i], spots[:, i]) for i in (0, 1))
        return (begins + ends) / 2
    pooled = pool(scores, [len(each.windows) for each in encoded])
    if model.several:
        wanted = torch.zeros_like(pooled)
        for row, each in enumerate(targets):
            wanted[row, each] = 1
        return F.binary_cross_entropy_with_logits(pooled, wanted)
    return F.cross_entropy(pooled, torch.tensor([t[0] for t in targets], device=pooled.device))


def pool(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Scores of records, the means of their windows' scores."""
    import torch

    return torch.stack([part.mean(0) for part in torch.split(scores, list(counts))])


def _key(
    settings: FitSettings,
    examples: Sequence[Example],
    labels: Sequence[str],
    encoder: LongEncoder,
) -> dict[str, str]:
    kept = {n: v for n, v in asdict(settings).items() if n not in ("save_every", "checkpointing")}
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode("utf-8", "surrogatepass"))
    facts = {"labels": list(labels), "encoder": encoder.config.to_hf()}
    return {
        "settings": json.dumps(kept, sort_keys=True),
        "records": digest.hexdigest(),
        "labels or encoder": json.dumps(facts, sort_keys=True),
    }
