"""A soft prompt: vectors that stand before the text, the only thing that is trained.

Source: Zhang et al. (2023), "Ethicist", section 3; Lester et al. (2021), "The Power of Scale for
Parameter-Efficient Prompt Tuning". Saved as PEFT saves its prompt tuning (`adapter_config.json`
and `adapter_model.safetensors`), so that either loads the other's.
Differs from the released code: vectors are given as embeddings and never become tokens, so nothing
has to be banned from the output.
Cost: m * d numbers. Shapes: m vectors, d channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unspool.errors import BackendError, InputError, PathNotFound, Unsupported

_CONFIG, _WEIGHTS, _OURS = "adapter_config.json", "adapter_model.safetensors", "unspool.json"


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """Trained vectors and what they were trained on."""

    vectors: Float[Tensor, "m d"]
    base: str = ""
    """Name of the model that they are for."""
    trained_on: frozenset[str] = frozenset()
    """Digests of the prefixes that trained them; empty where it is not known."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Settings and losses by epoch."""

    @property
    def tokens(self) -> int:
        """How many vectors there are."""
        return len(self.vectors)

    def save(self, folder: str | Path) -> None:
        """Write the prompt as a PEFT checkpoint with one more file, `unspool.json`."""
        from safetensors.torch import save

        from unspool.index._files import canonical, storage, write_atomic

        place = Path(folder)
        config = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "inference_mode": True,
            "num_virtual_tokens": self.tokens,
            "token_dim": self.vectors.shape[1],
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
        }
        ours = {
            "format": 1,
            "base": self.base,
            "trained_on": sorted(self.trained_on),
            "notes": dict(self.notes),
        }
        weights = save({"prompt_embeddings": self.vectors.detach().float().cpu().contiguous()})
        with storage(place):
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / _WEIGHTS, [weights])
            write_atomic(place / _OURS, [canonical(ours)])
            write_atomic(place / _CONFIG, [canonical(config)])  # last: with it, it is whole

    @classmethod
    def load(cls, folder: str | Path) -> SoftPrompt:
        """Read a prompt that `save` or PEFT wrote.

        Raises:
            PathNotFound: There is no such folder, or no whole prompt in it.
            InputError: It holds another kind of adapter.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        place = Path(folder)
        if not (place / _CONFIG).is_file() or not (place / _WEIGHTS).is_file():
            raise PathNotFound(
                f"There is no prompt in {str(folder)!r}: {_CONFIG} and {_WEIGHTS} are needed. "
                f"'unspool audit extract fit' writes them."
            )
        config = _json(place / _CONFIG)
        if config.get("peft_type") != "PROMPT_TUNING":
            raise InputError(
                f"{place.name} holds an adapter of kind {config.get('peft_type')!r}, and only "
                f"PROMPT_TUNING can be used here."
            )
        try:
            vectors = load((place / _WEIGHTS).read_bytes())["prompt_embeddings"]
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{_WEIGHTS} in {place.name} holds no prompt: {error}.") from error
        if vectors.ndim != 2:
            raise InputError(f"The prompt in {place.name} has shape {tuple(vectors.shape)}.")
        ours = _json(place / _OURS) if (place / _OURS).is_file() else {}
        return cls(
            vectors.float(),
            str(ours.get("base") or config.get("base_model_name_or_path") or ""),
            frozenset(map(str, ours.get("trained_on", []))),
            dict(ours.get("notes", {})),
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path.name} is not a JSON object.")
    return found


def network_of(model: Any) -> Any:
    """The transformers model inside of a backend, or the model itself.

    Raises:
        Unsupported: There is none, as behind an endpoint.
    """
    from unspool.backends.transformers import TransformersModel

    if isinstance(model, TransformersModel):
        return model.model
    if isinstance(model, torch.nn.Module) and hasattr(model, "get_input_embeddings"):
        return model
    raise Unsupported(
        f"{getattr(model, 'name', type(model).__name__)} cannot be given a prompt of vectors or "
        f"sampled with its losses. Load the model here, or use 'unspool audit extract recite'."
    )


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """Say what to do where the device's memory is too small.

    Raises:
        BackendError: It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"{name} ran out of memory. Ask for a smaller batch; what is finished is kept where "
            f"there is an output."
        ) from error


def check_fits(network: Any, vectors: Tensor) -> None:
    """Refuse a prompt of another width than the model's.

    Raises:
        InputError: The widths differ.
    """
    width = network.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.long).to(network.device))
    if vectors.shape[1] != width.shape[-1]:
        raise InputError(
            f"The prompt has vectors of {vectors.shape[1]} numbers and the model takes "
            f"{width.shape[-1]}: it was trained for another model."
        )
