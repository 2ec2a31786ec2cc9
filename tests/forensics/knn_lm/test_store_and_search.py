"""Windows, keys, values and neighbours against plain loops; builds that stop and go on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.backends import tiny
from tests.forensics.knn_lm import models
from tests.forensics.knn_lm.models import FAMILIES, READING
from unspool.errors import (
    BackendError,
    ConfigError,
    InputError,
    OverflowPolicyError,
    PathNotFound,
    RunConflict,
    StorageError,
)
from unspool.forensics.knn_lm import Datastore, Reading, StoreSettings, build_store
from unspool.forensics.knn_lm import datastore as module
from unspool.forensics.knn_lm.search import Flat, build_index, choose, index_bytes, open_index
from unspool.forensics.knn_lm.states import Capture, fingerprint, locate
from unspool.forensics.knn_lm.windows import cut_windows, joined, prefix_of

NORMS = {"llama": "post_attention_layernorm", "qwen3": "post_attention_layernorm",
         "phi3": "post_attention_layernorm", "gemma3": "pre_feedforward_layernorm",
         "gpt-neox": "post_attention_layernorm", "gpt2": "ln_2",
         "opt": "final_layer_norm"}  # fmt: skip
"""The norm of each family whose output the feed-forward block reads."""


@given(
    length=st.integers(0, 70), window=st.integers(2, 20), first=st.integers(0, 1), data=st.data()
)
def test_windows_predict_every_token_once(
    length: int, window: int, first: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    cuts = list(cut_windows(length, Reading(window=window, stride=stride), first))
    assert [t for _, a, b in cuts for t in range(a, b)] == list(range(first, length))
    for start, begin, end in cuts:
        assert end - start <= window
        assert begin > start or begin == start == 0
        assert start == 0 or begin - start >= min(window - stride, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", ["ffn_input", "block_output"])
def test_keys_are_the_states_they_are_said_to_be(family: str, layer: Any) -> None:
    net = models.model(family)
    place = locate(net, layer)
    blocks = next(m for m in net.modules() if isinstance(m, torch.nn.ModuleList))
    seen: list[torch.Tensor] = []
    watched = getattr(blocks[-1], NORMS[family]) if layer == "ffn_input" else blocks[-1]
    hook = watched.register_forward_hook(
        lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    ids = torch.randint(2, 100, (3, 7), generator=torch.Generator().manual_seed(1))
    with Capture(place) as capture, torch.no_grad():
        net(ids)
        found = capture.take(3)
    hook.remove()
    assert found.shape == (3, 7, net.config.hidden_size)
    torch.testing.assert_close(found, seen[-1].reshape(found.shape).float())
    assert not place.module._forward_pre_hooks
    with pytest.raises(BackendError, match="was not run"):
        Capture(place).take(1)


def test_says_which_layer_is_missing() -> None:
    net = models.network()
    block = net.model.layers[-1]
    feed_forward = block.mlp
    try:
        del block.mlp
        with pytest.raises(ConfigError, match=r"model\.layers\.1 has no feed-forward block"):
            locate(net)
        assert locate(net, "block_output").name == "model.layers.1"
    finally:
        block.mlp = feed_forward


def test_a_store_holds_the_state_before_each_token(tmp_path: Path) -> None:
    net, tokens = models.network(), models.tokens()
    store = models.store(tmp_path, dtype="float32")
    keys, values = [], []
    for number in range(len(tokens)):
        ids = tokens.document(number).tolist()
        for start, first, end in cut_windows(len(ids), READING, 1):
            with Capture(locate(net)) as capture, torch.no_grad():
                net(torch.tensor([ids[start:end]]))
                states = capture.take(1)[0]
            keys += [states[t - start - 1].numpy() for t in range(first, end)]
            values += ids[first:end]
    assert store.values.tolist() == values
    np.testing.assert_allclose(np.stack(keys), store.keys, atol=2e-5)
    assert len(values) == sum(len(tokens.document(i)) - 1 for i in range(len(tokens)))


def test_a_killed_build_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = models.store(tmp_path / "whole").folder
    settings = StoreSettings(reading=READING)
    out = tmp_path / "store"
    calls = 0

    def stop(done: int, total: int, stage: str) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt

    for _ in range(20):
        try:
            build_store(models.network(), tiny.tokenizer(), models.tokens(), out, settings,
                        budget=64, on_progress=stop)  # fmt: skip
            break
        except KeyboardInterrupt:
            with (out / "keys.bin").open("ab") as file:
                file.write(b"half a row")
    assert calls > 3
    for name in ("keys.bin", "values.bin", "plan.json", "done.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (out / "progress.json").exists()
    with pytest.raises(RunConflict, match="layer was ffn_input, now block_output"):
        build_store(models.network(), tiny.tokenizer(), models.tokens(), out,
                    StoreSettings(reading=READING, layer="block_output"), budget=64)  # fmt: skip


def test_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    store = models.store(tmp_path)
    store.check_model(models.network(), tiny.tokenizer())
    with pytest.raises(ConfigError, match="keys of 16 numbers, and the model's states have 32"):
        store.check_model(models.model("llama"))
    with pytest.raises(ConfigError, match="other weights"):
        store.check_model(tiny.network("gpt2"))
    other = tiny.tokenizer().__class__(tokenizer_object=tiny.tokenizer().backend_tokenizer)
    other.add_tokens(["zebra"])
    with pytest.raises(ConfigError, match="another tokenizer"):
        store.check_model(models.network(), other)
    assert fingerprint(models.network()) == fingerprint(tiny.network(window=256).bfloat16())


def test_damaged_and_unfinished_folders_are_refused(tmp_path: Path) -> None:
    store = models.store(tmp_path)
    with pytest.raises(PathNotFound, match="There is no folder"):
        Datastore.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no datastore"):
        Datastore.open(tmp_path / "empty")
    for name, change, said in (
        ("done.json", None, "never finished"),
        ("keys.bin", b"x", "is not .* bytes long"),
    ):
        copy = tmp_path / f"without-{name}"
        shutil.copytree(store.folder, copy)
        if change is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(change)
        with pytest.raises(InputError, match=said):
            Datastore.open(copy)
    raw = bytearray((store.folder / "values.bin").read_bytes())
    raw[5] ^= 1
    (store.folder / "values.bin").write_bytes(raw)
    with pytest.raises(InputError, match=r"values\.bin in store does not hold what was written"):
        Datastore.open(store.folder)
    plan = json.loads((store.folder / "plan.json").read_text())
    assert plan["layer"] == "ffn_input"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("hello")
    with pytest.raises(InputError, match="holds other files"):
        build_store(models.network(), tiny.tokenizer(), models.tokens(), tmp_path / "other",
                    StoreSettings(reading=READING))  # fmt: skip


def test_keys_that_do_not_fit_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 1e-3)
    with pytest.raises(InputError, match="Use dtype='float32'"):
        models.store(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(StorageError, match="the disk has 0 free"):
        models.store(tmp_path / "b")
    with pytest.raises(OverflowPolicyError, match="Windows of 1,024 tokens do not fit"):
        build_store(models.network(), tiny.tokenizer(), models.tokens(), tmp_path / "c")


def test_states_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    net = tiny.network(window=256)
    net.model.layers[-1].post_attention_layernorm.weight.data[0] = torch.nan
    with pytest.raises(BackendError, match="not a finite number"):
        build_store(net, tiny.tokenizer(), models.tokens(), tmp_path / "s",
                    StoreSettings(reading=READING))  # fmt: skip


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("count", [1, 2, 97, 500])
def test_flat_search_equals_sorting(metric: Any, count: int) -> None:
    draw = np.random.default_rng(count)
    keys = (100 + draw.normal(size=(count, 8))).astype(np.float32)  # far from the origin
    queries = (100 + draw.normal(size=(5, 8))).astype(np.float32)
    near, far = Flat(keys, metric)(torch.from_numpy(queries), 13)
    a, b = keys.astype(np.float64), queries.astype(np.float64)
    exact = ((b[:, None] - a[None]) ** 2).sum(-1) if metric == "l2" else -(b @ a.T)
    assert near.shape == (5, min(13, count))
    np.testing.assert_allclose(far, np.sort(exact, axis=1)[:, :13], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        np.take_along_axis(exact, near.numpy(), 1), far, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_an_index_that_looks_everywhere_equals_flat(kind: Any, metric: Any, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the index is faiss's")
    draw = np.random.default_rng(0)
    keys = draw.normal(size=(400, 8)).astype(np.float16)
    queries = torch.from_numpy(draw.normal(size=(6, 8)).astype(np.float32))
    build_index(keys, tmp_path / "i.faiss", kind, metric, seed=1)
    found = open_index(tmp_path / "i.faiss", keys, metric, 1000, True)
    flat = Flat(keys, metric)
    many = 400 if kind == "ivfpq" else 9  # all of them: codes may miss some, distances may not
    near, far = found(queries, many)
    wanted_near, wanted_far = flat(queries, many)
    torch.testing.assert_close(far, wanted_far, atol=1e-3, rtol=1e-3)
    if kind == "ivf":
        assert near.tolist() == wanted_near.tolist()
    first = (tmp_path / "i.faiss").read_bytes()
    build_index(keys, tmp_path / "again.faiss", kind, metric, seed=1)
    assert (tmp_path / "again.faiss").read_bytes() == first
    few = open_index(tmp_path / "i.faiss", keys, metric, 1, True)(queries, 400)
    assert bool((few[0] == -1).any())
    assert bool(few[1][few[0] == -1].isinf().all())
    with pytest.raises(InputError, match="Delete it and run the build again"):
        open_index(tmp_path / "i.faiss", keys[:9], metric, 1, True)
    (tmp_path / "i.faiss").write_bytes(b"no index")
    with pytest.raises(InputError, match="cannot be read"):
        open_index(tmp_path / "i.faiss", keys, metric, 1, True)


def test_a_store_with_an_index_answers_like_a_flat_one(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the index is faiss's")
    flat, ivf = models.store(tmp_path / "a"), models.store(tmp_path / "b", index="ivf")
    queries = torch.from_numpy(np.array(flat.keys[::7], dtype=np.float32))
    a, b = flat.neighbours(queries, 10), ivf.neighbours(queries, 10)
    torch.testing.assert_close(a.distances, b.distances, atol=1e-4, rtol=1e-4)
    assert float(a.distances[:, 0].max()) < 1e-4  # each key is its own nearest
    (ivf.folder / "index.faiss").unlink()
    with pytest.raises(InputError, match="run the build again"):
        Datastore.open(ivf.folder)
    models.store(tmp_path / "b", index="ivf")
    assert (ivf.folder / "index.faiss").exists()


def test_sizes_of_indexes() -> None:
    assert [choose(n) for n in (200_000, 200_001, 5_000_001)] == ["flat", "ivf", "ivfpq"]
    assert index_bytes("flat", 1000, 576) == 0
    assert index_bytes("ivfpq", 10_000_000, 576) < index_bytes("ivf", 10_000_000, 576) / 10


def test_an_empty_store_has_no_neighbours() -> None:
    empty = Datastore(Path(), {}, np.empty((0, 16), np.float16), np.empty(0, np.int32))
    found = empty.neighbours(torch.zeros(3, 16), 4)
    assert bool(found.distances.isinf().all())
    with pytest.raises(InputError, match="no text with at least two tokens"):
        joined([[1], []])


def test_the_ids_before_a_text_are_found() -> None:
    assert prefix_of(tiny.tokenizer()) == ()
    tokens = joined([[5, 6, 7]], prefix=(1,))
    assert tokens.windows(Reading(window=2, stride=1)) == [(0, 0, 0, 2), (0, 1, 2, 3)]


@pytest.mark.slow
def test_a_build_that_is_killed_outright_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = models.store(tmp_path / "whole").folder
    script = f"""
import os, signal
from pathlib import Path
from tests.backends import tiny
from tests.forensics.knn_lm import models
from unspool.forensics.knn_lm import StoreSettings, build_store, columns

columns._EVERY = 0.0
def kill(done, total, stage):
    if done >= 60:
        os.kill(os.getpid(), signal.SIGKILL)

build_store(models.network(), tiny.tokenizer(), models.tokens(), Path({str(tmp_path / "s")!r}),
            StoreSettings(reading=models.READING), budget=64, on_progress=kill)
"""
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not (tmp_path / "s" / "done.json").exists()
    assert json.loads((tmp_path / "s" / "progress.json").read_text())["rows"] > 0
    build_store(models.network(), tiny.tokenizer(), models.tokens(), tmp_path / "s",
                StoreSettings(reading=READING), budget=64)  # fmt: skip
    for name in ("keys.bin", "values.bin", "plan.json", "done.json"):
        assert (tmp_path / "s" / name).read_bytes() == (whole / name).read_bytes()
