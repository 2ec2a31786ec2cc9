"""What a claim is made of: the figures it must reach, and the context its script runs in."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import unspool
from unspool._cache import cache_folder
from unspool.cli._output import Progress, message, progress
from unspool.errors import ConfigError

Op = Literal[">=", "<=", "==", ">", "<", "report"]
Budget = Literal["cpu", "gpu", "full"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a claim must reach, or only reports."""

    name: str
    op: Op
    value: float | int | None = None
    """The bound; None only with op="report"."""
    unit: str = ""
    aim: float | int | None = None
    """What we would like to see beyond the bound."""

    def __post_init__(self) -> None:
        if self.op != "report" and (self.op not in _COMPARE or self.value is None):
            raise ConfigError(f"Figure {self.name!r} needs a bound, got {self.op} {self.value}.")

    def met(self, reached: float | int | None) -> bool | None:
        """Whether the bound is reached; None if there is no bound. Not measured is not reached."""
        if self.op == "report" or self.value is None:
            return None
        return reached is not None and _COMPARE[self.op](reached, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is claimed of a system, and under which conditions it is measured."""

    system: str
    """Slug in the catalogue, or a verb of the command line."""
    title: str
    required: tuple[Figure, ...]
    setup: str
    """What is measured on what, in a sentence or two."""
    seed: int = 0
    budget: Literal["cpu", "gpu"] = "cpu"
    """The machine it needs."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions go into the row, besides Python and unspool."""
    code: tuple[str, ...] = ()
    """Rooms and files of the package that the figures depend on ("attention", "extension.py"): a
    change there measures finished steps anew. Empty: the whole package."""

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.required]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"Claim {self.title!r} needs figures with different names: {names}.")


@dataclass(frozen=True, slots=True)
class Measured:
    """What `run` may return in place of a plain mapping of figures."""

    figures: Mapping[str, float | int | None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping in the row: sizes, counts, curves."""


class Context:
    """What a claim script works with: seed, budget, folders, progress, and steps that resume.

    A step's result is written when it is done, so a run that was killed continues after its last
    finished step. A step is known by its name, the inputs it is given, the seed, the budget and,
    unless it only prepares data, the code that it ran: results of other code are measured again.
    """

    def __init__(
        self, name: str, claim: Claim, budget: Budget, source: Path, folder: Path | None = None
    ) -> None:
        self.name = name
        self.seed = claim.seed
        self.budget: Budget = budget
        self.folder = folder or cache_folder("claims", name)
        self._source = source
        self._rooms = claim.code
        self._code: str | None = None
        self._measured: list[Path] = []

    def data(self, *parts: str) -> Path:
        """A folder of the cache that claims share: corpora, models, indexes."""
        path = cache_folder("data", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def progress(
        self, label: str, *, total: float | int | None = None, unit: str = ""
    ) -> AbstractContextManager[Progress]:
        return progress(label, total=total, unit=unit)

    def step(
        self,
        name: str,
        function: Callable[[], Any],
        *,
        inputs: Mapping[str, Any] | None = None,
        prepares: bool = False,
    ) -> Any:
        """The JSON result of `function()`, from disk if the same step was done before.

        Args:
            name: Names the step within the claim.
            function: Does the work; returns something JSON can hold.
            inputs: Whatever else decides the result, as JSON values.
            prepares: True for steps that fetch or cut data and measure nothing. They stay when the
                run is over, and do not depend on our code.
        """
        key = {"inputs": dict(inputs or {}), "seed": self.seed, "budget": self.budget}
        if not prepares:
            key["code"] = self._fingerprint()
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{name}-{digest}.json"
        if not prepares:
            self._measured.append(path)
        if path.exists():
            message(f"{self.name}: {name} was done before")
            return json.loads(path.read_text(encoding="utf-8"))
        message(f"{self.name}: {name}")
        result = function()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(result, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        return json.loads(path.read_text(encoding="utf-8"))

    def finish(self) -> None:
        """Forget the measured steps, so that the next run measures anew."""
        for path in self._measured:
            path.unlink(missing_ok=True)

    def _fingerprint(self) -> str:
        """A digest of the claim script and of the code that it depends on."""
        if self._code is None:
            digest = hashlib.sha256(self._source.read_bytes())
            package = Path(unspool.__file__).parent
            roots = [package / room for room in self._rooms] or [package]
            files = [p for r in roots for p in ([r] if r.is_file() else r.rglob("*"))]
            for path in sorted(files):
                if path.suffix in (".py", ".so", ".pyd", ".toml"):
                    digest.update(path.relative_to(package).as_posix().encode())
                    digest.update(path.read_bytes())
            self._code = digest.hexdigest()[:16]
        return self._code
