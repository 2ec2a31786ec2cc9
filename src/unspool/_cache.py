"""Where things that can be made or fetched again are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder of the cache, not yet created: under `$UNSPOOL_DATA`, else the user's cache."""
    chosen = os.environ.get("UNSPOOL_DATA")
    if chosen:
        root = Path(chosen).expanduser()
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "unspool"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "unspool" / "Cache"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unspool"
    return root.joinpath(*parts)
