"""Which way to read a text for a question: from what was measured, else from stated rules.

What: `recommend` ranks methods for a length and a task, `choose` takes one for `ask`, and both say
why; `list_methods` tells everything there is to know about every method.
Source: the claim rows of this project.
Differs from a fixed table: a method that was not measured is never preferred to one that was.
Cost: reads the claim rows; loads no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from unspool import catalog
from unspool.errors import ConfigError
from unspool.methods import Method, method_class, method_names, options, spell_value

Task = Literal["stream", "recall", "qa"]

_MEASURED = {"xl3m": "answered at 32k", "infini-retri": "answered at 32k"}
"""Figures that are compared with BM25 on the same questions, by system."""
_BASELINE = "answered at 32k from passages of BM25"
_CPU_TOKENS = 50_000
"""Tokens that a method may read a question on a CPU: minutes, with a model of 135M parameters."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What there is to know of a method before using it."""

    name: str
    kind: str
    """reader, or the family: frequency, remap, logits, prompt, compression, attention."""
    options: dict[str, str]
    """Default of each, as it would be typed."""
    recalls: str
    costs: str
    trains: bool
    exportable: bool
    """Whether other engines can take it from `config.rope_parameters`."""
    paper: str
    measured: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """A method as it would be typed, and why."""

    method: str
    reason: str


def list_methods() -> list[MethodInfo]:
    """Every method of `extend` and of `--method`, by name.

    Without the packages of `unspool[read]` some have no more than a name.
    """
    proofs = catalog.proofs()
    papers = {s.slug: f"{s.authors} {s.year}" for s in catalog.systems()}
    found = []
    for name in method_names():
        try:
            kind = method_class(name)
        except ImportError:
            found.append(_undescribed(name))
            continue
        found.append(
            MethodInfo(
                name=name,
                kind=kind.family,
                options={key: spell_value(default) for key, default, _ in options(kind)},
                recalls=kind.recalls,
                costs=kind.costs,
                trains=kind.trains,
                exportable=kind.export is not Method.export,
                paper=papers.get(kind.system, ""),
                measured=catalog.proof_text(proofs.get(kind.system, ())) if kind.system else "",
            )
        )
    return found


def _undescribed(name: str) -> MethodInfo:
    return MethodInfo(
        name=name,
        kind="needs unspool[read]",
        options={},
        recalls="",
        costs="",
        trains=False,
        exportable=False,
        paper="",
        measured="",
    )


def recommend(model: Any, length: int, task: Task = "qa") -> list[Choice]:
    """Methods for a model, a text and a task, best first.

    Args:
        model: A loaded model of any kind, or its window in tokens (None: it has no limit).
        length: Tokens of the text.
        task: "qa": a question that a few passages answer; "recall": anything of the text may be
            asked, by several questions; "stream": go on writing, what is recent matters.

    Raises:
        ConfigError: The length is less than 1, or the task is unknown.
    """
    if length < 1:
        raise ConfigError(f"length must be >= 1 token, got {length}.")
    if task not in ("stream", "recall", "qa"):
        raise ConfigError(f"task must be stream, recall or qa, got {task!r}.")
    window = _window(model)
    if window is None or length < window:
        said = "none" if window is None else f"{window:,} tokens"
        return [Choice("dense", f"{length:,} tokens fit the window ({said}): nothing is lost")]
    past = f"{length:,} tokens are past the window of {window:,}"
    if task == "stream":
        return [
            Choice("lm-infinite", f"{past}; constant memory, forgets the middle"),
            Choice("infllm", f"{past}; keeps the middle retrievable, memory grows"),
        ]
    if task == "recall":
        chosen = [Choice("infllm", f"{past}; any part can be looked up, by every token")]
        if length <= 4 * window:
            stretch = f"{length / window:.1f} windows"
            chosen.append(Choice("self-extend", f"{stretch}: distances still fit, all is kept"))
        return [*chosen, Choice("infini-retri", "reads again for each question, keeps sentences")]
    read = [
        Choice("xl3m", f"{past}; reads it once a question and keeps the most certain segments"),
        Choice("infini-retri", "reads it once a question and keeps the sentences attended to"),
    ]
    ahead = _ahead()
    read.sort(key=lambda choice: -ahead.get(choice.method, 0.0))
    return [*read, Choice("infllm", "one reading serves several questions")]


def choose(model: Any, tokens: int, room: int, *, on_gpu: bool) -> Choice:
    """The method for `ask --method auto`.

    Args:
        model: A loaded `LanguageModel`.
        tokens: Of the whole text.
        room: Tokens that BM25 would give the model to read.
        on_gpu: Whether the model runs on one.
    """
    name = getattr(model, "name", "the model")
    if tokens <= room:
        return Choice("bm25", f"the whole text, {tokens:,} tokens, is read")
    if not hasattr(model, "model"):
        return Choice("bm25", f"{name} cannot be changed from inside")
    ahead = _ahead()
    best = max(ahead, key=lambda method: ahead[method], default=None)
    if best is None:
        return Choice("bm25", "it is the only one measured on questions so far")
    if ahead[best] <= 0:
        return Choice("bm25", "none was measured to answer more at 32k tokens")
    if not on_gpu and tokens > _CPU_TOKENS:
        return Choice("bm25", f"{tokens:,} tokens take {best} too long on a CPU")
    return Choice(best, f"measured to answer {ahead[best]:.0%} more than bm25 at 32k tokens")


def _ahead() -> dict[str, float]:
    """Share of questions that each measured method answers more than BM25, by method."""
    out = {}
    rows = catalog.newest_rows()
    for system, name in _MEASURED.items():
        for row in rows.get(system, {}).values():
            values = {figure["name"]: figure.get("reached") for figure in row["figures"]}
            own, other = values.get(name), values.get(_BASELINE)
            if own is not None and other is not None:
                out[system] = float(own) - float(other)
    return out


def _window(model: Any) -> int | None:
    if model is None or isinstance(model, int):
        return model
    if hasattr(model, "window"):
        window: int | None = model.window
        return window
    from unspool._facts import read_facts

    return read_facts(model).window
