"""A Longformer over one long text: time and memory by length, beside transformers' own.

Six layers of 384 with random weights (the size of all-MiniLM-L6-v2), a window of 512, the first
token global, float32. Memory is the peak of the process, a process a run.
"""

from __future__ import annotations

from typing import Any

from benchmarks.registry import Timed, benchmark, peer

TESTS = ("tests/models/test_long_encoder.py", "tests/models/test_long_encoder_checkpoint.py")
LENGTHS = (1024, 2048, 4096, 8192, 16384)


def _config() -> Any:
    from unspool.models.long_encoder import LongEncoderConfig

    return LongEncoderConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=max(LENGTHS) + 2,
    )


def _ids(tokens: int) -> Any:
    import torch

    return torch.randint(2, 30_000, (1, tokens), generator=torch.Generator().manual_seed(0))


@benchmark(
    "long-encoder",
    tests=TESTS,
    against=("transformers",),
    sweep={"tokens": LENGTHS},
    unit="s",
    fresh=True,
    runs=3,
)
def encode(tokens: int) -> Timed:
    """Seconds a text, on the common kernel."""
    import torch

    from unspool.models.long_encoder import LongEncoder

    torch.manual_seed(0)
    model, ids = LongEncoder(_config()).eval(), _ids(tokens)
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = 1

    def call() -> None:
        with torch.inference_mode():
            model(ids, global_attention_mask=is_global)

    with torch.inference_mode():  # kernels are loaded by the first call
        model(ids[:, :64], global_attention_mask=is_global[:, :64])
    return Timed(call)


@peer("long-encoder", "transformers", missing="transformers")
def encode_peer(tokens: int) -> Timed:
    """Seconds a text, LongformerModel of transformers."""
    import torch
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(0)
    model = LongformerModel(LongformerConfig(**_config().to_hf()), add_pooling_layer=False).eval()
    ids = _ids(tokens)
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = 1

    def call() -> None:
        with torch.inference_mode():
            model(ids, attention_mask=torch.ones_like(ids), global_attention_mask=is_global)

    with torch.inference_mode():
        model(ids[:, :64], global_attention_mask=is_global[:, :64])
    return Timed(call)
