"""Ask a model for the suffixes of prefixes, many times each, and keep what it said and how likely.

Source: Zhang et al. (2023), "Ethicist", section 3: K samples with top-p 0.7 at temperature 0.8.
Differs from the released code: the greedy and the beam text are always there beside the samples;
sample k of a pair depends on (seed, pair, k) alone; records are written prefix by prefix, and the
same call goes on where it was stopped; `adaptive` stops a prefix whose answer is clear.
Cost: K * T tokens a prefix, T being the suffix, `batch` rows at a time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unspool._overflow import fit as check_room
from unspool.errors import ConfigError
from unspool.forensics.extract._resume import ANSWERS, resumed
from unspool.forensics.extract.confidence import scores
from unspool.forensics.extract.decode import Written, beam, write
from unspool.forensics.extract.loss import suffix_losses
from unspool.forensics.extract.pairs import Pair, check_apart, check_tokens
from unspool.forensics.extract.prompt import SoftPrompt, check_fits, enough_memory, network_of
from unspool.forensics.extract.training import window_of

_ROUND = 8
"""Samples between two looks of `adaptive`, and the agreeing ones that it asks for."""
_CLEAR = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """How answers are drawn."""

    samples: int = 100
    """Of each prefix, besides the greedy text."""
    top_p: float | int = 0.7
    temperature: float | int = 0.8
    beams: int = 4
    """Of the beam search; 0: none."""
    suffix: int | None = None
    """Tokens to write; None: as many as the pairs' suffixes have."""
    batch: int = 64
    """Rows at a time."""
    adaptive: bool = False
    """Stop a prefix when 8 samples agree and the confidence is above 0.95."""
    seed: int = 2022

    def __post_init__(self) -> None:
        if self.samples < 0 or self.beams < 0 or self.batch < 1:
            raise ConfigError(
                f"samples and beams must be >= 0 and batch >= 1, got {self.samples}, {self.beams} "
                f"and {self.batch}."
            )
        if not 0 < self.top_p <= 1 or self.temperature <= 0:
            raise ConfigError(
                f"top_p must be in (0, 1] and temperature above 0, got {self.top_p} and "
                f"{self.temperature}. The greedy text is always there."
            )
        if self.suffix is not None and self.suffix < 1:
            raise ConfigError(f"suffix must be >= 1, got {self.suffix}.")


