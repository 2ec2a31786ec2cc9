"""Attention mechanisms, and the one exact kernel that they all stand on.

`attend` computes one rectangle of (query, key) pairs, `merge` joins disjoint rectangles by their
log-sum-exp, `mass` sums probabilities per key in a second pass.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.kernel import attend as attend
    from unspool.attention.kernel import mass as mass
    from unspool.attention.kernel import merge as merge
    from unspool.attention.spec import Spec as Spec

_LAZY = {
    "Spec": "unspool.attention.spec",
    "attend": "unspool.attention.kernel",
    "mass": "unspool.attention.kernel",
    "merge": "unspool.attention.kernel",
}

__all__ = ["Spec", "attend", "mass", "merge"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
