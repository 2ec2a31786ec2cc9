"""Write predictions into a folder, a record at a time; the same call goes on after a stop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from unspool.errors import InputError, RunConflict
from unspool.evaluation._io import Appender, canonical, locked, remove_temporary, write_atomic
from unspool.models.long_encoder.tasks.examples import Example
from unspool.models.long_encoder.tasks.predicting import predictions
from unspool.models.long_encoder.tasks.windows import Reading, reading_of

if TYPE_CHECKING:
    from unspool.models.long_encoder.tasks.heads import TaskModel

PREDICTIONS, RUN = "predictions.jsonl", "run.json"


def predict_into(
    folder: Path,
    model: TaskModel,
    examples: Sequence[Example],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    device: str | None = None,
    **options: Any,
) -> tuple[Reading, int]:
    """What was read by this call, and how many records an earlier one had done.

    Args:
        folder: Gets `predictions.jsonl`, a record a line in the order given, and `run.json`.
        model: Trained.
        examples: Records.
        on_progress: Told how many records are done, and of how many.
        device: "cpu" or "cuda".
        **options: As `predict` takes them.

    Raises:
        RunConflict: The folder holds predictions of another model, other records or other options.
        RunLocked: Another process is writing there.
    """
    key = {"model": _digest(model), "records": _records(examples), "options": options}
    with locked(folder):
        remove_temporary(folder)
        if (folder / RUN).exists():
            _check(folder, key)
        else:
            write_atomic(folder / RUN, [canonical({**key, "task": model.task})])
        lines = Appender(folder / PREDICTIONS)
        try:
            done = len(lines.records)
            total = Reading()
            left = iter(predictions(model, examples[done:], device=device, **options))
            for number, (made, encoded) in enumerate(left, done + 1):
                lines.append(made.to_json())
                one = reading_of([encoded])
                total = replace(
                    total,
                    records=total.records + 1,
                    tokens=total.tokens + one.tokens,
                    windows=total.windows + one.windows,
                    windowed=total.windowed + one.windowed,
                    dropped_tokens=total.dropped_tokens + one.dropped_tokens,
                )
                if on_progress is not None:
                    on_progress(number, len(examples))
        finally:
            lines.close()
    return total, done


def _check(folder: Path, key: dict[str, Any]) -> None:
    try:
        found = orjson.loads((folder / RUN).read_bytes())
        known = {name: found[name] for name in key}
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise InputError(f"{folder / RUN} is damaged: {error}. Choose another folder.") from error
    for name, value in key.items():
        if known[name] != value:
            raise RunConflict(
                f"{folder} holds predictions of another run (other {name}). Continue it with the "
                "same ones, or choose another folder."
            )


def _digest(model: TaskModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _records(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
