"""Models by name: what is there loads, what is not says so in a line."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import torch

from tests.backends.tiny import saved
from unspool.backends import load
from unspool.backends.load import load_model
from unspool.errors import BackendError, ConfigError, PathNotFound


def test_a_folder_loads_and_is_named_by_what_it_holds(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tiny")
    model = load_model(str(folder))
    assert model.name.startswith("tiny@")
    assert str(tmp_path) not in model.name
    assert model.generate(["The"], max_tokens=3)[0].usage.output_tokens >= 1
    assert load_model(str(folder)).name == model.name
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert load_model(str(folder)).name != model.name


def test_dtype_is_taken_and_small_models_are_float32(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tiny")
    assert load_model(str(folder)).model.dtype == torch.float32  # type: ignore[attr-defined]
    half = load_model(str(folder), dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BackendError, match="pickled weights are never loaded"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("./missing", PathNotFound, "no model folder"),
        ("/missing/model", PathNotFound, "no model folder"),
        ("a/b/c", PathNotFound, "no model folder"),
        ("not a name", ConfigError, "OWNER/NAME"),
        ("", ConfigError, "OWNER/NAME"),
    ],
)
def test_wrong_names(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load_model(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="is a file"):
        load_model(str(tmp_path / "x.gguf"))


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match="hf download nobody/nothing-here"):
        load_model("nobody/nothing-here")


def test_no_network_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_address(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr(load, "getproxies", dict)
    started = time.perf_counter()
    with pytest.raises(BackendError, match="hub cannot be reached"):
        load_model("nobody/nothing-here")
    assert time.perf_counter() - started < 10
    assert "Retrying" not in capfd.readouterr().err


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="dtype must be one of"):
        load_model(dtype="int4")
    with pytest.raises(ConfigError, match="device must be"):
        load_model(device="toaster")
