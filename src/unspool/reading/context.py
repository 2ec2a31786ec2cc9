"""A text read once and kept for many questions: saved to a folder, opened, asked.

What: `save_context` reads documents into an extended model's cache, lets the method prepare it
(squeezed: clusters and thresholds) and writes it; `open_context` maps it into memory and answers
questions of it without reading the text again.
Source: the offline and online steps of Squeezed Attention (Hooper et al. 2024, section 4).
Differs from prompt caches of servers: the folder holds the text as well, so an answer quotes its
evidence, and it names model and tokenizer by their content, so a wrong one is an error.
Cost: saving reads the text once and takes as much disk as the model's cache of it (SmolLM2 in
float32: 46 KB a token); opening costs no reading; a question costs its own tokens and its answer.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool._machine import peak_rss
from unspool.backends.load import load_model
from unspool.corpus.readers import read_documents
from unspool.errors import ConfigError, InputError, OverflowPolicyError, PathNotFound
from unspool.methods import resolve_reading
from unspool.reading.context_parts import (
    Evidence,
    context_ids,
    passages,
    question_ids,
    tensors,
    tokenizer_digest,
    weights_digest,
)
from unspool.reading.library import Progress, silent
from unspool.reading.prompt import stops
from unspool.reading.repeats import without_repeats
from unspool.reading.support import rank_by_support, unsupported_words
from unspool.saved import is_sound, read_header
from unspool.types import Answer, Passage, Usage

if TYPE_CHECKING:
    from unspool.extension import Extension
    from unspool.stream import Stream

_FORMAT = 1
_PIECE = 512
"""Tokens between two words of progress."""


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """What a saved context holds."""

    model: str
    """Name and revision."""
    method: str
    tokens: int
    documents: tuple[str, ...]
    bytes: int
    """On disk."""
    seconds: float
    """That reading and preparing took; 0 once it is opened."""
    sound: bool | None = None
    """Whether every byte is what was written; None: not looked at."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "documents": list(self.documents)}


