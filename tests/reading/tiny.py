"""A tokenizer of bytes and tiny random models that speak it."""

from __future__ import annotations

import functools
from typing import Any

BOS = 256


@functools.cache
def byte_tokenizer() -> Any:
    """Fast, with offsets; one token a byte, so some characters are several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


@functools.cache
def tiny(family: str = "llama", window: int = 512) -> Any:
    """A random model; the same weights every time."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": window,
        "pad_token_id": 258,
        "bos_token_id": BOS,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }
    if family == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**shape, sliding_window=16, layer_types=kinds)
    return transformers.Gemma3ForCausalLM(config).eval()


def plain(model: Any, prompt: str, count: int) -> str:
    """What the stock model writes after a prompt, by a loop without a cache."""
    import torch

    tokenizer = byte_tokenizer()
    ids = list(tokenizer.encode(prompt, add_special_tokens=False))
    start = len(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


TEXT = "\n\n".join(
    f"The {animal} of valley {part} eats {part * 7} kinds of grass – “naïvely”, 日本語 it sleeps."
    for part in range(3)
    for animal in ("heron", "otter", "badger", "marten", "plover")
)
QUESTION = "Where does the otter sleep?"
