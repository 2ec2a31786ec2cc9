"""Reading and writing tokens past a window: methods beside stock transformers and llama.cpp.

One model, SmolLM2-135M-Instruct: unspool and transformers hold it in float32 or bfloat16, llama.cpp
runs the 4-bit file it comes in. Texts are the Python language reference and manual pages, cut to
the token. llama.cpp is given a context that holds the text. What is read for a question (xl3m) is
read up to the prompt that is left, which is read as well.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.registry import Timed, benchmark, peer

TESTS = ("tests/extend/test_decode_step.py", "tests/extend/test_native_step.py")
METHODS = (
    "lm-infinite:local=4096",
    "streaming-llm:window=4096",
    "infllm",
    "xl3m",
    "self-extend",
    "dual-chunk",
    "dense",
)
QUESTION = "What is the value that the text gives for the second of these names?"
LENGTHS = (8192, 32_768, 131_072)
WRITTEN = 32
_WARM = 4


@cache
def _text(tokens: int) -> list[int]:
    from claims._long import text_ids

    return text_ids(tokens)


@cache
def _model(dtype: str) -> Any:
    from unspool import load_model

    return load_model(dtype=dtype)


@benchmark(
    "prefill",
    tests=TESTS,
    against=("transformers",),
    sweep={"tokens": LENGTHS, "method": METHODS, "dtype": ("bfloat16", "float32")},
    unit="tokens/s",
    fresh=True,
    runs=3,
)
def prefill(tokens: int, method: str, dtype: str) -> Timed:
    """Tokens a second of reading a text into a cache."""
    import torch

    from unspool.extension import extend

    loaded, ids = _model(dtype), _text(tokens)
    extension = extend(loaded.model, method, tokenizer=loaded.tokenizer)
    if extension.prompt_method is not None:
        return Timed(lambda: _reduced(extension, ids))

    def call() -> dict[str, Any]:
        cache_ = extension.new_cache()
        cache_.prefill_end = tokens
        began = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, tokens, extension.prefill_chunk):
                chunk = torch.tensor([ids[start : start + extension.prefill_chunk]])
                extension.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)
        seconds = time.perf_counter() - began
        report = extension.report(cache_)
        return {
            "value": tokens / seconds,
            "kept_bytes": report.bytes_device + report.bytes_host + report.bytes_disk,
            "dropped_tokens": report.dropped_tokens,
        }

    return Timed(call)


def _reduced(extension: Any, ids: list[int]) -> dict[str, Any]:
    """Read a text for a question, and the prompt that is left of it."""
    import torch

    question = extension.tokenizer.encode(QUESTION, add_special_tokens=False)
    began = time.perf_counter()
    left = extension.reduce([*ids, *question], 16, tail=len(question), asked=True).ids
    cache_ = extension.new_cache()
    with torch.inference_mode():
        for start in range(0, len(left), 1024):
            chunk = torch.tensor([left[start : start + 1024]])
            extension.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)
    return {"value": len(ids) / (time.perf_counter() - began), "kept_tokens": len(left)}


@benchmark(
    "decode",
    tests=TESTS,
    against=("transformers", "llama-cpp-python"),
    sweep={
        "tokens": (2048, 8192, 32_768),
        "method": ("dense", "lm-infinite:local=4096", "infllm"),
        "weights": ("int8", "same"),
        "dtype": ("float32", "bfloat16"),
    },
    unit="tokens/s",
    fresh=True,
    runs=3,
)
def decode(tokens: int, method: str, weights: str, dtype: str) -> Timed:
    """Tokens a second of writing after a text, through transformers' own `generate`."""
    import torch

    from unspool.extension import extend

    loaded, ids = _model(dtype), _text(tokens)
    chosen: Any = weights
    extension = extend(loaded.model, method, weights=chosen)
    cache_ = extension.new_cache()
    cache_.prefill_end = tokens
    with torch.inference_mode():
        for start in range(0, tokens - 1, extension.prefill_chunk):
            chunk = torch.tensor([ids[start : min(start + extension.prefill_chunk, tokens - 1)]])
            extension.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)

    def call() -> float:
        mine = cache_.copy()
        return _written(
            lambda count: extension.model.generate(
                torch.tensor([ids[tokens - 1 : tokens]]),
                past_key_values=mine,
                attention_mask=torch.ones(1, mine.get_seq_length() + 1, dtype=torch.long),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
            )
        )

    return Timed(call)


def _written(generate: Any) -> float:
    """Tokens a second after the first few."""
    generate(_WARM)
    began = time.perf_counter()
    generate(WRITTEN)
    return WRITTEN / (time.perf_counter() - began)


@peer("prefill", "transformers", missing="transformers")
def prefill_stock(tokens: int, method: str, dtype: str) -> Timed:
    """The same model with transformers' own cache and attention, in chunks of 1,024."""
    import torch
    from transformers import DynamicCache

    loaded, ids = _model(dtype), _text(tokens)

    def call() -> dict[str, Any]:
        cache_ = DynamicCache(config=loaded.model.config)
        began = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, tokens, 1024):
                chunk = torch.tensor([ids[start : start + 1024]])
                loaded.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)
        return {"value": tokens / (time.perf_counter() - began)}

    return Timed(call)


@peer("decode", "transformers", missing="transformers")
def decode_stock(tokens: int, method: str, weights: str, dtype: str) -> Timed:
    """The same model with transformers' own cache and `generate`, weights not in 8 bits."""
    import copy

    import torch
    from transformers import DynamicCache

    loaded, ids = _model(dtype), _text(tokens)
    cache_ = DynamicCache(config=loaded.model.config)
    with torch.inference_mode():
        for start in range(0, tokens - 1, 1024):
            chunk = torch.tensor([ids[start : min(start + 1024, tokens - 1)]])
            loaded.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)

    def call() -> float:
        mine = copy.deepcopy(cache_)
        return _written(
            lambda count: loaded.model.generate(
                torch.tensor([ids[tokens - 1 : tokens]]),
                past_key_values=mine,
                attention_mask=torch.ones(1, mine.get_seq_length() + 1, dtype=torch.long),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
            )
        )

    return Timed(call)


@peer("decode", "llama-cpp-python", missing="llama_cpp")
def decode_llama_cpp(tokens: int, method: str, weights: str, dtype: str) -> Timed:
    """llama.cpp on the 4-bit file, with a context that holds the text and what is written."""
    import llama_cpp

    from unspool.backends.embedded import EMBEDDED, _place

    path = EMBEDDED.find(_place(EMBEDDED))
    assert isinstance(path, Path)  # the package is there, or the model above would have failed
    ids = _text(tokens)
    engine = llama_cpp.Llama(
        str(path), n_ctx=tokens + 256, n_threads=2, n_batch=512, verbose=False, logits_all=False
    )
    engine.eval(ids)

    def call() -> float:
        for _ in range(_WARM):
            engine.eval([engine.sample(temp=0.0)])
        began = time.perf_counter()
        for _ in range(WRITTEN):
            engine.eval([engine.sample(temp=0.0)])
        rate = WRITTEN / (time.perf_counter() - began)
        engine.n_tokens = tokens  # forget what was written
        return rate

    return Timed(call)
