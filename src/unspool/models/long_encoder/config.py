"""Sizes and pattern of a long encoder, read from and written to a Hugging Face configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unspool.errors import ConfigError

Kind = Literal["longformer", "bigbird"]

_TYPES: dict[str, str] = {"longformer": "longformer", "bigbird": "big_bird"}
_SAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "type_vocab_size",
    "layer_norm_eps",
    "initializer_range",
    "pad_token_id",
    "max_position_embeddings",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LongEncoderConfig:
    """An encoder whose cost grows linearly with the length of the text."""

    kind: Kind = "longformer"
    """Pattern of attention: a sliding window with global tokens, or blocks with random ones."""
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    """gelu, gelu_new (its tanh form) or relu."""
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 4098
    """Rows of the position table. A Longformer starts at row pad_token_id + 1."""
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int = 1
    window: int | tuple[int, ...] = 512
    """Longformer: tokens of the window, even, half to each side; one for all layers or one each."""
    dilation: int | tuple[int, ...] = 1
    """Longformer: distance between neighbours in the window; one for all layers or one each."""
    block: int = 64
    """BigBird: tokens a block."""
    random_blocks: int = 3
    """BigBird: random blocks that each block of queries meets, beside window and global ones."""
    random_seed: int = 0
    """BigBird: of the random blocks, which every layer and head draws once for each length."""
    rescale_embeddings: bool = False
    """BigBird: word embeddings are multiplied by the root of their width."""
    use_bias: bool = True
    """BigBird: queries, keys and values have biases."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"kind must be longformer or bigbird, got {self.kind!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"{self.num_attention_heads} heads."
            )
        if self.kind == "longformer":
            for window in self.windows:
                if window < 2 or window % 2:
                    raise ConfigError(
                        f"window must be even and at least 2 (half to each side), got {window}; "
                        f"{max(2, window + window % 2)} works."
                    )
            if min(self.dilations) < 1:
                raise ConfigError(f"dilation must be at least 1, got {min(self.dilations)}.")
        elif self.block < 1 or self.random_blocks < 0:
            raise ConfigError(
                "A BigBird needs block >= 1 and random_blocks >= 0, got "
                f"block={self.block}, random_blocks={self.random_blocks}."
            )
        if self.max_length < 1:
            raise ConfigError(
                f"max_position_embeddings={self.max_position_embeddings} leaves no positions."
            )

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of each layer."""
        return self._each("window")

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of each layer."""
        return self._each("dilation")

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token takes."""
        return self.pad_token_id + 1 if self.kind == "longformer" else 0

    @property
    def max_length(self) -> int:
        """Tokens that there are positions for."""
        return self.max_position_embeddings - self.first_position

    @property
    def full_up_to(self) -> int:
        """Longest text that a BigBird reads with all pairs: no room for random blocks."""
        return (5 + 2 * self.random_blocks) * self.block

    def _each(self, name: str) -> tuple[int, ...]:
        value: int | tuple[int, ...] = getattr(self, name)
        if isinstance(value, int):
            return (value,) * self.num_hidden_layers
        if len(value) != self.num_hidden_layers:
            raise ConfigError(
                f"{name} has {len(value)} values for {self.num_hidden_layers} layers."
            )
        return tuple(value)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> LongEncoderConfig:
        """From the fields of a Longformer's or BigBird's config.json.

        Raises:
            ConfigError: The configuration is of another type of model, or of a decoder.
        """
        kinds: dict[str, Kind] = {"longformer": "longformer", "big_bird": "bigbird"}
        found = config.get("model_type")
        if found not in kinds:
            raise ConfigError(
                f"A long encoder is a longformer or big_bird, this is a {found!r}. "
                "A short BERT or RoBERTa becomes one by `unspool encoder convert`."
            )
        if config.get("is_decoder"):
            raise ConfigError("This BigBird is a decoder, and a long encoder is not one.")
        values: dict[str, Any] = {name: config[name] for name in _SAME if name in config}
        kind = kinds[found]
        if kind == "longformer":
            window = config.get("attention_window", 512)
            values["window"] = window if isinstance(window, int) else tuple(window)
            dilation = config.get("attention_dilation", 1)
            values["dilation"] = dilation if isinstance(dilation, int) else tuple(dilation)
        else:
            values["block"] = config.get("block_size", 64)
            values["random_blocks"] = config.get("num_random_blocks", 3)
            values["random_seed"] = config.get("random_seed", 0)
            values["rescale_embeddings"] = config.get("rescale_embeddings", False)
            values["use_bias"] = config.get("use_bias", True)
        return cls(kind=kind, **values)

    def to_hf(self) -> dict[str, Any]:
        """The fields of a config.json that transformers reads."""
        out: dict[str, Any] = {"model_type": _TYPES[self.kind]}
        out |= {name: getattr(self, name) for name in _SAME}
        if self.kind == "longformer":
            out["attention_window"] = list(self.windows)
            out["architectures"] = ["LongformerForMaskedLM"]
            if set(self.dilations) != {1}:
                out["attention_dilation"] = list(self.dilations)
        else:
            out |= {
                "architectures": ["BigBirdForMaskedLM"],
                "attention_type": "block_sparse",
                "block_size": self.block,
                "num_random_blocks": self.random_blocks,
                "random_seed": self.random_seed,
                "rescale_embeddings": self.rescale_embeddings,
                "use_bias": self.use_bias,
            }
        return out
