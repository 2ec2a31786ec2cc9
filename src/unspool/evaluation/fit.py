"""From a task's request to the prompt that one model gets: shortened where allowed, and wrapped.

What: the text is tokenised before any chat wrapper, shortened to M tokens if it is longer, decoded,
and only then wrapped. `ends` keeps the first and the last floor(M / 2) token ids, decodes each half
without special tokens and joins them with nothing between.
Source: the middle truncation of LongBench (Bai et al. 2023) and LV-Eval (Yuan et al. 2024); an
answer prefix behind the template as in RULER (Hsieh et al. 2024).
Differs from the originals: M is 1,000 * window / 1,024 - 500 only where the task asks for that
rule, otherwise what window, wrapper and answer leave; a decoded half that encodes to more tokens
than it had is shortened again, where the originals overflow. `shorten` is the one place that cuts.
Cost: the text is encoded once, and twice more where it is shortened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from unspool._overflow import Keep, shorten
from unspool.backends.prompts import encode_prompt, has_chat_template
from unspool.errors import ConfigError, OverflowPolicyError
from unspool.evaluation.spec import (
    ChatPolicy,
    LengthLevel,
    Request,
    Room,
    Sample,
    Sizer,
    TaskSpec,
)
from unspool.evaluation.tasks.base import Task
from unspool.types import Prompt

_ATTEMPTS = 8


class Fitted(NamedTuple):
    """A request as it is sent, and its size."""

    request: Request
    prompt_tokens: int | None
    """Of the prompt as it is sent; None if no tokenizer is known."""
    reserve: int
    """Tokens kept free for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitter:
    """How prompts are counted, wrapped and made to fit one model."""

    name: str
    """Of the model, for messages."""
    tokenizer: Any
    """None: not known, as behind an endpoint; then nothing can be counted or shortened."""
    window: int | None
    chat: ChatPolicy = "auto"
    """`auto`: as the task says."""
    keep: Keep | None = None
    """What is kept of a prompt that is too long; None: the task's own policy."""
    counts_for_model: bool = True
    """False: the tokenizer is a ruler that was named for a model that tells none."""

    def wraps(self, spec: TaskSpec) -> bool:
        """Whether the task's prompts are sent as chat messages."""
        policy = self.chat if self.chat != "auto" else spec.chat
        template = has_chat_template(self.tokenizer if self.counts_for_model else None)
        if policy == "always" and not template:
            raise ConfigError(
                f"{self.name} has no chat template, and the prompts of {spec.name} are to be "
                f"wrapped (--chat always). Choose --chat auto or never."
            )
        return policy != "never" and template

    def fit(self, task: Task, sample: Sample) -> Fitted:
        """The request for a sample as the model gets it.

        Raises:
            OverflowPolicyError: It does not fit, and nothing says that it may be shortened.
        """
        spec = task.spec
        request = task.build(sample, self._room(spec))
        sent = self._wrap(request, spec)
        reserve = self._reserve(sent)
        if self.tokenizer is None:
            return Fitted(sent, None, reserve)
        tokens = self.count(sent.prompt)
        policy = self.keep or spec.overflow
        limit = self._limit(spec, request, sent, reserve)
        over = limit is not None and isinstance(request.prompt, str)
        if policy in ("head", "tail", "ends") and limit is not None and over:
            ids = self._ids(request.prompt)
            if len(ids) > limit:
                return self._shortened(request, spec, ids, limit, policy, reserve)
        if self.window is not None and tokens + reserve > self.window:
            shortened = f"The policy for prompts that are too long is {policy!r}."
            if not isinstance(request.prompt, str):
                shortened = "It is a conversation, which is never shortened."
            raise OverflowPolicyError(self._refusal(sample, spec, tokens, reserve, shortened))
        return Fitted(sent, tokens, reserve)

    def unshortened(self, task: Task, sample: Sample) -> Request:
        """The request of a sample that is known to fit: what `fit` gives, without counting."""
        return self._wrap(task.build(sample, self._room(task.spec)), task.spec)

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt as the model reads it."""
        return len(encode_prompt(self.tokenizer, prompt))

    def sizer(self, spec: TaskSpec, level: LengthLevel | None) -> Sizer:
        """Size of a finished prompt in the unit of a level; see `spec.Sizer`."""
        unit = level.unit.partition(":")[0] if level else spec.unit.partition(":")[0]
        if unit == "words":
            return _words
        if unit != "tokens":
            return len
        if self.tokenizer is None:
            return self._no_tokenizer(spec)
        if not self.wraps(spec):
            return lambda text: self.count(text) + spec.max_new_tokens
        # An answer prefix is encoded apart from the text, which can cost a token at either end.
        blank = Request(kind=spec.kind, prompt="a", answer_prefix="")
        wrapper = self.count(self._wrap(blank, spec).prompt) - len(self._ids("a"))
        return lambda text: len(self._ids(text)) + wrapper + 2 + spec.max_new_tokens

    def _no_tokenizer(self, spec: TaskSpec) -> Sizer:
        def refuse(_: str) -> int:
            raise ConfigError(
                f"The lengths of {spec.name} are counted in tokens, and {self.name} tells no "
                f"tokenizer. Name one to count with (--tokenizer)."
            )

        return refuse

    def _wrap(self, request: Request, spec: TaskSpec) -> Request:
        """The prompt with its wrapper, system message and answer prefix; the fields are then
        empty."""
        prompt = request.prompt
        prefix = request.answer_prefix
        if isinstance(prompt, str) and not self.wraps(spec):
            system = f"{request.system}\n\n" if request.system else ""
            sent: Prompt = system + prompt + prefix
        else:
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            messages = [dict(turn) for turn in turns]
            if request.system:
                messages.insert(0, {"role": "system", "content": request.system})
            if prefix and self.tokenizer is not None and self.counts_for_model:
                messages.append({"role": "assistant", "content": prefix.lstrip()})
            elif prefix:  # a server may close the turn that was begun, so the cue ends the question
                messages[-1]["content"] += prefix
            sent = tuple(messages)
        return replace(request, prompt=sent, system="", answer_prefix="")

    def _ids(self, text: Prompt) -> list[int]:
        """Token ids of the text before any wrapper, with what the tokenizer puts in front."""
        return encode_prompt(self.tokenizer, text)

    def _room(self, spec: TaskSpec) -> Room:
        if self.tokenizer is None:
            return Room()
        count: Callable[[str], int] = lambda text: len(self._ids(text))  # noqa: E731 - a field
        if self.window is None:
            return Room(None, count)
        blank = Request(kind=spec.kind, prompt="a")
        wrapper = self.count(self._wrap(blank, spec).prompt) - len(self._ids("a"))
        if spec.limit_rule == "thousands":
            return Room(1000 * self.window // 1024 - 500, count)
        return Room(self.window - wrapper - spec.max_new_tokens, count)

    def _limit(self, spec: TaskSpec, request: Request, sent: Request, reserve: int) -> int | None:
        """M: most tokens of the text before any wrapper."""
        if self.window is None:
            return None
        if spec.limit_rule == "thousands":
            return 1000 * self.window // 1024 - 500
        if not isinstance(request.prompt, str):
            return None
        wrapper = self.count(sent.prompt) - len(self._ids(request.prompt))
        return self.window - max(wrapper, 0) - reserve

    def _reserve(self, sent: Request) -> int:
        """Tokens of the answer: the longest continuation, or what may be written."""
        if sent.kind == "generate" or self.tokenizer is None:
            return sent.max_new_tokens
        encoded = (
            self.tokenizer(text, add_special_tokens=False).input_ids for text in sent.continuations
        )
        return max((len(ids) for ids in encoded), default=0)

    def _shortened(
        self, request: Request, spec: TaskSpec, ids: list[int], limit: int, keep: Keep, reserve: int
    ) -> Fitted:
        """Cut the text to `limit` tokens, and to fewer while what it encodes to does not fit."""
        allowed = limit
        for _ in range(_ATTEMPTS):
            if allowed // 2 < 1:
                break
            text, kept = cut(self.tokenizer, ids, allowed, keep)
            sent = self._wrap(replace(request, prompt=text), spec)
            tokens = self.count(sent.prompt)
            excess = tokens + reserve - self.window if self.window is not None else 0
            if excess <= 0:
                dropped = request.dropped_tokens + len(ids) - kept
                return Fitted(replace(sent, dropped_tokens=dropped), tokens, reserve)
            allowed -= excess
        raise OverflowPolicyError(
            f"{self.name} has a window of {self.window:,} tokens, which leaves {max(limit, 0):,} "
            f"for a prompt of {spec.name} beside {reserve:,} for the answer: not enough to keep "
            f"both ends of it. Choose a model with a longer window."
        )

    def _refusal(
        self, sample: Sample, spec: TaskSpec, tokens: int, reserve: int, reason: str
    ) -> str:
        return (
            f"Sample {sample.id} of {spec.name} at level {sample.level} takes {tokens:,} tokens "
            f"and {reserve:,} for the answer, and the window of {self.name} is {self.window:,}. "
            f"{reason} Choose shorter --lengths, a model with a longer window, or --keep head, "
            f"tail or ends, which says what is kept and counts the rest."
        )


def cut(tokenizer: Any, ids: list[int], limit: int, keep: Keep) -> tuple[str, int]:
    """Text of what is kept of `ids` within `limit`, and how many ids that is.

    `ends` keeps floor(limit / 2) at either end and decodes the halves apart.
    """

    def decode(part: list[int]) -> str:
        return str(
            tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    if keep != "ends":
        kept = shorten(ids, limit, keep).ids
        return decode(kept), len(kept)
    half = limit // 2
    kept = shorten(ids, 2 * half, "ends").ids
    return decode(kept[:half]) + decode(kept[half:]), len(kept)


def _words(text: str) -> int:
    return len(text.split())
