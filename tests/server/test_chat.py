"""The OpenAI interface, asked by the real client over a socket, and by hand for what it refuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backends.tiny import model as tiny_model
from tests.server.conftest import Client, echo, fresh, listening
from unspool.backends.scripted import ScriptedModel
from unspool.backends.stream import Piece, TokenScore
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings
from unspool.types import Usage

openai = pytest.importorskip("openai")

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
CHAT = "/v1/chat/completions"


class Slow(ScriptedModel):
    """Writes one word every so many seconds, and notes when it is told to stop."""

    def __init__(self, words: int = 50, pause: float = 0.02, window: int | None = None) -> None:
        super().__init__(echo, window=window)
        self.words, self.pause = words, pause
        self.stopped_at: list[int] = []
        self.begun: list[str] = []

    def generate_stream(self, prompt: Any, **options: Any) -> Iterator[Piece]:
        self.begun.append(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        number = 0
        try:
            while number < self.words and not options["cancelled"]():
                time.sleep(self.pause)
                number += 1
                yield Piece(f"w{number} ", (TokenScore(f"w{number} ", -0.5, (("x", -0.1),)),))
        finally:
            if number < self.words:
                self.stopped_at.append(number)
        yield Piece("", (), "stop", Usage(2, 2, 0, self.words))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = make_app(ServerSettings(), {}, tiny_model())
    with listening(app) as found:
        yield found


@pytest.fixture
def real(address: str) -> Any:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(real: Any) -> None:
    (only,) = real.models.list().data
    assert only.id == "tiny-llama@0"
    assert only.max_model_len == 128
    assert real.models.retrieve(only.id).id == only.id
    with pytest.raises(openai.NotFoundError):
        real.models.retrieve("other")


def test_a_chat_is_what_the_model_says(real: Any) -> None:
    (expected,) = tiny_model().generate([HELLO], max_tokens=12)
    found = real.chat.completions.create(
        model="tiny-llama", messages=HELLO, max_tokens=12, temperature=0
    )
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].finish_reason == expected.finish_reason
    assert found.usage.prompt_tokens == expected.usage.input_tokens
    assert found.usage.completion_tokens == expected.usage.output_tokens
    assert found.usage.unspool["read_tokens"] == expected.usage.read_tokens
    assert found.usage.unspool["dropped_tokens"] == 0


def test_a_streamed_chat_is_the_same(real: Any) -> None:
    options: Any = {"model": "tiny-llama", "messages": HELLO, "max_tokens": 12, "seed": 3}
    whole = real.chat.completions.create(**options)
    chunks = list(
        real.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) <= {None}
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_seeds_decide_what_is_drawn(real: Any) -> None:
    def text(seed: int) -> str:
        found = real.completions.create(
            model="tiny-llama", prompt="The quick", max_tokens=20, temperature=2, seed=seed
        )
        return str(found.choices[0].text)

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) > 1


def test_completions_stops_and_logprobs(real: Any) -> None:
    (expected,) = tiny_model().generate(["The quick"], max_tokens=20)
    options: Any = {"model": "tiny-llama", "max_tokens": 20, "temperature": 0}
    found = real.completions.create(prompt="The quick", logprobs=2, **options)
    assert found.choices[0].text == expected.text
    scores = found.choices[0].logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.text_offset)
    assert all(
        max(top.values()) == own
        for top, own in zip(scores.top_logprobs, scores.token_logprobs, strict=True)
    )
    stop = expected.text[5:7]
    cut = real.completions.create(prompt="The quick", stop=[stop], **options)
    assert cut.choices[0].text == expected.text[: expected.text.find(stop)]
    assert cut.choices[0].finish_reason == "stop"
    both = real.completions.create(prompt=["The quick", "To be"], **options)
    assert [c.index for c in both.choices] == [0, 1]
    assert both.choices[0].text == expected.text


def test_chat_logprobs_are_those_of_the_model(real: Any) -> None:
    found = real.chat.completions.create(
        model="tiny-llama",
        messages=HELLO,
        max_tokens=5,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    pieces = list(tiny_model().generate_stream(HELLO, max_tokens=5, top_logprobs=2))
    expected = [t for p in pieces for t in p.tokens]
    content = found.choices[0].logprobs.content
    assert [t.token for t in content] == [t.text for t in expected]
    assert [t.logprob for t in content] == pytest.approx([t.logprob for t in expected])
    assert [len(t.top_logprobs) for t in content] == [2] * len(content)


def test_a_long_prompt_is_refused_and_never_cut(real: Any) -> None:
    long: Any = [{"role": "user", "content": "The quick brown fox. " * 50}]
    with pytest.raises(openai.BadRequestError) as refused:
        real.chat.completions.create(model="tiny-llama", messages=long, max_tokens=5)
    assert refused.value.code == "context_length_exceeded"
    assert "--method" in str(refused.value)
    with pytest.raises(openai.BadRequestError):
        real.chat.completions.create(model="tiny-llama", messages=HELLO, max_tokens=1000)
    # Streamed, it is an error too, not an event in a 200.
    with pytest.raises(openai.BadRequestError):
        real.chat.completions.create(model="tiny-llama", messages=long, stream=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other"}, "there is no model called 'other'"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"n": 2}, "n"),
        ({"top_p": 0.5}, "only 1 is served"),
        ({"presence_penalty": 1}, "only 0 is served"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "logprobs"),
        ({"logprobs": True}, "gives no log-probabilities"),
        ({"made_up": 1}, "made_up"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    client: Client, change: dict[str, Any], said: str
) -> None:
    answer = client.post(CHAT, {"model": "scripted", "messages": HELLO, **change})
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert said in f"{error['param']} {error['message']}".lower()


def test_parts_and_developers_are_understood(client: Client) -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    answer = client.post(CHAT, {"model": "scripted", "messages": messages, "user": "me"})
    assert "hello world" in answer.json()["choices"][0]["message"]["content"]


def test_without_a_model_the_answer_says_how_to_get_one(index_dir: Path) -> None:
    client = Client(make_app(ServerSettings(), {"main": (index_dir,)}))
    assert client.get("/v1/models").json()["data"] == []
    answer = client.post(CHAT, {"model": "x", "messages": HELLO})
    assert answer.status_code == 404
    assert "--model" in answer.json()["error"]["message"]


def test_a_model_that_fails_is_502_and_serves_the_next(index_dir: Path) -> None:
    answers = iter(["", "well"])

    def script(_: str) -> str:
        from unspool.errors import BackendError

        if next(answers) == "":
            raise BackendError("The device ran out of memory.")
        return "well"

    client = Client(make_app(ServerSettings(), {}, ScriptedModel(script)))
    first = client.post(CHAT, {"model": "scripted", "messages": HELLO})
    assert (first.status_code, first.json()["error"]["code"]) == (502, "model_failed")
    second = client.post(CHAT, {"model": "scripted", "messages": HELLO})
    assert second.json()["choices"][0]["message"]["content"] == "well"


def wait_for(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_writing_ends_when_the_client_leaves(stream: bool) -> None:
    slow = Slow(words=500)
    body = {"model": "scripted", "messages": HELLO, "stream": stream}

    def leave_early(address: str) -> None:
        with (
            httpx.Client(base_url=address, timeout=0.4) as client,
            client.stream("POST", CHAT, json=body) as answer,
        ):
            next(answer.iter_lines())

    with listening(make_app(ServerSettings(), {}, slow)) as address:
        if stream:
            leave_early(address)
        else:
            with pytest.raises(httpx.TimeoutException):
                leave_early(address)
        assert wait_for(lambda: slow.stopped_at)
    assert slow.stopped_at[0] < 200


def test_clients_take_turns() -> None:
    """One line a client: here told apart by calling the writer itself."""
    import asyncio

    from unspool.server.writer import Writer

    order: list[str] = []

    async def scenario() -> None:
        writer = Writer(ServerSettings())

        async def ask(client: str, number: int) -> None:
            def produce(_: Any) -> Iterator[str]:
                time.sleep(0.01)
                order.append(client)
                yield "x"

            assert [p async for p in writer.pieces(client, produce)] == ["x"]

        tasks = [asyncio.create_task(ask("greedy", n)) for n in range(10)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(ask("modest", n)) for n in range(2)]
        await asyncio.gather(*tasks)
        assert writer.waiting == 0
        writer.close()

    asyncio.run(scenario())
    assert sorted(order) == ["greedy"] * 10 + ["modest"] * 2
    assert "modest" in order[:3]
    assert order.index("modest", order.index("modest") + 1) < 6


def test_a_line_that_is_full_or_stands_still() -> None:
    slow = Slow(words=100, pause=0.02)
    settings = ServerSettings(max_waiting=2, wait_seconds=0.3)
    with listening(make_app(settings, {}, slow)) as address:
        found: list[Any] = []

        def ask() -> None:
            body = {"model": "scripted", "messages": HELLO}
            with httpx.Client(base_url=address, timeout=20) as client:
                found.append(client.post(CHAT, json=body))

        threads = []
        for _ in range(3):
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
    codes = sorted((a.status_code, a.json().get("error", {}).get("code", "")) for a in found)
    assert codes == [(200, ""), (503, "overloaded"), (503, "waited_too_long")]
    assert all(a.headers["retry-after"] for a in found if a.status_code == 503)
    assert len(slow.begun) == 1  # who no longer waits is not answered


def test_an_answer_that_takes_too_long_is_504() -> None:
    slow = Slow(words=1000, pause=0.01)
    client = Client(make_app(ServerSettings(generate_seconds=0.2), {}, slow))
    answer = client.post(CHAT, {"model": "scripted", "messages": HELLO})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    streamed = client.post(CHAT, {"model": "scripted", "messages": HELLO, "stream": True})
    assert streamed.status_code == 200
    events = [line for line in streamed.text.splitlines() if line]
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2][6:])["error"]["code"] == "deadline_exceeded"
    assert slow.stopped_at


def test_a_method_reads_past_the_window_and_says_what_it_dropped(tmp_path: Path) -> None:
    from tests.backends.tiny import saved
    from unspool.backends.load import load_model

    model = load_model(str(saved(tmp_path / "tiny")), method="lm-infinite:local=32,sinks=4")
    client = Client(make_app(ServerSettings(), {}, model))
    assert client.get("/v1/models").json()["data"][0]["max_model_len"] is None
    long = [{"role": "user", "content": "The quick brown fox. " * 60}]
    body = {"model": model.name, "messages": long, "max_tokens": 4, "temperature": 0}
    answer = client.post(CHAT, body).json()
    usage = answer["usage"]["unspool"]
    assert usage["input_tokens"] > 300  # the model has a window of 128
    assert usage["dropped_tokens"] > 0
    streamed = client.post(CHAT, {**body, "stream": True}).text
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line[6:7] == "{"]
    text = "".join(p["choices"][0]["delta"].get("content", "") for p in pieces)
    assert text == answer["choices"][0]["message"]["content"]


def test_figures_count_tokens(index_dir: Path) -> None:
    client = Client(fresh(index_dir))
    answer = client.post(CHAT, {"model": "scripted", "messages": HELLO}).json()
    figures = client.get("/metrics").text
    read = answer["usage"]["unspool"]["read_tokens"]
    assert f'unspool_tokens_total{{kind="read_tokens"}} {read}.0' in figures
    assert 'unspool_tokens_total{kind="dropped_tokens"} 0.0' in figures


@pytest.mark.slow
def test_the_embedded_model_by_the_real_client() -> None:
    from unspool.backends.load import load_model

    model = load_model()
    long: Any = [{"role": "user", "content": "word " * 9000}]
    question: Any = [{"role": "user", "content": "What is the capital of France?"}]
    with (
        listening(make_app(ServerSettings(), {}, model)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        name = client.models.list().data[0].id
        options: Any = {"model": name, "messages": question, "max_tokens": 24, "temperature": 0}
        whole = client.chat.completions.create(**options)
        assert "Paris" in (whole.choices[0].message.content or "")
        chunks = list(client.chat.completions.create(**options, stream=True))
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
        assert text == whole.choices[0].message.content
        assert len(chunks) > 4
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=name, messages=long)
        assert refused.value.code == "context_length_exceeded"
