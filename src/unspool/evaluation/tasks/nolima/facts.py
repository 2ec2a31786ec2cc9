"""Pairs of a fact and a question that share no word: only knowledge of the world joins them.

Source: the idea is that of Modarressi et al. (2025), "NoLiMa", arXiv 2502.05167, section 3; the
pairs are our own.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A needle with `{name}`, and questions whose answer is that name."""

    needle: str
    turned: str
    """The same with the name at its end."""
    near: str
    """A question one step away."""
    far: str
    """A question two steps away."""
    literal: str
    """A question in the words of the needle, for comparison."""


FACTS = (
    Fact(
        "{name} keeps a small flat that looks out on the Eiffel Tower.",
        "The small flat that looks out on the Eiffel Tower is kept by {name}.",
        "Which character has lived in Paris?",
        "Which character has lived in France?",
        "Which character keeps a small flat that looks out on the Eiffel Tower?",
    ),
    Fact(
        "{name} sells postcards beside the Colosseum.",
        "The one who sells postcards beside the Colosseum is {name}.",
        "Which character works in Rome?",
        "Which character works in Italy?",
        "Which character sells postcards beside the Colosseum?",
    ),
    Fact(
        "{name} rows past the Little Mermaid statue at dawn.",
        "The one who rows past the Little Mermaid statue at dawn is {name}.",
        "Which character has been to Copenhagen?",
        "Which character has been to Denmark?",
        "Which character rows past the Little Mermaid statue at dawn?",
    ),
    Fact(
        "{name} sketches the Brandenburg Gate every autumn.",
        "The one who sketches the Brandenburg Gate every autumn is {name}.",
        "Which character spends time in Berlin?",
        "Which character spends time in Germany?",
        "Which character sketches the Brandenburg Gate every autumn?",
    ),
    Fact(
        "{name} feeds pigeons near the Sagrada Familia.",
        "The one who feeds pigeons near the Sagrada Familia is {name}.",
        "Which character resides in Barcelona?",
        "Which character resides in Spain?",
        "Which character feeds pigeons near the Sagrada Familia?",
    ),
    Fact(
        "{name} sweeps the steps of the Parthenon.",
        "The one who sweeps the steps of the Parthenon is {name}.",
        "Which character is employed in Athens?",
        "Which character is employed in Greece?",
        "Which character sweeps the steps of the Parthenon?",
    ),
    Fact(
        "{name} falls ill from a single slice of cheese.",
        "The one who falls ill from a single slice of cheese is {name}.",
        "Which character does not tolerate dairy?",
        "Which character cannot drink milk?",
        "Which character falls ill from a single slice of cheese?",
    ),
    Fact(
        "{name} has never touched bacon, fish or poultry.",
        "The one who has never touched bacon, fish or poultry is {name}.",
        "Which character does not eat meat?",
        "Which character would refuse a steak?",
        "Which character has never touched bacon, fish or poultry?",
    ),
    Fact(
        "{name} tunes the strings of a Stradivarius.",
        "The one who tunes the strings of a Stradivarius is {name}.",
        "Which character handles violins?",
        "Which character is at home in an orchestra?",
        "Which character tunes the strings of a Stradivarius?",
    ),
    Fact(
        "{name} sets broken bones at the infirmary.",
        "The one who sets broken bones at the infirmary is {name}.",
        "Which character practises medicine?",
        "Which character went to university to become a doctor?",
        "Which character sets broken bones at the infirmary?",
    ),
)
