"""Summarise texts of any length with a model of any window, with evidence, and go on after a stop.

What: all texts in order are cut into chunks, a workflow turns chunks into one summary, and each of
its sentences is looked up in the texts.
Source: Chang et al. (2023), "BooookScore", arXiv 2310.00785, section 2: hierarchical merging and
incremental updating.
Differs from the released code: see `summary.chunk`, `summary.hierarchical`, `summary.incremental`;
tokens are the model's own; a chunk that fits no window is divided, so the whole text is read;
answers are tidied (`summary.tidy`), and small models are held to the text (`summary.quoted`).
Cost: hierarchical reads the text once and each level of summaries once; incremental reads the text
once and the summary so far with every chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unspool._machine import peak_rss
from unspool._optional import require
from unspool.errors import ConfigError, InputError, RunConflict
from unspool.reading.summary import hierarchical, incremental
from unspool.reading.summary.calls import Caller
from unspool.reading.summary.chunk import chunk
from unspool.reading.summary.evidence import SummarySentence, with_evidence
from unspool.reading.summary.plan import CallPlan, plan_calls
from unspool.reading.summary.prompts import Templates, plain
from unspool.reading.summary.quoted import hold
from unspool.reading.summary.tidy import tidy
from unspool.reading.summary.workflow import SMALL, Node, SummarySettings, Tools
from unspool.reading.tokens import counter
from unspool.types import Document, LanguageModel, Usage

Progress = Callable[[str, "int | float", "int | float | None"], None]
AnyPath = str | os.PathLike[str]

_SMALL_PARAMETERS = 1_000_000_000
DEFAULT_WINDOW = 8192
"""Where a model tells no window."""
_PLAN, _CALLS, _RESULT = "plan.json", "calls.jsonl", "summary.json"


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary, where its sentences come from, how it was made, and the cost."""

    text: str
    sentences: tuple[SummarySentence, ...]
    chunks: tuple[str, ...]
    tree: tuple[Node, ...]
    """Every summary on the way, by level; level 0 is made of chunks, the last node is the text."""
    usage: Usage
    calls: int
    replayed: int = 0
    """Calls that an earlier, interrupted run had paid for."""

    @property
    def invalid(self) -> int:
        """Summaries on the way that were taken though they are too long or end badly."""
        return sum(not node.valid for node in self.tree)

    @property
    def filled(self) -> int:
        """Sentences of the text in the summaries on the way, in place of the model's."""
        return sum(node.filled for node in self.tree)

    def to_json(self) -> dict[str, Any]:
        return {
            "summary": self.text,
            "sentences": [sentence.to_json() for sentence in self.sentences],
            "usage": self.usage.to_json(),
            "calls": self.calls,
            "chunks": len(self.chunks),
            "invalid": self.invalid,
            "filled": self.filled,
            "tree": [node.to_json() for node in self.tree],
        }


