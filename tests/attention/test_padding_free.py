"""Packing and its inverse, attention inside sentences, the packing collator, and the report."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unspool.attention.padding_free import (
    PackingCollator,
    PaddingReport,
    pack,
    unpack,
    varlen_attend,
)
from unspool.attention.padding_free.layout import arrange, flat
from unspool.errors import ConfigError, Unsupported

MASKS = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


@given(MASKS, st.integers(0, 2))
def test_unpacking_is_the_inverse_of_packing(rows: list[list[bool]], trailing: int) -> None:
    mask = torch.tensor(rows)
    x = torch.randn(*mask.shape, *(3,) * trailing)
    packed = pack(x, mask.long())
    assert [int(n) for n in packed.cu_seqlens.diff()] == [sum(row) for row in rows]
    assert packed.max_seqlen == max(sum(row) for row in rows)
    back = unpack(packed)
    assert torch.equal(back[mask], x[mask])
    assert not back[~mask].any()
    flattened = [x[i, j] for i, row in enumerate(rows) for j, real in enumerate(row) if real]
    assert len(packed.data) == len(flattened)
    assert all(torch.equal(a, b) for a, b in zip(packed.data, flattened, strict=True))


def test_lengths_ids_and_gradients() -> None:
    ids = torch.arange(12).reshape(3, 4)
    packed = pack(ids, [4, 0, 2])
    assert packed.data.tolist() == [0, 1, 2, 3, 8, 9]
    assert unpack(packed, fill=-100).tolist() == [[0, 1, 2, 3], [-100] * 4, [8, 9, -100, -100]]
    x = torch.randn(3, 4, 2, requires_grad=True)
    kept = pack(x, torch.tensor([4, 0, 2]))
    unpack(kept.with_data(kept.data * 2)).sum().backward()
    assert x.grad is not None
    assert x.grad[0].eq(2).all()
    assert x.grad[1].eq(0).all()


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (torch.ones(2, 5), "shape"),
        (torch.full((2, 4), 2), "0 and 1"),
        (torch.tensor([1, 9]), "between 0 and 4"),
        (torch.tensor([-1, 2]), "between 0 and 4"),
        (torch.tensor([1.0, 2.0]), "2 integers"),
        (torch.ones(2, 1, 1, 4), "shape"),
    ],
)
def test_bad_masks_say_what_is_wrong(given_: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pack(torch.zeros(2, 4), given_)


def test_other_data_needs_as_many_rows() -> None:
    packed = pack(torch.zeros(1, 2), [2])
    with pytest.raises(ConfigError, match="2 tokens are packed, and the new data has 5"):
        packed.with_data(torch.zeros(5))
    with pytest.raises(ConfigError, match="needs a tensor"):
        pack(torch.zeros(3), [1])


LENGTHS = (5, 5, 1, 9, 2, 2, 2)


def sentences(lengths: tuple[int, ...], heads: int, kv: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = sum(lengths)
    return [
        torch.randn(1, h, tokens, 8, generator=generator, dtype=torch.float64)
        for h in (heads, kv, kv)
    ]


def one_by_one(q: Any, k: Any, v: Any, causal: bool, window: int | None, bias: Any) -> Any:
    """Written-out attention of every sentence alone."""
    outs, start = [], 0
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    for n in LENGTHS:
        part = slice(start, start + n)
        scores = q[:, :, part] @ k[:, :, part].transpose(-1, -2) / 8**0.5
        if bias is not None:
            scores = scores + bias[:, :, part, part]
        for i in range(n):
            for j in range(n):
                far = window is not None and abs(i - j) >= window
                if far or (causal and j > i):
                    scores[:, :, i, j] = float("-inf")
        outs.append(torch.softmax(scores, dim=-1) @ v[:, :, part])
        start += n
    return torch.cat(outs, dim=2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("backend", ["lengths", "reference", "auto"])
def test_attention_stays_inside_sentences(
    causal: bool, window: int | None, with_bias: bool, backend: Any
) -> None:
    if with_bias and backend == "reference":
        pytest.skip("the reference takes no bias")
    given_ = [x.requires_grad_() for x in sentences(LENGTHS, 4, 2)]
    bias = torch.randn(1, 4, sum(LENGTHS), sum(LENGTHS)).double() if with_bias else None
    expected = one_by_one(*given_, causal, window, bias)
    layout = flat(LENGTHS, torch.device("cpu"))
    options = {"causal": causal, "window": window, "bias": bias, "backend": backend}
    got = varlen_attend(*given_, layout, **options)
    torch.testing.assert_close(got, expected)
    ones = torch.randn(got.shape).double()
    for a, b in zip(
        torch.autograd.grad(got, given_, ones),
        torch.autograd.grad(expected, given_, ones),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_backend_that_cannot_run_says_why() -> None:
    x = sentences(LENGTHS, 2, 2)
    layout = flat(LENGTHS, torch.device("cpu"))
    for backend in ("flash", "triton"):
        with pytest.raises(ConfigError, match="tensors are on cpu, the kernel needs CUDA"):
            varlen_attend(*x, layout, backend=backend)
    with pytest.raises(ConfigError, match="no bias"):
        varlen_attend(*x, layout, backend="reference", dropout=0.5)


def test_neighbours_have_one_length_and_filling_is_a_sentence_of_its_own() -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    for i, n in enumerate((2, 5, 0, 2, 5)):
        mask[i, 6 - n :] = True
    layout = arrange(mask, torch.device("cpu"), multiple=8)
    assert layout.lengths == (5, 5, 2, 2, 2)
    assert (layout.tail, layout.tokens, layout.max_seqlen) == (2, 14, 64)
    assert layout.position_ids.tolist() == [*range(5)] * 2 + [0, 1] * 2 + [0, 0]
    x = torch.randn(5, 6, 3)
    assert layout.pack(x).shape == (1, 16, 3)
    assert torch.equal(layout.unpack(layout.pack(x)), x * mask[..., None])
    starts = layout.cu_seqlens.tolist()
    assert starts == [0, 5, 10, 12, 14, 16]
    indices = torch.cat([layout.indices, torch.tensor([5 * 6, 5 * 6])])
    standing = dataclasses.replace(layout, indices=indices, tail=0, lengths=(), in_graph=True)
    assert torch.equal(standing.unpack(layout.pack(x)), x * mask[..., None])
    with pytest.raises(Unsupported, match="inside a CUDA graph"):
        varlen_attend(*sentences((16,), 1, 1), standing)
    empty = arrange(torch.zeros(2, 3, dtype=torch.bool), torch.device("cpu"))
    assert (empty.tokens, empty.tail) == (0, 1)


def test_the_collator_packs_and_ignores_first_labels() -> None:
    rows = [{"input_ids": [5, 6, 7]}, {"input_ids": torch.tensor([8])}, {"input_ids": [9, 1]}]
    batch = PackingCollator(causal=True)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, -100, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 4, 6]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert (batch["max_length_q"], batch["sequence_lengths"]) == (3, (3, 1, 2))
    labelled = PackingCollator()([{"input_ids": [1, 2], "labels": [-100, 2]}])
    assert labelled["labels"].tolist() == [[-100, 2]]


def test_the_collator_refuses_what_it_cannot_pack() -> None:
    collate = PackingCollator()
    for rows, said in (
        ([], "at least one token"),
        ([{"input_ids": [1]}, {"labels": [2]}], "input_ids in each feature, got one with labels"),
        ([{"input_ids": []}], "at least one token"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": [1]}], "same keys"),
        ([{"input_ids": [1, 2], "labels": [1]}], "1 values for 2 tokens"),
        ([{"input_ids": [1, 2], "attention_mask": [1, 0]}], "zeros"),
    ):
        with pytest.raises(ConfigError, match=said):
            collate(rows)


def test_the_report_says_what_was_removed() -> None:
    report = PaddingReport(batches=1, sequences=2, tokens=6, padded_tokens=10, seconds=2.0)
    assert (report.removed_tokens, report.alpha, report.tokens_per_second) == (4, 0.6, 3.0)
    assert report.to_json()["removed_tokens"] == 4
    assert (PaddingReport().alpha, PaddingReport().tokens_per_second) == (1.0, 0.0)
