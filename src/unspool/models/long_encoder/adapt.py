"""Go on training an encoder on texts of a domain, by guessing masked tokens.

What: texts packed one behind the other into rows of one length, 15% of their tokens to be guessed,
AdamW with a warm-up; a run that stopped goes on with the very numbers it would have had.
Source: Devlin et al. (2019), "BERT", section 3.1 and appendix A.2, for the masking; Li et al.
(2022), "Clinical-Longformer and Clinical-BigBird", for doing it to long encoders.
Differs from the paper's scripts: rows are packed, attention weights are not dropped, and each step
draws its rows and masks from its own number, so that a resumed run equals one never stopped.
Cost: one pass forward and back over `batch * length` tokens a step; three copies of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.resume import rate_at, restore, store

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.models.long_encoder.model import LongEncoder

STATE = "adapt.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptSettings:
    """How an encoder is adapted."""

    steps: int = 1000
    """Updates in all, those of earlier runs included."""
    length: int = 4096
    """Tokens a row."""
    batch: int = 2
    """Rows a step."""
    learning_rate: float | int = 3e-5
    warmup: int = 100
    """Steps in which the learning rate rises; it then falls to 0."""
    masked: float | int = 0.15
    """Share of the tokens to be guessed."""
    weight_decay: float | int = 0.01
    attention_dropout: float | int = 0.0
    """Share of attention weights that training zeroes. Above 0 it is many times slower on a
    processor, whose fast kernels have none; the dropout of hidden states is the encoder's own."""
    seed: int = 0
    save_every: int = 100
    """Steps between two saved states."""

    def __post_init__(self) -> None:
        for name in ("steps", "length", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.masked < 1:
            raise ConfigError(f"masked must lie between 0 and 1, got {self.masked}.")
        if not 0 <= self.attention_dropout < 1:
            raise ConfigError(
                f"attention_dropout must lie between 0 and 1, got {self.attention_dropout}."
            )
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}.")


class Adapted(NamedTuple):
    """What a run of `adapt` did."""

    steps: int
    """Updates that the model has had."""
    resumed_at: int
    """Updates that it already had."""
    losses: tuple[float, ...]
    """Mean loss of each step of this run, nats a masked token."""
    rows: int
    """Rows that the texts make."""
    tokens: int
    """Tokens of the texts."""


def pack(texts: Iterable[str], tokenizer: Any, length: int) -> tuple[Tensor, int]:
    """Texts one behind the other as rows [rows, length], and their tokens without special ones.

    Each row begins with the tokenizer's first special token and each text ends with its separator;
    the last row is padded. Nothing is dropped.
    """
    import torch

    first, between, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    if first is None or between is None or pad is None:
        raise ConfigError("The tokenizer needs a cls, a sep and a pad token.")
    stream: list[int] = []
    tokens = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids:
            tokens += len(ids)
            stream += [*ids, between]
    if not stream:
        raise InputError("There is no text to adapt to.")
    room = length - 1
    rows = torch.full((-(-len(stream) // room), length), pad)
    rows[:, 0] = first
    for number in range(rows.shape[0]):
        part = torch.tensor(stream[number * room : (number + 1) * room])
        rows[number, 1 : 1 + len(part)] = part
    return rows, tokens


def mask_tokens(
    rows: Tensor, *, share: float | int, special: Tensor, mask_id: int, vocab_size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Rows with some tokens hidden, and which are to be guessed (BERT, appendix A.2).

    Args:
        rows: [B, T] ids.
        share: Of the ordinary tokens.
        special: Ids that are never chosen.
        mask_id: Stands for 8 in 10 chosen ones; 1 in 10 becomes another id, 1 in 10 stays.
        vocab_size: Ids to draw from.
        seed: Same seed, same masks.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows.shape, generator=generator) < share
    chosen &= ~torch.isin(rows, special)
    if not bool(chosen.any()):  # a row of few words: one of them, so that there is a loss
        ordinary = (~torch.isin(rows, special)).nonzero()
        if len(ordinary):
            chosen[tuple(ordinary[0])] = True
    lot = torch.rand(rows.shape, generator=generator)
    other = torch.randint(vocab_size, rows.shape, generator=generator)
    hidden = rows.masked_fill(chosen & (lot < 0.8), mask_id)
    return torch.where(chosen & (lot >= 0.9), other, hidden), chosen


def adapt(
    model: LongEncoder,
    tokenizer: Any,
    texts: Iterable[str],
    out: Path,
    settings: AdaptSettings | None = None,
    *,
    device: str | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Adapted:
    """Train on masked tokens, saving as it goes; the same call continues a run that stopped.

    Args:
        model: Is changed in place.
        tokenizer: The model's.
        texts: Any lengths.
        out: Folder of the state; the finished model is for the caller to save.
        settings: How.
        device: "cpu" or "cuda"; None: cuda where there is one.
        on_step: Told the step and its loss.

    Raises:
        ConfigError: Rows longer than the model reads, or a tokenizer without a mask.
        RunConflict: `out` holds the state of a run with other settings or texts.
    """
    import torch
    import torch.nn.functional as F

    settings = settings or AdaptSettings()
    if settings.length > model.config.max_length:
        raise ConfigError(
            f"length {settings.length:,} is more than the {model.config.max_length:,} tokens that "
            "the encoder reads."
        )
    if tokenizer.mask_token_id is None:
        raise ConfigError("The tokenizer has no mask token.")
    rows, tokens = pack(texts, tokenizer, settings.length)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    model.drop_attention(settings.attention_dropout)
    named = {name: p for name, p in model.named_parameters() if not name.startswith("pooler.")}
    optimizer = torch.optim.AdamW(
        named.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    key = _key(settings, rows)
    out.mkdir(parents=True, exist_ok=True)
    start = restore(out / STATE, model, named, optimizer, key, settings.steps)
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    losses: list[float] = []
    for step in range(start, settings.steps):
        picker = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        at = torch.randint(rows.shape[0], (settings.batch,), generator=picker)
        hidden, chosen = mask_tokens(
            rows[at],
            share=settings.masked,
            special=special,
            mask_id=tokenizer.mask_token_id,
            vocab_size=model.config.vocab_size,
            seed=settings.seed * 1_000_003 + step,
        )
        torch.manual_seed(settings.seed * 1_000_003 + step)  # of dropout
        labels = rows[at][chosen].to(device)
        valid = (rows[at] != tokenizer.pad_token_id).to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            states = model(hidden.to(device), valid).last_hidden_state
            scores = model.masked_scores(states[chosen.to(device)])
        loss = F.cross_entropy(scores.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_at(step, settings.steps, settings.warmup)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if on_step is not None:
            on_step(step + 1, losses[-1])
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            kept = named if step + 1 < settings.steps else {}
            store(out / STATE, model, kept, optimizer, {**key, "step": str(step + 1)})
    model.eval()
    return Adapted(settings.steps, start, tuple(losses), rows.shape[0], tokens)


def _key(settings: AdaptSettings, rows: Tensor) -> dict[str, str]:
    import hashlib

    kept = {name: value for name, value in asdict(settings).items() if name != "save_every"}
    digest = hashlib.sha256(rows.numpy().tobytes()).hexdigest()
    return {"settings": json.dumps(kept, sort_keys=True), "texts": digest}
