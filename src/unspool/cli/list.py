"""`unspool list`: the systems, methods or tasks there are, and what is proved of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from unspool.cli._output import emit_json, emit_table, emit_text, message
from unspool.errors import ConfigError

_READERS = {
    "bm25": ("the passages that share rare words with the question", "one pass over the words"),
}


def list_(
    kind: Literal["systems", "methods", "tasks"] = "systems",
    name: str | None = None,
    /,
    *,
    json: bool = False,
) -> None:
    """Show the systems, methods or tasks there are.

    Args:
        kind: "systems": everything the toolkit holds or plans, with its paper and its proof;
            "methods": names for --method; "tasks": names for --tasks.
        name: Of one method: its settings, with their defaults and what they are for.
        json: Print one JSON object a line.
    """
    if name is not None:
        if kind != "methods":
            raise ConfigError(f"Only methods are shown one by one: unspool list methods {name}.")
        _settings(name, json)
    elif kind == "systems":
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
        ["name", "kind", "recalls", "costs", "trains", "measured"],
        [
            *([name, "reader", *_READERS.get(name, ("", "")), "no", ""] for name in readers),
            *(
                [
                    each.name,
                    each.kind,
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
        f"{len(readers) + len(found)} names for --method, written NAME or NAME:KEY=VALUE,…. "
        f"The settings of one: unspool list methods NAME"
    )


def _settings(name: str, json: bool) -> None:
    """One method: what it does to a model, and a row a setting."""
    from unspool import _registry
    from unspool.methods import meanings, method_class, options, spell_value

    if name in _registry.names("reader"):
        message(f"{name} is a reader: it picks what a model reads, and has no settings.")
        return
    kind = method_class(name)
    said = meanings(kind)
    rows = [(key, spell_value(default), words, said[key]) for key, default, words in options(kind)]
    if json:
        for key, default, words, meaning in rows:
            emit_json({"option": key, "default": default, "type": words, "meaning": meaning})
        return
    emit_text(f"{name} ({kind.family}) recalls {kind.recalls}; costs: {kind.costs}.\n")
    emit_table(["option", "default", "type", "meaning"], rows)
    chosen = "; none: chosen for the model" if any(row[1] == "none" for row in rows) else ""
    message(f"Written {name}:KEY=VALUE,…{chosen}.")
