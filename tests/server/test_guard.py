"""Who may ask, from where, in which form, and how much."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import Client, fresh, listening
from unspool.errors import ConfigError
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings, is_loopback

COUNT = "/v1/indexes/main/count"
TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def guarded(index_dir: Path) -> Client:
    settings = ServerSettings(host="0.0.0.0", token=TOKEN)
    return Client(make_app(settings, {"main": (index_dir,)}))


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "LOCALHOST", "[::1]:80"])
def test_names_of_this_machine_are_answered(client: Client, host: str) -> None:
    assert client.get("/v1/indexes", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_other_names_are_not(client: Client, host: str) -> None:
    answer = client.get("/v1/indexes", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")


def test_a_name_can_be_allowed(index_dir: Path) -> None:
    settings = ServerSettings(allow_hosts=("search.example",))
    client = Client(make_app(settings, {"main": (index_dir,)}))
    assert client.get("/healthz", headers={"Host": "search.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_pages_of_other_origins_may_not_ask(client: Client, origin: str) -> None:
    answer = client.post(COUNT, {"query": "x"}, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
    same = {"Origin": "http://localhost:8080"}
    assert client.post(COUNT, {"query": "x"}, headers=same).status_code == 200


def test_a_link_may_lead_here_and_a_foreign_script_may_not_ask(client: Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/healthz", headers=link).status_code == 200
    script = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/v1/indexes", headers=script).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_comes_as_json_only(client: Client, kind: str) -> None:
    sent: Any = {"content": b'{"query": "x"}', "headers": {"Content-Type": kind}}
    assert client.post(COUNT, **sent).status_code == 415
    sent["headers"] = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post(COUNT, **sent).status_code == 200


def test_forms_are_taken_from_the_page_alone(client: Client) -> None:
    sent: Any = {"data": {"text": "the dog", "in": "main", "min_length": "3"}}
    assert client.post("/trace", **sent).status_code == 403
    sent["headers"] = {"Origin": "http://localhost:8080"}
    assert client.post("/trace", **sent).status_code == 200


def test_large_bodies_are_refused_unread(index_dir: Path) -> None:
    client = Client(make_app(ServerSettings(max_body=1000), {"main": (index_dir,)}))
    body = {"queries": ["x" * 300] * 4}
    answer = client.post("/v1/indexes/main/count/batch", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert client.post(COUNT, {"query": "x" * 900}).status_code == 200

    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 400

    sent: Any = {"content": chunks(), "headers": {"Content-Type": "application/json"}}
    assert client.post(COUNT, **sent).status_code == 413
    assert client.post("/", **{**sent, "content": chunks()}).status_code == 413


def test_a_client_that_sends_too_much_gets_to_read_why(index_dir: Path) -> None:
    app = make_app(ServerSettings(max_body=1000), {"main": (index_dir,)})
    body = b'{"queries": ["' + b"x" * (20 << 20) + b'"]}'
    with listening(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        for _ in range(3):
            answer = client.post(COUNT, content=body, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        assert client.post(COUNT, json={"query": "dog"}).status_code == 200


def test_a_token_is_asked_for(guarded: Client) -> None:
    assert guarded.get("/healthz").status_code == 200
    refused = guarded.post(COUNT, {"query": "dog"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    for given in ("Bearer wrong", TOKEN, f"Bearer {TOKEN}x", "Basic abc", ""):
        answer = guarded.post(COUNT, {"query": "dog"}, headers={"Authorization": given})
        assert answer.status_code == 401, given
    known = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post(COUNT, {"query": "dog"}, headers=known).status_code == 200
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/openapi.json").status_code == 401


def test_a_browser_gives_the_token_once(guarded: Client) -> None:
    page = guarded.get("/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert "token" in guarded.get("/login", headers={"Accept": "text/html"}).text
    same = {"Origin": "http://localhost:8080"}
    assert guarded.post("/login", data={"token": "wrong"}, headers=same).status_code == 403
    entered = guarded.post("/login", data={"token": TOKEN}, headers=same)
    assert entered.status_code == 303
    cookie = entered.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    page = guarded.get("/", headers={"Accept": "text/html", "Cookie": cookie.partition(";")[0]})
    assert page.status_code == 200
    forged = {"Accept": "text/html", "Cookie": "unspool=" + "0" * 64}
    assert guarded.get("/", headers=forged).status_code == 303


def test_what_settings_refuse() -> None:
    with pytest.raises(ConfigError, match="UNSPOOL_SERVER_TOKEN"):
        ServerSettings(host="0.0.0.0")
    with pytest.raises(ConfigError, match="16 to 512"):
        ServerSettings(token="short")
    with pytest.raises(ConfigError, match="workers"):
        ServerSettings(workers=0)
    with pytest.raises(ConfigError, match="port"):
        ServerSettings(port=70000)
    assert [is_loopback(h) for h in ("127.0.0.9", "::1", "localhost", "10.0.0.1", "x")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_body_that_never_comes_is_given_up(index_dir: Path) -> None:
    app = make_app(ServerSettings(body_seconds=0.3), {"main": (index_dir,)})
    with listening(app) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as slow:
            slow.sendall(
                f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: 20\r\n\r\n{".encode()
            )
            started = time.monotonic()
            said = slow.recv(4096)
            assert b" 408 " in said.partition(b"\r\n")[0]
            assert time.monotonic() - started < 3


def test_slow_clients_do_not_starve_the_others(index_dir: Path) -> None:
    async def scenario(host: str, port: int) -> list[float]:
        slow = [await asyncio.open_connection(host, port) for _ in range(200)]
        for number, (_, writer) in enumerate(slow):
            half = f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\n"
            if number % 2:
                half += "Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{"
            writer.write(half.encode())
        reader, writer = await asyncio.open_connection(host, port)
        body = b'{"query":"dog"}'
        times = []
        for _ in range(100):
            started = time.perf_counter()
            writer.write(
                f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.partition(b"\r\n")[0]
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - started)
        for _, each in [*slow, (reader, writer)]:
            each.close()
        return times

    with listening(fresh(index_dir)) as address:
        host, port = address.removeprefix("http://").split(":")
        times = sorted(asyncio.run(scenario(host, int(port))))
    assert times[50] < 0.1
