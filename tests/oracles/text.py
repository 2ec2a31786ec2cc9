"""Every answer of an exact index, by definition, over documents held as lists of symbols.

Slow and plain on purpose: it shares no code with the project and never imports it. A document is
a list of symbols (bytes, or token ids); `END` (-1) stands for the end of a document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

END = -1
Symbols = Sequence[int]


class Brute:
    """Documents, each turned into a str of one character a symbol so that str.find searches it."""

    def __init__(self, documents: Iterable[Symbols]) -> None:
        self.documents = [list(d) for d in documents]
        values = sorted({s for d in self.documents for s in d})
        self._code = {value: chr(i + 1) for i, value in enumerate(values)}
        self._texts = ["".join(self._code[s] for s in d) for d in self.documents]

    def _encode(self, query: Symbols) -> str | None:
        """None where a symbol of the query is in no document."""
        codes = [self._code.get(s) for s in query]
        return None if None in codes else "".join(c for c in codes if c is not None)

    @property
    def size(self) -> int:
        """Stored symbols, one separator a document included."""
        return sum(len(d) + 1 for d in self.documents)

    def positions(self, query: Symbols) -> list[tuple[int, int]]:
        """(document, start) of every occurrence, overlapping ones too, in order.

        The empty query stands before every symbol and before every end of document.
        """
        needle = self._encode(query)
        if needle is None:
            return []
        if not needle:
            return [(i, p) for i, d in enumerate(self.documents) for p in range(len(d) + 1)]
        found = []
        for i, text in enumerate(self._texts):
            p = text.find(needle)
            while p >= 0:
                found.append((i, p))
                p = text.find(needle, p + 1)
        return found

    def count(self, query: Symbols) -> int:
        return len(self.positions(query))

    def occurs(self, query: Symbols) -> bool:
        needle = self._encode(query)
        return needle is not None and any(needle in text for text in self._texts)

    def next(self, query: Symbols) -> dict[int, int]:
        """Symbol that follows -> how often; END at ends of documents. Ascending."""
        seen: Counter[int] = Counter()
        for i, p in self.positions(query):
            at = p + len(query)
            seen[self.documents[i][at] if at < len(self.documents[i]) else END] += 1
        return dict(sorted(seen.items()))

    def prob(self, context: Symbols, symbol: int) -> tuple[int, int]:
        """cnt(context), cnt(context followed by symbol)."""
        return self.count(context), self.next(context).get(symbol, 0)

    def longest_suffix(self, query: Symbols) -> int:
        """Symbols of the longest suffix of the query that occurs."""
        for start in range(len(query)):
            if self.occurs(query[start:]):
                return len(query) - start
        return 0

    def longest_matches(self, text: Symbols) -> list[int]:
        """For each start the length of the longest piece of text that occurs. O(L^2) searches."""
        lengths = []
        for start in range(len(text)):
            length = 0
            while start + length < len(text) and self.occurs(text[start : start + length + 1]):
                length += 1
            lengths.append(length)
        return lengths

    def maximal_spans(self, text: Symbols, min_length: int = 1) -> list[tuple[int, int]]:
        """[start, end) of matches that are inside no other match."""
        ends = [start + length for start, length in enumerate(self.longest_matches(text))]
        return [
            (start, end)
            for start, end in enumerate(ends)
            if end - start >= max(min_length, 1) and (start == 0 or ends[start - 1] < end)
        ]

    def cnf(self, clauses: Sequence[Sequence[Symbols]], window: int) -> list[tuple[int, int, int]]:
        """(document, l, r): minimal intervals of starts, r - l <= window, with every clause.

        By enumeration of all pairs: an interval is kept if it holds a start of every clause and
        stops doing so when either end moves inwards.
        """
        starts = [{hit for term in clause for hit in self.positions(term)} for clause in clauses]
        found = []
        for i, document in enumerate(self.documents):
            here = [{p for d, p in clause if d == i} for clause in starts]

            def holds(l: int, r: int, here: list[set[int]] = here) -> bool:
                return all(any(l <= p <= r for p in clause) for clause in here)

            for l in range(len(document) + 1):
                for r in range(l, min(l + window, len(document)) + 1):
                    if holds(l, r):
                        if not holds(l + 1, r) and not holds(l, r - 1):
                            found.append((i, l, r))
                        break
        return found
