"""The compressed and clustered caches on a CUDA device give what they give on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.extend.conftest import build, left_padded, tokens
from unspool.extension import extend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

SPECS = (
    "think:ratio=0.5",
    "snapkv:keep=80+think:ratio=0.5",
    "quantise:bits=8",
    "squeezed:keep=1,window=20",
)


def generated(model: Any, ids: Any, mask: Any) -> Any:
    with torch.no_grad():
        out = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return torch.stack(out.logits, 1).cpu()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-neox"])
def test_equals_the_cpu(name: str, spec: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    ids, mask = left_padded([180, 131])
    here, there = build(name), copy.deepcopy(build(name)).cuda()
    with extend(here, spec):
        expected = generated(here, ids, mask)
    with extend(there, spec):
        torch.testing.assert_close(generated(there, ids, mask), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("more", ["", ",levels=2", ",per_head=true"])
def test_squeezed_runs_and_is_the_same_in_a_batch(more: str) -> None:
    model = copy.deepcopy(build("llama")).cuda()
    with extend(model, f"squeezed:keep=0.3,window=20,pct=0.2{more}") as extension:
        context = extension.stream().feed(tokens(1, 200)[0].tolist()).fix()
        report = context.fork().report()
        assert report.attended_tokens + report.stored_tokens + report.dropped_tokens == 200
        questions = [[5, 6, 7], [9, 4]]
        together = context.ask(questions, max_new_tokens=4, do_sample=False)
        for row, question in enumerate(questions):
            alone = context.ask(question, max_new_tokens=4, do_sample=False)
            assert torch.equal(together[row], alone[0])
