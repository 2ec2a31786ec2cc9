"""What predicted lengths are worth: continuous batching, step by step, under a memory budget.

What: requests arrive, wait, and run together; each step writes one token of every running request.
A request runs only while its reservation of key-value memory is granted. Policies differ in what
they reserve and in who goes first:
- `max`: first come, first served; the longest answer is reserved, so nothing ever overflows.
- `quantile`: first come, first served; a predicted quantile is reserved. An answer that outgrows it
  asks for more, and if there is none, the newest running request is sent back to wait: what it had
  written is lost, and it reserves the longest answer from then on, so that it ends.
- `shortest`: like `quantile`, the shortest predicted answer first.
- `oracle`: first come, first served; exactly what will be needed is reserved.
Source: iteration-level scheduling, Yu et al. (2022), "Orca"; preemption by recomputing, Kwon et al.
(2023), "PagedAttention", section 4.5.
Differs from a real engine: memory is counted in tokens, not blocks; a prompt is read in the step
that admits it; the cost of a step is linear.
Cost: O(steps + requests x log requests).
"""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from unspool.errors import ConfigError, InputError, PathNotFound

Policy = Literal["max", "quantile", "shortest", "oracle"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a trace."""

    arrival: int | float
    """Seconds."""
    prompt: int
    """Tokens."""
    output: int
    """Tokens that the answer will have; only `oracle` looks at it beforehand."""
    reserve: int
    """Predicted quantile of the answer's tokens."""
    expected: int | float = 0.0
    """Predicted mean; `shortest` sorts by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What requests run on."""

    capacity: int
    """Tokens of key-value memory."""
    longest: int
    """Most tokens of an answer: what `max` reserves."""
    step: int | float = 0.02
    """Seconds of a step, whatever runs."""
    per_request: int | float = 1e-4
    """Seconds more for each running request."""
    per_token: int | float = 2e-7
    """Seconds more for each token in memory."""
    per_prompt_token: int | float = 2e-5
    """Seconds for each prompt token, when it is read."""
    grow: int = 32
    """Tokens that an answer that outgrows its reservation asks for at a time."""

    def __post_init__(self) -> None:
        costs = (self.step, self.per_request, self.per_token, self.per_prompt_token)
        if self.capacity < 2 or self.longest < 1 or self.grow < 1:
            raise ConfigError(
                f"A machine needs capacity >= 2, longest >= 1 and grow >= 1, got "
                f"capacity={self.capacity}, longest={self.longest}, grow={self.grow}."
            )
        if not all(math.isfinite(c) and c >= 0 for c in costs) or self.step <= 0:
            raise ConfigError(f"Costs must be finite and >= 0, and step above 0, got {costs}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy made of a trace."""

    policy: str
    requests: int
    seconds: float
    """From the first arrival to the last end."""
    throughput: float
    """Output tokens of finished answers a second."""
    latency_p50: float
    """Seconds from arrival to end."""
    latency_p99: float
    utilisation: float
    """Mean share of the memory that held tokens, over time."""
    preemptions: int
    produced: int
    """Tokens written, those that were lost included."""
    wasted: int
    """Tokens written and lost."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def simulate(requests: Sequence[Request], policy: str, machine: Machine) -> Outcome:
    """Run a trace under a policy until every answer is complete.

    Raises:
        ConfigError: There is no such policy.
        InputError: The trace is empty, or a request can never fit or has impossible numbers.
    """
    if policy not in POLICIES:
        raise ConfigError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}.")
    _check(requests, machine)
    return _Run(requests, policy, machine).outcome()


def _check(requests: Sequence[Request], machine: Machine) -> None:
    if not requests:
        raise InputError("The trace holds no requests.")
    for number, r in enumerate(requests, 1):
        if not (math.isfinite(r.arrival) and r.arrival >= 0) or min(r.prompt, r.reserve) < 0:
            raise InputError(f"Request {number} has a negative or infinite number: {r}.")
        if not 1 <= r.output <= machine.longest:
            raise InputError(
                f"Request {number} writes {r.output} tokens; a machine with longest="
                f"{machine.longest} takes 1 to {machine.longest}."
            )
        if r.prompt + machine.longest > machine.capacity:
            raise InputError(
                f"Request {number} may need {r.prompt + machine.longest:,} tokens of memory and "
                f"there are {machine.capacity:,}. Give more capacity, or a smaller longest."
            )


class _Run:
    """The state of one simulation. Time is in seconds, `tick` counts steps."""

    def __init__(self, requests: Sequence[Request], policy: str, machine: Machine) -> None:
        self.requests, self.policy, self.machine = requests, policy, machine
        n = len(requests)
        self.now = min(r.arrival for r in requests)
        self.tick = 0
        self.granted = [0] * n
        """Output tokens reserved for a running request; 0: it is not running."""
        self.began = [0] * n
        self.wanted = [self._wish(r) for r in requests]
        self.ended = [0.0] * n
        self.reserved = self.held = 0
        self.running: dict[int, None] = {}
        """In the order of admission."""
        self.events: list[tuple[int, int, int]] = []
        """(tick, request, tick of admission): when a running request ends or outgrows."""
        self.waiting: list[tuple[float, float, int]] = []
        self.produced = self.wasted = self.preemptions = 0
        self.area = 0.0

    def _wish(self, request: Request) -> int:
        if self.policy == "oracle":
            return request.output
        if self.policy == "max":
            return self.machine.longest
        return min(max(1, request.reserve), self.machine.longest)

    def outcome(self) -> Outcome:
        requests, machine = self.requests, self.machine
        order = sorted(range(len(requests)), key=lambda i: (requests[i].arrival, i))
        start, arrived, done = self.now, 0, 0
        while done < len(requests):
            while arrived < len(order) and requests[order[arrived]].arrival <= self.now:
                self._wait(order[arrived])
                arrived += 1
            read = self._admit()
            if not self.running:
                self.now = requests[order[arrived]].arrival
                continue
            self.held += len(self.running)
            seconds = (
                machine.step
                + machine.per_request * len(self.running)
                + machine.per_token * self.held
                + machine.per_prompt_token * read
            )
            self.now += seconds
            self.tick += 1
            self.produced += len(self.running)
            self.area += self.held * seconds
            done += self._settle()
        waits = [end - r.arrival for end, r in zip(self.ended, requests, strict=True)]
        p50, p99 = (float(x) for x in np.percentile(waits, (50, 99)))
        seconds = self.now - start
        return Outcome(
            policy=self.policy,
            requests=len(requests),
            seconds=seconds,
            throughput=sum(r.output for r in requests) / seconds,
            latency_p50=p50,
            latency_p99=p99,
            utilisation=self.area / (machine.capacity * seconds),
            preemptions=self.preemptions,
            produced=self.produced,
            wasted=self.wasted,
        )

    def _wait(self, i: int) -> None:
        request = self.requests[i]
        first = request.expected if self.policy == "shortest" else request.arrival
        heapq.heappush(self.waiting, (first, request.arrival, i))

    def _admit(self) -> int:
        """Start who fits, in order, and return the prompt tokens to read."""
        read = 0
        while self.waiting:
            i = self.waiting[0][2]
            need = self.requests[i].prompt + self.wanted[i]
            if self.reserved + need > self.machine.capacity:
                break  # nobody overtakes: a large request must not starve
            heapq.heappop(self.waiting)
            self.reserved += need
            self.held += self.requests[i].prompt
            read += self.requests[i].prompt
            self.granted[i], self.began[i] = self.wanted[i], self.tick
            self.running[i] = None
            self._schedule(i)
        return read

    def _schedule(self, i: int) -> None:
        turn = self.began[i] + min(self.granted[i], self.requests[i].output)
        heapq.heappush(self.events, (turn, i, self.began[i]))

    def _settle(self) -> int:
        """End what is complete, then give more to what has outgrown; how many ended."""
        due = []
        while self.events and self.events[0][0] <= self.tick:
            _, i, began = heapq.heappop(self.events)
            if i in self.running and self.began[i] == began:
                due.append(i)
        ended = [i for i in due if self.tick - self.began[i] >= self.requests[i].output]
        for i in ended:
            self._leave(i)
            self.ended[i] = self.now
        for i in sorted(set(due) - set(ended), key=lambda i: (self.began[i], i)):
            self._grow(i)
        return len(ended)

    def _grow(self, i: int) -> None:
        more = min(self.machine.grow, self.machine.longest - self.granted[i])
        while i in self.running and self.reserved + more > self.machine.capacity:
            newest = next(reversed(self.running))
            written = self.tick - self.began[newest]
            self.wasted += written
            self.preemptions += 1
            self._leave(newest)
            self.wanted[newest] = self.machine.longest
            self._wait(newest)
        if i in self.running:
            self.granted[i] += more
            self.reserved += more
            self._schedule(i)

    def _leave(self, i: int) -> None:
        del self.running[i]
        self.reserved -= self.requests[i].prompt + self.granted[i]
        self.held -= self.requests[i].prompt + self.tick - self.began[i]
        self.granted[i] = 0


def sustained(
    requests: Sequence[Request],
    policy: str,
    machine: Machine,
    *,
    latency_p99: int | float,
    rounds: int = 12,
) -> float:
    """Output tokens a second at the fastest arrivals for which the 99th percentile holds.

    The arrivals of the trace are pressed together or drawn apart by a factor, found by bisection
    between 1/64 and 64; 0.0 if the bound does not hold even at 1/64.
    """
    if not math.isfinite(latency_p99) or latency_p99 <= 0:
        raise ConfigError(f"latency_p99 must be above 0 seconds, got {latency_p99}.")

    def at(factor: float) -> Outcome:
        moved = [replace(r, arrival=r.arrival / factor) for r in requests]
        return simulate(moved, policy, machine)

    low, high, best = -6.0, 6.0, 0.0
    slow = at(2.0**low)
    if slow.latency_p99 > latency_p99:
        return 0.0
    best = slow.throughput
    for _ in range(rounds):
        middle = (low + high) / 2
        found = at(2.0**middle)
        if found.latency_p99 <= latency_p99:
            low, best = middle, max(best, found.throughput)
        else:
            high = middle
    return best


def poisson(count: int, rate: int | float, seed: int) -> list[float]:
    """Arrival times of a Poisson process, in seconds; `rate` is requests a second."""
    if count < 1 or not math.isfinite(rate) or rate <= 0:
        raise ConfigError(f"Arrivals need count >= 1 and rate > 0, got {count} and {rate}.")
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def read_trace(path: str | Path) -> list[Request]:
    """Requests of a CSV file with the columns arrival, prompt, output, reserve and, if there is
    one, expected (default: reserve).

    Raises:
        PathNotFound: There is no such file.
        InputError: A column is missing or a number cannot be read; the message names the line.
    """
    place = Path(path)
    if not place.is_file():
        raise PathNotFound(f"There is no trace at {str(place)!r}.")
    found = []
    with place.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        missing = {"arrival", "prompt", "output", "reserve"} - set(table.fieldnames or ())
        if missing:
            raise InputError(f"{place.name} lacks the columns {', '.join(sorted(missing))}.")
        for row in table:
            try:
                found.append(
                    Request(
                        arrival=float(row["arrival"]),
                        prompt=int(row["prompt"]),
                        output=int(row["output"]),
                        reserve=int(row["reserve"]),
                        expected=float(row.get("expected") or row["reserve"]),
                    )
                )
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"Line {table.line_num} of {place.name} is not a request: {error}."
                ) from error
    return found
