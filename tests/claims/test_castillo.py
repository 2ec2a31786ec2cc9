"""The claim of CASTILLO runs from rows to figures, on answers that a script made."""

from __future__ import annotations

import pytest

from claims.castillo import CLAIM, tiny


@pytest.mark.slow
def test_every_figure_comes_out_of_rows() -> None:
    measured = tiny()
    assert set(measured.figures) == {figure.name for figure in CLAIM.required}
    assert measured.figures["prompts"] == 24
    rates = measured.facts["rates"]
    assert rates["oracle"] >= rates["quantile"] > rates["max"] > 0
