"""Every system there is, from `catalog.toml`, joined with what its claim script has measured.

A system is "built" or "planned". Its proof is what the newest row of each of its claims says; a
system without a row is "unproven", in that word.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from unspool.errors import ConfigError

Room = Literal[
    "corpus",
    "index",
    "forensics",
    "positions",
    "attention",
    "caches",
    "reading",
    "models",
    "training",
    "retrieval",
    "vision",
    "evaluation",
]
State = Literal["built", "planned"]

UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One entry of the catalogue."""

    slug: str
    name: str
    title: str
    """Title of the paper."""
    authors: str
    year: int
    arxiv: str | None = None
    room: Room
    """The package under `unspool` that holds it."""
    purpose: str
    command: str
    claim: str
    """What the paper claims, in one sentence."""
    state: State
    entry: str | None = None
    """"module:attribute"; every built system has one."""
    claim_script: str | None = None
    docs: str | None = None
    """Page under `docs/`."""

    def __post_init__(self) -> None:
        empty = [f.name for f in fields(self) if getattr(self, f.name) == ""]
        if empty:
            raise ConfigError(f"Catalogue entry {self.slug!r} leaves {', '.join(empty)} empty.")
        if self.state == "built" and not (self.entry and self.claim_script and self.docs):
            raise ConfigError(
                f"Catalogue entry {self.slug!r} is built, so it needs entry, claim_script and docs."
            )

    @property
    def paper_url(self) -> str | None:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None


@dataclass(frozen=True, slots=True)
class Proof:
    """The newest measurement of one claim: how many of its figures were reached."""

    claim: str
    met: bool
    reached: int
    required: int
    date: str

    def __str__(self) -> str:
        return f"{self.reached} of {self.required} figures reached"


def load(text: str) -> tuple[System, ...]:
    """Read and check a catalogue; a wrong or repeated entry is a ConfigError that names it."""
    known = {f.name for f in fields(System)}
    found: dict[str, System] = {}
    for entry in tomllib.loads(text)["system"]:
        slug = entry.get("slug")
        unknown = sorted(set(entry) - known)
        if unknown:
            raise ConfigError(f"Catalogue entry {slug!r} has unknown keys: {', '.join(unknown)}.")
        for key, kind in (("room", Room), ("state", State)):
            if entry.get(key) not in get_args(kind):
                raise ConfigError(
                    f"Catalogue entry {slug!r} has {key} {entry.get(key)!r}. "
                    f"Known: {', '.join(get_args(kind))}."
                )
        try:
            system = System(**entry)
        except TypeError as error:
            raise ConfigError(f"Catalogue entry {slug!r}: {error}.") from error
        if system.slug in found:
            raise ConfigError(f"The catalogue holds {slug!r} twice.")
        found[system.slug] = system
    return tuple(found.values())


@cache
def systems() -> tuple[System, ...]:
    """Every system, built ones first, then by room and name."""
    text = Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8")
    rooms = get_args(Room)
    return tuple(
        sorted(load(text), key=lambda s: (s.state != "built", rooms.index(s.room), s.name.lower()))
    )


def results_folder() -> Path:
    """Where the claim rows are: inside an installed package, or beside `src/` in a checkout."""
    package = Path(__file__).parent
    installed = package / "claims"
    return installed if installed.is_dir() else package.parents[1] / "claims" / "results"


def newest_rows(folder: Path | None = None) -> dict[str, dict[str, Mapping[str, Any]]]:
    """`{system: {claim: newest row}}`; rows are appended, so the last one of a claim counts."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in sorted((folder or results_folder()).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            if line.strip():
                row = orjson.loads(line)
                rows.setdefault(row["system"], {})[row["claim"]] = row
    return rows


def proofs(folder: Path | None = None) -> dict[str, tuple[Proof, ...]]:
    """What has been measured, by system."""
    return {
        system: tuple(_proof(row) for row in claims.values())
        for system, claims in newest_rows(folder).items()
    }


def _proof(row: Mapping[str, Any]) -> Proof:
    figures = [figure for figure in row["figures"] if figure["met"] is not None]
    return Proof(
        claim=row["claim"],
        met=bool(row["met"]),
        reached=sum(1 for figure in figures if figure["met"]),
        required=len(figures),
        date=row["date"],
    )


def proof_text(measured: Iterable[Proof]) -> str:
    """What a table says of a system's proof: `unproven`, or how many figures were reached."""
    found = list(measured)
    if not found:
        return UNPROVEN
    reached, required = sum(p.reached for p in found), sum(p.required for p in found)
    return f"{reached} of {required} figures reached"
