"""`load_model`: one way to every model, embedded, local, from the Hugging Face hub or served."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from unspool._optional import require
from unspool.errors import BackendError, ConfigError, PathNotFound
from unspool.types import LanguageModel

_KEYS = ("UNSPOOL_API_KEY", "OPENAI_API_KEY")
_DTYPES = ("float32", "bfloat16", "float16", "fastest")
_SMALL = 1_500_000_000
"""Parameters up to which a model is widened to float32 on a CPU, where it is exact and fast."""


def load_model(
    name: str | None = None,
    *,
    endpoint: str | None = None,
    api_key: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    method: str | None = None,
    weights: Literal["same", "int8"] | None = None,
) -> LanguageModel:
    """Load a language model.

    Args:
        name: A Hugging Face id, a folder with a model, "gemma-3-270m" (from its Python package), or
            the name that an endpoint serves it under; None: the embedded SmolLM2-135M-Instruct, or
            the endpoint's only model.
        endpoint: Base address of an OpenAI-compatible server, `http://localhost:8000/v1`.
        api_key: For the endpoint; None: from `UNSPOOL_API_KEY`, else `OPENAI_API_KEY`. It is never
            printed or logged.
        dtype: "float32", "bfloat16" or "float16"; "fastest": what this machine reads fastest in,
            measured once and kept; None: float32 for small models on a CPU, the checkpoint's own
            otherwise.
        device: "auto" (CUDA if there is one, else the CPU) or a torch device.
        method: How it reads past its window, as `extend` takes it: "lm-infinite", "infllm:top_k=8",
            "snapkv+think". Not for endpoints.
        weights: How tokens are written, as `extend` takes it: "int8" is two to three times faster
            on a CPU and nearly the same numbers.

    Raises:
        ConfigError: An argument has a value that cannot work.
        PathNotFound: `name` is a path, and there is nothing.
        BackendError: The model cannot be had or read, or the endpoint does not answer.
        MissingExtra: A package of `unspool[read]` is not installed.
    """
    if endpoint is not None and (method is not None or weights is not None):
        raise ConfigError(
            f"method={method!r} and weights={weights!r} change a model from inside, and an "
            f"endpoint cannot be changed. Load the model here, or leave them out."
        )
    if endpoint is not None:
        from unspool.backends.endpoint import EndpointModel

        key = api_key or next((os.environ[k] for k in _KEYS if os.environ.get(k)), None)
        return EndpointModel(endpoint, model=name, api_key=key)
    if dtype is not None and dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}.")
    if method is not None:
        from unspool.methods import resolve_reading

        resolve_reading(method)  # settings are checked before a model is loaded
    # A thread that waits should sleep: spinning at barriers makes a busy machine several times
    # slower. The runtime reads this once, when torch is imported; a value of the user's stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch = require("torch", extra="read", purpose="Running a model")
    require("transformers", extra="read", purpose="Running a model")
    place = _device(torch, device)
    if dtype == "fastest":
        from unspool.backends.fastest import fastest_dtype

        dtype = fastest_dtype(place)
    kind = getattr(torch, dtype) if dtype else None
    from unspool.backends.embedded import EMBEDDED, PACKAGED, load_embedded

    if name is None or (name.lower() in PACKAGED and not Path(name).exists()):
        packaged = EMBEDDED if name is None else PACKAGED[name.lower()]
        loaded: Any = load_embedded(packaged, dtype=kind, device=place)
    else:
        loaded = _pretrained(name, torch, kind, place)
    if method is None and weights is None:
        return loaded  # type: ignore[no-any-return]  # both branches give a LanguageModel
    return _extended(loaded, method or "dense", weights)


def _extended(loaded: Any, method: str, weights: Literal["same", "int8"] | None) -> LanguageModel:
    """The same model, reading through `extend`."""
    from unspool.backends.transformers import TransformersModel
    from unspool.extension import extend

    extension = extend(loaded.model, method, tokenizer=loaded.tokenizer, weights=weights)
    name = f"{loaded.name} [{extension.spec}]"
    if extension.prompt_method is not None:
        from unspool.backends.reducing import ReducingModel

        return ReducingModel(loaded.model, loaded.tokenizer, name=name, extension=extension)
    return TransformersModel(loaded.model, loaded.tokenizer, name=name, extension=extension)


def _device(torch: Any, device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r} was asked for, and torch finds no CUDA here.")
    return str(device)


def _pretrained(name: str, torch: Any, dtype: Any, device: str) -> LanguageModel:
    from unspool.backends.transformers import TransformersModel

    path = Path(name).expanduser()
    local = bool(name) and path.is_dir()
    if not local:
        _check_id(name, path)
    model, tokenizer = _from_cache_or_hub(str(path) if local else name, local, dtype or "auto")
    if dtype is None and device == "cpu" and model.num_parameters() <= _SMALL:
        model = model.float()
    try:
        model = model.to(device)
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"{name} does not fit into the memory of {device}. Choose a smaller model or "
            f"device='cpu'."
        ) from error
    return TransformersModel(model, tokenizer, name=_identity(name, path, local, model))


def _check_id(name: str, path: Path) -> None:
    if path.is_file():
        raise ConfigError(
            f"{name} is a file; give the folder that holds config.json, the weights as safetensors "
            f"and the tokenizer."
        )
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or name.endswith("/"):
        raise PathNotFound(f"There is no model folder at {name}. Check the path.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name):
        raise ConfigError(
            f"{name!r} is neither a folder nor a Hugging Face id, which looks like OWNER/NAME."
        )


def _from_cache_or_hub(source: str, local: bool, dtype: Any) -> tuple[Any, Any]:
    """Model and tokenizer, from this machine if they are on it, else from the hub."""
    try:
        return _read(source, dtype, offline=True)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError) as error:
        first = error
    if local:
        raise BackendError(
            f"The model in {Path(source).name} cannot be read: {_gist(first)} It needs "
            f"config.json, weights as safetensors (pickled weights are never loaded) and a "
            f"tokenizer."
        ) from first
    try:
        _check_hub()
        return _read(source, dtype, offline=False)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError) as error:
        raise BackendError(
            f"The model {source!r} is not on this machine and could not be fetched: "
            f"{_gist(error)} Check the name and the network, run 'hf download {source}' where "
            f"there is one, or leave --model out to use the embedded model."
        ) from error


def _check_hub() -> None:
    """Fail at once where the hub has no address; its own client would retry for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():  # a proxy may know names that we do not
        return
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError as error:
        raise OSError("the model hub cannot be reached from here") from error


def _read(source: str, dtype: Any, *, offline: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from unspool.backends.embedded import quiet_loading

    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=offline, use_safetensors=True
        )
    return model, tokenizer


def _gist(error: BaseException) -> str:
    """The first sentence of an error of another library, without its advice."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip(" :")
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _identity(name: str, path: Path, local: bool, model: Any) -> str:
    """Name and revision: the hub's commit, or a digest of a folder's configuration and sizes."""
    if not local:
        return f"{name}@{getattr(model.config, '_commit_hash', None) or 'unknown'}"
    digest = hashlib.sha256()
    for file in sorted(path.glob("*")):
        if file.name == "config.json" or file.name.startswith("tokenizer"):
            digest.update(file.read_bytes())
        elif file.suffix == ".safetensors":
            digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return f"{path.resolve().name}@{digest.hexdigest()[:12]}"
