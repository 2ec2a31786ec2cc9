"""HyperAttention in a transformers model: long prompts read in near-linear time.

What: the layers that are named read a chunk of a prompt by `hyper_attention`; what is short, and
every written token, is exact.
Source: Han et al. (2023), "HyperAttention", section 4.1 (a share of a model's layers is replaced).
Differs from the released code: any decoder, grouped heads, padded batches (each row as it is
alone), a cache; a packed batch, an explicit mask or a sliding layer is read exactly.
Cost: as `hyper_attention` for each chunk, the cache as dense. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from unspool.attention.call import Attend, Call
from unspool.attention.dense import Dense
from unspool.attention.hyper.functional import check, hyper_attention, is_exact
from unspool.attention.hyper.plan import Order, Settings
from unspool.attention.hyper.sampled import Drawn, Sampling
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts

_EXACT = Dense()


@dataclass(frozen=True, kw_only=True)
class HyperAttention(Method):
    """Large attention weights by hashing, the rest by sampling: long prompts are read sooner."""

    name: ClassVar[str] = "hyper"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("attend",)
    system: ClassVar[str] = "hyper-attention"
    recalls: ClassVar[str] = "everything inside the window, approximately"
    costs: ClassVar[str] = "near-linear time to read, memory as dense"
    needs_rotated: ClassVar[bool] = True
    whole_chunks: ClassVar[bool] = True

    lsh_bits: int = 7
    """Random directions of the hash."""
    block: int = 256
    """Keys of a sorted block, met exactly by the queries of that block; 0: none."""
    samples: int = 256
    """Keys that stand for all others; 0: none."""
    min_seq_len: int = 4096
    """Tokens below which a rectangle of the recursion is exact; prompts under twice as many are."""
    sampling: Sampling = "uniform"
    """uniform, or value-norm: in proportion to the squared norms of the values."""
    sinks: int = 0
    """First tokens that every query meets exactly; 0 as published, 4 is a good choice."""
    order: Order = "lsh"
    """What sorts: lsh, centred (lsh less the mean), released (the code's buckets), or random."""
    seed: int = 0
    """Of directions and samples; each layer draws its own."""

    def __post_init__(self) -> None:
        check(
            self.lsh_bits,
            self.block,
            self.samples,
            self.min_seq_len,
            self.sampling,
            self.sinks,
            self.order,
        )

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        return Hyper(self)

    def exact_within(self, facts: ModelFacts) -> int | None:
        return 2 * self.min_seq_len - 1

    def prefill_chunk(self, facts: ModelFacts) -> int:
        return max(8 * self.min_seq_len, 32_768)


@dataclass(frozen=True, slots=True)
class Hyper:
    """The mechanism of a layer."""

    method: HyperAttention
    late: bool = False
    reads_segments: bool = True

    def __call__(self, call: Call) -> Tensor:
        if self._settings(call.spec.causal, call.q.shape[2], call) is None:
            return _EXACT(call)
        if call.store is None:
            k, v, where = call.k, call.v, call.positions
        else:
            segments = list(call.store.segments())
            kept = segments[0]
            if len(segments) > 1 or kept.channels is not None or not kept.rotated:
                return _EXACT(call)  # compressed
            k, v, where = kept.k, kept.v, kept.positions
        if call.positions is None and where is None:
            return self._attend(call, call.q, k, v)
        return self._padded(call, k, v, where)

    def _settings(self, causal: bool, num_queries: int, call: Call) -> Settings | None:
        """What to do, None where the call is read exactly."""
        spec = call.spec
        if not spec.plain or call.phase == "decode":
            return None
        made = Settings(causal=causal, min_seq_len=self.method.min_seq_len)
        end = call.start + num_queries
        # Whatever chunks it is read in, a text as short as that is exact.
        short = end < 2 * self.method.min_seq_len
        return None if short or is_exact(num_queries, end, made) else made

    def _attend(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        import torch

        method = self.method
        generator = torch.Generator(device=q.device)
        generator.manual_seed((method.seed + call.seed) * 1_000_003 + call.layer)
        return hyper_attention(
            q,
            k,
            v,
            causal=call.spec.causal,
            scale=call.scale,
            lsh_bits=method.lsh_bits,
            block=method.block,
            samples=method.samples,
            min_seq_len=method.min_seq_len,
            sinks=method.sinks,
            order=method.order,
            generator=generator,
            draw=Drawn(method.sampling, generator, shared=True),
        )

    def _padded(self, call: Call, k: Tensor, v: Tensor, where: Tensor | None) -> Tensor:
        """Each row of a padded batch by itself, without its padding."""
        import torch

        q_at = call.where()
        k_at = torch.arange(k.shape[2], device=k.device).expand(len(k), -1)
        k_at = k_at if where is None else where
        out = call.q.new_zeros(*call.q.shape[:3], v.shape[-1])
        for row in range(len(k)):
            queries, keys = ((x[row] >= 0).nonzero().flatten() for x in (q_at, k_at))
            if len(queries):
                one = slice(row, row + 1)
                parts = call.q[one][:, :, queries], k[one][:, :, keys], v[one][:, :, keys]
                out[one, :, queries] = self._attend(call, *parts)
        return out
