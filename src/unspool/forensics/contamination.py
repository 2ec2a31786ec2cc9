"""Which entries of a benchmark stand in a corpus: the share of their windows that occur there.

What: every window (50 characters, a word apart) of the chosen fields is counted in the indexes;
eta is the share that occurs at least once. An entry is dirty from one bound on, suspicious between
two, else clean; without any text it is skipped.
Source: "Infini-gram mini" (arXiv 2506.12229), section 5. The released code holds no bounds; 0.8
and 0.2 are settings here.
Departures: a field shorter than a window adds none where another field of the entry is long enough
(a one-word answer occurs in every corpus); instead it is looked for beside what was found, within
`near` bytes, as whole words. Where all fields are short, each is one window as it stands.
Cost: one count a distinct window, in batches; a few searches an entry for its examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from unspool.errors import ConfigError
from unspool.forensics.benchmark_files import Entry
from unspool.forensics.windows import Stride, byte_offsets, union, window_starts
from unspool.index.engine import Index

Label = Literal["dirty", "suspicious", "clean", "skipped"]
LABELS: tuple[Label, ...] = ("dirty", "suspicious", "clean", "skipped")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminationSettings:
    """How entries are cut, counted and labelled."""

    window: int = 50
    """Characters (code points) of a window."""
    stride: Stride = "word"
    """"word", or characters from one window to the next."""
    dirty: int | float = 0.8
    """Share of windows found from which an entry is dirty."""
    suspicious: int | float = 0.2
    """Share of windows found above which an entry is suspicious."""
    fields: tuple[str, ...] = ()
    """Fields to look at; empty: `text`, or if there is none, every field that holds text."""
    id_field: str = "id"
    """Field with the id of an entry."""
    examples: int = 3
    """Most places in the corpus that are shown of an entry."""
    near: int = 1000
    """Bytes on each side of an example in which a short field is looked for."""
    sample: int | None = None
    """Take at most so many entries of each benchmark."""
    seed: int = 0
    """Of the sample."""

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("examples", 0), ("near", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}.")
        if self.stride != "word" and (not isinstance(self.stride, int) or self.stride < 1):
            raise ConfigError(
                f"stride must be 'word' or a number of characters of at least 1, got "
                f"{self.stride!r}."
            )
        if not 0 <= self.suspicious < self.dirty <= 1:
            raise ConfigError(
                f"0 <= suspicious < dirty <= 1 must hold, got suspicious={self.suspicious} and "
                f"dirty={self.dirty}."
            )
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"sample must be at least 1, got {self.sample}.")
        if len(set(self.fields)) < len(self.fields):
            raise ConfigError(f"A field is named twice: {', '.join(self.fields)}.")

    def label(self, eta: int | float | None) -> Label:
        """What an entry with this share of windows found is called."""
        if eta is None:
            return "skipped"
        if eta >= self.dirty:
            return "dirty"
        return "suspicious" if eta > self.suspicious else "clean"


@dataclass(frozen=True, slots=True)
class _Window:
    entry: int
    field: int
    start: int
    """In characters of the field's text."""
    end: int
    query: str


Corpora = Sequence[tuple[str, Index]]
"""Open indexes with the names they have in reports."""


def check_indexes(corpora: Corpora) -> None:
    """Refuse an index in which a window cannot be looked up as it stands."""
    for name, index in corpora:
        alphabet = index.info().alphabet
        if alphabet != "bytes":
            raise ConfigError(
                f"The index {name} holds tokens ({alphabet}), and a window may begin inside one, "
                "so that it would be missed. Build an index with --alphabet bytes."
            )


