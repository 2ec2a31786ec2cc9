"""Caches made smaller once a prompt was read: ours beside kvpress, which lives in another place.

SmolLM2-135M-Instruct, converted once, is loaded by both from the same folder. Each side reads the
same tokens, says what memory its cache still reaches (tensor storages, found from outside and not
as either reports them), scores the continuation of the text behind the compressed cache, and
writes.

kvpress pins an older transformers. Its python is named by the variable UNSPOOL_KVPRESS;
`benchmarks/peers/kvpress-requirements.txt` says how to make that environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.registry import Timed, benchmark, peer
from unspool.errors import BackendError

VARIABLE = "UNSPOOL_KVPRESS"
HOW = (
    "make the environment that benchmarks/peers/kvpress-requirements.txt describes and set "
    f"{VARIABLE} to its python"
)
METHODS: dict[str, tuple[str, dict[str, float]]] = {
    "think": ("think:ratio=0.4", {"ratio": 0.4}),
    "snapkv+think": ("snapkv:keep=1024+think:ratio=0.4", {"keep": 1024, "ratio": 0.4}),
    "snapkv": ("snapkv:keep=1024", {"keep": 1024}),
    "dense": ("dense", {}),
    "think-newest-too": ("think:ratio=0.4,recent=0", {"ratio": 0.4}),
}
"""Our method, and what it is in kvpress, which thins the newest keys too, as the last of ours."""
CONTINUED = 128
"""Tokens of the text that are scored behind the compressed cache."""


@benchmark(
    "compress",
    tests=("tests/extend/test_compression.py",),
    against=("kvpress",),
    sweep={"tokens": (8000, 2000), "method": tuple(METHODS), "dtype": ("float32", "bfloat16")},
    unit="tokens/s",
    fresh=True,
    runs=3,
)
def compress(tokens: int, method: str, dtype: str) -> Timed:
    """Tokens a second of reading a prompt into a cache that is compressed at its end."""
    import torch

    from benchmarks.peers.kv_reading import continuation_nats, reachable_bytes, written_rate
    from unspool import load_model
    from unspool.extension import extend

    loaded, ids = load_model(dtype=dtype), _text(tokens)
    extension = extend(loaded.model, METHODS[method][0], weights="same")

    def call() -> dict[str, Any]:
        cache = extension.new_cache()
        cache.prefill_end = tokens
        with torch.inference_mode():
            began = time.perf_counter()
            for start in range(0, tokens, extension.prefill_chunk):
                chunk = torch.tensor([ids[start : min(start + extension.prefill_chunk, tokens)]])
                extension.model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
            seconds = time.perf_counter() - began
            return {
                "value": tokens / seconds,
                "kept_bytes": reachable_bytes(cache),
                "reported_bytes": extension.report(cache).bytes_device,
                "nats": continuation_nats(loaded.model, cache, ids[tokens:], tokens),
                "written": written_rate(loaded.model, cache, ids[-1], len(ids)),
            }

    return Timed(call)


def missing_kvpress() -> str | None:
    """None if the other environment is named and has the library, else the line to type."""
    python = os.environ.get(VARIABLE)
    if not python or not Path(python).exists():
        return HOW
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('kvpress') is None)"
    done = subprocess.run([python, "-c", check], env=_environment(), check=False)
    return HOW if done.returncode else None


@peer("compress", "kvpress", missing=missing_kvpress)
def compress_kvpress(tokens: int, method: str, dtype: str) -> Timed:
    """kvpress' presses on the same folder and tokens, in a process of their environment."""
    from unspool.backends.embedded import embedded_folder

    job = {
        "model": str(embedded_folder()[0]),
        "tokens": tokens,
        "ids": _text(tokens),
        "dtype": dtype,
        "press": METHODS[method][1],
    }
    return Timed(lambda: _call(job))


def _call(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        script = Path(__file__).parent / "peers" / "kvpress_peer.py"
        done = subprocess.run(
            [os.environ[VARIABLE], str(script), str(path)],
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
    if done.returncode:
        raise BackendError(f"kvpress failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    """Ours, without what makes our own process find packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _text(tokens: int) -> list[int]:
    from claims._long import text_ids

    return text_ids(tokens + CONTINUED)
