"""The endpoint of api.infini-gram.io: the same requests and answers, over the indexes served here.

Source: the API page of infini-gram (https://infini-gram.readthedocs.io/en/latest/api.html) and the
behaviour of its published server.
Departures: distributions and counts of one string are exact (`approx` is False); `latency` is that
of the whole query; limits are those of this service; documents are drawn without replacement. A
byte index is asked in bytes, each of them a token. `tokens` are spelled as text.
"""

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from unspool.index.compat import InfiniGramEngine
from unspool.server import pages
from unspool.server.answers import ERRORS, reply
from unspool.server.failures import ServiceError
from unspool.server.service import service_of
from unspool.server.shelf import Opened

router = APIRouter(tags=["infini-gram"])

_SIMPLE = {
    "count": ("count", ()),
    "find": ("find", ()),
    "prob": ("prob", ()),
    "ntd": ("ntd", ("max_support",)),
    "infgram_prob": ("infgram_prob", ()),
    "infgram_ntd": ("infgram_ntd", ("max_support",)),
    "search_docs": ("search_docs", ("maxnum", "max_disp_len")),
    "find_cnf": ("find_cnf", ("max_clause_freq", "max_diff_tokens")),
    "get_doc_by_rank": ("get_doc_by_rank", ("s", "rank", "max_disp_len")),
    "get_doc_by_ptr": ("get_doc_by_ptr", ("s", "ptr", "max_disp_len")),
    "creativity": ("creativity", ()),
}
_CNF = {"count": "count_cnf", "search_docs": "search_docs_cnf", "find": "find_cnf"}
_CNF_OPTIONS = ("max_clause_freq", "max_diff_tokens")
_LIMITS = {
    "max_support": 1_000,
    "max_clause_freq": 500_000,
    "max_diff_tokens": 1_000,
    "maxnum": 10,
    "max_disp_len": 10_000,
}
_QUERY_CHARS, _QUERY_TOKENS, _CLAUSES, _TERMS = 1_000, 500, 4, 4
_IGNORED = frozenset({"engine", "source", "timestamp"})


class InfiniGramRequest(BaseModel):
    """A request to the infini-gram API; `query` or `query_ids`, not both."""

    model_config = ConfigDict(extra="allow")
    index: Annotated[str | None, Field(description="The name of an index; also `corpus`.")] = None
    query_type: Annotated[str, Field(description="count, prob, ntd, search_docs and others.")]
    query: str | None = None
    query_ids: list[Any] | None = None


class InfiniGramError(BaseModel):
    error: str


@router.get("/", response_model=list[str])
async def names(request: Request) -> Response:
    """The page, for a browser; for programs the names of the indexes."""
    asks_for = request.headers.get("accept", "")
    if "text/html" in asks_for or any(name.startswith("hx-") for name in request.headers):
        return await pages.home(request)
    return reply([served.name for served in service_of(request).shelf])


@router.post(
    "/",
    response_model=dict[str, Any],
    responses={**ERRORS, **{s: {"model": InfiniGramError} for s in (400, 503, 504)}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": InfiniGramRequest.model_json_schema()}},
        }
    },
)
async def ask(request: Request) -> Response:
    """A query in the form of the infini-gram API."""
    try:
        asked = orjson.loads(await request.body())  # refuses what is nested without end
    except ValueError:
        return _error("The body is not JSON.")
    if not isinstance(asked, dict):
        return _error("The body must be a JSON object.")
    given = {k: v for k, v in asked.items() if k not in _IGNORED}
    name = given.pop("corpus", None) or given.pop("index", None)
    given.pop("index", None)
    kind = given.pop("query_type", None)
    if kind is None or name is None:
        return _error(f"Missing required field: {'query_type' if kind is None else 'index'}")
    if not isinstance(kind, str) or kind not in _SIMPLE:
        return _error(f"Invalid query_type: {kind}. There are: {', '.join(_SIMPLE)}.")
    if ("query" in given) == ("query_ids" in given):
        return _error("Exactly one of query and query_ids must be present!")
    try:
        served = service_of(request).shelf.get(name if isinstance(name, str) else "")
        result = await service_of(request).search_opened(
            served, lambda opened: _answer(opened, kind, given), lane="slow"
        )
    except ServiceError as error:
        return _error(str(error), 400 if error.status == 404 else error.status)
    return reply(result)


def _error(message: str, status: int = 400) -> Response:
    return JSONResponse({"error": message}, status)


