"""Open a file of an original release: from a folder, a zip, the file itself, or the hub.

What: the one way from `Source(kind="release", path=…)` and a `Release` to records.
Source: `huggingface_hub` for dataset ids, raw files of a pinned commit for `github:OWNER/NAME`.
Differs: nothing is ever executed; loading scripts and pickles of a release are not touched.
Cost: one pass over the file; a zip member is read without unpacking the rest.
"""

from __future__ import annotations

import io
import shutil
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import orjson

from unspool._cache import cache_folder
from unspool._optional import require
from unspool.errors import BackendError, InputError, MissingData
from unspool.evaluation.spec import Release

HUB = "hub"
_SUFFIXES = (".jsonl", ".json", ".parquet", ".zip")


def records(release: Release, path: str | None, *, twin: str) -> Iterator[dict[str, Any]]:
    """The records of a task's file, in order.

    Args:
        release: Its first file is the one wanted, `ARCHIVE.zip!MEMBER` for a member of an archive;
            files after it are other names of the same.
        path: What the person gave: a folder, a zip, the file, `hub`, or None.
        twin: Command that makes a generated twin, for the message.

    Raises:
        MissingData: The file is not there, or nothing was given.
        InputError: A line is no record.
    """
    if path is None:
        raise _missing(release, "No data was given", twin)
    if path == HUB:
        path = str(_fetch(release))
    with _opened(release, Path(path), twin) as (file, name):
        if name.endswith(".parquet"):
            parquet = require("pyarrow.parquet", extra="parquet", purpose="reading parquet files")
            yield from parquet.read_table(file).to_pylist()
            return
        if name.endswith(".json"):
            yield from _listed(file.read(), name)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield as_record(line, name, number)


def _listed(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The objects of one JSON list; JSON lines under this name are read too."""
    try:
        held = orjson.loads(data)
    except orjson.JSONDecodeError:
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                yield as_record(line, name, number)
        return
    items = held if isinstance(held, list) else [held]
    if not all(isinstance(item, dict) for item in items):
        raise InputError(f"{name} should hold a JSON list of objects.")
    yield from items


def as_record(line: bytes, name: str, number: int) -> dict[str, Any]:
    """One line of JSON that holds an object."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"Line {number} of {name} is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise InputError(f"Line {number} of {name} is not a JSON object.")
    return record


def prediction_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and record of a prediction file.

    Raises:
        InputError: A line is no record, or there is none.
    """
    found = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found = True
                yield number, as_record(line, path.name, number)
    if not found:
        raise InputError(f"{path.name} holds no predictions, so there is nothing to score.")


def field(record: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field that must be there and of a type.

    Raises:
        InputError: It is not; the message names place, field and what was found.
    """
    if name not in record:
        raise InputError(f"{where} has no field {name!r}. It has {', '.join(sorted(record))}.")
    value = record[name]
    if not isinstance(value, kind):
        wanted = kind if isinstance(kind, tuple) else (kind,)
        raise InputError(
            f"{where}: field {name!r} should be {' or '.join(k.__name__ for k in wanted)}, got "
            f"{type(value).__name__}."
        )
    return value


@contextmanager
def _opened(release: Release, path: Path, twin: str) -> Iterator[tuple[BinaryIO, str]]:
    if not path.exists():
        raise _missing(release, f"{path} does not exist", twin)
    if path.is_file() and path.suffix != ".zip":
        if path.suffix not in _SUFFIXES:
            raise InputError(f"{path.name} is none of {', '.join(_SUFFIXES)}.")
        with path.open("rb") as file:
            yield file, path.name
        return
    for wanted in release.files:
        archive, _, member = wanted.rpartition("!")
        if path.is_file():
            with zipfile.ZipFile(path) as packed:
                found = _member(packed, member)
                if found:
                    yield io.BytesIO(packed.read(found)), found
                    return
            continue
        for place in (path / member, path / PurePosixPath(member).name):
            if place.is_file():
                with place.open("rb") as file:
                    yield file, place.name
                return
        if archive and (path / archive).is_file():
            with zipfile.ZipFile(path / archive) as packed:
                found = _member(packed, member)
                if found:
                    yield io.BytesIO(packed.read(found)), found
                    return
    names = " or ".join(name.rpartition("!")[2] for name in release.files)
    raise _missing(release, f"{path} holds no {names}", twin)


def _member(packed: zipfile.ZipFile, wanted: str) -> str | None:
    """The member of that path, else the only one of that name."""
    names = packed.namelist()
    if wanted in names:
        return wanted
    last = PurePosixPath(wanted).name
    same = [name for name in names if PurePosixPath(name).name == last]
    return same[0] if len(same) == 1 else None


def _fetch(release: Release) -> Path:
    """The file or archive of a release, fetched once into the cache."""
    wanted = release.files[0]
    file = wanted.rpartition("!")[0] or wanted
    if release.dataset.startswith("github:"):
        return _fetch_raw(release.dataset.removeprefix("github:"), release.revision, file)
    hub = require("huggingface_hub", extra="read", purpose="fetching from the Hugging Face hub")
    try:
        found = hub.hf_hub_download(
            release.dataset, file, repo_type="dataset", revision=release.revision or None
        )
    except Exception as error:  # its errors share no base class; the cause is kept
        raise BackendError(
            f"{file} of {release.dataset} cannot be fetched: {error}. Download it elsewhere and "
            f"give its folder."
        ) from error
    return Path(found)


def _fetch_raw(repository: str, commit: str, file: str) -> Path:
    target = cache_folder("releases", *repository.split("/"), commit, file)
    if target.is_file():
        return target
    address = f"https://raw.githubusercontent.com/{repository}/{commit}/{file}"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BackendError(
            f"{address} cannot be fetched: {error}. Download it elsewhere and give its folder."
        ) from error
    return target


def _missing(release: Release, what: str, twin: str) -> MissingData:
    revision = f", revision {release.revision}" if release.revision else ""
    files = release.files[0].replace("!", ", in it ")
    note = f" {release.note}" if release.note else ""
    return MissingData(
        f"{what}. The original data is {files} of {release.dataset}{revision}; give its folder, "
        f"zip or file, or 'hub' to fetch it.{note} {twin}"
    )
