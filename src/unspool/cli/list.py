"""`unspool list`: the systems, methods or tasks there are, and what is proved of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from unspool.cli._output import emit_json, emit_table, message


def list_(
    kind: Literal["systems", "methods", "tasks"] = "systems", /, *, json: bool = False
) -> None:
    """Show the systems, methods or tasks there are.

    Args:
        kind: "systems": everything the toolkit holds or plans, with its paper and its proof;
            "methods": names for --method; "tasks": names for --tasks.
        json: Print one JSON object a line.
    """
    if kind == "systems":
        _systems(json)
    else:
        _names(kind.removesuffix("s"), json)


def _systems(json: bool) -> None:
    from unspool import catalog

    measured = catalog.proofs()
    rows = [(s, catalog.proof_text(measured.get(s.slug, ()))) for s in catalog.systems()]
    if json:
        for system, proof in rows:
            claims = [asdict(p) for p in measured.get(system.slug, ())]
            emit_json({**asdict(system), "proof": proof, "claims": claims})
        return
    emit_table(
        ["name", "state", "proof", "room", "what for", "paper"],
        ([s.name, s.state, proof, s.room, s.purpose, f"{s.authors} {s.year}"] for s, proof in rows),
    )
    built = sum(s.state == "built" for s, _ in rows)
    message(f"{len(rows)} systems: {built} built, {len(rows) - built} planned.")


def _names(kind: str, json: bool) -> None:
    from unspool import _registry

    names = _registry.names(kind)
    for name in names:
        if json:
            emit_json({"kind": kind, "name": name})
    if not json and names:
        emit_table(["name"], ([name] for name in names))
    if not names:
        message(f"There is no {kind} yet.")
