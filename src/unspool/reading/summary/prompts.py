"""The words in which a model is asked for a summary, by step. They are this project's own.

Source: the structure of the released prompts (Chang et al. 2023, appendix): material between rules,
the procedure, what to keep, chronological order, read as written in one go, the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

_KEEP = (
    "Keep what matters to the whole: events and facts, background, settings, the people or things "
    "it is about, what they aim at and why. Say who or what each is when it is first named. Where "
    "the text jumps in time, tell it in the order in which things happened. Write plain, connected "
    "sentences, as if all was written in one go; do not speak of parts, segments or summaries."
)
_LIMIT = "Use at most {words} words and end with a whole sentence."


@dataclass(frozen=True, slots=True)
class Templates:
    """One text a step. Fields in braces are filled in by `str.replace`, so other braces stay."""

    first: str = (
        "Below is one part of a long text.\n\n---\n{text}\n---\n\nParts are summarised one by one, "
        f"and the summaries are then merged into one. Summarise this part. {_KEEP} {_LIMIT}\n\n"
        "Summary:"
    )
    merge: str = (
        "Below are summaries of consecutive parts of a long text.\n\n---\n{text}\n---\n\nMerge "
        f"them into one summary. {_KEEP} {_LIMIT}\n\nSummary:"
    )
    merge_context: str = (
        "Below is a summary of what comes before in a long text.\n\n---\n{context}\n---\n\nBelow "
        "are summaries of the consecutive parts that follow.\n\n---\n{text}\n---\n\nMerge the "
        "latter into one summary that goes on from the former without repeating it. "
        f"{_KEEP} {_LIMIT}\n\nSummary:"
    )
    beginning: str = (
        "Below is the beginning of a long text.\n\n---\n{text}\n---\n\nThe text is read part by "
        f"part, and one summary is brought up to date after each. Summarise this beginning. {_KEEP}"
        "\n\nSummary:"
    )
    update: str = (
        "Below is the next part of a long text.\n\n---\n{text}\n---\n\nBelow is the summary of all "
        "that came before it.\n\n---\n{summary}\n---\n\nBring the summary up to date: put in what "
        f"is new and matters, where it belongs, and keep the rest. {_KEEP}\n\nUpdated summary:"
    )
    compress: str = (
        "Below is a summary of a long text so far. It has {has} words.\n\n---\n{summary}\n---\n\n"
        "Make it shorter, to about {words} words, by saying the same in fewer words and leaving "
        f"out what matters least. {_KEEP} Use about {{words}} words.\n\nShorter summary:"
    )


def plain() -> Templates:
    """The same steps in a sentence each, after the text, for models that lose a long request."""
    shorter = "\n\n---\nSummarise the text above in at most {words} words."
    return Templates(
        first="{text}" + shorter,
        merge="{text}" + shorter,
        merge_context="{text}" + shorter,
        beginning="{text}\n\n---\nSummarise the text above.",
        update="{summary}\n\n{text}\n\n---\nSummarise the text above.",
        compress="{summary}" + shorter,
    )


def fill(template: str, **fields: str | int) -> str:
    """A template with its fields; what stands in a field is never read as a field."""
    parts = [template]
    for name, value in fields.items():
        mark = f"{{{name}}}"
        filled: list[str] = []
        for i, part in enumerate(parts):
            if i % 2:  # a value that was put in before
                filled.append(part)
                continue
            for j, piece in enumerate(part.split(mark)):
                filled += [str(value), piece] if j else [piece]
        parts = filled
    return "".join(parts)
