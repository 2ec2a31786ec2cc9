"""Remember every document id, and where it was met, in about 150 bytes each."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from unspool.corpus.sources import SourceFile
from unspool.errors import DuplicateDocument, InputError

_LINES = 1 << 40


class Ids:
    """Ids seen so far. Digests of 128 bits stand for them: two ids in 10^12 never share one."""

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        self._sources = sources
        self._seen: dict[bytes, int] = {}

    def add(self, id: str, source: int, line: int = 0) -> None:
        """Note an id, or raise DuplicateDocument with both places (line 0: the whole file)."""
        try:
            key = blake2b(id.encode(), digest_size=16).digest()
        except UnicodeEncodeError:
            raise InputError(
                f"{self._place(source, line)}: the id {id!r} is not valid Unicode."
            ) from None
        here = source * _LINES + line
        first = self._seen.setdefault(key, here)
        if first != here:
            raise DuplicateDocument(self._message(id, first, here))

    def _place(self, source: int, line: int) -> str:
        path = self._sources[source].path
        return f"{path}:{line}" if line else path

    def _message(self, id: str, first: int, second: int) -> str:
        one, two = divmod(first, _LINES), divmod(second, _LINES)
        places = f"{self._place(*one)} and {self._place(*two)}"
        if self._sources[one[0]].path == self._sources[two[0]].path and one[0] != two[0]:
            hint = "The same file is given twice: give it once."
        elif one[1] or two[1]:
            hint = (
                "Ids must be unique: change one, or name another field with id_field (--id-field)."
            )
        else:
            hint = "Give the folder that holds both, so that their ids are paths inside it."
        return f"Two documents have the id {id!r}: {places}. {hint}"
