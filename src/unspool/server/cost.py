"""What a search is likely to take, known before it is begun.

Seconds, from counts that cost microseconds to get, and prices measured on one core of a small
machine. They are meant to refuse what has no chance to end before the deadline, with a hint that
helps; what they misjudge, the deadline ends.
"""

from __future__ import annotations

from collections.abc import Sequence

LOCATE = 4e-6
"""To say where one occurrence lies."""
QUOTE = 60e-6
"""To quote one hit with its context, plus `QUOTE_BYTE` a byte."""
QUOTE_BYTE = 0.2e-6
SYMBOL = 0.7e-6
"""To search one more symbol of a query."""
CALL = 10e-6
FOLLOW = 3e-6
"""To count one symbol that may follow."""
MATCH = 5e-6
"""To find the longest match from one place of a text."""
READ = 46e-6
"""To read round one occurrence of a clause, plus `READ_SYMBOL` a symbol."""
READ_SYMBOL = 0.3e-6


def of_count(symbols: int, queries: int = 1) -> float:
    return queries * CALL + symbols * SYMBOL


def of_find(hits: int, limit: int, context: int, order: str, start: int) -> float:
    shown = min(limit, hits)
    located = hits if order == "position" else shown
    drawn = (start + shown) * 1e-6 if order == "random" else 0.0
    return located * LOCATE + drawn + shown * (QUOTE + 2 * context * QUOTE_BYTE)


def of_documents(hits: int, limit: int, context: int, order: str, start: int) -> float:
    # At worst all occurrences lie in few documents; at best each next one is of a new document.
    located = hits if order == "position" else min(hits, start + limit)
    return located * LOCATE + min(limit, hits) * (QUOTE + 2 * context * QUOTE_BYTE)


def of_next(symbols: int, distinct: int, queries: int = 1) -> float:
    return of_count(symbols, queries) + queries * distinct * FOLLOW


def of_trace(symbols: int) -> float:
    return CALL + symbols * MATCH


def of_cnf(clauses: Sequence[int], window: int, sample: int | None) -> float:
    """From the occurrences of each clause."""
    rarest = min(clauses)
    if not rarest:
        return CALL
    pivots = min(rarest, sample or rarest)
    reading = rarest * LOCATE + pivots * (READ + 2 * window * READ_SYMBOL)
    return reading if sample else min(LOCATE * sum(clauses), reading)
