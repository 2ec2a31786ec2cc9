"""Softplus: a decoder that attends by LSSA or LSSAR, trained so from nothing or loaded so.

What: the settings of a method for the slot `attend`, and the mechanism on a layer's cache.
Source: Gao & Spratling (2025), second version; as `reference`.
Differs from the paper: any decoder that `extend` takes, with rotary positions as it has them; the
number of keys that a query sees leaves padding out, also while writing.
Cost: as exact attention; a cache that grows with the text. Shapes: as `Call`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.attention.softplus.function import Backend, attend_softplus
from unspool.attention.softplus.reference import SoftplusConfig
from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.attention.call import Call


@dataclass(frozen=True, kw_only=True)
class Softplus(Method):
    """Attention without softmax, for models that are trained with it."""

    name: ClassVar[str] = "softplus"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("attend",)
    recalls: ClassVar[str] = "everything, in a model that was trained with it"
    costs: ClassVar[str] = "as dense; the model has to be trained with it"
    trains: ClassVar[bool] = True
    system: ClassVar[str] = "softplus-attention"

    layers: str = "all"
    """All layers, sliding ones too: a model is trained with one formula."""
    reweight: bool = True
    """The second stage (LSSAR); false is LSSA."""
    p: int | float = 15
    """Power of the re-weighting."""
    offset: int | float = 1
    """Subtracted before the power: 1 is the level of equal weights."""
    scaling: Literal["log", "log-n", "plain"] = "log"
    """Factor on the scores: log(D) log(n) / sqrt(D), log(n) / sqrt(D) or 1 / sqrt(D)."""
    phi: Literal["softplus", "exp", "relu", "sigmoid"] = "softplus"
    """What makes scores positive."""
    backend: Backend = "auto"
    """auto, reference or triton."""

    def __post_init__(self) -> None:
        self.config()

    def config(self) -> SoftplusConfig:
        """The settings of the formula."""
        return SoftplusConfig(
            p=self.p,
            offset=self.offset,
            scale=self.scaling,
            phi=self.phi,
            reweight=self.reweight,
        )

    def prepare(self, model: Any, tokenizer: Any) -> Method:
        """Warn if the weights come from somewhere, and nothing says that this trained them."""
        said = getattr(model.config, "unspool_method", None)
        origin: str = getattr(model.config, "_name_or_path", "")
        if said is None and origin:
            warnings.warn(
                f"{origin} does not say that it was trained with softplus "
                f"attention. In a model trained with softmax it makes the loss explode: train the "
                f"model with it, or use another method.",
                stacklevel=2,
            )
        return self

    def capacity(self, facts: ModelFacts) -> int | None:
        return None

    def attend(self, facts: ModelFacts, layer: int) -> SoftplusAttend:
        return SoftplusAttend(self.config(), self.backend)


@dataclass(frozen=True, slots=True)
class SoftplusAttend:
    """The mechanism on a layer."""

    config: SoftplusConfig
    backend: Backend = "auto"
    late: bool = False
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        q, k, v, spec, padded = call.q, call.k, call.v, call.spec, call.positions is not None
        at_k = call.positions
        if call.store is not None:
            segments = list(call.store.segments())
            if len(segments) != 1:
                raise ConfigError(
                    f"Softplus attention reads its keys in one piece, and layer {call.layer} holds "
                    f"{len(segments)}."
                )
            k, v, at_k = segments[0].k, segments[0].v, segments[0].where()
            padded = padded or segments[0].positions is not None
        if spec.mask is None and padded:
            spec = replace(spec, q_positions=call.where(), k_positions=at_k)
        return attend_softplus(q, k, v, spec=spec, config=self.config, backend=self.backend)
