"""Padding-free execution: real tokens in one row, nothing computed for the padding between them.

`pack` and `unpack` work on any tensor; `PaddingFree` runs a transformers encoder (or trains a
decoder) on packed rows; `PackingCollator` makes batches that are packed already.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.padding_free.collate import PackingCollator as PackingCollator
    from unspool.attention.padding_free.method import PaddingFree as PaddingFree
    from unspool.attention.padding_free.packing import Packed as Packed
    from unspool.attention.padding_free.packing import pack as pack
    from unspool.attention.padding_free.packing import unpack as unpack
    from unspool.attention.padding_free.report import PaddingReport as PaddingReport
    from unspool.attention.padding_free.report import encoder_flops as encoder_flops
    from unspool.attention.padding_free.varlen import varlen_attend as varlen_attend

_LAZY = {
    "Packed": "unspool.attention.padding_free.packing",
    "PackingCollator": "unspool.attention.padding_free.collate",
    "PaddingFree": "unspool.attention.padding_free.method",
    "PaddingReport": "unspool.attention.padding_free.report",
    "encoder_flops": "unspool.attention.padding_free.report",
    "pack": "unspool.attention.padding_free.packing",
    "unpack": "unspool.attention.padding_free.packing",
    "varlen_attend": "unspool.attention.padding_free.varlen",
}

__all__ = [
    "Packed",
    "PackingCollator",
    "PaddingFree",
    "PaddingReport",
    "encoder_flops",
    "pack",
    "unpack",
    "varlen_attend",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
