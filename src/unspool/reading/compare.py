"""Methods side by side on one model and one text: loss, recall, speed, memory, what was dropped.

What: reads the same tokens by each method and measures them one after the other, in one process.
Every finished measurement is a line in a file, so an interrupted comparison goes on where it
stopped.
Source: the evaluation that LM-Infinite, InfLLM and Self-Extend each did with tools of their own.
Differs from those: the reference is the stock model in fresh windows over the same tokens, and the
tokens that a method gave up are counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unspool.errors import ConfigError, RunConflict, UnspoolError
from unspool.extension import extend
from unspool.methods import resolve_reading
from unspool.reading.losses import breaks_at, by_position, fresh_losses, method_losses
from unspool.reading.passkey import make_passkey

if TYPE_CHECKING:
    from unspool.extension import Extension

Told = Callable[[str, int, int], None]
"""(what, tokens done, tokens in all)"""

FRESH = "fresh windows"
"""Name of the reference."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One method on one text."""

    method: str
    buckets: tuple[tuple[int, float], ...] = ()
    """(first position, mean nats a token)."""
    breaks: int | None = None
    """First position from which it is worse than fresh windows for good."""
    passkeys: tuple[tuple[float, bool], ...] = ()
    """(depth, found)."""
    prefill_rate: float = 0.0
    """Tokens a second."""
    decode_rate: float = 0.0
    kept_bytes: int = 0
    dropped_tokens: int = 0
    exact_within: int | None = None
    """Tokens, written ones included, up to which the method is the stock model: figures of a text
    that is no longer say nothing of the method. None: the method is not a matter of length."""
    error: str = ""
    """Why there is no measurement, if there is none."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    ids: Sequence[int] = field(repr=False)
    methods: tuple[str, ...]
    bucket: int = 1024
    window: int = 4096
    """Of the fresh windows."""
    depths: tuple[float, ...] = (0.1, 0.5, 0.9)
    written: int = 16
    """Tokens decoded to measure the speed of writing."""
    seed: int = 0

    def identity(self, model: str) -> dict[str, Any]:
        """What a file of results must agree with."""
        digest = hashlib.sha256(np.asarray(self.ids, np.int64).tobytes()).hexdigest()
        return {
            "model": model,
            "tokens": len(self.ids),
            "text": digest[:16],
            "bucket": self.bucket,
            "window": self.window,
            "depths": list(self.depths),
            "written": self.written,
            "seed": self.seed,
        }


def compare(
    model: Any, plan: Plan, *, out: Path | None = None, tell: Told | None = None
) -> list[Compared]:
    """Measure every method of a plan; the first result is the reference.

    Args:
        model: A loaded `TransformersModel`, not extended.
        plan: What to measure.
        out: A folder for the results; finished ones found there are not measured again.
        tell: Called with what is being done and how far it is.

    Raises:
        ConfigError: A method is unknown or has an impossible setting.
        RunConflict: The folder holds results of another model, text or setting.
    """
    for spec in plan.methods:
        resolve_reading(spec)
    results = _Results(out, plan.identity(model.name))
    done = results.read()
    if FRESH not in done:
        done[FRESH] = results.add(_fresh(model, plan, results, tell))
    reference = results.losses[FRESH]
    for spec in plan.methods:
        if spec not in done:
            done[spec] = results.add(_measure(model, spec, plan, reference, results, tell))
    return [done[name] for name in (FRESH, *plan.methods)]


def _fresh(model: Any, plan: Plan, results: _Results, tell: Told | None) -> Compared:
    started = time.perf_counter()
    losses = fresh_losses(
        model.model, plan.ids, plan.window, tell=_told(tell, FRESH, len(plan.ids))
    )
    results.keep(FRESH, losses)
    seconds = time.perf_counter() - started
    return Compared(
        FRESH,
        tuple(by_position(losses, plan.bucket)),
        prefill_rate=len(plan.ids) / seconds,
    )


def _measure(
    model: Any, spec: str, plan: Plan, reference: Any, results: _Results, tell: Told | None
) -> Compared:
    """One method: its losses, its passkeys, its speed."""
    try:
        with extend(model.model, spec, tokenizer=model.tokenizer) as extension:
            losses = None
            if extension.prompt_method is None:  # else a text without a question has no loss
                losses = method_losses(extension, plan.ids, tell=_told(tell, spec, len(plan.ids)))
                results.keep(spec, losses)
            told = _told(tell, f"{spec}, passkey", len(plan.ids))
            runs = [
                _passkey(model.tokenizer, extension, plan, number, told)
                for number in range(len(plan.depths))
            ]
            exact = extension.exact_within
    except (UnspoolError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        return Compared(spec, error=str(error).splitlines()[0])
    last = runs[-1] if runs else _Run(False, 0.0, 0.0, 0, 0)
    return Compared(
        spec,
        () if losses is None else tuple(by_position(losses, plan.bucket)),
        None if losses is None else breaks_at(losses, reference, bucket=plan.bucket),
        tuple((depth, run.found) for depth, run in zip(plan.depths, runs, strict=True)),
        prefill_rate=float(np.median([run.read_rate for run in runs])) if runs else 0.0,
        decode_rate=last.decode_rate,
        kept_bytes=last.kept_bytes,
        dropped_tokens=last.dropped_tokens,
        exact_within=exact,
    )


class _Run(NamedTuple):
    """One passkey."""

    found: bool
    read_rate: float
    decode_rate: float
    kept_bytes: int
    dropped_tokens: int


def _passkey(
    tokenizer: Any,
    extension: Extension,
    plan: Plan,
    number: int,
    told: Callable[[int], None],
) -> _Run:
    """Hide a number, read, and write."""
    import torch

    total = len(plan.ids)
    prompt = make_passkey(tokenizer, plan.ids, total, plan.depths[number], seed=plan.seed + number)
    began = time.perf_counter()
    ids: Sequence[int] = prompt.ids
    if extension.prompt_method is not None:
        ids = extension.reduce(prompt.ids, plan.written).ids
    cache = extension.new_cache()
    cache.prefill_end = len(ids)
    with torch.inference_mode():
        logits = _prefill(extension, ids, cache, told)
        read = time.perf_counter() - began
        began = time.perf_counter()
        written = _decode(extension, logits, cache, plan.written)
        wrote = time.perf_counter() - began
    report = extension.report(cache)
    return _Run(
        found=prompt.found(tokenizer.decode(written)),
        read_rate=total / read,
        decode_rate=plan.written / wrote,
        kept_bytes=report.bytes_device + report.bytes_host + report.bytes_disk,
        dropped_tokens=report.dropped_tokens + total - len(ids),
    )


def _prefill(extension: Any, ids: Sequence[int], cache: Any, tell: Any) -> Any:
    import torch

    step = extension.prefill_chunk
    options = {"logits_to_keep": 1} if extension.keeps_logits else {}
    logits = None
    for start in range(0, len(ids), step):
        chunk = torch.tensor([ids[start : start + step]], device=extension.facts.device)
        logits = extension.model(chunk, past_key_values=cache, use_cache=True, **options).logits
        tell(min(start + step, len(ids)))
    return logits


def _decode(extension: Any, logits: Any, cache: Any, count: int) -> list[int]:
    import torch

    written: list[int] = []
    for _ in range(count):
        written.append(int(logits[0, -1].argmax()))
        one = torch.tensor([[written[-1]]], device=extension.facts.device)
        logits = extension.model(one, past_key_values=cache, use_cache=True).logits
    return written


def _told(tell: Told | None, what: str, total: int) -> Callable[[int], None]:
    return (lambda done: None) if tell is None else (lambda done: tell(what, done, total))


class _Results:
    """Finished measurements in a folder: one line each, and the losses of every token."""

    def __init__(self, out: Path | None, identity: dict[str, Any]) -> None:
        self.out = out
        self.losses: dict[str, Any] = {}
        if out is None:
            return
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file; --out takes a folder for the results.")
        out.mkdir(parents=True, exist_ok=True)
        path = out / "comparison.json"
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            for key, value in identity.items():
                if before.get(key) != value:
                    raise RunConflict(
                        f"{out} holds a comparison with {key}={before.get(key)!r}, and this one "
                        f"has {value!r}. Choose another --out."
                    )
        else:
            write_atomically(path, (json.dumps(identity, indent=1, sort_keys=True) + "\n").encode())

    def read(self) -> dict[str, Compared]:
        """What is finished, by method; a torn last line is measured again."""
        done: dict[str, Compared] = {}
        if self.out is None or not (self.out / "rows.jsonl").exists():
            return done
        for line in (self.out / "rows.jsonl").read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            row["buckets"] = tuple((int(p), float(n)) for p, n in row["buckets"])
            row["passkeys"] = tuple((float(d), bool(f)) for d, f in row["passkeys"])
            losses = self.out / f"{_file_name(row['method'])}.npy"
            if row["error"] or not row["buckets"] or losses.exists():
                done[row["method"]] = Compared(**row)
            if losses.exists():
                self.losses[row["method"]] = np.load(losses, allow_pickle=False)
        return done

    def keep(self, method: str, losses: Any) -> None:
        """Losses of every token, for the plot and as the reference of later methods."""
        import io

        self.losses[method] = losses
        if self.out is not None:
            buffer = io.BytesIO()
            np.save(buffer, losses, allow_pickle=False)
            write_atomically(self.out / f"{_file_name(method)}.npy", buffer.getvalue())

    def add(self, result: Compared) -> Compared:
        if self.out is not None:
            path = self.out / "rows.jsonl"
            kept = path.read_bytes() if path.exists() else b""
            if kept and not kept.endswith(b"\n"):
                kept = kept[: kept.rfind(b"\n") + 1]
            line = json.dumps(result.to_json(), sort_keys=True).encode() + b"\n"
            write_atomically(path, kept + line)
        return result


def _file_name(method: str) -> str:
    plain = "".join(c if c.isalnum() or c in "-_=" else "_" for c in method)[:60]
    return f"{plain}-{hashlib.sha256(method.encode()).hexdigest()[:8]}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
