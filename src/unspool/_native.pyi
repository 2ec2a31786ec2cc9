"""The native engine: one class over the shards of one tier, and the builder of one shard.

Symbols are external values: bytes 0-255, or token ids. -1 is the end of a document.
A query is str (UTF-8), bytes, or a C-contiguous uint32 array of symbols (the only form that a
token index takes). Every call releases the GIL and polls for signals and the deadline.
Documents are numbered inside their shard; offsets are in symbols of the forward document.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Query: TypeAlias = str | bytes | NDArray[np.uint32]

FORMAT_VERSION: int

def build_shard(
    out: str,
    *,
    tier: str,  # "fm" or "sa"
    width: int,  # bytes per stored symbol in the spool: 1, 2 or 4 (little-endian)
    pieces: Sequence[tuple[str, int, int]],  # (file, byte offset, byte length), concatenated
    lengths: NDArray[np.uint64],  # symbols of each document, in order; no separators in the spool
    sa_sample: int = 32,
    isa_sample: int = 64,
    sections: Sequence[tuple[str, bytes]] = (),  # opaque, name of at most 8 ASCII characters
    progress: Callable[[str, float], None] | None = None,  # (stage, fraction), at most 10 a second
) -> dict[str, Any]:
    """Write one shard file atomically (temporary name, fsync, rename).

    Returns symbols, documents, rows, alphabet, bytes_file, seconds by stage. The bytes depend on
    the input alone.
    """

def shard_memory(tier: str, width: int, symbols: int, documents: int) -> int:
    """Peak bytes that build_shard needs for so many symbols."""

def crc32c(data: bytes, seed: int = 0) -> int: ...
def suffix_array(symbols: NDArray[np.uint32], wide: bool = False) -> NDArray[np.int64]:
    """Suffix array of symbols (a suffix that is a prefix of another sorts first); for tests."""

def set_deadline(seconds: float | None) -> None:
    """Native calls of this thread that run past so many seconds from now raise DeadlineExceeded."""

def num_threads() -> int:
    """Threads that a long batch is split over: the processors of this process, at most the
    environment variable UNSPOOL_THREADS."""

def set_threads(threads: int) -> None:
    """So many threads for long batches, whatever there are processors; 0: as by default."""

DECODER_KERNELS: str | None
"""Instruction set that the decoder runs with; None: it was built without one."""

class Layers:
    """What is before and after attention in the layers of a decoder, for one new token a sequence.

    A norm is (weight float32 [n], epsilon) or None; a matrix (weight [out, in]: float32, int16 (the
    bits of bfloat16) or int8; float32 scale of each row or None; float32 bias or None). Arrays are
    borrowed and kept alive.
    """

    def __init__(self, hidden: int, threads: int) -> None: ...
    def add(
        self,
        before: Any,
        qkv: Sequence[Any],
        query: Any,
        key: Any,
        out: Any,
        after_attention: Any,
        middle: Any,
        gate: Any,
        up: Any,
        activation: int,  # 0: silu, 1: gelu by tanh
        down: Any,
        after_mlp: Any,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
    ) -> None: ...
    def set_head(self, norm: Any, head: Any) -> None: ...
    def bind(self, x: Any, qkv: Any, attended: Any, logits: Any) -> None:
        """Float32 buffers [batch, n] that calls read and write."""

    def set_angles(self, cos: Any, sin: Any, interleaved: bool = False) -> None:
        """Rotation of queries and keys from here on; None: none."""

    def before(self, layer: int) -> None:
        """x -> qkv."""

    def after(self, layer: int) -> None:
        """x and attended -> x."""

    def logits(self) -> None:
        """x -> logits."""

def kernel_names() -> list[str]:
    """Instruction sets that a decoder could run with on this processor, the best first."""

def use_kernels(name: str | None) -> None:
    """Run attention, and decoders made from here on, with one of them; None: the best. Tests."""

def share_threads(shared: bool) -> None:
    """Whether a decoder works on the threads of GNU OpenMP where the process has loaded it (the
    default), or on some of its own; for tests."""

def attend_one(parts: Sequence[tuple[Any, Any, Any]], scale: float, threads: int, out: Any) -> None:
    """One softmax over the keys of several parts (q float32 [B, Hq, 1, D], k [B, Hkv, S, D],
    v [B, Hkv, S, Dv]; float32, or int16 for bfloat16), into out float32 [B, Hq, 1, Dv]. The bits do
    not depend on the threads."""

class AttentionPattern:
    """Which pairs attention may see: the rules of unspool.attention.Spec. Tensors are anything that
    speaks DLPack on the processor: positions and documents int64 [B|1, N], global tokens bool,
    indices int32 [B|1, H|1, NQ, M], counts int32 [B|1, H|1, NQ]."""

    def __init__(
        self,
        *,
        causal: bool,
        window: int | None = None,
        right: int | None = None,
        beyond: int | None = None,
        sinks: int = 0,
        q_global: Any = None,
        k_global: Any = None,
        q_positions: Any = None,
        k_positions: Any = None,
        q_documents: Any = None,
        k_documents: Any = None,
        indices: Any = None,
        counts: Any = None,
        block_q: int = 1,
        block_k: int = 1,
    ) -> None: ...

def attention_kernels() -> str:
    """The kernels that this processor runs best: "avx512", "avx2" or "portable"."""

def attention_forward(
    q: Any,  # float32 or bfloat16 [B, Hq, T, D], rows in one piece, as k, v and out
    k: Any,  # [B, Hkv, S, D]
    v: Any,  # [B, Hkv, S, Dv]
    out: Any,  # [B, Hq, T, Dv], written
    lse: Any,  # float32 [B, Hq, T], written
    pattern: AttentionPattern,
    *,
    scale: float,
    softcap: float = 0.0,  # 0: none
    threads: int = 1,
    kernels: str = "",  # "": the best
) -> None: ...
def attention_backward(
    q: Any,
    k: Any,
    v: Any,
    lse: Any,
    d_out: Any,  # as out
    delta: Any,  # float32 [B, Hq, T]: row sums of d_out * out, less the gradient of lse
    d_q: Any,  # float32 [B, Hq, T, D], written
    d_k: Any,  # float32 [B, Hkv, S, D up to a multiple of 16], added to
    d_v: Any,  # float32 [B, Hkv, S, Dv up to a multiple of 16], added to
    pattern: AttentionPattern,
    *,
    scale: float,
    softcap: float = 0.0,
    threads: int = 1,
    kernels: str = "",
) -> None: ...

class Index:
    """Shards of one tier, opened by mmap (or read into memory) and asked in lock-step."""

    def __init__(self, paths: Sequence[str], ram: bool = False) -> None:
        """Checks magic, version, lengths and section table; raises IndexCorrupt, IndexVersion."""
    @staticmethod
    def open_v4(files: Sequence[tuple[str, str, str]], width: int) -> Index:
        """Shards of an infini-gram v4 directory: (tokenized, table, offset) file paths, and the
        token width in bytes. Every pointer is checked when used."""
    def close(self) -> None: ...
    @property
    def num_shards(self) -> int: ...
    def info(self, shard: int) -> dict[str, Any]:
        """tier, width, symbols, documents, alphabet, sa_sample, isa_sample, bytes_file, sections
        (name -> bytes)."""
    def section(self, shard: int, name: str, start: int = 0, end: int | None = None) -> bytes:
        """A checked copy of (part of) an opaque section."""
    def warm(self) -> None: ...
    def verify(self, shard: int) -> list[str]:
        """Read every byte; the errors found, none if sound."""
    def count(self, query: Query) -> int: ...
    def count_batch(self, queries: Sequence[Query]) -> NDArray[np.int64]: ...
    def ranges(self, query: Query) -> list[tuple[int, int]]:
        """Rows [lo, hi) of each shard whose suffixes begin with the query."""
    def ranges_batch(self, queries: Sequence[Query]) -> NDArray[np.uint64]:
        """[queries, shards, 2]"""
    def locate(
        self, shard: int, rows: NDArray[np.uint64], length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Document and start offset of matches of `length` symbols that lie on these rows."""
    def extract(self, shard: int, document: int, start: int, end: int) -> bytes:
        """Symbols [start, end) of a document, `width` bytes each, little-endian."""
    def document_length(self, shard: int, document: int) -> int: ...
    def document_lengths(self, shard: int) -> NDArray[np.uint64]: ...
    def next(self, query: Query) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """count(query), the symbols that follow it (ascending, -1 first), and their counts."""
    def next_batch(
        self, queries: Sequence[Query]
    ) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]: ...
    def prob(self, query: Query, symbol: int) -> tuple[int, int]:
        """count(query), count of query followed by symbol (-1: end of document)."""
    def prob_batch(self, queries: Sequence[Query], symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """[queries, 2]"""
    def longest_suffix(self, query: Query) -> tuple[int, int]:
        """Symbols in the longest suffix that occurs in some shard, and its count over all."""
    def longest_suffix_batch(self, queries: Sequence[Query]) -> NDArray[np.int64]:
        """[queries, 2]"""
    def infgram(self, query: Query) -> tuple[int, int, NDArray[np.int64], NDArray[np.int64]]:
        """suffix length, its count, next symbols, their counts."""
    def infgram_batch(
        self, queries: Sequence[Query]
    ) -> list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]: ...
    def infgram_prob(self, query: Query, symbol: int) -> tuple[int, int, int]:
        """suffix length, its count, count of it followed by symbol."""
    def infgram_prob_batch(
        self, queries: Sequence[Query], symbols: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[queries, 3]"""
    def longest_matches(self, text: Query) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each start the length of the longest match that occurs in some shard, and the count
        over all shards of that match where it is maximal (not inside the previous one), else -1."""
