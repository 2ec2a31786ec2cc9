"""Files of records that a stopped run goes on with, begun by a line that says what the run is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unspool.errors import InputError, RunConflict

ANSWERS = "answers to prefixes"
PASSAGES = "passages that were asked for"


@contextmanager
def resumed(
    out: str | Path | None, head: dict[str, Any]
) -> Iterator[tuple[list[dict[str, Any]], Callable[[dict[str, Any]], None]]]:
    """Records of a file that was begun with the same head, and what appends to it.

    Raises:
        InputError: The file holds something else.
        RunConflict: It was begun with another head; the message says what differs.
    """
    if out is None:
        yield [], lambda record: None
        return
    from unspool.forensics._jsonl import appending

    path = Path(out)
    with appending(path) as (held, append):
        if not held:
            append(head)
        elif held[0].get("kind") != head["kind"]:
            raise InputError(f"{path.name} holds something else. Choose another file.")
        elif held[0] != head:
            changed = sorted(k for k in head if held[0].get(k) != head[k])
            raise RunConflict(
                f"{path.name} was begun with another {' and '.join(changed)}. Choose another file, "
                f"or go on with what it was begun with."
            )
        yield held[1:], append


def read_answers(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `attack` wrote: the line that says what the run was, and the records.

    Raises:
        PathNotFound: There is no such file.
        InputError: It holds something else.
    """
    from unspool.forensics._jsonl import read_records

    found = read_records(path)
    if not found or found[0].get("kind") != ANSWERS:
        raise InputError(f"{path.name} holds no answers. 'unspool audit extract run' writes them.")
    for number, record in enumerate(found[1:], 2):
        if not isinstance(record.get("id"), str) or not isinstance(record.get("samples"), list):
            raise InputError(f"Line {number} of {path.name} is no answer to a prefix.")
    return found[0], found[1:]
