"""InfiniRetri: keep the sentences that the question attends to, chunk after chunk.

What: reads a text in chunks; after each, one layer's attention from the question to the text says
which tokens matter; the sentences that hold them stay in front of the next chunk, and at the end
the model answers from what stayed.
Source: Ye et al. (2025), "Infinite Retrieval: Attention Enhanced LLMs in Long-Context Processing",
section 3; the released package infini-retri 0.0.3 (its scoring method 3).
Differs from the released code: tokens of the whole text are used throughout, so nothing is matched
or encoded anew; sentences are those of `unspool.corpus.split` (the released rules divide at every
full stop, in numbers too); `max_kept` bounds what is kept, which 300 long sentences would not;
`layer="auto"` is ours; greedy by default, where the package samples at 0.5.
Cost: one pass of (kept + chunk + question) tokens a chunk, up to the layer that is looked at; no
cache. Memory of the scores: question rows x tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.reading.answering import Framed, Kept, PromptReader
from unspool.reading.long_text import LongText
from unspool.reading.reader import Reader, begins, encode, frame
from unspool.reading.sentences import Sentence, token_sentences

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts

_NO_WINDOW = 8192
"""Tokens to plan with where a model states no window."""


@dataclass(frozen=True, kw_only=True)
class InfiniRetri(Method):
    """Questions about a text of any length whose evidence is a few sentences."""

    name: ClassVar[str] = "infini-retri"
    family: ClassVar[str] = "prompt"
    slots: ClassVar[tuple[Slot, ...]] = ("prompt",)
    recalls: ClassVar[str] = "the sentences that the question attends to, in competition"
    costs: ClassVar[str] = "reads the text once per question, and what is kept with every chunk"
    system: ClassVar[str] = "infini-retri"

    chunk: int = 1024
    """Tokens of a chunk."""
    top_k: int = 300
    """Best tokens of a round; the sentences that hold one are kept."""
    span: int = 8
    """Tokens over which attention is summed; about the length of the expected answer."""
    layer: int | Literal["auto"] = -1
    """Layer whose attention is used; auto: found with facts planted in the text."""
    max_kept: int | None = None
    """Most tokens kept; none: half the window, or less where the prompt needs it."""
    row_weights: Literal["question"] | None = "question"
    """Weigh each row of the question by its attention to the question; none: all alike."""

    def __post_init__(self) -> None:
        for key in ("chunk", "top_k", "span"):
            if getattr(self, key) < 1:
                raise ConfigError(f"infini-retri needs {key} >= 1, got {key}={getattr(self, key)}.")
        if self.max_kept is not None and self.max_kept < 1:
            raise ConfigError(f"infini-retri needs max_kept >= 1, got max_kept={self.max_kept}.")

    def prompt(self) -> str:
        return "infini-retri"

    def capacity(self, facts: ModelFacts) -> int | None:
        return None


def smooth(scores: Tensor, span: int) -> Tensor:
    """Sums over `span` neighbours, as numpy.convolve(row, ones(span), mode="same") has them.

    Args:
        scores: [..., n].
        span: An even one reaches one place further to the left; at most n is used.
    """
    import torch

    length = scores.shape[-1]
    span = min(span, length)
    if span <= 1:
        return scores
    total = torch.nn.functional.pad(scores.double().cumsum(-1), (1, 0))
    place = torch.arange(length, device=scores.device) + (span - 1) // 2
    last = (place + 1).clamp(max=length)
    first = (place + 1 - span).clamp(min=0)
    return (total[..., last] - total[..., first]).to(scores.dtype)


def row_weights(rows: Tensor, text_end: int) -> Tensor:
    """Attention of each question row to the question itself: [R].

    Args:
        rows: [R, n] of one layer, summed over heads.
        text_end: The column that the question begins at.
    """
    return rows[:, text_end:].sum(-1)


def token_scores(rows: Tensor, weights: Tensor | None, span: int) -> Tensor:
    """How much the question needs each token: sum over rows of w^2 times smoothed attention.

    Args:
        rows: [R, n], the columns of the text.
        weights: [R], or None for 1.
        span: Of the smoothing.

    Returns:
        [n] in float64.
    """
    rows = rows.double()
    summed = rows.sum(0) if weights is None else (weights.double() ** 2) @ rows
    return smooth(summed, span)  # smoothing is linear: of the sum, not of each row


def chunks_of(sentences: Sequence[Sentence], chunk: int) -> list[list[int]]:
    """Numbers of the sentences of each chunk of at most `chunk` tokens.

    A last chunk of less than half shares with the one before it, so that both are about equal.
    """
    groups: list[list[int]] = []
    held = 0
    for number, sentence in enumerate(sentences):
        if not groups or held + sentence.tokens > chunk:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += sentence.tokens
    if len(groups) > 1 and held < chunk / 2:
        both = [*groups[-2], *groups[-1]]
        half = sum(sentences[number].tokens for number in both) / 2
        taken, cut = 0, 0
        while cut < len(both) - 1 and taken + sentences[both[cut]].tokens <= half:
            taken += sentences[both[cut]].tokens
            cut += 1
        cut = max(1, cut)
        rest = sum(sentences[number].tokens for number in both[cut:])
        if rest <= chunk:
            groups[-2:] = [both[:cut], both[cut:]]
    return groups


def best_sentences(
    scores: Tensor, sizes: Sequence[int], top_k: int, max_kept: int
) -> list[tuple[int, float]]:
    """(place, score) of the sentences that hold one of the best tokens, in order.

    Args:
        scores: [n] of the tokens of the sentences, one after the other.
        sizes: Tokens of each sentence.
        top_k: Best tokens; of equals, the earlier.
        max_kept: The lowest are dropped until no more tokens than this are left.
    """
    import torch

    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))
    best = torch.sort(scores.cpu(), descending=True, stable=True).indices[:top_k]
    highest: dict[int, float] = {}
    for place, token in zip(owner[best].tolist(), best.tolist(), strict=True):
        highest.setdefault(place, float(scores[token]))  # the first that is met is its highest
    ranked = list(highest)
    held = sum(sizes[place] for place in ranked)
    while held > max_kept and len(ranked) > 1:
        held -= sizes[ranked.pop()]
    return [(place, highest[place]) for place in sorted(ranked)]


class InfiniRetriReader(PromptReader):
    """`ask`, `select` and `reduce` of an extension with InfiniRetri."""

    @classmethod
    def keep(cls, reader: Reader, framed: Framed) -> list[Kept]:
        """The sentences that are left, with the score of their best token."""
        _, kept = _kept(reader, framed)
        return [Kept(*sentence, score) for sentence, score in kept]


def sentences_of_ids(tokenizer: Any, ids: Sequence[int], most: int) -> list[Sentence]:
    """Sentences of a text of which only token ids are known."""
    # Token by token: a character of several tokens is not whole, but where sentences end is all
    # that is read of this text.
    pieces = tokenizer.batch_decode([[i] for i in ids])
    offsets, at = [], 0
    for piece in pieces:
        offsets.append((at, at + len(piece)))
        at += len(piece)
    joined = "".join(pieces)
    if not joined.strip():
        return [
            Sentence(first, min(first + most, len(ids)), 0, 0) for first in range(0, len(ids), most)
        ]
    return token_sentences(LongText(joined), offsets, most)


def keep_sentences(
    reader: Reader, ids: Sequence[int], question: str, *, written: int = 64, tell: Any = None
) -> tuple[int, list[tuple[Sentence, float]]]:
    """The layer that was used and the kept sentences of a text of token ids, with their scores."""
    before, after = frame(reader.tokenizer, question)
    head = begins(reader.tokenizer, encode(reader.tokenizer, before))
    tail = encode(reader.tokenizer, after)
    return _kept(reader, Framed(head, list(ids), tail, written, tell=tell))


def _kept(reader: Reader, framed: Framed) -> tuple[int, list[tuple[Sentence, float]]]:
    """The layer that was used and the kept sentences, with their scores."""
    method = reader.extension.prompt_method
    assert isinstance(method, InfiniRetri)  # the registry led here from it
    max_kept = _room(reader, method, framed)
    layer = _layer(reader, method, framed.body)
    most = min(method.chunk, max_kept)
    if framed.text is None:
        sentences = sentences_of_ids(reader.tokenizer, framed.body, most)
    else:
        sentences = token_sentences(framed.text, framed.offsets, most)
    return layer, _keep(reader, method, framed, sentences, layer, max_kept)


def _room(reader: Reader, method: InfiniRetri, framed: Framed) -> int:
    """Most tokens that are kept."""
    window = reader.facts.window or _NO_WINDOW
    fixed = len(framed.head) + len(framed.tail)
    room = window - fixed - max(method.chunk, framed.written)
    wanted = method.max_kept or min(window // 2, max(room, 1))
    if room < wanted:
        raise ConfigError(
            f"infini-retri: {wanted:,} kept tokens, {fixed:,} of the prompt and the larger of a "
            f"chunk ({method.chunk:,}) and the answer ({framed.written:,}) are more than the "
            f"window, {window:,}. Take a smaller chunk or max_kept, or ask for a shorter answer."
        )
    return wanted


def _layer(reader: Reader, method: InfiniRetri, body: Sequence[int]) -> int:
    if method.layer == "auto":
        from unspool.reading.retrieval_layer import retrieval_layer

        return retrieval_layer(reader, method, body)
    return reader.layer_number(method.layer)


def _keep(
    reader: Reader,
    method: InfiniRetri,
    framed: Framed,
    sentences: Sequence[Sentence],
    layer: int,
    max_kept: int,
) -> list[tuple[Sentence, float]]:
    """The sentences that are left after the last chunk, with their scores."""
    head, ids, tail = framed.head, framed.body, framed.tail
    weights: Tensor | None = None
    kept: list[tuple[int, float]] = []
    for group in chunks_of(sentences, method.chunk):
        here = [*(number for number, _ in kept), *group]
        words = [i for n in here for i in ids[sentences[n].first : sentences[n].last]]
        end = len(head) + len(words)
        rows = reader.rows([*head, *words, *tail], layer, end)
        if weights is None and method.row_weights == "question":
            weights = row_weights(rows, end)
        scores = token_scores(rows[:, len(head) : end], weights, method.span)
        sizes = [sentences[n].tokens for n in here]
        found = best_sentences(scores, sizes, method.top_k, max_kept)
        kept = [(here[place], score) for place, score in found]
        if framed.tell is not None:
            framed.tell(sentences[group[-1]].last, len(ids))
    return [(sentences[number], score) for number, score in kept]
