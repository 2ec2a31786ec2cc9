"""Searches end at their deadline, are refused when they have no chance, and do not pile up."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from tests.server.conftest import Client, fresh
from unspool.errors import DeadlineExceeded
from unspool.index.open import open_index
from unspool.server import cost
from unspool.server.failures import ServiceError
from unspool.server.work import Work


def test_many_short_calls_end_at_the_deadline_too(index_dir: Path) -> None:
    index = open_index(index_dir)

    def endless() -> None:
        while True:
            index.count("the")

    work = Work(0.3, 10)
    started = time.monotonic()
    with pytest.raises(ServiceError, match="did not end within") as late:
        asyncio.run(work.run(endless))
    assert late.value.status == 504
    assert time.monotonic() - started < 2
    assert index.count("the") > 0  # the deadline is gone
    work.close()


def test_what_waits_too_long_is_not_begun() -> None:
    work = Work(0.2, 100)
    begun: list[int] = []

    async def scenario() -> list[object]:
        calls = [work.run(lambda: (begun.append(1), time.sleep(0.3))) for _ in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(scenario())
    late = [r for r in results if isinstance(r, ServiceError)]
    assert {r.status for r in late} == {504}
    assert len(begun) + len(late) == 20
    assert late
    work.close()


def test_more_than_can_wait_are_put_off() -> None:
    work = Work(5, 3)
    held = threading.Event()

    async def scenario() -> list[object]:
        tasks = [asyncio.create_task(work.run(held.wait)) for _ in range(5)]
        await asyncio.sleep(0.05)
        held.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(scenario())
    put_off = [r for r in results if isinstance(r, ServiceError)]
    assert [(r.status, r.code, r.retry_after) for r in put_off] == [(503, "overloaded", 1)] * 2
    assert work.waiting == 0
    work.close()


def test_a_long_search_does_not_hold_up_short_ones() -> None:
    work = Work(5, 300)
    held = threading.Event()

    async def scenario() -> float:
        slow = [asyncio.create_task(work.run(held.wait, "slow")) for _ in range(50)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        assert await work.run(lambda: 7) == 7
        took = time.monotonic() - started
        held.set()
        await asyncio.gather(*slow)
        return took

    assert asyncio.run(scenario()) < 1
    work.close()


def test_calls_that_turn_out_slow_leave_the_event_loop_and_come_back() -> None:
    work = Work(5, 10)
    assert work.at_once(lambda: 5) == 5

    def late() -> None:
        raise DeadlineExceeded("late")

    assert work.at_once(late) is None
    calls = 0

    def slow() -> int:
        nonlocal calls
        calls += 1
        time.sleep(0.01)
        return calls

    answers = [work.at_once(slow) for _ in range(40)]
    assert None in answers  # some go to the threads, and cost the loop nothing
    assert calls == 40 - answers.count(None)
    assert any(work.at_once(lambda: 5) == 5 for _ in range(200))  # and are tried again
    work.close()


def test_a_search_without_a_chance_is_refused_with_a_hint(
    index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(fresh(index_dir))
    monkeypatch.setattr(cost, "LOCATE", 1.0)
    monkeypatch.setattr(cost, "MATCH", 1.0)
    body = {"query": "line", "limit": 1}
    assert client.post("/v1/indexes/main/find", body).status_code == 200
    refused = client.post("/v1/indexes/main/find", {**body, "order": "position"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_costly")
    assert "order=index" in refused.json()["error"]["message"]
    refused = client.post("/v1/indexes/main/cnf", {"clauses": [["line"], ["number"]]})
    assert "sample" in refused.json()["error"]["message"]
    refused = client.post("/v1/indexes/main/trace", {"text": "line of text"})
    assert "less text" in refused.json()["error"]["message"]
    sampled = {"clauses": [["quick"], ["fox"]], "sample": 1}
    assert client.post("/v1/indexes/main/cnf", sampled).status_code == 200


def test_estimates_grow_with_the_work() -> None:
    assert cost.of_find(10**7, 10, 80, "index", 0) < 0.01
    assert cost.of_find(10**7, 10, 80, "position", 0) > 10
    assert cost.of_find(5, 10, 80, "index", 0) < cost.of_find(10, 10, 80, "index", 0)
    assert cost.of_cnf([0, 10**9], 100, None) < 0.001
    assert cost.of_cnf([10**6, 10**6], 100, 100) < cost.of_cnf([10**6, 10**6], 100, None)
