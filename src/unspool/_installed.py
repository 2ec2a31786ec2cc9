"""Which models are extended now, and which method a checkpoint says it was trained with."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError
from unspool.methods import Method, spell

if TYPE_CHECKING:
    from torch import nn

_extended: weakref.WeakSet[Any] = weakref.WeakSet()


def mark_extended(model: Any, undo: contextlib.ExitStack) -> None:
    """Take a model for one extension until `undo` is closed.

    Raises:
        ConfigError: It has one.
    """
    if model in _extended:
        raise ConfigError(
            f"This {type(model).__name__} is extended already. Compose methods in one call, "
            f"extend(model, 'a+b'), or remove() the first."
        )
    _extended.add(model)
    undo.callback(_extended.discard, model)


def installed(model: Any) -> bool:
    """Whether a model is extended right now."""
    return model in _extended


def trained_with(model: Any) -> str:
    """The method that a checkpoint names as `unspool_method`.

    Raises:
        ConfigError: It names none.
    """
    said = getattr(model.config, "unspool_method", None)
    if not isinstance(said, str):
        raise ConfigError(
            f"The configuration of this {type(model).__name__} names no unspool_method: say which "
            f"method, as extend(model, 'lm-infinite')."
        )
    return said


def save_trained(
    model: Any, methods: Sequence[Method], directory: str | Path, learned: nn.Module
) -> None:
    """Save a model with the method that it was trained with, and warn of what ignores that.

    Raises:
        ConfigError: What was trained is in `learned`, not in the model, and would be lost.
    """
    if next(learned.parameters(), None) is not None:
        raise ConfigError(
            f"What {spell(methods)} trained is not in the model: NTKAdapters(reader).save(folder) "
            f"keeps it, and the model is as it was."
        )
    before = getattr(model.config, "unspool_method", None)
    spelling = spell(methods)
    if any(method.trains for method in methods):
        warnings.warn(
            f"Saved with unspool_method={spelling!r}: plain transformers runs this checkpoint "
            f"without it, and gives other results. Load it, then extend(model).",
            stacklevel=3,
        )
        model.config.unspool_method = spelling
    try:
        model.save_pretrained(directory)
    finally:
        if before is None and hasattr(model.config, "unspool_method"):
            del model.config.unspool_method
