"""`unspool audit knn-lm`: mix a datastore into a model, and find out whether it helps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App

from unspool.cli import _knn_lm as shared
from unspool.cli._args import MAY_BE_DASH
from unspool.cli._models import load_stock
from unspool.cli._output import (
    emit_json,
    emit_table,
    emit_text,
    human_bytes,
    human_seconds,
    message,
)
from unspool.errors import ConfigError, InputError

_EXAMPLES = """
For example:

    unspool audit knn-lm build manuals/ --out store

    unspool audit knn-lm tune store other-manuals/ --out tuning

    unspool audit knn-lm eval store held-out/ --out evaluation

    unspool audit knn-lm analyse store held-out/ --out analysis
"""

_DEFAULTS = shared.MixOptions()

app = App(
    name="knn-lm",
    help="Mix a datastore into a model, and find out whether it helps.",
    help_epilogue=_EXAMPLES,
)


@app.command(usage="Usage: unspool audit knn-lm build [OPTIONS] TEXT…")
def build(
    *texts: Annotated[str, MAY_BE_DASH],
    out: Path,
    model: str | None = None,
    layer: Literal["ffn_input", "block_output"] = "ffn_input",
    dtype: Literal["float16", "float32"] = "float16",
    window: int | None = None,
    stride: int | None = None,
    index: Literal["auto", "flat", "ivf", "ivfpq"] = "auto",
    metric: Literal["l2", "ip"] = "l2",
    text_field: str = "text",
    json: bool = False,
) -> None:
    """Keep, for every token of some texts, the state of its context; goes on after a stop.

    Args:
        texts: Files and folders; - reads standard input.
        out: The datastore, a new folder.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        layer: What stands for a context: ffn_input (what goes into the last feed-forward block) or
            block_output.
        dtype: Of the keys on disk; float32 for models whose states do not fit into float16.
        window: Most tokens the model sees at once. Default: 1,024, or what the model can see.
        stride: Tokens from one window to the next; the whole text is read. Default: half a window.
        index: flat compares every key, ivf and ivfpq (faiss) fewer; auto: flat to 200,000 keys, ivf
            to five million.
        metric: l2 (squared distance) or ip (inner product).
        text_field: Field of JSON and parquet records that holds the text.
        json: Print one JSON object.
    """
    from unspool.forensics.knn_lm import StoreSettings, build_store, plan_store
    from unspool.forensics.knn_lm.states import locate

    loaded = load_stock(model)
    tokens = shared.tokens_of(loaded, texts, text_field)
    settings = StoreSettings(
        layer=layer,
        dtype=dtype,
        reading=shared.reading_of(loaded, window, stride),
        metric=metric,
        index=index,
    )
    locate(loaded.model, layer)
    dimension = int(loaded.model.config.get_text_config().hidden_size)
    planned = plan_store(tokens, dimension, settings)
    if not json:
        message(
            f"{planned.documents:,} documents, {planned.keys:,} keys of {planned.dimension} "
            f"numbers: {human_bytes(planned.key_bytes)} of keys, "
            f"{human_bytes(planned.index_bytes)} of index ({planned.index}); the model reads "
            f"{planned.read_tokens:,} tokens; a query is compared with about "
            f"{planned.compared:,} keys."
        )
    started = time.perf_counter()
    with shared.stages(json) as tell:
        store = build_store(
            loaded.model,
            loaded.tokenizer,
            tokens,
            out,
            settings,
            name=loaded.name,
            on_progress=lambda done, total, stage: tell(
                {"keys": "Reading", "index": "Indexing"}[stage], done, total
            ),
        )
    seconds = time.perf_counter() - started
    totals = {**planned.to_json(), "keys": len(store), "seconds": seconds, "out": str(out)}
    if json:
        emit_json(totals)
        return
    message(f"{len(store):,} keys in {out}, {human_seconds(seconds)}.")


@app.command(usage="Usage: unspool audit knn-lm tune [OPTIONS] STORE TEXT…")
def tune(
    store: Path,
    /,
    *texts: Annotated[str, MAY_BE_DASH],
    out: Path,
    model: str | None = None,
    k: int = 1024,
    lam: list[float] | None = None,
    temperature: list[float] | None = None,
    steps: int = 0,
    probes: int = 32,
    text_field: str = "text",
    json: bool = False,
) -> None:
    """Find weight, temperature and neighbours on a text, and keep them with the datastore.

    Args:
        store: The datastore, or an index of the model's tokens.
        texts: Files and folders that are neither in the datastore nor tested on.
        out: Folder for what was retrieved; the same command goes on where it was stopped.
        model: The model of the datastore. Default: SmolLM2-135M-Instruct.
        k: Most neighbours.
        lam: Weights to try, in place of 16 between 0 and 0.9.
        temperature: Temperatures to try, in place of some that fit the distances.
        steps: With 2 or more, one weight for each of so many ranges of the nearest distance.
        probes: Cells that an index of faiss looks into.
        text_field: Field of JSON and parquet records that holds the text.
        json: Print one JSON object.
    """
    from unspool.forensics.knn_lm import record_hits
    from unspool.forensics.knn_lm import tune as search
    from unspool.forensics.knn_lm.tune import LAMBDAS
    from unspool.index._files import canonical, storage, write_atomic

    loaded, retriever = shared.opened(store, model, probes)
    tokens = shared.tokens_of(loaded, texts, text_field)
    with shared.stages(json) as tell:
        hits = record_hits(
            loaded.model,
            retriever,
            tokens,
            out,
            k=k,
            tokenizer=loaded.tokenizer,
            on_progress=lambda done, total: tell("Reading", done, total),
        )
    found = search(hits, lam=lam or LAMBDAS, temperature=temperature, buckets=steps)
    with storage(store):
        write_atomic(store / shared.TUNED, [canonical(found.mixture.to_json())])
    if json:
        emit_json(found)
        return
    best = sorted(found.tried, key=lambda t: t.perplexity)[:8]
    emit_table(
        ["k", "temperature", "weight", "perplexity"],
        [(t.k, f"{t.temperature:g}", f"{t.lam:g}", f"{t.perplexity:.3f}") for t in best],
        right=["k", "temperature", "weight", "perplexity"],
    )
    message(
        f"{found.tokens:,} tokens: perplexity {found.perplexity_lm:.3f} without the datastore, "
        f"{found.perplexity:.3f} with it. The setting is kept in {store / shared.TUNED}."
    )


@app.command(name="eval", usage="Usage: unspool audit knn-lm eval [OPTIONS] STORE TEXT…")
def evaluate(
    store: Path,
    /,
    *texts: Annotated[str, MAY_BE_DASH],
    out: Path,
    text_field: str = "text",
    options: shared.MixOptions = _DEFAULTS,
) -> None:
    """Say what the datastore does to the perplexity of a text, and to which tokens.

    Args:
        store: The datastore, or an index of the model's tokens.
        texts: Files and folders that are not in the datastore.
        out: Folder for the report; the same command goes on where it was stopped.
        text_field: Field of JSON and parquet records that holds the text.
        options: Of the mixture.
    """
    from unspool.forensics.knn_lm import evaluate as measure

    loaded, retriever = options.opened(store)
    tokens = shared.tokens_of(loaded, texts, text_field)
    mixture = options.mixture(store)
    started = time.perf_counter()
    with shared.stages(options.json) as tell:
        found = measure(
            loaded.model,
            loaded.tokenizer,
            retriever,
            tokens,
            out,
            mixture,
            name=loaded.name,
            progress=tell,
        )
    shared.show(found, None, out, options.json, time.perf_counter() - started)


@app.command
def generate(
    store: Path,
    prompt: Annotated[str, MAY_BE_DASH],
    /,
    *,
    new: int = 100,
    top_p: float = 0.9,
    seed: int = 0,
    compare: bool = False,
    options: shared.MixOptions = _DEFAULTS,
) -> None:
    """Continue a text with the datastore mixed in.

    Args:
        store: The datastore, or an index of the model's tokens.
        prompt: The text to continue.
        new: Tokens to write.
        top_p: Draw from the likeliest tokens that hold so much; 0 always takes the likeliest.
        seed: Of the draws.
        compare: Continue it without the datastore, too, with the same draws.
        options: Of the mixture.
    """
    from unspool._overflow import fit
    from unspool.forensics.knn_lm import encode
    from unspool.forensics.knn_lm.generate import continue_texts

    if new < 1 or not 0 <= top_p <= 1:
        raise ConfigError(f"--new must be >= 1 and --top-p between 0 and 1, got {new} and {top_p}.")
    loaded, retriever = options.opened(store)
    mixture = options.mixture(store)
    tokens = encode(loaded.tokenizer, [prompt, "a a"])  # the second lets one token be a prompt
    ids = tokens.document(0)
    if not len(ids):
        raise InputError("The prompt has no tokens: give at least one to continue.")
    room = None if loaded.window is None else loaded.window - new - len(tokens.prefix)
    fit(ids.tolist(), room, "error", what="The prompt")
    for arm in ("mix", "lm") if compare else ("mix",):
        started = time.perf_counter()
        written = continue_texts(
            loaded.model,
            retriever if arm == "mix" else None,
            mixture,
            ids[None],
            new,
            streams=[(seed,)],
            top_p=top_p,
            before=tokens.prefix,
        )
        said = str(loaded.tokenizer.decode(written[0].tolist()))
        if options.json:
            seconds = time.perf_counter() - started
            emit_json({"arm": arm, "text": said, "tokens": new, "seconds": seconds})
            continue
        if compare:
            message("With the datastore:" if arm == "mix" else "Without it:")
        emit_text(said)


@app.command(usage="Usage: unspool audit knn-lm analyse [OPTIONS] STORE TEXT…")
def analyse(
    store: Path,
    /,
    *texts: Annotated[str, MAY_BE_DASH],
    out: Path,
    prefixes: int = 200,
    prefix: int = 128,
    new: int = 256,
    seeds: int = 5,
    top_p: float = 0.9,
    text_field: str = "text",
    options: shared.MixOptions = _DEFAULTS,
) -> None:
    """Examine tokens, entropies and generated texts, and say whether the datastore is worth it.

    Args:
        store: The datastore, or an index of the model's tokens.
        texts: Files and folders that are not in the datastore.
        out: Folder for the report, the texts and a blinded sheet for judges; the same command goes
            on where it was stopped.
        prefixes: Beginnings that are continued.
        prefix: Tokens of a beginning.
        new: Tokens of a continuation.
        seeds: Continuations of a beginning, with and without the datastore.
        top_p: Draw from the likeliest tokens that hold so much.
        text_field: Field of JSON and parquet records that holds the text.
        options: Of the mixture.
    """
    from unspool.forensics import knn_lm
    from unspool.forensics.knn_lm.analyse import end_tokens
    from unspool.forensics.knn_lm.generate import cut_prompts
    from unspool.index._files import canonical

    continuing = knn_lm.Continuing(n=prefixes, prefix=prefix, new=new, top_p=top_p, seeds=seeds)
    loaded, retriever = options.opened(store)
    tokens = shared.tokens_of(loaded, texts, text_field)
    cut_prompts(tokens, continuing)  # too little text is said before anything is read
    mixture = options.mixture(store)
    started = time.perf_counter()
    with shared.stages(options.json) as tell:
        found = knn_lm.evaluate(
            loaded.model,
            loaded.tokenizer,
            retriever,
            tokens,
            out,
            mixture,
            name=loaded.name,
            progress=tell,
        )
        written = knn_lm.generate(
            loaded.model,
            retriever,
            tokens,
            out,
            mixture,
            continuing,
            ends=end_tokens(loaded.model, loaded.tokenizer),
            progress=tell,
        )
    judged = knn_lm.judge(loaded.model, loaded.tokenizer, written, before=tokens.prefix)
    first = [written.prompts.prefixes, *written.written[:, 0]]
    spelt = [[str(loaded.tokenizer.decode(row)) for row in rows.tolist()] for rows in first]
    sheet = knn_lm.make_sheet(list(zip(*spelt, strict=True)))
    shared.write(out, {"sheet.csv": sheet.table.encode(), "sheet-key.json": canonical(sheet.key)})
    shared.show(found, judged, out, options.json, time.perf_counter() - started)


@app.command(usage="Usage: unspool audit knn-lm score [OPTIONS] SHEET…")
def score(*sheets: Path, key: Path, json: bool = False) -> None:
    """Add up what judges wrote into copies of an analysis's sheet.

    Args:
        sheets: Filled sheets, one a judge: A, B or = in the last column.
        key: The sheet-key.json beside the empty sheet.
        json: Print one JSON object.
    """
    found = shared.scored(sheets, key)
    if json:
        emit_json(found)
        return
    agree = "" if found.kappa is None else f" Agreement of the judges: kappa {found.kappa:.2f}."
    message(
        f"{found.judges} judges, {found.items} items: {found.wins['mix']} times the mixture, "
        f"{found.wins['lm']} times the model alone, {found.ties} ties; sign test p = "
        f"{found.p_value:.3g}.{agree}"
    )
