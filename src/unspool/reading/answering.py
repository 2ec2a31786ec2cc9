"""The last step of every prompt method: generate from the prompt that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool._machine import peak_rss
from unspool.reading.long_text import LongText
from unspool.reading.support import rank_by_support, unsupported_words
from unspool.types import Answer, Passage, Usage

if TYPE_CHECKING:
    from unspool.reading.reader import Reader


def write(
    reader: Reader, ids: Sequence[int], *, max_new_tokens: int = 64, **options: Any
) -> tuple[str, int]:
    """What the model writes after a prompt, and how many tokens it is."""
    import torch

    extension = reader.extension
    options.setdefault("do_sample", False)
    prompt = torch.tensor([list(ids)], device=reader.facts.device)
    mask = torch.ones_like(prompt)
    with torch.inference_mode():
        out = extension.generate_plain(
            prompt, attention_mask=mask, max_new_tokens=max_new_tokens, **options
        )
    new = out[0, prompt.shape[1] :]
    reader.read_tokens += len(ids)
    text = str(reader.tokenizer.decode(new, skip_special_tokens=True)).strip()
    return text, int(new.shape[0])


def answer(
    reader: Reader,
    question: str,
    passages: Sequence[Passage],
    ids: Sequence[int],
    *,
    input_tokens: int,
    dropped_tokens: int,
    started: float,
    **options: Any,
) -> Answer:
    """Generate from the reduced prompt; evidence that supports the answer comes first."""
    text, written = write(reader, ids, **options)
    usage = Usage(
        input_tokens=input_tokens,
        read_tokens=reader.read_tokens,
        dropped_tokens=dropped_tokens,
        output_tokens=written,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_rss(),
    )
    evidence = rank_by_support(text, question, passages)
    return Answer(text, evidence, usage, unsupported_words(text, [p.span.text for p in passages]))


def token_offsets(tokenizer: Any, text: LongText) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of the whole text with the characters that each stands for."""
    made = tokenizer(
        text.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return list(made["input_ids"]), [(int(a), int(b)) for a, b in made["offset_mapping"]]
