"""Dense attention over everything that a store holds: the default of every layer.

What: exact attention of the new chunk over all segments of the store, merged by log-sum-exp.
Source: any decoder; merging of segments as in `kernel.merge`.
Differs from the stock function: padding is a position of -1 and a padded query gives 0; keys of a
segment may hold fewer channels than the query (ThinK), the scale stays that of the full head.
Cost: O(T * S * D). Shapes: as `Call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.attention.call import Call
from unspool.attention.kernel import attend, merge
from unspool.attention.one import attend_one, why_not_one
from unspool.caches.base import KV
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class Dense:
    """The stock mechanism, on this project's stores."""

    late: bool = False
    """Rotate on the way: keys are stored raw (a frequency that changes while generating)."""
    reads_segments: bool = True
    softcaps: bool = True
    """Scores are capped where the model asks for it."""
    backend: str = "auto"
    """As `attend` takes it."""

    def __call__(self, call: Call) -> Tensor:
        q, segments = self._read(call)
        if len(segments) == 1:
            return self._segment(call, q, segments[0])
        return self._merged(call, q, segments)[0]

    def with_lse(self, call: Call) -> tuple[Tensor, Tensor]:
        """The output, and the log-sum-exp [B, Hq, T] of each row, -inf where it sees nothing."""
        return self._merged(call, *self._read(call))

    def _read(self, call: Call) -> tuple[Tensor, list[KV]]:
        """Queries as they attend, and what they meet."""
        if call.store is None:
            segments = [KV(call.k, call.v, call.positions, call.start, not self.late)]
        else:
            segments = list(call.store.segments())
        q = call.q
        if self.late:
            q = call.rotate(q, call.start if call.positions is None else call.positions)
        return q, segments

    def _merged(self, call: Call, q: Tensor, segments: Sequence[KV]) -> tuple[Tensor, Tensor]:
        return merge([self._segment_with_lse(call, q, each) for each in segments if len(each)])

    def _segment(self, call: Call, q: Tensor, segment: KV) -> Tensor:
        k, spec = self._prepare(call, segment)
        q = _channels(q, segment)
        if self.backend == "auto" and spec.plain and why_not_one(q, k) is None:
            return attend_one([(q, k, segment.v)], call.scale)
        return attend(q, k, segment.v, spec=spec, scale=call.scale, backend=self.backend)

    def _segment_with_lse(self, call: Call, q: Tensor, segment: KV) -> tuple[Tensor, Tensor]:
        k, spec = self._prepare(call, segment)
        q = _channels(q, segment)
        return attend(
            q, k, segment.v, spec=spec, scale=call.scale, return_lse=True, backend=self.backend
        )

    def _prepare(self, call: Call, segment: KV) -> tuple[Tensor, Spec]:
        k = segment.k
        if not segment.rotated:
            at = segment.start if segment.positions is None else segment.positions
            k = call.rotate(k, at)
        spec = call.spec
        if spec.mask is not None:
            if spec.mask.shape[-1] != len(segment):
                raise ConfigError(
                    f"Packed, prefix or image attention needs every token, and layer {call.layer} "
                    f"holds {len(segment):,} in a segment of {spec.mask.shape[-1]:,}. Use dense."
                )
            return k, spec  # made for exactly these columns
        last = call.start + call.q.shape[2]
        unpadded = segment.positions is None and call.positions is None
        if unpadded and spec.window is not None and last - segment.start <= spec.window:
            spec = replace(spec, window=None)  # no key is further away than the window reaches
        if unpadded and spec.window is None and segment.start + len(segment) <= call.start:
            return k, replace(spec, causal=False)  # all of it lies in the past
        if not (unpadded and segment.start + len(segment) == last):
            spec = replace(spec, q_positions=call.where(), k_positions=segment.where())
        return k, spec


def _channels(q: Tensor, segment: KV) -> Tensor:
    """The channels of the query that the keys of a segment still have."""
    if segment.channels is None:
        return q
    groups = q.shape[1] // segment.channels.shape[1]
    index = segment.channels.repeat_interleave(groups, dim=1)[:, :, None]
    return q.gather(-1, index.expand(-1, -1, q.shape[2], -1))
