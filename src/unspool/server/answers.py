"""What the routes of the search API share: names, checks, and answers as JSON."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import Path, Request, Response

from unspool.index.results import Hit
from unspool.server import schemas
from unspool.server.failures import ServiceError
from unspool.server.service import MISSING, service_of
from unspool.server.shelf import Served

Name = Annotated[str, Path(max_length=100, description="The name an index is served under.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.ErrorBody, "description": "The request has not its form; says where."},
    422: {"model": schemas.ErrorBody, "description": "It cannot be answered here; says why."},
    401: {"model": schemas.ErrorBody, "description": "A token is needed."},
    403: {"model": schemas.ErrorBody, "description": "Asked from another site."},
    404: {"model": schemas.ErrorBody, "description": "There is no such index or document."},
    408: {"model": schemas.ErrorBody, "description": "The request took too long to arrive."},
    409: {"model": schemas.ErrorBody, "description": "The index was replaced between two pages."},
    413: {"model": schemas.ErrorBody, "description": "The request is too large."},
    415: {"model": schemas.ErrorBody, "description": "The body is not application/json."},
    503: {"model": schemas.ErrorBody, "description": "The index or the service is busy or down."},
    504: {"model": schemas.ErrorBody, "description": "The search did not end in time."},
}

ORDER_HINT = "Choose order=index, which costs only what is shown, or a longer query."
CNF_HINT = "Give rarer clauses, or `sample` for an estimate with bounds."
SHORTER = "Send less text at once."


def reply(value: Any) -> Response:
    """An answer as JSON; names of files that are not UTF-8 are escaped.

    One that lacks shards of a cluster says so, and which.
    """
    if missing := sorted(set(MISSING.get())):
        whole = value if isinstance(value, dict) else value.to_json()
        value = {**whole, "partial": True, "missing": missing}
    try:
        body = orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        text = orjson.dumps(_without_surrogates(value), default=_plain)
        body = text
    return Response(body, media_type="application/json")


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(v) for v in value]
    return _without_surrogates(value.to_json()) if hasattr(value, "to_json") else value


def served_of(request: Request, name: str) -> Served:
    return service_of(request).shelf.get(name)


def size_of(query: Any) -> int:
    """Symbols of a query, about."""
    return len(query) if query is not None else 1


def show_hit(hit: Hit) -> dict[str, Any]:
    return {**hit.to_json(), "number": hit.number}


def check_answer(limit: int, context: int, queries: Sequence[Any]) -> None:
    longest = sum(limit * (2 * context + 2 * 4 * size_of(q)) for q in queries)
    if longest > schemas.MAX_ANSWER:
        raise ServiceError(
            422,
            "answer_too_large",
            f"The answer could quote {longest:,} bytes, and at most {schemas.MAX_ANSWER:,} are "
            "given at once. Ask with a smaller limit, context or batch.",
        )
