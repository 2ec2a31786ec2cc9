"""The page for people: search as you type, documents, tracing, and questions to a text.

Templates escape everything; no script stands in a page, and the policy sent with each forbids any
that would. Each address gives a whole page, or the part that changed where htmx asks for it, so
that the page works without scripts, links can be shared, and the back button goes back.
Source: htmx 2.0.11 (0BSD), the file of its release, lies in `static/`.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Query, Request, Response
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from unspool._optional import require
from unspool.errors import UnspoolError
from unspool.index.engine import Index
from unspool.index.words import next_words
from unspool.server import cost, markup, schemas
from unspool.server.cursors import make_cursor, read_cursor
from unspool.server.failures import ServiceError, as_service_error
from unspool.server.guard import COOKIE, cookie_value, is_token
from unspool.server.service import MISSING, Service, service_of
from unspool.server.shelf import Opened, Served

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none, forms would come from the origin "null"
    "Cache-Control": "no-store",
    "Vary": "HX-Request",
}
_HITS = 10
_CONTEXT = 120
_WORDS = 12
_WINDOW = 20_000
"""Bytes of a document that one page shows."""
_MOST_QUERY = 10_000
_MOST_TRACED = 200_000

Name = Annotated[str, Query(alias="in", max_length=100)]
Phrase = Annotated[str, Query(alias="q", max_length=_MOST_QUERY)]
Offset = Annotated[int, Query(ge=0, lt=1 << 48)]


def mount_static(app: FastAPI) -> None:
    """Serve the style, the scripts and the icon, which lie in the package."""
    folder = str(files("unspool.server") / "static")
    app.mount("/static", StaticFiles(directory=folder), name="static")


@cache
def _environment() -> Any:
    jinja2 = require("jinja2", extra="server", purpose="The web page")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unspool.server"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["shown"] = markup.shown
    environment.globals["search_address"] = search_address
    environment.globals["document_address"] = document_address
    return environment


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page from a template, with what every page needs."""
    service = service_of(request)
    given = {
        "indexes": [served.name for served in service.shelf],
        "model": service.model.name if service.model is not None else None,
        "problem": None,
        "page": None,
        "missing": sorted(set(MISSING.get())),
        **values,
    }
    body = str(_environment().get_template(template).render(given))
    return Response(body.encode("utf-8", "replace"), status, _HEADERS, media_type="text/html")


def search_address(query: str, name: str | None = None) -> str:
    return "/?" + urlencode({"q": query, **({"in": name} if name else {})}, errors="replace")


def document_address(name: str, number: int, start: int, end: int) -> str:
    return "/document?" + urlencode({"in": name, "n": number, "start": start, "end": end}) + "#hit"


