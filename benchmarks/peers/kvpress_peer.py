"""kvpress: SnapKV and ThinK as hooks on the attention modules of a model of transformers.

Called as `kvpress_peer.py JOB`, a JSON file with the model's folder, token ids and settings; prints
one JSON line. The text is read in one pass through the model without its head, as the pipeline of
the library does: its hooks compress only where one pass reads everything.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from kv_reading import continuation_nats, reachable_bytes, written_rate
from kvpress import ComposedPress, SnapKVPress, ThinKPress
from transformers import AutoModelForCausalLM, DynamicCache


def press(asked: dict[str, Any], tokens: int) -> Any:
    """The presses for what was asked: "keep" tokens of SnapKV, "ratio" of ThinK's channels."""
    chosen: list[Any] = []
    if keep := asked.get("keep"):
        # Of a share the library keeps the whole part; half a token more keeps exactly `keep`.
        share = 1 - (keep + 0.5) / tokens
        chosen.append(SnapKVPress(compression_ratio=share, window_size=32, kernel_size=5))
    if ratio := asked.get("ratio"):
        chosen.append(ThinKPress(key_channel_compression_ratio=ratio, window_size=32))
    return ComposedPress(chosen) if chosen else None


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=getattr(torch, job["dtype"]), local_files_only=True
    )
    tokens, ids = job["tokens"], job["ids"]
    chosen, cache = press(job["press"], tokens), DynamicCache()
    with torch.inference_mode():
        text = torch.tensor([ids[:tokens]])
        began = time.perf_counter()
        if chosen is None:
            model.model(text, past_key_values=cache)
        else:
            with chosen(model):
                model.model(text, past_key_values=cache)
        seconds = time.perf_counter() - began
        found = {
            "value": tokens / seconds,
            "kept_bytes": reachable_bytes(cache),
            "kept_tokens": cache.get_seq_length(),
            "nats": continuation_nats(model, cache, ids[tokens:], tokens),
            "written": written_rate(model, cache, ids[-1], len(ids)),
        }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
