"""The search API: every question that an index answers, one by one; `batch` has many at a time.

Routes check the form of a request and its cost, ask the index in a thread, and write the answer.
They hold no logic of search; what a question means is said in `unspool.index`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from unspool.errors import QueryError
from unspool.index.engine import Index
from unspool.server import cost, schemas
from unspool.server.answers import (
    CNF_HINT,
    ERRORS,
    ORDER_HINT,
    SHORTER,
    Name,
    check_answer,
    reply,
    served_of,
    show_hit,
)
from unspool.server.cursors import make_cursor, read_cursor
from unspool.server.failures import ServiceError
from unspool.server.service import service_of
from unspool.server.shelf import Opened, Served
from unspool.server.work import Lane

router = APIRouter(prefix="/v1/indexes", tags=["search"], responses=ERRORS)


@router.get("", response_model=schemas.IndexList)
async def indexes(request: Request) -> Response:
    """The indexes that are served."""
    return reply({"indexes": [_describe(served) for served in service_of(request).shelf]})


@router.get("/{index}", response_model=schemas.IndexForm)
async def index_info(request: Request, index: Name) -> Response:
    """What one index holds, and whether it is in service."""
    return reply(_describe(served_of(request, index)))


def _describe(served: Served) -> dict[str, Any]:
    damaged = served.damage is not None
    opened: Opened | None = None if damaged else served.current
    return {
        "name": served.name,
        "state": "damaged" if damaged else "serving",
        "problem": served.public_damage if damaged else None,
        "fingerprint": opened.fingerprint if opened else None,
        "reloads": served.reloads,
        "info": opened.info if opened else None,
    }


@router.get("/{index}/count", response_model=schemas.Count)
async def count_by_address(
    request: Request, index: Name, query: Annotated[str, Query(max_length=schemas.MAX_ADDRESS)]
) -> Response:
    """How often a text occurs, asked by address."""
    return await count(request, index, schemas.CountRequest(query=query))


@router.post("/{index}/count", response_model=schemas.Count)
async def count(request: Request, index: Name, body: schemas.CountRequest) -> Response:
    """How often a query occurs."""
    found = await service_of(request).search(
        served_of(request, index), lambda ix: ix.count(body.query)
    )
    return reply({"query": body.query, "count": found})


@router.post("/{index}/find", response_model=schemas.Found)
async def find(request: Request, index: Name, body: schemas.FindRequest) -> Response:
    """Where a query occurs, with the text around it, page by page."""
    return await _page(request, index, body, documents=False)


@router.post("/{index}/documents", response_model=schemas.Found)
async def documents(request: Request, index: Name, body: schemas.FindRequest) -> Response:
    """The first hit in each of several documents, page by page."""
    return await _page(request, index, body, documents=True)


async def _page(
    request: Request, name: str, body: schemas.FindRequest, *, documents: bool
) -> Response:
    check_answer(body.limit, body.context, [body.query])
    question = [documents, body.query, body.order, body.seed]

    def place(opened: Opened) -> int:
        if body.cursor is None:
            return 0
        return read_cursor(body.cursor, opened.fingerprint, question)

    def job(opened: Opened) -> dict[str, Any]:
        ix, start = opened.index, place(opened)
        hits = ix.count(body.query)
        work = service_of(request).work
        work.check(estimate(hits, body.limit, body.context, body.order, start), ORDER_HINT)
        options: dict[str, Any] = {"context": body.context, "order": body.order, "seed": body.seed}
        if documents:
            # One more than is shown says whether there is a next page.
            found = ix.documents(body.query, limit=body.limit + 1, start=start, **options)
        else:
            found = ix.find(body.query, limit=body.limit, start=start, **options)
        shown = found[: body.limit]
        more = len(found) > body.limit if documents else start + len(shown) < hits
        cursor = make_cursor(opened.fingerprint, question, start + len(shown))
        return {
            "count": hits,
            "hits": [show_hit(h) for h in shown],
            "next_cursor": cursor if more and shown else None,
        }

    estimate = cost.of_documents if documents else cost.of_find
    lane: Lane = "slow" if documents or body.order == "position" else "quick"
    return reply(await service_of(request).search_opened(served_of(request, name), job, lane=lane))


@router.post("/{index}/next", response_model=schemas.DistributionForm)
async def next_symbols(request: Request, index: Name, body: schemas.NextRequest) -> Response:
    """What follows a prompt, with exact counts; with `infgram` after its longest known suffix."""

    def job(ix: Index) -> Any:
        if body.infgram:
            return ix.infgram(body.query, top=body.top)
        return ix.next(body.query, body.top)

    return reply(await service_of(request).search(served_of(request, index), job))


@router.post("/{index}/prob", response_model=schemas.ProbForm)
async def prob(request: Request, index: Name, body: schemas.ProbRequest) -> Response:
    """How probable a continuation is after a prompt."""
    after: Any = -1 if body.continuation is None else body.continuation

    def job(ix: Index) -> Any:
        return ix.infgram(body.query, after) if body.infgram else ix.prob(body.query, after)

    return reply(await service_of(request).search(served_of(request, index), job))


def cnf_cost(ix: Index, body: schemas.CnfRequest) -> float:
    hits = [int(ix.count_batch(clause).sum()) for clause in body.clauses]
    return cost.of_cnf(hits, body.window, body.sample)


def answer_cnf(ix: Index, body: schemas.CnfRequest) -> dict[str, Any]:
    found = ix.cnf(
        body.clauses,
        window=body.window,
        limit=body.limit,
        context=body.context,
        sample=body.sample,
        seed=body.seed,
    )
    return {**found.to_json(), "hits": [show_hit(hit) for hit in found.hits]}


@router.post("/{index}/cnf", response_model=schemas.CnfForm)
async def cnf(request: Request, index: Name, body: schemas.CnfRequest) -> Response:
    """Places where one alternative of every clause occurs close together."""
    check_answer(body.limit, body.context + body.window, [""])
    return reply(
        await service_of(request).search(
            served_of(request, index),
            lambda ix: answer_cnf(ix, body),
            lane="slow",
            estimate=lambda ix: cnf_cost(ix, body),
            hint=CNF_HINT,
        )
    )


def trace_options(body: schemas.TraceSettings) -> dict[str, Any]:
    options = {name: getattr(body, name) for name in schemas.TraceSettings.model_fields}
    return {**options, "delimiters": tuple(body.delimiters)}


@router.post("/{index}/trace", response_model=schemas.Traced)
async def trace(request: Request, index: Name, body: schemas.TraceRequest) -> Response:
    """The maximal pieces of a text that occur in the corpus, and where."""
    return reply(
        await service_of(request).search(
            served_of(request, index),
            lambda ix: {"spans": ix.trace(body.text, **trace_options(body))},
            lane="slow",
            estimate=lambda ix: cost.of_trace(len(body.text)),
            hint=SHORTER,
        )
    )


def quote_document(ix: Index, body: schemas.DocumentRequest) -> dict[str, Any]:
    """A range of a document, never more than `MAX_QUOTE` bytes."""
    try:
        number = ix.document_number(body.document)
    except QueryError as error:
        raise ServiceError(404, "no_such_document", str(error), param="document") from None
    length = ix.document_length(number)
    end = length if body.end is None else body.end
    if end - body.start > schemas.MAX_QUOTE:
        raise ServiceError(
            422,
            "answer_too_large",
            f"These are {end - body.start:,} bytes, and at most {schemas.MAX_QUOTE:,} are quoted "
            f"at once. The document has {length:,}: give start and end.",
            param="end",
        )
    span = ix.quote(number, body.start, end)
    return {
        **span.to_json(),
        "number": number,
        "length": length,
        "meta": ix.describe(number)[1],
    }


@router.post("/{index}/document", response_model=schemas.DocumentForm)
async def document(request: Request, index: Name, body: schemas.DocumentRequest) -> Response:
    """A document, or a range of its bytes, with its metadata."""
    return reply(
        await service_of(request).search(
            served_of(request, index), lambda ix: quote_document(ix, body)
        )
    )
