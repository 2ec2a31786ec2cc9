"""What goes into a saved context beside the cache: token ids, fingerprints, passages.

A context begins with what the chat template puts before a message; a question ends with what it
puts after one, so that the two together are one prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from unspool.backends.prompts import has_chat_template, special_strings
from unspool.reading.prompt import INSTRUCTION
from unspool.reading.terms import terms
from unspool.reading.units import units
from unspool.types import Passage, Span


def _frame(tokenizer: Any) -> tuple[str, str]:
    """What the chat template puts before and after a first message; nothing without one."""
    if not has_chat_template(tokenizer):
        return "", ""
    mark = "\ue000"
    message = [{"role": "user", "content": mark}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, _, after = text.partition(mark)
    return before, after


def _plain(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text in which strings of control tokens are plain text."""
    special = any(s in text for s in special_strings(tokenizer))
    options = {"split_special_tokens": True} if special else {}
    ids: list[int] = tokenizer(text, add_special_tokens=False, **options).input_ids
    return list(ids)


def context_ids(tokenizer: Any, text: str) -> list[int]:
    text = text.strip()
    if not has_chat_template(tokenizer):
        return [*tokenizer("").input_ids, *_plain(tokenizer, text)]
    before, _ = _frame(tokenizer)
    head = tokenizer(before, add_special_tokens=False).input_ids
    return [*head, *_plain(tokenizer, f"{INSTRUCTION}\n\nText:\n{text}")]


def question_ids(tokenizer: Any, question: str) -> list[int]:
    if not has_chat_template(tokenizer):
        return _plain(tokenizer, f"\n\nQuestion: {question}\nAnswer:")
    _, after = _frame(tokenizer)
    end = tokenizer(after, add_special_tokens=False).input_ids
    return [*_plain(tokenizer, f"\n\nQuestion: {question}"), *end]


def tensors(ids: list[int], text: str) -> dict[str, Any]:
    import torch

    return {
        "text": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8),
        "tokens": torch.tensor(ids, dtype=torch.int32),
    }


def passages(documents: Sequence[Sequence[Any]], text: str) -> list[Passage]:
    """Units of every document, with byte offsets in it."""
    data, found, start = text.encode(), [], 0
    for name, length in documents:
        body = data[start : start + length]
        for unit in units(body.decode()):
            quoted = body[unit.start : unit.end].decode()
            found.append(Passage(Span(name, unit.start, unit.end, quoted), 0.0))
        start += length + len(b"\n\n")
    return found


def weights_digest(model: Any) -> str:
    """A digest of every parameter's name, shape and some of its numbers: enough to tell models
    apart, in milliseconds."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype};".encode())
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].double().cpu().numpy()
        digest.update(some.tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a tokenizer's rules, vocabulary and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    whole = f"{rules}\n{getattr(tokenizer, 'chat_template', None)}"
    return hashlib.sha256(whole.encode()).hexdigest()


class Evidence:
    """The passages of a text, and which of them an answer rests on."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        self._words: list[set[str]] | None = None

    def of(self, answer: str, question: str, count: int = 8) -> tuple[Passage, ...]:
        """Passages that share most words with the answer, or with the question if it has none of
        its own."""
        if self._words is None:
            self._words = [set(terms(p.span.text)) for p in self.passages]
        asked = set(terms(question))
        wanted = set(terms(answer)) - asked or asked
        found = []
        for passage, words in zip(self.passages, self._words, strict=True):
            if wanted & words:
                topic = len(asked & words) / max(1, len(asked))
                score = len(wanted & words) / len(wanted) + 0.1 * topic
                found.append(Passage(passage.span, round(score, 4)))
        found.sort(key=lambda p: -p.score)
        return tuple(found[:count])
