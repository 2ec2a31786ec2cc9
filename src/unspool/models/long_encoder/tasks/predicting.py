"""Tags, answers and classes of records, merged over windows.

What: each token's tag from the window that decides it; the best span of all windows, or none; the
mean of the windows' scores of classes. What is quoted is given by UTF-8 byte offsets.
Source: the answer is the span with the highest sum of scores of beginning and end, among the 20
best of each (Devlin et al., 2019, "BERT", section 4.2); no answer if the first token's sum is
higher (section 4.3), the lowest over the windows.
Differs from the scripts of transformers: scores of spans are compared over windows as they are.
Cost: one pass over the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError
from unspool.models.long_encoder.tasks.examples import OUTSIDE, Example, to_bytes
from unspool.models.long_encoder.tasks.fitting import check_length, pool
from unspool.models.long_encoder.tasks.windows import Encoded, Reading, Window, encode, reading_of
from unspool.types import Overflow, Span

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.models.long_encoder.tasks.heads import TaskModel

_BEST = 20


@dataclass(frozen=True, slots=True)
class Entity:
    """A piece of a record and what it is."""

    label: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one record."""

    id: str
    labels: tuple[str, ...] = ()
    """ner: a tag a word. classify and nli: the classes, the likeliest first."""
    probabilities: tuple[tuple[str, float], ...] = ()
    """classify and nli: of every class."""
    entities: tuple[Entity, ...] = ()
    """ner."""
    answer: Span | None = None
    """qa; None: the record has no answer."""
    score: float | None = None
    """qa: sum of scores of the best span, less that of no answer."""
    windows: int = 1
    dropped_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without what the task does not have."""
        out: dict[str, Any] = {"id": self.id}
        if self.score is not None:
            out["answer"] = None if self.answer is None else self.answer.to_json()
            out["score"] = self.score
        elif self.probabilities:
            out["labels"] = list(self.labels)
            out["probabilities"] = dict(self.probabilities)
        else:
            out["entities"] = [{"label": e.label, **e.span.to_json()} for e in self.entities]
            out["tags"] = list(self.labels)
        return out | {"windows": self.windows, "dropped_tokens": self.dropped_tokens}


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions and what was read for them."""

    predictions: tuple[Prediction, ...]
    reading: Reading


