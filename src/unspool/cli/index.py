"""`unspool index`: build, describe and verify exact search indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import (
    emit_json,
    emit_table,
    human_bytes,
    human_number,
    human_seconds,
    message,
    progress,
)

app = App(name="index", help="Build, describe and verify exact search indexes.")


@app.command
def build(
    paths: Annotated[list[str], MAY_BE_DASH],
    /,
    *,
    out: Path,
    tier: Literal["fm", "sa", "both"] = "fm",
    alphabet: str = "bytes",
    memory: str = "8GiB",
    workers: int | None = None,
    engine: Literal["local", "ray", "slurm"] = "local",
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    text_field: str = "text",
    id_field: str = "id",
    sa_sample: int = 32,
    isa_sample: int = 64,
    shard_size: str | None = None,
    store_text: Literal["zstd"] | None = None,
    encoding_errors: Literal["strict", "replace"] = "strict",
    max_document: str = "1GiB",
    normalise: str | None = None,
    allow_lossy: bool = False,
    json: bool = False,
) -> None:
    """Build an index, or finish one that was interrupted: run the same command again.

    For example:

        unspool index build notes/ --out notes.idx

        unspool index build corpus.jsonl.zst --out corpus.idx --memory 4GiB --workers 2

        unspool index build docs/ --out docs.idx --alphabet tokenizer:tokenizer.json --tier both

    Args:
        paths: Files and folders (txt, md, html, jsonl, parquet, gz and zst of them), or - for
            standard input.
        out: Directory of the index: new, empty, or one that this build was begun in.
        tier: fm is small (about 0.4 of the text), sa is fast (about 5 times the text).
        alphabet: bytes, or tokenizer:NAME with a tokenizer.json file, its folder or a known name.
        memory: Most memory that all processes may hold together.
        workers: Processes; default: one a processor, if each has 512 MiB of the memory.
        engine: Local processes, or a cluster (pip install 'unspool[cluster]').
        include: Pattern of files that a walk of a folder reads, whatever their extension.
        exclude: Pattern of files and folders that it leaves out.
        text_field: Field of a record that holds its text.
        id_field: Field of a record that holds its id.
        sa_sample: fm tier: smaller finds places faster and takes more space.
        isa_sample: fm tier: smaller quotes text faster and takes more space.
        shard_size: Most bytes of text a shard; default: as memory and workers allow.
        store_text: Keep the text too, compressed, so that quoting it is faster.
        encoding_errors: replace takes bytes that are not UTF-8 as U+FFFD and counts them.
        max_document: Largest document.
        normalise: nfc, lower and space, joined by |: done to the texts and to every query.
        allow_lossy: Take documents that their tokens do not spell, and count them.
        json: Print one JSON object.
    """
    from unspool.index.build import build_index

    with _Bars(quiet=json) as bars:
        report = build_index(
            paths,
            out,
            tier=tier,
            alphabet=alphabet,
            memory=memory,
            workers=workers,
            engine=engine,
            include=include or (),
            exclude=exclude or (),
            text_field=text_field,
            id_field=id_field,
            sa_sample=sa_sample,
            isa_sample=isa_sample,
            shard_size=shard_size,
            store_text=store_text,
            encoding_errors=encoding_errors,
            max_document=max_document,
            normalise=normalise,
            allow_lossy=allow_lossy,
            progress=bars.update,
        )
    if json:
        emit_json(report)
        return
    rate = report.bytes_text / max(report.seconds, 1e-9)
    emit_table(
        ["", str(out)],
        [
            ("documents", human_number(report.documents)),
            ("symbols", human_number(report.symbols)),
            ("text", human_bytes(report.bytes_text)),
            ("index", f"{human_bytes(report.bytes_index)}{_share(report)}"),
            ("time", f"{human_seconds(report.seconds)} ({human_bytes(rate)}/s)"),
            ("peak memory", human_bytes(report.peak_bytes)),
        ],
    )
    for note in report.notes:
        message(note)


@app.command
def info(directory: Path, /, *, json: bool = False) -> None:
    """Say what an index holds and how it was built.

    For example:

        unspool index info notes.idx

    Args:
        directory: The index.
        json: Print one JSON object.
    """
    from unspool.index.open import open_index

    with open_index(directory) as index:
        held = index.info()
    if json:
        emit_json(held)
        return
    rows = [
        ("documents", human_number(held.documents)),
        ("symbols", f"{human_number(held.symbols)} ({held.alphabet})"),
        ("text", human_bytes(held.bytes_text)),
        ("index", f"{human_bytes(held.bytes_index)}{_share(held)}"),
        ("tiers", " and ".join(held.tiers)),
        ("shards", human_number(held.shards)),
        *((name.replace("_", "-"), str(value)) for name, value in held.settings.items() if value),
    ]
    if held.seconds is not None and held.peak_bytes is not None:
        rows.append(("built in", human_seconds(held.seconds)))
        rows.append(("peak memory", human_bytes(held.peak_bytes)))
    emit_table(["", str(directory)], rows)
    for note in held.notes:
        message(note)


@app.command
def verify(directory: Path, /, *, json: bool = False) -> int:
    """Read every byte of an index and compare it with its checksums; exit 1 if one is wrong.

    For example:

        unspool index verify notes.idx

    Args:
        directory: The index.
        json: Print one JSON object.
    """
    from unspool.index.open import verify_index

    errors = verify_index(directory)
    if json:
        emit_json({"ok": not errors, "errors": errors})
    elif errors:
        emit_table(["errors"], [(error,) for error in errors])
    else:
        emit_table(["", str(directory)], [("every byte", "is what was written")])
    return 1 if errors else 0


def _share(report: object) -> str:
    text, index = getattr(report, "bytes_text", 0), getattr(report, "bytes_index", 0)
    return f" ({index / text:.2f} of the text)" if text else ""


class _Bars:
    """One progress bar a stage of the build."""

    def __init__(self, *, quiet: bool) -> None:
        from contextlib import ExitStack

        self._quiet = quiet
        self._stage = ""
        self._stack = ExitStack()
        self._bar = self._stack.enter_context(progress("Building", quiet=True))

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def update(self, stage: str, done: int | float, total: int | float | None) -> None:
        whole = None if total is None else float(total)
        if stage != self._stage:
            self._stage = stage
            self._stack.close()
            self._bar = self._stack.enter_context(
                progress(stage.capitalize(), total=whole, unit="B", quiet=self._quiet)
            )
        self._bar.update(float(done), total=whole)
