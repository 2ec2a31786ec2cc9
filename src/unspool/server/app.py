"""The service as one ASGI app: a guard in front, counts on a short way, FastAPI behind.

Source: the OpenAPI document at /openapi.json is made from the same forms that check requests.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Match

import unspool
from unspool.errors import UnspoolError
from unspool.server import batch, chat, compat, pages, reading, search
from unspool.server.answers import ERRORS
from unspool.server.failures import ServiceError, as_service_error
from unspool.server.guard import App, Guard
from unspool.server.hot import Hot
from unspool.server.service import Service, service_of
from unspool.server.settings import ServerSettings
from unspool.types import LanguageModel

log = logging.getLogger("unspool.server")

_ROUTERS = tuple(m.router for m in (search, batch, compat, chat, pages, reading))

_ABOUT = (
    "Exact search of large texts, and answers of a model in the form of the OpenAI interface. "
    "Offsets are UTF-8 bytes. Nothing is cut silently: what does not fit is refused, and the "
    "message says what to ask instead."
)


def make_app(
    settings: ServerSettings,
    indexes: Mapping[str, Sequence[Path]],
    model: LanguageModel | None = None,
) -> App:
    """The service, ready for an ASGI server.

    Args:
        settings: Where it listens and who may ask.
        indexes: The directories of each index by name; several of one name are asked as one.
        model: What answers `/v1/chat/completions` and the reading page; None: neither is there.
    """
    service = Service(settings, indexes, model)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        try:
            yield
        finally:
            watching.cancel()
            service.close()

    app = FastAPI(
        title="unspool",
        version=unspool.__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    pages.mount_static(app)
    service_routes: dict[str, Any] = {"methods": ["GET"], "tags": ["service"]}
    refusals: dict[int | str, Any] = {status: ERRORS[status] for status in (401, 403)}
    app.add_api_route("/healthz", healthz, responses=refusals, **service_routes)
    figures: dict[int | str, Any] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals,
    }
    app.add_api_route(
        "/metrics", metrics, responses=figures, response_class=Response, **service_routes
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ServiceError, _known)
    app.add_exception_handler(UnspoolError, _known)
    app.add_exception_handler(Exception, _fault)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    inner = GZipMiddleware(app, minimum_size=1400, compresslevel=5)
    return Guard(Hot(cast(App, inner), service), settings, service.metrics)


async def healthz(request: Request) -> dict[str, Any]:
    """Whether the service is up, and how many of its indexes are in service."""
    service = service_of(request)
    damaged = sum(served.damage is not None for served in service.shelf)
    return {
        "status": "degraded" if damaged else "ok",
        "indexes": len(service.shelf),
        "damaged": damaged,
        "model": service.model.name if service.model is not None else None,
    }


async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    service = service_of(request)
    service.gauges()
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _invalid(_: Request, error: Exception) -> Response:
    """A request that has not the form it should have: where and what, in a sentence."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first: Mapping[str, Any] = found[0] if found else {"loc": (), "msg": "it cannot be read"}
    where = ".".join(str(part) for part in first["loc"] if part != "body") or None
    more = f" ({len(found) - 1} more problems.)" if len(found) > 1 else ""
    said = str(first["msg"])
    message = f"{where or 'The body'}: {said[:1].lower()}{said[1:]}.{more}"
    return _as_response(ServiceError(400, "invalid_request", message, param=where))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: "There is nothing at this address. The addresses are listed at /openapi.json.",
        405: f"{request.method} is not for this address.",
    }.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
    answer = _as_response(ServiceError(error.status_code, code, said))
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Every method of an address; a router knows those of one route alone."""
    found: set[str] = set()
    for route in chain(request.app.routes, *(router.routes for router in _ROUTERS)):
        match, _ = route.matches(request.scope)
        if match != Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return sorted(found)


async def _known(_: Request, error: Exception) -> Response:
    found = as_service_error(error)
    assert found is not None
    if found.status >= 500 and found.status != 503:
        log.warning("%s: %s", type(error).__name__, error)
    return _as_response(found)


async def _fault(_: Request, error: Exception) -> Response:
    """What nobody thought of: logged with its traceback by the server, told without it."""
    message = "The service failed. This is a fault of unspool; its log says where."
    return _as_response(ServiceError(500, "fault", message))


def _as_response(error: ServiceError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers())


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema, without the 422 that FastAPI assumes: a wrong form is answered with 400."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for operations in schema["paths"].values():
            for operation in operations.values():
                answers = operation.get("responses", {})
                if "HTTPValidationError" in str(answers.get("422")):
                    del answers["422"]
        forms = schema.get("components", {}).get("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            forms.pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
