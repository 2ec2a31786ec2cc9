"""Positional arguments that may be `-` for standard input.

A parser that lets `-` through also lets through every misspelt option, so this asks again: what
begins with a dash is `-` itself, a number, or stands after `--`. All else is an unknown option.
"""

from __future__ import annotations

from typing import Any

from cyclopts import Parameter

given: list[str] = []
"""The command line as it was typed."""


def _is_no_option(_: Any, value: Any) -> None:
    after = given[given.index("--") + 1 :] if "--" in given else []
    for each in value if isinstance(value, list | tuple) else [value]:
        text = str(each)
        if text.startswith("-") and text != "-" and text not in after and not _is_number(text):
            raise ValueError(f"Unknown option: {text}. What begins with a dash goes after --.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


MAY_BE_DASH = Parameter(allow_leading_hyphen=True, validator=_is_no_option)
"""Annotate a positional argument with this to let it be `-`."""
