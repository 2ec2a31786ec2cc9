"""The tokenizer of a GGUF file that keeps scores of pieces, and no list of merges.

What: a merge joins two pieces into a third, and comes the earlier the higher the third one's score;
every split of a piece into two others is such a merge.
Source: Kudo & Richardson (2018), "SentencePiece", section 3 (byte-pair encoding); the fields
`tokenizer.ggml.*` of the GGUF file format.
Differs from leaving it to transformers: 5.17 reads such a file into a tokenizer that loses its
merges when it is saved, and cuts every text into letters; 5.23 does not.
Cost: two seconds for the 262,144 pieces of Gemma.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unspool._optional import require

_CONTROL, _USER_DEFINED = 3, 4


def scored_tokenizer(path: Path) -> Any | None:
    """A transformers tokenizer of Gemma's kind; None: the file lists its merges.

    Raises:
        MissingExtra: The packages of `unspool[read]` are not installed.
    """
    gguf: Any = require("gguf", extra="read", purpose="Reading the embedded model's file")
    transformers = require("transformers", extra="read", purpose="The embedded model")
    from tokenizers import AddedToken, processors

    fields = gguf.GGUFReader(path).fields
    if "tokenizer.ggml.merges" in fields or "tokenizer.ggml.scores" not in fields:
        return None
    pieces, scores, types = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
    )
    # What the user defined (runs of spaces and line ends) goes before every learned piece; spaces
    # stand in the file as they are there, and the tokenizer writes each as a low line.
    for at, kind in enumerate(types):
        if kind == _USER_DEFINED:
            pieces[at], scores[at] = pieces[at].replace(" ", "▁"), float("inf")
    names = {
        f"{name}_token": pieces[int(fields[f"tokenizer.ggml.{field}_token_id"].contents())]
        for name, field in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    tokenizer = transformers.GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges_of(pieces, scores),
        **names,
    )
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        tokenizer.add_tokens(
            [
                AddedToken(piece, normalized=False, special=special)
                for piece, is_kind in zip(pieces, types, strict=True)
                if is_kind == kind and piece.strip("▁\n")
            ],
            special_tokens=special,
        )
    begin = names["bos_token"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, pieces.index(begin))],
    )
    return tokenizer


def merges_of(pieces: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Pairs of pieces in the order in which they are joined.

    Args:
        pieces: By number.
        scores: As many; of a piece that is joined from others, the higher the earlier.
    """
    number = {piece: at for at, piece in enumerate(pieces)}
    found: list[tuple[float, int, int, int]] = []
    for at, piece in enumerate(pieces):
        for cut in range(1, len(piece)):
            left, right = number.get(piece[:cut]), number.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[at], at, left, right))
    found.sort()
    return [(pieces[left], pieces[right]) for _, _, left, right in found]
