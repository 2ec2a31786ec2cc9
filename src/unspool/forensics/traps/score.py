"""How surprised a model is by traps and by controls that it cannot have read.

Source: Meeus et al. (2024), "Copyright Traps for Large Language Models", section 3.2 and 4.3;
Shi et al. (2023) for Min-K%.
Differs from the released code: both definitions of the ratio are given, `ratio` of perplexities and
`log_ratio` of their logarithms; Min-K% takes at least one token; sequences are scored alone, so no
padding enters a mean. Min-K%++ is left out: it needs whole distributions.
Cost: one pass a text and model. Each pair is on disk before the next is begun.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unspool.errors import ConfigError, InputError, RunConflict
from unspool.forensics._jsonl import appending
from unspool.forensics.traps.generate import _start
from unspool.forensics.traps.manifest import Manifest, Planted, commitment
from unspool.types import LanguageModel

METHODS = ("ratio", "log_ratio", "loss", "min_k")
"""In each, a lower score speaks for having been read."""


def score(
    target: LanguageModel,
    reference: LanguageModel | None,
    manifest: Manifest,
    *,
    out: str | Path | None = None,
    context: int = 0,
    documents: dict[str, str] | None = None,
    min_k: int | float = 0.2,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Score every pair; with `out`, go on where a run was stopped.

    Args:
        target: The model that may have read the traps.
        reference: One that cannot; best the one that drew them. None: no ratios.
        manifest: What was planted.
        out: A JSON lines file that scores are appended to.
        context: Score trap and control behind so many tokens of the document before one copy.
        documents: For a context: the published texts by id.
        min_k: Share of the least likely tokens that Min-K% averages.
        on_progress: Called with pairs done and pairs in all.

    Returns:
        A record a pair: id, length, bucket, repeat, and under `trap` and `control` a score by
        method.

    Raises:
        ConfigError: A setting has a value that cannot work.
        InputError: A context was asked for and its document is not given or was changed.
        RunConflict: `out` was begun with other models or another manifest.
    """
    if not 0 < min_k <= 1 or context < 0:
        raise ConfigError(f"min_k must be in (0, 1] and context >= 0, got {min_k} and {context}.")
    if target.tokenizer is None and context:
        raise ConfigError(f"{target.name} has no tokenizer here, so context cannot be counted.")
    run = {
        "target": target.name,
        "reference": reference.name if reference else None,
        "commitment": commitment(manifest),
        "context": context,
        "min_k": min_k,
    }

    def one(planted: Planted) -> dict[str, Any]:
        before = _before(planted, documents or {}, manifest.where, context)
        sides = {}
        for side, text in (("trap", planted.trap), ("control", planted.control)):
            mine = _logprobs(target, before, text, context)
            theirs = _logprobs(reference, before, text, context) if reference else None
            sides[side] = scores(mine, theirs, min_k)
        pair = planted.pair
        return {
            "id": pair.id,
            "length": pair.length,
            "bucket": pair.bucket,
            "repeat": planted.repeat,
            **sides,
        }

    total = len(manifest.planted)
    if out is None:
        found = []
        for number, planted in enumerate(manifest.planted):
            found.append(one(planted))
            on_progress(number + 1, total)
        return found
    with appending(Path(out)) as (held, append):
        if not held:
            append(run)
        elif held[0] != run:
            changed = sorted(k for k in run if held[0].get(k) != run[k])
            raise RunConflict(
                f"{Path(out).name} was begun with another {', '.join(changed)}. Choose another "
                f"file, or the same settings."
            )
        done = {record["id"]: record for record in held[1:]}
        for number, planted in enumerate(manifest.planted):
            if planted.pair.id not in done:
                done[planted.pair.id] = one(planted)
                append(done[planted.pair.id])
            on_progress(number + 1, total)
    return [done[planted.pair.id] for planted in manifest.planted]


def scores(
    target: Sequence[float], reference: Sequence[float] | None, min_k: int | float
) -> dict[str, float]:
    """Scores of one text from its tokens' log-probabilities under either model."""
    loss = -math.fsum(target) / len(target)
    fewest = sorted(target)[: max(1, int(min_k * len(target)))]
    found = {"loss": loss, "min_k": -math.fsum(fewest) / len(fewest)}
    if reference is not None:
        other = -math.fsum(reference) / len(reference)
        found["ratio"] = math.exp(max(-700.0, min(700.0, loss - other)))
        # A text that the reference is certain of has no ratio of losses.
        found["log_ratio"] = loss / max(other, 1e-9)
    return found


def _logprobs(model: LanguageModel, before: str, text: str, context: int) -> tuple[float, ...]:
    if before and model.tokenizer is not None:
        from unspool._overflow import shorten

        ids = list(model.tokenizer(before, add_special_tokens=False).input_ids)
        before = str(model.tokenizer.decode(shorten(ids, context, keep="tail").ids))
    found = model.logprobs(before or _start(model.tokenizer), [text])[0].per_token
    if not found:
        raise InputError(f"{model.name} sees no tokens in the text {text[:40]!r}.")
    return found


def _before(planted: Planted, documents: dict[str, str], where: str, context: int) -> str:
    """The document before its middle copy, earlier copies taken out; "" without a context."""
    if not context or not planted.offsets:
        return ""
    if planted.document not in documents:
        raise InputError(
            f"A context needs the published document {planted.document!r}. Give the documents."
        )
    raw, piece = documents[planted.document].encode(), planted.inserted.encode()
    chosen = len(planted.offsets) // 2
    parts, last = [], 0
    for offset in planted.offsets[: chosen + 1]:
        if raw[offset : offset + len(piece)] != piece:
            raise InputError(
                f"There is no trap at byte {offset} of {planted.document!r}: it was changed."
            )
        parts.append(raw[last:offset])
        last = offset + len(piece)
    return b"".join(parts).decode()
