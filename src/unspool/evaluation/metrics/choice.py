"""Labels and numbers found in an answer: classification, paragraph retrieval, counting.

Source: LongBench `metrics.py`.
Differs from the released code: a reference without the number it must hold is an error that says so
(there: an IndexError). The list of labels is pruned while it is walked, as there: a removal makes
the walk skip the next label.
Cost: O(labels * length).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unspool.errors import InputError

_NUMBERS = re.compile(r"\d+")
_PARAGRAPH = {"en": re.compile(r"Paragraph (\d+)"), "zh": re.compile(r"段落(\d+)")}


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """1 / number of labels found in the prediction if the right one is among them, else 0.

    Labels that are part of the right one are struck out first.

    Raises:
        InputError: There are no labels.
    """
    if not classes:
        raise InputError("Classification needs the list of labels ('all_classes'), got none.")
    found = [label for label in classes if label in prediction]
    place = 0
    while place < len(found):
        label = found[place]
        if label in reference and label != reference:
            found.remove(label)  # the next label moves to this place and is passed over
        place += 1
    return 1.0 / len(found) if reference in found else 0.0


def count(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that are the right one; 0 if there is none."""
    numbers = _NUMBERS.findall(prediction)
    return numbers.count(str(reference)) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str, language: str = "en") -> float:
    """As `count`, for the number that follows the word for paragraph in the reference.

    Raises:
        InputError: The reference names no paragraph.
    """
    match = _PARAGRAPH[language].search(reference)
    if match is None:
        word = "Paragraph N" if language == "en" else "段落N"
        raise InputError(f"A retrieval reference must hold '{word}', got {reference!r}.")
    return count(prediction, match[1])