def measure(
    benchmark: str, entries: Sequence[Entry], corpora: Corpora, settings: ContaminationSettings
) -> list[dict[str, Any]]:
    """A row an entry; the keys are those of `unspool audit contamination --json`."""
    cut = [_cut(number, entry, settings) for number, entry in enumerate(entries)]
    queries = list(dict.fromkeys(window.query for windows in cut for window in windows))
    found: list[dict[str, int]] = []
    for _, index in corpora:
        counts = index.count_batch(queries).tolist() if queries else []
        found.append({q: n for q, n in zip(queries, counts, strict=True) if n})
    joined = _joined(entries, cut, corpora, found) if settings.examples else [set()] * len(found)
    return [
        _row(benchmark, entry, windows, corpora, found, joined, settings)
        for entry, windows in zip(entries, cut, strict=True)
    ]


def _joined(
    entries: Sequence[Entry],
    cut: Sequence[Sequence[_Window]],
    corpora: Corpora,
    found: Sequence[dict[str, int]],
) -> list[set[str]]:
    """For each index, the neighbouring windows that also occur as one piece."""
    all_joined = []
    for (_, index), each in zip(corpora, found, strict=True):
        pairs = {
            _between(entry, first, second)
            for entry, windows in zip(entries, cut, strict=True)
            for first, second in pairwise([w for w in windows if w.query in each])
            if _overlap(first, second)
        }
        asked = sorted(pairs)
        counts = index.count_batch(asked).tolist() if asked else []
        all_joined.append({text for text, count in zip(asked, counts, strict=True) if count})
    return all_joined


def _overlap(first: _Window, second: _Window) -> bool:
    return first.field == second.field and second.start < first.end


def _between(entry: Entry, first: _Window, last: _Window) -> str:
    """The text from the start of a window to the end of a later one."""
    return entry.fields[first.field].text[first.start : last.end]


def summarise(
    benchmark: str,
    rows: Iterable[dict[str, Any]],
    total: int,
    names: Sequence[str],
    settings: ContaminationSettings,
) -> dict[str, Any]:
    """The row of a benchmark: how many entries carry which label, and which fields matched."""
    taken = list(rows)
    labels = Counter(row["label"] for row in taken)
    matched = Counter("+".join(row["matched"]) for row in taken if row["matched"])
    checked = len(taken) - labels["skipped"]
    each = {}
    for name in names:
        own = Counter(
            settings.label(row["indexes"][name] / row["windows"]) for row in taken if row["windows"]
        )
        each[name] = {label: own[label] for label in ("dirty", "suspicious")}
    return {
        "benchmark": benchmark,
        "entries": len(taken),
        "entries_in_file": total,
        **{label: labels[label] for label in LABELS},
        "dirty_rate": round(labels["dirty"] / checked, 6) if checked else None,
        "windows": sum(row["windows"] for row in taken),
        "hits": sum(row["hits"] for row in taken),
        "fields": list(dict.fromkeys(name for row in taken for name in row["fields"])),
        "matched": dict(sorted(matched.items())),
        "indexes": each,
    }


def _cut(number: int, entry: Entry, settings: ContaminationSettings) -> list[_Window]:
    whole: list[_Window] = []
    short: list[_Window] = []
    for place, field in enumerate(entry.fields):
        base = 0
        for piece in field.pieces:
            size = settings.window
            starts = window_starts(piece, size, settings.stride)
            whole += [
                _Window(number, place, base + s, base + s + size, piece[s : s + size])
                for s in starts
            ]
            if not starts and piece.strip():
                short.append(_Window(number, place, base, base + len(piece), piece))
            base += len(piece) + 1
    return whole or short


