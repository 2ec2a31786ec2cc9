"""`unspool encoder`: make, adapt, train and use encoders that read long records whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from unspool.cli import _encoder as shared
from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import emit_json, emit_text, human_seconds, message, progress
from unspool.errors import ConfigError, InputError, PathNotFound

_EXAMPLES = """
For example:

    unspool encoder convert minilm --out long

    unspool encoder adapt long notes/ --out adapted --clean

    unspool encoder fit ner adapted train.conll --out tagger --held dev.conll

    unspool encoder predict tagger new.jsonl --out tags

    unspool encoder evaluate tagger test.conll
"""

app = App(
    name="encoder",
    help="Make, adapt, train and use encoders that read long records whole.",
    help_epilogue=_EXAMPLES,
)

_DEFAULTS = shared.ReadOptions()
_LISTED = 20
"""Records listed on a terminal."""


@app.command
def convert(
    short: str,
    /,
    *,
    out: Path,
    kind: Literal["longformer", "bigbird"] = "longformer",
    max_length: int = 4096,
    window: int = 512,
    block: int = 64,
    random_blocks: int = 3,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Make a long encoder of a short BERT or RoBERTa, without training.

    Args:
        short: A folder, a Hugging Face id, or minilm (all-MiniLM-L6-v2, in the extra detect).
        out: Folder for the long encoder, which transformers reads as well.
        kind: Pattern of attention: a window and global tokens, or blocks and random ones.
        max_length: Most tokens that it will read.
        window: longformer: tokens of the window, even, half to each side.
        block: bigbird: tokens a block.
        random_blocks: bigbird: random blocks that each block meets.
        seed: Of the random blocks, and of parameters that the short model lacks.
        json: Print one JSON object.
    """
    from unspool.models.long_encoder import convert as make
    from unspool.models.long_encoder import save
    from unspool.models.long_encoder.checkpoint import folder_of
    from unspool.models.long_encoder.tasks.heads import read_tokenizer

    shared.free(out)
    folder = folder_of(short)
    loaded = make(
        folder, kind=kind, max_length=max_length, window=window, block=block,
        random_blocks=random_blocks, seed=seed,
    )  # fmt: skip
    save(loaded.model, out, tokenizer=read_tokenizer(folder))
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    if json:
        emit_json(
            {"out": out, "kind": kind, "max_length": max_length, "parameters": count,
             "fresh": loaded.fresh, "unused": loaded.unused}
        )  # fmt: skip
        return
    if loaded.fresh:
        names = sorted({name.split(".")[0] for name in loaded.fresh})
        message(
            f"note: the short model has no {' and '.join(names)}: that starts at random values."
        )
    message(
        f"A {kind} of {max_length:,} tokens with {count:,} parameters is in {out}. Beyond "
        "the short model's length it needs training: unspool encoder adapt."
    )


