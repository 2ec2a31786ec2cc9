"""The one place that shortens: what it keeps, what it counts, and that there is no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool._overflow import fit, shorten
from unspool.errors import ConfigError, OverflowPolicyError

SOURCE = Path(__file__).resolve().parents[1] / "src" / "unspool"
IDS = st.lists(st.integers(0, 9), max_size=40)


@given(IDS, st.integers(0, 45), st.sampled_from(["head", "tail", "ends"]))
def test_keeps_the_named_part_and_counts_the_rest(ids: list[int], limit: int, keep: str) -> None:
    kept, dropped = shorten(ids, limit, keep)  # type: ignore[arg-type]  # drawn from the names
    assert len(kept) == min(len(ids), limit)
    assert len(kept) + dropped == len(ids)
    first = {"head": len(kept), "tail": 0, "ends": (len(kept) + 1) // 2}[keep]
    if dropped:
        assert kept == [*ids[:first], *ids[len(ids) - (len(kept) - first) :]]
    else:
        assert kept == ids


@given(IDS, st.integers(0, 45))
def test_policies_of_one_window(ids: list[int], limit: int) -> None:
    assert fit(ids, None, "error", what="it") == (ids, 0)
    if len(ids) <= limit:
        assert fit(ids, limit, "error", what="it") == (ids, 0)
        return
    assert fit(ids, limit, "truncate", what="it") == (ids[len(ids) - limit :], len(ids) - limit)
    for policy in ("error", "window"):  # windows are for a method that reads several
        with pytest.raises(
            OverflowPolicyError, match=f"{len(ids)} tokens long and at most {limit}"
        ):
            fit(ids, limit, policy, what="it")  # type: ignore[arg-type]  # one of the policies


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        shorten([1, 2, 3], -1)


def test_nothing_else_shortens() -> None:
    """No tokenizer is asked to truncate, anywhere but in `_overflow.py`."""
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.name != "_overflow.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"truncation\s*=\s*(?!False)|enable_truncation|\.truncate\(\s*max", line)
    ]
    assert found == []
