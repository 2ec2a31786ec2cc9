"""Corpora that break indexes: each is a list of documents, a document is a list of symbols."""

from __future__ import annotations

import random
from collections.abc import Callable

Corpus = list[list[int]]


def random_text(length: int, alphabet: int, seed: int, first: int = 0) -> list[int]:
    """Uniform symbols first .. first + alphabet - 1, each present if the length allows."""
    rng = random.Random(seed)
    text = [first + rng.randrange(alphabet) for _ in range(length)]
    if length >= alphabet:
        places = rng.sample(range(length), alphabet)
        for value, place in enumerate(places):
            text[place] = first + value
    return text


def cut(text: list[int], documents: int, seed: int) -> Corpus:
    """A text cut at random places; pieces may be empty."""
    rng = random.Random(seed)
    marks = sorted(rng.randint(0, len(text)) for _ in range(documents - 1))
    return [text[a:b] for a, b in zip([0, *marks], [*marks, len(text)], strict=True)]


def fibonacci(length: int) -> list[int]:
    a, b = "a", "ab"
    while len(b) < length:
        a, b = b, b + a
    return list(b[:length].encode())


def thue_morse(length: int) -> list[int]:
    return [97 + bin(i).count("1") % 2 for i in range(length)]


def de_bruijn(alphabet: int, order: int) -> list[int]:
    """Every word of `order` symbols exactly once (cyclically): the standard Lyndon construction."""
    word = [0] * (alphabet * order)
    sequence: list[int] = []

    def extend(t: int, p: int) -> None:
        if t > order:
            if order % p == 0:
                sequence.extend(word[1 : p + 1])
            return
        word[t] = word[t - p]
        extend(t + 1, p)
        for j in range(word[t - p] + 1, alphabet):
            word[t] = j
            extend(t + 1, t)

    extend(1, 1)
    return sequence


def prose(length: int, seed: int) -> list[int]:
    """Words of a small vocabulary: repeats at all lengths, as language has."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(60)]
    text = ""
    while len(text) < length:
        text += rng.choice(words[: 1 + int(rng.expovariate(0.08))] or words) + rng.choice(
            [" ", " ", " ", ", ", ".\n"]
        )
    return list(text[:length].encode())


def _utf8() -> Corpus:
    texts = ["naïve café — “quoted” 漢字かな交じり文 🙂🙃🙂", "", "🙂", "ß" * 40, "Ünïcödé\n" * 5]
    return [list(t.encode()) for t in texts]


def _texts(*documents: bytes) -> Corpus:
    return [list(d) for d in documents]


CORPORA: dict[str, Callable[[], Corpus]] = {
    "alphabet-1": lambda: cut([7] * 300, 4, 1),
    "alphabet-2": lambda: cut(random_text(700, 2, 2, 97), 5, 2),
    "alphabet-3": lambda: cut(random_text(900, 3, 3, 97), 6, 3),
    "alphabet-26": lambda: cut(random_text(2000, 26, 4, 97), 9, 4),
    "alphabet-253": lambda: cut(random_text(3000, 253, 5), 7, 5),
    "alphabet-254": lambda: cut(random_text(3000, 254, 5), 7, 5),
    "alphabet-255": lambda: cut(random_text(3000, 255, 5), 7, 5),
    "alphabet-256": lambda: cut(random_text(4000, 256, 6), 8, 6),
    "all-equal": lambda: [[97] * 3000],
    "all-equal-lowest": lambda: [[0] * 500, [0] * 3],
    "all-equal-highest": lambda: [[255] * 500, [255] * 3],
    "periodic": lambda: [list(b"abcab" * 300), list(b"bcaba" * 50)],
    "fibonacci": lambda: [fibonacci(2000), fibonacci(377)],
    "thue-morse": lambda: [thue_morse(2048)],
    "de-bruijn": lambda: [de_bruijn(4, 5), de_bruijn(2, 9)],
    "prose": lambda: cut(prose(6000, 7), 12, 7),
    "prose-twice": lambda: cut(prose(3000, 8), 5, 8) * 2,
    "only-spaces-lowest": lambda: [
        list(b"one two three two one"),
        list(b"two  three"),
        [32],
        [32] * 9,
    ],
    "nul-and-ff": lambda: [
        list(b"a\x00b\x00\x00c"),
        list(b"\xff\xff\x00\xffa"),
        [0],
        [255],
        [0, 255],
    ],
    "lone-separators": lambda: [[], [], []],
    "empty-documents": lambda: [[], list(b"ab"), [], [], list(b"ab"), []],
    "one-empty-document": lambda: [[]],
    "one-byte": lambda: [[65]],
    "one-byte-documents": lambda: [[b] for b in b"abcabcaaab"] + [[0], [255]],
    "identical-documents": lambda: [list(b"the same text\n")] * 200,
    "prefixes": lambda: [list(b"abracadabra"[:i]) for i in range(12)],
    "suffixes": lambda: [list(b"abracadabra"[i:]) for i in range(12)],
    "utf-8": _utf8,
}


def recode(corpus: Corpus, width: int) -> Corpus:
    """The same corpus with symbols spread over 1-, 2- or 4-byte values, order kept."""
    if width == 1:
        return corpus
    scale = 257 if width == 2 else 16843009  # 255 becomes the largest value of the width
    return [[s * scale for s in d] for d in corpus]
