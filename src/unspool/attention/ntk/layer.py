"""What NTK-Attention learns of one layer: a state an adapter, one of which is in use.

Source: Liang et al. (2024), section 4; the released code's first numbers.
Shapes: z [H, width, D], kappa [H, width], float32 whatever the base model is in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unspool.attention.ntk.features import Phi, width
from unspool.errors import ConfigError

_START = 1e-4
_LOW = -12.0
"""Where softplus is as good as 0."""


class NTKLayer(nn.Module):
    """Adapters of a layer by name."""

    def __init__(
        self, *, layer: int, heads: int, head_dim: int, phi: Phi, positive: str = "abs"
    ) -> None:
        """Without any adapter.

        Args:
            layer: Its number.
            heads: Heads that have a state of their own.
            head_dim: Of keys and values.
            phi: The feature map.
            positive: "abs" or "softplus"; Taylor maps take kappa as it is.
        """
        super().__init__()
        self.layer = layer
        self.sizes = (heads, width(head_dim, phi), head_dim)
        self.positive = positive if phi == "elu1" else "none"
        self.z = nn.ParameterDict()
        self.kappa = nn.ParameterDict()
        self.active: str | None = None

    def add(self, name: str, init: str, seed: int) -> None:
        """An untrained adapter."""
        heads, features, head_dim = self.sizes
        z, kappa = torch.zeros(heads, features, head_dim), torch.zeros(heads, features)
        if init == "released":
            generator = torch.Generator().manual_seed(seed * 1_000_003 + self.layer)
            z = _START * torch.randn(z.shape, generator=generator)
            kappa = _START * torch.randn(kappa.shape, generator=generator)
        self._set(name, z, kappa + (_LOW if self.positive == "softplus" else 0.0))

    def put(self, name: str, z: Tensor, kappa: Tensor) -> None:
        """An adapter with the numbers of a file."""
        self._set(name, z.float(), kappa.float())

    def put_state(self, name: str, z: Tensor, kappa: Tensor) -> None:
        """An adapter that is the state of a prefix, kappa being as attention meets it."""
        heads = self.sizes[0]
        if heads % z.shape[0]:
            raise ConfigError(f"A state of {z.shape[0]} heads does not fit {heads} heads.")
        z = z.repeat_interleave(heads // z.shape[0], dim=0)
        kappa = kappa.repeat_interleave(heads // kappa.shape[0], dim=0).float()
        if self.positive == "softplus":  # its inverse, for large numbers and for small ones
            kappa = (kappa + torch.log(-torch.expm1(-kappa.clamp(min=1e-8)))).clamp(min=_LOW)
        self._set(name, z.float(), kappa)

    def state(self) -> tuple[Tensor, Tensor] | None:
        """Z, and kappa as attention meets it, of the adapter in use; None: none is."""
        if self.active is None:
            return None
        kappa = self.kappa[self.active]
        if self.positive == "softplus":
            kappa = nn.functional.softplus(kappa)
        elif self.positive == "abs":  # whose slope at 0 is 1 here, or kappa would never leave it
            kappa = torch.where(kappa >= 0, kappa, -kappa)
        return self.z[self.active], kappa

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        del self.z[name], self.kappa[name]
        self.active = None if self.active == name else self.active

    def _set(self, name: str, z: Tensor, kappa: Tensor) -> None:
        if z.shape != self.sizes or kappa.shape != self.sizes[:2]:
            raise ConfigError(
                f"Layer {self.layer} has states of {self.sizes}, and the adapter {name!r} brings "
                f"{tuple(z.shape)} and {tuple(kappa.shape)}: it was made for another model."
            )
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        self.z[name] = nn.Parameter(z.detach().clone().to(device))
        self.kappa[name] = nn.Parameter(kappa.detach().clone().to(device))
