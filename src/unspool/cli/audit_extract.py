"""`unspool audit extract`: how much of its training text a model gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from unspool._optional import require
from unspool.cli._output import (
    emit_json,
    emit_table,
    human_number,
    human_seconds,
    message,
    progress,
)
from unspool.errors import ConfigError, InputError, PathNotFound

_EXAMPLES = """
For example:

    unspool audit extract pairs texts/ --controls unseen/ --model MODEL --out pairs.jsonl

    unspool audit extract fit pairs.jsonl --model MODEL --out prompt

    unspool audit extract run pairs.jsonl --model MODEL --prompt prompt --out answers.jsonl

    unspool audit extract score answers.jsonl --pairs pairs.jsonl

    unspool audit extract recite --index texts.idx --model MODEL

Answers hold the texts that were recovered: keep the file as you keep the corpus.
"""

app = App(
    name="extract",
    help="Measure how much of its training text a model gives back.",
    help_epilogue=_EXAMPLES,
)


@app.command
def pairs(
    paths: list[str] | None = None,
    /,
    *,
    out: Path,
    model: str | None = None,
    controls: tuple[str, ...] = (),
    prefixes: tuple[Path, ...] = (),
    suffixes: tuple[Path, ...] = (),
    prefix: int = 50,
    suffix: int = 50,
    stride: int | None = None,
    shares: tuple[float, float, float] = (0.6, 0.1, 0.3),
    limit: int | None = None,
    keep_repeats: bool = False,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Cut texts that a model may have read into prefixes and suffixes, and split them by document.

    Args:
        paths: Files or folders with the texts.
        out: The pairs, JSON lines.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        controls: Files or folders that the model never read; may be given several times.
        prefixes: In place of texts: arrays (.npy) of token ids, the last 1,000 rows to test and
            1,400 before them to validate; may be given several times.
        suffixes: The same rows of the suffixes.
        prefix: Tokens that are shown.
        suffix: Tokens that are asked for.
        stride: Tokens from one passage to the next. Default: they do not overlap.
        shares: Of the documents, for training the prompt, validating it and testing.
        limit: Most pairs of each split, drawn at random.
        keep_repeats: Keep passages whose prefix another one has.
        seed: Of the split and the limit.
        json: Print one JSON object with the counts.
    """
    from unspool.cli._models import load_stock
    from unspool.corpus.readers import read_documents
    from unspool.forensics.extract import make_pairs, pairs_of_arrays
    from unspool.forensics.extract.pairs import save_pairs

    if bool(prefixes) == bool(paths) or bool(prefixes) != bool(suffixes):
        raise ConfigError("Give texts, or --prefixes and --suffixes.")
    if prefixes:
        made = pairs_of_arrays(_arrays(prefixes), _arrays(suffixes), dedup=not keep_repeats)
        save_pairs(made, out, model or "")
    else:
        documents = list(read_documents(list(paths or ())))
        others = list(read_documents(list(controls))) if controls else []
        loaded = load_stock(model)
        with progress("Cutting", unit="documents", quiet=json) as bar:
            made = make_pairs(
                documents,
                loaded.tokenizer,
                prefix=prefix,
                suffix=suffix,
                stride=stride,
                shares=shares,
                limit=limit,
                dedup=not keep_repeats,
                seed=seed,
                controls=others,
                on_progress=lambda done, total: bar.update(done, total=total),
            )
        save_pairs(made, out, loaded.name)
    counts = {split: len(made.of(split)) for split in ("train", "val", "test", "control")}
    if json:
        emit_json(
            {
                **counts,
                "too_short": made.too_short,
                "repeated": made.repeated,
                "beyond": made.beyond,
                "out": out,
            }
        )
        return
    message(
        f"{counts['train']} pairs to train, {counts['val']} to validate, {counts['test']} to test, "
        f"{counts['control']} controls in {out}. Left out: {made.too_short} documents that are too "
        f"short, {made.repeated} repeated prefixes, {made.beyond} pairs beyond the limit."
    )


