"""HiP attention: the keys of each block of queries are found by a search in a tree.

`hip_attention` works on tensors, `HiP` is the method, `search` the search in plain PyTorch and
`kernel` the same in Triton, `stages` the successor's search, `recall` says how much of the true
attention a choice holds, and `count` what it costs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.hip.functional import HipResult as HipResult
    from unspool.attention.hip.functional import hip_attention as hip_attention
    from unspool.attention.hip.method import HiP as HiP
    from unspool.attention.hip.search import tree_search as tree_search

_LAZY = {
    "HiP": "unspool.attention.hip.method",
    "HipResult": "unspool.attention.hip.functional",
    "hip_attention": "unspool.attention.hip.functional",
    "tree_search": "unspool.attention.hip.search",
}

__all__ = ["HiP", "HipResult", "hip_attention", "tree_search"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
