"""`unspool ask`: a question about texts of any length, answered with the passages it rests on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from unspool.cli._output import (
    emit_json,
    emit_text,
    human_number,
    human_seconds,
    message,
    printable,
    progress,
)
from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from unspool.types import Answer

_OPTIONS = (
    "--model",
    "--endpoint",
    "--method",
    "--top-k",
    "--read-tokens",
    "--max-tokens",
    "--passages",
    "--context",
    "--keep",
    "--dtype",
    "--json",
)
_SHOWN = 3
_UNITS = {"reading": "B", "indexing": "B", "Reading": "tokens", "Summarising": "calls"}


_EXAMPLES = """
The question comes last, in quotes. Texts are prepared once and kept in the cache, so the next
question about them starts at once. For example:

    unspool ask handbook.txt "Who may open the archive?"

    unspool ask docs/ notes.md "How is a release made?" --read-tokens window

    unspool ask docs/ "How is a release made?" --model Qwen/Qwen3-0.6B --json

    unspool ask book.txt "Who wrote the letter?" --method infini-retri:layer=auto

    unspool ask docs/ "How is a release made?" --endpoint http://localhost:8000/v1

    unspool ask --context handbook.ctx "Who may open the archive?"
"""

app = App(
    name="ask",
    help="Answer a question from texts of any length, with evidence.",
    usage="Usage: unspool ask [OPTIONS] PATH… QUESTION",
    help_epilogue=_EXAMPLES,
)


@app.default
def ask(
    arguments: Annotated[
        tuple[str, ...],
        # A lone - is standard input; misspelt options are told apart in _split.
        Parameter(allow_leading_hyphen=True, show_default=False),
    ] = (),
    /,
    *,
    model: str | None = None,
    endpoint: str | None = None,
    method: str = "bm25",
    top_k: int | None = None,
    read_tokens: str | None = None,
    max_tokens: int = 64,
    passages: int = _SHOWN,
    context: Path | None = None,
    keep: float | None = None,
    dtype: Literal["float32", "bfloat16", "float16", "fastest"] | None = None,
    json: bool = False,
) -> None:
    """Answer a question from files and folders of any length, with evidence.

    Args:
        arguments: Files, folders, or - for standard input; then the question.
        model: A Hugging Face id, a folder with a model, or the name that the endpoint serves.
            Default: SmolLM2-135M-Instruct, which comes with the package.
        endpoint: An OpenAI-compatible server, such as http://localhost:8000/v1. Its key is taken
            from UNSPOOL_API_KEY or OPENAI_API_KEY.
        method: What the model is given. bm25: the best passages by their words, prepared once;
            bm25:last=0 keeps them in document order. xl3m, infini-retri, infllm and every other
            name of 'unspool list methods': the model itself reads the whole text, for each
            question anew. auto: chosen by model and length, with the reason.
        top_k: With bm25: most pieces of text (about 400 bytes each) to read.
        read_tokens: With bm25: most tokens to read, a number, or `window` for all that the model
            can take. Default: 2048, or the window less the answer if that is smaller.
        max_tokens: Most tokens of the answer.
        passages: Passages to quote below the answer; --json has every one that was read.
        context: A folder that 'unspool context save' made, in place of paths: the text was read
            before, and only the question is read now.
        keep: With --context: share of its keys to load, in (0, 1]. Default: as it was saved.
        dtype: Numbers that the model computes in. fastest: measured once on this machine; long
            texts are read up to twice as fast in bfloat16 where the processor knows it, and
            answers may differ in a word. Default: float32 for small models on a CPU.
        json: Print one JSON object.
    """
    if context is not None:
        given = {
            "--endpoint": endpoint,
            "--top-k": top_k,
            "--read-tokens": read_tokens,
            "--dtype": dtype,
        }
        if method != "bm25":
            given["--method"] = method
        _refuse_with_context(given)
        _ask_context(arguments, context, model, keep, max_tokens, passages, json)
        return
    if keep is not None:
        raise ConfigError("--keep goes with --context: it is the share of a saved context to load.")
    if dtype is not None and endpoint is not None:
        raise ConfigError(
            f"--dtype {dtype} says how a model computes here, and an endpoint computes as it was "
            f"started. Leave one of them out."
        )
    paths, question = _split(arguments)
    if passages < 0:
        raise ConfigError(f"--passages must be >= 0, got {passages}.")
    budget = _read_tokens(read_tokens)
    from unspool.reading.ask import ask as answer_question

    with bars(quiet=json) as shown:
        answer = answer_question(
            paths,
            question,
            model=model,
            endpoint=endpoint,
            method=method,
            explain=message,
            top_k=top_k,
            read_tokens=budget,
            max_tokens=max_tokens,
            dtype=dtype,
            progress=shown,
        )
    if json:
        emit_json(answer)
    else:
        _show(answer, passages, max_tokens)


def _refuse_with_context(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{name} says how a text is read, and a saved context was read before. Leave it "
                f"out, or give paths in place of --context."
            )


def _ask_context(
    arguments: Sequence[str],
    directory: Path,
    model: str | None,
    keep: float | None,
    max_tokens: int,
    passages: int,
    json: bool,
) -> None:
    if passages < 0:
        raise ConfigError(f"--passages must be >= 0, got {passages}.")
    _refuse_strange(arguments)
    if len(arguments) != 1:
        raise InputError(
            f"With --context give one argument, the question in quotes; got {len(arguments)}."
        )
    from unspool.reading.context import open_context

    with bars(quiet=json) as shown, open_context(directory, model=model, progress=shown) as opened:
        shown("Answering", 0, None)
        answer = opened.ask(arguments[0], keep=keep, max_tokens=max_tokens)
    if json:
        emit_json(answer)
    else:
        _show(answer, passages, max_tokens)


def _split(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Paths and question; says what is missing if one of them is."""
    _refuse_strange(arguments)
    if not arguments:
        raise InputError("Say what to read and what to ask: unspool ask PATH… 'QUESTION'.")
    *paths, question = arguments
    if not paths:
        if Path(question).exists():
            raise InputError(
                f"The question is missing. Put it last, in quotes: unspool ask {question} "
                f"'What is this about?'"
            )
        raise InputError(
            f"The path is missing. Put it before the question: unspool ask PATH… {question!r}"
        )
    if question.strip() and Path(question).exists():
        raise InputError(
            f"The last argument, {question!r}, is a path; the question comes last, in quotes."
        )
    return paths, question


