"""PaddingFree: a transformers model computes the real tokens of a padded batch, and nothing else.

What: the settings of a method for the slot `layout`; the handle that installs it is
`unspool.layout`.
Source: Zhai et al. (2022), "ByteTransformer", section 3.
Differs from the released code: any encoder (and any decoder in training) that goes through
transformers' attention interface, packed once for the whole model, with gradients; fused kernels
for bias, activation and LayerNorm come from `torch.compile`.
Cost: that of the real tokens. Shapes: hidden states [1, T, h] between embeddings and last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unspool.attention.padding_free.varlen import VarlenBackend
from unspool.errors import ConfigError
from unspool.methods import Method, Slot


@dataclass(frozen=True, kw_only=True)
class PaddingFree(Method):
    """Run padded batches without computing the padding."""

    name: ClassVar[str] = "padding-free"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("layout",)
    recalls: ClassVar[str] = "the same as the stock model: for encoders and for training"
    costs: ClassVar[str] = "the real tokens of a batch, not its padding"
    system: ClassVar[str] = "byte-transformer"

    layers: str = "all"
    """All layers: hidden states stay packed from the first to the last."""
    backend: VarlenBackend = "auto"
    """Attention inside sentences: auto, flash, triton, lengths or reference."""
    compile: bool = False
    """Fuse bias, activation and LayerNorm with torch.compile, and project queries, keys and values
    in one product: for GPUs."""
    graphs: bool = False
    """Compile, and replay a pass without gradients as one CUDA graph, in float16 or bfloat16."""
    multiple: int | None = None
    """Fill rows up to a multiple of this many tokens, so that few shapes occur; none: 128 when
    compiled, else 1."""

    def __post_init__(self) -> None:
        if self.layers != "all":
            raise ConfigError(
                f"{self.name} packs a batch for the whole model: layers must be all, got "
                f"{self.layers!r}."
            )
        if self.multiple is not None and self.multiple < 1:
            raise ConfigError(f"{self.name} needs multiple >= 1, got multiple={self.multiple}.")

    @property
    def fill(self) -> int:
        """Rows are filled up to a multiple of this."""
        return self.multiple or (128 if self.compile or self.graphs else 1)
