"""The words in which a model is asked: what it is to read, then the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unspool.backends.prompts import has_chat_template
from unspool.types import Prompt

INSTRUCTION = "Read the text and answer the question. Be exact and complete."


def answer_prompt(tokenizer: Any, passages: Sequence[str], question: str) -> Prompt:
    """Chat messages, or plain text for a model without a chat template."""
    text = "\n\n".join(passage.strip() for passage in passages)
    if has_chat_template(tokenizer):
        content = f"{INSTRUCTION}\n\nText:\n{text}\n\nQuestion: {question}"
        return [{"role": "user", "content": content}]
    return f"{text}\n\nQuestion: {question}\nAnswer:"


def stops(tokenizer: Any) -> tuple[str, ...]:
    """Where an answer ends: a plain continuation would go on with questions of its own."""
    return () if has_chat_template(tokenizer) else ("\nQuestion:", "\n\n")
