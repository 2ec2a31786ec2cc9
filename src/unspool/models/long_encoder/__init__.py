"""Encoders of long texts: Longformer and BigBird, converted from short models or loaded."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.models.long_encoder.checkpoint import Loaded as Loaded
    from unspool.models.long_encoder.checkpoint import load as load
    from unspool.models.long_encoder.checkpoint import save as save
    from unspool.models.long_encoder.config import LongEncoderConfig as LongEncoderConfig
    from unspool.models.long_encoder.conversion import convert as convert
    from unspool.models.long_encoder.model import EncoderOutput as EncoderOutput
    from unspool.models.long_encoder.model import LongEncoder as LongEncoder

_LAZY = {
    "EncoderOutput": "unspool.models.long_encoder.model",
    "Loaded": "unspool.models.long_encoder.checkpoint",
    "LongEncoder": "unspool.models.long_encoder.model",
    "LongEncoderConfig": "unspool.models.long_encoder.config",
    "convert": "unspool.models.long_encoder.conversion",
    "load": "unspool.models.long_encoder.checkpoint",
    "save": "unspool.models.long_encoder.checkpoint",
}

__all__ = ["EncoderOutput", "Loaded", "LongEncoder", "LongEncoderConfig", "convert", "load", "save"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