def attack(
    model: Any,
    pairs: Sequence[Pair],
    settings: AttackSettings | None = None,
    *,
    prompt: SoftPrompt | None = None,
    reference: Any = None,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Answers to every prefix; with `out`, go on where a run was stopped.

    Args:
        model: A `TransformersModel` or a causal language model of transformers.
        pairs: Their prefixes are asked; their suffixes are not looked at, but for the length.
        settings: How answers are drawn.
        prompt: Stands before every prefix; None: the model as it is.
        reference: A second model with the same tokenizer, whose loss of every sample is kept.
        out: A JSON lines file that records are appended to.
        force: Ask prefixes that the prompt was trained on.
        on_progress: Called with tokens written and tokens in all.

    Returns:
        A record a pair: `greedy`, `beam` and the distinct `samples` with `tokens`, `text`, `loss`
        (mean nats a token), `zlib` (bytes), `count` and, with a reference, `reference`.

    Raises:
        InputError: Prefixes of different lengths, foreign ids, or prefixes that trained the prompt.
        OverflowPolicyError: Prompt, prefix and suffix are longer than the model's window.
        RunConflict: `out` was begun with other settings, another model or prompt.
        Unsupported: The model is behind an endpoint.
        BackendError: The device ran out of memory.
    """
    settings = settings or AttackSettings()
    network = network_of(model)
    prefix, known = check_tokens(
        pairs, network.get_input_embeddings().num_embeddings, suffixes=False
    )
    length = settings.suffix or known
    if not length:
        raise ConfigError("The pairs have no suffixes: say how many tokens to write (suffix).")
    vectors = None
    if prompt is not None and prompt.tokens:
        check_fits(network, prompt.vectors)
        if not force:
            check_apart(prompt.trained_on, pairs, "to be asked")
        vectors = prompt.vectors.to(network.device)
    needed = (prompt.tokens if prompt else 0) + prefix + length
    check_room(range(needed), window_of(network), "error", what="Prompt, prefix and suffix")
    ask = _Asker(model, network, vectors, reference, settings, length)
    total = len(pairs) * (settings.samples + 1) * length
    group = max(1, settings.batch // (settings.samples + 1))
    groups = [pairs[at : at + group] for at in range(0, len(pairs), group)]
    done: dict[str, dict[str, Any]] = {}
    head = _head(model, prompt, reference, settings, length)
    with resumed(out, head) as (held, append):
        done.update((record["id"], record) for record in held)
        for number, chosen in enumerate(groups):
            # A group that was cut is drawn again as a whole, so that rows meet as they did.
            if any(pair.id not in done for pair in chosen):
                with enough_memory(head["model"] or "The model"):
                    records = ask(chosen)
                for record in records:
                    if record["id"] not in done:
                        append(record)
                        done[record["id"]] = record
            asked = min(len(pairs), (number + 1) * group)
            on_progress(asked * (settings.samples + 1) * length, total)
    return [done[pair.id] for pair in pairs]


class _Asker:
    """Draws the records of a group of pairs."""

    def __init__(
        self,
        model: Any,
        network: Any,
        vectors: Tensor | None,
        reference: Any,
        settings: AttackSettings,
        length: int,
    ) -> None:
        self.network, self.vectors, self.settings, self.length = network, vectors, settings, length
        self.tokenizer = getattr(model, "tokenizer", None)
        self.reference = None if reference is None else network_of(reference)

    def __call__(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        settings = self.settings
        found: list[dict[tuple[int, ...], list[float]]] = [{} for _ in pairs]
        greedy: list[tuple[tuple[int, ...], float]] = []
        step = min(_ROUND, settings.samples) if settings.adaptive else settings.samples
        active = list(range(len(pairs)))
        for low in range(0, max(1, settings.samples), max(1, step)):
            trials = list(range(low, min(low + step, settings.samples)))
            first = low == 0
            chosen = [pairs[i] for i in active]
            for i, rows in zip(active, self._rows(chosen, trials, first), strict=True):
                if first:
                    greedy.append(rows.pop(0))
                for tokens, loss in rows:
                    found[i].setdefault(tokens, []).append(loss)
            active = [i for i in active if not (settings.adaptive and _clear(found[i]))]
            if not active:
                break
        beams = self._beams(pairs) if settings.beams else [None] * len(pairs)
        return [self._record(*row) for row in zip(pairs, greedy, beams, found, strict=True)]

    def _beams(self, pairs: Sequence[Pair]) -> list[tuple[tuple[int, ...], float] | None]:
        found: list[tuple[tuple[int, ...], float] | None] = []
        width = self.settings.beams
        most = max(1, self.settings.batch // width)
        for low in range(0, len(pairs), most):
            prefixes = self._prefixes(pairs[low : low + most])
            with torch.inference_mode():
                texts = beam(self.network, self.vectors, prefixes, self.length, width)
            found.extend(_rows_of(texts))
        return found

    def _rows(
        self, pairs: Sequence[Pair], trials: Sequence[int], with_greedy: bool
    ) -> list[list[tuple[tuple[int, ...], float]]]:
        """For each pair the greedy text, if it is asked for, and its samples."""
        wanted: list[int | None] = [None, *trials] if with_greedy else [*trials]
        most = max(1, self.settings.batch // len(pairs))
        found: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in pairs]
        prefixes = self._prefixes(pairs)
        for low in range(0, len(wanted), most):
            part = wanted[low : low + most]
            numbers = np.stack([self._numbers(pair, trial) for pair in pairs for trial in part])
            with torch.inference_mode():
                texts = write(
                    self.network,
                    self.vectors,
                    prefixes,
                    torch.from_numpy(numbers).to(prefixes.device),
                    torch.tensor([t is None for _ in pairs for t in part], device=prefixes.device),
                    top_p=self.settings.top_p,
                    temperature=self.settings.temperature,
                )
            rows = _rows_of(texts)
            for own in found:
                own.extend(next(rows) for _ in part)
        return found

    def _numbers(self, pair: Pair, trial: int | None) -> np.ndarray[Any, np.dtype[np.float64]]:
        if trial is None:
            return np.zeros(self.length)
        name = hashlib.sha256(pair.id.encode()).digest()[:8]
        seed = [self.settings.seed, int.from_bytes(name, "little"), trial]
        return np.random.default_rng(seed).random(self.length)

    def _prefixes(self, pairs: Sequence[Pair]) -> Tensor:
        return torch.tensor([pair.prefix for pair in pairs], device=self.network.device)

    def _record(
        self,
        pair: Pair,
        greedy: tuple[tuple[int, ...], float],
        best: tuple[tuple[int, ...], float] | None,
        found: dict[tuple[int, ...], list[float]],
    ) -> dict[str, Any]:
        before = self._text(pair.prefix)
        samples = [
            {"count": len(losses), **self._answer(pair, before, tokens, min(losses))}
            for tokens, losses in found.items()
        ]
        # Equal texts may differ in the last bits of their loss, and order must not depend on that.
        samples.sort(key=lambda s: (-s["count"], s["tokens"]))
        return {
            "id": pair.id,
            "split": pair.split,
            "key": pair.key,
            "prefix_text": before,
            "drawn": sum(map(len, found.values())),
            "greedy": self._answer(pair, before, *greedy),
            "beam": None if best is None else self._answer(pair, before, *best),
            "samples": samples,
        }

    def _answer(
        self, pair: Pair, before: str | None, tokens: tuple[int, ...], loss: float
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"tokens": list(tokens), "loss": loss}
        if before is not None:
            # Together, since some tokenizers drop the blank before a text's first word.
            whole = str(self._text((*pair.prefix, *tokens)))
            text = whole[len(before) :] if whole.startswith(before) else str(self._text(tokens))
            answer |= {"text": text, "zlib": len(zlib.compress(text.encode()))}
        if self.reference is not None:
            with torch.inference_mode():
                sides = [
                    torch.tensor([ids], device=self.reference.device)
                    for ids in (pair.prefix, tokens)
                ]
                answer["reference"] = float(suffix_losses(self.reference, None, *sides).mean())
        return answer

    def _text(self, ids: Sequence[int]) -> str | None:
        if self.tokenizer is None:
            return None
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _rows_of(texts: Written) -> Iterator[tuple[tuple[int, ...], float]]:
    for row, loss in zip(texts.tokens.tolist(), texts.losses.tolist(), strict=True):
        yield tuple(row), loss


def _clear(found: dict[tuple[int, ...], list[float]]) -> bool:
    rows = [{"tokens": t, "count": len(ls), "loss": min(ls)} for t, ls in found.items()]
    counts = map(len, found.values())
    return any(c > _CLEAR and n >= _ROUND for c, n in zip(scores(rows), counts, strict=True))


def _head(
    model: Any, prompt: SoftPrompt | None, reference: Any, settings: AttackSettings, length: int
) -> dict[str, Any]:
    vectors = None if prompt is None else prompt.vectors.float().cpu().numpy().tobytes()
    return {
        "kind": ANSWERS,
        "format": 1,
        "model": str(getattr(model, "name", "") or network_of(model).config.name_or_path),
        "reference": None if reference is None else str(getattr(reference, "name", "another")),
        "prompt": None if vectors is None else hashlib.sha256(vectors).hexdigest()[:16],
        "settings": {**asdict(settings), "suffix": length},
    }
