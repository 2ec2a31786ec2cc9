"""From what was typed after `unspool evaluate` to tasks, settings, a model and a cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.evaluation.plan import RunSettings
    from unspool.evaluation.tasks.base import Task


def words(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ConfigError(f"--depths takes percentages from 0 to 100, got {text!r}.")
    return value / 100


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of the commands that write samples without a model."""

    seed: int = 0
    """Of whatever is drawn."""
    depths: str | None = None
    """Where the needed text is put, in percent."""
    source: str | None = None
    """Texts that tasks build from: a file or folder."""
    data: str | None = None
    """The original data: a folder, zip or file, or hub to fetch it."""
    tokenizer: str | None = None
    """Counts lengths in tokens: a name, a file or a folder. Default: smollm2."""
    json: bool = False
    """Print one JSON object."""

    def settings(self, lengths: str | None, limit: int | None) -> RunSettings:
        """Settings of levels in a task's own unit and of samples a level."""
        from unspool.evaluation.plan import RunSettings

        return RunSettings(
            lengths=words(lengths),
            depths=tuple(share(each) for each in words(self.depths)),
            limit=limit,
            seed=self.seed,
            data=self.data,
            texts=self.source,
        )

    def ruler(self, tasks: Iterable[Task]) -> str | None:
        """The tokenizer that counts, if any of the tasks is measured in tokens."""
        in_tokens = any(task.spec.unit == "tokens" for task in tasks)
        return self.tokenizer or ("smollm2" if in_tokens else None)


def resolve(
    tasks: str | None, templates: str | None, settings: dict[str, Any], out: Path, resume: bool
) -> tuple[Any, Any]:
    """Tasks and settings of a run: as given, or those of the run that is continued."""
    from unspool.evaluation.manifest import read_manifest, settings_of
    from unspool.evaluation.plan import RunSettings

    if resume:
        manifest = read_manifest(out)
        names = ",".join(manifest["tasks"])
        resolved = settings_of(manifest, settings["data"], settings["texts"])
        return named_tasks(names, templates), resolved
    if tasks is None:
        raise ConfigError("Say what to run: --tasks NAME. 'unspool list tasks' shows the names.")
    return named_tasks(tasks, templates), RunSettings(**settings)


def named_tasks(names: str, templates: str | None) -> Any:
    """The tasks of a list of names, with the release's prompts if asked for."""
    from unspool.evaluation.tasks import find_tasks

    found = find_tasks(names)
    return found if templates is None else [each.with_templates(templates) for each in found]


def load(model: str | None, endpoint: str | None, method: str | None) -> Any:
    from unspool.backends.load import load_model

    loaded = load_model(model, endpoint=endpoint, method=method)
    if endpoint is not None or method is not None:
        return loaded
    from unspool.backends.prefix import keep_prefixes

    return keep_prefixes(loaded)


def named_tokenizer(name: str | None) -> Any:
    if name is None:
        return None
    from unspool.evaluation.make import ruler

    return ruler(name)


def cache_file(given: str | None) -> str | None:
    if given == "off":
        return None
    if given is not None:
        return given
    from unspool._cache import cache_folder

    return str(cache_folder("evaluate", "responses.sqlite"))
