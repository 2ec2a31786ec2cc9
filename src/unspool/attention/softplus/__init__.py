"""Softplus attention (LSSA) and its re-weighted form (LSSAR): attention without softmax.

`softplus_attention` works on tensors; `Softplus` puts it on a transformers decoder, to train one
from nothing or to load one that was trained so.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.softplus.function import softplus_attention as softplus_attention
    from unspool.attention.softplus.method import Softplus as Softplus
    from unspool.attention.softplus.reference import SoftplusConfig as SoftplusConfig

_LAZY = {
    "Softplus": "unspool.attention.softplus.method",
    "SoftplusConfig": "unspool.attention.softplus.reference",
    "softplus_attention": "unspool.attention.softplus.function",
}

__all__ = ["Softplus", "SoftplusConfig", "softplus_attention"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
