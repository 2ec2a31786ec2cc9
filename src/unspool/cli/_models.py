"""What the commands that run a model past its window share: loading, reading a context, bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unspool.cli._output import human_number, progress
from unspool.errors import ConfigError, InputError, PathNotFound


def load_stock(model: str | None) -> Any:
    """A model as it is, to be extended by the command."""
    from unspool.backends.load import load_model
    from unspool.backends.transformers import TransformersModel

    loaded = load_model(model)
    if not isinstance(loaded, TransformersModel):
        raise ConfigError(f"{loaded.name} cannot be changed from inside; choose a local model.")
    return loaded


def untouched(result: Any, tokens: int) -> str | None:
    """What to say of a compared method that left nothing out of a text; None if it did."""
    if result.error or result.exact_within is None or tokens > result.exact_within:
        return None
    return (
        f"{result.method} leaves nothing out up to {human_number(result.exact_within)} tokens, so "
        f"here it is the stock model: give a longer text, or smaller limits "
        f"(unspool list methods {result.method.partition(':')[0]})"
    )


def read_text(paths: tuple[str, ...]) -> str:
    """The text of files and folders, in order, blank lines between documents.

    Raises:
        PathNotFound: A path does not exist.
        InputError: There is no text in them.
    """
    from unspool.corpus.readers import read_documents

    for path in paths:
        if path != "-" and not Path(path).exists():
            raise PathNotFound(f"There is no file or folder {path!r}. Check the path.")
    text = "\n\n".join(document.text for document in read_documents(list(paths)))
    if not text.strip():
        raise InputError(f"There is no text in {', '.join(paths)}.")
    return text


def tokens_of(model: Any, text: str, limit: int | None) -> list[int]:
    """Token ids of a text; with a limit, exactly its first `limit` tokens.

    Raises:
        InputError: The text has fewer tokens than were asked for.
    """
    from unspool._overflow import shorten

    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
    if limit is None:
        return ids
    if limit < 2:
        raise ConfigError(f"--length must be at least 2 tokens, got {limit}.")
    if len(ids) < limit:
        raise InputError(
            f"The text has {len(ids):,} tokens, and --length asks for {limit:,}. Give more text."
        )
    return shorten(ids, limit, keep="head").ids


class Bars:
    """One progress bar a stage; the next stage closes the one before."""

    def __init__(self, stack: ExitStack, quiet: bool) -> None:
        self._stack, self._quiet, self._stage = stack, quiet, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stack.close()
            self._stage = stage
            self._bar = self._stack.enter_context(
                progress(stage, total=total, unit="tokens", quiet=self._quiet)
            )
        self._bar.update(done, total=total)


@contextmanager
def bars(quiet: bool) -> Iterator[Bars]:
    """Bars for a call that reports (stage, done, total)."""
    with ExitStack() as stack:
        yield Bars(stack, quiet)
