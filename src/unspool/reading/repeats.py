"""Leave out of an answer what it has said before: small models go on by repeating themselves.

What: sentences that stand earlier in the same answer are dropped, and so is a last, unfinished one
that only begins as an earlier one does. Nothing else is changed.
Source: greedy decoding runs into loops (Holtzman et al. 2020, arXiv 1904.09751).
Differs from a repetition penalty: the decoding is not touched, so words that must come twice do.
Cost: none to speak of.
"""

from __future__ import annotations

import re

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s)|\Z)\s*", re.DOTALL)


def without_repeats(answer: str) -> str:
    """The answer with each sentence once."""
    said: list[str] = []
    kept: list[str] = []
    pieces = _SENTENCE.findall(answer.strip())
    for number, piece in enumerate(pieces):
        words = " ".join(piece.split())
        unfinished = number == len(pieces) - 1 and words[-1:] not in ".!?"
        if words in said or (unfinished and any(s.startswith(words) for s in said)):
            continue
        said.append(words)
        kept.append(piece)
    return "".join(kept).strip()
