"""How many tokens texts have, by the tokenizer of the model that will read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from unspool.types import LanguageModel

Count = Callable[[Sequence[str]], Sequence[int]]


def counter(model: LanguageModel) -> tuple[str, Count]:
    """The identity of a tokenizer and a function that counts with it.

    A model that tells no tokenizer (an endpoint) is counted for with the embedded model's, as a
    ruler: the read budget and the tokens of the text are then in its tokens, while what the
    endpoint read and wrote is what the endpoint says.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        from unspool.backends.embedded import NAME, embedded_tokenizer

        return NAME, _count_fast(embedded_tokenizer())
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None and hasattr(fast, "encode_batch_fast"):
        return model.name, _count_fast(fast)
    return model.name, lambda texts: [
        len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts
    ]


def _count_fast(tokenizer: Any) -> Count:
    def count(texts: Sequence[str]) -> Sequence[int]:
        # What reads like a control token inside a text is text, as it is in a prompt.
        before = tokenizer.encode_special_tokens
        tokenizer.encode_special_tokens = True
        try:
            encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        finally:
            tokenizer.encode_special_tokens = before
        return [len(e.ids) for e in encoded]

    return count
