"""Runs on real model classes: a transformers model that keeps prefixes, and a served one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.backends import tiny
from tests.evaluation.scripts import passkey
from unspool.backends.endpoint import EndpointModel
from unspool.backends.prefix import PrefixModel
from unspool.backends.scripted import WordTokenizer
from unspool.errors import BackendError
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.run import evaluate, plan_run

FILES = ("report.json", "scores.jsonl", "samples.jsonl", "manifest.json")


def network() -> PrefixModel:
    return PrefixModel(tiny.network(window=4096), tiny.tokenizer(), name="tiny@0", block=32)


def test_a_real_model_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: dict[str, Any] = {"tasks": "passkey", "lengths": ("320", "400"), "limit": 3}
    evaluate(network(), out=tmp_path / "whole", **call)
    model = network()
    prefill, calls = model._prefill, [0]

    def fail(ids: list[int]) -> Any:
        calls[0] += 1
        if calls[0] in (4, 9, 10):
            raise BackendError("out of memory")
        return prefill(ids)

    monkeypatch.setattr(model, "_prefill", fail)
    for _ in range(3):
        with pytest.raises(BackendError):
            evaluate(model, out=tmp_path / "broken", **call)
    evaluate(model, out=tmp_path / "broken", **call)
    for name in FILES:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_shared_beginnings_are_planned_and_not_paid(tmp_path: Path) -> None:
    call: dict[str, Any] = {
        "tasks": "passkey/loglikelihood",
        "lengths": ("600",),
        "limit": 4,
        "settings": RunSettings(depths=(1.0,)),
    }
    planned = plan_run(network(), **call).total
    evaluate(network(), out=tmp_path / "r", **call)
    paid = json.loads((tmp_path / "r" / "cost.json").read_bytes())["total"]
    assert planned.shared_tokens > planned.prompt_tokens / 2  # type: ignore[operator] # known
    # Whole blocks only: each of the three prompts loses less than two blocks of what it shares.
    assert planned.shared_tokens - 3 * 64 < paid["cached_tokens"] <= planned.shared_tokens


class Server(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that answers perfectly, and puts off every fifth request."""

    lock = threading.Lock()
    asked = 0
    answered = 0

    def log_message(self, *_: Any) -> None:
        return

    def send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": "served"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            Server.asked += 1
            late = Server.asked % 5 == 0
            Server.answered += not late
        if late:
            self.send(429, {"error": {"message": "later"}})
            return
        text = passkey(body["messages"][-1]["content"])
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 50, "completion_tokens": 2}
        self.send(200, {"choices": [choice], "usage": usage})


@pytest.fixture
def served() -> Iterator[str]:
    Server.asked = Server.answered = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_is_measured_and_paid_once(served: str, tmp_path: Path) -> None:
    model = EndpointModel(served, first_wait=0.01)
    call: dict[str, Any] = {
        "tasks": "passkey/digits",
        "lengths": ("96",),
        "limit": 20,
        "tokenizer": WordTokenizer(),
    }
    report = evaluate(model, out=tmp_path / "r", **call)
    assert report.score("passkey/digits") == 100
    assert Server.answered == 20 < Server.asked
    evaluate(model, out=tmp_path / "r", **call)
    assert Server.answered == 20
    cost = json.loads((tmp_path / "r" / "cost.json").read_bytes())["total"]
    assert (cost["prompt_tokens"], cost["output_tokens"]) == (20 * 50, 20 * 2)


def test_a_server_without_a_tokenizer_takes_lengths_in_words(served: str, tmp_path: Path) -> None:
    from dataclasses import replace

    from unspool.evaluation.tasks import task

    base = task("passkey/digits")
    words = replace(base, spec=replace(base.spec, unit="words"))
    model = EndpointModel(served, first_wait=0.01)
    planned = plan_run(model, [words], lengths=("100",), limit=3)
    assert planned.total.prompt_tokens is None
    report = evaluate(model, [words], lengths=("100",), limit=3, out=tmp_path / "r")
    assert report.score("passkey/digits") == 100
    lengths = json.loads((tmp_path / "r" / "samples.jsonl").read_text().splitlines()[0])
    assert 80 < lengths["sample"]["lengths"]["words"] <= 100
    assert "tokens" not in lengths["sample"]["lengths"]
