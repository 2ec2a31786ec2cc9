"""Benchmarks: `@benchmark` registers ours, `@peer` a rival, `benchmarks.run` measures both."""

from benchmarks.registry import Timed, benchmark, peer

__all__ = ["Timed", "benchmark", "peer"]
