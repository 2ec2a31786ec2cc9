"""How much of its training text a model gives back, and how sure the answer is."""

from importlib import import_module
from typing import TYPE_CHECKING

from unspool.forensics.extract.confidence import METHODS as METHODS
from unspool.forensics.extract.confidence import scores as scores
from unspool.forensics.extract.pairs import Pair as Pair
from unspool.forensics.extract.pairs import PairSet as PairSet
from unspool.forensics.extract.pairs import make_pairs as make_pairs
from unspool.forensics.extract.pairs import pairs_of_arrays as pairs_of_arrays
from unspool.forensics.extract.recite import probe as probe
from unspool.forensics.extract.recite import recited as recited
from unspool.forensics.extract.score import Extraction as Extraction
from unspool.forensics.extract.score import score as score
from unspool.forensics.extract.verify import verify as verify

if TYPE_CHECKING:
    from unspool.forensics.extract.asking import AttackSettings as AttackSettings
    from unspool.forensics.extract.asking import attack as attack
    from unspool.forensics.extract.prompt import SoftPrompt as SoftPrompt
    from unspool.forensics.extract.training import FitSettings as FitSettings
    from unspool.forensics.extract.training import fit as fit

_NEED_TORCH = {
    "AttackSettings": "asking",
    "attack": "asking",
    "FitSettings": "training",
    "fit": "training",
    "SoftPrompt": "prompt",
}


def __getattr__(name: str) -> object:
    if name in _NEED_TORCH:
        return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