def summarize(
    paths: AnyPath | Sequence[AnyPath] | None = None,
    *,
    documents: Sequence[Document] | None = None,
    model: str | LanguageModel | None = None,
    endpoint: str | None = None,
    api_key: str | None = None,
    window: int | None = None,
    settings: SummarySettings | None = None,
    out: AnyPath | None = None,
    evidence: bool = True,
    progress: Progress | None = None,
    **changes: Any,
) -> Summary:
    """Summarise texts of any length.

    Args:
        paths: Files and folders of txt, md, html, jsonl or parquet, or "-" for standard input.
        documents: In place of paths, texts that are at hand.
        model: A loaded model, a Hugging Face id or a folder; None: the embedded one.
        endpoint: An OpenAI-compatible server instead; `model` is then the name it serves.
        api_key: For the endpoint; see `load_model`.
        window: Most tokens of a prompt and its answer; None: the model's window, or 8,192.
        settings: How to go about it; `changes` are fields of it, such as workflow="incremental".
            None: what suits the model, see `default_settings`.
        out: Folder that keeps every answer, so that an interrupted call goes on where it was.
        evidence: Look each sentence up in the texts.
        progress: Called with what is being done, how much and of how much.

    Returns:
        The summary; its usage counts the tokens of the text once as input and all that was read in
        prompts. No token of the text is dropped.

    Raises:
        InputError: There is no text.
        PathNotFound: A path does not exist.
        ConfigError: A setting cannot work, or the window is too small; the message says the least.
        RunConflict: `out` holds a summary of other texts, settings or another model.
        BackendError: The model or endpoint failed.
    """
    started = time.perf_counter()
    tell = progress or (lambda stage, done, total: None)
    texts = _texts(paths, documents)
    _settings(settings, changes)  # says what is wrong before a model is loaded
    reading = _model(model, endpoint, api_key, tell)
    settings = _settings(settings or default_settings(reading), changes)
    tools, chunks = _prepare(texts, reading, window, settings)
    folder = Path(out) if out is not None else None
    if folder is not None:
        _keep_plan(folder, _plan(texts, reading, tools.window, settings))
    expected = plan_calls(chunks, settings, tools).calls
    stage = "Summarising"
    tell(stage, 0, expected)
    caller = Caller(
        reading,
        folder / _CALLS if folder else None,
        seed=settings.seed,
        done=lambda calls: tell(stage, calls, max(calls, expected)),
    )
    work = hierarchical if settings.workflow == "hierarchical" else incremental
    tools = replace(tools, ask=caller, mend=_mender(settings, tools.count))
    tree = work.summarise(chunks, settings, tools)
    text = tree[-1].text
    tell("Looking for evidence", 0, None)
    found = with_evidence(text, texts) if evidence else ()
    usage = replace(
        caller.usage,
        input_tokens=sum(tools.count(document.text) for document in texts),
        seconds=time.perf_counter() - started,
        peak_bytes=max(caller.usage.peak_bytes, peak_rss()),
    )
    made = Summary(text, found, tuple(chunks), tuple(tree), usage, caller.calls, caller.replayed)
    if folder is not None:
        row = {k: v for k, v in made.to_json().items() if k != "usage"}  # no times: same bytes
        _write(folder / _RESULT, row)
    return made


def plan_summary(
    paths: AnyPath | Sequence[AnyPath] | None = None,
    *,
    documents: Sequence[Document] | None = None,
    model: str | LanguageModel | None = None,
    endpoint: str | None = None,
    window: int | None = None,
    **changes: Any,
) -> CallPlan:
    """What summarising would cost at most if every answer is valid; nothing is asked."""
    texts = _texts(paths, documents)
    _settings(None, changes)
    reading = _model(model, endpoint, None, lambda stage, done, total: None)
    settings = _settings(default_settings(reading), changes)
    tools, chunks = _prepare(texts, reading, window, settings)
    return plan_calls(chunks, settings, tools)


def default_settings(model: LanguageModel) -> SummarySettings:
    """The settings of the paper; for a local model of under a billion parameters, `SMALL`."""
    counted = getattr(getattr(model, "model", None), "num_parameters", None)
    if callable(counted) and counted() < _SMALL_PARAMETERS:
        return SummarySettings(**SMALL)
    return SummarySettings()


def _settings(settings: SummarySettings | None, changes: dict[str, Any]) -> SummarySettings:
    known = SummarySettings.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise ConfigError(f"There is no setting {name!r}. There are {', '.join(known)}.")
    return replace(settings or SummarySettings(), **changes)


def _texts(
    paths: AnyPath | Sequence[AnyPath] | None, documents: Sequence[Document] | None
) -> list[Document]:
    if (paths is None) == (documents is None):
        raise ConfigError("Give either paths or documents.")
    if paths is not None:
        from unspool.corpus.readers import read_documents

        documents = list(
            read_documents(paths if isinstance(paths, str | os.PathLike) else [*paths])
        )
    texts = [each for each in documents or () if each.text.strip()]
    if not texts:
        raise InputError("There is no text to summarise in what was given.")
    return texts