@app.command(usage="Usage: unspool encoder adapt [OPTIONS] MODEL TEXT…")
def adapt(
    model: str,
    /,
    *texts: Annotated[str, MAY_BE_DASH],
    out: Path,
    steps: int = 1000,
    length: int = 4096,
    batch: int = 2,
    lr: float = 3e-5,
    masked: float = 0.15,
    clean: bool = False,
    text_field: str = "text",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Train on texts of a domain by guessing masked tokens; the same command goes on after a stop.

    Args:
        model: A folder with a long encoder, or a Hugging Face id of a Longformer or BigBird.
        texts: Files and folders; - reads standard input.
        out: Folder for the adapted encoder.
        steps: Updates in all.
        length: Tokens a row; texts are packed one behind the other.
        batch: Rows a step.
        lr: Learning rate.
        masked: Share of the tokens to be guessed.
        clean: Take out placeholders of de-identified records, as MIMIC and i2b2 have them.
        text_field: Field of JSON and parquet records that holds the text.
        device: auto, cpu or cuda.
        seed: Of masks, order and dropout.
        json: Print one JSON object.
    """
    from unspool.corpus.readers import read_documents
    from unspool.evaluation._io import locked
    from unspool.models.long_encoder import load, save
    from unspool.models.long_encoder.adapt import AdaptSettings
    from unspool.models.long_encoder.adapt import adapt as train
    from unspool.models.long_encoder.checkpoint import folder_of
    from unspool.models.long_encoder.clean import clean_record
    from unspool.models.long_encoder.tasks.heads import read_tokenizer

    if not texts:
        raise InputError("Say which texts to read: files, folders, or - for standard input.")
    for path in texts:
        if path != "-" and not Path(path).exists():
            raise PathNotFound(f"There is no file or folder {path!r}. Check the path.")
    settings = AdaptSettings(
        steps=steps, length=length, batch=batch, learning_rate=lr, masked=masked, seed=seed,
        warmup=max(1, min(100, steps // 10)), save_every=max(1, min(100, steps // 4)),
    )  # fmt: skip
    folder = folder_of(model)
    shared.apart(folder, out)
    loaded = load(folder)
    tokenizer = read_tokenizer(folder)
    read = (document.text for document in read_documents(list(texts), text_field=text_field))
    started = time.perf_counter()
    with progress("Adapting", total=steps, unit="steps", quiet=json) as bar, locked(out):
        done = train(
            loaded.model,
            tokenizer,
            (clean_record(text) for text in read) if clean else read,
            out,
            settings,
            device=shared.device_of(device),
            on_step=lambda step, loss: bar.update(step, stage=f"loss {loss:.2f}"),
        )
        save(loaded.model, out, tokenizer=tokenizer)
        facts = {
            "steps": done.steps, "resumed_at": done.resumed_at, "rows": done.rows,
            "tokens": done.tokens, "loss": shared.mean_of_last(done.losses),
        }  # fmt: skip
        shared.record(out, "adapt", settings, facts, model=model, clean=clean)
    if json:
        return emit_json({"out": out, **facts})
    if not done.losses:
        return message(f"All {done.steps:,} steps had been done before; the encoder is in {out}.")
    before = f" ({done.resumed_at:,} of them by an earlier run)" if done.resumed_at else ""
    message(
        f"{done.steps:,} steps{before} over {done.tokens:,} tokens in {done.rows:,} rows, loss of "
        f"the last ones {facts['loss']:.3f} nats, {human_seconds(time.perf_counter() - started)}. "
        f"The encoder is in {out}."
    )


@app.command(help_epilogue=f"Data. {shared.DATA}")
def fit(
    task: Literal["ner", "qa", "classify", "nli"],
    model: str,
    data: Path,
    /,
    *,
    out: Path,
    held: Path | None = None,
    epochs: int = 4,
    batch: int = 4,
    lr: float = 3e-5,
    length: int | None = None,
    overlap: int = 128,
    on_overflow: Literal["error", "truncate", "window"] = "window",
    label_fields: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    sentences: bool = False,
    part: str | None = None,
    checkpointing: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Train a task on labelled records; the same command goes on after a stop.

    Args:
        task: ner (tags of words), qa (answers as spans), classify (classes of texts) or nli
            (whether one text follows from another).
        model: A folder with a long encoder, or a Hugging Face id of a Longformer or BigBird.
        data: Labelled records, see below.
        out: Folder for the trained model.
        held: Labelled records to measure it on.
        epochs: Times that every record is seen.
        batch: Records a step.
        lr: Learning rate.
        length: Tokens of a window. Default: what the encoder reads.
        overlap: Tokens that two windows of a longer record share.
        on_overflow: A record longer than a window is refused, cut (what is dropped is counted), or
            read in several windows.
        label_fields: classify: columns of 0 and 1, one a class.
        sentences: ner: sentences of a CoNLL file become records, and see nothing of each other.
        part: qa: the part of emrQA to read: medication, relations or risk.
        checkpointing: Keep fewer activations: slower, and longer records fit into memory.
        device: auto, cpu or cuda.
        seed: Of order and dropout.
        json: Print one JSON object.
    """
    from unspool.evaluation._io import locked
    from unspool.models.long_encoder import load
    from unspool.models.long_encoder.checkpoint import folder_of
    from unspool.models.long_encoder.tasks import FitSettings, evaluate
    from unspool.models.long_encoder.tasks import fit as train
    from unspool.models.long_encoder.tasks.fitting import check_length, labels_of
    from unspool.models.long_encoder.tasks.heads import read_tokenizer

    fields = tuple(label_fields or ())
    if fields and task != "classify":
        raise ConfigError(f"--label-fields is for classify, not for {task}.")
    settings = FitSettings(
        epochs=epochs, batch=batch, learning_rate=lr, length=length, overlap=overlap,
        on_overflow=on_overflow, seed=seed, checkpointing=checkpointing,
    )  # fmt: skip
    read = shared.records(task, data, fields, sentences, part)
    checked = shared.records(task, held, fields, sentences, part) if held else None
    labels_of(task, read.examples)
    if checked is not None:
        labels_of(task, checked.examples)  # what lacks a label is said before hours of training
    folder = folder_of(model)
    shared.apart(folder, out)
    encoder = load(folder).model
    check_length(encoder, length)
    started = time.perf_counter()
    with progress("Training", unit="steps", quiet=json) as bar, locked(out):
        done = train(
            task,
            encoder,
            read_tokenizer(folder),
            read.examples,
            out,
            settings,
            label_fields=fields,
            device=shared.device_of(device),
            on_step=lambda step, total, loss: bar.update(
                step, total=total, stage=f"loss {loss:.3f}"
            ),
        )
        done.model.save(out)
        scores = None
        if checked is not None:
            scores = evaluate(
                done.model, checked.examples, length=length, overlap=overlap,
                on_overflow=on_overflow, batch=batch, device=shared.device_of(device),
            )  # fmt: skip
        facts: dict[str, Any] = {
            "task": task, "labels": list(done.model.labels), "steps": done.steps,
            "resumed_at": done.resumed_at, "loss": shared.mean_of_last(done.losses),
            "reading": done.reading.to_json(), "skipped": read.skipped,
            "notes": read.notes, "unreachable": done.unreachable,
            "held": None if scores is None else scores.to_json(),
        }  # fmt: skip
        shared.record(out, "fit", settings, facts, model=model, data=str(data))
    if json:
        return emit_json({"out": out, **facts})
    shared.tell(done.reading, read.skipped)
    if done.unreachable:
        message(
            f"{done.unreachable:,} answers lie in no single window and trained nothing: raise "
            "--length or --overlap."
        )
    if not done.losses:
        message(f"All {done.steps:,} steps had been done before.")
    else:
        before = f" ({done.resumed_at:,} of them by an earlier run)" if done.resumed_at else ""
        message(
            f"{done.steps:,} steps{before}, loss of the last ones {facts['loss']:.3f}, "
            f"{human_seconds(time.perf_counter() - started)}."
        )
    if scores is not None:
        shared.show(scores)
    message(f"The model is in {out}.")


@app.command
def predict(
    model: Path,
    data: Path,
    /,
    *,
    out: Path | None = None,
    options: shared.ReadOptions = _DEFAULTS,
) -> None:
    """Say what a model makes of records; with --out the same command goes on after a stop.

    Args:
        model: What fit wrote.
        data: Records as fit reads them, with labels or without; for tags and classes also .txt.
        out: Folder for predictions.jsonl.
        options: Of reading.
    """
    from unspool.models.long_encoder.tasks import predict as judge
    from unspool.models.long_encoder.tasks.folder import PREDICTIONS, predict_into

    loaded = shared.trained(model)
    read = shared.records(loaded.task, data, (), options.sentences, options.part)
    device = shared.device_of(options.device)
    with progress("Reading", total=len(read.examples), unit="records", quiet=options.json) as bar:
        if out is None:
            found = judge(
                loaded, read.examples, on_progress=lambda done, _: bar.update(done), device=device,
                **options.window(),
            )  # fmt: skip
        else:
            reading, before = predict_into(
                out, loaded, read.examples, on_progress=lambda done, _: bar.update(done),
                device=device, **options.window(),
            )  # fmt: skip
    if out is None:
        if options.json:
            for each in found.predictions:
                emit_json(each)
            return
        for each in found.predictions[:_LISTED]:
            emit_text(shared.line(each))
        if found.predictions[_LISTED:]:
            left = len(found.predictions) - _LISTED
            message(f"{left:,} more: see them with --out or --json.")
        shared.tell(found.reading, read.skipped)
        return
    if options.json:
        emit_json({"out": out, "earlier": before, **reading.to_json()})
        return
    if before:
        message(f"{before:,} records had been done before.")
    shared.tell(reading, read.skipped)
    message(f"Predictions are in {out / PREDICTIONS}.")


@app.command
def evaluate(
    model: Path,
    data: Path,
    /,
    *,
    label_fields: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    options: shared.ReadOptions = _DEFAULTS,
) -> None:
    """Measure a model on labelled records.

    Args:
        model: What fit wrote.
        data: Labelled records, as fit reads them.
        label_fields: classify: columns of 0 and 1, one a class.
        options: Of reading.
    """
    from unspool.models.long_encoder.tasks import evaluate as measure

    loaded = shared.trained(model)
    fields = tuple(label_fields or ())
    read = shared.records(loaded.task, data, fields, options.sentences, options.part)
    device = shared.device_of(options.device)
    with progress("Reading", total=len(read.examples), unit="records", quiet=options.json) as bar:
        scores = measure(
            loaded, read.examples, device=device, on_progress=lambda done, _: bar.update(done),
            **options.window(),
        )  # fmt: skip
    if options.json:
        facts = {"task": loaded.task, "skipped": read.skipped, "notes": read.notes}
        emit_json({**facts, **scores.to_json()})
        return
    shared.show(scores)
    shared.tell(scores.reading, read.skipped)
