"""Counting, without a web framework in between: the one route asked thousands of times a second.

A request that holds exactly `{"query": text}` or `{"queries": [texts]}` is answered here; any other
one, and any error, goes to the routes behind, body and all, so that there is one description of
the form and one place that says what is wrong with it.
Cost: about 30 µs a request beside the search itself; the routes behind take about ten times that.
"""

from __future__ import annotations

from typing import Any

import orjson

from unspool.server.failures import ServiceError
from unspool.server.guard import App, Receive, Scope, Send
from unspool.server.schemas import MAX_BATCH, MAX_QUERY
from unspool.server.service import Service
from unspool.server.shelf import Served

_FEW = 16
"""Queries of a batch that are asked on the event loop."""
_SHORT = 4096
"""Characters of a query that is asked on the event loop."""
_ONE, _MANY = "/v1/indexes/{index}/count", "/v1/indexes/{index}/count/batch"


class Hot:
    """An ASGI app that answers plain counts and hands on the rest."""

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service
        self._routes: dict[str, tuple[Served, str]] = {}
        if service.settings.engine != "local":
            return  # a call to another machine has no place on the event loop
        for served in service.shelf:
            self._routes[_ONE.format(index=served.name)] = served, _ONE
            self._routes[_MANY.format(index=served.name)] = served, _MANY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        served, route = found
        message = await receive()
        body = None
        if message["type"] == "http.request" and not message.get("more_body"):
            try:
                answer = self._one if route is _ONE else self._many
                body = await answer(served, orjson.loads(message["body"]))
            except (orjson.JSONDecodeError, ServiceError, UnicodeEncodeError):
                body = None
        if body is None:
            await self._app(scope, _again(message, receive), send)
            return
        scope["unspool.route"] = route
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _one(self, served: Served, asked: Any) -> bytes | None:
        if type(asked) is not dict or len(asked) != 1:
            return None
        query = asked.get("query")
        if type(query) is not str or len(query) > _SHORT:
            return None
        count = self._service.at_once(served, lambda opened: opened.index.count(query))
        if count is None:
            count = await self._service.search(served, lambda index: index.count(query))
        return orjson.dumps({"query": query, "count": count})

    async def _many(self, served: Served, asked: Any) -> bytes | None:
        if type(asked) is not dict or len(asked) != 1:
            return None
        queries = asked.get("queries")
        if type(queries) is not list or not 0 < len(queries) <= MAX_BATCH:
            return None
        if set(map(type, queries)) != {str} or max(map(len, queries)) > MAX_QUERY:
            return None
        counts = None
        if len(queries) <= _FEW and sum(map(len, queries)) <= _SHORT:
            counts = self._service.at_once(served, lambda o: o.index.count_batch(queries))
        if counts is None:
            counts = await self._service.search(served, lambda index: index.count_batch(queries))
        return orjson.dumps({"counts": counts}, option=orjson.OPT_SERIALIZE_NUMPY)


def _again(message: dict[str, Any], receive: Receive) -> Receive:
    """Give the message that was read already, then go on."""
    given = [message]

    async def listen() -> dict[str, Any]:
        return given.pop() if given else await receive()

    return listen
