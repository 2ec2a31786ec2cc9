"""Every task there is, by the names that people type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from unspool import _registry
from unspool.errors import ConfigError
from unspool.evaluation.tasks.base import Task


def task(name: str) -> Task:
    """One task by its full name, `benchmark/task`; an unknown name lists the nearest ones."""
    found: Task = _registry.resolve("task", name)
    return found


def find_tasks(names: str) -> list[Task]:
    """The tasks of a comma-separated list, each once, in order.

    Args:
        names: `benchmark/task`, `benchmark` for all its tasks, or `benchmark/ability` for those of
            one group.

    Raises:
        ConfigError: A name is unknown; the message lists the nearest.
    """
    known = _registry.names("task")
    found: dict[str, Task] = {}
    for name in (part.strip() for part in names.split(",")):
        if not name:
            continue
        if name in known:
            found[name] = task(name)
            continue
        benchmark, _, ability = name.partition("/")
        members = [each for each in known if each.startswith(f"{benchmark}/")]
        group = {each: task(each) for each in members}
        if ability:
            group = {k: v for k, v in group.items() if v.spec.ability == ability}
        if not group:
            raise ConfigError(_unknown(name, known, members))
        found.update(group)
    if not found:
        raise ConfigError("No task was named. 'unspool list tasks' shows what there is.")
    return list(found.values())


def benchmark_summary(benchmark: str, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers that the original release prints over several tasks, if its module has them.

    A module says them with `summarise(tasks) -> dict`, from the tasks' names after the slash to
    what a report holds of each.

    Args:
        benchmark: Its name.
        tasks: Its tasks in the report.
    """
    try:
        module = import_module(f"{__name__}.{benchmark.replace('-', '_')}")
    except ModuleNotFoundError:  # a task from elsewhere
        return {}
    summarise = getattr(module, "summarise", None)
    found: dict[str, float] = summarise(tasks) if summarise is not None else {}
    return found


def _unknown(name: str, known: list[str], members: list[str]) -> str:
    benchmarks = sorted({each.partition("/")[0] for each in known})
    candidates = members or [*benchmarks, *known]
    near = difflib.get_close_matches(name, candidates, n=3) or candidates[:8]
    return (
        f"There is no task or group of tasks called {name!r}. The nearest are {', '.join(near)}; "
        f"'unspool list tasks' shows all."
    )
