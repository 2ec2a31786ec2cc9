"""The search API, many questions at a time: one search of the engine, one answer."""

from typing import Any

from fastapi import APIRouter, Request, Response

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
    size_of,
)
from unspool.server.cursors import make_cursor
from unspool.server.failures import ServiceError
from unspool.server.search import answer_cnf, cnf_cost, quote_document, trace_options
from unspool.server.service import service_of
from unspool.server.shelf import Opened

router = APIRouter(prefix="/v1/indexes", tags=["search"], responses=ERRORS)


@router.post("/{index}/count/batch", response_model=schemas.CountBatch)
async def count_batch(request: Request, index: Name, body: schemas.CountBatchRequest) -> Response:
    """How often each of many queries occurs."""
    sizes = sum(map(size_of, body.queries))
    found = await service_of(request).search(
        served_of(request, index),
        lambda ix: ix.count_batch(body.queries),
        estimate=lambda ix: cost.of_count(sizes, len(body.queries)),
        hint=SHORTER,
    )
    return reply({"counts": found})


@router.post("/{index}/find/batch", response_model=schemas.FoundBatch)
async def find_batch(request: Request, index: Name, body: schemas.FindBatchRequest) -> Response:
    """The first hits of each of many queries."""
    return await _first_pages(request, index, body, documents=False)


@router.post("/{index}/documents/batch", response_model=schemas.FoundBatch)
async def documents_batch(
    request: Request, index: Name, body: schemas.FindBatchRequest
) -> Response:
    """The first hit in each of several documents, of each of many queries."""
    return await _first_pages(request, index, body, documents=True)


async def _first_pages(
    request: Request, name: str, body: schemas.FindBatchRequest, *, documents: bool
) -> Response:
    """The first page of each query; its cursor goes on at the address for one query."""
    check_answer(body.limit, body.context, body.queries)
    options: dict[str, Any] = {"context": body.context, "order": body.order, "seed": body.seed}

    def first_page(opened: Opened, query: Any, hits: int) -> dict[str, Any]:
        if documents:  # one more than is shown says whether there is a next page
            found = opened.index.documents(query, limit=body.limit + 1, **options)
            more = len(found) > body.limit
        else:
            found = opened.index.find(query, limit=body.limit, **options)
            more = len(found) < hits
        shown = found[: body.limit]
        question = [documents, query, body.order, body.seed]
        cursor = make_cursor(opened.fingerprint, question, len(shown)) if more else None
        return {"count": hits, "hits": [show_hit(h) for h in shown], "next_cursor": cursor}

    def job(opened: Opened) -> dict[str, Any]:
        counts = opened.index.count_batch(body.queries).tolist()
        pairs = zip(body.queries, counts, strict=True)
        return {"results": [first_page(opened, query, hits) for query, hits in pairs]}

    def estimate(ix: Index) -> float:
        price = cost.of_documents if documents else cost.of_find
        return sum(
            price(hits, body.limit, body.context, body.order, 0)
            for hits in ix.count_batch(body.queries).tolist()
        )

    return reply(
        await service_of(request).search_opened(
            served_of(request, name), job, lane="slow", estimate=estimate, hint=ORDER_HINT
        )
    )


@router.post("/{index}/next/batch", response_model=schemas.DistributionBatch)
async def next_batch(request: Request, index: Name, body: schemas.NextBatchRequest) -> Response:
    """What follows each of many prompts."""

    def job(ix: Index) -> Any:
        if body.infgram:
            return {"results": ix.infgram_batch(body.queries, top=body.top)}
        return {"results": ix.next_batch(body.queries, body.top)}

    sizes = sum(map(size_of, body.queries))
    return reply(
        await service_of(request).search(
            served_of(request, index),
            job,
            lane="slow",
            estimate=lambda ix: cost.of_next(sizes, 1, len(body.queries)),
            hint=SHORTER,
        )
    )


@router.post("/{index}/prob/batch", response_model=schemas.ProbBatch)
async def prob_batch(request: Request, index: Name, body: schemas.ProbBatchRequest) -> Response:
    """How probable each continuation is after its prompt."""
    queries = [pair.query for pair in body.pairs]
    after: Any = [-1 if pair.continuation is None else pair.continuation for pair in body.pairs]

    def job(ix: Index) -> Any:
        found: Any = ix.infgram_batch if body.infgram else ix.prob_batch
        return {"results": found(queries, after)}

    sizes = sum(map(size_of, queries))
    return reply(
        await service_of(request).search(
            served_of(request, index),
            job,
            lane="slow",
            estimate=lambda ix: cost.of_count(sizes, len(queries)),
            hint=SHORTER,
        )
    )


@router.post("/{index}/cnf/batch", response_model=schemas.CnfBatch)
async def cnf_batch(request: Request, index: Name, body: schemas.CnfBatchRequest) -> Response:
    """The answers to many such questions."""
    for question in body.questions:
        check_answer(question.limit * len(body.questions), question.context + question.window, [""])
    return reply(
        await service_of(request).search(
            served_of(request, index),
            lambda ix: {"results": [answer_cnf(ix, question) for question in body.questions]},
            lane="slow",
            estimate=lambda ix: sum(cnf_cost(ix, question) for question in body.questions),
            hint=CNF_HINT,
        )
    )


@router.post("/{index}/trace/batch", response_model=schemas.TracedBatch)
async def trace_batch(request: Request, index: Name, body: schemas.TraceBatchRequest) -> Response:
    """The same of many texts."""

    def job(ix: Index) -> Any:
        found = ix.trace_batch(body.texts, **trace_options(body))
        return {"results": [{"spans": spans} for spans in found]}

    return reply(
        await service_of(request).search(
            served_of(request, index),
            job,
            lane="slow",
            estimate=lambda ix: cost.of_trace(sum(map(len, body.texts))),
            hint=SHORTER,
        )
    )


@router.post("/{index}/document/batch", response_model=schemas.DocumentBatch)
async def document_batch(
    request: Request, index: Name, body: schemas.DocumentBatchRequest
) -> Response:
    """Ranges of many documents."""

    def job(ix: Index) -> Any:
        results, size = [], 0
        for each in body.ranges:
            results.append(quote_document(ix, each))
            size += results[-1]["end"] - results[-1]["start"]
            if size > schemas.MAX_ANSWER:
                raise ServiceError(
                    422,
                    "answer_too_large",
                    f"These ranges hold more than {schemas.MAX_ANSWER:,} bytes. Ask for fewer.",
                )
        return {"results": results}

    return reply(await service_of(request).search(served_of(request, index), job, lane="slow"))
