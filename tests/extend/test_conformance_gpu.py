"""The laws on a GPU, where other kernels run: exact limits, chunks, padding, and the processor."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch

from tests.extend.conftest import build, left_padded, tokens
from tests.extend.suite import FULL, opened, read, stock

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
EACH = pytest.mark.parametrize("name", list(FULL))


@functools.cache
def there() -> Any:
    return copy.deepcopy(build("llama")).cuda()


@EACH
def test_short_prompts_and_chunks(name: str) -> None:
    laws, model = FULL[name], there()
    ids = tokens(2, min(laws.exact_within or 45, 45)).cuda()
    long = tokens(1, 144).cuda()
    expected = stock(model, ids)
    with opened(model, laws) as ext:
        found = read(ext, ids, [ids.shape[1]])
        if laws.exact_within:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
        if laws.chunk:
            size = max(1, 48 // laws.chunk) * laws.chunk
            parts = read(ext, long, [*range(size, 144, size), 144])
            torch.testing.assert_close(parts, read(ext, long, [144]), rtol=0, atol=1e-3)
    torch.testing.assert_close(stock(model, ids), expected, rtol=0, atol=0)


@EACH
def test_padded_rows_write_what_they_write_alone(name: str) -> None:
    laws, model = FULL[name], there()
    rows = (90, 37)
    ids, mask = (x.cuda() for x in left_padded(list(rows)))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with opened(model, laws):
        together = model.generate(ids, attention_mask=mask, **options)
        for row, length in enumerate(rows):
            alone = model.generate(ids[row : row + 1, -length:], **options)
            assert together[row, -6:].tolist() == alone[0, -6:].tolist()


@EACH
def test_the_processor_gives_the_same_numbers(name: str) -> None:
    if name == "hyper":
        pytest.skip("draws its directions on the device that it runs on")
    laws, ids = FULL[name], tokens(1, 100)
    with opened(build("llama"), laws) as ext:
        right = read(ext, ids, [96, *range(97, 101)])
    with opened(there(), laws) as ext:
        found = read(ext, ids.cuda(), [96, *range(97, 101)])
    torch.testing.assert_close(found.cpu(), right, rtol=0, atol=2e-3)
