"""`unspool compare`: methods side by side on one model and one text."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from unspool.cli._models import bars, load_stock, read_text, tokens_of, untouched
from unspool.cli._output import emit_json, emit_table, emit_text, human_bytes, human_number, message
from unspool.errors import ConfigError

_EXAMPLES = """
For example:

    unspool compare --method dense --method lm-infinite --method infllm --context docs/ \\
        --length 16384 --out compared/

    unspool compare --methods lm-infinite,streaming-llm,self-extend --context book.txt

The passkey is a number hidden at each depth of the text and asked for at its end.
"""

app = App(
    name="compare",
    help="Compare methods on one model and text: loss, recall, speed, memory, tokens dropped.",
    help_epilogue=_EXAMPLES,
)


@app.default
def compare(
    *,
    context: tuple[str, ...],
    method: tuple[str, ...] = (),
    methods: str | None = None,
    model: str | None = None,
    length: int | None = None,
    depths: str = "0.1,0.5,0.9",
    bucket: int = 1024,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure methods one after the other on the same tokens.

    Args:
        context: Files or folders with the text.
        method: A method, NAME or NAME:KEY=VALUE,…; given once for each to compare.
        methods: Bare names, joined by commas, in place of several --method.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct, which
            comes with the package.
        length: Tokens of the text to read. Default: all of it.
        depths: Where passkeys are hidden, from 0 to 1, joined by commas; empty for none.
        bucket: Tokens that are averaged into one loss.
        seed: Of the passkeys.
        out: A folder for the results, with compare.csv and compare.png; a run that was interrupted
            goes on there.
        json: Print one JSON object a method.
    """
    chosen = (*method, *(name.strip() for name in (methods or "").split(",") if name.strip()))
    if not chosen:
        raise ConfigError(
            "Say what to compare: --method lm-infinite --method infllm, or --methods."
        )
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"A method is named twice: {', '.join(chosen)}.")
    if bucket < 1:
        raise ConfigError(f"--bucket must be >= 1, got {bucket}.")
    places = _depths(depths)
    from unspool._facts import read_facts
    from unspool.methods import resolve_reading
    from unspool.reading.compare import Plan
    from unspool.reading.compare import compare as measure
    from unspool.reading.compare_report import write_csv, write_plot

    for spec in chosen:
        resolve_reading(spec)  # before a model is loaded for nothing
    text = read_text(context)
    loaded = load_stock(model)
    ids = tokens_of(loaded, text, length)
    window = read_facts(loaded.model).window or 4096
    plan = Plan(
        ids=ids,
        methods=chosen,
        bucket=bucket,
        window=min(4096, max(4, window // 2)),
        depths=places,
        seed=seed,
    )
    with bars(json) as tell:
        results = measure(loaded, plan, out=out, tell=tell)
    if out is not None:
        write_csv(results, out / "compare.csv")
        write_plot(results, out / "compare.png", window=window)
    if json:
        for result in results:
            emit_json(result)
        return
    emit_table(
        [
            "method",
            "nats, first half",
            "last half",
            "breaks at",
            "passkeys",
            "read/s",
            "written/s",
            "kept",
            "dropped",
        ],
        (_row(result) for result in results),
        right=[
            "nats, first half",
            "last half",
            "breaks at",
            "read/s",
            "written/s",
            "kept",
            "dropped",
        ],
    )
    for result in results:
        if result.error:
            emit_text(f"{result.method}: not measured, {result.error}")
        elif said := untouched(result, len(ids) + plan.written):
            emit_text(said)
    emit_text(
        f"{human_number(len(ids))} tokens; the first line reads them in fresh windows of "
        f"{human_number(plan.window)} tokens, the reference that a method breaks from"
    )
    if out is not None:
        message(f"wrote {out / 'compare.csv'} and {out / 'compare.png'}")


def _row(result: object) -> list[object]:
    from unspool.reading.compare import FRESH, Compared

    assert isinstance(result, Compared)
    half = len(result.buckets) // 2
    nats = [n for _, n in result.buckets]
    first = f"{sum(nats[: half or 1]) / (half or 1):.3f}" if nats else ""
    last = f"{sum(nats[half:]) / max(1, len(nats) - half):.3f}" if nats else ""
    found = sum(hit for _, hit in result.passkeys)
    reference = result.method == FRESH
    return [
        result.method,
        first,
        last,
        "" if reference or not nats else human_number(result.breaks) if result.breaks else "never",
        f"{found} of {len(result.passkeys)}" if result.passkeys else "",
        human_number(round(result.prefill_rate)) if result.prefill_rate and not reference else "",
        f"{result.decode_rate:.1f}" if result.decode_rate else "",
        human_bytes(result.kept_bytes) if result.kept_bytes else "",
        human_number(result.dropped_tokens) if not reference and not result.error else "",
    ]


def _depths(text: str) -> tuple[float, ...]:
    try:
        places = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--depths must be numbers joined by commas, got {text!r}.") from None
    for place in places:
        if not 0 <= place <= 1:
            raise ConfigError(f"--depths must lie between 0 and 1, got {place}.")
    return places
