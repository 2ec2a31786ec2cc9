"""Encoders of long texts: Longformer and BigBird, converted from short models or loaded."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.models.long_encoder.config import LongEncoderConfig as LongEncoderConfig
    from unspool.models.long_encoder.model import EncoderOutput as EncoderOutput
    from unspool.models.long_encoder.model import LongEncoder as LongEncoder

_LAZY = {
    "EncoderOutput": "unspool.models.long_encoder.model",
    "LongEncoder": "unspool.models.long_encoder.model",
    "LongEncoderConfig": "unspool.models.long_encoder.config",
}

__all__ = ["EncoderOutput", "LongEncoder", "LongEncoderConfig"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
