"""`python -m benchmarks.run NAME`: measure ours and the peers side by side, and append rows.

The mechanism's tests run first; nothing is measured while they fail. Each contender runs in its own
process, several times in turn, so that a slow moment of the machine falls on all of them. A row
holds every contender's median and spread, the ratios to ours, the machine, versions and commit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.registry import OURS, Benchmark, discover
from unspool import _machine
from unspool.cli._output import emit_table, human_bytes, human_number, human_seconds, message
from unspool.errors import ConfigError, UnspoolError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
_PASSES = 2
"""Times that each contender gets its turn when calls are short."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        registered = discover(options.source)
        if options.all:
            return max(measure(benchmark, options) for benchmark in registered.values())
        if options.list or not options.name:
            _list(registered)
            return 0 if options.list else 2
        if options.name not in registered:
            raise ConfigError(
                f"There is no benchmark {options.name!r}. Known: {', '.join(sorted(registered))}."
            )
        return measure(registered[options.name], options)
    except UnspoolError as error:
        message(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        message("Interrupted. Rows already finished are kept.")
        return 130


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("name", nargs="?", help="the benchmark")
    parser.add_argument("--all", action="store_true", help="every benchmark, one after the other")
    parser.add_argument("--list", action="store_true", help="show what can be measured")
    parser.add_argument("--against", help="peers, separated by commas; 'none' for ours alone")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY[=V,…]",
        help="what to vary (repeatable)",
    )
    parser.add_argument("--runs", type=int, help="samples or processes for each contender")
    parser.add_argument("--dry", action="store_true", help="no tests before, no row after")
    parser.add_argument("--from", dest="source", metavar="FILE", help="register only this file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows")
    return parser.parse_args(argv)


def _list(registered: Mapping[str, Benchmark]) -> None:
    emit_table(
        ["benchmark", "sweeps over", "peers"],
        (
            [b.name, " × ".join(b.sweep) or "-", ", ".join(b.peers) or "-"]
            for b in registered.values()
        ),
    )


def measure(benchmark: Benchmark, options: argparse.Namespace) -> int:
    """Run one benchmark; the exit code is 0 if every point has a row, 1 if something failed."""
    points = benchmark.points(_parse_sweep(options.sweep, benchmark))
    peers, missing = _choose_peers(benchmark, options.against)
    for name, line in missing.items():
        message(f"{name} is not installed and is left out. Run: {line}")
    if not options.dry and not _tests_pass(benchmark.tests):
        message(f"error: the tests of {benchmark.name} fail, so nothing is measured.")
        return 1
    failed = False
    for point in points:
        row = _row(benchmark, point, [OURS, *peers], missing, options.runs or benchmark.runs)
        _show(row)
        failed = failed or OURS in row["failed"]
        if not options.dry and OURS not in row["failed"]:
            _append(options.results / f"{benchmark.name}.jsonl", row)
    return int(failed)


def compare(
    benchmark: Benchmark, point: dict[str, Any], against: Sequence[str], runs: int
) -> dict[str, Any]:
    """One row as it would be appended, for claims; a peer that cannot run here is an error."""
    peers, missing = _choose_peers(benchmark, ",".join(against) or "none")
    if missing:
        raise ConfigError("; ".join(f"{n} is not installed: {line}" for n, line in missing.items()))
    row = _row(benchmark, point, [OURS, *peers], {}, runs)
    for name, error in row["failed"].items():
        raise ConfigError(f"{benchmark.name}: {name} failed: {error}")
    return row


def _parse_sweep(given: Sequence[str], benchmark: Benchmark) -> dict[str, list[Any] | None]:
    chosen: dict[str, list[Any] | None] = {}
    for item in given:
        key, _, values = item.partition("=")
        registered = benchmark.sweep.get(key, ())
        kind = type(registered[0]) if registered else str
        try:
            chosen[key] = [kind(v) for v in values.split(",")] if values else None
        except ValueError as error:
            raise ConfigError(f"--sweep {item}: {error}.") from error
    return chosen


def _choose_peers(benchmark: Benchmark, against: str | None) -> tuple[list[str], dict[str, str]]:
    if against is None:
        names = list(benchmark.against)
    else:
        names = [] if against == "none" else [n.strip() for n in against.split(",")]
    unknown = [n for n in names if n not in benchmark.peers]
    if unknown:
        raise ConfigError(
            f"{benchmark.name} has no peer {', '.join(unknown)}. "
            f"Known: {', '.join(benchmark.peers) or 'none'}."
        )
    lines = {n: benchmark.peers[n].missing() for n in names}
    missing = {n: line for n, line in lines.items() if line}
    return [n for n in names if n not in missing], missing


