r"""`unspool search`: count, find, predict and trace text in an index."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import emit_json, emit_table, human_number, message

if TYPE_CHECKING:
    from unspool.index.engine import Index
    from unspool.index.results import Hit

app = App(name="search", help="Count, find and trace text in an index.")

_BATCH = 4096


@app.command
def count(
    directory: Path,
    queries: Annotated[list[str], MAY_BE_DASH],
    /,
    *,
    ids: bool = False,
    json: bool = False,
) -> None:
    """Count how often each query occurs.

    For example:

        unspool search count notes.idx "long text" "short text"

        cut -f1 phrases.tsv | unspool search count notes.idx - --json

    Args:
        directory: The index.
        queries: What to count, byte for byte; - reads one query a line from standard input.
        ids: Queries are token ids (or byte values), as in "12,7,305".
        json: Print one JSON object a query.
    """
    index = _open(directory)
    rows = []
    given = _lines() if queries == ["-"] else iter(queries)
    while batch := list(islice(given, _BATCH)):
        asked = [_query(text, ids) for text in batch]
        counts = index.count_batch(asked).tolist()
        for text, query, found in zip(batch, asked, counts, strict=True):
            if json:
                emit_json({"query": text, "count": found, **_used(index, query)})
            else:
                rows.append((human_number(found), text))
    if not json:
        emit_table(["count", "query"], rows, right=["count"])


@app.command
def find(
    directory: Path,
    query: str,
    /,
    *,
    limit: int = 10,
    context: int = 80,
    order: Literal["index", "position", "random"] = "index",
    seed: int = 0,
    documents: bool = False,
    ids: bool = False,
    json: bool = False,
) -> None:
    """Show where a query occurs, with the text around it.

    For example:

        unspool search find notes.idx "long text" --limit 3

        unspool search find notes.idx "TODO" --order random --seed 7 --json

    Args:
        directory: The index.
        query: What to find, byte for byte.
        limit: Most occurrences shown.
        context: Bytes of text on each side.
        order: index is stable and fast; position sorts by document and place; random draws without
            replacement.
        seed: Of the random order.
        documents: At most one occurrence a document.
        ids: The query is token ids (or byte values), as in "12,7,305".
        json: Print one JSON object an occurrence: document, start, end, text, context.
    """
    index = _open(directory)
    asked = _query(query, ids)
    search = index.documents if documents else index.find
    hits = search(asked, limit=limit, context=context, order=order, seed=seed)
    _show_hits(hits, json)
    if not json:
        what = " in as many documents" if documents else ""
        message(f"{len(hits):,} of {index.count(asked):,} occurrences shown{what}.")
        if not hits and not ids and index.info().alphabet != "bytes":
            message("A token index matches whole tokens: try the query with a space before it.")


@app.command(name="next")
def next_(
    directory: Path,
    prompt: str,
    /,
    *,
    infgram: bool = False,
    top: int | None = None,
    ids: bool = False,
    json: bool = False,
) -> None:
    """Show what follows a prompt in the corpus, with exact counts.

    For example:

        unspool search next notes.idx "the long" --top 5

    Args:
        directory: The index.
        prompt: The text before.
        infgram: If the prompt does not occur, use its longest suffix that does.
        top: Show only so many symbols.
        ids: The prompt is token ids (or byte values), as in "12,7,305".
        json: Print one JSON object a symbol; symbol -1 is the end of a document.
    """
    index = _open(directory)
    asked = _query(prompt, ids)
    found: Any = index.infgram(asked, top=top) if infgram else index.next(asked, top)
    if json:
        for symbol in found.symbols:
            emit_json(symbol)
        return
    emit_table(
        ["count", "prob", "symbol", "text"],
        [
            (
                human_number(s.count),
                f"{s.prob:.4f}",
                s.symbol,
                "(end of document)" if s.symbol < 0 else s.text,
            )
            for s in found.symbols
        ],
        right=["count", "prob", "symbol"],
    )
    message(
        f"{len(found.symbols):,} of {found.distinct:,} symbols, after "
        f"{human_number(found.prompt_count)} occurrences of {found.suffix_length:,} symbols of the "
        "prompt."
    )


@app.command
def prob(
    directory: Path,
    prompt: str,
    continuation: str | None = None,
    /,
    *,
    infgram: bool = False,
    end: bool = False,
    ids: bool = False,
    json: bool = False,
) -> None:
    """Say how probable a continuation is after a prompt: its share of the prompt's occurrences.

    For example:

        unspool search prob notes.idx "the long" " text"

        unspool search prob notes.idx "the end." --end --infgram --json

    Args:
        directory: The index.
        prompt: The text before.
        continuation: The text after.
        infgram: Use the longest suffix of the prompt that occurs.
        end: In place of a continuation: the end of the document.
        ids: Prompt and continuation are token ids (or byte values), as in "12,7,305".
        json: Print one JSON object; prob is null where the prompt does not occur.
    """
    from unspool.errors import ConfigError

    if (continuation is None) != end:
        raise ConfigError("Give either a continuation or --end.")
    index = _open(directory)
    after: Any = -1 if continuation is None else _query(continuation, ids)
    asked = _query(prompt, ids)
    found: Any = index.infgram(asked, after) if infgram else index.prob(asked, after)
    if json:
        emit_json(found)
        return
    shown = "undefined (the prompt does not occur)" if found.prob is None else f"{found.prob:.6g}"
    emit_table(
        ["prob", "count", "prompt count", "suffix length"],
        [(shown, found.count, found.prompt_count, found.suffix_length)],
        right=["count", "prompt count", "suffix length"],
    )


@app.command
def trace(
    directory: Path,
    text: Annotated[str, MAY_BE_DASH],
    /,
    *,
    min_length: int = 1,
    max_count: int | None = None,
    delimiter: list[str] | None = None,
    whole_words: bool = False,
    density: float | None = None,
    rank: Literal["position", "length", "rarity"] = "position",
    max_sources: int = 10,
    seed: int = 42,
    json: bool = False,
) -> None:
    """Show which pieces of a text occur word for word in the corpus, and where.

    For example:

        unspool search trace notes.idx "as the long text says" --min-length 8

        unspool search trace notes.idx - --whole-words --rank length < answer.txt

    Args:
        directory: The index.
        text: The text to trace; - reads it from standard input.
        min_length: Fewest symbols (bytes or tokens) of a piece.
        max_count: Leave out pieces that occur more often.
        delimiter: One symbol that may only end a piece.
        whole_words: Pieces begin and end where words do.
        density: Keep so many pieces as this share of the text's symbols.
        rank: Order, and what --density keeps: position, length or rarity.
        max_sources: Most places shown of each piece.
        seed: Of the sample of places.
        json: Print one JSON object a piece: start, end, text, count, sources.
    """
    index = _open(directory)
    asked = _stdin_bytes() if text == "-" else text
    found = index.trace(
        asked,
        min_length=min_length,
        max_count=max_count,
        delimiters=tuple(delimiter or ()),
        whole_words=whole_words,
        density=density,
        rank=rank,
        max_sources=max_sources,
        seed=seed,
    )
    if json:
        for span in found:
            emit_json(span)
        return
    emit_table(
        ["start", "end", "count", "text", "first source"],
        [
            (
                span.start,
                span.end,
                human_number(span.count),
                span.text,
                f"{span.sources[0].document} @ {span.sources[0].start:,}" if span.sources else "",
            )
            for span in found
        ],
        right=["start", "end", "count"],
    )


@app.command
def cnf(
    directory: Path,
    clauses: list[str],
    /,
    *,
    window: int = 100,
    limit: int = 10,
    context: int = 80,
    sample: int | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    r"""Find places where every clause is met close together; a clause is `a|b`, `\|` is a bar.

    For example:

        unspool search cnf notes.idx "long|short" "text" --window 40

    Args:
        directory: The index.
        clauses: Each a set of alternatives, of which one must occur.
        window: Most symbols from the start of the first to the start of the last.
        limit: Most places shown; the count is of all.
        context: Bytes of text on each side.
        sample: Estimate the count from so many occurrences of the rarest clause, with bounds.
        seed: Of the sample.
        json: Print one JSON object with the count, then one a place.
    """
    from unspool.index.cnf import parse_clause

    index = _open(directory)
    found = index.cnf(
        [parse_clause(clause) for clause in clauses],
        window=window,
        limit=limit,
        context=context,
        sample=sample,
        seed=seed,
    )
    if json:
        summary = found.to_json()
        del summary["hits"]
        emit_json(summary)
    _show_hits(found.hits, json)
    if not json:
        about = "" if found.exact else f" (an estimate: {found.low:,} to {found.high:,})"
        message(f"{len(found.hits):,} of {found.count:,} places shown{about}.")


def _open(directory: Path) -> Index:
    from unspool.index.open import open_index

    return open_index(directory)


def _query(text: str, ids: bool) -> Any:
    """A query as typed, or the ids that it lists."""
    if not ids:
        return text
    from unspool.errors import QueryError

    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise QueryError(f"With --ids a query is whole numbers, got {text!r}.") from None


def _used(index: Index, query: Any) -> dict[str, Any]:
    """The ids that a token index was asked with."""
    if index.info().alphabet == "bytes":
        return {}
    return {"ids": index.encode(query).tolist()}


def _show_hits(hits: Sequence[Hit], json: bool) -> None:
    if json:
        for hit in hits:
            emit_json(hit)
        return
    emit_table(
        ["document", "start", "end", "context"],
        [(hit.span.document, hit.span.start, hit.span.end, hit.context) for hit in hits],
        right=["start", "end"],
    )


def _stdin_bytes() -> bytes:
    return sys.stdin.buffer.read()


def _lines() -> Iterator[str]:
    """Queries from standard input, one a line, as text that is not UTF-8 would be refused."""
    from unspool.errors import QueryError

    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.removesuffix(b"\n").decode()
        except UnicodeDecodeError as error:
            raise QueryError(
                f"Line {number} of standard input is not UTF-8 at byte {error.start}."
            ) from error
