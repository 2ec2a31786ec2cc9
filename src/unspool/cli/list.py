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
    elif kind == "tasks":
        _tasks(json)
    else:
        _methods(json)


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


def _tasks(json: bool) -> None:
    from unspool import _registry
    from unspool.evaluation.tasks import task

    found = [task(name) for name in _registry.names("task")]
    if json:
        for each in found:
            emit_json({"kind": "task", **each.spec.to_json()})
        return
    emit_table(
        ["name", "group", "language", "answer", "lengths in", "data", "licence"],
        (
            [s.name, s.ability, s.language, s.kind, s.unit, s.data_source, s.licence]
            for s in (each.spec for each in found)
        ),
    )
    benchmarks = len({each.spec.benchmark for each in found})
    message(
        f"{len(found)} tasks of {benchmarks} benchmarks. --tasks takes a name, a whole benchmark, "
        f"or benchmark/group."
    )


def _methods(json: bool) -> None:
    from unspool import _registry
    from unspool.reading.choice import list_methods

    # A reader picks what a model reads, a method changes how it reads: --method takes both.
    readers = _registry.names("reader")
    found = list_methods()
    if json:
        for name in readers:
            emit_json({"kind": "reader", "name": name})
        for each in found:
            emit_json({**each.to_json(), "kind": "method", "family": each.kind})
        return
    emit_table(
        ["name", "kind", "options", "recalls", "costs", "trains", "measured"],
        [
            *([name, "reader", "", "", "", "", ""] for name in readers),
            *(
                [
                    each.name,
                    each.kind,
                    # That a method can be put on some layers only is said of all of them elsewhere.
                    ", ".join(f"{k}={v}" for k, v in each.options.items() if k != "layers"),
                    each.recalls,
                    each.costs,
                    "yes" if each.trains else "no",
                    each.measured,
                ]
                for each in found
            ),
        ],
    )
    message(
        f"{len(readers) + len(found)} names for --method, written NAME or NAME:KEY=VALUE,…; "
        f"none: chosen for the model."
    )
