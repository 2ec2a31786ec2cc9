"""`unspool audit traps`: plant sequences before publishing, and test a model for them later."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from unspool.cli._output import emit_json, emit_table, emit_text, human_number, message, progress
from unspool.errors import ConfigError, InputError

_EXAMPLES = """
For example:

    unspool audit traps generate --out pool.json --pairs 20 --lengths 25

    unspool audit traps inject books/ --pool pool.json --out published --repeats 10 --repeats 100

    unspool audit traps score published/manifest.json --model TARGET --reference REF --out s.jsonl

    unspool audit traps report s.jsonl --manifest published/manifest.json

Publish the commitment before the text. Keep manifest.json and pool.json secret until the test.
"""

app = App(
    name="traps",
    help="Plant sequences that show whether a model was trained on a text.",
    help_epilogue=_EXAMPLES,
)


@app.command
def generate(
    *,
    out: Path,
    model: str | None = None,
    lengths: tuple[int, ...] = (25, 50, 100),
    pairs: int = 500,
    low: int = 1,
    high: int = 101,
    buckets: int = 10,
    jaccard: float = 0.2,
    max_draws: int = 100_000,
    start: str | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Draw pairs of sequences; later one of each pair is planted and the other is its control.

    Args:
        out: The pool, JSON.
        model: A Hugging Face id or a folder with a model; later the reference. Default:
            SmolLM2-135M-Instruct.
        lengths: Tokens of a sequence; may be given several times.
        pairs: Of each length; a multiple of buckets.
        low: Least perplexity.
        high: Perplexities stay below this.
        buckets: Equal ranges of perplexity that get equally many.
        jaccard: Two sequences share at most this much of their tokens.
        max_draws: Of each length; what is not found by then is reported.
        start: What the model continues. Default: its first special token.
        seed: Of the draws.
        json: Print one JSON object with the totals.
    """
    from unspool.backends.load import load_model
    from unspool.forensics.traps import PoolSettings
    from unspool.forensics.traps import generate as draw
    from unspool.forensics.traps.manifest import save_pool

    settings = PoolSettings(
        lengths=lengths,
        pairs=pairs,
        low=low,
        high=high,
        buckets=buckets,
        jaccard=jaccard,
        max_draws=max_draws,
        seed=seed,
    )
    loaded = load_model(model)
    with progress("Drawing", unit="sequences", quiet=json) as bar:
        pool = draw(
            loaded,
            settings,
            start=start,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    save_pool(pool, out)
    if json:
        emit_json(
            {"pairs": len(pool.pairs), "draws": pool.draws, "missing": pool.missing, "out": out}
        )
        return
    message(f"{len(pool.pairs)} pairs from {human_number(pool.draws)} draws in {out}")
    if pool.missing:
        lacks = ", ".join(f"{n} in {where}" for where, n in pool.missing.items())
        message(f"not found within {human_number(max_draws)} draws (length:bucket): {lacks}")


@app.command
def inject(
    paths: list[str],
    /,
    *,
    pool: Path,
    out: Path,
    repeats: tuple[int, ...] = (1, 10, 100, 1000),
    where: Literal["words", "sentences", "paragraphs"] = "words",
    seed: int = 0,
    salt: str | None = None,
    json: bool = False,
) -> None:
    """Plant one trap a document, and write the documents, the manifest and the commitment.

    Args:
        paths: Files or folders with the documents.
        pool: What `generate` wrote.
        out: A folder for documents.jsonl, manifest.json (secret) and commitment.txt (to publish).
        repeats: Copies of a trap, taken in turn; may be given several times. 0 plants nothing.
        where: Copies stand before words, sentences or paragraphs.
        seed: Of places and documents.
        salt: Hexadecimal digits that decide the coins. Default: drawn.
        json: Print one JSON object with the totals.
    """
    import orjson

    from unspool.corpus.readers import read_documents
    from unspool.forensics.traps import commitment, inject_corpus
    from unspool.forensics.traps.manifest import load_pool, save
    from unspool.index._files import storage, write_atomic

    if (out / "manifest.json").exists():
        raise ConfigError(
            f"{out / 'manifest.json'} is there already, and a manifest that is lost makes its "
            f"traps worthless. Choose another folder."
        )
    drawn = load_pool(pool)
    documents = list(read_documents(paths))
    done = inject_corpus(documents, drawn, repeats=repeats, where=where, seed=seed, salt=salt)
    digest = commitment(done.manifest)
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
        lines = [
            orjson.dumps({**d.meta, "id": d.id, "text": d.text}) + b"\n" for d in done.documents
        ]
        write_atomic(out / "documents.jsonl", lines)
        write_atomic(out / "commitment.txt", [f"{digest}\n".encode()])
    save(done.manifest, out / "manifest.json")  # last: with it, the folder is complete
    planted = sum(p.repeat > 0 for p in done.manifest.planted)
    if json:
        emit_json(
            {
                "documents": len(documents),
                "planted": planted,
                "passed_over": done.passed_over,
                "commitment": digest,
                "out": out,
            }
        )
        return
    message(
        f"{planted} of {len(documents)} documents carry a trap ({done.passed_over} were too short) "
        f"in {out}; keep manifest.json and {pool.name} secret. Publish now:"
    )
    emit_text(digest)


@app.command
def score(
    manifest: Path,
    /,
    *,
    out: Path,
    model: str | None = None,
    reference: str | None = None,
    no_reference: bool = False,
    context: int = 0,
    documents: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Score traps and controls under a model; the same command goes on after a stop.

    Args:
        manifest: What `inject` wrote.
        out: The scores, JSON lines.
        model: The model that may have read the traps. Default: SmolLM2-135M-Instruct.
        reference: A model that cannot have; best the one that drew them. Default: the embedded
            model.
        no_reference: Score without one: loss and Min-K% only.
        context: Score behind so many tokens of the document.
        documents: For a context: the published documents.
        json: Print one JSON object a pair.
    """
    from unspool.backends.load import load_model
    from unspool.corpus.readers import read_documents
    from unspool.forensics.traps import score as measure
    from unspool.forensics.traps.manifest import load

    if context and not documents:
        raise ConfigError("--context needs --documents PATH: the documents as published.")
    if no_reference and reference:
        raise ConfigError("Give --reference or --no-reference, not both.")
    if model == reference and not no_reference:
        raise ConfigError("Target and reference are the same model, so every ratio would be 1.")
    known = load(manifest)
    texts = {d.id: d.text for d in read_documents(list(documents))} if documents else {}
    target = load_model(model)
    other = None if no_reference else load_model(reference)
    with progress("Scoring", total=len(known.planted), unit="pairs", quiet=json) as bar:
        records = measure(
            target,
            other,
            known,
            out=out,
            context=context,
            documents=texts,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    if json:
        for record in records:
            emit_json(record)
        return
    message(f"{len(records)} pairs scored in {out}")


@app.command
def report(
    scores: Path,
    /,
    *,
    manifest: Path | None = None,
    commitment: str | None = None,
    method: Literal["ratio", "log_ratio", "loss", "min_k"] = "ratio",
    by: tuple[Literal["length", "repeat", "bucket"], ...] = ("length", "repeat"),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Say whether the traps were read, how sure that is, and how many traps it takes.

    Args:
        scores: What `score` wrote.
        manifest: What `inject` wrote; the scores must be of it.
        commitment: The hash that was published; the manifest must match it.
        method: The score to decide by.
        by: Groups of pairs; may be given several times.
        seed: Of bootstrap and random flips.
        json: Print one JSON object a group, the last one on all planted pairs.
    """
    from unspool.forensics._jsonl import read_records
    from unspool.forensics.traps import decide
    from unspool.forensics.traps.manifest import check_commitment, load
    from unspool.forensics.traps.manifest import commitment as digest

    if commitment is not None and manifest is None:
        raise ConfigError("--commitment is checked against a manifest: give --manifest FILE.")
    held = read_records(scores)
    if not held or "commitment" not in held[0]:
        raise InputError(f"{scores.name} holds no scores of traps.")
    run, records = held[0], held[1:]
    if manifest is not None:
        known = load(manifest)
        if commitment is not None:
            check_commitment(known, commitment)
        if digest(known) != run["commitment"]:
            raise InputError(f"{scores.name} was scored with another manifest than {manifest}.")
        _all_there(records, [p.pair.id for p in known.planted], scores)
    groups = decide(records, method=method, by=by, seed=seed)
    planted = [r for r in records if r["repeat"] > 0]
    whole = decide(planted, method=method, by=(), seed=seed)[0] if planted else None
    if json:
        for each in [*groups, *([whole] if whole else [])]:
            emit_json(each)
        return
    columns = ("pairs", "AUC", "95% interval", "p", "found at 1%", "power", "pairs for 0.8")
    emit_table(
        [*by, *columns],
        ([*map(human_number, d.group.values()), *_cells(d)] for d in groups),
        right=[*by, *columns],
    )
    if whole is not None:
        verdict = "were read" if whole.p_value <= 0.05 else "cannot be told from unread ones"
        emit_text(
            f"All {whole.pairs} planted pairs: AUC {whole.auc:.3f}, p = {whole.p_value:.2g}. At "
            f"the 5% level the traps {verdict}."
        )
    emit_text("An error rate, not a proof in law. p is exact only if the coins were kept secret.")


def _all_there(records: list[dict[str, Any]], wanted: list[str], scores: Path) -> None:
    missing = set(wanted) - {r["id"] for r in records}
    if missing:
        raise InputError(
            f"{scores.name} lacks {len(missing)} of {len(wanted)} pairs, and a choice of pairs "
            f"would make p worthless. Run 'unspool audit traps score' to its end."
        )


def _cells(d: Any) -> list[str]:
    return [
        human_number(d.pairs),
        f"{d.auc:.3f}",
        f"{d.auc_low:.3f}–{d.auc_high:.3f}",
        f"{d.p_value:.2g}",
        f"{d.detected_at_1pct:.1%}",
        "" if d.power is None else f"{d.power:.2f}",
        "over 2,000" if d.smallest is None else human_number(d.smallest),
    ]


@app.command
def find(manifest: Path, /, *, index: list[Path], json: bool = False) -> None:
    """Count traps and controls in indexes of a corpus: exact, without a model.

    Args:
        manifest: What `inject` wrote.
        index: Indexes of the corpus; may be given several times.
        json: Print one JSON object a pair.
    """
    from unspool.forensics.traps import find as look
    from unspool.forensics.traps.manifest import load

    found = look(load(manifest), index)
    if json:
        for each in found:
            emit_json(each)
        return
    emit_table(
        ["pair", "planted", "found", "control found"],
        ([f["id"], f["repeat"], f["trap"], f["control"]] for f in found if f["trap"]),
        right=["planted", "found", "control found"],
    )
    message(f"{sum(f['trap'] > 0 for f in found)} of {len(found)} traps occur in the corpus")
