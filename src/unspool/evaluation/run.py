"""`evaluate`: plan, build, shorten, call, append, score, aggregate, report, in one run folder.

What: `samples.jsonl` and `manifest.json` are the plan, `responses.jsonl` only grows, and
`scores.jsonl`, `report.json` and `cost.json` are made from them. The same call on the same folder
continues.
Source: the run logs of inspect-ai and the task runner of lm-evaluation-harness.
Differs from both: a run resumes inside a task at the request where it was killed, and `report.json`
is then the same, byte for byte; a run with other settings is refused by the name of the setting.
Cost: under 2 ms a request beside the model.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool import _machine
from unspool.errors import ConfigError, InputError
from unspool.evaluation import _io
from unspool.evaluation.cache import ResponseCache
from unspool.evaluation.call import call_all
from unspool.evaluation.cost import Cost, Price, price_of, total
from unspool.evaluation.effective import RULES, threshold_of
from unspool.evaluation.fit import Fitter
from unspool.evaluation.manifest import MANIFEST, check_same, manifest_of
from unspool.evaluation.plan import (
    SAMPLES,
    Item,
    Progress,
    RunSettings,
    adjusted,
    items_of,
    planned_cost,
    read_plan,
    request_for,
    sample_at,
    write_plan,
)
from unspool.evaluation.report import RESPONSES, Report, score_folder
from unspool.evaluation.tasks import find_tasks
from unspool.evaluation.tasks.base import Task
from unspool.types import LanguageModel

COST = "cost.json"
RUN = "run.json"
_ENDPOINT_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What a run would ask, and at most cost, by task and level."""

    model: str
    costs: dict[tuple[str, str], Cost]

    @property
    def total(self) -> Cost:
        return total(self.costs.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "levels": [
                {"task": task, "level": level, **cost.to_json()}
                for (task, level), cost in self.costs.items()
            ],
            "total": self.total.to_json(),
        }