def _arrays(paths: tuple[Path, ...]) -> Any:
    import numpy as np

    found = []
    for path in paths:
        if not path.is_file():
            raise PathNotFound(f"There is no file {str(path)!r}. Check the path.")
        try:
            found.append(np.load(path, allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise InputError(f"{path.name} is no array of numbers: {error}.") from error
    if len({each.shape[1:] for each in found}) > 1:
        raise InputError(f"The arrays have rows of different shapes: {[e.shape for e in found]}.")
    return np.concatenate(found)


@app.command
def fit(
    pairs: Path,
    /,
    *,
    out: Path,
    model: str | None = None,
    tokens: int = 100,
    alpha: float = 0.7,
    top_losses: int = 5,
    lr: float = 1e-3,
    warmup: int = 500,
    epochs: int = 20,
    batch: int = 32,
    patience: int = 5,
    seed: int = 42,
    force: bool = False,
    json: bool = False,
) -> None:
    """Train a prompt that makes the model recite; the same command goes on after a stop.

    Args:
        pairs: What `pairs` wrote.
        out: A folder for the prompt, which PEFT can load too.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        tokens: Vectors of the prompt.
        alpha: Weight of the hardest tokens of a suffix; 0 is the plain loss.
        top_losses: How many these are.
        lr: Largest learning rate.
        warmup: Steps up to it; at most a third of all.
        epochs: At most.
        batch: Pairs a step.
        patience: Epochs without a better validation loss after which it ends.
        seed: Of the order of pairs.
        force: Validate with prefixes that it is trained on.
        json: Print one JSON object an epoch.
    """
    require("torch", extra="read", purpose="Training a prompt")
    from unspool.cli._models import load_stock
    from unspool.forensics.extract import FitSettings
    from unspool.forensics.extract import fit as train
    from unspool.forensics.extract.pairs import load_pairs

    settings = FitSettings(
        tokens=tokens,
        alpha=alpha,
        top_losses=top_losses,
        lr=lr,
        warmup=warmup,
        epochs=epochs,
        batch=batch,
        patience=patience,
        seed=seed,
    )
    known = load_pairs(pairs)
    loaded = load_stock(model)
    with progress("Training the prompt", unit="pairs", quiet=json) as bar:
        prompt = train(
            loaded,
            known.of("train"),
            known.of("val"),
            settings,
            out=out,
            force=force,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    rows = prompt.notes["epochs"]
    if json:
        for row in rows:
            emit_json(row)
        return
    columns = ("epoch", "train", "total", "mean", "smooth", "best")
    emit_table(
        columns,
        (
            [r["epoch"], *(f"{r[name]:.4f}" for name in columns[1:5]), "*" if r["best"] else ""]
            for r in rows
        ),
        title="Loss in nats: of the training pairs, then of the others",
        right=columns[:5],
    )
    message(f"A prompt of {prompt.tokens} vectors for {prompt.base} in {out}")


@app.command
def run(
    pairs: Path,
    /,
    *,
    out: Path,
    model: str | None = None,
    prompt: Path | None = None,
    reference: str | None = None,
    splits: tuple[Literal["train", "val", "test", "control"], ...] = ("test", "control"),
    suffix: int | None = None,
    samples: int = 100,
    top_p: float = 0.7,
    temperature: float = 0.8,
    beams: int = 4,
    batch: int = 64,
    adaptive: bool = False,
    seed: int = 2022,
    force: bool = False,
    json: bool = False,
) -> None:
    """Ask the model for the suffixes; the same command goes on after a stop.

    Args:
        pairs: What `pairs` wrote.
        out: The answers, JSON lines. They hold the texts that were recovered.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct.
        prompt: What `fit` wrote, or a prompt of PEFT. Default: none.
        reference: A second model with the same tokenizer, for --confidence compare.
        splits: Which pairs are asked; may be given several times.
        suffix: Tokens to write. Default: as many as the suffixes have.
        samples: Of each prefix.
        top_p: Share of the probability that is drawn from.
        temperature: Of the draws.
        beams: Of the beam search; 0: none.
        batch: Texts that are written at a time.
        adaptive: Stop a prefix when 8 samples agree and the confidence is above 0.95.
        seed: Of the draws.
        force: Ask prefixes that trained the prompt.
        json: Print one JSON object with the totals.
    """
    import time

    require("torch", extra="read", purpose="Asking a model")
    from unspool.cli._models import load_stock
    from unspool.forensics.extract import AttackSettings, SoftPrompt, attack
    from unspool.forensics.extract.pairs import load_pairs

    settings = AttackSettings(
        samples=samples,
        top_p=top_p,
        temperature=temperature,
        beams=beams,
        suffix=suffix,
        batch=batch,
        adaptive=adaptive,
        seed=seed,
    )
    asked = load_pairs(pairs).of(*splits)
    if not asked:
        raise InputError(f"{pairs.name} holds no pairs of the splits {', '.join(splits)}.")
    trained = SoftPrompt.load(prompt) if prompt else None
    loaded = load_stock(model)
    other = load_stock(reference) if reference else None
    length = suffix or len(asked[0].suffix)
    if trained is not None and trained.base not in ("", loaded.name):
        message(f"The prompt was trained for {trained.base}, and this is {loaded.name}.")
    if not json:
        message(
            f"{len(asked)} prefixes, {samples} samples and the greedy text of {length} tokens: "
            f"{human_number(len(asked) * (samples + 1) * length)} tokens to write"
            f"{' at most' if adaptive else ''}"
        )
    started = time.perf_counter()
    with progress("Asking", unit="tokens", quiet=json) as bar:
        records = attack(
            loaded,
            asked,
            settings,
            prompt=trained,
            reference=other,
            out=out,
            force=force,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    seconds = time.perf_counter() - started
    drawn = sum(record["drawn"] for record in records)
    if json:
        emit_json({"prefixes": len(records), "samples": drawn, "seconds": seconds, "out": out})
        return
    message(f"{len(records)} prefixes, {drawn} samples in {human_seconds(seconds)}; see {out}")


app.command(
    "unspool.cli.audit_extract_scores:score",
    name="score",
    help="Choose an answer for every prefix; say how sure and how right they are.",
)
app.command(
    "unspool.cli.audit_extract_scores:report",
    name="report",
    help="Write what score says, with its curves, as one HTML page.",
)
app.command(
    "unspool.cli.audit_recite:recite",
    name="recite",
    help="Find passages that a model recites; nothing is trained.",
)
