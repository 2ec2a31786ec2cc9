"""Which laws each method answers to. A registered method that is not named here fails a test.

`LAWS` has every method that runs in a decoder, `EXEMPT` every law that one of them does not answer
to, and why. A method that fills no layer of a decoder is in `ELSEWHERE`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Laws:
    """A small setting of a method, and how it may differ from the stock model."""

    spec: str
    exact_within: int
    """Prompts up to this many tokens equal the stock model (0: never)."""
    chunk: int = 1
    """Chunked reading equals one pass for chunks that are multiples of this (0: never)."""
    bounded: bool = False
    """Reads any length, and keeps a bounded number of tokens on the device."""
    cached: bool = True
    """Works through a cache of this project (False: needs its own entry points)."""
    slow: bool = False
    """Left to the slow tests: another entry runs the same code by default."""
    trained: bool = False
    """What it trains is set to random numbers: untrained, it would be the stock model."""


BLOCKS = "block_q=8,k_tokens=8,window=8,sink=4,dense_layers=,dense_below=0"
"""Sizes of the methods that choose blocks of keys."""

LAWS: dict[str, Laws] = {
    "dense": Laws("dense", exact_within=200),
    "dense-late": Laws("dense:late=true", exact_within=200),
    "flash": Laws("flash", exact_within=200),
    "lm-infinite": Laws("lm-infinite:local=48,sinks=4", exact_within=48, bounded=True),
    "lm-infinite-top-k": Laws(
        "lm-infinite:local=48,sinks=4,top_k=3,top_k_from_layer=0", exact_within=48
    ),
    "infllm": Laws(
        "infllm:local=48,init=4,block=8,top_k=3,representatives=2,exec_block=16",
        exact_within=48,
        chunk=16,
    ),
    "masformer": Laws("masformer:full=bottom:1,block=24", exact_within=48),
    "masformer-local": Laws(
        "masformer:full=none,block=24", exact_within=48, bounded=True, slow=True
    ),
    "masformer-window": Laws(
        "masformer:full=bottom:1,block=48,kind=window", exact_within=48, slow=True
    ),
    "ntk": Laws("ntk", exact_within=200, slow=True),
    "ntk-trained": Laws("ntk", exact_within=0, trained=True),
    "streaming-llm": Laws("streaming-llm:window=48,sinks=4", exact_within=48, bounded=True),
    "self-extend": Laws("self-extend:neighbours=48,group=4", exact_within=48),
    "dual-chunk": Laws("dual-chunk:chunk=48,window=64", exact_within=48),
    "snapkv": Laws("snapkv:keep=48,window=8", exact_within=48),
    "think": Laws("think:ratio=0.5,window=16,recent=16", exact_within=31),
    "quantise": Laws("quantise:bits=4,recent=16", exact_within=16),
    "snapkv-think-quantise": Laws(
        "snapkv:keep=60,window=8+think:window=16,recent=16+quantise:recent=8", exact_within=31
    ),
    "squeezed": Laws("squeezed:window=32,pct=0.2", exact_within=41),
    "squeezed-two-levels": Laws("squeezed:window=32,pct=0.2,levels=2", exact_within=41),
    "hip": Laws(f"hip:{BLOCKS}", exact_within=20, chunk=8),
    "hip-shared": Laws(
        f"hip:{BLOCKS},share_heads=true,refresh=3", exact_within=20, chunk=8, slow=True
    ),
    "hip-multistage": Laws(
        "hip:variant=multistage,block_q=8,k_tokens=16,window=8,sink=8,dense_layers=,dense_below=0",
        exact_within=32,
        chunk=8,
        slow=True,
    ),
    "random-blocks": Laws(f"random-blocks:{BLOCKS}", exact_within=20, chunk=8, slow=True),
    "oracle-top-k": Laws(f"oracle-top-k:{BLOCKS}", exact_within=20, chunk=8, slow=True),
    "hyper": Laws(
        "hyper:min_seq_len=32,block=8,samples=12,lsh_bits=4,sinks=2", exact_within=63, chunk=0
    ),
    "softplus": Laws("softplus:p=3", exact_within=0),
    "softplus-first-stage": Laws("softplus:reweight=false", exact_within=0),
    "alibi": Laws("alibi", exact_within=0),
    "rope": Laws("rope:kind=linear,factor=2", exact_within=0),
    "xpos": Laws("xpos", exact_within=0),
}

_OTHER = "another formula or other positions in place of the stock model's: never the same numbers"
_GROWS = "keeps every token, so memory grows with the text"
_BLOCKS = "chooses keys for blocks of queries, so chunks are multiples of its block"
_CHUNK = "reads each chunk by a recursion of its own: another cut, another approximation"

EXEMPT: dict[str, dict[str, str]] = {
    "equals the stock model": {
        "ntk-trained": "a trained prefix is met by every query; untrained, it is the entry ntk",
        "softplus": _OTHER,
        "softplus-first-stage": _OTHER,
        "alibi": _OTHER,
        "rope": _OTHER,
        "xpos": _OTHER,
    },
    "any chunks": {
        "infllm": _BLOCKS,
        "hip": _BLOCKS,
        "hip-shared": _BLOCKS,
        "hip-multistage": _BLOCKS,
        "random-blocks": _BLOCKS,
        "oracle-top-k": _BLOCKS,
        "hyper": _CHUNK,
    },
    "whole chunks": {"hyper": _CHUNK},
    "half precision": {"softplus": "its power of 15 makes fifteen of every rounding of a score"},
    "bounded memory": {name: _GROWS for name, laws in LAWS.items() if not laws.bounded},
}
"""Of each law, the methods that do not answer to it, and why. The laws that are not here have no
exceptions. Those exempt from "any chunks" answer to it while nothing is left out, and to "whole
chunks"; those exempt from "bounded memory" read and count ten windows, or refuse them by name."""

ELSEWHERE: dict[str, str] = {
    "padding-free": "packs batches of encoders and of training, and keeps no cache",
    "infini-retri": "shortens the prompt; the model then reads it as it is",
    "xl3m": "shortens the prompt; the model then reads it as it is",
    "giraffe-linear": "turns the frequencies of `rope` by another rule",
    "giraffe-power": "turns the frequencies of `rope` by another rule",
    "giraffe-truncated": "turns the frequencies of `rope` by another rule",
}
"""Registered methods without an entry of their own, and why."""
