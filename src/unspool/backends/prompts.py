"""From a prompt to token ids, the same way for every local backend."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from unspool.errors import ConfigError, InputError
from unspool.types import ChatMessage, Prompt


def check_request(
    prompts: Sequence[Prompt], max_tokens: int, stop: Sequence[str], temperature: float
) -> None:
    """Refuse what no backend can do, before anything is read."""
    if isinstance(prompts, str):
        raise ConfigError("prompts must be a list of prompts, got one str. Put it into a list.")
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be >= 1, got {max_tokens}.")
    if isinstance(stop, str) or not all(stop):
        raise ConfigError(f"stop must be a list of non-empty strings, got {stop!r}.")
    if temperature < 0 or not math.isfinite(temperature):
        raise ConfigError(f"temperature must be >= 0 and finite, got {temperature}.")


def check_messages(prompt: Prompt) -> None:
    """Refuse chat messages that lack a role or a content."""
    if isinstance(prompt, str):
        return
    if not prompt:
        raise InputError("A chat prompt needs at least one message, got none.")
    for message in prompt:
        if not {"role", "content"} <= set(message):
            raise InputError(f"A chat message needs 'role' and 'content', got {sorted(message)}.")


def has_chat_template(tokenizer: Any) -> bool:
    """Whether chat messages can be sent; None (an endpoint) applies a template of its own."""
    return tokenizer is None or bool(getattr(tokenizer, "chat_template", None))


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt.

    A str is encoded as it is, special tokens included, with whatever the tokenizer puts in front
    of a text. Chat messages go through the template; special-token strings inside their contents
    are encoded as plain text. A last message of the assistant's is an answer that was begun: it
    stands behind the template, open, and the model goes on from there.
    """
    check_messages(prompt)
    if isinstance(prompt, str):
        return list(tokenizer(prompt).input_ids)
    return _encode_chat(tokenizer, prompt, "")


def encode_continuation(
    tokenizer: Any, prompt: Prompt, prompt_ids: list[int], continuation: str
) -> list[int]:
    """Token ids of a continuation: what it adds to the prompt's ids, or alone if they change."""
    if isinstance(prompt, str):
        whole = list(tokenizer(prompt + continuation).input_ids)
    else:
        whole = _encode_chat(tokenizer, prompt, continuation)
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole[len(prompt_ids) :]
    return list(tokenizer(continuation, add_special_tokens=False).input_ids)


def _encode_chat(tokenizer: Any, prompt: Sequence[ChatMessage], continuation: str) -> list[int]:
    if not has_chat_template(tokenizer):
        raise ConfigError(
            "This model has no chat template, so chat messages cannot be sent. Send a str."
        )
    special = special_strings(tokenizer)
    found = re.compile("|".join(map(re.escape, special))) if special else None
    messages = [dict(m) for m in prompt]
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match.group())
        return f"{mark}{len(held) - 1}{mark}"

    mark = _unused_mark(continuation, *(m["content"] for m in messages))
    if found is not None:
        for message in messages:
            message["content"] = found.sub(hold, message["content"])
    begun = ""
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        begun = messages.pop()["content"]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    text += begun + continuation
    if not held:
        return list(tokenizer(text, add_special_tokens=False).input_ids)
    ids: list[int] = []
    for number, piece in enumerate(re.split(f"{mark}(\\d+){mark}", text)):
        if number % 2:
            plain = tokenizer(held[int(piece)], add_special_tokens=False, split_special_tokens=True)
            ids += plain.input_ids
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False).input_ids
    return ids


def special_strings(tokenizer: Any) -> list[str]:
    """Strings that the tokenizer reads as control tokens, longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    control = {str(t) for t in added.values() if getattr(t, "special", False)}
    control |= set(getattr(tokenizer, "all_special_tokens", ()))
    return sorted((c for c in control if c), key=lambda c: (-len(c), c))


def _unused_mark(*texts: str) -> str:
    """A private-use character that occurs in none of the texts."""
    for code in range(0xE000, 0xF900):
        if not any(chr(code) in text for text in texts):
            return chr(code)
    raise InputError("The prompt uses every private-use character, so none is left as a mark.")
