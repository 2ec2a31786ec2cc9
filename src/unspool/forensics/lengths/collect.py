"""Ask a model the same prompt several times and keep how long its answers are.

Source: Perez-Ramirez et al. (2025), "CASTILLO", section 3.1 and 3.2.
Differs from the released code: answers are drawn through `LanguageModel`, one after the other and
each from a seed of its own, at a temperature and without top-k or top-p (rows say 0 and 1.0). The
cap is one number for the whole run and stands in every row. A prompt over the limit is an error
unless it may be shortened, and then the row says by how many tokens.
Cost: `n` answers a prompt. Each row is on disk before the next is begun.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool._overflow import fit, shorten
from unspool.errors import ConfigError, InputError, RunConflict
from unspool.forensics._jsonl import appending, read_records
from unspool.forensics.lengths.rows import Row, prompt_id, row_of, sample_id, summary
from unspool.types import Generation, LanguageModel, Overflow


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, where it comes from, and its kind."""

    text: str
    dataset: str = "prompts"
    category: str = "undefined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """How answers are drawn."""

    n: int = 10
    """Answers a prompt."""
    cap: int = 1024
    """Most tokens of an answer."""
    max_prompt: int = 2500
    """Most tokens of a prompt, before the chat template."""
    temperature: float = 1.0
    seed: int = 0
    """Answer k of a prompt is drawn from seed + k."""
    on_overflow: Overflow = "error"

    def __post_init__(self) -> None:
        if self.n < 2 or self.cap < 2 or self.max_prompt < 1:
            raise ConfigError(
                f"A collection needs n >= 2, cap >= 2 and max_prompt >= 1, got n={self.n}, "
                f"cap={self.cap}, max_prompt={self.max_prompt}."
            )
        if not math.isfinite(self.temperature) or self.temperature <= 0:
            raise ConfigError(
                f"temperature must be above 0 and finite, got {self.temperature}: at 0 all answers "
                f"are the same."
            )
        if self.on_overflow == "window":
            raise ConfigError("on_overflow='window' is not for prompts: choose error or truncate.")


_FIELDS = {"plain": "prompt", "dolly": "instruction", "alpaca": "instruction", "sharegpt": "first"}


def read_questions(path: str | Path, kind: str = "plain") -> list[Question]:
    """Prompts from JSON records.

    Args:
        path: JSON lines or an array.
        kind: `plain` (fields prompt, and if there are any dataset and category), or the form of a
            corpus of the paper: `dolly`, `alpaca`, `sharegpt`.

    Raises:
        ConfigError: There is no such kind.
        InputError: A record lacks its prompt, or there is none.
    """
    if kind not in _FIELDS:
        raise ConfigError(f"kind must be one of {', '.join(_FIELDS)}, got {kind!r}.")
    place = Path(path)
    found = [
        _question(record, kind, f"Record {n} of {place.name}")
        for n, record in enumerate(read_records(place), 1)
    ]
    if not found:
        raise InputError(f"There are no prompts in {place.name}.")
    return found


def _question(record: dict[str, Any], kind: str, where: str) -> Question:
    if kind == "sharegpt":
        turns = record.get("conversations") or []
        human = [t.get("value") for t in turns if isinstance(t, dict) and t.get("from") == "human"]
        text, rest = (human[0] if human else None), ""
    else:
        text = record.get(_FIELDS[kind])
        rest = {"dolly": "\nContext: ", "alpaca": "\nInput: "}.get(kind, "")
        more = record.get({"dolly": "context", "alpaca": "input"}.get(kind, ""), "")
        rest = rest + str(more) if more else ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no prompt (form {kind!r}).")
    default = "prompts" if kind == "plain" else kind
    return Question(
        text + rest,
        str(record.get("dataset") or default),
        str(record.get("category") or "undefined"),
    )


def collect(
    model: LanguageModel,
    questions: Sequence[Question],
    settings: Collection | None = None,
    *,
    out: str | Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Draw answers to every question; with `out`, go on where a run was stopped.

    Args:
        model: Answers through its chat template where it has one.
        questions: Repeated ones are asked once.
        settings: How answers are drawn.
        out: A JSON lines file that rows are appended to.
        on_progress: Called with rows done and rows in all.

    Raises:
        OverflowPolicyError: A prompt is longer than `max_prompt` and may not be shortened.
        RunConflict: `out` holds rows that were drawn under other settings.
    """
    settings = settings or Collection()
    asked = list({prompt_id(q.dataset, q.text): q for q in questions}.values())
    if out is None:
        rows = []
        for number, question in enumerate(asked):
            rows.append(_ask(model, question, settings))
            on_progress(number + 1, len(asked))
        return rows
    place = Path(out)
    with appending(place) as (held, append):
        done = {}
        for n, record in enumerate(held, 1):
            row = row_of(record, f"Row {n} of {place.name}")
            _check_same(row, settings, place)
            done[row.sample_id] = row
        rows = []
        for number, question in enumerate(asked):
            key = _id(model, question, settings)
            if key not in done:
                done[key] = _ask(model, question, settings)
                append(done[key].to_json())
            rows.append(done[key])
            on_progress(number + 1, len(asked))
    return rows


