"""A folder that a run works in: one process at a time, one plan, and nothing else in it.

The plan is written before the work. Running again with the same plan goes on; with another one it
is refused, and the message says what differs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import InputError, RunConflict, RunLocked
from unspool.index._files import canonical, write_atomic

PLAN = "plan.json"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but a run, before anything is written into it."""
    if not folder.is_dir() or (folder / PLAN).exists():
        return
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if others:
        raise InputError(
            f"The folder {folder.name} holds other files ({', '.join(others[:3])}). Choose a new "
            "or empty folder."
        )


def check_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan of a new run, or hold that of an old one against it, part by part."""
    path = folder / PLAN
    if not path.exists():
        write_atomic(path, [canonical(plan)])
        return
    try:
        known = orjson.loads(path.read_bytes())
        sections = {name: known[name] for name in plan}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{PLAN} in {folder.name} is not of this command.") from None
    for section, wanted in orjson.loads(orjson.dumps(plan)).items():
        if sections[section] != wanted:
            raise RunConflict(
                f"The run in {folder.name} was begun with other {section}: "
                f"{_difference(sections[section], wanted)}. Choose another folder, or go on with "
                "what it was begun with."
            )


def _difference(old: Any, new: Any) -> str:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{old} then, {new} now"
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    told = []
    for name in names:
        a, b = old.get(name), new.get(name)
        digests = isinstance(a, str) and isinstance(b, str) and len(a) == len(b) == 64
        if digests:
            told.append(f"{name} has changed")
        elif name not in new or name not in old:
            told.append(f"{name} only {'then' if name in old else 'now'}")
        else:
            told.append(f"{name} was {a} and is {b}")
    return "; ".join(told)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; a second process is refused at once."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLocked(
                f"Another process is working in {folder.name}. Wait for it to end, or choose "
                "another folder."
            ) from None
        yield
    finally:
        os.close(handle)
