"""`unspool curve`: at which length does a model break, as it is or under a method."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from unspool.cli._models import bars, load_stock, read_text, tokens_of, untouched
from unspool.cli._output import emit_json, emit_table, emit_text, human_number, message
from unspool.errors import ConfigError

_EXAMPLES = """
For example:

    unspool curve --context docs/ --length 16384

    unspool curve --context book.txt --method dense --method lm-infinite --out curve/

The reference line reads the same tokens in fresh windows of half the model's window: where a curve
leaves it for good, the method breaks.
"""

app = App(
    name="curve",
    help="Show loss by position: the length at which a model, extended or not, breaks.",
    help_epilogue=_EXAMPLES,
)


@app.default
def curve(
    *,
    context: tuple[str, ...],
    model: str | None = None,
    method: tuple[str, ...] = ("dense",),
    length: int | None = None,
    bucket: int = 1024,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure the loss of a text, position by position.

    Args:
        context: Files or folders with the text.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct, which
            comes with the package.
        method: How to read: dense is the model as it is. May be given several times.
        length: Tokens of the text to read. Default: all of it.
        bucket: Tokens that are averaged into one point.
        out: A folder for the results, with curve.csv and curve.png; a run that was interrupted
            goes on there.
        json: Print one JSON object a point.
    """
    if bucket < 1:
        raise ConfigError(f"--bucket must be >= 1, got {bucket}.")
    _check(method)
    text = read_text(context)
    loaded = load_stock(model)
    ids = tokens_of(loaded, text, length)
    from unspool._facts import read_facts
    from unspool.reading.compare import Plan, compare
    from unspool.reading.compare_report import write_csv, write_plot

    window = read_facts(loaded.model).window or 4096
    plan = Plan(
        ids=ids, methods=method, bucket=bucket, window=min(4096, max(4, window // 2)), depths=()
    )
    with bars(json) as tell:
        results = compare(loaded, plan, out=out, tell=tell)
    if out is not None:
        write_csv(results, out / "curve.csv")
        write_plot(results, out / "curve.png", window=window)
    if json:
        for result in results:
            for position, nats in result.buckets:
                emit_json({"position": position, "nats": nats, "method": result.method})
        return
    positions = [position for position, _ in results[0].buckets]
    by_method = [dict(result.buckets) for result in results]
    emit_table(
        ["position", *(result.method for result in results)],
        (
            [human_number(p), *(f"{b[p]:.3f}" if p in b else "" for b in by_method)]
            for p in positions
        ),
        right=["position", *(result.method for result in results)],
    )
    for result in results[1:]:
        if result.error:
            emit_text(f"{result.method}: not measured, {result.error}")
        elif said := untouched(result, len(ids)):
            emit_text(said)
        elif result.breaks is None:
            emit_text(f"{result.method}: sound to the end, {human_number(len(ids))} tokens")
        else:
            emit_text(f"{result.method}: breaks at about {human_number(result.breaks)} tokens")
    if out is not None:
        message(f"wrote {out / 'curve.csv'} and {out / 'curve.png'}")


def _check(methods: tuple[str, ...]) -> None:
    """Refuse what has no curve, before a model is loaded for nothing."""
    from unspool.methods import resolve_reading

    if len(set(methods)) < len(methods):
        raise ConfigError(f"A method is named twice: {', '.join(methods)}.")
    for spec in methods:
        if any("prompt" in method.slots for method in resolve_reading(spec)):
            raise ConfigError(
                f"{spec} reads a text for a question, so a text alone has no loss under it. "
                f"'unspool compare --method {spec}' hides numbers and asks for them."
            )
