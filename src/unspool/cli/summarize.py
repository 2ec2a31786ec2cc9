"""`unspool summarize`: one summary of texts of any length, with the passages it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import (
    emit_json,
    emit_text,
    human_number,
    human_seconds,
    message,
    printable,
)
from unspool.errors import InputError, PathNotFound

if TYPE_CHECKING:
    from unspool.reading.summarize import Summary

_EXAMPLES = """
The whole text is read, part by part. With --out, every answer is kept, and the same command goes on
where it was stopped. For example:

    unspool summarize book.txt --out summary/

    unspool summarize minutes/ --workflow incremental --max-summary 400

    unspool summarize book.txt --dry-run

    unspool summarize book.txt --model Qwen/Qwen3-0.6B --json

    unspool summarize book.txt --endpoint http://localhost:8000/v1
"""

app = App(
    name="summarize",
    help="Summarise texts of any length, with evidence.",
    usage="Usage: unspool summarize [OPTIONS] PATH…",
    help_epilogue=_EXAMPLES,
)


@app.default
def summarize(
    *paths: Annotated[str, MAY_BE_DASH],
    workflow: Literal["hierarchical", "incremental"] = "hierarchical",
    model: str | None = None,
    endpoint: str | None = None,
    chunk_size: int | None = None,
    max_summary: int | None = None,
    quoted: float | None = None,
    window: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    passages: int = 1,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Summarise files and folders of any length, with evidence.

    Args:
        paths: Files, folders, or - for standard input; read in order, as one text.
        workflow: hierarchical merges summaries of parts level by level; incremental brings one
            summary up to date part by part, which keeps more detail and is less coherent.
        model: A Hugging Face id, a folder with a model, or the name that the endpoint serves.
            Default: SmolLM2-135M-Instruct, which comes with the package.
        endpoint: An OpenAI-compatible server, such as http://localhost:8000/v1. Its key is taken
            from UNSPOOL_API_KEY or OPENAI_API_KEY.
        chunk_size: Most tokens of a part. Default: 2,048, and 1,024 for models of under a billion
            parameters.
        max_summary: Most tokens of the summary. Default: 900, and 320 for small models.
        quoted: Least share of a sentence's words that must stand in the text in runs of three;
            other sentences give way to central ones of the text. 0 lets the model say it in words
            of its own. Default: 0, and 0.8 for small models, which make things up.
        window: Most tokens of a prompt and its answer. Default: the model's window.
        seed: Of the sampling.
        out: Folder that keeps every answer: an interrupted run goes on from there.
        passages: Passages to quote below each sentence; --json has all of them.
        dry_run: Print the number of calls and tokens, and ask nothing.
        json: Print one JSON object.
    """
    from unspool.cli.ask import bars
    from unspool.reading.summarize import plan_summary
    from unspool.reading.summarize import summarize as summarise_texts

    if not paths:
        raise InputError("Say what to summarise: unspool summarize PATH…")
    for path in paths:
        if path != "-" and not Path(path).exists():
            raise PathNotFound(f"There is no file or folder {path!r}. Check the path.")
    given = {"chunk_size": chunk_size, "max_summary": max_summary, "quoted": quoted}
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    changes["workflow"] = workflow
    if dry_run:
        plan = plan_summary(
            paths,
            model=model,
            endpoint=endpoint,
            window=window,
            **changes,
        )
        if json:
            emit_json(plan)
            return
        emit_text(
            f"{human_number(plan.chunks)} parts, {human_number(plan.calls)} calls, at most "
            f"{human_number(plan.read_tokens)} tokens read and "
            f"{human_number(plan.output_tokens)} written, if every answer is valid"
        )
        return
    with bars(quiet=json) as shown:
        made = summarise_texts(
            paths,
            model=model,
            endpoint=endpoint,
            window=window,
            out=out,
            progress=shown,
            seed=seed,
            **changes,
        )
    if json:
        emit_json(made)
    else:
        _show(made, passages)


def _show(made: Summary, passages: int) -> None:
    emit_text(made.text or "(The model wrote nothing.)")
    number = 0
    for sentence in made.sentences:
        for passage in sentence.evidence[: max(0, passages)]:
            number += 1
            span = passage.span
            name = printable(span.document, one_line=True)
            emit_text(f"\n[{number}] {name}, bytes {span.start:,}-{span.end:,}")
            emit_text(f"    {printable(span.text, one_line=True)}")
    without = sum(not sentence.evidence for sentence in made.sentences)
    if without:
        emit_text(
            f"\n{without} of {len(made.sentences)} sentences share no three words in a row with "
            f"the text."
        )
    usage = made.usage
    emit_text(
        f"\n{human_number(usage.input_tokens)} tokens in {human_number(len(made.chunks))} parts, "
        f"all of them read; {human_number(made.calls)} calls read "
        f"{human_number(usage.read_tokens)} and wrote {human_number(usage.output_tokens)}, "
        f"{human_seconds(usage.seconds)}"
    )
    if made.filled:
        message(
            f"{human_number(made.filled)} sentences on the way are the text's own, in place of the "
            f"model's. A larger model (--model, --endpoint) writes more of it itself."
        )
    if made.invalid:
        message(
            f"{made.invalid} of {len(made.tree)} summaries on the way are too long or end badly; "
            f"they were taken after the last try."
        )
    if made.replayed:
        message(f"{made.replayed} calls were answered before and not asked again.")
