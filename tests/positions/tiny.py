"""Tiny random decoders with every layout of rotary positions."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            },
        },
    ),
    "phi3": ("Phi3", {}),
    "gpt_neox": ("GPTNeoX", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "cohere": ("Cohere", {}),  # interleaved pairs
}


def config(family: str, **changes: Any) -> Any:
    name, own = FAMILIES[family]
    kind = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    sizes = {**SIZES, **own, **changes}
    if name == "GPTNeoX":
        sizes.pop("num_key_value_heads")
    return getattr(transformers, kind)(**sizes)


def network(family: str, **changes: Any) -> Any:
    name, _ = FAMILIES[family]
    torch.manual_seed(3)
    return getattr(transformers, f"{name}ForCausalLM")(config(family, **changes)).eval()


def like(net: Any, family: str, **changes: Any) -> Any:
    """A plain model with the same weights and another configuration."""
    other = network(family, **changes)
    other.load_state_dict(net.state_dict())
    return other


def logits(net: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = net(ids, use_cache=False, **options).logits
    return out


def ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 64, (batch, length), generator=torch.Generator().manual_seed(seed))
