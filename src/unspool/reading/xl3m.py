"""XL3M: read every segment with the question, keep those that leave the model certain.

What: a text is cut into overlapping segments; each is read on its own, followed by the question;
segments after which the next words are predicted with low entropy are kept, in order, and the
model answers from them.
Source: Wang et al. (2024), "XL3M: A Training-free Framework for LLM Length Extension Based on
Segment-wise Inference", sections 3.2 and 3.3 (no code was released).
Differs from the paper: it leaves open whether entropy is averaged over the question; here
`entropy-mean` is (the default, measured better on a small model), `entropy-last` is the
distribution of the first answer token, `nll` how well the segment predicts the question.
`calibrate` subtracts the score of the question alone, and is ours. The head of the prompt is read
again with every segment.
Cost: n / (segment - overlap) passes over (head + segment + question) tokens, nothing kept of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.reading.answering import Framed, Kept, PromptReader
from unspool.reading.reader import Reader

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts

Score = Literal["entropy-mean", "entropy-last", "nll"]


@dataclass(frozen=True, kw_only=True)
class XL3M(Method):
    """Questions about a text of any length whose evidence fits in a few segments."""

    name: ClassVar[str] = "xl3m"
    family: ClassVar[str] = "prompt"
    slots: ClassVar[tuple[Slot, ...]] = ("prompt",)
    recalls: ClassVar[str] = "the segments that make the model certain of what follows the question"
    costs: ClassVar[str] = "reads the text once, a little more than once with overlap, per question"
    system: ClassVar[str] = "xl3m"

    segment: int = 512
    """Tokens of a segment."""
    overlap: int = 64
    """Tokens that neighbours share."""
    keep: int | None = None
    """Segments that are kept; none: what fits the window, at most 8."""
    question_tokens: int = 128
    """Last tokens of the prompt that entropy is averaged over."""
    score: Score = "entropy-mean"
    """Entropy after all tokens of the question, after its last, or the loss of the question."""
    calibrate: bool = False
    """Subtract the score of the question alone."""
    keep_ends: bool = False
    """Keep the first and the last segment whatever their score."""
    batch_tokens: int = 4096
    """Tokens that one pass reads."""

    def __post_init__(self) -> None:
        if self.segment < 1 or not 0 <= self.overlap < self.segment:
            raise ConfigError(
                f"xl3m needs 0 <= overlap < segment, got segment={self.segment} and "
                f"overlap={self.overlap}."
            )
        if self.keep is not None and self.keep < 1:
            raise ConfigError(f"xl3m needs keep >= 1, got keep={self.keep}.")
        if self.question_tokens < 1 or self.batch_tokens < 1:
            raise ConfigError("xl3m needs question_tokens >= 1 and batch_tokens >= 1.")

    def prompt(self) -> str:
        return "xl3m"

    def capacity(self, facts: ModelFacts) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, end) of the body and their score; lower is more certain."""

    start: int
    end: int
    score: float


def cut(length: int, segment: int, overlap: int) -> list[tuple[int, int]]:
    """Segments [start, end) that cover `length` tokens; the last one is aligned to the end."""
    if length <= segment:
        return [(0, length)] if length else []
    stride = segment - overlap
    starts = list(range(0, length - segment, stride))
    return [(start, start + segment) for start in [*starts, length - segment]]


def uncertainty(logits: Tensor, score: Score, question: Sequence[int]) -> Tensor:
    """Score of each sequence of a batch, in nats; lower is more certain.

    Args:
        logits: [B, q, V] after each of the last q tokens of the question; for `nll` [B, q + 1, V],
            beginning with the token before them.
        score: Which.
        question: The last q tokens.

    Returns:
        [B].
    """
    import torch

    table = torch.log_softmax(logits.double(), dim=-1)
    if score == "nll":
        wanted = torch.tensor(list(question), device=logits.device)
        picked = table[:, :-1].gather(-1, wanted[None, :, None].expand(len(table), -1, 1))
        return -picked[..., 0].mean(dim=1)
    p = table.exp()
    entropy = -(p * table.masked_fill(p == 0, 0.0)).sum(-1)
    return entropy[:, -1] if score == "entropy-last" else entropy.mean(dim=1)


