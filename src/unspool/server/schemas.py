"""The exact form of every request and answer of the search API, limits included."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_QUERY = 100_000
MAX_ADDRESS = 2_000
"""Characters of a query in an address; servers and proxies take no long ones."""
MAX_TEXT = 1_000_000
MAX_BATCH = 10_000
MAX_SMALL_BATCH = 100
MAX_LIMIT = 1_000
MAX_CONTEXT = 10_000
MAX_QUOTE = 1 << 20
MAX_ANSWER = 32 << 20
"""Most bytes of text that one answer may quote."""

MOST = 1 << 53
"""Whole numbers below this are the same in every language."""


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is a whole one."""
    return int(value) if type(value) is float and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Stands behind the limits of a number, so that the schema keeps them."""
Text = Annotated[str, StringConstraints(max_length=MAX_QUERY)]
Symbol = Annotated[int, Field(ge=0, lt=1 << 32), WHOLE]
_SYMBOLS = "Text, or symbols of the index: byte values or token ids."
Query = Annotated[
    Text | Annotated[list[Symbol], Field(max_length=MAX_QUERY)], Field(description=_SYMBOLS)
]
Term = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY)]
    | Annotated[list[Symbol], Field(min_length=1, max_length=MAX_QUERY)],
    Field(description=_SYMBOLS),
]
"""A query that is not empty."""
Seed = Annotated[int, Field(ge=0, lt=MOST), WHOLE]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE]
Context = Annotated[int, Field(ge=0, le=MAX_CONTEXT), WHOLE]
Order = Literal["index", "position", "random"]


class Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ErrorDetail(Form):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class ErrorBody(Form):
    error: ErrorDetail


class Answer(Form):
    """What every answer of a search may say on a cluster; a whole answer leaves it out."""

    partial: bool = Field(default=False, description="Some shards gave no answer.")
    missing: list[str] = Field(default=[], description="Their names.")


class CountRequest(Form):
    query: Query


class Count(Answer):
    query: Query
    count: int


class CountBatchRequest(Form):
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_BATCH)]


class CountBatch(Answer):
    counts: list[int]


class SpanForm(Form):
    document: str
    start: int
    end: int
    text: str


class HitForm(SpanForm):
    context: str
    number: Annotated[int, Field(description="The number of the document in the index."), WHOLE]


class FindRequest(Form):
    query: Term
    limit: Limit = 10
    context: Context = 80
    order: Order = "index"
    seed: Seed = 0
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None


class Found(Answer):
    count: Annotated[int, Field(description="Occurrences in all."), WHOLE]
    hits: list[HitForm]
    next_cursor: Annotated[
        str | None, Field(description="Give it back as `cursor` for the next page.")
    ]


class FindBatchRequest(Form):
    queries: Annotated[list[Term], Field(min_length=1, max_length=MAX_SMALL_BATCH)]
    limit: Limit = 10
    context: Context = 80
    order: Order = "index"
    seed: Seed = 0


class FoundBatch(Answer):
    results: list[Found]


class NextRequest(Form):
    query: Query
    infgram: bool = False
    top: Annotated[int, Field(ge=1, le=100_000), WHOLE] = 100


class NextForm(Form):
    symbol: int
    text: str
    count: int
    prob: float
    suffix_length: int


class DistributionForm(Answer):
    prompt_count: int
    suffix_length: int
    distinct: Annotated[
        int, Field(description="More than are listed if `top` left some out."), WHOLE
    ]
    symbols: list[NextForm]


class NextBatchRequest(Form):
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_BATCH)]
    infgram: bool = False
    top: Annotated[int, Field(ge=1, le=1_000), WHOLE] = 10


class DistributionBatch(Answer):
    results: list[DistributionForm]


class ProbRequest(Form):
    query: Query
    continuation: Annotated[
        Term | None, Field(description="What follows; null is the end of the document.")
    ]
    infgram: bool = False


class ProbForm(Answer):
    prompt_count: int
    count: int
    prob: Annotated[float | None, Field(description="Null where the prompt does not occur.")]
    suffix_length: int


class Pair(Form):
    query: Query
    continuation: Annotated[
        Term | None, Field(description="What follows; null is the end of the document.")
    ]


class ProbBatchRequest(Form):
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_BATCH)]
    infgram: bool = False


class ProbBatch(Answer):
    results: list[ProbForm]


Clauses = Annotated[
    list[Annotated[list[Term], Field(min_length=1, max_length=32)]],
    Field(min_length=1, max_length=16, description="AND of ORs."),
]


class CnfRequest(Form):
    clauses: Clauses
    window: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] = 100
    limit: Limit = 10
    context: Context = 80
    sample: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None
    seed: Seed = 0


class CnfForm(Answer):
    count: int
    exact: bool
    low: int
    high: int
    hits: list[HitForm]


class CnfBatchRequest(Form):
    questions: Annotated[list[CnfRequest], Field(min_length=1, max_length=MAX_SMALL_BATCH)]


class CnfBatch(Answer):
    results: list[CnfForm]


class TraceSettings(Form):
    min_length: Annotated[int, Field(ge=1, le=MAX_TEXT), WHOLE] = 1
    max_count: Annotated[int, Field(ge=1, lt=MOST), WHOLE] | None = None
    delimiters: Annotated[list[Text | Symbol], Field(max_length=64)] = []
    whole_words: bool = False
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    rank: Literal["position", "length", "rarity"] = "position"
    max_sources: Annotated[int, Field(ge=0, le=MAX_LIMIT), WHOLE] = 10
    seed: Seed = 42


class TraceRequest(TraceSettings):
    text: Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class TraceSpanForm(Form):
    start: int
    end: int
    text: str
    count: int
    sources: list[SpanForm]


class Traced(Answer):
    spans: list[TraceSpanForm]


class TraceBatchRequest(TraceSettings):
    texts: Annotated[
        list[Annotated[str, StringConstraints(max_length=MAX_TEXT)]],
        Field(min_length=1, max_length=MAX_SMALL_BATCH),
    ]


class TracedBatch(Answer):
    results: list[Traced]


Offset = Annotated[int, Field(ge=0, lt=1 << 48), WHOLE]


class DocumentRequest(Form):
    document: Annotated[
        Text | Annotated[int, Field(ge=0, lt=MOST), WHOLE],
        Field(description="The id of a document, or its number."),
    ]
    start: Offset = 0
    end: Annotated[
        Offset | None,
        Field(description=f"Null is the end; at most {MAX_QUOTE} bytes are quoted at once."),
    ] = None


class DocumentForm(Form):
    document: str
    number: int
    length: Annotated[int, Field(description="UTF-8 bytes of the whole document."), WHOLE]
    start: int
    end: int
    text: str
    meta: dict[str, Any]


class DocumentBatchRequest(Form):
    ranges: Annotated[list[DocumentRequest], Field(min_length=1, max_length=MAX_SMALL_BATCH)]


class DocumentBatch(Form):
    results: list[DocumentForm]


class IndexForm(Form):
    name: str
    state: Literal["serving", "damaged"]
    problem: str | None
    fingerprint: str | None
    reloads: int
    info: Annotated[
        dict[str, Any] | None, Field(description="Documents, symbols, bytes, alphabet, tier.")
    ]


class IndexList(Form):
    indexes: list[IndexForm]
