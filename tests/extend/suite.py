"""What the tests of the laws share: their cases, the stock model, and reading in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.extend.conftest import FAMILIES
from tests.extend.methods import EXEMPT, LAWS, Laws
from unspool.extension import extend

FULL = {name: laws for name, laws in LAWS.items() if laws.cached}
QUICK_FAMILIES = ("llama", "gemma3", "gpt-neox")
"""Half-split full, mixed layer types, partial rotary with another cache argument."""
QUICK_METHODS = ("dense-late", "lm-infinite")
"""What every other method stands on: keys rotated late, and a store that evicts."""


def pairs(law: str = "", *, quick: bool = True) -> Any:
    """Every method that answers to a law with every family.

    Args:
        law: A key of `EXEMPT`, whose methods are left out; empty: all answer.
        quick: Whether the law is among the default tests. Those leave a family out that runs the
            same code as a quick one.
    """
    cases = []
    for name, laws in FULL.items():
        if name in EXEMPT.get(law, {}):
            continue
        for family in FAMILIES:
            known = family == "llama" or (family in QUICK_FAMILIES and name in QUICK_METHODS)
            marks = () if quick and known and not laws.slow else (pytest.mark.slow,)
            cases.append(pytest.param(name, family, marks=marks, id=f"{name}-{family}"))
    return pytest.mark.parametrize(("name", "family"), cases)


def opened(model: Any, laws: Laws, **options: Any) -> Any:
    """The model extended; what the method trains far from where it starts, if the laws say so."""
    ext = extend(model, laws.spec, **options)
    if laws.trained:
        learned = list(ext.module.parameters())
        assert learned
        for number, parameter in enumerate(learned):
            generator = torch.Generator().manual_seed(number)
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return ext


def stock(model: Any, ids: Any, mask: Any = None) -> Any:
    with torch.no_grad():
        return model(ids, attention_mask=mask).logits


def read(ext: Any, ids: Any, cuts: list[int], mask: Any = None) -> Any:
    """Logits of a text read in chunks that end at `cuts`; the prefill ends with the last."""
    cache = ext.new_cache()
    cache.prefill_end = int(ids.shape[1])
    outs, start = [], 0
    for end in cuts:
        part = None if mask is None else mask[:, :end]
        with torch.no_grad():
            out = ext.model(ids[:, start:end], attention_mask=part, past_key_values=cache)
        outs.append(out.logits)
        start = end
    return torch.cat(outs, dim=1)
