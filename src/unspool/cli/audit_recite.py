"""`unspool audit extract recite`: which passages of an index a model recites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.cli._output import emit_json, emit_table, human_number, message, progress
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.index.engine import Index

_LISTED = 20


def recite(
    outputs: list[str] | None = None,
    /,
    *,
    index: tuple[Path, ...] = (),
    model: str | None = None,
    endpoint: str | None = None,
    passages: int = 100,
    prefix: int = 200,
    suffix: int = 200,
    max_tokens: int = 100,
    min_length: int = 100,
    out: Path | None = None,
    seed: int = 0,
    show: bool = False,
    json: bool = False,
) -> None:
    """Find passages of an index that a model recites; nothing is trained.

    With texts, no model is run: the longest pieces of them that the corpus holds are listed.
    Without, passages are drawn from the index, the model sees the first part of each, and what it
    says is compared with how the passage goes on.

    Args:
        outputs: Files or folders with texts that a model wrote.
        index: An index of bytes; may be given several times.
        model: A Hugging Face id, a folder, or a name at the endpoint. Default:
            SmolLM2-135M-Instruct.
        endpoint: Base address of an OpenAI-compatible server.
        passages: How many are drawn.
        prefix: Bytes that are shown.
        suffix: Bytes that are asked for.
        max_tokens: Most tokens of an answer.
        min_length: With texts: fewest bytes of a piece.
        out: Without texts: rows, JSON lines; the same command goes on after a stop.
        seed: Of the passages.
        show: Show the passages.
        json: Print one JSON object a piece or passage, then one with the totals.
    """
    from unspool.index.open import open_index

    if not index:
        raise ConfigError("Say in which index to look: --index DIR, as often as there are.")
    if outputs and (model or endpoint or out):
        raise ConfigError("Texts are looked up without a model: leave --model and --out away.")
    with open_index(list(index)) as opened:
        if outputs:
            _pieces(outputs, opened, min_length, show, json)
            return
        from unspool.backends.load import load_model
        from unspool.forensics.extract.recite import ProbeSettings, probe, summary

        settings = ProbeSettings(
            passages=passages, prefix=prefix, suffix=suffix, max_tokens=max_tokens, seed=seed
        )
        loaded = load_model(model, endpoint=endpoint)
        with progress("Asking", unit="passages", quiet=json) as bar:
            rows = probe(
                loaded,
                opened,
                settings,
                out=out,
                on_progress=lambda done, total: bar.update(done, total=total),
            )
    totals = summary(rows)
    if json:
        hidden = () if show else ("text", "shown", "answer")
        for row in rows:
            emit_json({k: v for k, v in row.items() if k not in hidden})
        emit_json(totals)
        return
    ordered = sorted(rows, key=lambda r: (-r["agreed"], r["document"], r["start"]))[:_LISTED]
    emit_table(
        ("document", "from byte", "agreed bytes", "longest in the index", "passage"),
        (
            [r["document"], human_number(r["start"]), r["agreed"], r["longest"], _text(r, show)]
            for r in ordered
        ),
        title=f"The {len(ordered)} of {len(rows)} passages that agree longest",
        right=("from byte", "agreed bytes", "longest in the index"),
    )
    message(
        f"{totals['recited']:.1%} of {totals['passages']} passages were recited to the end; on "
        f"average {totals['agreed_mean']:.1f} bytes of {suffix} agree; {totals['short']} answers "
        f"ended while they agreed"
    )


def _text(row: dict[str, Any], show: bool) -> str:
    return str(row["text"]) if show else f"hidden, {row['end'] - row['start']} bytes"


def _pieces(paths: list[str], index: Index, min_length: int, show: bool, json: bool) -> None:
    from unspool.corpus.readers import read_documents
    from unspool.forensics.extract.recite import recited

    outputs = list(read_documents(paths))
    found = recited(outputs, index, min_length=min_length)
    total = {
        "outputs": len(outputs),
        "reciting": len({piece.output for piece in found}),
        "pieces": len(found),
        "bytes": sum(piece.end - piece.start for piece in found),
    }
    if json:
        for piece in found:
            row = piece.to_json()
            if not show:
                del row["text"]
                row["sources"] = [
                    {k: v for k, v in source.items() if k != "text"} for source in row["sources"]
                ]
            emit_json(row)
        emit_json(total)
        return
    emit_table(
        ("output", "from byte", "bytes", "in the corpus", "first place", "piece"),
        (
            [
                piece.output,
                human_number(piece.start),
                piece.end - piece.start,
                human_number(piece.count),
                f"{piece.sources[0].document}:{piece.sources[0].start}" if piece.sources else "",
                piece.text if show else "hidden",
            ]
            for piece in found[:_LISTED]
        ),
        title=f"The {min(_LISTED, len(found))} longest of {len(found)} pieces",
        right=("from byte", "bytes", "in the corpus"),
    )
    message(
        f"{total['reciting']} of {len(outputs)} texts hold a piece of at least {min_length} bytes "
        f"that stands in the corpus"
    )
