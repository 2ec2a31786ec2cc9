"""Every error that unspool raises on purpose.

Each derives from `UnspoolError` and from the builtin a caller would expect, and its message says
what was wrong, the value received, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class UnspoolError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(UnspoolError, ValueError):
    """A setting or argument has a value that cannot work."""


class InputError(UnspoolError, ValueError):
    """A text, file or record that was given cannot be used."""


class MissingData(InputError):
    """The data of a benchmark is not there; the message says where it is to be had."""


class EncodingError(InputError):
    """A file is not valid in the encoding it was read with."""


class PathNotFound(UnspoolError, FileNotFoundError):
    """A path that was given does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DuplicateDocument(InputError):
    """Two documents have the same id."""


class OverflowPolicyError(UnspoolError, ValueError):
    """A text is longer than what may be read, and nothing said that it may be shortened."""


class MissingExtra(UnspoolError, ImportError):
    """An optional package is needed and not installed."""


class Unsupported(UnspoolError, NotImplementedError):
    """A backend cannot do what was asked of it."""


class BackendError(UnspoolError, RuntimeError):
    """A model or an endpoint failed."""


class QueryError(UnspoolError, ValueError):
    """A query cannot be asked of this index."""


class IndexFileError(UnspoolError):
    """Base of what can be wrong with an index on disk."""


class IndexCorrupt(IndexFileError, ValueError):
    """A file of an index does not hold what was written into it."""


class IndexIncomplete(IndexFileError, ValueError):
    """An index was never finished; running the same build again finishes it."""


class IndexVersion(IndexFileError, ValueError):
    """An index was written by a version of the format that this program cannot read."""


class IndexLocked(IndexFileError, RuntimeError):
    """Another process is building in this directory."""


class BuildConflict(IndexFileError, ValueError):
    """A build was continued with other settings or a changed input."""


class ShardsMissing(UnspoolError, RuntimeError):
    """Shards of an index that is served by several machines gave no answer."""

    def __init__(self, shards: Sequence[str]) -> None:
        super().__init__(list(shards))
        self.shards = tuple(shards)

    def __str__(self) -> str:
        some = ", ".join(self.shards[:8]) + (", …" if len(self.shards) > 8 else "")
        return (
            f"{len(self.shards)} shards of the index do not answer ({some}), and without them a "
            "count would be too small. Ask again when their machines are back, or open the index "
            "with partial answers, which name what they lack."
        )


class BudgetError(UnspoolError, ValueError):
    """A memory budget is too small for the work."""


class DeadlineExceeded(UnspoolError, TimeoutError):
    """A query did not end before its deadline."""


class StorageError(UnspoolError, OSError):
    """A disk is full, read-only, or refuses to be written."""


class RunLocked(UnspoolError, RuntimeError):
    """Another process is working in a run folder."""


class RunConflict(UnspoolError, ValueError):
    """A run was continued with other settings, another model or changed data."""


class WorkerLost(UnspoolError, RuntimeError):
    """A worker process of a build died."""
