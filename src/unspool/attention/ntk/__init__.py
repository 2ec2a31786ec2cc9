"""A prefix of any length as two small tensors a head: its features, its algebra, its adapters.

`NTK` is the method that `extend` takes, `NTKAdapters` what is trained, saved and switched of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.ntk.adapters import NTKAdapters as NTKAdapters
    from unspool.attention.ntk.features import features as features
    from unspool.attention.ntk.method import NTK as NTK
    from unspool.attention.ntk.state import PrefixState as PrefixState
    from unspool.attention.ntk.state import add_prefix as add_prefix

_LAZY = {
    "NTK": "unspool.attention.ntk.method",
    "NTKAdapters": "unspool.attention.ntk.adapters",
    "PrefixState": "unspool.attention.ntk.state",
    "add_prefix": "unspool.attention.ntk.state",
    "features": "unspool.attention.ntk.features",
}

__all__ = ["NTK", "NTKAdapters", "PrefixState", "add_prefix", "features"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
