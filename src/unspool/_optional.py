"""Import an optional package, or say which extra holds it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from unspool.errors import MissingExtra


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import `module`, or raise MissingExtra with the line that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"{purpose} needs {module.split('.')[0]}, which is not installed. "
            f"Run: pip install 'unspool[{extra}]'"
        ) from error