def _tests_pass(tests: Sequence[str]) -> bool:
    message(f"Tests first: {' '.join(tests)}")
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-x", *tests]
    return subprocess.run(command, cwd=ROOT, stdout=2, check=False).returncode == 0


def _row(
    benchmark: Benchmark,
    point: dict[str, Any],
    contenders: Sequence[str],
    missing: Mapping[str, str],
    runs: int,
) -> dict[str, Any]:
    passes = runs if benchmark.fresh else min(_PASSES, runs)
    share = 1 if benchmark.fresh else -(-runs // passes)
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    failed: dict[str, str] = {}
    for turn in range(passes):
        for name in contenders:
            if name in failed:
                continue
            message(f"{benchmark.name} {point or ''} {name}: turn {turn + 1} of {passes}")
            try:
                parts[name].append(_child(benchmark, name, point, share))
            except ChildFailed as error:
                failed[name] = str(error)
                message(f"{name} failed: {error}")
    results = {n: _summary(found) for n, found in parts.items() if found and n not in failed}
    ours = results.get(OURS)
    ratios = {n: _ratios(r, ours) for n, r in results.items() if n != OURS} if ours else {}
    packages = [benchmark.peers[n].package for n in results if n != OURS]
    return {
        "benchmark": benchmark.name,
        "point": point,
        "unit": benchmark.unit,
        "results": results,
        "ratios": ratios,
        "failed": failed,
        "missing": dict(missing),
        "machine": _machine.describe(),
        "versions": _machine.versions(["numpy", *packages]),
        "commit": _machine.commit(ROOT),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _ratios(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """Their median, peak memory and numeric facts, each divided by ours."""
    a = {"median": theirs["median"], "peak_bytes": theirs["peak_bytes"], **theirs.get("facts", {})}
    b = {"median": ours["median"], "peak_bytes": ours["peak_bytes"], **ours.get("facts", {})}
    return {
        key: value / b[key]
        for key, value in a.items()
        if isinstance(value, int | float) and isinstance(b.get(key), int | float) and b[key]
    }


class ChildFailed(Exception):
    """A contender's process ended badly; the message is the end of what it said."""


def _child(benchmark: Benchmark, name: str, point: dict[str, Any], runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result, said = Path(folder) / "result.json", Path(folder) / "said"
        job = {
            "source": benchmark.source,
            "benchmark": benchmark.name,
            "contender": name,
            "point": point,
            "runs": runs,
            "result": str(result),
        }
        with said.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.child"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            memory = MemoryWatch(process.pid) if benchmark.fresh else None
            try:
                process.communicate(json.dumps(job).encode(), timeout=benchmark.timeout)
            except subprocess.TimeoutExpired:
                raise ChildFailed(f"not done after {human_seconds(benchmark.timeout)}") from None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if memory is not None:
                    memory.stop()
        if process.returncode or not result.exists():
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ChildFailed(lines[-1] if lines else f"exit status {process.returncode}")
        measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if memory is not None and memory.peak:
            measured["peak_bytes"] = memory.peak
            measured["peak_private_bytes"] = memory.peak_private
        return measured


def _summary(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    samples = sorted(sample for part in parts for sample in part["samples"])
    quarters = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    summary: dict[str, Any] = {
        "median": statistics.median(samples),
        "q1": quarters[0],
        "q3": quarters[2],
        "least": samples[0],
        "most": samples[-1],
        "runs": len(samples),
        "peak_bytes": max(part["peak_bytes"] for part in parts),
    }
    if any("peak_private_bytes" in part for part in parts):
        summary["peak_private_bytes"] = max(part.get("peak_private_bytes", 0) for part in parts)
    if parts[-1]["facts"]:
        summary["facts"] = parts[-1]["facts"]
    return summary


def _show(row: Mapping[str, Any]) -> None:
    def figure(value: float) -> str:
        if row["unit"] == "s":
            return human_seconds(value)
        return f"{human_number(value)} {row['unit']}"

    emit_table(
        ["contender", "median", "middle half", "runs", "peak memory", "against ours"],
        (
            [
                name,
                figure(r["median"]),
                f"{figure(r['q1'])} – {figure(r['q3'])}",
                r["runs"],
                human_bytes(r["peak_bytes"]),
                f"{row['ratios'][name]['median']:.2f}×"
                if "median" in row["ratios"].get(name, {})
                else "",
            ]
            for name, r in row["results"].items()
        ),
        title=f"{row['benchmark']} {row['point'] or ''}",
        right=("median", "runs", "peak memory", "against ours"),
    )


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row, ensure_ascii=False) + "\n")
        rows.flush()
        os.fsync(rows.fileno())


if __name__ == "__main__":
    sys.exit(main())
