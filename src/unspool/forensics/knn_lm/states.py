"""The hidden state that stands for a context: what goes into the last feed-forward block.

What: finds the last decoder block of a causal language model and the module whose input (or output)
is the key of a datastore, and catches that tensor while the model runs.
Source: Khandelwal et al. (2020), section 2 and table 5: the input of the last layer's feed-forward
block, after its layer norm, is the best key.
Differs from neulab/knn-transformers, which lists the modules of four families: the block is found
by what it holds, and a model without such a module is refused with the names of what was there.
Cost: a hook that keeps one reference. Shapes: states [B, T, D].
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unspool.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Layer = Literal["ffn_input", "block_output"]
LAYERS: tuple[Layer, ...] = ("ffn_input", "block_output")
_FEED_FORWARD = ("mlp", "feed_forward", "feedforward", "ffn", "block_sparse_moe", "moe", "fc1")


class Place(NamedTuple):
    """The module that a key is taken from."""

    name: str
    module: Any
    layer: Layer


def locate(model: Any, layer: Layer = "ffn_input") -> Place:
    """Where the keys of a model are to be had.

    Raises:
        ConfigError: There is no such kind of layer, or the model has no module of that kind; the
            message names what it has.
    """
    import torch

    if layer not in LAYERS:
        raise ConfigError(f"layer must be one of {', '.join(LAYERS)}, got {layer!r}.")
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    count = getattr(config, "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
        and len(module) == count
        and "vision" not in name
        and "encoder" not in name.split(".")
    ]
    kind = type(model).__name__
    if not lists:
        raise ConfigError(
            f"{kind} has no list of {count} decoder blocks, so layer={layer!r} is not to be found."
        )
    name, blocks = lists[0]
    last = f"{name}.{len(blocks) - 1}"
    if layer == "block_output":
        return Place(last, blocks[-1], layer)
    children = dict(blocks[-1].named_children())
    for child in _FEED_FORWARD:
        if child in children:
            return Place(f"{last}.{child}", children[child], layer)
    raise ConfigError(
        f"{kind}: {last} has no feed-forward block called {', '.join(_FEED_FORWARD)}; it holds "
        f"{', '.join(children)}. Use layer='block_output'."
    )


class Capture:
    """Keeps the last state that a place saw; a context manager that removes its hook."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._seen: Any = None
        self._hook: Any = None

    def __enter__(self) -> Capture:
        module = self.place.module
        if self.place.layer == "ffn_input":

            def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._seen = args[0] if args else next(iter(kwargs.values()))

            self._hook = module.register_forward_pre_hook(before, with_kwargs=True)
        else:

            def after(_: Any, args: tuple[Any, ...], out: Any) -> None:
                self._seen = out[0] if isinstance(out, tuple) else out

            self._hook = module.register_forward_hook(after)
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._seen = None

    def take(self, batch: int) -> Tensor:
        """The states of the pass that just ended, [B, T, D] float32; forgets them.

        Raises:
            BackendError: The module was not run, or a state is not a number.
        """
        seen, self._seen = self._seen, None
        if seen is None:
            raise BackendError(f"{self.place.name} was not run by the model's forward pass.")
        states: Tensor = seen.detach().reshape(batch, -1, seen.shape[-1]).float()  # OPT flattens
        if not bool(states.isfinite().all()):
            raise BackendError(
                f"{self.place.name} gave a state that is not a finite number. Load the model with "
                f"dtype='float32'."
            )
        return states


def fingerprint(model: Any) -> str:
    """A hash that tells checkpoints apart and is the same in every floating-point type."""
    import torch

    found = hashlib.sha256()
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            found.update(f"{name}{tuple(weight.shape)}".encode())
            flat = weight.detach().reshape(-1)
            some = flat[:: max(1, flat.numel() // 64)][:64].to(torch.bfloat16).float().cpu()
            found.update(some.numpy().astype("<f4").tobytes())
    return found.hexdigest()[:16]


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of which id stands for which token."""
    table = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return hashlib.sha256(table).hexdigest()[:16]


def vocabulary_size(model: Any) -> int:
    """Columns of the model's logits."""
    return int(model.get_output_embeddings().weight.shape[0])
