"""Queries cut from a corpus, bent, or made up."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence


def patterns(documents: Sequence[Sequence[int]], number: int, seed: int) -> list[list[int]]:
    """Pieces of the documents of all lengths, pieces with one symbol changed, random words, words
    that cross two documents, symbols beside the alphabet, and the empty query."""
    rng = random.Random(seed)
    alphabet = sorted({s for d in documents for s in d})
    full = [d for d in documents if d]
    made: list[list[int]] = [[]]
    if not full:
        return [*made, [0], [97], [0, 0]]
    for symbol in {alphabet[0], alphabet[-1], rng.choice(alphabet)}:
        made += [[symbol], [symbol] * 2, [symbol] * 5]
    missing = [s for s in (0, 1, 9, 127, 254, 255) if s not in set(alphabet)]
    made += [[s] for s in missing]
    made += [[alphabet[0], s, alphabet[-1]] for s in missing]
    made += [list(full[0]), list(full[-1]), [*full[0], full[0][0]]]
    for a, b in itertools.pairwise(full):
        made.append([*a[-3:], *b[:3]])
    while len(made) < number:
        document = rng.choice(full)
        start = rng.randrange(len(document))
        length = rng.choice([1, 1, 2, 2, 3, 4, 6, 9, 17, 33, 64, 130])
        piece = list(document[start : start + length])
        kind = rng.random()
        if kind < 0.25:
            piece[rng.randrange(len(piece))] = rng.choice(alphabet)
        elif kind < 0.35:
            piece = [rng.choice(alphabet) for _ in range(rng.randint(1, 5))]
        made.append(piece)
    return made


def prompts(documents: Sequence[Sequence[int]], number: int, seed: int) -> list[list[int]]:
    """Texts joined from pieces of the corpus with strange symbols between some of them."""
    rng = random.Random(seed)
    made: list[list[int]] = [[], [3], [200, 201]]
    full = [d for d in documents if d] or [[97]]
    for _ in range(number):
        text: list[int] = []
        for _ in range(rng.randint(1, 4)):
            document = rng.choice(full)
            start = rng.randrange(len(document))
            text += document[start : start + rng.choice([1, 3, 8, 25])]
            if rng.random() < 0.2:
                text.append(rng.choice([0, 5, 200, 255]))
        made.append(text[:90])
    return made