def _check_same(row: Row, settings: Collection, place: Path) -> None:
    had = (len(row.output_sizes), row.cap, row.temp, row.seed)
    want = (settings.n, settings.cap, settings.temperature, settings.seed)
    if had != want:
        raise RunConflict(
            f"{place.name} holds rows with (n, cap, temperature, seed) {had}, and {want} was asked "
            f"for. Choose another file, or the same settings."
        )


def _id(model: LanguageModel, question: Question, settings: Collection) -> str:
    return sample_id(
        question.dataset,
        model.name,
        question.text,
        top_k=0,
        top_p=1.0,
        temp=settings.temperature,
    )


def _ask(model: LanguageModel, question: Question, settings: Collection) -> Row:
    text, dropped = _shortened(model, question.text, settings)
    chat = getattr(model.tokenizer, "chat_template", "endpoint")
    prompt: Any = [{"role": "user", "content": text}] if chat else text
    started = time.perf_counter()
    answers = [
        model.generate(
            [prompt],
            max_tokens=settings.cap,
            temperature=settings.temperature,
            seed=settings.seed + k,
        )[0]
        for k in range(settings.n)
    ]
    seconds = time.perf_counter() - started
    sizes = tuple(size_of(answer) for answer in answers)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    return Row(
        sample_id=_id(model, question, settings),
        prompt_id=prompt_id(question.dataset, question.text),
        model=model.name,
        dataset=question.dataset,
        prompt_text=question.text,
        longest_response=answers[order[-1]].text,
        shortest_response=answers[order[0]].text,
        input_size=answers[0].usage.input_tokens,
        output_sizes=sizes,
        **summary(sizes),
        top_k=0,
        top_p=1.0,
        temp=settings.temperature,
        category=question.category,
        gen_time=round(seconds, 3),
        cap=settings.cap,
        seed=settings.seed,
        dropped_tokens=dropped,
    )


def size_of(answer: Generation) -> int:
    """Tokens of an answer with its end; cap + 1 if it was cut, so that a cut can be told."""
    return max(1, answer.usage.output_tokens + (answer.finish_reason == "length"))


def _shortened(model: LanguageModel, text: str, settings: Collection) -> tuple[str, int]:
    tokenizer = model.tokenizer
    if tokenizer is None:  # an endpoint counts for itself
        return text, 0
    ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    if settings.on_overflow == "error":
        fit(ids, settings.max_prompt, "error", what="The prompt")
    kept = shorten(ids, settings.max_prompt, keep="head")
    return (str(tokenizer.decode(kept.ids)), kept.dropped) if kept.dropped else (text, 0)
