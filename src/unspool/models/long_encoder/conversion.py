"""Make a long encoder of a short one, without training.

What: a BERT's or RoBERTa's weights under a Longformer's or BigBird's pattern, its position table
copied one behind the other until it is long enough, and the projections of global tokens started
as copies of the ordinary ones.
Source: Beltagy et al. (2020), "Longformer", section 5, as Li et al. (2022) build on it.
Differs from the released notebook: positions of BERT, which start at row 0, convert as well; any
length, not only multiples of the table.
Cost: one copy of the weights. A text whose pairs all lie within half a window (Longformer) or that
is too short for random blocks (BigBird) gives the short model's output; longer ones need training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError
from unspool.models.long_encoder.checkpoint import (
    Loaded,
    fill,
    folder_of,
    read_config,
    read_weights,
)
from unspool.models.long_encoder.config import Kind, LongEncoderConfig

if TYPE_CHECKING:
    from torch import Tensor

_SHORT = ("bert", "roberta", "xlm-roberta", "camembert")


def convert(
    short: str | Path,
    *,
    kind: Kind = "longformer",
    max_length: int = 4096,
    window: int = 512,
    block: int = 64,
    random_blocks: int = 3,
    seed: int = 0,
) -> Loaded:
    """A long encoder with the weights of a short one.

    Args:
        short: A folder with a BERT or RoBERTa, or its name on the Hugging Face Hub.
        kind: "longformer" or "bigbird".
        max_length: Tokens that the long encoder has positions for.
        window: Longformer: tokens of the window, even.
        block: BigBird: tokens a block.
        random_blocks: BigBird: random blocks a block of queries.
        seed: BigBird: of the random blocks; and of parameters that the short model lacks.

    Raises:
        ConfigError: The model is of another type, or a setting cannot work.
        InputError: Its files are damaged.
    """
    import torch

    from unspool.models.long_encoder.model import LongEncoder

    folder = folder_of(short)
    config = read_config(folder)
    found = config.get("model_type")
    if found not in _SHORT:
        raise ConfigError(
            f"convert makes a long encoder of {', '.join(_SHORT)}; {folder.name} is {found!r}."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ConfigError(
            f"{folder.name} has {config['position_embedding_type']} positions, not a table."
        )
    weights = read_weights(folder)
    pad = int(config.get("pad_token_id", 0 if found == "bert" else 1))
    skipped = 0 if found == "bert" else pad + 1
    settings: dict[str, Any] = {
        name: config[name]
        for name in (
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
        )
        if name in config
    }
    ahead = pad + 1 if kind == "longformer" else 0
    long = LongEncoderConfig(
        kind=kind,
        pad_token_id=pad,
        max_position_embeddings=max_length + ahead,
        window=window,
        block=block,
        random_blocks=random_blocks,
        random_seed=seed,
        **settings,
    )
    name = "embeddings.position_embeddings.weight"
    if name in weights:
        weights[name] = _lengthened(weights[name][skipped:], max_length, ahead)
    if kind == "longformer":
        for key in list(weights):
            for part in ("query", "key", "value"):
                if f".self.{part}." in key:
                    weights[key.replace(f".{part}.", f".{part}_global.")] = weights[key].clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LongEncoder(long)
    return fill(model, weights, str(folder))


def _lengthened(table: Tensor, length: int, ahead: int) -> Tensor:
    """Rows of a table one behind the other up to `length`, after `ahead` rows of zeros."""
    import torch

    copies = -(-length // table.shape[0])
    return torch.cat([table.new_zeros(ahead, table.shape[1]), table.repeat(copies, 1)[:length]])
