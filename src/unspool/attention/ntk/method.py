"""NTK-Attention: a trained prefix of infinite length, at the cost of two small tensors a head.

What: plain attention, to which every query adds phi(q) Z over phi(q) kappa; only Z and kappa are
trained, in `Extension.module`, while the base stays frozen.
Source: Liang et al. (2024), "Toward Infinite-Long Prefix in Transformer", sections 3 and 4.
Differs from the released code: it starts as the base model (Z and kappa 0), unless asked to start
as released; a log-sum-exp in place of a largest score that may lie in the future; any decoder, any
kernel that gives a log-sum-exp, caches and padding included.
Cost: heads * (D^2 + D) parameters and O(T * D^2) a layer; no longer cache. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.attention.dense import Dense
from unspool.attention.ntk.features import Phi, features
from unspool.attention.ntk.state import FLOOR, add_prefix
from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    import contextlib

    from torch import Tensor, nn

    from unspool._facts import ModelFacts
    from unspool.attention.call import Call

Heads = Literal["query", "kv"]
Positive = Literal["abs", "softplus"]
Start = Literal["zero", "released"]


@dataclass(frozen=True, kw_only=True)
class NTK(Method):
    """A trained adapter in place of a long trained prefix; the base model stays as it is."""

    name: ClassVar[str] = "ntk"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("attend",)
    recalls: ClassVar[str] = "everything inside the window, and what its adapter was trained on"
    costs: ClassVar[str] = "dense attention and a product of width D^2 a head"
    trains: ClassVar[bool] = True
    needs_rotated: ClassVar[bool] = True
    system: ClassVar[str] = "ntk-attention"

    layers: str = "all"
    """all, full, last:N, first:N, even, odd, or numbers as 0-3,11."""
    adapter: str | None = None
    """Folder of a trained adapter; its own settings then count. None: an untrained one."""
    phi: Phi = "elu1"
    """Feature map: elu1, as released; taylor1 and taylor2, of 1 + D and 1 + D + D^2 features."""
    init: Start = "zero"
    """zero: starts as the base model; released: normal numbers over 10,000."""
    heads: Heads = "query"
    """Z and kappa for each query head, or for each key-value head."""
    positive: Positive = "abs"
    """What keeps kappa positive. Of elu1."""
    floor: float | int = FLOOR
    """Least log-sum-exp of a row that counts: higher tames first tokens."""
    dropout: float | int = 0.0
    """Share of features of a query that training leaves out."""
    freeze_base: bool = True
    """Take no gradients of the base model while installed."""
    seed: int = 0
    """Of the first numbers."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"ntk needs 0 <= dropout < 1, got dropout={self.dropout}.")
        if self.floor > 0:
            raise ConfigError(f"ntk needs floor <= 0, got floor={self.floor}.")

    def resolve(self, facts: ModelFacts) -> NTK:
        """With an adapter's own settings, which must fit the model."""
        if self.adapter is None:
            return self
        from unspool.attention.ntk.files import check_fit, read_header

        header = read_header(Path(self.adapter))
        check_fit(header, facts, Path(self.adapter))
        own = {key: header[key] for key in ("phi", "heads", "positive", "floor")}
        return replace(self, layers=",".join(map(str, header["layers"])), **own)

    def attend(self, facts: ModelFacts, layer: int) -> NTKAttend:
        return NTKAttend(self.phi, self.floor, self.dropout)

    def learned(self, facts: ModelFacts, layer: int) -> nn.Module:
        """The state of a layer, under the name "default"."""
        from unspool.attention.ntk.layer import NTKLayer

        made = NTKLayer(
            layer=layer,
            heads=facts.num_heads if self.heads == "query" else facts.num_kv_heads,
            head_dim=facts.head_dim,
            phi=self.phi,
            positive=self.positive,
        )
        if self.adapter is None:
            made.add("default", self.init, self.seed)
        else:
            from unspool.attention.ntk.files import read_layer

            made.put("default", *read_layer(Path(self.adapter), layer))
        made.active = "default"
        return made.to(facts.device)

    def changes(self, model: Any, undo: contextlib.ExitStack) -> None:
        """Freeze the base."""
        if self.freeze_base:
            for weight in model.parameters():
                undo.callback(weight.requires_grad_, weight.requires_grad)
                weight.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class NTKAttend:
    """Dense attention, and the prefix of the layer's active adapter."""

    phi: Phi
    floor: float | int = FLOOR
    dropout: float | int = 0.0
    late: bool = False
    reads_segments: bool = True

    def __call__(self, call: Call) -> Tensor:
        import torch

        from unspool.attention.ntk.layer import NTKLayer

        layer = call.learned
        state = layer.state() if isinstance(layer, NTKLayer) else None
        if state is None:
            return Dense()(call)
        out, lse = Dense().with_lse(call)
        with torch.autocast(call.q.device.type, enabled=False):  # sums of many features
            f = features(call.q, self.phi, call.scale)
            if self.dropout and call.phase == "train":
                f = torch.nn.functional.dropout(f, self.dropout)
            z, kappa = state
            return add_prefix(out, lse, f, z.to(f.dtype), kappa.to(f.dtype), floor=self.floor)
