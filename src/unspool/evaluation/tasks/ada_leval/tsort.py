"""TSort items: four consecutive segments of a text, shuffled, between the text around them.

What: `make_tsort` builds items of any length from any long texts; the answer is the order in which
the numbered segments stand in the text.
Source: Wang et al. (2024), arXiv 2404.06480, section 3.1.
Differs from the release: its construction is not public, so segment sizes are found by fitting:
segments end at sentence ends and take four fifths of the level, the text before and after them the
rest, cut at white space where the level is full. Windows step through a text by one segment and
are drawn from all texts without replacement. Items whose segments are equal, and texts too short
for the level, are left out and counted.
Cost: two or three measurements an item.
"""

from __future__ import annotations

import json
import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from unspool.corpus.split import sentences
from unspool.errors import ConfigError
from unspool.evaluation.spec import Parts, Sizer
from unspool.evaluation.tasks._fit import Fitter
from unspool.types import Document

EXAMPLE = [4, 1, 3, 2]
"""The order that the prompt shows as a sample of the format."""
_SEGMENT_SHARE = 0.8
_FULL = 0.98
_INTRO = (
    "Below are {n} segments of one text, in a wrong order, each with a number, and the text that "
    "stands before and after them. Find the order in which the segments stand in the text.\n"
    "Reply with the numbers as a JSON list, in the form of this sample; its order means nothing.\n"
    "Answer: {example}\n\n"
)
_OUTRO = (
    "\nWhich order do the {n} segments have in the text? Reply with a JSON list of their numbers, "
    "nothing else."
)
CUE = "\nAnswer:"
WORDING = (_INTRO, _OUTRO, CUE, "Before", "Segment", "After")
_WORD = re.compile(rb"\S+\s*")


@dataclass(frozen=True, slots=True)
class TSortItem:
    """One item; the first five fields are those of the released files."""

    book_id: str
    para_offset: list[int]
    """Byte offsets of the segments in the text, in the right order."""
    answer: list[int]
    """Labels in the order of the text: `answer[0]` is the number of the first segment."""
    prompt: str
    index: str
    segments: list[str]
    """As shown: segment 1 first."""
    before: str
    after: str

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def parts(self) -> Parts:
        """The prompt in its pieces."""
        return _parts(self.before, self.segments, self.after)


class TSort:
    """An iterator over items that counts what it leaves out.

    Args:
        books: Long texts.
        limit: Most units of a prompt.
        size: Size of a prompt in those units.
        n_segments: How many segments are shuffled.
        seed: Of windows and orders.

    Raises:
        ConfigError: Fewer than two segments, or more than nine.
    """

    def __init__(
        self,
        books: Sequence[Document],
        limit: int,
        size: Sizer,
        *,
        n_segments: int = 4,
        seed: int = 0,
    ) -> None:
        if not 2 <= n_segments <= 9:
            raise ConfigError(f"n_segments must be between 2 and 9, got {n_segments}.")
        self.skipped: Counter[str] = Counter()
        """Reason to number of texts or windows left out."""
        self._books = [_Book(book) for book in books]
        self._limit = limit
        self._size = size
        self._n = n_segments
        self._seed = seed
        self._segment = Fitter(int(_SEGMENT_SHARE * limit), low=1)
        self._around = Fitter(limit, low=0)

    def __iter__(self) -> Iterator[TSortItem]:
        for number, (book, start) in enumerate(self._windows()):
            item = self._item(book, start, number)
            if item is not None:
                yield item

    def _windows(self) -> list[tuple[_Book, int]]:
        """Every window, in drawn order: (text, its first sentence)."""
        longest = max(self._books, key=lambda book: book.words, default=None)
        words = longest and self._words(longest, 0)
        if not longest or not words:
            self.skipped["text shorter than the level"] += len(self._books)
            return []
        windows = []
        for book in self._books:
            # Room for the segments and, on either side together, the text around them.
            starts = book.every(words, int(self._n * words / _SEGMENT_SHARE))
            if not starts:
                self.skipped["text shorter than the level"] += 1
            windows += [(book, start) for start in starts]
        random.Random(f"windows/{self._seed}").shuffle(windows)
        return windows

    def _item(self, book: _Book, start: int, number: int) -> TSortItem | None:
        words = self._words(book, start)
        cuts = book.segments(start, words, self._n) if words else None
        if cuts is None:
            self.skipped["text shorter than the level"] += 1
            return None
        pieces = [book.text(a, b) for a, b in pairwise(cuts)]
        if len({" ".join(piece.split()) for piece in pieces}) < self._n:
            self.skipped["equal segments"] += 1
            return None
        order = list(range(self._n))
        random.Random(f"order/{self._seed}/{number}").shuffle(order)
        shown = [pieces[i] for i in order]

        def size_of(around: int) -> int:
            return self._size(_text(_parts(*_sides(book, cuts, around, shown))))

        self._around.most = book.words
        around = self._around(size_of)
        if around < 0:
            self.skipped["segments longer than the level"] += 1
            return None
        if size_of(around) < _FULL * self._limit:
            self.skipped["text shorter than the level"] += 1
            return None
        before, shown, after = _sides(book, cuts, around, shown)
        return TSortItem(
            book_id=book.id,
            para_offset=cuts[:-1],
            answer=[order.index(i) + 1 for i in range(self._n)],
            prompt=_text(_parts(before, shown, after)),
            index="_".join([book.id, *map(str, cuts[:-1])]),
            segments=shown,
            before=before,
            after=after,
        )

    def _words(self, book: _Book, start: int) -> int:
        """Most words a segment that leave the other share of the level free; 0 if none do."""

        def size_of(words: int) -> int:
            cuts = book.segments(start, words, self._n)
            if cuts is None:
                return self._limit + words  # past the end of the text
            shown = [book.text(a, b) for a, b in pairwise(cuts)]
            return self._size(_text(_parts("", shown, "")))

        return self._segment(size_of)


