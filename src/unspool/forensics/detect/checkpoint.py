"""A training step on disk: weights and the moments of AdamW, in one file that appears whole."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from unspool.errors import InputError
from unspool.index._files import write_atomic

STATE = "training.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(folder: Path, model: Any, optimiser: Any, done: int) -> None:
    """Keep the state after `done` steps."""
    from safetensors.torch import save as to_bytes

    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = value.detach().cpu().contiguous()
    write_atomic(folder / STATE, [to_bytes(tensors, metadata={"done": str(done)})])


def load(folder: Path, model: Any, optimiser: Any) -> int:
    """Put a kept state back; the number of steps it is after, 0 without one.

    Raises:
        InputError: The file is not a state of this model.
    """
    path = folder / STATE
    if not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            done = int((file.metadata() or {})["done"])
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        device = next(model.parameters()).device
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in held.items() if k.startswith("model.")}
        )
        for name, parameter in model.named_parameters():
            moments = {
                key: held[f"{key}.{name}"] if key == "step" else held[f"{key}.{name}"].to(device)
                for key in _MOMENTS
                if f"{key}.{name}" in held
            }
            if moments:
                optimiser.state[parameter] = moments
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{STATE} in {folder.name} cannot be read: {error}. Delete it to train from the "
            "beginning."
        ) from error
    return done


def remove(folder: Path) -> None:
    """Take the state away when it is no longer needed."""
    with contextlib.suppress(FileNotFoundError):
        (folder / STATE).unlink()
