"""What every verb prints with: JSON lines, tables, progress, and text that cannot harm a terminal.

Results go to stdout, progress and messages to stderr. Corpus text is hostile: whatever came out of
a document goes through `printable` before a terminal sees it. JSON needs no such care, since it
escapes control characters by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_QUIET_SECONDS = 10.0
"""Between two plain progress lines when stderr is a file or a pipe."""


def human_bytes(num_bytes: int | float) -> str:
    """Bytes in the largest binary unit that keeps the number at 1 or more: `1.5 GiB`."""
    value = float(num_bytes)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def human_number(value: int | float) -> str:
    """A whole number with thousands separators, anything else with three significant digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    rounded = f"{value:.3g}"
    # From a thousand on, the digits that were dropped are zeros, as a person would write it.
    return f"{float(rounded):,.0f}" if 1000 <= abs(float(rounded)) < 1e15 else rounded


def human_seconds(seconds: int | float) -> str:
    """A duration as a person would say it: `0.4 ms`, `3.2 s`, `4 min 07 s`, `2 h 05 min`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def printable(text: str, *, one_line: bool = False) -> str:
    """Text that shows on a terminal what it holds and can do nothing else there.

    Control, direction-changing and unassigned characters become visible escapes (`\\x1b`), except
    newline and tab, which stay unless `one_line` asks for `⏎` and a space.
    """
    if one_line:
        text = text.replace("\r\n", "⏎").replace("\n", "⏎").replace("\t", " ")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":  # spaces other than U+0020 are harmless
        return " "
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def emit_json(obj: Any) -> None:
    """Write one object as one line of JSON to stdout. Objects with `to_json` are asked for it."""
    import orjson

    options = (
        orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
    )
    try:
        line = orjson.dumps(obj, default=_to_json, option=options)
    except orjson.JSONEncodeError:  # a file name that is not UTF-8 holds lone surrogates
        line = json.dumps(obj, default=_to_json).encode() + b"\n"
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(line.decode())
    else:  # bytes, so that the terminal's encoding cannot get in the way
        buffer.write(line)
        buffer.flush()


def _to_json(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def emit_text(text: str = "") -> None:
    """Write one line (or paragraph) of text to stdout; corpus text is made `printable` first."""
    sys.stdout.write(printable(text) + "\n")


def message(text: str) -> None:
    """Write a line for the person, not for the next program, to stderr."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def emit_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print a table: drawn by rich on a terminal, plain aligned columns in a pipe.

    `right` names the columns aligned to the right. Cells are never cut: a terminal that is too
    narrow folds them.
    """
    cells = [[printable(str(cell), one_line=True) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", header_style="bold")
        for name in columns:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        stdout_console().print(table)
        return
    widths = [
        max(len(name), *(len(row[i]) for row in cells)) if cells else len(name)
        for i, name in enumerate(columns)
    ]
    if title:
        sys.stdout.write(f"{title}\n")
    for row in [list(columns), *cells]:
        padded = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def stdout_console() -> Console:
    """A rich console on stdout. It honours NO_COLOR and prints no colour into a pipe."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)


@runtime_checkable
class Progress(Protocol):
    """How a long call says where it is."""

    def update(
        self, done: int | float, *, total: int | float | None = None, stage: str | None = None
    ) -> None:
        """So much is done, of so much, in this stage. Cheap: may be called for every record."""


class _Silent:
    def update(
        self, done: int | float, *, total: int | float | None = None, stage: str | None = None
    ) -> None:
        return None


class _Lines:
    """Plain lines for a log: at most one every ten seconds, none for work that ends sooner."""

    def __init__(self, label: str, unit: str, total: int | float | None) -> None:
        self.label, self.unit, self.total = label, unit, total
        self.started = self.last = time.monotonic()

    def update(
        self, done: int | float, *, total: int | float | None = None, stage: str | None = None
    ) -> None:
        self.total = total if total is not None else self.total
        now = time.monotonic()
        if now - self.last < _QUIET_SECONDS:
            return
        self.last = now
        rate = done / (now - self.started)
        parts = [f"{self.label}{f' ({stage})' if stage else ''}:", _amount(done, self.unit)]
        if self.total:
            parts.append(f"of {_amount(self.total, self.unit)} ({done / self.total:.0%})")
        if self.unit:
            parts.append(f"at {_amount(rate, self.unit)}/s")
        if self.total and rate > 0:
            parts.append(f"about {human_seconds(max(self.total - done, 0) / rate)} left")
        message(" ".join(parts))


class _Bar:
    """A live bar on a terminal, redrawn at most ten times a second."""

    def __init__(self, bar: Any, task: Any, label: str, unit: str) -> None:
        self.bar, self.task, self.label, self.unit = bar, task, label, unit
        self.started, self.last = time.monotonic(), 0.0

    def update(
        self, done: int | float, *, total: int | float | None = None, stage: str | None = None
    ) -> None:
        now = time.monotonic()
        if now - self.last < 0.1 and (total is None or done < total):
            return
        self.last = now
        rate = done / max(now - self.started, 1e-9)
        fields: dict[str, Any] = {"completed": done, "stage": stage or ""}
        if total is not None:
            fields["total"] = total
        if self.unit:
            fields["rate"] = f"{_amount(rate, self.unit)}/s"
        self.bar.update(self.task, **fields)


def _amount(value: int | float, unit: str) -> str:
    if not unit:
        return f"{value:.0%}"
    if unit == "B":
        return human_bytes(value)
    return f"{human_number(round(value, 2) if value < 10 else round(value))} {unit}"


@contextmanager
def progress(
    label: str, *, total: int | float | None = None, unit: str = "", quiet: bool = False
) -> Iterator[Progress]:
    """Show on stderr how far a call has come, with its rate and the time left.

    Args:
        label: What is being done, as the person would say it: "Building the index".
        total: How much there is to do, if known; `update(total=...)` can say so later.
        unit: "B" for bytes, any noun for counts ("documents"), "" for a fraction of 1.
        quiet: True under `--json`: nothing is shown.

    On a terminal this is a bar; into a file or a pipe it is a plain line every ten seconds.
    """
    if quiet:
        yield _Silent()
        return
    if not unit and total is None:
        total = 1.0
    if not sys.stderr.isatty():
        yield _Lines(label, unit, total)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[stage]}"),
        console=Console(file=sys.stderr, highlight=False),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=total, rate="", stage="")
        yield _Bar(bar, task, label, unit)