def _model(
    model: str | LanguageModel | None, endpoint: str | None, api_key: str | None, tell: Progress
) -> LanguageModel:
    if model is not None and not isinstance(model, str):
        return model
    from unspool.backends.load import load_model

    tell("Loading the model", 0, None)
    if model is None and endpoint is None and not _has_gpu():
        return load_model(weights="int8")  # writing is what takes the time on a CPU
    return load_model(model, endpoint=endpoint, api_key=api_key)


def _has_gpu() -> bool:
    torch = require("torch", extra="read", purpose="Running a model")
    return bool(torch.cuda.is_available())


def _prepare(
    texts: Sequence[Document], model: LanguageModel, window: int | None, settings: SummarySettings
) -> tuple[Tools, list[str]]:
    _, counts = counter(model)

    def count(text: str) -> int:
        return counts([text])[0]

    limit = model.window if window is None else window
    if window is not None and model.window is not None and window > model.window:
        raise ConfigError(
            f"window={window:,} is more than {model.name} can take, {model.window:,} tokens."
        )
    room = (DEFAULT_WINDOW if limit is None else limit) - _wrapper(model)
    tools = Tools(_nothing, count, room, plain() if settings.plain else Templates())
    chunks = chunk("\n".join(each.text for each in texts), settings.chunk_size, count, divide=True)
    if len(chunks) > 1:
        work = hierarchical if settings.workflow == "hierarchical" else incremental
        least = work.least_window(settings, tools)
        if least > room:
            raise ConfigError(
                f"A {settings.workflow} summary with chunk_size={settings.chunk_size:,} and "
                f"max_summary={settings.max_summary:,} needs a window of at least "
                f"{least + _wrapper(model):,} tokens, and there are {room + _wrapper(model):,}. "
                f"Take smaller ones, or a model with a larger window."
            )
    return tools, chunks


def _mender(
    settings: SummarySettings, count: Callable[[str], int]
) -> Callable[[str, str, int], tuple[str, int]]:
    """What is taken of an answer: see `summary.tidy` and `summary.quoted`."""

    def mend(said: str, source: str, limit: int) -> tuple[str, int]:
        if settings.tidy:
            said = tidy(said)
        if not settings.quoted:
            return said, 0
        held = hold(said, source, settings.quoted, limit, count)
        # Where a text has no sentence at all, such as a table, the model's words are all there is.
        return (held.text, held.filled) if held.text else (said, 0)

    return mend


def _nothing(prompt: str, max_tokens: int, temperature: float | int) -> str:
    raise ConfigError("A plan asks no model.")


def _wrapper(model: LanguageModel) -> int:
    """Tokens that a chat template adds to a prompt."""
    from unspool.backends.prompts import encode_prompt, has_chat_template

    if model.tokenizer is None:
        return 64  # an endpoint does not tell its template
    if not has_chat_template(model.tokenizer):
        return 8
    return len(encode_prompt(model.tokenizer, [{"role": "user", "content": "."}]))


def _plan(
    texts: Sequence[Document], model: LanguageModel, window: int, settings: SummarySettings
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for each in texts:
        digest.update(f"{each.id}\0{each.text}\0".encode("utf-8", "surrogatepass"))
    held = {"texts": digest.hexdigest(), "model": model.name, "window": window}
    return {**asdict(settings), **held}


def _keep_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan of a new folder, or check that it is the same."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder.name} is a file. Give a folder for --out.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _PLAN
    if not path.exists():
        strange = [each.name for each in folder.iterdir() if not each.name.startswith(".")]
        if strange:
            raise ConfigError(
                f"{folder.name} holds other files ({strange[0]}). Give a new or empty folder."
            )
        _write(path, plan)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{_PLAN} in {folder.name} is damaged: {error}.") from error
    for name, value in plan.items():
        if before.get(name) != value:
            raise RunConflict(
                f"{folder.name} was begun with {name}={before.get(name)!r}, and now it is "
                f"{value!r}. Choose another folder, or go back to the former."
            )


def _write(path: Path, value: Any) -> None:
    """A file that is there whole or not at all."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=True, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
