"""Ask a question of texts of any length and get an answer with the passages it rests on.

What: the texts are prepared once (`reading.library`), a named reader scores their units for the
question, the best fill a read budget in document order, a model answers from them, and the answer
is checked against what was read.
Source: retrieve-then-read question answering (Chen et al. 2017, arXiv 1704.00051).
Differs from it: a text that fits the budget is read whole; nothing is left out uncounted.
Cost: preparing once a text; then one pass of the model over the budget and over the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool import _registry
from unspool._machine import peak_rss
from unspool._optional import require
from unspool.backends.prompts import encode_prompt
from unspool.errors import ConfigError, IndexFileError, InputError, OverflowPolicyError
from unspool.methods import resolve_reading
from unspool.reading.budget import Picked, fill
from unspool.reading.choice import choose
from unspool.reading.extended import ask_extended, check_name, is_extension
from unspool.reading.library import Library, Progress, open_library, remake_library, silent
from unspool.reading.prompt import answer_prompt, stops
from unspool.reading.repeats import without_repeats
from unspool.reading.support import rank_by_support, unsupported_words
from unspool.reading.tokens import counter
from unspool.types import Answer, LanguageModel, Prompt, Usage

READ_TOKENS = 2048
"""Default read budget, where the window is not smaller."""


def ask(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    question: str,
    *,
    model: str | LanguageModel | None = None,
    endpoint: str | None = None,
    api_key: str | None = None,
    method: str = "bm25",
    explain: Callable[[str], None] | None = None,
    top_k: int | None = None,
    read_tokens: int | str | None = None,
    max_tokens: int = 64,
    dtype: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Answer:
    """Answer a question from texts of any length.

    Args:
        paths: Files and folders of txt, md, html, jsonl or parquet, or "-" for standard input.
        question: In the language of the texts, since words are matched.
        model: A loaded model, a Hugging Face id or a folder; None: the embedded one.
        endpoint: An OpenAI-compatible server instead; `model` is then the name it serves.
        api_key: For the endpoint; see `load_model`.
        method: A reader and its settings, "bm25" or "bm25:phrase_weight=0,rare=5"; what `extend`
            takes, "xl3m" or "infini-retri:layer=auto", where the model itself reads the whole text;
            or "auto".
        explain: Told in one line what "auto" chose, and why.
        top_k: Most units (of about 400 bytes) to read; None: as many as the budget holds.
        read_tokens: Most tokens of the prompt, template and question included; None: 2,048 or the
            window less the answer, if that is smaller; "window": the window less the answer.
        max_tokens: Most tokens of the answer.
        dtype: See `load_model`.
        device: See `load_model`.
        progress: Called with what is being done, how much and of how much.

    Returns:
        The answer, in which no sentence comes twice; the passages that were read, those that hold
        most of it first; the usage, whose `input_tokens` are those of the whole text, unit by
        unit, `dropped_tokens` those of units that were not read, and `read_tokens` those of the
        prompt.

    Raises:
        InputError: There is no question, or no text in the paths.
        PathNotFound: A path does not exist.
        ConfigError: A setting has a value that cannot work.
        OverflowPolicyError: The budget or the question does not fit the model's window.
        BackendError: The model or endpoint failed.
        MissingExtra: A package of `unspool[read]` is not installed.
    """
    started = time.perf_counter()
    tell = progress or silent
    question = question.strip()
    if not question:
        raise InputError("The question is empty. Put it last, in quotes.")
    _check(top_k, read_tokens, max_tokens)
    check_name(method)
    if is_extension(method):
        _refuse_budget(method, top_k, read_tokens)
        if endpoint is not None:
            raise ConfigError(
                f"Method {method} changes a model from inside, and an endpoint cannot be changed. "
                f"Load a model here, or choose bm25."
            )
        require("torch", extra="read", purpose=f"Method {method}")
        resolve_reading(method)
        loaded = _model(model, endpoint, api_key, dtype, device, tell)
        return ask_extended(paths, question, loaded, method, max_tokens=max_tokens, tell=tell)
    reader = _reader("bm25" if method == "auto" else method)
    library = open_library(paths, progress=tell)
    reading = _model(model, endpoint, api_key, dtype, device, tell)
    limit = _limit(reading, read_tokens, max_tokens)
    identity, count = counter(reading)

    if method == "auto":
        total = int(library.token_counts(identity, count, tell).sum())
        on_gpu = "cuda" in str(getattr(getattr(reading, "model", None), "device", ""))
        choice = choose(reading, total, limit, on_gpu=on_gpu)
        if explain is not None:
            explain(f"Method {choice.method}: {choice.reason}.")
        if is_extension(choice.method):
            return ask_extended(
                paths, question, reading, choice.method, max_tokens=max_tokens, tell=tell
            )

    def prompt_of(passages: Sequence[str]) -> Prompt:
        return answer_prompt(reading.tokenizer, passages, question)

    def pick(library: Library) -> tuple[Picked, NDArray[np.uint32]]:
        counts = library.token_counts(identity, count, tell)
        picked = fill(
            library,
            reader.scores(library, question),
            counts,
            limit=limit,
            measure=lambda passages: _prompt_tokens(reading, count, prompt_of(passages)),
            top_k=top_k,
            last=reader.last,
        )
        return picked, counts

    try:
        picked, counts = pick(library)
    except IndexFileError:  # what the cache kept is damaged: the texts are still there
        library = remake_library(library, paths, progress=tell)
        picked, counts = pick(library)
    tell("Reading and answering", 0, None)
    said = reading.generate(
        [prompt_of(picked.texts)], max_tokens=max_tokens, stop=stops(reading.tokenizer)
    )[0]
    answer = without_repeats(said.text)
    total = int(counts.sum())
    usage = Usage(
        input_tokens=total,
        read_tokens=said.usage.read_tokens,
        dropped_tokens=total - int(counts[list(picked.units)].sum()),
        output_tokens=said.usage.output_tokens,
        seconds=time.perf_counter() - started,
        peak_bytes=max(said.usage.peak_bytes, peak_rss()),
    )
    return Answer(
        answer,
        rank_by_support(answer, question, picked.passages),
        usage,
        unsupported_words(answer, picked.texts),
    )


def _check(top_k: int | None, read_tokens: int | str | None, max_tokens: int) -> None:
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k must be >= 1, got {top_k}.")
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be >= 1, got {max_tokens}.")
    if isinstance(read_tokens, str):
        if read_tokens != "window":
            raise ConfigError(f"read_tokens must be a number or 'window', got {read_tokens!r}.")
    elif read_tokens is not None and read_tokens < 1:
        raise ConfigError(f"read_tokens must be >= 1, got {read_tokens}.")


def _refuse_budget(method: str, top_k: int | None, read_tokens: int | str | None) -> None:
    for name, value in (("top_k", top_k), ("read_tokens", read_tokens)):
        if value is not None:
            raise ConfigError(
                f"{name}={value} is a setting of bm25; method {method} reads the whole text. What "
                f"it keeps is set as in 'xl3m:keep=4' or 'infini-retri:max_kept=1024'."
            )


def _reader(method: str) -> Any:
    """A reader from `NAME` or `NAME:KEY=VALUE,…`."""
    name, _, settings = method.partition(":")
    made = _registry.resolve("reader", name)
    known: dict[str, Any] = {f.name: type(f.default) for f in fields(made)}
    values: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}. It has {', '.join(known)}.")
        try:
            values[key] = known[key](value)
        except ValueError:
            raise ConfigError(
                f"{name}: {key} must be of type {known[key].__name__}, got {value!r}."
            ) from None
    return made(**values)


def _model(
    model: str | LanguageModel | None,
    endpoint: str | None,
    api_key: str | None,
    dtype: str | None,
    device: str,
    tell: Progress,
) -> LanguageModel:
    if model is not None and not isinstance(model, str):
        return model
    from unspool.backends.load import load_model

    tell("Loading the model", 0, None)
    return load_model(model, endpoint=endpoint, api_key=api_key, dtype=dtype, device=device)


def _limit(model: LanguageModel, read_tokens: int | str | None, max_tokens: int) -> int:
    """The read budget in tokens."""
    room = None if model.window is None else model.window - max_tokens
    if room is not None and room < 1:
        raise ConfigError(
            f"{model.name} has a window of {model.window:,} tokens; max_tokens={max_tokens} leaves "
            f"no room to read."
        )
    if read_tokens is None:
        return READ_TOKENS if room is None else min(READ_TOKENS, room)
    if read_tokens == "window":
        if room is None:
            raise ConfigError(f"{model.name} tells no window. Give read_tokens as a number.")
        return room
    assert isinstance(read_tokens, int)  # other strings were refused
    if room is not None and read_tokens > room:
        raise OverflowPolicyError(
            f"read_tokens={read_tokens:,} and max_tokens={max_tokens:,} are more than the window "
            f"of {model.name}, {model.window:,} tokens. At most {room:,} can be read."
        )
    return read_tokens


def _prompt_tokens(
    model: LanguageModel, count: Callable[[Sequence[str]], Sequence[int]], prompt: Prompt
) -> int:
    """Tokens of a prompt: exact with a tokenizer, else of its contents by the stand-in counter."""
    if model.tokenizer is not None:
        return len(encode_prompt(model.tokenizer, prompt))
    texts = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
    return sum(count(texts))
