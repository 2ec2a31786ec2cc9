"""Fine-tune an encoder so that it tells machine text from human text at every length.

What: clean, delete sentences at random (training texts only), tokenise, and minimise cross-entropy
plus the positive-unlabelled term; then calibrate on texts that were held out.
Source: Tian et al. (2023), "Multiscale Positive-Unlabeled Detection of AI-Generated Texts",
section 3, figure 2, and the settings of section 4.
Differs from the released code: batches are padded to their longest text in place of 512; order,
deletions and dropout are functions of the seed and the step, so a killed run goes on to the same
weights; a text that is too long is refused unless said otherwise; balancing is an option.
Cost: three times that of scoring the same texts; a checkpoint a minute of three times the weights.
"""

from __future__ import annotations

import hashlib
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unspool._machine import peak_rss
from unspool.corpus.split import windows
from unspool.errors import ConfigError, InputError
from unspool.forensics._folder import check_free, check_plan, locked
from unspool.forensics.detect import checkpoint
from unspool.forensics.detect.calibration import EDGES, fit_bins
from unspool.forensics.detect.cleaning import clean
from unspool.forensics.detect.detector import DETECTOR, Detector, device_of
from unspool.forensics.detect.encoder import Encoder, load_encoder, one_thread
from unspool.forensics.detect.examples import HUMAN, MACHINE, Example, both_labels, digest, divide
from unspool.forensics.detect.loss import MPULoss
from unspool.forensics.detect.metrics import summarise
from unspool.forensics.detect.multiscaling import multiscale, runs
from unspool.forensics.detect.settings import TrainSettings
from unspool.index._files import canonical, remove_temporary, storage, write_atomic
from unspool.types import Document, Overflow

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""

