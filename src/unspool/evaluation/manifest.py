"""`manifest.json`: everything that decides the numbers of a run, so that no two runs mix.

What: task specs, levels, data, prompts, decoding, model identity and window, tokenizer, packages
and seed. A run is continued only if all of it is the same; the first field that differs is named.
Departures: absolute paths, times and the machine are not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from unspool import _machine
from unspool.errors import InputError, PathNotFound, RunConflict
from unspool.evaluation import _io
from unspool.evaluation.cache import tokenizer_fingerprint
from unspool.evaluation.fit import Fitter
from unspool.evaluation.plan import SAMPLES, RunSettings, levels_of
from unspool.evaluation.spec import LengthLevel
from unspool.evaluation.tasks.base import Task
from unspool.types import LanguageModel

MANIFEST = "manifest.json"
_FORMAT = 1
_MODEL_PACKAGES = ("torch", "transformers", "tokenizers")


def manifest_of(
    model: LanguageModel, tasks: Sequence[Task], settings: RunSettings, fitter: Fitter
) -> dict[str, Any]:
    """The manifest of a run, without the digest of its samples."""
    packages = {name for task in tasks for name in task.metric.packages}
    if model.tokenizer is not None:
        packages |= set(_MODEL_PACKAGES)
    versions = _machine.versions(sorted(packages))
    versions["python"] = ".".join(versions["python"].split(".")[:2])
    return {
        "format": _FORMAT,
        "model": {
            "name": model.name,
            "window": fitter.window,
            "tokenizer": tokenizer_fingerprint(fitter.tokenizer),
        },
        "packages": versions,
        "settings": _plain(settings),
        "tasks": {
            task.spec.name: {
                **task.spec.to_json(),
                "levels": [
                    bound(level, _counter(fitter)).to_json() if level else None
                    for level in levels_of(task.spec, settings.lengths)
                ],
                "wrapped": fitter.wraps(task.spec),
            }
            for task in tasks
        },
    }


def bound(level: LengthLevel, counter: str) -> LengthLevel:
    """The level with the tokenizer that counts it named."""
    return replace(level, unit=f"tokens:{counter}") if level.unit == "tokens" else level


def _counter(fitter: Fitter) -> str:
    """The name of the tokenizer that counts: the model's own, or the ruler that was named."""
    if fitter.counts_for_model:
        return fitter.name
    return str(getattr(fitter.tokenizer, "name", "ruler"))


def _plain(settings: RunSettings) -> dict[str, Any]:
    """The settings as JSON: names of files and digests of what they hold, not where they are."""
    found = asdict(settings)
    for key in ("lengths", "depths"):
        found[key] = list(found[key])
    for key in ("data", "texts"):
        if found[key] is not None and found[key] != "hub":
            path = Path(found[key]).expanduser()
            found[key] = {"name": path.resolve().name, "sha256": digest_of(path)}
    return found


def digest_of(path: Path) -> str:
    """SHA-256 over names and contents of a file or of all files below a folder."""
    if path.is_file():
        return _io.sha256(path)
    if not path.is_dir():
        raise PathNotFound(f"There is no file or folder at {path}.")
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_io.sha256(file)}\0".encode())
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        PathNotFound: There is no run.
        InputError: The file is not a manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise PathNotFound(
            f"There is no run in {folder}: it has no {MANIFEST}. 'unspool evaluate run --out "
            f"{folder.name}' makes one."
        )
    try:
        found = orjson.loads(path.read_bytes())
        if found["format"] == _FORMAT:
            return dict(found)
        raise InputError(
            f"The run in {folder.name} is of format {found['format']}, and this program reads "
            f"format {_FORMAT}."
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{MANIFEST} in {folder.name} cannot be read: {error}.") from error


def check_same(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a run that differs, naming the field.

    Raises:
        RunConflict: A field differs, or the samples were changed.
    """
    found = read_manifest(folder)
    data = found.pop("data", {})
    # Through JSON, so that tuples and lists compare equal.
    difference = next(_differences(found, orjson.loads(_io.canonical(wanted)), ""), None)
    if difference is not None:
        raise RunConflict(
            f"The run in {folder.name} was begun with other settings: {difference}. Choose "
            f"another --out, or the settings that it was begun with."
        )
    samples = folder / SAMPLES
    if not samples.exists() or _io.sha256(samples) != data.get(SAMPLES):
        raise RunConflict(
            f"{SAMPLES} in {folder.name} is not what the run was begun with. Choose another --out."
        )


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            path = f"{where}.{key}" if where else key
            if key not in old or key not in new:
                side = "now" if key in new else "then"
                yield f"{path} is there only {side}"
            else:
                yield from _differences(old[key], new[key], path)
    elif old != new:
        yield f"{where} was {old!r} and is now {new!r}"


def settings_of(manifest: Mapping[str, Any], data: str | None, texts: str | None) -> RunSettings:
    """The settings that a run was begun with.

    Args:
        manifest: Of the run.
        data: Where its original data is now, if it had any besides the hub.
        texts: Where its source texts are now, if it had any.

    Raises:
        InputError: The run was begun with a file, and it was not named again.
    """
    row = dict(manifest["settings"])
    for key, given, flag in (("data", data, "--data"), ("texts", texts, "--source")):
        if isinstance(row[key], dict):
            if given is None:
                raise InputError(
                    f"The run was begun with {flag} {row[key]['name']}. Name it again, so that it "
                    f"can be checked."
                )
            row[key] = given
    row["lengths"], row["depths"] = tuple(row["lengths"]), tuple(row["depths"])
    return RunSettings(**row)
