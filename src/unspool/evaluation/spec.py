"""The words of every benchmark: task specs, length levels, samples, requests, responses, metrics.

All are frozen dataclasses that survive a trip through JSON: `X.from_json(x.to_json()) == x`. A
benchmark is a module of facts over them; the runner, the cache, the report and the scorer know
nothing else of it.

Scores of one sample are in 0-1. What a metric's `aggregate` returns is what the original release
prints, on its scale and with its rounding; the runner adds means, intervals and heat maps.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from unspool.errors import ConfigError
from unspool.types import Prompt

Kind: TypeAlias = Literal["generate", "loglikelihood", "choice"]
"""What is asked of the model: a text, the log-probability of one continuation, or of several that
share a prompt (the largest is the answer)."""

KeepPolicy: TypeAlias = Literal["error", "head", "tail", "ends", "own"]
"""What becomes of a prompt over the limit: refused, shortened to what is named (kept, not cut), or
left to the task's own `build`, which states what it dropped."""

LimitRule: TypeAlias = Literal["window", "thousands"]
"""Most tokens M of a prompt before any chat wrapper: `window` is window - wrapper - new tokens;
`thousands` is the originals' 1,000 * window / 1,024 - 500 (LongBench, LV-Eval)."""

ChatPolicy: TypeAlias = Literal["auto", "never", "always"]
"""`auto`: chat messages where the model has a template; `never`: the text as it is."""

Sizer: TypeAlias = Callable[[str], int]
"""Size of a finished prompt in the unit of a level. In tokens it counts the chat wrapper and the
tokens reserved for the answer too, so a prompt fits a level if `size(prompt) <= level.upper`."""

_UNITS = ("words", "chars", "tokens", "shots", "pairs")
_LEVEL = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<scale>[kKmM]?)")


@dataclass(frozen=True, slots=True)
class LengthLevel:
    """One length of a benchmark, in a unit that is never mixed with another.

    A sample belongs to the level if `lower <= size <= upper`.
    """

    unit: str
    """`words`, `chars`, `tokens`, `tokens:NAME` (of that tokenizer), `shots` or `pairs`."""
    nominal: int
    lower: int = 0
    upper: int = 0
    """0: the nominal length."""

    def __post_init__(self) -> None:
        if self.unit.partition(":")[0] not in _UNITS:
            raise ConfigError(
                f"A length is counted in {', '.join(_UNITS)} or tokens:NAME, got {self.unit!r}."
            )
        if self.nominal < 1:
            raise ConfigError(f"A length level must be >= 1, got {self.nominal}.")
        if not self.upper:
            object.__setattr__(self, "upper", self.nominal)
        if not 0 <= self.lower <= self.upper:
            raise ConfigError(
                f"Level {self.nominal}: lower {self.lower} is not between 0 and {self.upper}."
            )

    @property
    def name(self) -> str:
        """As it is typed: `8k`, `1500`. k is 1,024 for tokens and 1,000 for everything else."""
        k = _k(self.unit)
        for scale, letter in ((k * k, "m"), (k, "k")):
            if self.nominal % scale == 0:
                return f"{self.nominal // scale}{letter}"
        return str(self.nominal)

    @classmethod
    def parse(cls, text: str, unit: str) -> LengthLevel:
        """Read `8k`, `1.5k`, `2000` or `1m`, in a unit."""
        match = _LEVEL.fullmatch(text.strip())
        number = float(match["number"]) if match else 0.0
        k = _k(unit)
        scale = {"": 1, "k": k, "m": k * k}[match["scale"].lower()] if match else 1
        if not match or number * scale < 1 or not float(number * scale).is_integer():
            raise ConfigError(f"A length is a number such as 512, 8k or 1.5k, got {text!r}.")
        return cls(unit, int(number * scale))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LengthLevel:
        return cls(**row)