def save_context(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    method: str = "squeezed",
    dtype: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> ContextInfo:
    """Read texts once and keep what a model makes of them.

    Args:
        paths: Files and folders of txt, md, html, jsonl or parquet, or "-" for standard input.
        out: A new directory, or a saved context that is replaced.
        model: A Hugging Face id or a folder; None: the embedded model.
        method: That keeps the context: "squeezed", "squeezed:levels=2", or any other that reads.
        dtype: See `load_model`.
        device: See `load_model`.
        progress: Called with what is being done, how much and of how much.

    Raises:
        OverflowPolicyError: The texts do not fit the model's window with this method.
        InputError: There is no text in the paths.
        ConfigError: `out` exists and is something else.
    """
    began = time.perf_counter()
    tell = progress or silent
    folder = Path(out)
    if folder.exists() and not (folder / "stream.json").is_file():
        raise ConfigError(f"{folder} exists and is no saved context: choose another directory.")
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    documents = [(d.id, d.text) for d in read_documents(listed) if d.text.strip()]
    if not documents:
        raise InputError("There is no text to read. Give files or folders that hold some.")
    text = "\n\n".join(text for _, text in documents)
    tell("Loading the model", 0, None)
    resolve_reading(method)  # settings are checked before a model is loaded
    loaded = load_model(model, dtype=dtype, device=device)
    with _extended(loaded, method) as extension:
        ids = context_ids(extension.tokenizer, text)
        _check_fits(extension, len(ids), method)
        stream = extension.stream()
        for start in range(0, len(ids), _PIECE):
            stream.feed(ids[start : start + _PIECE])
            tell("Reading", start, len(ids))
        tell("Clustering" if "squeezed" in method else "Preparing", 0, None)
        stream.fix()
        tell("Writing", 0, None)
        facts = {
            "context": _FORMAT,
            "name": model,
            "identity": loaded.name,
            "dtype": str(extension.facts.dtype).removeprefix("torch."),
            "weights": weights_digest(extension.model),
            "tokenizer": tokenizer_digest(extension.tokenizer),
            "tokens_sha256": hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest(),
            "documents": [[name, len(part.encode())] for name, part in documents],
        }
        stream.save(folder, facts=facts, tensors=tensors(ids, text))
    return ContextInfo(
        model=loaded.name,
        method=extension.spec,
        tokens=len(ids),
        documents=tuple(name for name, _ in documents),
        bytes=_size(folder),
        seconds=time.perf_counter() - began,
    )


def context_info(directory: str | os.PathLike[str], *, verify: bool = False) -> ContextInfo:
    """What a saved context holds, without loading a model.

    Args:
        directory: Of the context.
        verify: Read every byte and compare the checksum.

    Raises:
        InputError: The directory is no saved context.
    """
    folder = Path(directory)
    header = _header(folder)
    facts = header["facts"]
    return ContextInfo(
        model=facts["identity"],
        method=header["method"],
        tokens=int(facts["tokens"]),
        documents=tuple(name for name, _ in facts["documents"]),
        bytes=_size(folder),
        seconds=0.0,
        sound=is_sound(folder, header) if verify else None,
    )


class Context:
    """A saved context, open for questions. Made by `open_context`; a context manager."""

    def __init__(
        self, extension: Extension, stream: Stream, info: ContextInfo, found: list[Passage]
    ) -> None:
        self.extension = extension
        self.stream = stream
        self.info = info
        self._evidence = Evidence(found)
        self._dropped = stream.report().dropped_tokens
        """Of the context: what the method gave up while it was read."""

    def ask(self, question: str, *, keep: float | None = None, max_tokens: int = 64) -> Answer:
        """Answer a question from the context as it is: `ask_many` with one."""
        return self.ask_many([question], keep=keep, max_tokens=max_tokens)[0]

    def ask_many(
        self, questions: Sequence[str], *, keep: float | None = None, max_tokens: int = 64
    ) -> list[Answer]:
        """Answer questions from the context as it is; those of one length as one batch.

        Args:
            questions: In the language of the text.
            keep: Share of the context's keys to load (squeezed); None: what it was saved with.
            max_tokens: Most tokens of an answer.

        Returns:
            The answers, with the passages of the text that hold most of their words. In the usage
            `input_tokens` counts context and question, `read_tokens` what was read now.

        Raises:
            InputError: A question is empty.
            ConfigError: `keep` or `max_tokens` has a value that cannot work.
            OverflowPolicyError: Question and answer do not fit behind the context.
        """
        if not questions or not all(q.strip() for q in questions):
            raise InputError("The question is empty. Put it last, in quotes.")
        if max_tokens < 1:
            raise ConfigError(f"max_tokens must be >= 1, got {max_tokens}.")
        began = time.perf_counter()
        tokenizer = self.extension.tokenizer
        rows = [question_ids(tokenizer, q.strip()) for q in questions]
        room = max_tokens + max(map(len, rows))
        capacity = self.extension.capacity
        if capacity is not None and self.info.tokens + room > capacity:
            raise OverflowPolicyError(
                f"The context has {self.info.tokens:,} tokens, question and answer take {room:,}, "
                f"and {self.info.method} takes {capacity:,} in all. Ask for fewer tokens."
            )
        written = self._write(rows, keep, max_tokens)
        seconds = time.perf_counter() - began
        return [
            self._answer(q, row, new, seconds / len(rows))
            for q, row, new in zip(questions, rows, written, strict=True)
        ]

    def close(self) -> None:
        """Give the model back."""
        self.extension.remove()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, rows: list[list[int]], keep: float | None, max_tokens: int) -> list[list[int]]:
        tokenizer = self.extension.tokenizer
        self.extension.tokenizer = None  # ids come back, and are counted
        try:
            pad = tokenizer.pad_token_id
            out = self.stream.ask(
                rows if len(rows) > 1 else rows[0],
                keep=keep,
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id if pad is None else pad,
            )
        finally:
            self.extension.tokenizer = tokenizer
        return [[int(token) for token in row] for row in out]

    def _answer(self, question: str, row: list[int], new: list[int], seconds: float) -> Answer:
        tokenizer = self.extension.tokenizer
        if tokenizer.eos_token_id in new:
            new = new[: new.index(tokenizer.eos_token_id) + 1]
        text = str(tokenizer.decode(new, skip_special_tokens=True))
        for stop in stops(tokenizer):
            text = text.split(stop)[0]
        answer = without_repeats(text)
        usage = Usage(
            input_tokens=self.info.tokens + len(row),
            read_tokens=len(row),
            dropped_tokens=self._dropped,
            output_tokens=len(new),
            seconds=seconds,
            peak_bytes=peak_rss(),
        )
        texts = [p.span.text for p in self._evidence.passages]
        return Answer(
            answer,
            rank_by_support(answer, question, self._evidence.of(answer, question)),
            usage,
            unsupported_words(answer, texts),
        )


