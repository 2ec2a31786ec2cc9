"""What the symbols of an index are: bytes, or the tokens of a stored tokenizer.

Source: the infini-gram indexes (arXiv 2401.17377) hold token ids, infini-gram mini (2506.12229)
bytes; here both are alphabets of one engine.
Departures: text is encoded without special tokens, and every document is checked to be exactly
what its tokens spell. Each token stands for a fixed string of bytes, so byte offsets are sums of
token lengths; the one exception, the space that SentencePiece puts before a text, is taken off.
Cost: a table of one byte string a token; about 0.05 µs a token to check a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool.errors import ConfigError, IndexCorrupt, QueryError

END = -1
"""The symbol that stands for the end of a document in next-symbol distributions."""

TOKENIZER_FILE = "tokenizer.json"


class Tokens:
    """A tokenizer as an alphabet: text to ids, and ids to exact bytes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_bytes(cls, raw: bytes) -> Tokens:
        """The tokenizer of a tokenizer.json file."""
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_str(raw.decode()))
        except Exception as error:  # the library raises bare Exception for every fault of a file
            raise IndexCorrupt(f"{TOKENIZER_FILE} is not a tokenizer: {error}") from error

    def to_bytes(self) -> bytes:
        """The tokenizer.json that goes beside an index."""
        return str(self.tokenizer.to_str()).encode()

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return len(self.table)

    @property
    def width(self) -> int:
        """Bytes a stored token takes."""
        return 2 if self.size <= 1 << 16 else 4

    @cached_property
    def description(self) -> dict[str, Any]:
        described = orjson.loads(self.tokenizer.to_str())
        assert isinstance(described, dict)
        return described

    @cached_property
    def table(self) -> list[bytes]:
        """The bytes that each token stands for."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ConfigError("The tokenizer has no tokens.")
        added = {t["id"]: t["content"] for t in self.description.get("added_tokens") or ()}
        spell = _speller(_types(self.description.get("decoder")))
        table = [b""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            content = added.get(number)
            table[number] = spell(token) if content is None else content.encode()
        return table

    @cached_property
    def byte_lengths(self) -> NDArray[np.uint64]:
        return np.array([len(b) for b in self.table], dtype=np.uint64)

    @cached_property
    def prefix_space(self) -> bool:
        """Whether encoding puts a space before a text, as SentencePiece models do."""
        ids = self.tokenizer.encode("a", add_special_tokens=False).ids
        return self.spell(ids) == b" a"

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text, without special tokens."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of several texts, in parallel where the tokenizer can."""
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(e.ids, dtype=np.uint32) for e in encoded]

    def spell(self, ids: Sequence[int] | NDArray[Any]) -> bytes:
        """The bytes that tokens stand for; ids outside the table spell nothing."""
        table = self.table
        plain = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return b"".join([table[i] if i < len(table) else b"" for i in plain])

    def spell_document(self, ids: Sequence[int] | NDArray[Any]) -> bytes:
        """The bytes of a document or of its beginning: without the space put before it."""
        spelled = self.spell(ids)
        return spelled[1:] if self.prefix_space and spelled.startswith(b" ") else spelled

    def lead(self, ids: NDArray[np.uint32]) -> int:
        """Bytes that the first token of a document has and the document has not: 0 or 1."""
        return int(self.prefix_space and len(ids) > 0 and self.table[ids[0]].startswith(b" "))


def _types(decoder: Any) -> set[str]:
    """The types of a decoder and of its parts."""
    if not isinstance(decoder, dict):
        return set()
    return {str(decoder.get("type"))}.union(*map(_types, decoder.get("decoders") or ()))


def _speller(decoders: set[str]) -> Any:
    if "ByteLevel" in decoders:
        return _spell_byte_level
    if decoders & {"Metaspace", "ByteFallback", "Replace"}:
        return _spell_sentencepiece
    if "WordPiece" in decoders:
        return lambda token: token[2:].encode() if token.startswith("##") else b" " + token.encode()
    return lambda token: token.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write the 256 bytes with (Radford et al. 2019):
    printable Latin-1 stands for itself, the other bytes for U+0100 and on."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(kept)]
    return {chr(b): b for b in kept} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _spell_byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_LEVEL[character] for character in token)
    except KeyError:
        return token.encode()


def _spell_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def check_ids(query: Sequence[Any] | NDArray[Any], size: int, what: str) -> NDArray[np.uint32]:
    """A query of ids as the engine takes it; refuses what is no id of this alphabet."""
    array = np.asarray(query)
    if array.size == 0:
        return np.empty(0, dtype=np.uint32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise QueryError(
            f"A query of {what} is a flat sequence of whole numbers, got "
            f"{type(query).__name__} of {array.dtype} with {array.ndim} dimensions."
        )
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= size:
        raise QueryError(
            f"{what} run from 0 to {size - 1:,}, got {least if least < 0 else most:,}."
        )
    return np.ascontiguousarray(array, dtype=np.uint32)


def load_tokenizer(name: str) -> Tokens:
    """The tokenizer that `--alphabet tokenizer:NAME` names: a file, a folder, or a known name."""
    from unspool.corpus.tokenise import load_tokenizer as load

    return Tokens(load(name))