def _answer(opened: Opened, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    engine = opened.engine()
    try:
        ids, nested = _ids(opened, given)
        for term in [term for clause in ids for term in clause] if nested else [ids]:
            opened.index.encode(term)  # refuses ids that the index cannot hold
        if not nested and kind in ("prob", "infgram_prob") and not ids:
            raise ValueError("Please provide a non-empty query!")
        method, allowed = _SIMPLE[kind]
        if nested:
            if kind not in (*_CNF, "find_cnf"):
                raise ValueError(f"{kind} takes one string, not AND and OR.")
            method = _CNF.get(kind, "find_cnf")
            allowed = (*allowed, *_CNF_OPTIONS)
        elif kind == "find_cnf":
            raise ValueError("find_cnf takes query_ids nested three deep, or AND and OR.")
        options = _options(given, allowed)
    except ValueError as error:
        return {"error": str(error)}
    started = time.perf_counter()
    result = _call(engine, method, ids, options)
    result["latency"] = (time.perf_counter() - started) * 1000
    result["token_ids"] = ids
    result["tokens"] = _each_token(opened, ids)
    if "error" in result:
        return result
    for token, each in result.get("result_by_token_id", {}).items():
        each["token"] = opened.index.symbol_text(token) if token >= 0 else ""
    if "result_by_token_id" in result:
        result["result_by_token_id"] = {
            str(token): each for token, each in result["result_by_token_id"].items()
        }
    if "suffix_len" in result:
        context = ids if kind == "infgram_ntd" else ids[:-1]
        suffix = context[len(context) - result["suffix_len"] :]
        result["longest_suffix"] = _spell(opened, suffix)
    shown = result.get("documents", [result] if kind.startswith("get_doc") else [])
    clauses = ids if nested else [[ids]] if ids else []
    for document in shown:
        document["spans"] = _spans(opened, document["token_ids"], clauses)
    if "documents" in result:
        found = f"{result['cnt']} occurrences found"
        more = f". Displaying the documents of occurrences #{result['idxs']}"
        result["message"] = found + (more if result["cnt"] else "")
    return result


def _call(
    engine: InfiniGramEngine, method: str, ids: list[Any], options: dict[str, Any]
) -> dict[str, Any]:
    if method in ("prob", "infgram_prob"):
        return dict(getattr(engine, method)(ids[:-1], ids[-1]))
    if method.startswith("get_doc"):
        missing = [k for k in ("s", "rank" if "rank" in method else "ptr") if k not in options]
        if missing:
            return {"error": f"Missing required field: {missing[0]}"}
        return dict(getattr(engine, method)(**options))
    return dict(getattr(engine, method)(ids, **options))


def _options(given: dict[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for key, value in given.items():
        if key in ("query", "query_ids") or value is None:
            continue
        if key not in (*allowed, *_CNF_OPTIONS):
            raise ValueError(f"Unknown field: {key}")
        most = _LIMITS.get(key)
        least = 0 if most is None else 1
        if type(value) is not int or value < least or (most is not None and value > most):
            raise ValueError(f"{key} must be an integer in [{least}, {most or 'the index'}]!")
        if key in allowed:
            found[key] = value
    return found


def _ids(opened: Opened, given: dict[str, Any]) -> tuple[list[Any], bool]:
    """The ids of a query, and whether they are clauses."""
    if "query" in given:
        query = given["query"]
        if not isinstance(query, str):
            raise ValueError("query must be a string!")
        if len(query) > _QUERY_CHARS:
            raise ValueError(f"Please limit your input to <= {_QUERY_CHARS} characters!")
        if " AND " not in query and " OR " not in query:
            ids: list[Any] = opened.index.encode(query).tolist()
        else:
            clauses = [clause.split(" OR ") for clause in query.split(" AND ")]
            ids = [[opened.index.encode(term).tolist() for term in clause] for clause in clauses]
    else:
        ids = given["query_ids"]
    if _is_flat(ids):
        if len(ids) > _QUERY_TOKENS:
            raise ValueError(f"Please limit your input to <= {_QUERY_TOKENS} tokens!")
        return ids, False
    if not isinstance(ids, list) or not all(
        isinstance(clause, list) and all(_is_flat(term) for term in clause) for clause in ids
    ):
        raise ValueError(
            "query_ids must be a list of integers, or a triply-nested list of integers!"
        )
    if sum(len(term) for clause in ids for term in clause) > _QUERY_TOKENS:
        raise ValueError(f"Please limit your input to <= {_QUERY_TOKENS} tokens!")
    if len(ids) > _CLAUSES:
        raise ValueError(f"Please enter at most {_CLAUSES} disjunctive clauses!")
    if any(len(clause) > _TERMS for clause in ids):
        raise ValueError(f"Please enter at most {_TERMS} terms in each disjunctive clause!")
    if not all(clause and all(clause) for clause in ids):
        raise ValueError("A clause or a term is empty!")
    return ids, True


def _is_flat(ids: Any) -> bool:
    return isinstance(ids, list) and all(type(i) is int for i in ids)


def _each_token(opened: Opened, ids: list[Any]) -> list[Any]:
    return [
        _each_token(opened, i) if isinstance(i, list) else opened.index.symbol_text(i) for i in ids
    ]


def _spell(opened: Opened, ids: list[int]) -> str:
    return opened.index.spell(ids).decode("utf-8", "replace")


def _spans(
    opened: Opened, token_ids: list[int], clauses: list[list[list[int]]]
) -> list[tuple[str, str | None]]:
    """A document as pieces, those that match a clause marked with its number."""
    spans: list[tuple[list[int], str | None]] = [(token_ids, None)]
    for number, clause in enumerate(clauses):
        for needle in clause:
            spans = [
                piece
                for ids, label in spans
                for piece in ([(ids, label)] if label else _cut(ids, needle, str(number)))
            ]
    return [(_spell(opened, ids), label) for ids, label in spans]


def _cut(ids: list[int], needle: list[int], label: str) -> list[tuple[list[int], str | None]]:
    pieces: list[tuple[list[int], str | None]] = []
    at = done = 0
    while at + len(needle) <= len(ids):
        if ids[at : at + len(needle)] == needle:
            if at > done:
                pieces.append((ids[done:at], None))
            pieces.append((needle, label))
            at = done = at + len(needle)
        else:
            at += 1
    if done < len(ids):
        pieces.append((ids[done:], None))
    return pieces
