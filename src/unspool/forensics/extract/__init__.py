"""How much of its training text a model gives back, and how sure the answer is."""

from importlib import import_module
from typing import TYPE_CHECKING

from unspool.forensics.extract.confidence import METHODS as METHODS
from unspool.forensics.extract.confidence import scores as scores
from unspool.forensics.extract.pairs import Pair as Pair
from unspool.forensics.extract.pairs import PairSet as PairSet
from unspool.forensics.extract.pairs import make_pairs as make_pairs
from unspool.forensics.extract.pairs import pairs_of_arrays as pairs_of_arrays
from unspool.forensics.extract.score import Extraction as Extraction
from unspool.forensics.extract.score import score as score

if TYPE_CHECKING:
    from unspool.forensics.extract.asking import AttackSettings as AttackSettings
    from unspool.forensics.extract.asking import attack as attack
    from unspool.forensics.extract.lookup import verify as verify
    from unspool.forensics.extract.prompt import SoftPrompt as SoftPrompt
    from unspool.forensics.extract.recite import ProbeSettings as ProbeSettings
    from unspool.forensics.extract.recite import probe as probe
    from unspool.forensics.extract.recite import recited as recited
    from unspool.forensics.extract.training import FitSettings as FitSettings
    from unspool.forensics.extract.training import fit as fit

# Asking needs torch and no index, scoring neither, looking up an index and no torch.
_LAZY = {
    "AttackSettings": "asking",
    "attack": "asking",
    "verify": "lookup",
    "SoftPrompt": "prompt",
    "ProbeSettings": "recite",
    "probe": "recite",
    "recited": "recite",
    "FitSettings": "training",
    "fit": "training",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
