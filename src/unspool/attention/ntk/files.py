"""A saved adapter: `adapter_config.json` and `adapter_model.safetensors` in a folder.

The names are those that PEFT gives its files. The configuration holds the size and the SHA-256 of
the tensors and is written last, so a torn or foreign file is an error and never a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts

_FORMAT = 1
_TENSORS = "adapter_model.safetensors"
_HEADER = "adapter_config.json"
_KEYS = {"phi", "heads", "positive", "floor", "layers", "num_states", "head_dim", "bytes", "sha256"}


def write_adapter(
    directory: Path, header: dict[str, Any], states: dict[int, tuple[Tensor, Tensor]]
) -> Path:
    """Write an adapter; one that is there is replaced.

    Raises:
        ConfigError: The folder holds a configuration of something else.
    """
    from safetensors.torch import save

    directory.mkdir(parents=True, exist_ok=True)
    if (directory / _HEADER).exists():
        try:
            read_header(directory)
        except InputError as error:
            raise ConfigError(
                f"{directory} holds another adapter: choose another folder."
            ) from error
    named = {}
    for layer, (z, kappa) in states.items():
        named[f"layers.{layer}.z"] = z.detach().cpu().contiguous()
        named[f"layers.{layer}.kappa"] = kappa.detach().cpu().contiguous()
    data = save(named)
    whole = {
        **header,
        "peft_type": "UNSPOOL_NTK",
        "format": _FORMAT,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    _replace(directory / _TENSORS, data)
    _replace(directory / _HEADER, (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())
    return directory


def read_header(directory: Path) -> dict[str, Any]:
    """The configuration of a saved adapter.

    Raises:
        InputError: There is none, or it is of another kind.
    """
    try:
        header = json.loads((directory / _HEADER).read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} holds no adapter: there is no {_HEADER} in it. "
            f"NTKAdapters(…).save(folder) writes one."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{directory} holds no adapter: {error}.") from error
    if not isinstance(header, dict) or header.get("peft_type") != "UNSPOOL_NTK":
        raise InputError(f"{directory} holds an adapter, but not one of NTK-Attention.")
    if header.get("format") != _FORMAT or _KEYS - set(header):
        raise InputError(
            f"{directory / _HEADER} is of format {header.get('format')!r} or lacks "
            f"{', '.join(sorted(_KEYS - set(header))) or 'nothing'}; this version reads {_FORMAT}."
        )
    return header


def check_fit(header: dict[str, Any], facts: ModelFacts, directory: Path) -> None:
    """Refuse an adapter of a model with other heads or fewer layers."""
    states = facts.num_heads if header["heads"] == "query" else facts.num_kv_heads
    ours = (facts.head_dim, states)
    if ours != (header["head_dim"], header["num_states"]):
        raise ConfigError(
            f"The adapter in {directory} is for heads of {header['head_dim']} channels, "
            f"{header['num_states']} a layer; {facts.name} has heads of {ours[0]}, {ours[1]} a "
            f"layer."
        )
    if header["layers"] and max(header["layers"]) >= facts.num_layers:
        raise ConfigError(
            f"The adapter in {directory} has a state for layer {max(header['layers'])}; "
            f"{facts.name} has {facts.num_layers} layers."
        )


def read_layer(directory: Path, layer: int) -> tuple[Tensor, Tensor]:
    """Z and kappa of a layer.

    Raises:
        InputError: The file is missing or damaged, or lacks the layer.
    """
    from safetensors.torch import load

    header = read_header(directory)
    path = directory / _TENSORS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) != header["bytes"] or hashlib.sha256(data).hexdigest() != header["sha256"]:
        raise InputError(f"{path} is damaged: its checksum differs. Save the adapter again.")
    named = load(data)
    try:
        return named[f"layers.{layer}.z"], named[f"layers.{layer}.kappa"]
    except KeyError as error:
        raise InputError(f"{path} lacks layer {layer}. Save the adapter again.") from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
