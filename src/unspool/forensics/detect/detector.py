"""A trained detector: scores of texts, of the parts of a text, and its folder on disk.

What: the probability of machine by the classifier itself, the one calibrated for the text's length,
and whether it passes the bound of that length; short lengths give no decision.
Source: Tian et al. (2023), "Multiscale Positive-Unlabeled Detection of AI-Generated Texts", for the
classifier; the calibration is ours (`calibration.py`).
Differs from the released code: texts longer than the encoder reads are refused, shortened or read
in windows, and the score says which.
Cost: on two CPU cores all-MiniLM-L6-v2 reads some thousand tokens a second.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool._optional import require
from unspool.corpus.split import sentences, windows
from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.forensics._folder import PLAN
from unspool.forensics.detect.calibration import Bin, bin_of, probabilities
from unspool.forensics.detect.cleaning import clean
from unspool.forensics.detect.encoder import Encoder, Tokens, load_encoder, one_thread
from unspool.forensics.detect.settings import TrainSettings
from unspool.index._files import canonical, storage, sync_folder, write_atomic
from unspool.types import Document, Overflow, Span

DETECTOR, MODEL = "detector.json", "model"
_FORMAT = 1
EMPTY, SHORT, UNDECIDED = "empty", "too short to say", "no decision at this length"


@dataclass(frozen=True, slots=True)
class Score:
    """What a detector says of a text."""

    machine: float | None
    """Probability of machine by the classifier alone; None: the text is empty."""
    calibrated: float | None
    """The same for texts of this length, where both classes are as frequent as in validation."""
    tokens: int
    """Tokens read, special ones included."""
    flagged: bool | None
    """Whether it passes the bound of its length; None: see `reason`."""
    reason: str = ""
    windows: int = 1
    dropped_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SpanScore:
    """A part of a text and its score."""

    span: Span
    score: Score

    def to_json(self) -> dict[str, Any]:
        return {**self.span.to_json(), **self.score.to_json()}


@dataclass(frozen=True, slots=True)
class Detector:
    """A classifier, what it was trained with, and what its margins mean."""

    encoder: Encoder
    settings: TrainSettings
    bins: tuple[Bin, ...]
    """From the shortest length to the longest; empty: not calibrated, nothing is flagged."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the training: counts, sources, notes, evaluation."""

    def score(
        self,
        texts: Sequence[str],
        *,
        on_overflow: Overflow = "error",
        names: Sequence[str] | None = None,
    ) -> list[Score]:
        """Score texts, in their order.

        Args:
            texts: Any texts; an empty one has no score.
            on_overflow: What to do with a text that is longer than the encoder reads: refuse it,
                keep its first tokens and count the rest, or read several windows of it, whose
                margins are averaged.
            names: What an error calls each text.

        Raises:
            OverflowPolicyError: A text is too long and may not be shortened.
        """
        cleaned = [self.cleaned(text) for text in texts]
        places = [i for i, text in enumerate(cleaned) if text]
        tokens = self.encoder.tokens(
            [cleaned[i] for i in places], on_overflow, [names[i] for i in places] if names else None
        )
        rows = [window for each in tokens for window in each.windows]
        with one_thread(str(next(self.encoder.model.parameters()).device)):
            margins = self.encoder.margins(rows)
        out = [Score(None, None, 0, None, EMPTY, 0) for _ in texts]
        at = 0
        for place, each in zip(places, tokens, strict=True):
            own = margins[at : at + len(each.windows)]
            at += len(each.windows)
            out[place] = self.judge(own, each)
        return out

    def score_spans(
        self,
        text: str,
        window: Literal["sentence"] | int = "sentence",
        *,
        document: str = "text",
        on_overflow: Overflow = "error",
    ) -> list[SpanScore]:
        """Score the parts of a text: each sentence, or windows of whole sentences.

        Args:
            text: Any text.
            window: "sentence", or most tokens of a window.
            document: What the spans are of.
            on_overflow: As for `score`; of a single long sentence.
        """
        if window == "sentence":
            data = text.encode()
            spans = [
                Span(document, start, end, data[start:end].decode())
                for start, end in sentences(text)
            ]
        else:
            size = min(window, self.encoder.room)
            spans = list(windows(Document(document, text), size, unit=self.encoder.sizes))
        scores = self.score([span.text for span in spans], on_overflow=on_overflow)
        return [SpanScore(span, s) for span, s in zip(spans, scores, strict=True)]

    def cleaned(self, text: str) -> str:
        """The text as the encoder sees it; empty if there is nothing but white space."""
        return clean(text) if self.settings.clean == "en" else text.strip()

    def judge(self, margins: NDArray[np.float64], tokens: Tokens) -> Score:
        """What the margins of a text's windows say of it."""
        sizes = [len(window) for window in tokens.windows]
        margin = float(np.average(margins, weights=sizes))
        machine = float(probabilities(np.array([margin]), 1.0)[0])
        place = bin_of(self.bins, max(sizes))
        calibrated, flagged, reason = None, None, UNDECIDED
        if place is not None:
            calibrated = float(probabilities(np.array([margin]), place.temperature)[0])
            if place.decided and place.threshold is not None:
                flagged, reason = calibrated > place.threshold, ""
            elif any(b.decided and b.low > place.low for b in self.bins):
                reason = SHORT
        return Score(machine, calibrated, sum(sizes), flagged, reason, len(sizes), tokens.dropped)

    @property
    def name(self) -> str:
        """What tells this detector from another: a digest of its weights and calibration."""
        return str(self.facts.get("name", "unsaved"))

    def save(self, folder: str | Path) -> Detector:
        """Write weights and calibration into a folder; `detector.json` is written last.

        Returns the detector with the name that it got.
        """
        place = Path(folder)
        with storage(place):
            place.mkdir(parents=True, exist_ok=True)
            self._save_model(place / MODEL)
            sums = _sums(place / MODEL)
            value = {
                "format": _FORMAT,
                "settings": asdict(self.settings),
                "bins": [b.to_json() for b in self.bins],
                "files": sums,
            }
            name = hashlib.sha256(canonical(value)).hexdigest()[:12]
            facts = {**self.facts, "name": name}
            write_atomic(place / DETECTOR, [canonical({**value, "facts": facts})])
        return Detector(self.encoder, self.settings, self.bins, facts)

    def _save_model(self, folder: Path) -> None:
        from unspool.backends.embedded import quiet_loading

        making = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            with quiet_loading():
                self.encoder.model.save_pretrained(making)
                self.encoder.tokenizer.save_pretrained(making)
            for path in sorted(making.iterdir()):
                path.chmod(0o644)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            making.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(making, folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Detector:
        """Read what `save` wrote; weights that were changed are refused.

        Raises:
            PathNotFound: There is no detector.
            InputError: A file is not what was written.
        """
        place = Path(folder)
        head = describe(place)
        if _sums(place / MODEL) != head.files:
            raise InputError(
                f"The weights in {place.name} are not those that were saved. Restore the folder, "
                "or train the detector again."
            )
        encoder = load_encoder(
            str(place / MODEL), head.settings.max_length, device=device_of(device)
        )
        return cls(encoder, head.settings, head.bins, head.facts)


class Head(NamedTuple):
    """What a detector's folder says of it."""

    settings: TrainSettings
    bins: tuple[Bin, ...]
    facts: dict[str, Any]
    files: dict[str, str]
    """SHA-256 of the files of the model."""


def describe(folder: Path) -> Head:
    """Read `detector.json` alone; errors are those of `Detector.load`."""
    if not (folder / DETECTOR).is_file():
        more = " Its training was not finished." if (folder / PLAN).is_file() else ""
        raise PathNotFound(
            f"There is no detector in {str(folder)!r}.{more} 'unspool audit detect train DATA "
            f"--out {folder}' makes one."
        )
    try:
        value = orjson.loads((folder / DETECTOR).read_bytes())
        if value["format"] != _FORMAT:
            raise InputError(f"{DETECTOR} is of another version. Train the detector again.")
        return Head(
            TrainSettings(**value["settings"]),
            tuple(Bin(**each) for each in value["bins"]),
            dict(value["facts"]),
            dict(value["files"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{DETECTOR} in {folder.name} is not of a detector.") from error


def device_of(device: str) -> str:
    """CUDA if there is one and `device` is auto.

    Raises:
        ConfigError: There is no such device.
        MissingExtra: torch is not installed.
    """
    torch = require("torch", extra="read", purpose="Detecting machine text")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r} was asked for, and torch finds no CUDA here.")
    return device


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
