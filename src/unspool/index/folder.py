"""The directory of an index: whether one may be built there, and whether there is room."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from unspool.errors import ConfigError, StorageError
from unspool.index._files import LOCK, TEMPORARY
from unspool.index.alphabet import TOKENIZER_FILE
from unspool.index.manifest import MANIFEST, PLAN, RUN
from unspool.index.settings import MIB
from unspool.index.shard import SPOOL


def prepare(out: Path) -> bool:
    """Make the directory of an index, or see that it may become one; True if it was made.

    Raises:
        ConfigError: It is a file, or holds something that no build of ours put there.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; an index is a directory.")
    if not out.exists():
        out.mkdir(parents=True)
        return True
    ours = {PLAN, MANIFEST, LOCK, RUN, TOKENIZER_FILE, SPOOL}
    names = [entry.name for entry in out.iterdir()]
    begun = any(name in (PLAN, MANIFEST) for name in names)
    foreign = [name for name in sorted(names) if name not in ours]
    foreign = [name for name in foreign if not name.startswith(TEMPORARY)]
    if foreign and not begun:
        raise ConfigError(
            f"--out {out} holds other files ({', '.join(foreign[:3])}), and no index. Give a new "
            "or empty directory."
        )
    return False


def discard(out: Path) -> None:
    """Remove what a build wrote before its first shard."""
    shutil.rmtree(out / SPOOL, ignore_errors=True)
    for name in (PLAN, RUN, TOKENIZER_FILE):
        with contextlib.suppress(OSError):
            (out / name).unlink()


def require_space(out: Path, need: int, what: str) -> None:
    """Refuse at once what the disk has no room for."""
    free = shutil.disk_usage(out).free
    if need > free:
        raise StorageError(
            f"{what} in {out} will take about {need / MIB:,.0f} MiB and {free / MIB:,.0f} MiB are "
            "free. Make room, or choose another --out."
        )