def _is_part(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def _why(error: Exception) -> ServiceError:
    known = as_service_error(error)
    if known is None:
        raise error
    return known


async def home(request: Request) -> Response:
    """The search page: counts per corpus, hits of the chosen one, what comes next."""
    given = request.query_params
    query, name = given.get("q", ""), given.get("in", "")
    service = service_of(request)
    if not len(service.shelf) and service.model is not None:
        return RedirectResponse("/read", 303)
    template = "results.html" if _is_part(request) else "search.html"
    values: dict[str, Any] = {"page": "search", "query": query, "chosen": name or None}
    values |= {"hits": [], "following": [], "more": None, "may_add_space": False}
    if len(query) > _MOST_QUERY:
        values |= {"query": "", "chosen": None}
        problem = f"A phrase has at most {_MOST_QUERY:,} characters here."
        return page(request, template, 400, counts=[], **{**values, "problem": problem})
    counts = [await _counted(service, served, query) for served in service.shelf]
    most = max((c["count"] for c in counts), default=0)
    for each in counts:
        each["share"] = markup.share(each["count"], most)
    if not query:
        return page(request, template, counts=counts, **values)
    by_name = {c["name"]: c for c in counts}
    if name not in by_name:
        best = max(counts, key=lambda c: c["count"], default=None)
        name = best["name"] if best is not None else ""
    values |= {"counts": counts, "chosen": name or None, "following_of": 0}
    try:
        if name and by_name[name]["problem"] is None:
            values |= await _found(service, service.shelf.get(name), query, None)
            values |= await _following(service, service.shelf.get(name), query)
    except (ServiceError, UnspoolError) as error:
        values["problem"] = str(_why(error))
    return page(request, template, **values)


async def _counted(service: Service, served: Served, query: str) -> dict[str, Any]:
    """One corpus with the count of a phrase; what is wrong with it does not hide the others."""
    found: dict[str, Any] = {"name": served.name, "count": 0, "problem": None}
    try:
        info = served.current.info
        found |= {
            "documents": info["documents"],
            "symbols": info["symbols"],
            "bytes": info["alphabet"] == "bytes",
        }
        if query:
            found["count"] = await service.search(served, lambda ix: ix.count(query))
    except (ServiceError, UnspoolError) as error:
        found["problem"] = str(_why(error))
    return found


async def _found(
    service: Service, served: Served, query: str, cursor: str | None
) -> dict[str, Any]:
    """A page of hits, and the address of the next."""
    question = ["page", query]

    def job(opened: Opened) -> dict[str, Any]:
        ix = opened.index
        start = 0 if cursor is None else read_cursor(cursor, opened.fingerprint, question)
        total = ix.count(query)
        hits = ix.find(query, limit=_HITS, context=_CONTEXT, start=start) if total else []
        shown = start + len(hits)
        more = None
        if hits and shown < total:
            after = make_cursor(opened.fingerprint, question, shown)
            more = "/hits?" + urlencode({"q": query, "in": served.name, "cursor": after})
        return {"hits": [markup.hit(hit, _CONTEXT) for hit in hits], "more": more}

    return await service.search_opened(served, job)


async def _following(service: Service, served: Served, query: str) -> dict[str, Any]:
    found = await service.search(served, lambda ix: next_words(ix, query, _WORDS))
    most = max((s.count for s in found.symbols), default=0)
    return {
        "following_of": found.prompt_count,
        "may_add_space": served.current.info["alphabet"] == "bytes"
        and query[-1:].isascii()
        and query[-1:].isalnum(),
        "following": [
            {
                "raw": s.text,
                "text": "end of document" if s.symbol == -1 else markup.spaces(s.text),
                "count": s.count,
                "share": markup.share(s.count, most),
                "percent": markup.percent(s.prob),
            }
            for s in found.symbols
        ],
    }


@router.get("/hits")
async def hits(request: Request, q: Phrase, name: Name, cursor: str) -> Response:
    """The next hits: more of the list, or a page of their own where scripts do not run."""
    service = service_of(request)
    try:
        found = await _found(service, service.shelf.get(name), q, cursor)
    except (ServiceError, UnspoolError) as error:
        return page(request, "wrong.html", _why(error).status, problem=str(_why(error)))
    if _is_part(request):
        return page(request, "hits.html", chosen=name, **found)
    values: dict[str, Any] = {
        "query": q,
        "chosen": name,
        "counts": [],
        "following": [],
        "page": "search",
    }
    return page(request, "search.html", may_add_space=False, **values, **found)


@router.get("/document")
async def document(
    request: Request,
    name: Name,
    n: Annotated[int, Query(ge=0, lt=1 << 48)],
    start: Offset = 0,
    end: Offset = 0,
) -> Response:
    """A window of a document, with the place that was followed marked."""
    service = service_of(request)

    def job(ix: Index) -> dict[str, Any]:
        length = ix.document_length(n)
        first, last = min(start, length), min(max(start, end), length)
        low = max(0, first - _WINDOW // 4)
        high = min(length, max(low + _WINDOW, last))
        high = min(high, low + 4 * _WINDOW)
        data = ix.extract(n, low, high)
        low, high, data = markup.whole_characters(data, low, high, length)
        identifier, meta = ix.describe(n)
        before = max(0, low - _WINDOW + _WINDOW // 4)
        return {
            "document": identifier,
            "meta": {str(k): str(v) for k, v in meta.items()},
            "length": length,
            "low": low,
            "high": high,
            "piece": markup.cut(data, max(0, first - low), max(0, min(last, high) - low)),
            "before_address": document_address(name, n, before, before) if low > 0 else None,
            "after_address": (
                document_address(name, n, min(high + _WINDOW // 4, length - 1), 0)
                if high < length
                else None
            ),
        }

    try:
        found = await service.search(service.shelf.get(name), job)
    except (ServiceError, UnspoolError) as error:
        return page(request, "wrong.html", _why(error).status, problem=str(_why(error)))
    return page(request, "document.html", page="search", chosen=name, **found)


@router.get("/trace")
async def trace_form(request: Request) -> Response:
    """An empty form."""
    names = [served.name for served in service_of(request).shelf]
    values: dict[str, Any] = {"page": "trace", "text": "", "chosen": names[0] if names else None}
    return page(request, "trace.html", min_length=20, segments=[], spans=[], **values)


@router.post("/trace")
async def trace(request: Request) -> Response:
    """A pasted text with the pieces marked that stand in a corpus."""
    async with request.form(max_part_size=4 * _MOST_TRACED) as form:
        text = str(form.get("text") or "").replace("\r\n", "\n")
        name, shortest = str(form.get("in") or ""), str(form.get("min_length") or "20")
    template = "traced.html" if _is_part(request) else "trace.html"
    values: dict[str, Any] = {"page": "trace", "text": text, "chosen": name}
    values |= {"segments": [], "spans": [], "min_length": 20}
    try:
        if not text.strip():
            raise ServiceError(400, "bad_input", "There is no text. Paste one.")
        if len(text) > _MOST_TRACED:
            raise ServiceError(
                400,
                "bad_input",
                f"The text has {len(text):,} characters; at most {_MOST_TRACED:,} are traced here. "
                "Trace it in parts, or from a program.",
            )
        if not shortest.isascii() or not shortest.isdigit() or not 1 <= int(shortest) <= 10_000:
            raise ServiceError(400, "bad_input", "The least length is a number from 1 to 10,000.")
        values["min_length"] = least = int(shortest)
        served = service_of(request).shelf.get(name)
        found = await service_of(request).search(
            served,
            lambda ix: markup.traced(ix, text, least),
            lane="slow",
            estimate=lambda ix: cost.of_trace(len(text)),
            hint="Trace the text in parts.",
        )
        values |= found | {"bytes": served.current.info["alphabet"] == "bytes"}
    except (ServiceError, UnspoolError) as error:
        values["problem"] = str(_why(error))
        return page(request, template, _why(error).status, **values)
    return page(request, template, **values)


@router.get("/login")
async def login_form(request: Request) -> Response:
    """Where a browser gives the token."""
    return page(request, "login.html")


@router.post("/login")
async def login(request: Request) -> Response:
    """Keep a proof of the token in a cookie that other sites cannot send."""
    async with request.form(max_part_size=schemas.MAX_CONTEXT) as form:
        given = str(form.get("token") or "")
    token = service_of(request).settings.token
    if not is_token(given, token):
        return page(request, "login.html", 403, problem="This is not the token of the service.")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, cookie_value(token).decode(), httponly=True, samesite="strict", max_age=30 * 86400
    )
    return answer
