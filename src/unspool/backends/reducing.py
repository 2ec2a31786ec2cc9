"""A transformers model whose prompts past the window are shortened by a prompt method.

What: a prompt that fits is sent as it stands; of a longer one the method (xl3m, infini-retri) keeps
what the question needs, and the model continues from that.
Source: the methods' papers; which part is the text and which the question is this project's rule.
Differs from `Extension.ask`: text and question come as one prompt. The longest message is the text;
what the chat template puts around it stays, and so does every other message. The question is what
the user says after the text, or the end of the text if nothing follows it.
Cost: that of the method, for every prompt past the window; nothing is kept between two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool._overflow import Shortened
from unspool.backends.prompts import encode_prompt
from unspool.backends.transformers import TransformersModel
from unspool.types import Overflow, Prompt

if TYPE_CHECKING:
    from unspool.extension import Extension


class ReducingModel(TransformersModel):
    """A `TransformersModel` with a prompt method; its window is that of the method."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, extension: Extension) -> None:
        """Wrap a loaded model; see `TransformersModel`.

        Args:
            model: A causal language model of transformers.
            tokenizer: The tokenizer that belongs to it; the extension has it as well.
            name: Identity and revision.
            extension: With a prompt method.
        """
        super().__init__(model, tokenizer, name=name, extension=extension)
        self._method = extension

    def _fitted(
        self,
        prompt: Prompt,
        ids: list[int],
        needed: int,
        on_overflow: Overflow,
        what: str = "The prompt",
    ) -> Shortened:
        kept = super()._fitted(prompt, ids, needed, on_overflow, what)
        window = self._method.facts.window
        self._besides = 0
        if window is None or len(kept.ids) + needed <= window:
            return kept
        head, tail, asked = parts(self._tokenizer, prompt, kept.ids)
        left = self._method.reduce(kept.ids, needed, head=head, tail=tail, asked=asked)
        self._besides = left.read_tokens
        return Shortened(left.ids, len(ids) - len(left.ids))


def parts(tokenizer: Any, prompt: Prompt, ids: Sequence[int]) -> tuple[int, int, bool]:
    """Tokens before and after the text of a prompt, and whether the question is among the latter.

    Args:
        tokenizer: Of the model.
        prompt: A str is text from its first word to its last.
        ids: What `encode_prompt` made of it.
    """
    if isinstance(prompt, str):
        without, asked = encode_prompt(tokenizer, ""), False
    else:
        sizes = [len(message["content"]) for message in prompt]
        text = sizes.index(max(sizes))
        asked = any(message["role"] == "user" for message in prompt[text + 1 :])
        emptied = [{**m, "content": ""} if n == text else m for n, m in enumerate(prompt)]
        without = encode_prompt(tokenizer, emptied)
    head = _common(ids, without)
    tail = _common(ids[head:][::-1], without[head:][::-1])
    return head, tail, asked and tail > 0


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    count = 0
    for ours, theirs in zip(a, b, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
