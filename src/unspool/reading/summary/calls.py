"""Calls of a model for a summary, each kept on disk as soon as it is answered.

What: a call is known by the digest of its prompt, limit, temperature and number; a run that is
started again replays what it finds and asks only for the rest. The seed of a call is its number, so
an interrupted run and a whole one ask the same.
Source: this project's own contract (interrupt anything, run it again, get the same).
Differs from the release: it saves every ten chunks, or never where a book was only begun.
Cost: one flush to disk a call.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Protocol

from unspool.backends.prompts import has_chat_template
from unspool.backends.transformers import TransformersModel
from unspool.errors import InputError
from unspool.reading.summary.tidy import loops
from unspool.types import LanguageModel, Prompt, Usage


class Ask(Protocol):
    """One call of a model."""

    def __call__(self, prompt: str, max_tokens: int, temperature: float | int) -> str:
        """The stripped text of the answer."""


class Caller:
    """Asks a model and keeps a journal."""

    def __init__(
        self,
        model: LanguageModel,
        journal: Path | None = None,
        *,
        seed: int = 0,
        done: Callable[[int], None] = lambda calls: None,
    ) -> None:
        self.model = model
        self.seed = seed
        self.usage = Usage()
        self.calls = 0
        """Calls so far, replayed ones included."""
        self.replayed = 0
        self._done = done
        self._known = _read(journal) if journal else {}
        self._journal = journal

    def __call__(self, prompt: str, max_tokens: int, temperature: float | int) -> str:
        """See `Ask`. What a replayed call cost counts too, so the sum is that of a whole run."""
        number = self.calls
        self.calls += 1
        key = f"{number}\0{max_tokens}\0{float(temperature)}\0{self.seed}\0{prompt}"
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        known = self._known.get(digest)
        if known is not None:
            self.replayed += 1
            text, usage = known
        else:
            messages: Prompt = prompt
            if has_chat_template(self.model.tokenizer):
                messages = [{"role": "user", "content": prompt}]
            text, usage = self._say(messages, max_tokens, temperature, self.seed + number)
            self._keep(digest, text, usage)
        self.usage = self.usage + usage
        self._done(self.calls)
        return text

    def _say(
        self, prompt: Prompt, max_tokens: int, temperature: float | int, seed: int
    ) -> tuple[str, Usage]:
        """An answer. A local model is stopped where it goes in circles."""
        if not isinstance(self.model, TransformersModel):
            said = self.model.generate(
                [prompt], max_tokens=max_tokens, temperature=float(temperature), seed=seed
            )[0]
            return said.text.strip(), said.usage
        text, usage = "", Usage()
        over = Event()
        for piece in self.model.generate_stream(
            prompt,
            max_tokens=max_tokens,
            temperature=float(temperature),
            seed=seed,
            cancelled=over.is_set,
        ):
            text += piece.text
            if loops(text):
                over.set()
            usage = piece.usage or usage
        return text.strip(), usage

    def _keep(self, digest: str, text: str, usage: Usage) -> None:
        if self._journal is None:
            return
        row = {"call": digest, "text": text, "usage": usage.to_json()}
        with self._journal.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _read(journal: Path) -> dict[str, tuple[str, Usage]]:
    """What a journal holds; a last line that was half written is dropped."""
    if not journal.exists():
        return {}
    raw = journal.read_bytes()
    sound = raw.rfind(b"\n") + 1
    if sound < len(raw):
        with journal.open("r+b") as file:
            file.truncate(sound)
    found = {}
    for number, line in enumerate(raw[:sound].splitlines(), 1):
        try:
            row = json.loads(line)
            found[row["call"]] = (str(row["text"]), Usage(**row["usage"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"Line {number} of {journal.name} is damaged: {error}. Remove the file to ask anew."
            ) from error
    return found