def _row(
    benchmark: str,
    entry: Entry,
    windows: Sequence[_Window],
    corpora: Corpora,
    found: Sequence[dict[str, int]],
    joined: Sequence[set[str]],
    settings: ContaminationSettings,
) -> dict[str, Any]:
    hits = [w for w in windows if any(w.query in each for each in found)]
    eta = round(len(hits) / len(windows), 6) if windows else None
    examples, texts = _examples(entry, windows, hits, corpora, found, joined, settings)
    fields: dict[str, dict[str, Any]] = {}
    for place, field in enumerate(entry.fields):
        own = [w for w in windows if w.field == place]
        hit = [w for w in hits if w.field == place]
        fields[field.name] = {
            "eta": round(len(hit) / len(own), 6) if own else None,
            "windows": len(own),
            "hits": len(hit),
            "beside": _stands_in(field.pieces, texts) if not own and texts else None,
            "spans": _spans(field.text, union([(w.start, w.end) for w in hit])),
        }
    return {
        "benchmark": benchmark,
        "id": entry.id,
        "eta": eta,
        "label": settings.label(len(hits) / len(windows) if windows else None),
        "windows": len(windows),
        "hits": len(hits),
        "matched": [name for name, each in fields.items() if each["hits"] or each["beside"]],
        "fields": fields,
        "indexes": {
            name: sum(w.query in each for w in windows)
            for (name, _), each in zip(corpora, found, strict=True)
        },
        "examples": examples,
    }


def _spans(text: str, ranges: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    edges = sorted({edge for each in ranges for edge in each})
    offsets = dict(zip(edges, byte_offsets(text, edges), strict=True))
    return [
        {"start": offsets[start], "end": offsets[end], "text": text[start:end]}
        for start, end in ranges
    ]


def _examples(
    entry: Entry,
    windows: Sequence[_Window],
    hits: Sequence[_Window],
    corpora: Corpora,
    found: Sequence[dict[str, int]],
    joined: Sequence[set[str]],
    settings: ContaminationSettings,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Where the longest found pieces of an entry stand, each in another document; and the text
    around them."""
    runs: list[tuple[int, int, list[_Window]]] = []
    for corpus, each in enumerate(found):
        own = [w for w in hits if w.query in each]
        breaks = [
            i
            for i, (a, b) in enumerate(pairwise(own), 1)
            if not (_overlap(a, b) and _between(entry, a, b) in joined[corpus])
        ]
        for low, high in pairwise([0, *breaks, len(own)]):
            if low < high:
                run = own[low:high]
                runs.append((run[-1].end - run[0].start, corpus, run))
    runs.sort(key=lambda run: (-run[0], run[1], run[2][0].field, run[2][0].start))
    shown: list[dict[str, Any]] = []
    around: list[str] = []
    # The surroundings are read only where a short field is to be looked for in them.
    counted = {window.field for window in windows}
    context = settings.near if len(counted) < len(entry.fields) else 0
    seen: set[tuple[int, str]] = set()
    for _, corpus, run in runs:
        if len(shown) >= settings.examples:
            break
        name, index = corpora[corpus]
        field = run[0].field
        query, count = _longest(index, entry, run)
        for hit in index.find(query, limit=1, context=context):
            if (corpus, hit.span.document) not in seen:
                seen.add((corpus, hit.span.document))
                told = {"index": name, "field": entry.fields[field].name}
                shown.append({**hit.span.to_json(), **told, "count": count})
                around.append(hit.context)
    return shown, around


def _longest(index: Index, entry: Entry, run: Sequence[_Window]) -> tuple[str, int]:
    """From the first window of a run, the longest piece that ends with a window and occurs."""
    low, high = 0, len(run) - 1
    text = _between(entry, run[0], run[high])
    count = index.count(text)
    if count:
        return text, count
    while high - low > 1:  # the piece to `low` occurs, that to `high` does not
        middle = (low + high) // 2
        if index.count(_between(entry, run[0], run[middle])):
            low = middle
        else:
            high = middle
    text = _between(entry, run[0], run[low])
    return text, index.count(text)


def _stands_in(pieces: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether a short text stands in one of some longer ones, not as a part of a word."""
    wanted = [piece.strip() for piece in pieces if piece.strip()]
    return any(_as_words(piece, text) for piece in wanted for text in texts)


def _as_words(piece: str, text: str) -> bool:
    at = text.find(piece)
    while at >= 0:
        end = at + len(piece)
        before, after = text[at - 1 : at], text[end : end + 1]
        inside = (before.isalnum() and piece[0].isalnum()) or (
            after.isalnum() and piece[-1].isalnum()
        )
        if not inside:
            return True
        at = text.find(piece, at + 1)
    return False
