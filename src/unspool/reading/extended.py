"""`ask` by a method of `extend`: the texts as documents, the model changed for one question.

What: reads the paths into documents, installs the method, asks, and restores the model.
Source: this project's own contract.
Differs from `reading.ask`'s readers: nothing is prepared or kept between questions; the model
itself reads the whole text.
Cost: that of the method.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unspool._registry import names
from unspool.corpus.readers import read_documents
from unspool.errors import ConfigError, InputError
from unspool.methods import method_names, resolve_reading
from unspool.reading.library import Progress
from unspool.reading.repeats import without_repeats
from unspool.types import Answer, Document

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def is_extension(method: str) -> bool:
    """Whether a spelling names methods of `extend` (and not a reader)."""
    known = method_names()
    return all(part.strip().partition(":")[0] in known for part in method.split("+"))


def check_name(method: str) -> None:
    """Refuse a name that is neither a reader nor a method.

    Raises:
        ConfigError: There is no such name; the message has the nearest.
    """
    known = {"auto", *names("reader"), *method_names()}
    for part in method.split("+"):
        name = part.strip().partition(":")[0]
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {sorted(known)}."
            raise ConfigError(
                f"There is no method called {name!r}. {hint} 'unspool list methods' has them all."
            )


def ask_extended(
    paths: Paths,
    question: str,
    model: Any,
    method: str,
    *,
    max_tokens: int,
    tell: Progress,
) -> Answer:
    """Answer through `extend(model, method)`.

    Args:
        paths: As `ask` takes them.
        question: Of the user.
        model: A loaded `LanguageModel`.
        method: As `extend` takes it.
        max_tokens: Most tokens of the answer.
        tell: Progress.

    Raises:
        ConfigError: The model cannot be changed from inside, or the method has no such settings.
        InputError: There is no text in the paths.
    """
    from unspool.backends.transformers import TransformersModel
    from unspool.extension import extend

    resolve_reading(method)  # settings are checked before anything is read
    if not isinstance(model, TransformersModel):
        raise ConfigError(
            f"--method {method} changes a model from inside, and {model.name} cannot be changed. "
            f"Choose a local model, or --method bm25."
        )
    documents = documents_of(paths)
    tell("Reading", 0, None)
    with extend(model.model, method, tokenizer=model.tokenizer) as extension:
        answer = extension.ask(
            documents,
            question,
            max_new_tokens=max_tokens,
            tell=lambda done, total: tell("Reading", done, total),
        )
    return replace(answer, text=without_repeats(answer.text))


def documents_of(paths: Paths) -> list[Document]:
    """Every document under some paths that holds text."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = [d for d in read_documents([os.fspath(path) for path in given]) if d.text.strip()]
    if not found:
        raise InputError(f"There is no text in {', '.join(map(str, given))}.")
    return found
