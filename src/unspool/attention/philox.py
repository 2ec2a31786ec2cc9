"""Dropout whose every weight has its own random number, the same in every back-end.

What: Philox 4x32 with ten rounds, keyed by the seed and counted by (key, query, head and row of the
batch), so that a kernel in tiles and a plain product drop the same weights.
Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", section 3.3;
FlashAttention (Dao et al. 2022), section 3.1, replays the generator in backward.
Differs from the usual dropout: no generator state is advanced.
Cost: about 60 integer operations a weight. Shapes: p [B, Hq, rows, S].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec

_LOW = 0xFFFFFFFF
_MULTIPLIER_A, _MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def philox(seed: int, c0: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """The first of the four 32-bit words for the counter (c0, c1, c2, 0), as int64."""
    import torch

    c0, c1, c2 = torch.broadcast_tensors(c0.long(), c1.long(), c2.long())
    c3 = torch.zeros_like(c0)
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(_ROUNDS):
        high_a, low_a = _product(c0, _MULTIPLIER_A)
        high_b, low_b = _product(c2, _MULTIPLIER_B)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + _KEY_A) & _LOW, (k1 + _KEY_B) & _LOW
    return c0


def dropout_threshold(probability: float | int) -> int:
    """Words below this are dropped."""
    return min(_LOW, round(probability * 2**32))


def dropout_factor(spec: Spec, p: Tensor, first_row: int) -> Tensor:
    """What the weights of some rows are multiplied by: 0 or 1 / (1 - dropout).

    Args:
        spec: With `dropout` and `seed`.
        p: The weights [B, Hq, rows, S].
        first_row: Number of the first of these rows.
    """
    import torch

    (batch, num_heads, rows, num_keys), device = p.shape, p.device
    key = torch.arange(num_keys, device=device)
    row = torch.arange(first_row, first_row + rows, device=device)[:, None]
    head = torch.arange(batch * num_heads, device=device).view(batch, num_heads, 1, 1)
    kept = philox(spec.seed, key, row, head) >= dropout_threshold(spec.dropout)
    return kept.to(p.dtype) / (1 - spec.dropout)


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of x * factor, within signed 64-bit integers."""
    low = (x & 0xFFFF) * factor  # below 2^48
    high = (x >> 16) * factor + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
