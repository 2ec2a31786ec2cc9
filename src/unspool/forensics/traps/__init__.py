"""Sequences planted in a text that show whether a model was trained on it."""

from unspool.forensics.traps.decide import Decision as Decision
from unspool.forensics.traps.decide import decide as decide
from unspool.forensics.traps.generate import Pool as Pool
from unspool.forensics.traps.generate import PoolSettings as PoolSettings
from unspool.forensics.traps.generate import generate as generate
from unspool.forensics.traps.inject import find as find
from unspool.forensics.traps.inject import inject as inject
from unspool.forensics.traps.inject import inject_corpus as inject_corpus
from unspool.forensics.traps.inject import remove as remove
from unspool.forensics.traps.manifest import Manifest as Manifest
from unspool.forensics.traps.manifest import commitment as commitment
from unspool.forensics.traps.score import score as score