def score_segments(
    reader: Reader,
    method: XL3M,
    head: list[int],
    body: Sequence[int],
    tail: list[int],
    tell: Any = None,
) -> list[Segment]:
    """Every segment of a body with its score."""
    pieces = cut(len(body), method.segment, method.overlap)
    asked = min(method.question_tokens, len(tail))
    keep = asked + (method.score == "nll")
    base = 0.0
    if method.calibrate and len(head) + len(tail) >= keep:
        logits = reader.logits([[*head, *tail]], keep)
        base = float(uncertainty(logits, method.score, tail[-asked:])[0])
    found: list[Segment] = []
    size = max(1, method.batch_tokens // (len(head) + method.segment + len(tail)))
    at = 0
    while at < len(pieces):
        group = [pieces[at]]
        while (
            len(group) < size
            and at + len(group) < len(pieces)
            and _length(pieces[at + len(group)]) == _length(group[0])
        ):
            group.append(pieces[at + len(group)])
        batch = [[*head, *body[first:last], *tail] for first, last in group]
        values = uncertainty(reader.logits(batch, keep), method.score, tail[-asked:])
        for (first, last), value in zip(group, values.tolist(), strict=True):
            found.append(Segment(first, last, value - base))
        at += len(group)
        if tell is not None:
            tell(found[-1].end, len(body))
    return found


def choose(segments: Sequence[Segment], keep: int, *, ends: bool) -> list[Segment]:
    """The `keep` most certain segments in the order of the text; ties go to the earlier one."""
    forced = {0, len(segments) - 1} if ends and segments else set()
    free = [number for number in range(len(segments)) if number not in forced]
    best = heapq.nsmallest(
        max(0, keep - len(forced)), free, key=lambda number: (segments[number].score, number)
    )
    return [segments[number] for number in sorted({*best, *forced})]


def merged(segments: Sequence[Segment]) -> list[Segment]:
    """Overlapping neighbours as one, with the better score, so that no token repeats."""
    out: list[Segment] = []
    for segment in segments:
        if out and segment.start < out[-1].end:
            last = out.pop()
            segment = Segment(last.start, segment.end, min(last.score, segment.score))
        out.append(segment)
    return out


class XL3MReader(PromptReader):
    """`ask`, `select` and `reduce` of an extension with XL3M."""

    @classmethod
    def keep(cls, reader: Reader, framed: Framed) -> list[Kept]:
        """The segments that leave the model certain; their scores are minus the entropy."""
        kept = _select(reader, _method(reader), framed)
        if framed.text is None:
            return [Kept(s.start, s.end, 0, 0, -s.score) for s in kept]
        at = framed.offsets
        return [Kept(s.start, s.end, at[s.start][0], at[s.end - 1][1], -s.score) for s in kept]

    @classmethod
    def question_tokens(cls, reader: Reader) -> int:
        """Those that entropy is averaged over."""
        return _method(reader).question_tokens


def _select(reader: Reader, method: XL3M, framed: Framed) -> list[Segment]:
    head, ids, tail, written = framed.head, framed.body, framed.tail, framed.written
    window, fixed = reader.facts.window, len(head) + len(tail)
    if window is None:
        room = method.keep or 8
    else:
        if fixed + method.segment > window:
            raise ConfigError(
                f"xl3m: head ({len(head)} tokens), segment ({method.segment}) and question "
                f"({len(tail)}) are longer than the window, {window:,}. Take a smaller segment."
            )
        if fixed + len(ids) + written <= window and method.keep is None:
            return [Segment(0, len(ids), 0.0)]  # everything fits: nothing is left out
        room = (window - fixed - written) // method.segment
        if room < 1:
            raise ConfigError(
                f"xl3m: the window of {window:,} tokens has no room for one segment of "
                f"{method.segment} beside {fixed:,} tokens of prompt and {written:,} of answer."
            )
    keep = min(room, method.keep or 8)
    segments = score_segments(reader, method, head, ids, tail, framed.tell)
    return merged(choose(segments, keep, ends=method.keep_ends))


def _method(reader: Reader) -> XL3M:
    method = reader.extension.prompt_method
    assert isinstance(method, XL3M)  # the registry led here from it
    return method


def _length(piece: tuple[int, int]) -> int:
    return piece[1] - piece[0]
