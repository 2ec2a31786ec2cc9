"""Tables made from rows: one for a claim, one of every system. No number in them is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool import catalog
from unspool.cli._output import human_bytes, human_number
from unspool.errors import InputError


def generator(results: Path) -> Any:
    """Fill `<!-- claims:begin NAME -->`: a claim, a system's slug, `built` or `systems`."""
    rows = catalog.newest_rows(results)
    by_claim = {name: row for claims in rows.values() for name, row in claims.items()}
    slugs = {system.slug for system in catalog.systems()}

    def generate(name: str) -> str:
        if name in ("systems", "built"):
            return systems_table(results, built_only=name == "built")
        if name in by_claim:
            return claim_table(by_claim[name])
        if name in slugs:
            if name not in rows:
                return "Not measured yet: unproven."
            return "\n\n".join(
                f"**{row['title']}**\n\n{claim_table(row)}" for row in rows[name].values()
            )
        if (Path(__file__).parent / f"{name}.py").exists():
            return "Not measured yet: unproven."
        raise InputError(f"There is no claim, system or table called {name!r}.")

    return generate


def claim_table(row: Mapping[str, Any]) -> str:
    """One claim: what it must reach, what it reached, and where that was measured."""
    aims = any(figure.get("aim") is not None for figure in row["figures"])
    header = ["figure", "must", *(["aim"] if aims else []), "measured", ""]
    body = []
    for figure in row["figures"]:
        verdict = {True: "reached", False: "**missed**", None: ""}[figure["met"]]
        aim = [_amount(figure.get("aim"), figure["unit"])] if aims else []
        body.append([figure["name"], _bound(figure), *aim, _reached(figure), verdict])
    machine = row["machine"]
    memory = human_bytes(machine["memory_bytes"]) if machine.get("memory_bytes") else "unknown"
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return (
        f"{markdown(header, body)}\n\n{row['setup']} Seed {row['seed']}; {machine['cpu']}, "
        f"{machine['cores']} cores, {memory} of memory{gpu}; commit {row['commit'] or 'unknown'}, "
        f"{row['date'][:10]}."
    )


def _bound(figure: Mapping[str, Any]) -> str:
    if figure["op"] == "report":
        return ""
    sign = {">=": "≥", "<=": "≤", "==": "="}.get(figure["op"], figure["op"])
    return f"{sign} {_amount(figure['required'], figure['unit'])}"


def _reached(figure: Mapping[str, Any]) -> str:
    if figure["reached"] is None:
        return "not measured"
    return _amount(figure["reached"], figure["unit"])


def _amount(value: float | int | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "%":
        return f"{value:.1f}%"
    return f"{human_number(value)} {unit}".rstrip()


def systems_table(results: Path, *, built_only: bool = False) -> str:
    """Every system: name, what for, command, paper, proof."""
    measured = catalog.proofs(results)
    body = []
    for system in catalog.systems():
        if built_only and system.state != "built":
            continue
        paper = f"{system.authors} {system.year}"
        proof = catalog.proof_text(measured.get(system.slug, ()))
        body.append(
            [
                system.name,
                system.purpose,
                f"`{system.command}`" if system.state == "built" else "planned",
                f"[{paper}]({system.paper_url})" if system.paper_url else paper,
                proof,
            ]
        )
    return markdown(["system", "what for", "command", "paper", "proof"], body)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
