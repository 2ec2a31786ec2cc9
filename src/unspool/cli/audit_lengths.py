"""`unspool audit lengths`: how long a model's answers are, and what knowing it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from unspool.cli._output import emit_json, emit_table, human_number, message, progress
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.forensics.lengths.rows import Row
    from unspool.forensics.lengths.simulate import Request

_EXAMPLES = """
For example:

    unspool audit lengths collect prompts.jsonl --out rows.jsonl --cap 256

    unspool audit lengths stats rows.jsonl

    unspool audit lengths fit rows.jsonl --out predictor.json

    unspool audit lengths simulate rows.jsonl --predictor predictor.json --capacity 16384
"""

app = App(
    name="lengths",
    help="Measure and predict how long a model's answers are.",
    help_epilogue=_EXAMPLES,
)


@app.command
def collect(
    prompts: Path,
    /,
    *,
    out: Path,
    model: str | None = None,
    endpoint: str | None = None,
    weights: Literal["same", "int8"] | None = None,
    form: str = "plain",
    n: int = 10,
    cap: int = 1024,
    max_prompt: int = 2500,
    temperature: float = 1.0,
    seed: int = 0,
    on_overflow: Literal["error", "truncate"] = "error",
    json: bool = False,
) -> None:
    """Ask each prompt several times and keep the lengths; the same command goes on after a stop.

    Args:
        prompts: JSON lines with the field prompt, and if there are any dataset and category.
        out: The rows, JSON lines, one a prompt.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        endpoint: Base address of an OpenAI-compatible server.
        weights: int8 writes tokens faster on a CPU.
        form: The form of the prompts: plain, dolly, alpaca or sharegpt.
        n: Answers a prompt.
        cap: Most tokens of an answer.
        max_prompt: Most tokens of a prompt.
        temperature: Of the draws, above 0.
        seed: Answer k is drawn from seed + k.
        on_overflow: truncate keeps the first tokens of a longer prompt and says how many it
            dropped.
        json: Print one JSON object with the totals.
    """
    from unspool.backends.load import load_model
    from unspool.forensics.lengths import Collection, read_questions
    from unspool.forensics.lengths import collect as draw

    settings = Collection(
        n=n,
        cap=cap,
        max_prompt=max_prompt,
        temperature=temperature,
        seed=seed,
        on_overflow=on_overflow,
    )
    questions = read_questions(prompts, form)
    loaded = load_model(model, endpoint=endpoint, weights=weights)
    with progress("Collecting", total=len(questions), unit="prompts", quiet=json) as bar:
        rows = draw(
            loaded,
            questions,
            settings,
            out=out,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    totals = {
        "rows": len(rows),
        "answers": sum(len(r.output_sizes) for r in rows),
        "truncated": sum(r.truncated for r in rows),
        "dropped_tokens": sum(r.dropped_tokens for r in rows),
        "out": str(out),
    }
    if json:
        emit_json(totals)
        return
    message(
        f"{totals['rows']} prompts, {totals['answers']} answers, {totals['truncated']} of them cut "
        f"at {cap} tokens; {totals['dropped_tokens']} prompt tokens not read; rows in {out}"
    )


@app.command
def stats(
    rows: Path,
    /,
    *,
    by: tuple[Literal["model", "dataset", "category"], ...] = ("model", "dataset"),
    against: Path | None = None,
    json: bool = False,
) -> None:
    """Describe the lengths of each group of rows.

    Args:
        rows: Rows, ours or released.
        by: What groups are made of; may be given several times.
        against: Other rows, to be compared with these on the prompts that both have.
        json: Print one JSON object a group, then one for the comparison.
    """
    from unspool.forensics.lengths import compare, read_rows
    from unspool.forensics.lengths import stats as describe

    found = read_rows(rows)
    groups = describe(found, by=by)
    compared = compare(found, read_rows(against)) if against else None
    if json:
        for group in groups:
            emit_json(group)
        if compared:
            emit_json(compared)
        return
    numbers = ("rows", "mean", "std", "p50", "p99", "within std", "icc", "degenerate", "cut")
    emit_table(
        [*by, *numbers],
        (
            [
                *g.group.values(),
                human_number(g.rows),
                f"{g.mean:.1f}",
                f"{g.std:.1f}",
                f"{g.p50:.0f}",
                f"{g.p99:.0f}",
                f"{g.within_std:.1f}",
                "" if g.icc is None else f"{g.icc:.2f}",
                f"{g.degenerate:.1%}",
                f"{g.truncated:.1%}",
            ]
            for g in groups
        ),
        right=numbers,
    )
    if compared:
        tau = compared.kendall_means
        message(
            f"{compared.shared} prompts in both; the second answers {compared.mean_ratio:.2f} "
            f"times as long; Kendall's tau {'undefined' if tau is None else f'{tau:.2f}'}; largest "
            f"difference of the distributions {compared.distance:.2f}"
        )


@app.command
def sanitize(
    rows: Path,
    /,
    *,
    out: Path,
    degenerate: Path | None = None,
    hard: int | None = None,
    soft: int | None = None,
    ratio: float = 2.0,
    json: bool = False,
) -> None:
    """Take answers that ran away out of rows.

    Args:
        rows: Rows, ours or released, collected under one cap.
        out: The clean rows, JSON lines.
        degenerate: Where rows with a runaway answer go, unchanged.
        hard: An answer of so many tokens was cut. Default: by the cap.
        soft: A longer answer in a row with a large spread ran away. Default: by the cap.
        ratio: A spread is large beyond so many means.
        json: Print one JSON object with the counts.
    """
    from unspool.forensics.lengths import Filter, read_rows
    from unspool.forensics.lengths import sanitize as clean

    if (hard is None) != (soft is None):
        raise ConfigError("Give --hard and --soft together, or neither.")
    found = read_rows(rows)
    if hard is not None and soft is not None:
        settings: Filter | None = Filter(hard=hard, soft=soft, ratio=ratio)
    elif len({r.cap for r in found}) == 1:
        base = Filter.for_cap(found[0].cap)
        settings = Filter(hard=base.hard, soft=base.soft, ratio=ratio)
    else:
        settings = None
    done = clean(found, settings=settings)
    _write(out, done.clean)
    if degenerate is not None:
        _write(degenerate, done.degenerate)
    counts = {
        "rows": len(found),
        "clean": len(done.clean),
        "degenerate": len(done.degenerate),
        "answers_removed": done.removed,
        "rows_dropped": done.dropped,
    }
    if json:
        emit_json(counts)
        return
    message(
        f"{len(found)} rows: {len(done.degenerate)} held a runaway answer, {done.removed} answers "
        f"removed, {done.dropped} rows dropped; {len(done.clean)} clean rows in {out}"
    )


@app.command
def fit(
    rows: Path,
    /,
    *,
    out: Path,
    encoder: Literal["features", "tfidf"] = "features",
    penalty: float = 1.0,
    json: bool = False,
) -> None:
    """Fit a predictor of length distributions and say how good it is on prompts it did not see.

    Args:
        rows: Rows collected under one cap.
        out: The predictor, JSON.
        encoder: features looks at counts and marks of a prompt, tfidf also at its words.
        penalty: Ridge penalty in rows.
        json: Print one JSON object with the losses.
    """
    from unspool.forensics.lengths import Predictor, read_rows
    from unspool.forensics.lengths.held_out import held_out

    found = read_rows(rows)
    tested = held_out(found, encoder=encoder, penalty=penalty)
    fitted = Predictor.fit(found, encoder=encoder, penalty=penalty)
    fitted.save(out)
    if json:
        emit_json({"out": str(out), "rows": fitted.rows, "cut": fitted.cut, **tested.to_json()})
        return
    message(
        f"held-out prompts: pinball loss {tested.loss:.2f} tokens, {tested.baseline:.2f} without "
        f"looking at the prompt ({tested.gain:+.1%}); {tested.coverage:.1%} of answers within the "
        f"predicted 90% quantile; predictor in {out}"
    )
    if fitted.cut:
        message(f"{fitted.cut:.1%} of the answers were cut: quantiles at the cap are lower bounds")


@app.command
def simulate(
    source: Path,
    /,
    *,
    capacity: int,
    longest: int | None = None,
    predictor: Path | None = None,
    quantile: float = 0.9,
    rate: float = 10.0,
    requests: int = 500,
    policy: tuple[Literal["max", "quantile", "shortest", "oracle"], ...] = (
        "max",
        "quantile",
        "shortest",
        "oracle",
    ),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Run a trace of requests under each policy and say what predicting lengths gains.

    Args:
        source: A trace (.csv: arrival, prompt, output, reserve), or rows to draw requests from.
        capacity: Tokens of key-value memory.
        longest: Most tokens of an answer. Default: the cap of the rows, or the longest answer.
        predictor: For rows: what `fit` wrote.
        quantile: For rows: the predicted quantile that is reserved.
        rate: For rows: requests a second, arriving at random.
        requests: For rows: how many.
        policy: What is reserved and who goes first; may be given several times.
        seed: Of the draws.
        json: Print one JSON object a policy.
    """
    from unspool.forensics.lengths import Machine
    from unspool.forensics.lengths import simulate as run
    from unspool.forensics.lengths.simulate import read_trace

    if source.suffix == ".csv":
        trace, known = read_trace(source), None
    else:
        if predictor is None:
            raise ConfigError("Rows need --predictor FILE, made by 'unspool audit lengths fit'.")
        trace, known = _drawn(source, predictor, quantile, rate, requests, seed)
    most = longest or known or max((r.output for r in trace), default=1)
    machine = Machine(capacity=capacity, longest=most)
    found = [run(trace, each, machine) for each in dict.fromkeys(policy)]
    base = next((o.throughput for o in found if o.policy == "max"), None)
    if json:
        for each in found:
            gain = each.throughput / base if base else None
            emit_json({**each.to_json(), "gain": gain})
        return
    columns = ("tokens/s", "gain", "p50 s", "p99 s", "memory used", "sent back", "wasted")
    emit_table(
        ["policy", *columns],
        (
            [
                o.policy,
                f"{o.throughput:.1f}",
                f"{o.throughput / base:.2f}x" if base else "",
                f"{o.latency_p50:.1f}",
                f"{o.latency_p99:.1f}",
                f"{o.utilisation:.1%}",
                human_number(o.preemptions),
                human_number(o.wasted),
            ]
            for o in found
        ),
        right=columns,
    )


def _drawn(
    source: Path, predictor: Path, quantile: float, rate: float, count: int, seed: int
) -> tuple[list[Request], int]:
    from unspool.forensics.lengths import Predictor, read_rows
    from unspool.forensics.lengths.traces import requests_of

    rows = read_rows(source)
    drawn = requests_of(
        rows, Predictor.load(predictor), quantile=quantile, count=count, rate=rate, seed=seed
    )
    caps = [row.cap + 1 for row in rows if row.cap is not None]
    return drawn, max([*caps, *(r.output for r in drawn)])


def _write(path: Path, rows: list[Row]) -> None:
    import orjson

    from unspool.index._files import storage, write_atomic

    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [orjson.dumps(row.to_json()) + b"\n" for row in rows])
