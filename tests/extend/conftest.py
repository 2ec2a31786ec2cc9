"""Tiny random models of every family that `extend` is tested on."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

VOCABULARY = 131
WINDOW = 256
FAMILIES = ("llama", "qwen3", "gemma3", "mistral", "phi3", "gpt-neox")


@functools.cache
def build(family: str, window: int = WINDOW) -> Any:
    """A tiny random model; the same weights every time."""
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": window,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }
    if family == "gpt-neox":
        del shape["num_key_value_heads"]
        config = transformers.GPTNeoXConfig(**shape)
        return transformers.GPTNeoXForCausalLM(config).eval()
    if family == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()
    if family == "phi3":
        config = transformers.Phi3Config(**shape, partial_rotary_factor=0.5)
        return transformers.Phi3ForCausalLM(config).eval()
    shape["head_dim"] = 8
    if family == "qwen3":
        return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shape)).eval()
    if family == "mistral":
        config = transformers.MistralConfig(**shape, sliding_window=None)
        return transformers.MistralForCausalLM(config).eval()
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**shape, sliding_window=16, layer_types=kinds)
    return transformers.Gemma3ForCausalLM(config).eval()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> Any:
    return build(family)


@pytest.fixture
def llama() -> Any:
    return build("llama")


def tokens(batch: int, length: int, seed: int = 0) -> Any:
    """Random token ids that are no special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def left_padded(rows: list[int], seed: int = 0) -> tuple[Any, Any]:
    """A batch of rows of the given lengths, padded on the left, with its mask."""
    longest = max(rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, length in enumerate(rows):
        ids[number, longest - length :] = tokens(1, length, seed + number)[0]
        mask[number, longest - length :] = 1
    return ids, mask
