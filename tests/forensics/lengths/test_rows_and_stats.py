"""Rows, ids, statistics and the filter, against released values and other libraries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.forensics.lengths import Filter, Row, compare, read_rows, sanitize, stats
from unspool.forensics.lengths.rows import answer_length, prompt_id, row_of, sample_id, summary
from unspool.forensics.lengths.sanitize import DEGENERATE_TEXT
from unspool.forensics.lengths.stats import intraclass, kendall, survival_quantile

RELEASED = [616, 505, 543, 696, 530, 674, 518, 447, 616, 562]


def row(sizes: list[int], *, prompt: str = "p", cap: int | None = None, **change: Any) -> Row:
    values = {
        "sample_id": "s", "prompt_id": prompt_id("d", prompt), "model": "m", "dataset": "d",
        "prompt_text": prompt, "longest_response": "long", "shortest_response": "short",
        "input_size": 5, "output_sizes": sizes, **summary(sizes), "top_k": 50, "top_p": 0.9,
        "temp": 0.6, "category": "undefined", "gen_time": 1.0, "cap": cap, **change,
    }  # fmt: skip
    return row_of(values)


def test_statistics_are_those_of_a_released_row() -> None:
    assert summary(RELEASED) == {
        "output_mean": 570.7,
        "output_std": 74.41,
        "output_percentiles": {"p25": 521.0, "p50": 552.5, "p75": 616.0, "p99": 694.02},
    }


def test_ids_follow_the_released_pattern() -> None:
    # Written out by hand from the description of the release.
    whole = b"MBPP_meta-llama--Llama_topk_50_topp_0.9_temp_0.6_Write it"
    assert (
        sample_id("MBPP", "meta-llama/Llama", "Write it", top_k=50, top_p=0.9, temp=0.6)
        == hashlib.sha256(whole).hexdigest()[:16]
    )
    assert prompt_id("MBPP", "Write it") == hashlib.sha256(b"MBPP_Write it").hexdigest()[:16]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([5, 6, 0, 0], 3), ([5, 6, 7, 8], 5), ([0, 0, 0], 1), ([5, 0, 6, 0], 3), ([0, 0, 5, 6], 3)],
    ids=["end", "absent", "empty", "middle", "left padding"],
)
def test_length_counts_what_is_not_padding_and_the_end(ids: list[int], expected: int) -> None:
    count = 1
    for each in ids:
        if each != 0:
            count += 1
    assert answer_length(ids, 0) == expected == count


def test_reads_lines_and_arrays_and_names_what_is_wrong(tmp_path: Path) -> None:
    good = row(RELEASED).to_json()
    released = {k: v for k, v in good.items() if k not in ("cap", "seed", "dropped_tokens")}
    lines, array = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text(json.dumps(released) + "\n\n" + json.dumps(good) + "\n")
    array.write_text(json.dumps([released]))
    assert read_rows(lines) == [row(RELEASED)] * 2
    assert read_rows(array) == [row(RELEASED)]
    for wrong, said in (
        ({**good, "output_sizes": [3]}, "1 output sizes"),
        ({**good, "output_sizes": [3, 0]}, "counts >= 1"),
        ({**good, "output_sizes": [3, True]}, "counts >= 1"),
        ({**good, "temp": "hot"}, "temp must be a number"),
        ({k: v for k, v in good.items() if k != "model"}, "lacks model"),
        ({**good, "extra": 1}, "unknown fields: extra"),
        ([1], "not a JSON object"),
    ):
        lines.write_text(json.dumps(good) + "\n" + json.dumps(wrong) + "\n")
        with pytest.raises(InputError, match=said):
            read_rows(lines)
    lines.write_text("{")
    with pytest.raises(InputError, match=r"Line 1 of a\.jsonl is not JSON"):
        read_rows(lines)
    with pytest.raises(PathNotFound):
        read_rows(tmp_path / "none.jsonl")


# The filter: A is a size of the hard bound, B a wide row beyond the soft one.
@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ([100] * 9 + [14_998], [100] * 9),  # B alone: beyond soft and wide
        ([9_000] * 9 + [14_998], None),  # long, and not wide
        ([9_000] * 9 + [14_999], [9_000] * 9),  # A alone
        ([15_001] * 10, []),  # every answer was cut
        ([100] * 9 + [15_001], [100] * 9),  # both
        ([1] * 9 + [8_499], None),  # wide, at the soft bound
        ([1] * 9 + [8_500], [1] * 9),  # wide, one beyond
        ([10] * 8 + [9_000, 15_001], [10] * 8),  # both: the soft bound decides
    ],
)
def test_filter(sizes: list[int], left: list[int] | None) -> None:
    given_row = row(sizes)
    done = sanitize([given_row])
    if left is None:
        assert (done.clean, done.degenerate, done.removed) == ([given_row], [], 0)
        return
    assert done.degenerate == [given_row]
    assert done.removed == len(sizes) - len(left)
    assert done.dropped == (not left)
    if left:
        (clean,) = done.clean
        assert list(clean.output_sizes) == left
        assert clean.longest_response == DEGENERATE_TEXT
        assert clean.output_mean == pytest.approx(np.mean(left))
        assert clean.output_std == pytest.approx(np.std(left))


def test_a_spread_of_exactly_two_means_is_not_wide() -> None:
    # Four zeros cannot be: lengths are at least 1. The stored fields decide, so they are given.
    exact = row([8_500, 8_500], output_mean=100.0, output_std=200.0)
    assert sanitize([exact]).degenerate == []
    assert sanitize([row([8_500, 8_500], output_mean=100.0, output_std=200.01)]).degenerate


def test_thresholds_follow_the_cap() -> None:
    assert Filter.for_cap(None) == Filter.for_cap(15_000) == Filter()
    cut = row([10, 257], cap=256)
    assert (cut.truncated, sanitize([cut]).removed) == (1, 1)
    assert sanitize([row([10, 257])]).removed == 0  # the released bounds would not see it
    with pytest.raises(InputError, match="several caps"):
        sanitize([cut, row([1, 2], cap=128)])
    with pytest.raises(ConfigError, match="soft <= hard"):
        Filter(hard=5, soft=6)


def test_group_statistics() -> None:
    rows = [row([10, 20], prompt="a"), row([30, 50], prompt="b"), row([7, 7], model="z")]
    first, second = stats(rows, by=("model",))
    sizes = [10, 20, 30, 50]
    assert first.group == {"model": "m"}
    assert second.group == {"model": "z"}
    assert (first.rows, first.answers) == (2, 4)
    assert first.mean == pytest.approx(np.mean(sizes))
    assert first.std == pytest.approx(np.std(sizes))
    assert first.p99 == pytest.approx(np.percentile(sizes, 99))
    assert first.within_std == pytest.approx((5 + 10) / 2)
    assert first.within_cv == pytest.approx((5 / 15 + 10 / 40) / 2)
    assert second.icc is None
    with pytest.raises(InputError, match="no rows"):
        stats([])
    with pytest.raises(ConfigError, match="by takes"):
        stats(rows, by=("colour",))


def test_intraclass_by_its_mean_squares() -> None:
    groups = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    # Shrout and Fleiss (1979), table 4: ICC(1) of these ratings is .17.
    found = intraclass(groups)
    assert found == pytest.approx(0.1657, abs=1e-4)
    assert intraclass([[1, 1], [5, 5]]) == 1.0
    assert intraclass([[1, 9], [9, 1]]) == 0.0
    assert intraclass([[3, 3], [3, 3]]) is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=30))
def test_kendall_equals_scipy(pairs: list[tuple[int, int]]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    found = kendall(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(scipy_stats.kendalltau(a, b).statistic, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=30),
    st.sampled_from([0.25, 0.5, 0.9]),
)
def test_survival_quantile_by_product(data: list[tuple[int, bool]], share: float) -> None:
    expected, longer = None, 1.0
    for t in sorted({s for s, ended in data if ended}):
        risk = sum(s >= t for s, _ in data)
        longer *= 1 - sum(s == t and ended for s, ended in data) / risk
        if longer <= 1 - share + 1e-12:
            expected = float(t)
            break
    sizes = np.array([s for s, _ in data], dtype=np.float64)
    ended = np.array([e for _, e in data])
    assert survival_quantile(sizes, ended, share) == expected


def test_compares_on_shared_prompts() -> None:
    scipy_stats = pytest.importorskip("scipy.stats", reason="the oracle is scipy")
    first = [row([10, 20], prompt=p) for p in "abc"] + [row([5, 5], prompt="x")]
    second = [row([20, 40], prompt=p) for p in "abc"]
    found = compare(first, second)
    assert (found.shared, found.only_first, found.only_second) == (3, 1, 0)
    assert found.mean_ratio == pytest.approx(2.0)
    assert found.kendall_means is None
    shared = [10, 20] * 3, [20, 40] * 3
    assert found.distance == pytest.approx(scipy_stats.ks_2samp(*shared).statistic)
    with pytest.raises(InputError, match="more than once"):
        compare(first + first, second)
    with pytest.raises(InputError, match="share 0"):
        compare(first[:1], [row([1, 2], prompt="q")])
