"""The settings of an index build, and what a build reports."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from unspool.errors import BudgetError, ConfigError

Tier = Literal["fm", "sa", "both"]
Engine = Literal["local", "ray", "slurm"]

MIB = 1 << 20
RESERVED = 48 * MIB
"""Bytes of the memory budget set aside for the interpreter of each process."""

LEAST_MEMORY = 256 * MIB
PIECE_SIZE = 8 * MIB
"""Bytes after which ingest notes a place where shards may be cut."""

NORMALISERS = ("nfc", "lower", "space")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(value: int | str, what: str) -> int:
    """Bytes of a size such as `8GiB`, `512M` or a plain number; units are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", str(value).lower())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise ConfigError(f"{what} must be a size such as 8GiB or 512MiB, got {value!r}.")
    return size


def parse_memory(value: int | str) -> int:
    """A memory budget in bytes, refused where no build could keep to it."""
    memory = parse_size(value, "memory")
    if memory < LEAST_MEMORY:
        raise BudgetError(
            f"A memory budget of {memory / MIB:.0f} MiB is too small: each process needs 48 MiB "
            "for itself, so the least is 256 MiB. Give --memory 256MiB or more."
        )
    return memory


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """What decides the bytes of an index, given its input. All of it is kept in the plan."""

    tier: Tier = "fm"
    """`fm` is small (about 0.4 of the text), `sa` is fast (about 5 times the text)."""
    alphabet: str = "bytes"
    """`bytes`, or `tokenizer:NAME`: a tokenizer.json file, a folder with one, or a known name."""
    text_field: str = "text"
    """The field of a record that holds its text."""
    id_field: str = "id"
    """The field of a record that holds its id."""
    sa_sample: int = 32
    """fm tier: a position in so many is kept to find where a hit lies."""
    isa_sample: int = 64
    """fm tier: a row in so many positions is kept to quote text from any place."""
    store_text: Literal["zstd"] | None = None
    """Keep the text as well, compressed, so that quoting it is faster."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What to do with bytes that are not valid UTF-8: refuse the file, or replace and count."""
    normalise: str | None = None
    """Any of nfc, lower and space joined by `|`, done to the texts and later to str queries."""
    allow_lossy: bool = False
    """Token indexes: take documents that their tokens do not spell, and count them."""
    shard_size: int | None = None
    """Most bytes of spool a shard; None lets memory and workers decide."""
    piece_size: int = PIECE_SIZE
    """Bytes after which a shard may be cut."""

    def __post_init__(self) -> None:
        if self.tier not in get_args(Tier):
            raise ConfigError(f"There is no tier {self.tier!r}: choose fm, sa or both.")
        if self.alphabet != "bytes" and not self.alphabet.partition("tokenizer:")[2]:
            raise ConfigError(
                f"alphabet must be 'bytes' or 'tokenizer:NAME', got {self.alphabet!r}."
            )
        if self.encoding_errors not in ("strict", "replace"):
            raise ConfigError(
                f"encoding_errors must be strict or replace, got {self.encoding_errors!r}."
            )
        for name, value in (("sa_sample", self.sa_sample), ("isa_sample", self.isa_sample)):
            if not 1 <= value <= 1 << 16:
                raise ConfigError(f"{name} must be between 1 and 65536, got {value}.")
        if self.store_text not in (None, "zstd"):
            raise ConfigError(f"store_text must be zstd or nothing, got {self.store_text!r}.")
        unknown = [n for n in self.normalisers if n not in NORMALISERS]
        if unknown or (self.normalise is not None and not self.normalise):
            raise ConfigError(
                f"normalise takes nfc, lower and space joined by '|', got {self.normalise!r}."
            )
        if self.piece_size < 1:
            raise ConfigError(f"piece_size must be at least 1, got {self.piece_size}.")
        if self.shard_size is not None and self.shard_size < 1:
            raise ConfigError(f"shard_size must be at least 1, got {self.shard_size}.")

    @property
    def normalisers(self) -> tuple[str, ...]:
        return tuple(self.normalise.split("|")) if self.normalise else ()

    @property
    def tiers(self) -> tuple[str, ...]:
        return ("fm", "sa") if self.tier == "both" else (self.tier,)

    @property
    def tokenised(self) -> bool:
        return self.alphabet != "bytes"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def with_alphabet(self, alphabet: str) -> BuildSettings:
        return replace(self, alphabet=alphabet)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What an index holds and what building it cost."""

    documents: int
    symbols: int
    """Bytes or tokens, ends of documents not counted."""
    bytes_text: int
    """UTF-8 bytes of all documents."""
    bytes_index: int
    """Bytes of every file that the index needs."""
    seconds: float
    peak_bytes: int
    """Most memory that all processes of the build held together."""
    notes: tuple[str, ...] = ()
    """What was not taken as it stood: replaced bytes, lossy tokens, skipped files."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}
