"""What a row says of its machine: the devices that were used, and the commit of a copy."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unspool import _machine


def _torch(initialised: bool) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_initialized=lambda: initialised,
        device_count=lambda: 2,
        get_device_name=lambda i: f"Device {i}",
    )
    return SimpleNamespace(cuda=cuda)


def test_devices_that_were_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", _torch(True))
    assert _machine.describe()["gpu"] == "Device 0, Device 1"


def test_devices_that_were_not_used_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", _torch(False))
    assert "gpu" not in _machine.describe()
    monkeypatch.delitem(sys.modules, "torch")
    assert "gpu" not in _machine.describe()


def test_a_copy_without_history_states_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSPOOL_COMMIT", raising=False)
    assert _machine.commit(tmp_path) is None
    monkeypatch.setenv("UNSPOOL_COMMIT", "0123456789ab")
    assert _machine.commit(tmp_path) == "0123456789ab"
    (tmp_path / ".git").mkdir()  # a checkout, though a broken one, does not take another's word
    assert _machine.commit(tmp_path) is None
