"""The embedded model's cache: only a complete, unchanged conversion is used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from unspool.backends import embedded
from unspool.errors import BackendError, MissingExtra


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with a stand-in for the slow conversion."""
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    monkeypatch.setattr(embedded, "_source", lambda packaged, folder: Path("x.gguf"))
    monkeypatch.setattr(embedded, "version", lambda distribution: "9.9")
    monkeypatch.setattr(embedded, "_place", lambda packaged: tmp_path)
    return tmp_path / "models"


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    files = {"a.txt": b"alpha", "b.txt": b"beta"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = {
        n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()
    }
    manifest = {"format": 1, "source_sha256": "f" * 64, "files": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_sound_conversion_is_used_and_a_damaged_one_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def convert(source: Path, folder: Path, form: int) -> None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        write(folder)
        made.append(folder)

    monkeypatch.setattr(embedded, "_convert", convert)
    folder, revision = embedded.embedded_folder(only=("a.txt",))
    assert revision == "f" * 12
    assert embedded.embedded_folder(only=("a.txt",)) == (folder, revision)
    assert len(made) == 1
    for damage in (b"alphA", b"alph", b"alphas"):
        (folder / "a.txt").write_bytes(damage)
        embedded.embedded_folder(only=("a.txt",))
        assert (folder / "a.txt").read_bytes() == b"alpha"
    (folder / "manifest.json").write_text("[]")
    embedded.embedded_folder(only=("a.txt",))
    (folder / "b.txt").unlink()
    embedded.embedded_folder(only=("b.txt",))
    assert len(made) == 6


def test_a_conversion_that_stays_damaged_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_convert", lambda source, folder, form: None)
    with pytest.raises(BackendError, match="does not read back"):
        embedded.embedded_folder(only=("a.txt",))


def test_a_conversion_that_fails_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    class Broken:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Broken)
    with pytest.raises(BackendError, match=r"No space left on device.*UNSPOOL_DATA"):
        embedded.embedded_folder(only=("a.txt",))
    assert [p.name for p in place.iterdir()] == [".lock"]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'unspool\[read\]'"):
        embedded.embedded_folder()


@pytest.mark.slow
def test_logits_agree_with_llama_cpp_on_the_same_file() -> None:
    """llama.cpp rounds activations to 8 bits, so the best tokens agree and the values are near."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is the oracle")
    import numpy as np
    import torch

    source = embedded._source(embedded.EMBEDDED, embedded._place(embedded.EMBEDDED))
    peer = llama_cpp.Llama(str(source), n_ctx=128, verbose=False, logits_all=True)
    model = embedded.load_embedded()
    for text in ("The capital of France is Paris, and", "def add(a, b):\n    return 12345 +"):
        ids = model.tokenizer(text).input_ids
        assert peer.tokenize(text.encode(), add_bos=False, special=True) == ids
        peer.reset()
        peer.eval(ids)
        theirs = np.array(peer.scores[: len(ids)])
        with torch.inference_mode():
            ours = model.model(torch.tensor([ids])).logits[0].numpy()
        assert np.mean(ours.argmax(-1) == theirs.argmax(-1)) >= 0.8
        assert np.abs(ours - theirs).mean() < 0.6
