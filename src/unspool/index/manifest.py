"""`index.json`: what an index holds. It is written last, so a directory with it is whole.

The manifest carries a checksum of itself, and of each shard file the size and the checksum of its
first page, so that a file of another build put in its place is noticed when the index is opened.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool import _native
from unspool.errors import IndexCorrupt, IndexIncomplete, IndexVersion, PathNotFound
from unspool.index._files import read_checked_json, write_checked_json
from unspool.index.alphabet import TOKENIZER_FILE
from unspool.index.shard import describe_file

FORMAT = 1
MANIFEST = "index.json"
PLAN = "plan.json"
RUN = "run.json"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard: a range of documents, with a file for each tier."""

    symbols: int
    documents: int
    first_document: int
    files: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that opening an index needs to know before it maps a file."""

    documents: int
    symbols: int
    bytes_text: int
    bytes_index: int
    alphabet: str
    width: int
    tiers: tuple[str, ...]
    sa_sample: int
    isa_sample: int
    store_text: str | None
    normalise: str | None
    tokenizer: dict[str, Any] | None
    """Bytes and checksum of the stored tokenizer."""
    notes: tuple[str, ...]
    shards: tuple[ShardEntry, ...]

    def write(self, folder: Path) -> None:
        value = {"format": FORMAT, **asdict(self), "notes": list(self.notes)}
        value |= {"tiers": list(self.tiers), "shards": [asdict(s) for s in self.shards]}
        write_checked_json(folder / MANIFEST, value)


def is_finished(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        PathNotFound: There is no such directory.
        IndexIncomplete: The directory holds an index that was never finished, or none at all.
        IndexVersion: A newer program wrote it.
        IndexCorrupt: It does not hold what was written.
    """
    if not folder.exists():
        raise PathNotFound(f"There is no index at {folder}: nothing is there.")
    if not folder.is_dir():
        raise PathNotFound(f"{folder} is a file; an index is a directory.")
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / PLAN).is_file():
            raise IndexIncomplete(
                f"The index in {folder} was never finished. Run the same `unspool index build` "
                "again: it continues where it stopped."
            )
        raise IndexIncomplete(
            f"{folder} holds no index (no {MANIFEST}). Build one: "
            f"unspool index build PATH... --out {folder}"
        )
    value = read_format(path)
    try:
        return Manifest(
            **{
                **{k: v for k, v in value.items() if k != "format"},
                "tiers": tuple(value["tiers"]),
                "notes": tuple(value["notes"]),
                "shards": tuple(ShardEntry(**s) for s in value["shards"]),
            }
        )
    except (TypeError, KeyError) as error:
        raise IndexCorrupt(f"{MANIFEST} in {folder} is not a manifest: {error}.") from error


def read_format(path: Path) -> dict[str, Any]:
    """Read a plan or manifest, and refuse what a newer program wrote."""
    with contextlib.suppress(orjson.JSONDecodeError):
        peeked = orjson.loads(path.read_bytes())
        found = peeked.get("format") if isinstance(peeked, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise IndexVersion(
                f"The index in {path.parent} has format {found}; this program reads up to format "
                f"{FORMAT}. Upgrade unspool, or build the index again in an empty directory."
            )
    return read_checked_json(path)


def check_files(folder: Path, manifest: Manifest, tier: str) -> list[str]:
    """What is wrong with the files of one tier, judged by size and first page."""
    wrong = []
    for shard in manifest.shards:
        entry = shard.files.get(tier)
        if entry is None:
            wrong.append(f"the manifest names no {tier} file for a shard")
            continue
        path = folder / str(entry["name"])
        if path.name != entry["name"] or not path.is_file():
            wrong.append(f"{entry['name']} is missing")
            continue
        found = describe_file(path)
        if found["bytes"] != entry["bytes"]:
            wrong.append(
                f"{entry['name']} has {found['bytes']:,} bytes where {entry['bytes']:,} were "
                "written"
            )
        elif found["crc"] != entry["crc"]:
            wrong.append(f"{entry['name']} is not the file that was written (its header differs)")
    return wrong


def read_tokenizer(folder: Path, manifest: Manifest) -> bytes | None:
    """The stored tokenizer of a token index, checked."""
    if manifest.tokenizer is None:
        return None
    try:
        raw = (folder / TOKENIZER_FILE).read_bytes()
    except FileNotFoundError:
        raw = b""
    if len(raw) != manifest.tokenizer["bytes"] or _native.crc32c(raw) != manifest.tokenizer["crc"]:
        raise IndexCorrupt(f"{TOKENIZER_FILE} in {folder} is missing or was changed.")
    return raw
