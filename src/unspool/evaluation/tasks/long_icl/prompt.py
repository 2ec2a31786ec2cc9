"""Prompts of long in-context learning: an instruction, demonstrations, the test input, a cue.

What: the field lines of each data set, which the post-processing looks for, around any items.
Source: Li et al. (2024), arXiv 2404.02060, appendix; the field lines of the released scripts.
Differs from the release: the instruction is this project's wording; the field lines are the
release's, since they are what its scorer splits at.
Cost: linear in the demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unspool.evaluation.tasks.long_icl.score import CUES

_FORM = "Answer in exactly the form of the demonstrations, with a label that occurs in them."
INSTRUCTIONS: dict[str, str] = {
    "goemotion": f"Each demonstration is a comment and the emotion it shows. {_FORM}",
    "banking77": f"Each demonstration is a question to a bank and its intent. {_FORM}",
    "discovery": f"Each demonstration is two sentences and the connective between them. {_FORM}",
    "tacred": f"Each demonstration is a sentence with two entities and their relation. {_FORM}",
    "fewnerd": f"Each demonstration is a sentence and its entities with their types. {_FORM}",
    "dialogre": (
        "Each demonstration is a dialogue, pairs of entities in it, and the relation of each pair. "
        "Give as many relations as there are pairs. " + _FORM
    ),
    "label": f"Each demonstration is an input and its label. {_FORM}",
}
_INSTRUCT = " The labels are: {labels}."
_HEAD = "\n\nDemonstrations:\n"


def head(name: str, labels: Sequence[str] = ()) -> str:
    """What stands before the demonstrations; `labels` are listed if given."""
    listed = _INSTRUCT.format(labels=", ".join(labels)) if labels else ""
    return INSTRUCTIONS[name] + listed + _HEAD


def shown(name: str, item: Mapping[str, Any]) -> str:
    """The lines of an item up to where its label goes."""
    cue = CUES[name].label if name in CUES else ""
    if name == "goemotion":
        return f"comment: {item['text']}\n{cue} "
    if name == "banking77":
        return f"service query: {item['text']}\n{cue} "
    if name == "discovery":
        return f"{item['sentence1']} ( ) {item['sentence2']}\n{cue}  "
    if name == "tacred":
        pair = f"the subject is {item['subject_entity']} and the object is {item['object_entity']}"
        return f"sentence: {item['sentence']}\n{pair}\n{cue} "
    if name == "fewnerd":
        return f"Sentence: {item['sentence']}\n"
    if name == "dialogre":
        relations = item["relations"]
        pairs = ", ".join(str((r["subject_entity"], r["object_entity"])) for r in relations)
        count = len(relations)
        return (
            f"Dialogue: \n{item['dialogue']}\nThe list of {count} entity pairs are {pairs}\n"
            f"The {count} respective relations between each entity pair are: "
        )
    return f"input: {item['text']}\nlabel:"


def answered(name: str, item: Mapping[str, Any], label: str) -> str:
    """A whole demonstration."""
    if name == "fewnerd":
        entities = "".join(f"{e}: {kind}\n" for e, kind in item["entities"].items())
        return shown(name, item) + entities
    gap = " " if name == "label" else ""
    return f"{shown(name, item)}{gap}{label}\n"


def echoed(name: str, item: Mapping[str, Any]) -> str:
    """The part of a test input that post-processing looks for in a reply."""
    field = {
        "discovery": "sentence2",
        "tacred": "sentence",
        "fewnerd": "sentence",
        "dialogre": "dialogue",
    }.get(name, "text")
    return str(item[field])
