from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reading.tiny import QUESTION, TEXT, byte_tokenizer, plain, tiny
from unspool.errors import ConfigError, InputError
from unspool.extension import extend
from unspool.reading.reader import Reader
from unspool.reading.xl3m import (
    XL3M,
    Segment,
    choose,
    cut,
    merged,
    score_segments,
    uncertainty,
)

SMALL = "xl3m:segment=100,overlap=20,keep=2"


def opened(spec: str, **options: Any) -> Any:
    return extend(tiny(**options), spec, tokenizer=byte_tokenizer())


@given(st.integers(0, 400), st.integers(1, 90), st.data())
def test_segments_cover_every_token_and_overlap_as_asked(
    length: int, segment: int, data: Any
) -> None:
    overlap = data.draw(st.integers(0, segment - 1))
    pieces = cut(length, segment, overlap)
    covered = {i for first, last in pieces for i in range(first, last)}
    assert covered == set(range(length))
    assert pieces == sorted(pieces)
    assert all(last - first <= segment for first, last in pieces)
    starts = [first for first, _ in pieces]
    assert all(b - a == segment - overlap for a, b in pairwise(starts[:-1]))


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 9), st.data())
def test_kept_segments_are_in_order_and_no_token_repeats(
    length: int, segment: int, keep: int, data: Any
) -> None:
    pieces = cut(length, segment, segment // 3)
    numbers = st.floats(-5, 5, width=32)
    scored = [Segment(first, last, data.draw(numbers)) for first, last in pieces]
    kept = choose(scored, keep, ends=False)
    assert len(kept) == min(keep, len(scored))
    worst_kept = max((s.score for s in kept), default=0)
    assert all(s.score >= worst_kept for s in scored if s not in kept)
    joined = merged(kept)
    places = [i for s in joined for i in range(s.start, s.end)]
    assert places == sorted({i for s in kept for i in range(s.start, s.end)})


def test_ends_are_kept_when_asked() -> None:
    scored = [Segment(i, i + 1, float(-i % 5)) for i in range(10)]
    kept = choose(scored, 3, ends=True)
    assert [s.start for s in kept] == [0, 5, 9]


def test_entropy_of_even_and_of_certain_predictions() -> None:
    even = torch.zeros(1, 3, 50)
    certain = torch.full((1, 3, 50), -1e9)
    certain[..., 7] = 0
    for score in ("entropy-mean", "entropy-last"):
        assert uncertainty(even, score, [7, 7, 7]).item() == pytest.approx(math.log(50))
        assert uncertainty(certain, score, [7, 7, 7]).item() == 0
    assert uncertainty(torch.zeros(1, 4, 50), "nll", [7, 7, 7]).item() == pytest.approx(
        math.log(50)
    )


@pytest.mark.parametrize("score", ["entropy-mean", "entropy-last", "nll"])
def test_scores_equal_single_runs_of_the_model(score: Any) -> None:
    head, body, tail = [5, 6], list(range(3, 250)), [9, 8, 7, 6, 5]
    method = XL3M(segment=60, overlap=7, score=score, question_tokens=4)
    with opened("xl3m") as extension:
        found = score_segments(Reader(extension), method, head, body, tail)
    for segment in found:
        ids = [*head, *body[segment.start : segment.end], *tail]
        with torch.no_grad():
            logits = tiny()(torch.tensor([ids]), use_cache=False).logits[0].double()
        table = torch.log_softmax(logits, dim=-1)
        if score == "nll":
            want = -sum(table[i - 1, ids[i]] for i in range(len(ids) - 4, len(ids))) / 4
        else:
            rows = table[-4:] if score == "entropy-mean" else table[-1:]
            want = -(rows.exp() * rows).sum(-1).mean()
        assert segment.score == pytest.approx(float(want), abs=1e-4)


def test_selection_does_not_depend_on_the_batch() -> None:
    with opened(SMALL) as extension:
        want = extension.select(TEXT, QUESTION, max_new_tokens=4)
    with opened(f"{SMALL},batch_tokens=1") as extension:
        found = extension.select(TEXT, QUESTION, max_new_tokens=4)
    assert [p.span for p in found] == [p.span for p in want]


def test_calibration_moves_every_score_alike() -> None:
    with opened(SMALL) as extension:
        raw = extension.select(TEXT, QUESTION)
    with opened(f"{SMALL},calibrate=true") as extension:
        moved = extension.select(TEXT, QUESTION)
    apart = {round(a.score - b.score, 4) for a, b in zip(raw, moved, strict=True)}
    assert len(apart) == 1
    assert apart != {0.0}


class _Planted(Reader):
    """A reader whose certainty is planted: segments that begin with a marked token are certain."""

    def __init__(self) -> None:
        self.read_tokens = 0

    def logits(self, batch: Any, keep: int) -> torch.Tensor:
        out = torch.zeros(len(batch), keep, 20)
        for row, ids in enumerate(batch):
            out[row, :, 3] = 30.0 if 99 in ids else 0.0
        return out


def test_exactly_the_certain_segments_are_kept() -> None:
    body = [1] * 300
    body[45] = body[208] = 99
    method = XL3M(segment=20, overlap=0, batch_tokens=70)
    found = score_segments(_Planted(), method, [], body, [4, 5])
    assert [s.start for s in choose(found, 2, ends=False)] == [40, 200]


def test_a_text_that_fits_is_read_whole() -> None:
    with opened("xl3m:segment=100,overlap=20") as extension:
        answer = extension.ask(TEXT[:200], QUESTION, max_new_tokens=6)
    assert answer.text == plain(tiny(), f"{TEXT[:200]}\n\n{QUESTION}\nAnswer:", 6)
    assert answer.usage.dropped_tokens == 0


def test_counts_add_up() -> None:
    tokenizer = byte_tokenizer()
    size = len(tokenizer.encode(TEXT))
    tail = len(tokenizer.encode(f"\n\n{QUESTION}\nAnswer:"))
    with opened(SMALL) as extension:
        answer = extension.ask(TEXT, QUESTION, max_new_tokens=5)
    pieces = cut(size, 100, 20)
    kept = size - answer.usage.dropped_tokens
    assert answer.usage.input_tokens == size + tail
    assert answer.usage.read_tokens == sum(b - a + tail for a, b in pieces) + kept + tail
    assert answer.usage.output_tokens == 5
    assert 100 < kept <= 200


def test_passages_quote_the_bytes_of_the_text() -> None:
    data = TEXT.encode()
    with opened(SMALL) as extension:
        for passage in extension.select(TEXT, QUESTION):
            span = passage.span
            assert data[span.start : span.end].decode() == span.text


def test_generate_shortens_what_does_not_fit_and_only_that() -> None:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 250, (1, 900), generator=generator)
    with opened("xl3m:segment=100,overlap=20,keep=2,question_tokens=30") as extension:
        out = extension.generate(ids, max_new_tokens=4)
        short = extension.generate(ids[:, :300], max_new_tokens=4, do_sample=False)
    assert out.shape[1] <= 200 + 30 + 4
    assert torch.equal(out[0, -34:-4], ids[0, -30:])
    stock = tiny().generate(
        ids[:, :300], attention_mask=torch.ones(1, 300).long(), max_new_tokens=4, do_sample=False
    )
    assert torch.equal(short, stock)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("xl3m:segment=0", "segment=0"),
        ("xl3m:segment=8,overlap=8", "overlap=8"),
        ("xl3m:keep=0", "keep=0"),
        ("xl3m:score=best", "score='best'"),
    ],
)
def test_settings_that_cannot_work(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(spec)


def test_prompts_that_cannot_work() -> None:
    with opened("xl3m:segment=510") as extension:
        with pytest.raises(ConfigError, match=r"510.*512"):
            extension.ask(TEXT, QUESTION)
        with pytest.raises(InputError, match="empty"):
            extension.ask("  ", QUESTION)
        with pytest.raises(InputError, match="question"):
            extension.ask(TEXT, " ")
        with pytest.raises(ConfigError, match="question"):
            extension.ask(TEXT, QUESTION, template="{context} only")
    with extend(tiny(), "xl3m") as extension, pytest.raises(ConfigError, match="tokenizer"):
        extension.ask(TEXT, QUESTION)


def test_logits_of_padded_rows_are_those_of_single_runs() -> None:
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [20] * 33]
    with opened("xl3m") as extension:
        reader = Reader(extension)
        found = reader.logits(rows, 2)
        assert reader.read_tokens == 43
    for ids, logits in zip(rows, found, strict=True):
        with torch.no_grad():
            want = tiny()(torch.tensor([ids]), use_cache=False).logits[0, -2:]
        torch.testing.assert_close(logits, want, atol=1e-4, rtol=1e-4)
