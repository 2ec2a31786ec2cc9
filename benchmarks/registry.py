"""What can be measured: benchmarks, the peers beside them, and what one measurement returns."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from unspool.errors import ConfigError

OURS = "unspool"


@dataclass(frozen=True, slots=True)
class Timed:
    """What a contender returns after its set-up: the call to time, and what one call holds."""

    call: Callable[[], object]
    per: float = 1
    """Operations in one call; the reported figure is divided by it."""


Contender: TypeAlias = Callable[..., "Timed | Callable[[], object]"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Someone else's way to do the same work."""

    name: str
    function: Contender
    package: str
    """Distribution whose version goes into the row."""
    missing: Callable[[], str | None]
    """The line that a person types to get it, None when it can run."""


@dataclass(slots=True)
class Benchmark:
    """One benchmark: our way, the peers' ways, and over what values it sweeps."""

    name: str
    function: Contender
    sweep: Mapping[str, Sequence[Any]]
    tests: tuple[str, ...]
    against: tuple[str, ...]
    unit: str
    fresh: bool
    runs: int
    seconds: float
    timeout: float
    source: str
    peers: dict[str, Peer] = field(default_factory=dict)

    def contender(self, name: str) -> Contender:
        return self.function if name == OURS else self.peers[name].function

    def points(self, chosen: Mapping[str, Sequence[Any] | None]) -> list[dict[str, Any]]:
        """Every combination of values to run.

        With nothing chosen, the whole sweep; else the named parameters over the given values (None:
        all registered ones), the others at their first value.
        """
        unknown = sorted(set(chosen) - set(self.sweep))
        if unknown:
            raise ConfigError(
                f"{self.name} has no parameter {', '.join(unknown)}. "
                f"It sweeps over {', '.join(self.sweep) or 'nothing'}."
            )
        axes: list[Sequence[Any]] = []
        for name, values in self.sweep.items():
            if not chosen:
                axes.append(values)
            elif name in chosen:
                axes.append(chosen[name] or values)
            else:
                axes.append(values[:1])
        return [dict(zip(self.sweep, point, strict=True)) for point in itertools.product(*axes)]


_BENCHMARKS: dict[str, Benchmark] = {}
_EARLY_PEERS: dict[str, list[Peer]] = {}


def benchmark(
    name: str,
    *,
    tests: str | Sequence[str],
    against: Sequence[str] = (),
    sweep: Mapping[str, Sequence[Any]] | None = None,
    unit: str = "s",
    fresh: bool = False,
    runs: int = 10,
    seconds: float = 1.0,
    timeout: float = 3600,
) -> Callable[[Contender], Contender]:
    """Register our side of a benchmark. The function sets up and returns what is to be timed.

    Args:
        name: What `python -m benchmarks.run NAME` takes.
        tests: Test files that must pass before anything is measured.
        against: Peers that run by default.
        sweep: Values of the function's parameters; the first of each is the default.
        unit: "s" times the call. Any other unit takes the number that the call returns (or the
            `value` of the mapping it returns) as the figure: a size, a ratio, a rate.
        fresh: True measures each run in a new process with memory of the whole process tree
            sampled, for builds and other long work. False repeats the call in one process.
        runs: Samples, at least ten for short calls; the number of processes when `fresh`.
        seconds: Least time spent on samples of one contender, when not `fresh`.
        timeout: Seconds after which a contender's process is ended and reported as failed.
    """

    if not tests:
        raise ConfigError(f"Benchmark {name} names no tests that must pass before it is measured.")

    def register(function: Contender) -> Contender:
        found = Benchmark(
            name=name,
            function=function,
            sweep=dict(sweep or {}),
            tests=(tests,) if isinstance(tests, str) else tuple(tests),
            against=tuple(against),
            unit=unit,
            fresh=fresh,
            runs=runs,
            seconds=seconds,
            timeout=timeout,
            source=str(Path(function.__code__.co_filename).resolve()),
        )
        for early in _EARLY_PEERS.pop(name, []):
            found.peers[early.name] = early
        _BENCHMARKS[name] = found
        return function

    return register


def peer(
    benchmark_name: str,
    name: str,
    *,
    package: str | None = None,
    missing: str | Callable[[], str | None],
) -> Callable[[Contender], Contender]:
    """Register someone else's side of a benchmark, with the same parameters as ours.

    Args:
        benchmark_name: The benchmark it runs beside.
        name: What `--against` takes.
        package: Distribution it comes from, if not called as the peer is.
        missing: The module it needs, or a function that returns None when the peer can run and else
            the line that a person types to get it (for peers that live in another environment).
    """

    def register(function: Contender) -> Contender:
        found = Peer(
            name,
            function,
            package or name,
            missing if callable(missing) else partial(_module_missing, missing, package or name),
        )
        if benchmark_name in _BENCHMARKS:
            _BENCHMARKS[benchmark_name].peers[name] = found
        else:
            _EARLY_PEERS.setdefault(benchmark_name, []).append(found)
        return function

    return register


def _module_missing(module: str, package: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"pip install {package}"


def discover(source: str | None = None) -> dict[str, Benchmark]:
    """Import `benchmarks/bench_*.py`, or only the file given, and return what they registered."""
    if source is None:
        for path in sorted(Path(__file__).parent.glob("bench_*.py")):
            importlib.import_module(f"benchmarks.{path.stem}")
    else:
        path = Path(source).resolve()
        if path.parent == Path(__file__).resolve().parent:
            importlib.import_module(f"benchmarks.{path.stem}")
        else:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise ConfigError(f"{source} is not a Python file.")
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
    return _BENCHMARKS
