"""Block attention with global, neighbouring and random blocks, linear in the length of the text.

What: a block of queries attends to the first and the last block, to itself and its two neighbours,
and to a few blocks drawn at random once; the first and the last block attend to everything.
Source: Zaheer et al. (2020), "Big Bird", section 2 and appendix D, the ITC form.
Differs from the released code and its ports: random blocks are a property of the model, the same
in training and in evaluation (the port in transformers repeats block 0 there); a block is met once
however often it is listed; the last block may be short.
Cost: O(T * (5 + random) * block) time and memory. Shapes: B batch, H heads, T tokens, D head size,
N blocks, M blocks that a row lists.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unspool.attention.backends import choose
from unspool.attention.blocks import BlockMask
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec
from unspool.errors import ConfigError
from unspool.models.long_encoder.window import cut

_SKIPS = ("native", "triton", "flex")


def draw_blocks(num_blocks: int, num_heads: int, count: int, seed: tuple[int, ...]) -> Tensor:
    """Random blocks of every head and row but the first and the last: int64 [H, N - 2, count].

    None is a global block or in the row's window. The same seed gives the same blocks.
    """
    if num_blocks - 5 < count:
        raise ConfigError(
            f"{num_blocks} blocks leave no {count} to draw beside window and global blocks."
        )
    random = np.random.default_rng((*seed, num_blocks))
    out = np.zeros((num_heads, num_blocks - 2, count), dtype=np.int64)
    inner = np.arange(1, num_blocks - 1)
    for row in inner:
        free = inner[np.abs(inner - row) > 1]
        order = random.random((num_heads, len(free))).argsort(axis=1)[:, :count]
        out[:, row - 1] = free[order]
    return torch.from_numpy(out)


def block_lists(random: Tensor, num_blocks: int, block: int) -> BlockMask:
    """Lists of the rows between the first and the last block.

    Args:
        random: [H, N - 2, count] block numbers; one that is listed anyway counts once.
        num_blocks: N.
        block: Tokens a block.
    """
    if random.ndim != 3 or random.shape[1] != num_blocks - 2:
        raise ConfigError(
            f"Random blocks for {num_blocks} blocks are [heads, {num_blocks - 2}, count], got "
            f"{tuple(random.shape)}."
        )
    if random.numel() and not 0 <= int(random.min()) <= int(random.max()) < num_blocks:
        raise ConfigError(f"Random blocks must be 0 to {num_blocks - 1}.")
    row = torch.arange(1, num_blocks - 1, device=random.device)
    fixed = torch.stack([row * 0, row - 1, row, row + 1, row * 0 + num_blocks - 1], dim=-1)
    listed = torch.cat([fixed.expand(random.shape[0], -1, -1), random], dim=-1).sort(-1).values
    again = F.pad(listed[..., 1:] == listed[..., :-1], (1, 0))
    listed = listed.masked_fill(again, num_blocks).sort(-1).values
    used = listed < num_blocks
    return BlockMask(
        block_q=block,
        block_k=block,
        indices=listed.masked_fill(~used, 0).int()[None].contiguous(),
        counts=used.sum(-1, dtype=torch.int32)[None].contiguous(),
    )


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    valid: Tensor,
    lists: BlockMask | None,
    dropout: float | int = 0.0,
    seed: int = 0,
    backend: str = "auto",
) -> Tensor:
    """One softmax over the listed blocks; the first and the last block meet everything.

    Args:
        q: [B, H, T, D].
        k: [B, H, T, D].
        v: [B, H, T, D].
        valid: [B, T] bool, False is padding.
        lists: From `block_lists`; None: all pairs, for texts too short to have random blocks.
        dropout: Probability that a weight is zeroed.
        seed: Of `dropout`.
        backend: As for `attend`; blocks are gathered for it unless it skips hidden ones itself.

    Returns:
        [B, H, T, D], 0 at padding.
    """
    rows = valid.long() - 1  # 0, and -1 at padding: nothing but padding is told apart

    def whole(queries: Tensor, positions: Tensor) -> Tensor:
        spec = Spec(
            causal=False, q_positions=positions, k_positions=rows, dropout=dropout, seed=seed
        )
        return attend(queries, k, v, spec=spec, backend=backend)

    if lists is None:
        return whole(q, rows)
    block, tokens = lists.block_q, q.shape[2]
    start, stop = block, (-(-tokens // block) - 1) * block
    ends = whole(
        torch.cat([q[:, :, :start], q[:, :, stop:]], dim=2),
        torch.cat([rows[:, :start], rows[:, stop:]], dim=1),
    )
    middle = q[:, :, start:stop]
    spec = Spec(
        causal=False,
        q_positions=rows[:, start:stop],
        k_positions=rows,
        blocks=lists,
        dropout=dropout,
        seed=seed + 1,
    )
    if choose(backend, middle, k, v, spec=spec, return_lse=False).name in _SKIPS:
        out = attend(middle, k, v, spec=spec, backend=backend)
    else:
        out = _gathered(middle, k, v, valid[:, start:stop], valid, lists, spec, backend)
    return torch.cat([ends[:, :, :start], out, ends[:, :, start:]], dim=2)


def _gathered(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_valid: Tensor,
    k_valid: Tensor,
    lists: BlockMask,
    spec: Spec,
    backend: str,
) -> Tensor:
    """Each block of queries as a batch row beside copies of the blocks that it lists."""
    batch, heads, tokens, _ = q.shape
    block, num_rows = lists.block_q, tokens // lists.block_q
    index = lists.indices[0].long()
    width = index.shape[-1] * block
    missing = -k.shape[2] % block
    index = index.expand(heads, -1, -1)
    head = torch.arange(heads, device=q.device)[:, None, None]

    def copies(x: Tensor) -> Tensor:
        blocks = cut(F.pad(x, (0, 0, 0, missing)), 2, -1, block)
        return blocks[:, head, index].permute(0, 2, 1, 3, 4, 5).flatten(3, 4).flatten(0, 1)

    there = cut(F.pad(k_valid, (0, missing)), 1, -1, block)[:, index]
    used = torch.arange(index.shape[-1], device=q.device) < lists.counts[0][..., None]
    seen = (there & used.expand(heads, -1, -1)[None, ..., None]).transpose(1, 2)
    seen = seen.reshape(batch * num_rows, heads, 1, width)
    queries = cut(q, 2, num_rows, block).transpose(1, 2).flatten(0, 1)
    seen = seen & q_valid.reshape(batch * num_rows, 1, block, 1)
    near = Spec(causal=False, mask=seen, dropout=spec.dropout, seed=spec.seed)
    out = attend(queries, copies(k), copies(v), spec=near, backend=backend)
    return cut(out, 0, batch, num_rows).transpose(1, 2).flatten(2, 3)
