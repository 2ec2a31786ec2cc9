"""Windows of 8,192 tokens, each out of one document: what models are trained and scored on whole.

Pages of the documentation of Rust, Java, libstdc++, Python and PostgreSQL, as they stand; every
tenth document is held out, and of the others at most ten windows each are taken.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

LENGTH = 8192
TRAINED, HELD = 560, 24
"""Windows kept."""
_PER_DOCUMENT = 10
_LEAST = 36_000
"""Characters of a document that may fill a window."""


def windows(folder: Path) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """(to train on, held out), [count, 8192] token ids of SmolLM2; made once."""
    path = folder / "windows.npz"
    if not path.exists():
        _write(path)
    with np.load(path) as file:
        return file["train"], file["held"]


def _write(path: Path) -> None:
    from claims._long import model_tokenizer
    from claims.data import corpus_docs200

    texts = []
    with corpus_docs200().open("rb") as lines:
        for line in lines:
            document = orjson.loads(line)
            twin = "/html/" in document["id"] and "python3.11" in document["id"]
            if len(document["text"]) >= _LEAST and not (twin and "_sources" not in document["id"]):
                texts.append(document["text"])
    random.Random("windows").shuffle(texts)
    tokenizer = model_tokenizer()
    train: list[list[int]] = []
    held: list[list[int]] = []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text[: 12 * LENGTH * 4]).ids
        most = 1 if number % 10 == 9 else _PER_DOCUMENT
        found = [ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH + 1, LENGTH)][:most]
        (held if number % 10 == 9 else train).extend(found)
        if len(train) >= TRAINED and len(held) >= HELD:
            break
    random.Random("order").shuffle(train)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        train=np.asarray(train[:TRAINED], dtype=np.uint16),
        held=np.asarray(held[:HELD], dtype=np.uint16),
    )
    partial.replace(path)
