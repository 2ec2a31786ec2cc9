"""Keep a training run on disk, so that the same call goes on where one stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import InputError, RunConflict
from unspool.evaluation._io import write_atomic

if TYPE_CHECKING:
    from torch import nn


def store(
    path: Path, model: nn.Module, named: Mapping[str, Any], optimizer: Any, facts: Mapping[str, str]
) -> None:
    """Write weights, the optimizer's moments of the named parameters, and facts, atomically."""
    from safetensors.torch import save

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in named.items():
        state = optimizer.state.get(parameter)
        if state:
            tensors[f"mean.{name}"] = state["exp_avg"]
            tensors[f"square.{name}"] = state["exp_avg_sq"]
    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(path, [save(flat, metadata=dict(facts))])


def restore(
    path: Path,
    model: nn.Module,
    named: Mapping[str, Any],
    optimizer: Any,
    key: Mapping[str, str],
    steps: int,
) -> int:
    """Steps that were done before, after putting everything back as it was.

    Raises:
        InputError: The file is damaged.
        RunConflict: It is of a run that differs in something of `key`.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}. Delete it to start anew.") from error
    for name, value in key.items():
        if facts.get(name) != value:
            raise RunConflict(
                f"{path.parent} holds a run with other {name}. Continue it with the same ones, or "
                "choose another folder."
            )
    done = int(facts["step"])
    model.load_state_dict(
        {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
    )
    for name, parameter in named.items():
        if f"mean.{name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(done)),
                "exp_avg": tensors[f"mean.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"square.{name}"].to(parameter.device),
            }
    return min(done, steps)


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: up in a line, then down to 0 in another."""
    return min((step + 1) / max(1, warmup), 1.0) * (steps - step) / steps