def _k(unit: str) -> int:
    return 1024 if unit.startswith("tokens") else 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """The facts of one task."""

    name: str
    """`benchmark/task`."""
    version: int = 1
    """Goes up when a number of the task would change."""
    ability: str
    """The group that the benchmark puts it in; `--tasks benchmark/ability` takes the group."""
    language: str = "en"
    kind: Kind = "generate"
    max_new_tokens: int = 32
    stop: tuple[str, ...] = ()
    overflow: KeepPolicy = "error"
    limit_rule: LimitRule = "window"
    chat: ChatPolicy = "auto"
    unit: str = "tokens"
    """What `--lengths` counts for this task: `tokens` are the model's own."""
    levels: tuple[LengthLevel, ...] = ()
    """Default levels; empty: the samples have their natural lengths, one level `all`."""
    depths: tuple[float, ...] = ()
    """Where in the context the needed text is put, 0 to 1; sample i goes to depth i mod their
    number. Empty: the task has no depth."""
    metric: str = ""
    """Id of the metric."""
    data_source: str = "generated"
    """Where the samples come from, in words."""
    prompt_source: Literal["own", "reference"] = "own"
    """`own`: worded by this project; `reference`: read at run time from the original release."""
    prompt_fingerprint: str = ""
    """`fingerprint()` of the templates."""
    licence: str = "Apache-2.0"
    """Of the data."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_.+-]+/[A-Za-z0-9_.+-]+", self.name):
            raise ConfigError(f"A task is named benchmark/task, got {self.name!r}.")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ConfigError(
                    f"Task {self.name}: {key} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, key)!r}."
                )
        if self.max_new_tokens < 1:
            raise ConfigError(
                f"Task {self.name}: max_new_tokens must be >= 1, got {self.max_new_tokens}."
            )
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f"Task {self.name}: depths must be in 0-1, got {self.depths}.")

    @property
    def benchmark(self) -> str:
        return self.name.partition("/")[0]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "stop": list(self.stop), "depths": list(self.depths)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TaskSpec:
        levels = tuple(LengthLevel.from_json(level) for level in row.get("levels", ()))
        lists = {key: tuple(row.get(key, ())) for key in ("stop", "depths")}
        return cls(**{**row, **lists, "levels": levels})


_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "overflow": get_args(KeepPolicy),
    "limit_rule": get_args(LimitRule),
    "chat": get_args(ChatPolicy),
}


def fingerprint(*texts: str) -> str:
    """Twelve hexadecimal digits that change when any of the texts does."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Parts:
    """The pieces of a prompt, in order. Their join is the prompt unless `build` says otherwise."""

    prefix: str = ""
    context: str = ""
    query: str = ""
    answer_prefix: str = ""
    """Begins the answer: after the chat template where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a task."""

    id: str
    """Stable, and unique within task and level."""
    parts: Parts
    references: tuple[str, ...]
    """Right answers. For `loglikelihood` the first is the continuation."""
    choices: tuple[str, ...] = ()
    """Continuations of a `choice` task; the right ones are those in `references`."""
    level: str = "all"
    """Name of its length level."""
    depth: float | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Size of the prompt by unit; the runner fills in words, chars and tokens."""
    seed: int = 0
    language: str = "en"
    classes: tuple[str, ...] = ()
    """Every label, where the metric needs them."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the metric or the report needs, as JSON values."""

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        return {**row, **{k: list(row[k]) for k in ("references", "choices", "classes")}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Sample:
        lists = {k: tuple(row.get(k, ())) for k in ("references", "choices", "classes")}
        return cls(**{**row, **lists, "parts": Parts(**row["parts"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of a model, before or after it was made to fit."""

    kind: Kind
    prompt: Prompt
    """A str is the text before any chat wrapper; messages are sent through the template."""
    system: str = ""
    """A system message, where the prompt is wrapped."""
    answer_prefix: str = ""
    """Begins the answer; not part of `prompt`."""
    continuations: tuple[str, ...] = ()
    """Scored after the prompt; several share one call."""
    max_new_tokens: int = 32
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    repeat: int = 0
    dropped_tokens: int = 0
    """What was cut from the prompt to make it fit."""

    def to_json(self) -> dict[str, Any]:
        prompt = self.prompt if isinstance(self.prompt, str) else [dict(m) for m in self.prompt]
        lists = {"continuations": list(self.continuations), "stop": list(self.stop)}
        return {**asdict(replace(self, prompt="")), **lists, "prompt": prompt}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Request:
        lists = {key: tuple(row.get(key, ())) for key in ("continuations", "stop")}
        prompt = row["prompt"]
        prompt = prompt if isinstance(prompt, str) else tuple(dict(m) for m in prompt)
        return cls(**{**row, **lists, "prompt": prompt})

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the answer."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a model answered, and what it cost. Seconds and bytes never reach `report.json`."""

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of the prompt that were not read anew: all of them if the cache answered."""
    truncated_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    logprobs: tuple[float, ...] = ()
    """Nats of each continuation."""
    logprob_tokens: tuple[int, ...] = ()
    """Tokens of each continuation, for a score by token."""
    greedy: tuple[bool, ...] = ()
    """Whether greedy decoding would write the continuation."""

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        return {**row, **{k: list(row[k]) for k in ("logprobs", "logprob_tokens", "greedy")}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Response:
        lists = {k: tuple(row.get(k, ())) for k in ("logprobs", "logprob_tokens", "greedy")}
        return cls(**{**row, **lists})


@runtime_checkable
class Metric(Protocol):
    """From one answer to numbers, and from the numbers of many to the benchmark's own.

    Pure: no files, no network, no state. It owns the post-processing of the text, since the
    originals differ there.
    """

    @property
    def id(self) -> str:
        """Name and version of the arithmetic, as `TaskSpec.metric` states it."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose version moves the number; the manifest pins them."""

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """Numbers of one answer. `score`, in 0-1, is the main one; it must be there and finite.
        Others (counts for a corpus-level figure) are kept and given to `aggregate`."""

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """What the original release prints of a non-empty list; `score` is the main number."""


def mean_percent(scores: Sequence[Mapping[str, float]], digits: int = 2) -> float:
    """`round(100 * mean, digits)` of the main score, summed in order as the originals do."""
    if not scores:
        raise ConfigError("There is nothing to average: the list of scores is empty.")
    total = 0.0
    for each in scores:
        total += each["score"]
    value = 100 * total / len(scores)
    return round(value, digits) if math.isfinite(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Where the real data of a benchmark is, pinned."""

    dataset: str
    """Hugging Face dataset id, or the address of the release."""
    files: tuple[str, ...]
    """Files within it that this task reads."""
    revision: str
    """Commit; `""` where the release has none that can be pinned, which the report then says."""
    schema: Mapping[str, str]
    """Field to type, of one record."""
    licence: str = ""
    note: str = ""
    """What else a person who fetches it must know: gated, a script, a mirror."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a run takes its samples from."""

    kind: Literal["generate", "release"] = "generate"
    path: str | None = None
    """`generate`: texts to build from, if the task needs any; `release`: the folder, zip or file
    with the original data, or `hub` to fetch it."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a prompt must fit into, for tasks with `overflow="own"`."""

    limit: int | None = None
    """Most tokens of the prompt before any chat wrapper; None: no limit is known."""
    count: Callable[[str], int] = len
    """Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of a prediction file of the original release."""

    sample: Sample
    response: Response
