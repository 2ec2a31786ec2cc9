"""A saved stream: a directory with `stream.json` and `stream.safetensors`, written atomically.

The header holds the size and the SHA-256 of the tensors' file, so a torn or foreign file is an
error and never a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

_TENSORS = "stream.safetensors"
_HEADER = "stream.json"


def save_stream(directory: Path, header: dict[str, Any], state: dict[str, Tensor]) -> Path:
    """Write a directory that appears whole or not at all.

    Raises:
        ConfigError: The directory exists and is no saved stream.
    """
    from safetensors.torch import save_file

    directory = directory.absolute()
    if directory.exists() and not (directory / _HEADER).is_file():
        raise ConfigError(f"{directory} exists and is no saved stream: choose another directory.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        save_file(plain, str(temporary / _TENSORS))
        whole = {
            **header,
            "bytes": (temporary / _TENSORS).stat().st_size,
            "sha256": _digest(temporary / _TENSORS),
        }
        (temporary / _HEADER).write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
        for name in (_TENSORS, _HEADER):
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        if directory.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
            directory.rename(old / "was")
            temporary.rename(directory)
            shutil.rmtree(old)
        else:
            temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def load_stream(
    directory: Path, version: int, *, verify: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a saved stream, mapped into memory.

    Args:
        directory: Of the stream.
        version: Of the format that the caller reads.
        verify: Compare the checksum of the tensors, which reads every byte of them.

    Raises:
        InputError: A file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(directory, version)
    path = directory / _TENSORS
    if not path.is_file() or path.stat().st_size != header["bytes"]:
        raise InputError(f"{path} is missing or cut short. Save the stream again.")
    if verify and not is_sound(directory, header):
        raise InputError(f"{path} is damaged: its checksum differs. Save the stream again.")
    try:
        return header, load_file(str(path))
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}. Save the stream again.") from error


def is_sound(directory: Path, header: dict[str, Any]) -> bool:
    """Whether every byte of the tensors is what was written."""
    path = directory / _TENSORS
    return path.is_file() and _digest(path) == header["sha256"]


def read_header(directory: Path, version: int) -> dict[str, Any]:
    """The header of a saved stream.

    Raises:
        InputError: There is none, or it is of another format.
    """
    try:
        header = json.loads((directory / _HEADER).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{directory} is no saved stream: {error}.") from error
    if not isinstance(header, dict) or header.get("format") != version:
        raise InputError(
            f"{directory} is a saved stream of format {header.get('format')!r}; this version "
            f"reads {version}."
        )
    missing = {"bytes", "sha256", "method", "model", "pending", "prefill_end", "written"} - set(
        header
    )
    if missing:
        raise InputError(f"{directory} lacks {', '.join(sorted(missing))} in {_HEADER}.")
    return header


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
