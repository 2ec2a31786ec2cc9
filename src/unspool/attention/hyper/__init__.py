"""HyperAttention: large entries by hashing, the rest by sampling, in near-linear time.

`hyper_attention` works on tensors; `HyperAttention` is the method of `extend`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.hyper.functional import hyper_attention as hyper_attention
    from unspool.attention.hyper.method import HyperAttention as HyperAttention

_LAZY = {
    "HyperAttention": "unspool.attention.hyper.method",
    "hyper_attention": "unspool.attention.hyper.functional",
}

__all__ = ["HyperAttention", "hyper_attention"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
