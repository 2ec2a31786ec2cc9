"""Which layer of a model looks back from a question to its answer: found by planting facts.

What: plants a few made-up facts in excerpts of the text, asks for them, and takes the layer whose
best-scored tokens hold most of the fact.
Source: ours. The method's paper takes the last layer; in small models another one retrieves.
Differs from choosing by accuracy: nothing is generated, all layers are measured in one pass.
Cost: four passes over one chunk each, once a model; the result is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unspool._cache import cache_folder
from unspool.reading.reader import Reader, begins, encode, frame

if TYPE_CHECKING:
    from unspool.reading.infini_retri import InfiniRetri

_FACTS = (
    ("harbour office", "lantern", 0.1),
    ("northern mill", "cobalt", 0.35),
    ("botanist's garden", "walrus", 0.6),
    ("old observatory", "saffron", 0.85),
)
"""Place, word, and depth in the excerpt."""
_FACT = "\nThe password of the {place} is {word}.\n"
_QUESTION = "What is the password of the {place}?"
_BEST = 50
"""Best-scored tokens of which the fact should be part."""


def retrieval_layer(reader: Reader, method: InfiniRetri, ids: Sequence[int]) -> int:
    """The layer for this model, from the cache if it was found before."""
    place = cache_folder("layers", f"{_identity(reader, method)}.json")
    if place.is_file():
        try:
            known = json.loads(place.read_text(encoding="utf-8"))["layer"]
        except (ValueError, KeyError, TypeError):
            known = None  # damaged: found again below
        if known in reader.layers:
            return int(known)
    shares = layer_recalls(reader, method, ids)
    layer = max(shares, key=lambda number: (shares[number], number))
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=place.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as part:
        json.dump({"model": reader.facts.name, "layer": layer, "shares": shares}, part)
        part.flush()
        os.fsync(part.fileno())
    os.replace(part.name, place)
    return layer


def layer_recalls(reader: Reader, method: InfiniRetri, ids: Sequence[int]) -> dict[int, float]:
    """Mean share, by layer, of planted tokens among the best, plus as a tie-breaker their share of
    the score."""
    from unspool.reading.infini_retri import row_weights, token_scores

    layers = list(reader.layers)
    found = dict.fromkeys(layers, 0.0)
    for number, (place, word, depth) in enumerate(_FACTS):
        before, after = frame(reader.tokenizer, _QUESTION.format(place=place), None)
        head = begins(reader.tokenizer, encode(reader.tokenizer, before))
        tail = encode(reader.tokenizer, after)
        fact = encode(reader.tokenizer, _FACT.format(place=place, word=word))
        most = method.chunk
        if reader.facts.window is not None:
            most = min(most, reader.facts.window - len(head) - len(tail) - len(fact))
        start = (len(ids) - most) * number // len(_FACTS) if len(ids) > most else 0
        excerpt = list(ids[start : start + max(0, most)])
        at = round(depth * len(excerpt))
        words = [*excerpt[:at], *fact, *excerpt[at:]]
        end = len(head) + len(words)
        all_rows = reader.rows_of_layers([*head, *words, *tail], layers, end)
        for layer, rows in zip(layers, all_rows, strict=True):
            weights = row_weights(rows, end) if method.row_weights == "question" else None
            scores = token_scores(rows[:, len(head) : end], weights, method.span)
            best = scores.argsort(descending=True, stable=True)[:_BEST]
            hit = ((best >= at) & (best < at + len(fact))).sum()
            share = float(hit) / min(_BEST, len(fact))
            mass = float(scores[at : at + len(fact)].sum() / scores.sum().clamp(min=1e-30))
            found[layer] += (share + 0.01 * mass) / len(_FACTS)
    return found


def _identity(reader: Reader, method: InfiniRetri) -> str:
    """Of the weights, by a sample of them, and of the settings that scores depend on."""
    weight = reader.extension.model.get_input_embeddings().weight
    sample = weight[:: max(1, len(weight) // 64)].detach().float().cpu().numpy().tobytes()
    said = f"{reader.facts.name} {method.span} {method.row_weights} {method.chunk}"
    return hashlib.sha256(said.encode() + sample).hexdigest()[:24]
