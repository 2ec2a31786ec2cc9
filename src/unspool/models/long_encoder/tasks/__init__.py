"""Tasks of long encoders: tags, answers, classes and inference, over records of any length."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.models.long_encoder.tasks.examples import Answer as Answer
    from unspool.models.long_encoder.tasks.examples import Example as Example
    from unspool.models.long_encoder.tasks.fitting import FitSettings as FitSettings
    from unspool.models.long_encoder.tasks.fitting import Fitted as Fitted
    from unspool.models.long_encoder.tasks.fitting import fit as fit
    from unspool.models.long_encoder.tasks.heads import TaskModel as TaskModel
    from unspool.models.long_encoder.tasks.predicting import Prediction as Prediction
    from unspool.models.long_encoder.tasks.predicting import predict as predict
    from unspool.models.long_encoder.tasks.readers import read_examples as read_examples
    from unspool.models.long_encoder.tasks.scores import Scores as Scores
    from unspool.models.long_encoder.tasks.scores import evaluate as evaluate
    from unspool.models.long_encoder.tasks.windows import Reading as Reading

_ROOM = "unspool.models.long_encoder.tasks"
_LAZY = {
    "Answer": f"{_ROOM}.examples",
    "Example": f"{_ROOM}.examples",
    "FitSettings": f"{_ROOM}.fitting",
    "Fitted": f"{_ROOM}.fitting",
    "Prediction": f"{_ROOM}.predicting",
    "Reading": f"{_ROOM}.windows",
    "Scores": f"{_ROOM}.scores",
    "TaskModel": f"{_ROOM}.heads",
    "evaluate": f"{_ROOM}.scores",
    "fit": f"{_ROOM}.fitting",
    "predict": f"{_ROOM}.predicting",
    "read_examples": f"{_ROOM}.readers",
}

__all__ = [
    "Answer",
    "Example",
    "FitSettings",
    "Fitted",
    "Prediction",
    "Reading",
    "Scores",
    "TaskModel",
    "evaluate",
    "fit",
    "predict",
    "read_examples",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
