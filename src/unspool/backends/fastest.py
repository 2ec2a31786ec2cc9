"""The number format that this machine reads fastest in, measured once and kept.

What: times matrix products of the shapes of a small decoder in float32 and bfloat16.
Source: this project's own; processors with bfloat16 products (AVX-512 BF16, AMX) read about twice
as fast in it, others several times slower, and nothing but a trial tells.
Differs from a table of processors: the installed PyTorch decides as well, so both are part of what
is kept.
Cost: about 0.2 s, the first time on a machine.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from unspool._cache import cache_folder
from unspool._machine import cpu_model

_WORTH = 1.2
"""Times faster that half precision has to be: it rounds."""


def fastest_dtype(device: str) -> str:
    """ "bfloat16" or "float32" for a processor, "bfloat16" or "float16" for a graphics card."""
    import torch

    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    key = f"{cpu_model()}; torch {torch.__version__}; {torch.get_num_threads()} threads"
    place = cache_folder("machine", "dtype.json")
    known = _read(place)
    if known.get(key) in ("float32", "bfloat16"):
        return str(known[key])
    chosen = "bfloat16" if _seconds("float32") > _WORTH * _seconds("bfloat16") else "float32"
    with suppress(OSError):  # a cache that cannot be written is measured again
        _write(place, {**known, key: chosen})
    return chosen


def _seconds(dtype: str) -> float:
    """Of a product [512, 1024] x [1024, 1024], the least of several."""
    import torch

    kind = getattr(torch, dtype)
    x, weight = torch.ones(512, 1024, dtype=kind), torch.ones(1024, 1024, dtype=kind)
    least = float("inf")
    with torch.inference_mode():
        for _ in range(6):  # the first ones prepare the kernel
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            least = min(least, time.perf_counter() - began)
    return least


def _read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(place: Path, found: dict[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=place.parent, delete=False) as file:
        json.dump(found, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, place)