RUN = "run.json"
_SAVE_EVERY = 60.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Texts as they are trained on, and what was lost on the way."""

    examples: list[Example]
    empty: int
    dropped_tokens: int
    shortened: int


def train(
    examples: Sequence[Example],
    held: Sequence[Example] | None = None,
    settings: TrainSettings | None = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    on_progress: Progress | None = None,
    **options: Any,
) -> Detector:
    """Train a detector and calibrate it.

    Args:
        examples: Labelled texts of both classes.
        held: Labelled texts for calibration; None: about a tenth of the examples, by group.
        settings: The recipe; or give its fields as keyword arguments.
        out: A folder for the detector, its model card and its report; the same call goes on after
            a stop. None: nothing is kept.
        device: auto, cpu, cuda.
        on_progress: Told how far it has come.

    Raises:
        InputError: A class is missing.
        OverflowPolicyError: A text is longer than the encoder reads, and may not be shortened.
        ConfigError: A setting cannot work.
        RunConflict: The folder holds a run with other texts or settings.
        RunLocked: Another process works in the folder.
    """
    if settings is not None and options:
        raise ConfigError(f"Give either settings or {', '.join(options)}, not both.")
    settings = settings or TrainSettings(**options)
    if held is None:
        both_labels(examples, "training")
        examples, held = divide(examples)
    both_labels(examples, "training")
    both_labels(held, "held-out")
    started = time.perf_counter()
    encoder = load_encoder(
        settings.encoder, settings.max_length, seed=settings.seed, device=device_of(device)
    )
    prepared = _prepare(examples, encoder, settings, "training")
    checked = _prepare(held, encoder, settings, "held-out")
    notes = _notes(prepared, checked, encoder, settings)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    facts = _facts(examples, held, prepared, checked, notes)
    if out is None:
        _fit(encoder, prepared.examples, settings, None, on_progress)
        return _calibrated(encoder, checked.examples, settings, facts)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(out)!r} is a file, and a detector is a folder.")
    check_free(folder)
    with storage(folder), locked(folder):
        remove_temporary(folder)
        check_plan(
            folder,
            {
                "format": 1,
                "settings": asdict(settings),
                "texts": {"training": digest(examples), "held-out": digest(held)},
                "encoder": weights_digest(encoder),
            },
        )
        if (folder / DETECTOR).is_file():
            return Detector.load(folder, device=device)
        _fit(encoder, prepared.examples, settings, folder, on_progress)
        detector = _calibrated(encoder, checked.examples, settings, facts).save(folder)
        from unspool.forensics.detect.card import write_card

        write_card(detector, folder)
        checkpoint.remove(folder)
        note_run(folder, started)
    return detector


def note_run(folder: Path, started: float) -> None:
    """Write down when a detector was calibrated, and what that took."""
    note = {
        "calibrated": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes": peak_rss(),
    }
    write_atomic(folder / RUN, [canonical(note)])


def weights_digest(encoder: Encoder) -> str:
    """SHA-256 of the weights, new ones included."""
    total = hashlib.sha256()
    for name, value in sorted(encoder.model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _prepare(
    examples: Sequence[Example], encoder: Encoder, settings: TrainSettings, what: str
) -> _Prepared:
    """Clean, leave out what is empty, and see to what is too long."""
    kept: list[Example] = []
    names: list[str] = []
    empty = 0
    for number, example in enumerate(examples, 1):
        text = clean(example.text) if settings.clean == "en" else example.text.strip()
        if not text:
            empty += 1
            continue
        parts = [text]
        if settings.on_overflow == "window":
            whole = Document(str(number), text)
            parts = [s.text.strip() for s in windows(whole, encoder.room, unit=encoder.sizes)]
        kept += [replace(example, text=part) for part in parts]
        names += [f"{number} of the {what} texts"] * len(parts)
    both_labels(kept, what)
    # Windows are counted sentence by sentence, and may come out a few tokens longer as a whole.
    policy: Overflow = "error" if settings.on_overflow == "error" else "truncate"
    tokens = encoder.tokens([e.text for e in kept], policy, names)
    dropped = [each.dropped for each in tokens]
    return _Prepared(kept, empty, sum(dropped), sum(d > 0 for d in dropped))


def _notes(
    prepared: _Prepared, checked: _Prepared, encoder: Encoder, settings: TrainSettings
) -> list[str]:
    """What a user should know before trusting the result."""
    notes = []
    if settings.lam:
        short, long = _in_term(prepared.examples, encoder, settings)
        if not short:
            notes.append(
                f"No machine text is shorter than {settings.len_threshold} tokens, so the "
                "positive-unlabelled term has nothing unlabelled. Add short texts, delete more "
                "sentences, or raise len_threshold."
            )
        if not long:
            notes.append(
                f"No human text has {settings.len_threshold} tokens, so the positive-unlabelled "
                "term has no positives. Add longer texts, or lower len_threshold."
            )
    shared = {e.text for e in prepared.examples} & {e.text for e in checked.examples}
    if shared:
        notes.append(
            f"{len(shared)} held-out texts are among the training texts as well: what is measured "
            "on them says too much."
        )
    return notes


def _in_term(
    examples: Sequence[Example], encoder: Encoder, settings: TrainSettings
) -> tuple[bool, bool]:
    """Whether the first pass has short machine texts, and long human ones."""
    short = long = False
    for start in range(0, len(examples), 256):
        some = examples[start : start + 256]
        views = [_view(settings, 0, start + i, e.text) for i, e in enumerate(some)]
        for example, tokens in zip(some, encoder.tokens(views, "truncate"), strict=True):
            is_long = len(tokens.windows[0]) >= settings.len_threshold
            short |= example.label == MACHINE and not is_long
            long |= example.label == HUMAN and is_long
        if short and long:
            break
    return short, long


def _facts(
    examples: Sequence[Example],
    held: Sequence[Example],
    prepared: _Prepared,
    checked: _Prepared,
    notes: list[str],
) -> dict[str, Any]:
    def count(given: Sequence[Example], label: int) -> int:
        return sum(e.label == label for e in given)

    sources: dict[str, dict[str, int]] = {"human": {}, "machine": {}}
    for e in (*examples, *held):
        kind = sources["machine" if e.label == MACHINE else "human"]
        name = e.source or "not stated"
        kind[name] = kind.get(name, 0) + 1
    return {
        "training": {"human": count(examples, HUMAN), "machine": count(examples, MACHINE)},
        "held_out": {"human": count(held, HUMAN), "machine": count(held, MACHINE)},
        "sources": sources,
        "empty": prepared.empty + checked.empty,
        "dropped_tokens": prepared.dropped_tokens + checked.dropped_tokens,
        "shortened": prepared.shortened + checked.shortened,
        "notes": notes,
    }


def _view(settings: TrainSettings, epoch: int, place: int, text: str) -> str:
    """A training text as one epoch sees it."""
    draw = random.Random(f"{settings.seed}:{epoch}:{place}")
    return multiscale(text, settings.deletion, draw)


def order_of(labels: Sequence[int], epoch: int, settings: TrainSettings) -> list[int]:
    """Places of the texts of an epoch, at random; balanced repeats those of the smaller class."""
    draw = np.random.default_rng([settings.seed, epoch])
    places = list(range(len(labels)))
    if settings.balanced:
        classes = [[i for i in places if labels[i] == y] for y in (HUMAN, MACHINE)]
        small, large = sorted(classes, key=len)
        extra = len(large) - len(small)
        again = [int(i) for i in draw.permutation(small)]
        places += [again[i % len(small)] for i in range(extra)]
    return [places[int(i)] for i in draw.permutation(len(places))]


def _fit(
    encoder: Encoder,
    examples: Sequence[Example],
    settings: TrainSettings,
    folder: Path | None,
    on_progress: Progress | None,
) -> None:
    """All steps, from the last checkpoint on if there is one."""
    import torch

    labels = [e.label for e in examples]
    loss_of = MPULoss(
        lam=settings.lam,
        prior=settings.prior,
        threshold=settings.len_threshold,
        max_length=settings.max_length,
        surrogate=settings.surrogate,
        prior_on=settings.prior_on,
    )
    optimiser = torch.optim.AdamW(
        encoder.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    done = checkpoint.load(folder, encoder.model, optimiser) if folder else 0
    a_pass = len(order_of(labels, 0, settings))
    steps = -(-a_pass // settings.batch)
    total = steps * settings.epochs
    device = next(encoder.model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    saved = time.monotonic()
    with torch.random.fork_rng(devices=devices):
        for epoch in range(done // steps, settings.epochs):
            order = order_of(labels, epoch, settings)
            for step in range(done % steps if epoch == done // steps else 0, steps):
                if on_progress is not None:
                    on_progress(epoch * steps + step, total)
                places = order[step * settings.batch : (step + 1) * settings.batch]
                texts = [_view(settings, epoch, i, examples[i].text) for i in places]
                rows = [t.windows[0] for t in encoder.tokens(texts, "truncate")]
                torch.manual_seed(settings.seed * 1_000_003 + epoch * steps + step)
                encoder.model.train()
                loss = loss_of(
                    encoder.logits(rows),
                    torch.tensor([labels[i] for i in places], device=device),
                    torch.tensor([len(row) for row in rows], device=device),
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimiser.step()
                if folder and time.monotonic() - saved > _SAVE_EVERY:
                    checkpoint.save(folder, encoder.model, optimiser, epoch * steps + step + 1)
                    saved = time.monotonic()
    encoder.model.eval()
    if on_progress is not None:
        on_progress(total, total)
    if folder and done < total:
        checkpoint.save(folder, encoder.model, optimiser, total)


def _calibrated(
    encoder: Encoder, held: Sequence[Example], settings: TrainSettings, facts: dict[str, Any]
) -> Detector:
    """The detector, calibrated and measured on the held-out texts at many lengths."""
    texts, labels = [], []
    for example in held:
        for view in runs(example.text):
            texts.append(view)
            labels.append(example.label)
    tokens = encoder.tokens(texts, "truncate")
    sizes = [len(each.windows[0]) for each in tokens]
    with one_thread(str(next(encoder.model.parameters()).device)):
        margins = encoder.margins([each.windows[0] for each in tokens])
    y = np.array(labels, dtype=np.int64)
    bins = fit_bins(
        margins,
        y,
        np.array(sizes, dtype=np.int64),
        target_fpr=settings.target_fpr,
        min_tpr=settings.min_tpr,
    )
    if len(bins) == 1:
        few = (
            f"The held-out texts ({len(held)}) are too few for a bound of each length: all lengths "
            "share one, and scores of short texts are worth little."
        )
        facts = {**facts, "notes": [*facts["notes"], few]}
    detector = Detector(encoder, settings, bins, facts)
    scores = [detector.judge(margins[i : i + 1], each) for i, each in enumerate(tokens)]
    found = summarise(scores, y, EDGES, 0)
    return Detector(encoder, settings, bins, {**facts, "evaluation": found.to_json()})
