"""Position encodings, and how they stretch past the length a model was trained on."""

from unspool.positions.frequencies import Frequencies as Frequencies
from unspool.positions.frequencies import kinds as kinds
from unspool.positions.frequencies import rope_frequencies as rope_frequencies
from unspool.positions.frequencies import rope_parameters as rope_parameters
