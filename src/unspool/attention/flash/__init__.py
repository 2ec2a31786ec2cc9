"""FlashAttention: exact attention in tiles, dense or over block lists."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.attention.flash.io import IoReport as IoReport
    from unspool.attention.flash.io import io_report as io_report
    from unspool.attention.flash.method import Flash as Flash

_LAZY = {
    "Flash": "unspool.attention.flash.method",
    "IoReport": "unspool.attention.flash.io",
    "io_report": "unspool.attention.flash.io",
}

__all__ = ["Flash", "IoReport", "io_report"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
