"""What was planted where, kept secret, and a hash of it that can be published first.

What: the manifest holds the pairs, the coin of each, the document and the number of copies, and a
salt of 256 random bits. The commitment is the SHA-256 of the manifest's one JSON form. Who
publishes it before the text and the manifest after the test shows that traps, controls and coins
were fixed beforehand; the salt keeps the manifest from being guessed.
Source: commit-reveal by a hash; Meeus et al. (2024), section 4.2, for what is recorded.
Differs from the released code: it has no commitment, and draws controls apart from traps.
Cost: a few hundred bytes a pair.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.forensics.traps.generate import Pair, Pool, PoolSettings
from unspool.index._files import canonical, storage, write_atomic

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Planted:
    """One pair, which of it was planted, and where."""

    pair: Pair
    coin: int
    """Which text of the pair is the trap; the other is the control."""
    repeat: int
    """Copies in the document; 0: never planted, for a test of the test."""
    document: str | None
    offsets: tuple[int, ...]
    """UTF-8 byte offsets in the document as it is published, ascending."""
    inserted: str
    """What was inserted at each offset: the trap and its separator."""

    @property
    def trap(self) -> str:
        return self.pair.texts[self.coin]

    @property
    def control(self) -> str:
        return self.pair.texts[1 - self.coin]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that was planted. Keep it secret until the test is to be shown."""

    salt: str
    model: str
    where: str
    seed: int
    planted: tuple[Planted, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": _FORMAT, **asdict(self)}


def new_salt() -> str:
    """256 random bits, as hexadecimal digits."""
    return secrets.token_hex(32)


def check_salt(salt: str) -> str:
    """A salt that can hide what it salts."""
    if not re.fullmatch(r"[0-9a-f]{32,128}", salt):
        raise ConfigError(f"A salt is 32 to 128 hexadecimal digits, got {len(salt)} characters.")
    return salt


def coin(salt: str, pair: str) -> int:
    """Heads or tails for a pair: one bit of a hash that nobody without the salt can predict."""
    return hashlib.sha256(f"coin:{salt}:{pair}".encode()).digest()[0] & 1


def commitment(manifest: Manifest) -> str:
    """The hash to publish before the text: SHA-256 of the manifest file, 64 digits."""
    return hashlib.sha256(canonical(manifest.to_json())).hexdigest()


def check_commitment(manifest: Manifest, published: str) -> None:
    """Raise InputError if a manifest is not the one that was committed to."""
    found = commitment(manifest)
    if found != published.strip().lower():
        raise InputError(
            f"The manifest does not match the commitment: its hash is {found}, published was "
            f"{published.strip()!r}. The test would prove nothing."
        )


def save(manifest: Manifest, path: Path) -> None:
    """Write the manifest in its one JSON form; `sha256sum` of the file is the commitment."""
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [canonical(manifest.to_json())])


def load(path: Path) -> Manifest:
    """Read what `save` wrote; InputError if it is anything else."""
    value = _read(path, "manifest")
    try:
        planted = tuple(
            Planted(
                _pair(p["pair"]), int(p["coin"]), int(p["repeat"]), p["document"],
                tuple(int(o) for o in p["offsets"]), str(p["inserted"]),
            )
            for p in value["planted"]
        )  # fmt: skip
        if any(p.coin not in (0, 1) or len(p.offsets) != p.repeat for p in planted):
            raise ValueError("a coin or a count of offsets is wrong")
        return Manifest(value["salt"], value["model"], value["where"], int(value["seed"]), planted)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name} is not a manifest of traps: {error}.") from error


def save_pool(pool: Pool, path: Path) -> None:
    """Write a pool as JSON."""
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [canonical({"format": _FORMAT, **asdict(pool)})])


def load_pool(path: Path) -> Pool:
    """Read what `save_pool` wrote; InputError if it is anything else."""
    value = _read(path, "pool")
    try:
        said: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value["settings"].items()
        }
        pairs = tuple(_pair(p) for p in value["pairs"])
        return Pool(
            value["model"], PoolSettings(**said), pairs, int(value["draws"]), value["missing"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name} is not a pool of traps: {error}.") from error


def _read(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise PathNotFound(f"There is no {what} at {str(path)!r}. Check the path.")
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise InputError(f"{path.name} is not a {what} of this version.")
    return value


def _pair(value: dict[str, Any]) -> Pair:
    texts, heat = value["texts"], value["perplexities"]
    if len(texts) != 2 or not all(isinstance(t, str) and t for t in texts):
        raise ValueError("a pair needs two texts")
    return Pair(
        str(value["id"]), int(value["length"]), int(value["bucket"]), (texts[0], texts[1]),
        (float(heat[0]), float(heat[1])),
    )  # fmt: skip


def toss(pairs: Sequence[Pair], salt: str) -> list[int]:
    """The coins of some pairs."""
    return [coin(salt, pair.id) for pair in pairs]
