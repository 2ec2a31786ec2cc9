"""The user's cache folder: tokenizers, converted models, indexes and data that can be made again.

`UNSPOOL_CACHE` names it; else it is `unspool` in XDG_CACHE_HOME, else `~/.cache/unspool`.
"""

from __future__ import annotations

import os
from pathlib import Path

from unspool.errors import ConfigError


def cache_dir(*parts: str) -> Path:
    """A folder inside the cache, made if need be; what is new is for this user alone (0700)."""
    named = os.environ.get("UNSPOOL_CACHE")
    try:
        root = Path(named) if named else _platform_default()
        folder = root.joinpath(*parts)
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(0, "it is not a folder")
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The cache folder {str(named or '~/.cache/unspool')!r} cannot be used: {reason}. "
            "Name another with the environment variable UNSPOOL_CACHE."
        ) from error
    return folder.absolute()


def _platform_default() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has relative paths ignored.
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "unspool"
