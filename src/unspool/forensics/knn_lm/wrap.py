"""A causal language model with a datastore mixed in: `generate`, beams, labels and all.

What: a hook catches the state of every position; the model's `forward` is wrapped so that its
logits come out as log-probabilities of the mixture.
Source: Khandelwal et al. (2020), equation 3, inside transformers.
Differs from neulab/knn-transformers: no list of model families; no floor under log-probabilities;
padding is not queried; and, as there, processors that follow (temperature, top-p, repetition)
act on the mixture and not on the model's own distribution.
Cost: a search a position; at a step of `generate` one a sequence. Shapes: logits [B, T, V] float32.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError
from unspool.forensics.knn_lm.datastore import Datastore
from unspool.forensics.knn_lm.mixture import Mixture, log_knn, mix, weight_of
from unspool.forensics.knn_lm.states import Capture, locate

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 512
"""Positions whose dense distributions are held at once."""


def wrap(
    model: Any,
    store: Datastore,
    mixture: Mixture | None = None,
    *,
    tokenizer: Any = None,
    **options: Any,
) -> KnnLM:
    """Mix a datastore into a model until `detach`.

    Args:
        model: The model that the datastore was built with.
        store: The datastore.
        mixture: How; or give its fields as keyword arguments (`k=`, `lam=`, `temperature=`).
        tokenizer: If given, checked against the datastore's.

    Returns:
        A handle; also a context manager that restores the model on exit.

    Raises:
        ConfigError: The datastore belongs to another model or tokenizer, or one is mixed in
            already.
    """
    if mixture is not None and options:
        raise ConfigError(f"Give either a mixture or {', '.join(options)}, not both.")
    return KnnLM(model, store, mixture or Mixture(**options), tokenizer)


def detach(lm: KnnLM) -> Any:
    """Take a datastore out of its model again, and give the model."""
    lm.detach()
    return lm.model


class KnnLM:
    """A model with a datastore mixed in. Made by `wrap`."""

    def __init__(self, model: Any, store: Datastore, mixture: Mixture, tokenizer: Any) -> None:
        if getattr(model.forward, "_unspool_knn", False):
            raise ConfigError("A datastore is mixed into this model already. Detach that first.")
        store.check_model(model, tokenizer)
        self.model, self.store, self.mixture = model, store, mixture
        self._capture = Capture(locate(model, store.layer)).__enter__()
        self._forward = model.forward
        self._own = "forward" in vars(model)
        wrapped = self._wrapped(model.forward)
        wrapped._unspool_knn = True  # type: ignore[attr-defined]  # a mark on a function
        model.forward = wrapped

    def __enter__(self) -> KnnLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def detach(self) -> None:
        """Put the model back as it was."""
        self._capture.__exit__()
        if getattr(self.model.forward, "_unspool_knn", False):
            if self._own:
                self.model.forward = self._forward
            else:
                del self.model.forward

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(forward)

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(signature.parameters, args, strict=False)), **kwargs}
            labels = given.pop("labels", None)
            tuples = given.pop("return_dict", None) is False
            out = forward(**given, return_dict=True)
            states = self._capture.take(len(out.logits))
            kept = given.get("logits_to_keep", 0)
            if not isinstance(kept, int):
                states = states[:, kept]
            elif kept:
                states = states[:, -kept:]
            real = _real(given.get("attention_mask"), kept, states)
            out.logits = self.mixed(out.logits, states, real)
            if labels is not None:
                count = given.get("num_items_in_batch")
                more = {} if count is None else {"num_items_in_batch": count}
                out.loss = self.model.loss_function(
                    logits=out.logits, labels=labels, vocab_size=out.logits.shape[-1], **more
                )
            return out.to_tuple() if tuples else out

        return run

    def mixed(self, logits: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """Log-probabilities of the mixture where `real`, the logits as they were elsewhere.

        Args:
            logits: [B, T, V].
            states: Of the same positions, [B, T, D].
            real: Which of them to mix, [B, T].
        """
        import torch

        if not len(self.store) or (not self.mixture.lams and self.mixture.lam == 0):
            return logits
        out = logits.float().clone()
        chosen = real.nonzero()
        for start in range(0, len(chosen), _ROWS):
            rows = chosen[start : start + _ROWS]
            at = (rows[:, 0], rows[:, 1])
            with torch.no_grad():
                found = self.store.neighbours(states[at], self.mixture.k)
                retrieved = log_knn(found, self.mixture.temperature, logits.shape[-1])
                lam = weight_of(found, self.mixture)
            out[at] = mix(torch.log_softmax(logits[at].float(), dim=-1), retrieved, lam)
        return out


def _real(mask: Tensor | None, kept: Any, states: Tensor) -> Tensor:
    """Positions of the logits that are not padding, [B, T]."""
    import torch

    real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    if mask is None or mask.ndim != 2:
        return real
    if not isinstance(kept, int):
        return mask[:, kept].bool()
    # With a cache the mask covers the tokens before, too: the new ones are its last columns.
    return mask[:, -states.shape[1] :].bool().clone()
