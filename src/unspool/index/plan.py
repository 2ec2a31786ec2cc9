"""`plan.json`: what a build has set out to do, written before anything else.

It names the settings, the input (each file by its name under the argument it was found in, its
size and a digest of its content) and, once everything is read, which pieces make which shard. A
later run follows it, with however many workers and however much memory; one with other settings or
changed input is refused, and told what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from unspool.errors import BuildConflict
from unspool.index._files import write_checked_json
from unspool.index.layout import Limits, Piece
from unspool.index.manifest import FORMAT, PLAN, read_format
from unspool.index.settings import BuildSettings


class SourceDigest(NamedTuple):
    """One file of the input."""

    name: str
    size: int
    digest: str

    def to_json(self) -> str:
        """One string a file, since there may be very many."""
        return f"{self.digest} {self.size} {self.name}"

    @classmethod
    def from_json(cls, value: str) -> SourceDigest:
        digest, size, name = value.split(" ", 2)
        return cls(name, int(size), digest)


class Layout(NamedTuple):
    """Which pieces make which shard: ranges of consecutive pieces."""

    pieces: tuple[Piece, ...]
    shards: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one index."""

    settings: BuildSettings
    tokenizer: str | None
    """Digest of the tokenizer."""
    sources: tuple[SourceDigest, ...] | None
    """None: the documents come from a program or from stdin."""
    limits: Limits | None
    """None: the shard size is pinned."""
    layout: Layout | None = None

    def with_layout(self, layout: Layout) -> Plan:
        """The plan once everything is read. What the first run's memory and workers meant for the
        layout has done its work by then, and goes."""
        return replace(self, limits=None, layout=layout)

    def write(self, folder: Path) -> None:
        write_checked_json(
            folder / PLAN,
            {
                "format": FORMAT,
                "settings": self.settings.to_json(),
                "tokenizer": self.tokenizer,
                "sources": self.sources and [s.to_json() for s in self.sources],
                "limits": self.limits and list(self.limits),
                "layout": self.layout
                and {
                    "pieces": [list(p) for p in self.layout.pieces],
                    "shards": [list(s) for s in self.layout.shards],
                },
            },
        )


def read_plan(folder: Path) -> Plan | None:
    """The plan of an index, or None where no build was ever begun."""
    if not (folder / PLAN).is_file():
        return None
    value = read_format(folder / PLAN)
    layout = value["layout"]
    return Plan(
        BuildSettings(**value["settings"]),
        value["tokenizer"],
        value["sources"] and tuple(map(SourceDigest.from_json, value["sources"])),
        value["limits"] and Limits(*value["limits"]),
        layout
        and Layout(
            tuple(Piece(*p) for p in layout["pieces"]),
            tuple((first, end) for first, end in layout["shards"]),
        ),
    )


def check_same(folder: Path, old: Plan, new: Plan) -> None:
    """Raise BuildConflict unless a new run asks for what the plan says."""
    differences = [
        *_settings_differences(old.settings.to_json(), new.settings.to_json()),
        *_source_differences(old.sources, new.sources),
    ]
    if old.tokenizer != new.tokenizer and not differences:
        differences.append("the tokenizer is another one than it was, under the same name")
    if differences:
        raise BuildConflict(
            f"The index in {folder} was begun otherwise: {'; '.join(differences)}. Give the same "
            "input and settings again, or build into another directory."
        )


def _settings_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that differ; a shard size that is not given now is the old one."""
    return [
        f"--{name.replace('_', '-')} was {_shown(old[name])} and is now {_shown(new[name])}"
        for name in old
        if old[name] != new[name] and not (name == "shard_size" and new[name] is None)
    ]


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def _source_differences(
    old: Sequence[SourceDigest] | None, new: Sequence[SourceDigest] | None
) -> list[str]:
    if old is None or new is None:
        kinds = ["files" if s is not None else "documents from a program" for s in (old, new)]
        return [] if kinds[0] == kinds[1] else [f"the input was {kinds[0]} and is now {kinds[1]}"]
    before, now = {s.name: s for s in old}, {s.name: s for s in new}
    missing = [name for name in before if name not in now]
    added = [name for name in now if name not in before]
    changed = [n for n in before if n in now and before[n] != now[n]]
    groups = [("missing", missing), ("new", added), ("changed", changed)]
    found = [f"{kind}: {_listed(names)}" for kind, names in groups if names]
    if not found and [s.name for s in old] != [s.name for s in new]:
        found.append("the files are the same but come in another order")
    return found


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
