"""The catalogue: complete, consistent, and honest about what is proved."""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from unspool import catalog
from unspool.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
BUILT = [system for system in catalog.systems() if system.state == "built"]
ENTRY = """
[[system]]
slug = "a"
name = "A"
title = "On A"
authors = "X et al."
year = 2024
room = "index"
purpose = "p"
command = "c"
claim = "A is fast."
state = "planned"
"""


def test_holds_every_system_once() -> None:
    systems = catalog.systems()
    assert len(systems) == 67
    assert len({s.slug for s in systems}) == 67
    assert len({s.title for s in systems}) == 67
    with_arxiv = Counter(s.arxiv for s in systems if s.arxiv)
    assert max(with_arxiv.values()) == 1
    assert all(1990 < s.year < 2030 for s in systems)
    assert all(s.claim.endswith(".") and not s.purpose.endswith(".") for s in systems)


@pytest.mark.parametrize("system", BUILT, ids=lambda s: s.slug)
def test_built_systems_lead_to_code_a_claim_and_a_page(system: catalog.System) -> None:
    assert system.entry is not None
    module, attribute = system.entry.split(":")
    assert callable(getattr(import_module(module), attribute))
    assert (ROOT / str(system.claim_script)).is_file()
    assert (ROOT / "docs" / str(system.docs)).is_file()


def test_reads_a_good_entry() -> None:
    (system,) = catalog.load(ENTRY)
    assert (system.slug, system.arxiv, system.paper_url) == ("a", None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('room = "index"', 'room = "attic"'), "has room 'attic'. Known: corpus,"),
        (('state = "planned"', 'state = "done"'), "has state 'done'"),
        (('state = "planned"', 'state = "built"'), "needs entry, claim_script and docs"),
        (('purpose = "p"', 'purpose = ""'), "leaves purpose empty"),
        (('purpose = "p"\n', ""), "purpose"),
        (('purpose = "p"', 'purpose = "p"\nsince = 3'), "unknown keys: since"),
    ],
)
def test_a_wrong_entry_is_named(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        catalog.load(ENTRY.replace(*change))
    assert "'a'" in str(error.value)


def test_a_repeated_slug_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a' twice"):
        catalog.load(ENTRY + ENTRY)


def row(claim: str, *met: bool | None, date: str = "2026-01-01T00:00:00Z") -> str:
    figures = [{"name": str(i), "met": m} for i, m in enumerate(met)]
    overall = all(m is not False for m in met)
    return json.dumps(
        {"system": "a", "claim": claim, "figures": figures, "met": overall, "date": date}
    )


def test_no_row_is_unproven(tmp_path: Path) -> None:
    assert catalog.proofs(tmp_path) == {}
    assert catalog.proof_text(()) == "unproven"


def test_the_newest_row_of_each_claim_counts(tmp_path: Path) -> None:
    lines = [row("x", False, False), row("y", True), row("x", True, False, None)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n")
    found = catalog.proofs(tmp_path)["a"]
    assert {p.claim: (p.reached, p.required, p.met) for p in found} == {
        "x": (1, 2, False),  # a figure without a bound is not counted
        "y": (1, 1, True),
    }
    assert catalog.proof_text(found) == "2 of 3 figures reached"
