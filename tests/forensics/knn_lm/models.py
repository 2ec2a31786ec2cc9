"""Tiny models of several families, and a datastore with one of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.backends import tiny
from tests.extend.conftest import build as family_model
from unspool.forensics.knn_lm import Datastore, Reading, StoreSettings, build_store, encode
from unspool.forensics.knn_lm.windows import Tokens

FAMILIES = ("llama", "gemma3", "qwen3", "phi3", "gpt-neox", "gpt2", "opt")
TEXTS = (
    "The quick brown fox jumps over the lazy dog. To be, or not to be: 1 2 3 4! ",
    "A lazy dog is not a quick fox. The fox jumps: 4 3 2 1, and the dog is brown. ",
    "x",
    "To jump over a dog, or not to jump over a dog, is what the quick brown fox asks. " * 2,
)
READING = Reading(window=32, stride=16)


@cache
def model(family: str) -> Any:
    """A random causal language model of a family."""
    if family == "gpt2":
        return tiny.network("gpt2")
    if family == "opt":
        torch.manual_seed(0)
        config = transformers.OPTConfig(
            vocab_size=131,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            init_std=0.3,
        )
        return transformers.OPTForCausalLM(config).eval()
    return family_model(family)


@cache
def network() -> Any:
    """The tiny Llama that speaks the tiny tokenizer."""
    return tiny.network(window=256)


def tokens(texts: tuple[str, ...] = TEXTS) -> Tokens:
    return encode(tiny.tokenizer(), texts)


def store(folder: Path, **settings: Any) -> Datastore:
    """A datastore of TEXTS on the tiny Llama."""
    chosen = StoreSettings(reading=READING, **settings)
    built = build_store(network(), tiny.tokenizer(), tokens(), folder / "store", chosen, budget=64)
    built.prepare(probes=10_000)
    return built


def knn_by_hand(
    keys: np.ndarray, values: np.ndarray, query: np.ndarray, k: int, heat: float, size: int
) -> np.ndarray:
    """p_kNN of one query from the definition, in float64 loops."""
    distances = [
        (sum((float(a) - float(b)) ** 2 for a, b in zip(key, query, strict=True)), i)
        for i, key in enumerate(keys)
    ]
    nearest = sorted(distances)[:k]
    smallest = nearest[0][0]
    found = np.zeros(size)
    for distance, i in nearest:
        found[values[i]] += np.exp(-(distance - smallest) / heat)
    return found / found.sum()
