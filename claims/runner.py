"""Run claims, append their rows, and fill the tables that are made from rows."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from claims.framework import Budget, Claim, Context, Measured
from unspool import _machine
from unspool.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
_MACHINERY = {"__init__", "__main__", "framework", "runner", "tables"}


def discover(folder: Path | None = None) -> dict[str, ModuleType]:
    """Every claim script: a module with `CLAIM` and `run(ctx)`. Other modules serve them."""
    found: dict[str, ModuleType] = {}
    for path in sorted((folder or Path(__file__).parent).glob("*.py")):
        if path.stem in _MACHINERY or path.stem.startswith("_"):
            continue
        module = importlib.import_module(f"claims.{path.stem}") if folder is None else _load(path)
        if not hasattr(module, "CLAIM"):
            continue  # what several claims share
        if not isinstance(module.CLAIM, Claim) or not hasattr(module, "run"):
            raise ConfigError(f"claims/{path.name} must define CLAIM (a Claim) and run(ctx).")
        found[path.stem] = module
    return found


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"claim_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def chosen(found: Mapping[str, ModuleType], budget: Budget) -> list[str]:
    """The claims that a budget pays for: those of its machine, or all with "full"."""
    return [name for name, m in found.items() if budget == "full" or m.CLAIM.budget == budget]


def measure(
    name: str, module: ModuleType, budget: Budget, results: Path, folder: Path | None = None
) -> dict[str, Any]:
    """Run one claim and append its row. Steps that a killed run had finished are not repeated."""
    claim: Claim = module.CLAIM
    context = Context(name, claim, budget, Path(str(module.__file__)), folder)
    started = time.monotonic()
    returned = module.run(context)
    measured = returned if isinstance(returned, Measured) else Measured(dict(returned))
    known = {figure.name for figure in claim.required}
    strange = sorted(set(measured.figures) - known)
    if strange:
        raise ConfigError(f"Claim {name} measured {', '.join(strange)}, which it does not declare.")
    figures = []
    for figure in claim.required:
        reached = measured.figures.get(figure.name)
        figures.append(
            {
                "name": figure.name,
                "op": figure.op,
                "required": figure.value,
                "aim": figure.aim,
                "unit": figure.unit,
                "reached": reached,
                "met": figure.met(reached),
            }
        )
    row = {
        "claim": name,
        "system": claim.system,
        "title": claim.title,
        "figures": figures,
        "met": all(figure["met"] is not False for figure in figures),
        "facts": dict(measured.facts),
        "seed": claim.seed,
        "setup": claim.setup,
        "budget": budget,
        "seconds": round(time.monotonic() - started, 1),
        "machine": _machine.describe(),
        "versions": _machine.versions(claim.packages),
        "commit": _machine.commit(ROOT),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    append(results / f"{claim.system}.jsonl", row)
    context.finish()
    return row


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row as one line; what a killed writer left of a line is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, ensure_ascii=False) + "\n"
    with path.open("a+b") as rows:
        rows.seek(0, os.SEEK_END)
        if rows.tell():
            rows.seek(-1, os.SEEK_END)
            if rows.read(1) != b"\n":
                raise ConfigError(f"{path.name} ends in the middle of a row. Remove that line.")
        rows.write(line.encode())
        rows.flush()
        os.fsync(rows.fileno())


def explain(error: Exception) -> str:
    """The error and the line of the claim script it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
