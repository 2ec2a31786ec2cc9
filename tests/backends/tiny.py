"""Models of a few thousand weights and a byte-level tokenizer, made on the spot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from unspool.backends.transformers import TransformersModel

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "To be, or not to be: 1 2 3 4!"] * 20


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    return fast


def network(kind: str = "llama", window: int = 128) -> Any:
    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": window,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.6,  # large, so that the best token is not a matter of rounding
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    if kind == "sliding":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=5)).eval()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer()),
            n_embd=16,
            n_layer=2,
            n_head=4,
            n_positions=window,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.6,
        )
    ).eval()


def model(kind: str = "llama", window: int = 128) -> TransformersModel:
    return TransformersModel(network(kind, window), tokenizer(), name=f"tiny-{kind}@0")


def saved(folder: Path) -> Path:
    """The tiny model as a folder on disk."""
    network().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def full_logits(net: Any, ids: list[int]) -> torch.Tensor:
    """Logits of every position in one pass, without a cache, in float64."""
    with torch.no_grad():
        out = net.double()(torch.tensor([ids]), use_cache=False).logits[0]
    net.float()
    return out