class _Book:
    """A text with the byte offsets of its words and sentences."""

    def __init__(self, document: Document) -> None:
        self.id = document.id
        self._data = document.text.encode("utf-8", "replace")
        self._starts = [m.start() for m in _WORD.finditer(self._data)] + [len(self._data)]
        places = {offset: i for i, offset in enumerate(self._starts)}
        first = [start for start, _ in sentences(document.text)]
        # A sentence starts at its first word; a sentence of white space starts nowhere.
        self._sentences = sorted({places[s] for s in first if s in places})

    @property
    def words(self) -> int:
        """Words of the text."""
        return len(self._starts) - 1

    def every(self, step: int, room: int) -> list[int]:
        """Sentences about `step` words apart that have `room` words after them."""
        found: list[int] = []
        for word in self._sentences:
            if word + room > self.words:
                break
            if not found or word >= found[-1] + step:
                found.append(word)
        return found

    def segments(self, start: int, words: int, count: int) -> list[int] | None:
        """Byte offsets of `count` segments of at most `words` words that end with a sentence.

        A sentence that is longer than a segment is cut. None past the end of the text.
        """
        cuts = [start]
        for _ in range(count):
            most = cuts[-1] + words
            if most > self.words:
                return None
            ends = self._sentences
            low = _last(ends, most)
            cuts.append(low if low is not None and low > cuts[-1] else most)
        return [self._starts[word] for word in cuts]

    def text(self, start: int, end: int) -> str:
        """The text between two byte offsets."""
        return self._data[start:end].decode("utf-8")

    def around(self, start: int, end: int, words: int) -> tuple[str, str]:
        """Up to `words` words before and after a window, in even shares where there are."""
        first, last = _place(self._starts, start), _place(self._starts, end)
        free = self.words - last
        before = min(first, max(words // 2, words - free))
        after = min(free, words - before)
        return (
            self.text(self._starts[first - before], start),
            self.text(end, self._starts[last + after]),
        )


def make_tsort(
    books: Sequence[Document],
    limit: int,
    size: Sizer,
    *,
    n: int = 200,
    n_segments: int = 4,
    seed: int = 0,
) -> tuple[list[TSortItem], dict[str, int]]:
    """At most `n` items of a length, and how many texts or windows were left out, by reason."""
    maker = TSort(books, limit, size, n_segments=n_segments, seed=seed)
    items = [item for _, item in zip(range(n), maker, strict=False)]
    return items, dict(maker.skipped)


def _sides(
    book: _Book, cuts: Sequence[int], around: int, shown: list[str]
) -> tuple[str, list[str], str]:
    before, after = book.around(cuts[0], cuts[-1], around)
    return before, shown, after


def _parts(before: str, shown: Sequence[str], after: str) -> Parts:
    n = len(shown)
    numbered = "".join(f"[Segment {i}]\n{text.strip()}\n\n" for i, text in enumerate(shown, 1))
    context = f"[Before]\n{before.strip()}\n\n{numbered}[After]\n{after.strip()}\n"
    example = json.dumps(EXAMPLE if n == 4 else list(range(n, 0, -1)))
    return Parts(_INTRO.format(n=n, example=example), context, _OUTRO.format(n=n), CUE)


def _text(parts: Parts) -> str:
    return parts.prefix + parts.context + parts.query + parts.answer_prefix


def _last(values: Sequence[int], most: int) -> int | None:
    """The largest value that is at most `most`."""
    place = bisect_right(values, most)
    return values[place - 1] if place else None


def _place(values: Sequence[int], value: int) -> int:
    return bisect_left(values, value)
