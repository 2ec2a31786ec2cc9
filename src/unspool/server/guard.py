"""What every request passes first: who asks, from where, in which form, how much and how slowly.

On loopback the danger is a web page in the user's own browser that sends requests to the service:
`Host` must be a name of this machine (against DNS rebinding), `Origin` must be the service itself,
and JSON is taken as `application/json` only, which a foreign page cannot send unasked. Beyond
loopback a bearer token is needed; browsers carry a proof of it in a cookie that other sites cannot
send. Both are compared in constant time. Nothing of this looks into a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import orjson

from unspool.server.failures import ServiceError
from unspool.server.metrics import Metrics
from unspool.server.settings import ServerSettings, is_loopback

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "unspool"
_MOST_DRAINED = 64 << 20
_DRAIN_SECONDS = 5.0
_OPEN = ("/healthz", "/login")
_LOOPBACK = {b"localhost", b"127.0.0.1", b"[::1]"}
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class Guard:
    """An ASGI app in front of another."""

    def __init__(self, app: App, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._bearer = None if settings.token is None else f"Bearer {settings.token}".encode()
        self._cookie = cookie_value(settings.token)
        names = {name.lower().encode() for name in settings.allow_hosts}
        self._hosts: set[bytes] | None = None
        if is_loopback(settings.host) or names:
            own = settings.host.strip("[]")
            literal = f"[{own}]" if ":" in own else own
            self._hosts = _LOOPBACK | names | {literal.encode()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answered = 0
        refusal: ServiceError | None = None
        received, whole = 0, False

        async def answer(message: dict[str, Any]) -> None:
            nonlocal answered
            if refusal is not None and not answered:
                return  # whatever the app made of a body that could not be read
            if message["type"] == "http.response.start":
                answered = message["status"]
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._check(scope, headers)
            most = self._most(scope["path"])
            declared = headers.get(b"content-length", b"0")
            if not declared.isdigit() or int(declared) > most:
                raise _too_large(most)
            end = asyncio.get_running_loop().time() + self._settings.body_seconds

            async def listen() -> dict[str, Any]:
                nonlocal received, whole, refusal
                if whole:
                    return await receive()
                try:
                    async with asyncio.timeout_at(end):
                        message = await receive()
                except TimeoutError:
                    refusal = ServiceError(408, "too_slow", "The request took too long to arrive.")
                    raise refusal from None
                received += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if received > most:
                    refusal = _too_large(most)
                    raise refusal
                return message

            await self._app(scope, listen, answer)
            if refusal is not None and not answered:
                raise refusal
        except ServiceError as error:
            if answered:
                raise
            answered = error.status
            if error.code == "login":
                answered = 303
                await send_json(send, 303, error.body(), {"Location": "/login"})
                return
            if error.status != 408 and not whole:
                await _drain(receive)
            await send_json(
                send, error.status, error.body(), {**error.headers(), "Connection": "close"}
            )
        finally:
            route = scope.get("unspool.route") or getattr(scope.get("route"), "path", "other")
            self._metrics.observe(str(route), answered, time.perf_counter() - started)

    def _most(self, path: str) -> int:
        return self._settings.max_upload if path == "/read" else self._settings.max_body

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"")
        path = scope["path"]
        if self._hosts is not None and _name(host) not in self._hosts:
            raise ServiceError(
                403,
                "wrong_host",
                "This service does not answer under that name. Use the address it was started "
                "with, or start it with --allow-host NAME.",
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            raise ServiceError(
                403, "wrong_origin", "Pages of other sites may not ask this service."
            )
        site = headers.get(b"sec-fetch-site", b"none")
        if site not in (b"none", b"same-origin") and not (
            scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == b"navigate"
        ):
            raise ServiceError(
                403, "wrong_origin", "Pages of other sites may not ask this service."
            )
        if (
            self._bearer is not None
            and path not in _OPEN
            and not path.startswith("/static/")
            and not self._is_known(headers)
        ):
            if b"text/html" in headers.get(b"accept", b"") and scope["method"] == "GET":
                raise ServiceError(401, "login", "Open /login and give the token of this service.")
            raise ServiceError(
                401, "no_token", "A token is needed: send it as 'Authorization: Bearer TOKEN'."
            )
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind in _FORMS and (path in PAGES):
                if origin is None and site != b"same-origin":
                    raise ServiceError(403, "wrong_origin", "Forms are taken from the page alone.")
            elif kind != b"application/json" and _has_body(headers):
                raise ServiceError(
                    415, "not_json", "Send a JSON body with 'Content-Type: application/json'."
                )

    def _is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        given = headers.get(b"authorization")
        if given is not None and self._bearer is not None:
            return hmac.compare_digest(given, self._bearer)
        for part in headers.get(b"cookie", b"").split(b";"):
            name, _, value = part.strip().partition(b"=")
            if name == COOKIE.encode() and hmac.compare_digest(value, self._cookie):
                return True
        return False


PAGES = frozenset({"/login", "/read", "/trace"})
"""Paths that take forms from the page."""


def cookie_value(token: str | None) -> bytes:
    """What the browser keeps in place of the token."""
    key = (token or "").encode()
    return hmac.new(key, b"unspool page", hashlib.sha256).hexdigest().encode()


def is_token(given: str, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


async def send_json(
    send: Send, status: int, value: Any, headers: Mapping[str, str] | None = None
) -> None:
    body = orjson.dumps(value)
    found = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    found += [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": found})
    await send({"type": "http.response.body", "body": body})


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def _drain(receive: Receive) -> None:
    """Let a client finish sending, within bounds: one that is cut off never reads the answer."""
    left = _MOST_DRAINED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b"")) + 1
                if not message.get("more_body", False):
                    return


def _name(host: bytes) -> bytes:
    """The name in a Host header, without the port."""
    if host.startswith(b"["):
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].lower()


def _too_large(most: int) -> ServiceError:
    return ServiceError(
        413, "too_large", f"A request may hold at most {most:,} bytes. Send several smaller ones."
    )
