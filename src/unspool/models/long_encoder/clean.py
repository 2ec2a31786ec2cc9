"""Take the placeholders of de-identified records out of a text.

What: `[**Name 12**]` (MIMIC-II and III), `___` (MIMIC-IV) and runs of rules and stars become one
blank; tags such as `<PHI TYPE="DOCTOR">…</PHI>` (i2b2) go and what they hold stays.
Source: Li et al. (2022), "Clinical-Longformer and Clinical-BigBird", section 3.1, which names the
step and not its rules; the rules are ours.
Differs from the paper: lower-casing is a setting of its own, since a cased tokenizer wants none.
Cost: one pass. Offsets of labels do not survive it: clean before labelling, or not at all.
"""

from __future__ import annotations

import re

_GONE = re.compile(
    r"\[\*\*.{0,200}?\*\*\]"  # MIMIC-II and III
    r"|</?PHI\b[^<>]{0,200}>"  # i2b2
    r"|_{3,}|={3,}|\*{3,}|-{4,}"  # MIMIC-IV, and rules between sections
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffd]",
    flags=re.DOTALL,
)
_BLANKS = re.compile(r"[ \t]{2,}")


def clean_record(text: str, *, lower: bool = False) -> str:
    """A record without placeholders and control characters, its lines as they were."""
    text = _BLANKS.sub(" ", _GONE.sub(" ", text))
    return text.lower() if lower else text
