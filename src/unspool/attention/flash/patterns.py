"""Block patterns: which blocks of keys a block of queries meets, as small boolean matrices.

What: butterfly, sliding window, sinks, dilated and BigBird over blocks, their union, and any
boolean array, each ready for `BlockMask.from_dense`.
Source: butterfly: Chen et al. (2022), "Pixelated Butterfly", section 3.2, which FlashAttention
(Dao et al. 2022) uses in section 3.3; BigBird: Zaheer et al. (2020), section 2; dilated: Longformer
(Beltagy et al. 2020), section 3.1.
Differs from the papers: patterns of NQ x NK blocks with NQ <= NK are aligned bottom-right, so that
a chunk of a text sees what it would see in the whole.
Cost: O(NQ * NK) bits. Shapes: bool [NQ, NK].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def sliding_window(num_q: int, num_k: int, *, width: int, causal: bool = False) -> Tensor:
    """Blocks at distance below `width`, to both sides unless causal."""
    distance = _distance(num_q, num_k)
    _positive("width", width)
    near: Tensor = distance.abs() < width
    return near & (distance >= 0) if causal else near


def sinks(num_q: int, num_k: int, *, first: int) -> Tensor:
    """The first blocks, for everybody."""
    _positive("first", first)
    return _columns(num_q, num_k) < first


def dilated(num_q: int, num_k: int, *, width: int, step: int, causal: bool = False) -> Tensor:
    """`width` blocks to each side, `step` apart."""
    distance = _distance(num_q, num_k)
    _positive("width", width)
    _positive("step", step)
    met: Tensor = (distance % step == 0) & (distance.abs() < width * step)
    return met & (distance >= 0) if causal else met


def butterfly(num_q: int, num_k: int, *, stride: int = 0) -> Tensor:
    """Blocks whose numbers differ in at most one bit: a flat block butterfly.

    Args:
        num_q: Query blocks.
        num_k: Key blocks.
        stride: Only bits below this power of two; 0: all.
    """
    import torch

    _positive("num_q", num_q)
    _positive("num_k", num_k)
    rows = torch.arange(num_k - num_q, num_k)[:, None]
    differing = rows ^ torch.arange(num_k)[None]
    if stride:
        differing = differing.masked_fill(differing >= stride, 3)  # two bits: not met
    return (differing & (differing - 1)) == 0


def bigbird(
    num_q: int, num_k: int, *, window: int = 2, first: int = 1, random: int = 3, seed: int = 0
) -> Tensor:
    """A window, the first blocks met by all and meeting all, and some drawn for each query block.

    Args:
        num_q: Query blocks.
        num_k: Key blocks.
        window: Blocks at distance below this.
        first: Global blocks.
        random: Blocks drawn for each query block, of those that it has not.
        seed: Of the draw.
    """
    import torch

    met = sliding_window(num_q, num_k, width=window) | sinks(num_q, num_k, first=first)
    met |= (torch.arange(num_k - num_q, num_k) < first)[:, None]
    if random < 0:
        raise ConfigError(f"bigbird needs random >= 0, got random={random}.")
    draw = torch.rand(num_q, num_k, generator=torch.Generator().manual_seed(seed))
    drawn = draw.masked_fill(met, -1.0).topk(min(random, num_k), dim=-1)
    return met.scatter(1, drawn.indices, met.gather(1, drawn.indices) | (drawn.values >= 0))


def union(*patterns: Tensor) -> Tensor:
    """Blocks of any of the patterns."""
    if not patterns:
        raise ConfigError("union needs at least one pattern, got none.")
    out = patterns[0].clone()
    for pattern in patterns[1:]:
        if pattern.shape != out.shape:
            raise ConfigError(f"Patterns of {tuple(out.shape)} and {tuple(pattern.shape)} blocks.")
        out |= pattern
    return out


def share(pattern: Tensor, *, causal: bool = False) -> float:
    """Share of the blocks that are met, of those that causality leaves."""
    possible = _distance(*pattern.shape) >= 0 if causal else pattern.new_ones(pattern.shape)
    return float((pattern & possible).sum() / possible.sum())


def picture() -> Tensor:
    """Causal attention over a butterfly of blocks and a window of them: bool [128, 128]."""
    import torch

    from unspool.attention.blocks import BlockMask
    from unspool.attention.spec import Spec, visible

    blocks = union(butterfly(16, 16), sliding_window(16, 16, width=2))
    spec = Spec(blocks=BlockMask.from_dense(blocks, block_q=8, block_k=8))
    seen = visible(spec, 128, 128, torch.device("cpu"))
    assert seen is not None  # a pattern with rules
    return seen[0, 0]


def _distance(num_q: int, num_k: int) -> Tensor:
    import torch

    _positive("num_q", num_q)
    _positive("num_k", num_k)
    return torch.arange(num_k - num_q, num_k)[:, None] - torch.arange(num_k)[None]


def _columns(num_q: int, num_k: int) -> Tensor:
    import torch

    return torch.arange(num_k)[None].expand(num_q, num_k)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"A block pattern needs {name} >= 1, got {name}={value}.")
