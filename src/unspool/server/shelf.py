"""The indexes that are served: opened once, watched, and exchanged while requests go on.

What: each name stands for one directory or several. When a file of a directory changes (another
inode, size or time), the index is opened again beside the old one; requests that began on the old
one end on it, since its files stay mapped until the last of them is done.
An index that turns out to be damaged is taken out of service until its files change; one that
cannot be opened when it changes leaves the old one in service, since a copy may be under way.
The engine checks each page when it is first used, so a file that is written over in place could
spoil pages that were checked before: each answer is given only if the files that it came from are
untouched since they were opened.
Cost: one directory listing an index every `reload_seconds`; about 2 µs a file and answer (beyond
eight files, twenty times a second).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from unspool.errors import ConfigError, IndexCorrupt, PathNotFound, UnspoolError
from unspool.index.compat import InfiniGramEngine
from unspool.index.engine import Index
from unspool.index.manifest import MANIFEST
from unspool.index.open import open_index
from unspool.server.failures import ServiceError

Signature = tuple[tuple[str, int, int, int], ...]

log = logging.getLogger("unspool.server")

_WIDTH_NAMES = {1: "u8", 2: "u16", 4: "u32"}
_FEW_FILES = 8
_LOOK_SECONDS = 0.05
_V4_PARTS = ("tokenized", "table", "offset", "metadata", "metaoff")
_END_TOKENS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<eos>", "[SEP]")


@dataclass(frozen=True)
class Opened:
    """An index as it was when it was opened. `fingerprint` tells it from any other."""

    index: Index
    fingerprint: str
    info: Mapping[str, Any] = field(repr=False)
    files: Signature = field(repr=False)

    def is_untouched(self) -> bool:
        """Whether no file was written to since; one that was replaced is still there, mapped."""
        for path, inode, size, changed in self.files:
            try:
                stat = os.stat(path)
            except OSError:
                continue  # gone from the directory, and still mapped
            if stat.st_ino == inode and (stat.st_size, stat.st_mtime_ns) != (size, changed):
                return False
        return True

    def engine(self) -> InfiniGramEngine:
        """The index under the names of infini-gram's engine."""
        width = _WIDTH_NAMES[self.index.shards()[0][1]]
        return InfiniGramEngine(self.index, eos_token_id=self._end_token(), token_dtype=width)

    def _end_token(self) -> int:
        """The id that stands for the end of a document; -1, which is no id, in a byte index."""
        from tokenizers import Tokenizer

        raw = self.index.tokenizer_json()
        if raw is None:
            return -1
        tokenizer = Tokenizer.from_str(raw.decode())
        ids = (tokenizer.token_to_id(name) for name in _END_TOKENS)
        return next((i for i in ids if i is not None), -1)


