"""Tables made from rows: one for a claim, one of every system. No number in them is typed."""

from __future__ import annotations

from collections import Counter
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
    """One claim: what it must reach, what it reached, and where that was measured.

    Figures without a bound that cross two things, as "backward, 8k: cudnn", have a table of their
    own.
    """
    crossed = grid(row["figures"])
    listed = [figure for figure in row["figures"] if figure["name"] not in crossed]
    aims = any(figure.get("aim") is not None for figure in listed)
    header = ["figure", "must", *(["aim"] if aims else []), "measured", ""]
    body = []
    for figure in listed:
        verdict = {True: "reached", False: "**missed**", None: ""}[figure["met"]]
        aim = [_amount(figure.get("aim"), figure["unit"])] if aims else []
        body.append([figure["name"], _bound(figure), *aim, _reached(figure), verdict])
    machine = row["machine"]
    memory = human_bytes(machine["memory_bytes"]) if machine.get("memory_bytes") else "unknown"
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    found = [figure for figure in row["figures"] if figure["name"] in crossed]
    tables = [markdown(header, body)] * bool(body) + [_crossed(found, crossed)] * bool(found)
    shown = "\n\n".join(tables)
    return (
        f"{shown}\n\n{row['setup']} Seed {row['seed']}; {machine['cpu']}, "
        f"{machine['cores']} cores, {memory} of memory{gpu}; commit {row['commit'] or 'unknown'}, "
        f"{row['date'][:10]}."
    )


def grid(figures: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Row and column of the figures that fill a table of two dimensions, by name; empty if none do.

    A name is "one: other" or, without a colon, "one, other", parted at its first comma or its last,
    whichever places more. What stands alone in its row or column is left out, and a table is worth
    having from 8 figures on, if most of its cells are filled.
    """
    names = [f["name"] for f in figures if f["op"] == "report" and f.get("aim") is None]
    parted = [
        {
            name: tuple(name.rsplit(": ", 1) if ": " in name else cut(name, ", ", 1))
            for name in names
        }
        for cut in (str.split, str.rsplit)
    ]
    found = [
        _filled({name: (p[0], p[1]) for name, p in pairs.items() if len(p) > 1}) for pairs in parted
    ]
    return max(found, key=len)


def _filled(pairs: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The pairs that make a table, its columns fewer than its rows; empty if they make none."""
    while True:
        counts = [Counter(pair[side] for pair in pairs.values()) for side in (0, 1)]
        kept = {n: p for n, p in pairs.items() if counts[0][p[0]] > 1 and counts[1][p[1]] > 1}
        if len(kept) == len(pairs):
            break
        pairs = kept
    wide, high = sorted(map(len, counts))
    if len(pairs) < 8 or wide > 6 or len(pairs) < 0.6 * wide * high:
        return {}
    turned = len(counts[0]) < len(counts[1])
    return {name: (b, a) if turned else (a, b) for name, (a, b) in pairs.items()}


def _crossed(figures: Sequence[Mapping[str, Any]], places: Mapping[str, tuple[str, str]]) -> str:
    """The table of two dimensions; a unit that all figures, or a row, share is said once."""
    cells = {places[figure["name"]]: figure for figure in figures}
    rows, columns = (list(dict.fromkeys(place[side] for place in cells)) for side in (0, 1))
    everywhere = {figure["unit"] for figure in figures}
    shared = everywhere.pop() if len(everywhere) == 1 else None
    body = []
    for row in rows:
        units = {cells[row, column]["unit"] for column in columns if (row, column) in cells}
        own = units.pop() if shared is None and len(units) == 1 else None
        bare = {"unit": ""} if shared is not None or own is not None else {}
        body.append(
            [
                f"{row}, {own}" if own else row,
                *(
                    _reached({**cells[row, column], **bare}) if (row, column) in cells else ""
                    for column in columns
                ),
            ]
        )
    return markdown([shared or "", *columns], body)


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