def evaluate(
    model: LanguageModel | str | None,
    tasks: str | Sequence[str | Task],
    *,
    out: str | os.PathLike[str],
    lengths: Sequence[str] = (),
    limit: int | None = None,
    settings: RunSettings | None = None,
    cache: str | os.PathLike[str] | None = None,
    prices: dict[str, Price] | None = None,
    rules: Sequence[str] = RULES,
    monotone: bool = True,
    tokenizer: Any = None,
    window: int | None = None,
    concurrency: int | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Run benchmarks on a model, or continue where an earlier call on the same folder stopped.

    Args:
        model: Any `LanguageModel`, or what `unspool.load_model` takes: a Hugging Face id, a folder,
            None for the embedded model.
        tasks: Names (`benchmark/task`, `benchmark`, `benchmark/ability`) or `Task` objects.
        out: The run folder; made if it is not there.
        lengths: Levels such as `8k`, in each task's own unit; empty: the tasks' own levels.
        limit: Most samples a task and level.
        settings: Everything else that decides the requests; `lengths` and `limit` go before it.
        cache: A file of answers to use and to add to; None: none.
        prices: Of tokens, by model name, for `cost.json`.
        rules: Of effective length: `ruler`, `nolima`, `threshold:X`.
        monotone: An effective length needs every shorter level to pass too.
        tokenizer: To count and shorten with, for a model that tells none; see `fit.Fitter`.
        window: Most tokens of prompt and answer; None: what the model says.
        concurrency: Requests under way at once; None: 8 for an endpoint, else 1.
        batch: Requests given to the model in one call.
        progress: Called with stage, how much is done, of how much.

    Raises:
        ConfigError: A setting has a value that cannot work, or a task is unknown.
        RunConflict: The folder holds a run with other settings; the message names the field.
        RunLocked: Another process is working in the folder.
        OverflowPolicyError: A prompt does not fit and may not be shortened. Nothing was sent.
        BackendError: The model failed; what was answered is kept, and the same call continues.
    """
    if model is None or isinstance(model, str):
        from unspool.backends.load import load_model
        from unspool.backends.prefix import keep_prefixes

        model = keep_prefixes(load_model(model))
    setup = _setup(model, tasks, lengths, limit, settings, tokenizer, window)
    for rule in rules:
        threshold_of(rule)
    if batch < 1 or (concurrency is not None and concurrency < 1):
        raise ConfigError(f"batch and concurrency must be >= 1, got {batch} and {concurrency}.")
    price = price_of(model.name, prices) if prices is not None else None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"The run folder {folder} is a file. Choose another name.")
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(_io.locked(folder))
        _io.remove_temporary(folder)
        items = _planned(folder, setup, progress)
        log = _io.Appender(folder / RESPONSES)
        stack.callback(log.close)
        answered = {_key(row) for row in log.records}
        missing = [item for item in items if item.key not in answered]
        file = stack.enter_context((folder / SAMPLES).open("rb"))
        by_name = {task.spec.name: task for task in setup.tasks}
        tally = _Tally(items, missing, progress)

        def build(item: Item) -> Any:
            return request_for(
                by_name[item.task],
                sample_at(file, item.offset),
                setup.fitter,
                setup.settings,
                item,
            )

        store = None
        if cache is not None and missing:
            store = stack.enter_context(ResponseCache(Path(cache), model))
        try:
            call_all(
                model,
                missing,
                build,
                log,
                store,
                concurrency=concurrency or (_ENDPOINT_REQUESTS if model.tokenizer is None else 1),
                batch=batch,
                done=tally.done,
            )
        finally:
            _note_run(folder, time.perf_counter() - started, tally.calls)
        report = score_folder(
            folder, setup.tasks, rules=rules, monotone=monotone, progress=progress
        )
        _io.write_atomic(folder / COST, [_io.canonical(_paid(folder, price))])
    return report


def plan_run(
    model: LanguageModel,
    tasks: str | Sequence[str | Task],
    *,
    lengths: Sequence[str] = (),
    limit: int | None = None,
    settings: RunSettings | None = None,
    prices: dict[str, Price] | None = None,
    tokenizer: Any = None,
    window: int | None = None,
    progress: Progress | None = None,
) -> PlannedRun:
    """What a run would cost; nothing is sent and nothing is kept. Arguments as in `evaluate`."""
    setup = _setup(model, tasks, lengths, limit, settings, tokenizer, window)
    price = price_of(model.name, prices) if prices is not None else None
    with tempfile.TemporaryFile() as file:
        items = write_plan(file, setup.tasks, setup.settings, setup.fitter, progress)
    costs = planned_cost(items, {task.spec.name: task.spec.kind for task in setup.tasks})
    return PlannedRun(model.name, {key: cost.priced(price) for key, cost in costs.items()})


class _Tally:
    """Says how far the answers are: in tokens where they are known, since long prompts go first."""

    def __init__(
        self, items: Sequence[Item], missing: Sequence[Item], progress: Progress | None
    ) -> None:
        self.calls = 0
        self._known = all(item.prompt_tokens is not None for item in items)
        self._stage = "answering" if self._known else "answering one by one"
        self._progress = progress
        self._lock = threading.Lock()
        self._total = sum(map(self._weight, items))
        self._done = self._total - sum(map(self._weight, missing))
        if missing:
            self._say()

    def done(self, item: Item) -> None:
        with self._lock:
            self.calls += 1
            self._done += self._weight(item)
            self._say()

    def _weight(self, item: Item) -> int:
        return (item.prompt_tokens or 0) + item.reserve if self._known else 1

    def _say(self) -> None:
        if self._progress is not None:
            self._progress(self._stage, self._done, self._total)


@dataclass(frozen=True, slots=True)
class _Setup:
    model: LanguageModel
    tasks: list[Task]
    settings: RunSettings
    fitter: Fitter


def _setup(
    model: LanguageModel,
    tasks: str | Sequence[str | Task],
    lengths: Sequence[str],
    limit: int | None,
    settings: RunSettings | None,
    tokenizer: Any,
    window: int | None,
) -> _Setup:
    from dataclasses import replace

    settings = settings or RunSettings()
    if isinstance(lengths, str):
        lengths = lengths.split(",")
    if lengths:
        settings = replace(settings, lengths=tuple(lengths))
    if limit is not None:
        settings = replace(settings, limit=limit)
    if window is not None and window < 1:
        raise ConfigError(f"window must be >= 1, got {window}.")
    chosen: dict[str, Task] = {}
    for each in [tasks] if isinstance(tasks, str) else tasks:
        for task in find_tasks(each) if isinstance(each, str) else [each]:
            chosen[task.spec.name] = task
    if not chosen:
        raise ConfigError("No task was named. 'unspool list tasks' shows what there is.")
    fitter = Fitter(
        name=model.name,
        tokenizer=model.tokenizer if model.tokenizer is not None else tokenizer,
        window=min((w for w in (model.window, window) if w is not None), default=None),
        chat=settings.chat,  # type: ignore[arg-type] # RunSettings checked the word
        keep=settings.keep,  # type: ignore[arg-type] # as above
        counts_for_model=model.tokenizer is not None,
    )
    return _Setup(model, adjusted(list(chosen.values()), settings), settings, fitter)


def _planned(folder: Path, setup: _Setup, progress: Progress | None) -> list[Item]:
    """The plan of the folder; made now if there is none, checked if there is."""
    wanted = manifest_of(setup.model, setup.tasks, setup.settings, setup.fitter)
    path = folder / SAMPLES
    if (folder / MANIFEST).exists():
        check_same(folder, wanted)
        return read_plan(path)
    if (folder / RESPONSES).exists():
        raise InputError(
            f"The folder {folder.name} holds {RESPONSES} and no {MANIFEST}, so nothing says what "
            f"was asked. Choose another folder."
        )
    with _io.replacing(path) as file:
        items = write_plan(file, setup.tasks, setup.settings, setup.fitter, progress)
    complete = {**wanted, "data": {SAMPLES: _io.sha256(path)}}
    _io.write_atomic(folder / MANIFEST, [_io.canonical(complete)])
    return items


def _key(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return row["task"], row["level"], row["sample"], row["request"]


def _paid(folder: Path, price: Price | None) -> dict[str, Any]:
    """What the answers in the folder cost, by task and level."""
    sends = {
        item.key: item.sends
        for offset, row in _io.read_lines(folder / SAMPLES)
        for item in items_of(row, offset)
    }
    costs: dict[tuple[str, str], Cost] = {}
    for _, row in _io.read_lines(folder / RESPONSES):
        answer = row["response"]
        times = sends.get(_key(row), 1)
        cost = costs.setdefault((row["task"], row["level"]), Cost())
        output = 0 if answer["logprobs"] else answer["completion_tokens"]
        cost.add(
            answer["prompt_tokens"] * times,
            output,
            truncated=answer["truncated_tokens"],
            cached=answer["cached_tokens"] * times,
        )
        cost.first_token_seconds += answer["first_token_seconds"]
        cost.seconds += answer["seconds"]
        cost.peak_bytes = max(cost.peak_bytes, answer["peak_bytes"])
    for cost in costs.values():
        cost.priced(price)
    levels = [{"task": t, "level": lv, **c.to_json()} for (t, lv), c in sorted(costs.items())]
    return {"levels": levels, "total": total(costs.values()).to_json()}


def _note_run(folder: Path, seconds: float, calls: int) -> None:
    """Add this session to `run.json`, the only file with times and the machine."""
    path = folder / RUN
    try:
        sessions = list(orjson.loads(path.read_bytes())["sessions"])
    except (OSError, ValueError, KeyError, TypeError):
        sessions = []
    sessions.append(
        {
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 3),
            "answers": calls,
            "machine": _machine.describe(),
            "peak_bytes": _machine.peak_rss(),
        }
    )
    _io.write_atomic(path, [_io.canonical({"sessions": sessions})])
