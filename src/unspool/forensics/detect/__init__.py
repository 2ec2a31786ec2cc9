"""Tell machine text from human text, short texts included, with an error rate for each length."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.forensics.detect.cleaning import clean as clean
    from unspool.forensics.detect.detector import Detector as Detector
    from unspool.forensics.detect.detector import Score as Score
    from unspool.forensics.detect.examples import Example as Example
    from unspool.forensics.detect.examples import read_examples as read_examples
    from unspool.forensics.detect.loss import MPULoss as MPULoss
    from unspool.forensics.detect.metrics import evaluate as evaluate
    from unspool.forensics.detect.multiscaling import multiscale as multiscale
    from unspool.forensics.detect.prior import prior_table as prior_table
    from unspool.forensics.detect.settings import TrainSettings as TrainSettings
    from unspool.forensics.detect.training import train as train

_LAZY = {
    "Detector": "detector",
    "Example": "examples",
    "MPULoss": "loss",
    "Score": "detector",
    "TrainSettings": "settings",
    "clean": "cleaning",
    "evaluate": "metrics",
    "multiscale": "multiscaling",
    "prior_table": "prior",
    "read_examples": "examples",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
