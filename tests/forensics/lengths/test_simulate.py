"""The scheduling simulator: closed forms, a step-by-step twin, and what must be conserved."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.forensics.lengths.simulate import (
    POLICIES,
    Machine,
    Request,
    poisson,
    read_trace,
    simulate,
    sustained,
)

PLAIN = Machine(
    capacity=100, longest=40, step=1.0, per_request=0.0, per_token=0.0, per_prompt_token=0.0
)


def request(output: int, *, reserve: int = 10, prompt: int = 5, arrival: float = 0.0) -> Request:
    return Request(
        arrival=arrival, prompt=prompt, output=output, reserve=reserve, expected=float(output)
    )


def test_one_at_a_time_takes_the_sum_of_lengths() -> None:
    machine = Machine(
        capacity=45, longest=40, step=1.0, per_request=0.0, per_token=0.0, per_prompt_token=0.0
    )
    found = simulate([request(7), request(11), request(3)], "max", machine)
    assert found.seconds == 21
    assert found.throughput == pytest.approx(1.0)
    assert found.latency_p50 == 18
    assert (found.preemptions, found.wasted, found.produced) == (0, 0, 21)


def test_everything_at_once_takes_the_longest() -> None:
    found = simulate([request(7), request(11), request(3)], "oracle", PLAIN)
    assert found.seconds == 11
    # Memory: prompts and tokens written so far, at the end of each step.
    held = [sum(5 + t for n in (7, 11, 3) if t <= n) for t in range(1, 12)]
    assert found.utilisation == pytest.approx(sum(held) / (100 * 11))


def test_costs_of_a_step_add_up() -> None:
    machine = Machine(
        capacity=100, longest=40, step=1.0, per_request=0.5, per_token=0.25, per_prompt_token=0.125
    )
    found = simulate([request(2, prompt=4)], "max", machine)
    assert found.seconds == (1 + 0.5 + 0.25 * 5 + 0.125 * 4) + (1 + 0.5 + 0.25 * 6)


def test_overflow_grows_when_there_is_room() -> None:
    found = simulate([request(30, reserve=2)], "quantile", PLAIN)
    assert (found.preemptions, found.wasted, found.seconds) == (0, 0, 30)


def test_overflow_sends_the_newest_back_and_it_ends() -> None:
    machine = Machine(
        capacity=60, longest=40, step=1.0, per_request=0, per_token=0, per_prompt_token=0, grow=8
    )
    found = simulate([request(40, reserve=4) for _ in range(6)], "quantile", machine)
    assert found.preemptions > 0
    assert found.wasted > 0
    assert found.produced == 240 + found.wasted


def test_shortest_first_lowers_the_median() -> None:
    requests = [request(40), *(request(2, arrival=0.5) for _ in range(5))]
    machine = Machine(
        capacity=45, longest=40, step=1.0, per_request=0, per_token=0, per_prompt_token=0
    )
    later = [request(40), request(39, arrival=0.4), *requests[1:]]
    plain = simulate(later, "max", machine)
    # Reserve the longest, so that only the order differs.
    first = simulate(
        [Request(arrival=r.arrival, prompt=r.prompt, output=r.output, reserve=40,
                 expected=float(r.output)) for r in later], "shortest", machine)  # fmt: skip
    assert first.latency_p50 < plain.latency_p50
    assert first.seconds == plain.seconds


def twin(requests: list[Request], policy: str, machine: Machine) -> tuple[int, int, int]:
    """Steps, tokens written and tokens lost, by lists, one token at a time. Nobody arrives late."""
    key = (lambda i: (requests[i].expected, i)) if policy == "shortest" else (lambda i: i)
    wish = [
        {"max": machine.longest, "oracle": r.output}.get(
            policy, min(max(1, r.reserve), machine.longest)
        )
        for r in requests
    ]
    waiting = sorted(range(len(requests)), key=key)
    running: list[int] = []
    granted: dict[int, int] = {}
    written: dict[int, int] = {}
    steps = produced = lost = 0

    def used(now: list[int]) -> int:
        return sum(requests[j].prompt + granted[j] for j in now)

    while waiting or running:
        while waiting and used(running) + requests[waiting[0]].prompt + wish[waiting[0]] <= (
            machine.capacity
        ):
            i = waiting.pop(0)
            running.append(i)
            granted[i], written[i] = wish[i], 0
        steps += 1
        for i in running:
            written[i] += 1
            produced += 1
        running = [i for i in running if written[i] < requests[i].output]
        for i in [i for i in running if written[i] == granted[i]]:
            if i not in running:
                continue
            more = min(machine.grow, machine.longest - granted[i])
            while i in running and used(running) + more > machine.capacity:
                last = running.pop()
                lost += written[last]
                wish[last] = machine.longest
                waiting = sorted([*waiting, last], key=key)
            if i in running:
                granted[i] += more
    return steps, produced, lost


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 25), st.integers(0, 9)), min_size=1,
             max_size=14),
    st.integers(30, 90),
    st.integers(1, 9),
    st.sampled_from(POLICIES),
)  # fmt: skip
def test_equals_a_twin_that_counts_token_by_token(
    made: list[tuple[int, int, int]], capacity: int, grow: int, policy: str
) -> None:
    machine = Machine(
        capacity=capacity, longest=20, step=1.0, per_request=0, per_token=0, per_prompt_token=0,
        grow=grow,
    )  # fmt: skip
    requests = [request(o, reserve=r, prompt=p) for o, r, p in made]
    found = simulate(requests, policy, machine)
    assert (found.seconds, found.produced, found.wasted) == twin(requests, policy, machine)
    assert found.produced == sum(r.output for r in requests) + found.wasted
    assert found.utilisation <= 1
    if policy in ("max", "oracle"):
        assert (found.preemptions, found.wasted) == (0, 0)


def test_knowing_lengths_beats_reserving_the_longest() -> None:
    times = poisson(300, 2.0, seed=3)
    sizes = [1 + (i * 37) % 40 for i in range(300)]
    requests = [request(n, reserve=n + 4, arrival=t) for n, t in zip(sizes, times, strict=True)]
    machine = Machine(capacity=200, longest=40, step=0.1)
    worst, known = (simulate(requests, p, machine).throughput for p in ("max", "oracle"))
    assert known > worst
    rates = [sustained(requests, p, machine, latency_p99=12.0) for p in ("max", "oracle")]
    assert rates[1] > rates[0] > 0
    assert sustained(requests, "max", machine, latency_p99=0.1) == 0.0


def test_arrivals_are_those_of_the_seed() -> None:
    assert poisson(5, 2.0, 1) == poisson(5, 2.0, 1) != poisson(5, 2.0, 2)
    long = poisson(20_000, 4.0, 0)
    assert long[-1] / len(long) == pytest.approx(0.25, rel=0.03)


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="no requests"):
        simulate([], "max", PLAIN)
    with pytest.raises(InputError, match="writes 41 tokens"):
        simulate([request(41)], "max", PLAIN)
    with pytest.raises(InputError, match="Give more capacity"):
        simulate([request(3, prompt=61)], "max", PLAIN)
    with pytest.raises(InputError, match="negative or infinite"):
        simulate([request(3, arrival=-1.0)], "max", PLAIN)
    with pytest.raises(ConfigError, match="policy must be one of"):
        simulate([request(3)], "luck", PLAIN)
    with pytest.raises(ConfigError, match="capacity=1"):
        Machine(capacity=1, longest=1)
    with pytest.raises(ConfigError, match="Costs"):
        Machine(capacity=10, longest=1, step=0.0)


def test_reads_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival,prompt,output,reserve\n0.5,3,7,9\n")
    assert read_trace(path) == [Request(arrival=0.5, prompt=3, output=7, reserve=9, expected=9.0)]
    path.write_text("arrival,prompt,output,reserve\n0.5,3,seven,9\n")
    with pytest.raises(InputError, match=r"Line 2 of trace\.csv"):
        read_trace(path)
    path.write_text("arrival,prompt\n")
    with pytest.raises(InputError, match="lacks the columns output, reserve"):
        read_trace(path)
    with pytest.raises(PathNotFound):
        read_trace(tmp_path / "no.csv")
