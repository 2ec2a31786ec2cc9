"""`unspool evaluate score --metric KEY=VALUE,…`: options of a task's metric, checked by type.

A metric is a frozen dataclass; its fields are the options. What a release leaves to chance, such as
the package that compares lines of code, is one of them.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from unspool.cli._evaluate_setup import words
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.evaluation.tasks.base import Task

_FIXED = ("dataset", "id", "packages", "buckets")
"""Fields that say which metric it is, not how it counts."""


def with_metric(task: Task, text: str | None) -> Task:
    """The task with options of its metric, as `ratio=levenshtein,recursion_limit=none`."""
    metric: Any = task.metric
    if text is None or not is_dataclass(metric) or isinstance(metric, type):
        return task
    hints = get_type_hints(type(metric))
    known = {f.name: hints[f.name] for f in fields(metric) if f.name not in _FIXED}
    changes: dict[str, Any] = {}
    for part in words(text):
        name, _, value = part.partition("=")
        if name not in known:
            raise ConfigError(
                f"The metric of {task.spec.name} has no option {name!r}. "
                f"It has {', '.join(known) or 'none'}."
            )
        changes[name] = _value(task.spec.name, name, value, known[name])
    changed: Any = replace(metric, **changes)
    return replace(task, metric=changed)


def _value(task: str, name: str, value: str, hint: Any) -> Any:
    """A value as its type says: one of some words, a whole number, true or false, none."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    told: list[str] = []
    for kind in kinds:
        if kind is type(None):
            told.append("none")
            if value == "none":
                return None
        elif get_origin(kind) is Literal:
            told += map(str, get_args(kind))
            if value in get_args(kind):
                return value
        elif kind is bool:
            told += ["true", "false"]
            if value in ("true", "false"):
                return value == "true"
        elif kind is int:
            told.append("a whole number")
            if value.isascii() and value.isdecimal():
                return int(value)
    raise ConfigError(f"{name} of the metric of {task} is {', '.join(told)}; got {value!r}.")
