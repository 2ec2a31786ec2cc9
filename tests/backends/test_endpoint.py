"""The endpoint backend against a server on this machine that answers from a list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from unspool.backends.endpoint import EndpointModel
from unspool.backends.load import load_model
from unspool.errors import BackendError, ConfigError, Unsupported
from unspool.types import LanguageModel

KEY = "sk-very-secret-123"
MODELS = (200, {"data": [{"id": "m", "max_model_len": 4096}]}, {})
CHAT = [{"role": "user", "content": "Hi"}]


def said(text: str, reason: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": text}, "text": text, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3},
    }


class Server:
    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                owner.seen.append((self.path, dict(self.headers), body))
                status, content, headers = owner.answers.pop(0)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                return None

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def connect(server: Server, *answers: Any, **options: Any) -> EndpointModel:
    server.answers = [MODELS, *answers]
    return EndpointModel(server.url, api_key=KEY, first_wait=0.001, **options)


def test_chat_goes_to_chat_and_counts_are_the_servers(server: Server) -> None:
    model = connect(server, (200, said("Hello", "length"), {}))
    assert isinstance(model, LanguageModel)
    assert model.name.startswith("m@127.0.0.1")
    assert model.window == 4096
    assert model.tokenizer is None
    (got,) = model.generate([CHAT], max_tokens=5, stop=["X"], temperature=0.5, seed=9)
    assert (got.text, got.finish_reason) == ("Hello", "length")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (11, 3)
    path, headers, body = server.seen[-1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m",
        "messages": CHAT,
        "max_tokens": 5,
        "stop": ["X"],
        "temperature": 0.5,
        "seed": 9,
    }


def test_plain_prompts_go_to_completions(server: Server) -> None:
    model = connect(server, (200, said("there"), {}))
    assert model.generate(["Hi"], max_tokens=5)[0].text == "there"
    assert server.seen[-1][0] == "/v1/completions"
    assert server.seen[-1][2]["prompt"] == "Hi"


def test_later_is_tried_again(server: Server) -> None:
    busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"})
    model = connect(server, busy, (503, b"", {}), (200, said("Hello"), {}))
    assert model.generate([CHAT], max_tokens=5)[0].text == "Hello"
    assert len(server.seen) == 4


def test_a_server_that_stays_busy_is_an_error_that_says_so(server: Server) -> None:
    model = connect(server, *[(429, {"error": {"message": "quota"}}, {})] * 3, attempts=3)
    with pytest.raises(BackendError, match=r"answered 429 .* after 3 tries: quota"):
        model.generate([CHAT], max_tokens=5)


def test_the_key_is_never_shown(server: Server) -> None:
    model = connect(server, (401, {"error": {"message": f"Incorrect key {KEY}"}}, {}))
    with pytest.raises(BackendError) as caught:
        model.generate([CHAT], max_tokens=5)
    assert KEY not in str(caught.value)
    assert "UNSPOOL_API_KEY" in str(caught.value)
    assert KEY not in repr(model) + repr(model._client)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_redirects_are_not_followed(server: Server) -> None:
    model = connect(server, (302, b"", {"Location": "http://127.0.0.1:9/else"}))
    with pytest.raises(BackendError, match="Redirects are not followed"):
        model.generate([CHAT], max_tokens=5)
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"<html>hello", "not answer .* in JSON"),
        ({"choices": []}, "without choices"),
        ({"choices": [{"message": {}}]}, "without text"),
        ({"choices": [{"message": {"content": "x"}}]}, "does not say how many tokens"),
    ],
)
def test_strange_answers_are_errors(server: Server, answer: Any, says: str) -> None:
    model = connect(server, (200, answer, {}))
    with pytest.raises(BackendError, match=says):
        model.generate([CHAT], max_tokens=5)


def test_an_unreachable_server_is_told_at_once() -> None:
    with pytest.raises(BackendError, match=r"cannot be reached: .* Check that the server runs"):
        load_model(endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["localhost:8000", "file:///etc/passwd", "http://", "x"])
def test_addresses_are_checked(address: str) -> None:
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        EndpointModel(address)


def test_a_model_must_be_named_among_several(server: Server) -> None:
    server.answers = [(200, {"data": [{"id": "a"}, {"id": "b"}]}, {})]
    with pytest.raises(ConfigError, match=r"2 models \(a, b\)"):
        EndpointModel(server.url)


def test_scores_come_from_an_echo(server: Server) -> None:
    table = {
        "tokens": ["The", " cat", " sat", "!", "x"],
        "token_logprobs": [None, -1.0, -0.5, -2.0, -9.0],
        "top_logprobs": [None, {" cat": -1.0}, {" sat": -0.5}, {".": -0.1, "!": -2.0}, {}],
    }
    echo = {**said(""), "choices": [{"logprobs": table}]}
    model = connect(server, (200, echo, {}))
    (got,) = model.logprobs("The cat", [" sat!"])
    assert got.per_token == (-0.5, -2.0)
    assert got.total == -2.5
    assert not got.greedy
    assert server.seen[-1][2]["echo"] is True


def test_what_cannot_be_scored_is_unsupported(server: Server) -> None:
    split = {"tokens": ["The ca", "t sat"], "token_logprobs": [None, -1.0]}
    model = connect(
        server,
        (200, said(" sat"), {}),
        (200, {**said(""), "choices": [{"logprobs": split}]}, {}),
    )
    with pytest.raises(Unsupported, match="m@127"):
        model.logprobs(CHAT, ["x"])
    with pytest.raises(Unsupported, match="echoes no prompt"):
        model.logprobs("The cat", [" sat"])
    with pytest.raises(Unsupported, match="crosses"):
        model.logprobs("The cat", [" sat"])
    with pytest.raises(Unsupported, match="shortened"):
        model.generate(["x"], max_tokens=1, on_overflow="truncate")


def test_key_and_model_come_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_API_KEY", KEY)
    server.answers = [(404, b"", {}), (200, said("Hello"), {})]
    model = load_model("other", endpoint=server.url)
    assert model.generate([CHAT], max_tokens=5)[0].text == "Hello"
    assert server.seen[-1][2]["model"] == "other"
    assert server.seen[-1][1]["Authorization"] == f"Bearer {KEY}"
