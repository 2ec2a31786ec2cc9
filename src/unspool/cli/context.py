"""`unspool context`: read a text once, keep what the model made of it, ask it many questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import (
    emit_json,
    emit_text,
    human_bytes,
    human_number,
    human_seconds,
    message,
    printable,
)

if TYPE_CHECKING:
    from unspool.reading.context import ContextInfo

app = App(name="context", help="Read a text once and keep it for many questions.")


@app.command
def save(
    paths: Annotated[list[str], MAY_BE_DASH],
    /,
    *,
    out: Path,
    model: str | None = None,
    method: str = "squeezed",
    json: bool = False,
) -> None:
    """Read files and folders once, and keep what the model made of them.

    For example:

        unspool context save handbook.txt --out handbook.ctx

        unspool ask --context handbook.ctx "Who may open the archive?"

        unspool context save manual.md --out manual.ctx --method squeezed:keep=0.125,levels=2

    Args:
        paths: Files and folders (txt, md, html, jsonl, parquet, gz and zst of them), or - for
            standard input. Together they must fit the model's window.
        out: New directory, or a saved context that is replaced.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        method: How the context is kept: squeezed, squeezed:keep=0.125, infllm, snapkv+think, …
            See 'unspool list methods'.
        json: Print one JSON object.
    """
    from unspool.cli.ask import bars
    from unspool.reading.context import save_context

    with bars(quiet=json) as shown:
        info = save_context(paths, out, model=model, method=method, progress=shown)
    if json:
        emit_json({**info.to_json(), "out": str(out)})
        return
    message(
        f"{human_number(info.tokens)} tokens kept in {human_bytes(info.bytes)}, "
        f"{human_seconds(info.seconds)}"
    )
    emit_text(str(out))


@app.command
def info(directory: Path, /, *, verify: bool = False, json: bool = False) -> int:
    """Say what a saved context holds.

    Args:
        directory: Of the context.
        verify: Read every byte and compare the checksum; exit code 1 if it differs.
        json: Print one JSON object.
    """
    from unspool.reading.context import context_info

    found = context_info(directory, verify=verify)
    if json:
        emit_json(found)
    else:
        _show(found)
    return 1 if found.sound is False else 0


def _show(found: ContextInfo) -> None:
    emit_text(f"model      {found.model}")
    emit_text(f"method     {found.method}")
    emit_text(f"tokens     {human_number(found.tokens)}")
    emit_text(f"size       {human_bytes(found.bytes)}")
    names = [printable(name, one_line=True) for name in found.documents[:10]]
    more = len(found.documents) - len(names)
    emit_text(f"documents  {', '.join(names)}{f' and {more} more' if more > 0 else ''}")
    if found.sound is not None:
        said = "every byte is what was written" if found.sound else "DAMAGED: save it again"
        emit_text(f"checked    {said}")