def open_context(
    directory: str | os.PathLike[str],
    *,
    model: str | None = None,
    device: str = "auto",
    verify: bool = False,
    progress: Progress | None = None,
) -> Context:
    """Open a saved context for questions.

    Args:
        directory: That `save_context` wrote.
        model: None: the model that it was saved with; else one with the same weights.
        device: See `load_model`.
        verify: Read every byte and compare the checksum first; otherwise sizes and form are
            checked, and keys are read from disk when they are met.
        progress: Called with what is being done.

    Raises:
        InputError: The directory is damaged, or model or tokenizer are not those it was made with.
        PathNotFound: There is no such directory.
    """
    tell = progress or silent
    folder = Path(directory)
    if not folder.is_dir():
        raise PathNotFound(
            f"There is no saved context at {folder}. Make one: unspool context save."
        )
    header = _header(folder)
    facts = header["facts"]
    tell("Loading the model", 0, None)
    loaded = load_model(model or facts["name"], dtype=facts["dtype"], device=device)
    extension = _extended(loaded, header["method"])
    try:
        for key, own in (
            ("weights", weights_digest(extension.model)),
            ("tokenizer", tokenizer_digest(extension.tokenizer)),
        ):
            if facts[key] != own:
                raise InputError(
                    f"{folder} was saved with {facts['identity']}, and the {key} of {loaded.name} "
                    f"are not the same. Give --model, or save the context again."
                )
        tell("Opening", 0, None)
        stream = extension.stream().load(folder, verify=verify)
        found = passages(facts["documents"], _read_text(folder))
    except BaseException:
        extension.remove()
        raise
    return Context(extension, stream, context_info(folder), found)


def _extended(loaded: Any, method: str) -> Extension:
    from unspool.backends.transformers import TransformersModel
    from unspool.extension import extend

    if not isinstance(loaded, TransformersModel):
        raise ConfigError(f"{loaded.name} is not a local model; a context is kept in its cache.")
    extension = extend(loaded.model, method, tokenizer=loaded.tokenizer)
    if extension.prompt_method is not None:
        extension.remove()
        raise ConfigError(
            f"{method!r} reads the text anew for each question, so there is nothing to keep. "
            f"Choose squeezed, or another method that keeps a cache."
        )
    return extension


def _check_fits(extension: Extension, tokens: int, method: str) -> None:
    capacity = extension.capacity
    if capacity is not None and tokens + 128 > capacity:
        raise OverflowPolicyError(
            f"The texts have {tokens:,} tokens, and {method} takes {capacity:,} with question and "
            f"answer (128 at least). Give less text, a model with a longer window, or a method "
            f"that reads any length, such as infllm."
        )


def _header(folder: Path) -> dict[str, Any]:
    header = read_header(folder, _FORMAT)
    facts = header.get("facts") or {}
    if facts.get("context") != _FORMAT:
        raise InputError(f"{folder} is a saved stream, not a context. Use Stream.load.")
    facts["tokens"] = header["prefill_end"]
    return header


def _read_text(folder: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(folder / "stream.safetensors"), framework="pt") as file:
        return bytes(file.get_tensor("text").numpy()).decode()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