def predict(
    model: TaskModel,
    examples: Sequence[Example],
    *,
    length: int | None = None,
    overlap: int = 128,
    on_overflow: Overflow = "window",
    batch: int = 4,
    longest_answer: int = 30,
    threshold: float | int = 0.5,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """What a model says of some records.

    Args:
        model: Trained.
        examples: With or without labels, which are not looked at.
        length: Tokens of a window; None: what the encoder reads.
        overlap: Tokens that two windows of a record share.
        on_overflow: What happens to a record longer than a window: refused, cut and counted, or
            windowed.
        batch: Windows at once.
        longest_answer: qa: tokens.
        threshold: Of the probability, where a text may have several classes.
        device: "cpu" or "cuda"; None: cuda where there is one.
        on_progress: Told how many records are done, and of how many.

    Raises:
        OverflowPolicyError: A record is too long, and on_overflow is "error".
    """

    read: list[Encoded] = []
    out: list[Prediction] = []
    for made, encoded in predictions(
        model,
        examples,
        length=length,
        overlap=overlap,
        on_overflow=on_overflow,
        batch=batch,
        longest_answer=longest_answer,
        threshold=threshold,
        device=device,
    ):
        out.append(made)
        read.append(encoded)
        if on_progress is not None:
            on_progress(len(out), len(examples))
    return Predicted(tuple(out), reading_of(read))


def predictions(
    model: TaskModel,
    examples: Iterable[Example],
    *,
    length: int | None = None,
    overlap: int = 128,
    on_overflow: Overflow = "window",
    batch: int = 4,
    longest_answer: int = 30,
    threshold: float | int = 0.5,
    device: str | None = None,
) -> Iterator[tuple[Prediction, Encoded]]:
    """One prediction after the other, in order, and how its record was read. See `predict`."""
    import torch

    for name, value in (("batch", batch), ("longest_answer", longest_answer)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}.")
    room = check_length(model.encoder, length)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()

    def judged(group: list[tuple[Example, Encoded]]) -> Iterator[tuple[Prediction, Encoded]]:
        scores = _scores(model, [w for _, encoded in group for w in encoded.windows], batch, device)
        for example, encoded in group:
            own = [next(scores) for _ in encoded.windows]
            if model.task == "ner":
                made = _tags(model, example, encoded, own)
            elif model.task == "qa":
                made = _answer(model, example, encoded, own, longest_answer)
            else:
                made = _classes(model, example, encoded, own, threshold)
            yield made, encoded

    group: list[tuple[Example, Encoded]] = []
    for example in examples:
        encoded = encode(
            model.task,
            example,
            model.tokenizer,
            length=room,
            overlap=overlap,
            on_overflow=on_overflow,
            segments=model.segments,
        )
        group.append((example, encoded))
        if sum(len(each.windows) for _, each in group) >= batch:
            yield from judged(group)
            group = []
    yield from judged(group)


def _scores(
    model: TaskModel, windows: Sequence[Window], batch: int, device: str
) -> Iterator[Tensor]:
    """Scores of each window, without its padding."""
    import torch

    for start in range(0, len(windows), batch):
        some = list(windows[start : start + batch])
        with torch.inference_mode():
            scores = model.scores_of(some, device).float().cpu()
        for row, window in zip(scores, some, strict=True):
            yield row[: len(window.ids)] if row.ndim == 2 else row


def _tags(
    model: TaskModel, example: Example, encoded: Encoded, scores: Sequence[Tensor]
) -> Prediction:
    tags = [OUTSIDE] * len(example.words)
    for window, rows in zip(encoded.windows, scores, strict=True):
        best = rows.argmax(-1).tolist()
        for token in range(*window.own):
            word = encoded.words[token]
            if token == 0 or encoded.words[token - 1] != word:
                tags[word] = model.labels[best[window.first + token - window.start]]
    found = entities_of(tags)
    spans = to_bytes(example.text, [(a, b) for a, b in _characters(example, found)])
    entities = [
        Entity(label, Span(example.id, *span, example.text[a:b]))
        for (label, _, _), (a, b), span in zip(
            found, _characters(example, found), spans, strict=True
        )
    ]
    return Prediction(
        id=example.id,
        labels=tuple(tags),
        entities=tuple(entities),
        windows=len(encoded.windows),
        dropped_tokens=encoded.dropped,
    )


def _characters(example: Example, found: Sequence[tuple[str, int, int]]) -> list[tuple[int, int]]:
    return [(example.words[a][0], example.words[b][1]) for _, a, b in found]


def entities_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities in tags B-, I- and O: label, first and last word, as CoNLL's own script has them.

    A tag I- that continues nothing of its label begins an entity; a tag without a dash is a label
    of its own.
    """
    found: list[tuple[str, int, int]] = []
    before = ""  # label of the entity that is open, if one is
    for number, tag in enumerate(tags):
        prefix, dash, label = tag.partition("-")
        if not dash:
            prefix, label = ("O", "") if tag == OUTSIDE else ("I", tag)
        if prefix == "O":
            before = ""
        elif prefix == "B" or label != before:
            found.append((label, number, number))
            before = label
        else:
            found[-1] = (label, found[-1][1], number)
    return found


def _classes(
    model: TaskModel,
    example: Example,
    encoded: Encoded,
    scores: Sequence[Tensor],
    threshold: float | int,
) -> Prediction:
    import torch

    pooled = pool(torch.stack(list(scores)), [len(scores)])[0]
    shares = (pooled.sigmoid() if model.several else pooled.softmax(-1)).tolist()
    order = sorted(range(len(shares)), key=lambda i: -shares[i])
    kept = [i for i in order if shares[i] >= threshold] if model.several else order[:1]
    return Prediction(
        id=example.id,
        labels=tuple(model.labels[i] for i in kept),
        probabilities=tuple(zip(model.labels, shares, strict=True)),
        windows=len(encoded.windows),
        dropped_tokens=encoded.dropped,
    )


def _answer(
    model: TaskModel,
    example: Example,
    encoded: Encoded,
    scores: Sequence[Tensor],
    longest: int,
) -> Prediction:
    best: tuple[float, int, int] | None = None
    null = float("inf")
    for window, rows in zip(encoded.windows, scores, strict=True):
        null = min(null, float(rows[0].sum()))
        inner = rows[window.first : window.first + window.stop - window.start]
        count = min(_BEST, len(inner))
        starts, ends = (inner[:, side].topk(count).indices.tolist() for side in (0, 1))
        for start in starts:
            for end in ends:
                if start <= end < start + longest:
                    score = float(inner[start, 0] + inner[end, 1])
                    if best is None or score > best[0]:
                        best = score, start + window.start, end + window.start
    span = None
    score = float("-inf") if best is None else best[0] - null
    if best is not None and not (model.null and score <= 0):
        a, b = encoded.offsets[best[1]][0], encoded.offsets[best[2]][1]
        span = Span(example.id, *to_bytes(example.text, [(a, b)])[0], example.text[a:b])
    return Prediction(
        id=example.id,
        answer=span,
        score=max(score, -1e9),
        windows=len(encoded.windows),
        dropped_tokens=encoded.dropped,
    )