def _refuse_strange(arguments: Sequence[str]) -> None:
    """Options that do not exist come as arguments."""
    strange = [a for a in arguments if a.startswith("-") and a != "-" and " " not in a]
    if strange:
        near = difflib.get_close_matches(strange[0], _OPTIONS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"The options are {', '.join(_OPTIONS)}."
        raise ConfigError(f"There is no option {strange[0]}. {hint}")


def _read_tokens(given: str | None) -> int | str | None:
    if given is None or given == "window":
        return given
    try:
        return int(given.replace(",", "").replace("_", ""))
    except ValueError:
        raise ConfigError(f"--read-tokens must be a number or 'window', got {given!r}.") from None


class _Bars:
    """One progress bar a stage; the next stage closes the one before."""

    def __init__(self, stack: ExitStack, quiet: bool) -> None:
        self._stack, self._quiet, self._stage = stack, quiet, ""

    def __call__(self, stage: str, done: int | float, total: int | float | None) -> None:
        if stage != self._stage:
            self._stack.close()
            self._stage = stage
            unit = _UNITS.get(stage, "units" if total else "")
            self._bar = self._stack.enter_context(
                progress(stage.capitalize(), total=total, unit=unit, quiet=self._quiet)
            )
        self._bar.update(done, total=total)


@contextmanager
def bars(quiet: bool) -> Iterator[_Bars]:
    """Progress bars of a call that tells its stages."""
    with ExitStack() as stack:
        yield _Bars(stack, quiet)


def _show(answer: Answer, passages: int, max_tokens: int) -> None:
    emit_text(answer.text or "(The model wrote nothing.)")
    if answer.unsupported:
        emit_text(f"\nNot in what was read: {', '.join(answer.unsupported)}")
    for number, passage in enumerate(answer.evidence[:passages], 1):
        span = passage.span
        name = printable(span.document, one_line=True)
        emit_text(f"\n[{number}] {name}, bytes {span.start:,}-{span.end:,}")
        emit_text("\n".join(f"    {line}" for line in span.text.strip("\n").split("\n")))
    if not answer.evidence:
        emit_text("\nNo passage of the text holds words of the answer or the question.")
    rest = len(answer.evidence) - passages
    if rest > 0:
        more = "passage" if rest == 1 else "passages"
        emit_text(f"\n{rest} more {more} (--passages {passages + rest} quotes them).")
    usage = answer.usage
    # A method may have read everything, and given up some of it before it answered.
    forgot = usage.dropped_tokens and usage.read_tokens >= usage.input_tokens
    lost = "dropped before the answer" if forgot else "not read"
    emit_text(
        f"\n{human_number(usage.input_tokens)} tokens in the text, "
        f"{human_number(usage.read_tokens)} read, "
        f"{human_number(usage.dropped_tokens)} of the text {lost}, "
        f"{human_number(usage.output_tokens)} written, {human_seconds(usage.seconds)}"
    )
    if usage.output_tokens >= max_tokens:
        emit_text(f"The answer is as long as --max-tokens allows ({max_tokens}); it may go on.")
