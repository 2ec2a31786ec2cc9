"""Plant traps in documents, and take them out again.

Source: Meeus et al. (2024), "Copyright Traps for Large Language Models", section 4.2.
Differs from the released code: the trap stands between separators (theirs is glued to the word that
follows), every copy is recorded by byte offset, and removing them gives the document back byte for
byte; documents with too few places are passed over and counted, not filtered by a length in tokens.
Cost: one pass over a document.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from unspool.errors import ConfigError, InputError
from unspool.forensics.traps.generate import Pair, Pool
from unspool.forensics.traps.manifest import Manifest, Planted, check_salt, coin, new_salt
from unspool.types import Document

Where = Literal["words", "sentences", "paragraphs"]
_PLACES = {
    "words": re.compile(r"(?:(?<=\A)|(?<= ))(?=\S)"),
    "sentences": re.compile(r"(?<=[.!?] )(?=\S)"),
    "paragraphs": re.compile(r"(?<=\n\n)(?=\S)"),
}
_SEPARATORS = {"words": " ", "sentences": " ", "paragraphs": "\n\n"}


class Injected(NamedTuple):
    """A document with copies of a trap."""

    text: str
    offsets: tuple[int, ...]
    """UTF-8 byte offsets of the copies in `text`."""
    inserted: str
    """What stands at each of them."""


def inject(
    text: str,
    trap: str,
    *,
    repeat: int,
    where: str = "words",
    seed: int = 0,
    allow_repeat: bool = False,
) -> Injected:
    """Insert copies of a trap before randomly drawn words, sentences or paragraphs.

    Args:
        text: The document.
        trap: What to plant.
        repeat: How many copies.
        where: `words`, `sentences` or `paragraphs`.
        seed: Of the draw.
        allow_repeat: Several copies may stand at one place if there are too few.

    Raises:
        ConfigError: A setting has a value that cannot work.
        InputError: The document has too few places, or holds the trap already.
    """
    if where not in get_args(Where):
        raise ConfigError(f"where must be one of {', '.join(get_args(Where))}, got {where!r}.")
    if repeat < 1 or not trap.strip():
        raise ConfigError(f"repeat must be >= 1 and the trap not empty, got {repeat}, {trap!r}.")
    if trap in text:
        raise InputError("The document holds the trap already. Draw another.")
    places = [m.start() for m in _PLACES[where].finditer(text)]
    draw = random.Random(seed)
    if len(places) < repeat and not (allow_repeat and places):
        raise InputError(
            f"The document has {len(places)} places before {where}, and {repeat} copies were asked "
            f"for. Take a longer document, fewer copies, or allow several at one place."
        )
    if len(places) < repeat:
        chosen = sorted(draw.choices(places, k=repeat))
    else:
        chosen = sorted(draw.sample(places, repeat))
    inserted = trap + _SEPARATORS[where]
    size = len(inserted.encode())
    parts: list[str] = []
    offsets: list[int] = []
    last = at = 0
    for number, place in enumerate(chosen):
        at += len(text[last:place].encode())
        offsets.append(at + number * size)
        parts += [text[last:place], inserted]
        last = place
    return Injected("".join([*parts, text[last:]]), tuple(offsets), inserted)


def remove(text: str, planted: Planted | Injected) -> str:
    """The document without the copies, byte for byte as it was.

    Raises:
        InputError: A copy does not stand where it was recorded.
    """
    raw, piece = text.encode(), planted.inserted.encode()
    parts, last = [], 0
    for offset in planted.offsets:
        if raw[offset : offset + len(piece)] != piece:
            raise InputError(f"There is no trap at byte {offset}: the document was changed.")
        parts.append(raw[last:offset])
        last = offset + len(piece)
    return b"".join([*parts, raw[last:]]).decode()


class Corpus(NamedTuple):
    """Documents to publish, and the manifest to keep."""

    documents: list[Document]
    manifest: Manifest
    passed_over: int
    """Documents with too few places for any trap."""


def inject_corpus(
    documents: Sequence[Document],
    pool: Pool,
    *,
    repeats: Sequence[int] = (1, 10, 100, 1000),
    where: str = "words",
    seed: int = 0,
    salt: str | None = None,
) -> Corpus:
    """Plant one trap a document; which text of a pair is planted, a coin decides.

    Pairs take the numbers of copies in turn, within each length and bucket. Documents are drawn
    at random; a document takes the largest number of copies that waits and that it has room for.

    Args:
        documents: With ids of their own. Those without a trap come back unchanged.
        pool: What `generate` drew.
        repeats: Numbers of copies. 0 plants nothing and needs no document: such pairs must come
            out undetected.
        where: `words`, `sentences` or `paragraphs`.
        seed: Of places and documents.
        salt: Of coins and commitment. Default: drawn; keep it secret.

    Raises:
        ConfigError: A setting has a value that cannot work.
        InputError: Too few documents have room.
    """
    if where not in get_args(Where):
        raise ConfigError(f"where must be one of {', '.join(get_args(Where))}, got {where!r}.")
    if not repeats or min(repeats) < 0 or len(set(repeats)) < len(repeats):
        raise ConfigError(f"repeats must be different and >= 0, got {tuple(repeats)}.")
    secret = check_salt(salt) if salt is not None else new_salt()
    draw = random.Random(seed)
    todo: list[tuple[int, Pair]] = []
    planted: dict[str, Planted] = {}
    turns: dict[int, int] = {}
    for pair in pool.pairs:
        turn = turns.setdefault(pair.length, 0)
        turns[pair.length] += 1
        repeat = repeats[turn % len(repeats)]
        if repeat:
            todo.append((repeat, pair))
        else:
            planted[pair.id] = Planted(pair, coin(secret, pair.id), 0, None, (), "")
    todo.sort(key=lambda each: -each[0])
    order = list(range(len(documents)))
    draw.shuffle(order)
    room = {i: len(_PLACES[where].findall(documents[i].text)) for i in order}
    changed: dict[int, Document] = {}
    passed_over = 0
    smallest = min((repeat for repeat, _ in todo), default=0)
    for i in order:
        if not todo:
            break
        document = documents[i]
        fits = next((n for n, (repeat, _) in enumerate(todo) if repeat <= room[i]), None)
        if fits is None:
            passed_over += room[i] < smallest
            continue
        repeat, pair = todo[fits]
        side = coin(secret, pair.id)
        if pair.texts[0] in document.text or pair.texts[1] in document.text:
            continue
        todo.pop(fits)
        done = inject(
            document.text, pair.texts[side], repeat=repeat, where=where, seed=draw.getrandbits(63)
        )
        changed[i] = Document(document.id, done.text, document.meta)
        planted[pair.id] = Planted(pair, side, repeat, document.id, done.offsets, done.inserted)
    if todo:
        raise InputError(
            f"{len(todo)} of {len(pool.pairs)} pairs found no document: the first needs "
            f"{todo[0][0]} places before {where}. Give more or longer documents ({len(documents)} "
            f"were given), fewer pairs, or fewer copies."
        )
    manifest = Manifest(
        secret, pool.model, where, seed, tuple(planted[pair.id] for pair in pool.pairs)
    )
    return Corpus(
        [changed.get(i, document) for i, document in enumerate(documents)], manifest, passed_over
    )


def find(manifest: Manifest, directories: Sequence[str | Path]) -> list[dict[str, Any]]:
    """How often each trap and control occurs in indexes: exact, no model needed.

    Returns:
        A record a pair: id, repeat, trap and control (occurrences).
    """
    from unspool.index.open import open_index

    index: Any = open_index(list(directories))
    texts = [text for p in manifest.planted for text in (p.trap, p.control)]
    counts = [int(n) for n in index.count_batch(texts)]
    return [
        {"id": p.pair.id, "repeat": p.repeat, "trap": counts[2 * n], "control": counts[2 * n + 1]}
        for n, p in enumerate(manifest.planted)
    ]