class Served:
    """One name of the service and the index behind it."""

    def __init__(
        self,
        name: str,
        folders: Sequence[Path],
        opening: Mapping[str, Any] = MappingProxyType({}),
        linger: int | float = 60.0,
    ) -> None:
        """Open it.

        Args:
            name: It is served under.
            folders: Its directories.
            opening: Further arguments of `open_index`.
            linger: Seconds for which an index that was replaced goes on answering, on a cluster.
        """
        self.name = name
        self.folders = tuple(folders)
        self._opening, self._linger = opening, linger
        self.damage: str | None = None
        """Why it is out of service."""
        self.reloads = 0
        self._signature = self._look()
        self._tried: Signature | None = None
        self._looked = 0.0
        self._opened: Opened | None = None
        try:
            self._opened = self._open()
        except PathNotFound:
            raise
        except IndexCorrupt as error:  # the others can be served
            self.damage = str(error)
            log.error("Index %s is out of service: %s", name, error)

    @property
    def current(self) -> Opened:
        """The index to ask; raises a 503 while it is damaged."""
        if self._opened is None or self.damage is not None:
            raise ServiceError(
                503,
                "index_unavailable",
                f"The index {self.name!r} is out of service: {self.public_damage}",
                retry_after=10,
            )
        return self._opened

    @property
    def public_damage(self) -> str:
        """What is wrong, without the places of files on this machine."""
        said = self.damage or "it is not open."
        for folder in self.folders:
            said = said.replace(str(folder), self.name)
        return said

    @contextmanager
    def asked(self) -> Iterator[Opened]:
        """The index for one request; damage that shows takes the index out of service."""
        opened = self.current
        try:
            yield opened
        except Exception as error:
            if isinstance(error, IndexCorrupt):
                self._take_out(opened, str(error))
            if not opened.is_untouched():  # a spoilt file can make the engine fail in any way
                self._take_out(opened, "a file of it was written over while it was open.")
            raise
        if not self._is_untouched(opened):
            self._take_out(opened, "a file of it was written over while it was open.")

    def _is_untouched(self, opened: Opened) -> bool:
        if len(opened.files) > _FEW_FILES:
            now = time.monotonic()
            if now - self._looked < _LOOK_SECONDS:
                return True
            self._looked = now
        return opened.is_untouched()

    def _take_out(self, opened: Opened, why: str) -> NoReturn:
        if opened is self._opened:
            self.damage = why
            log.error("Index %s is out of service: %s", self.name, why)
        raise ServiceError(
            503,
            "index_unavailable",
            f"The index {self.name!r} is out of service: a file of it is damaged.",
            retry_after=10,
        )

    def refresh(self) -> bool:
        """Open the index again if its files changed; whether a new one is in service."""
        seen = self._look()
        if seen == self._signature or seen == self._tried:
            return False
        try:
            opened = self._open()
        except (UnspoolError, OSError) as error:
            self._tried = seen  # a copy may be under way: look again when it has gone on
            if self.damage is None:
                log.warning("Index %s changed and cannot be opened yet: %s", self.name, error)
            return False
        if self._look() != seen:
            return False
        self._retire()
        self._opened, self._signature, self._tried, self.damage = opened, seen, None, None
        self.reloads += 1
        log.info("Index %s was replaced and opened again.", self.name)
        return True

    def close(self) -> None:
        """Let a cluster go; what is mapped here ends with its last request."""
        if self._opening and self._opened is not None:
            self._opened.index.close()

    def _retire(self) -> None:
        """End the replicas of an index that is replaced, once its last requests are answered."""
        if self._opening and self._opened is not None:
            timer = threading.Timer(self._linger, self._opened.index.retire)
            timer.daemon = True
            timer.start()

    def _open(self) -> Opened:
        found = self._look()
        index = open_index(list(self.folders), **self._opening)
        digest = hashlib.blake2b(digest_size=9)
        for folder in self.folders:
            manifest = folder / MANIFEST
            digest.update(
                manifest.read_bytes() if manifest.exists() else repr(self._look()).encode()
            )
        info = index.info().to_json()
        data = tuple(each for each in found if _is_data(each[0]))
        return Opened(index, digest.hexdigest(), info, data)

    def _look(self) -> Signature:
        found = []
        for folder in self.folders:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_file() and not entry.name.startswith("."):
                            stat = entry.stat()
                            found.append((entry.path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(sorted(found))


def _is_data(path: str) -> bool:
    """Whether the answers of an index come from a file: a shard, or a part of a v4 directory."""
    name = os.path.basename(path)
    return name.startswith("shard-") or name.partition(".")[0] in _V4_PARTS


class Shelf:
    """All indexes by name, in the order given."""

    def __init__(
        self,
        indexes: Mapping[str, Sequence[Path]],
        opening: Mapping[str, Any] = MappingProxyType({}),
        linger: int | float = 60.0,
    ) -> None:
        """Open all; arguments are those of `Served`."""
        for name in indexes:
            if not name or len(name) > 100 or not all(c.isalnum() or c in "._-" for c in name):
                raise ConfigError(
                    f"An index is named by at most 100 letters, digits, dots, - or _, got {name!r}."
                )
        self._served = {
            name: Served(name, folders, opening, linger) for name, folders in indexes.items()
        }

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str) -> Served:
        """The index of this name; a 404 lists the names there are."""
        found = self._served.get(name)
        if found is None:
            names = ", ".join(self._served) or "none"
            raise ServiceError(
                404, "no_such_index", f"There is no index called {name!r}. There are: {names}."
            )
        return found

    def close(self) -> None:
        """Let go of a cluster."""
        for served in self:
            served.close()

    def refresh(self) -> list[str]:
        """Names of the indexes that were opened again."""
        return [served.name for served in self if served.refresh()]
