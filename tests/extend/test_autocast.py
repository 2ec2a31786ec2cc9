"""Under autocast a rotation leaves q and k in float32 and v in half: the kernels get one dtype."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from unspool.attention.kernel import attend  # noqa: E402
from unspool.attention.spec import Spec  # noqa: E402
from unspool.errors import ConfigError  # noqa: E402
from unspool.extension import extend  # noqa: E402

METHODS = (
    "dense",
    "masformer:full=none,block=8",
    "streaming-llm:window=16",
    "hyper:min_seq_len=16",
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cached", [False, True])
def test_a_method_strays_no_further_than_the_model_itself(
    llama: Any, method: str, cached: bool
) -> None:
    ids = torch.randint(3, 90, (1, 41), generator=torch.Generator().manual_seed(1))

    def logits(half: bool, spec: str | None = None) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            if spec is None:
                return llama(ids, use_cache=False).logits.float()
            with extend(llama, spec) as ext:
                cache = {"past_key_values": ext.new_cache()} if cached else {"use_cache": False}
                return llama(ids, **cache).logits.float()

    rounding = (logits(True) - logits(False)).abs().mean()
    strays = (logits(True, method) - logits(False, method)).abs().mean()
    assert 0 < float(strays) <= 2 * float(rounding)


def test_tensors_of_two_dtypes_are_refused_without_autocast() -> None:
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(ConfigError, match=r"q is torch.float32, k .* v torch.bfloat16"):
        attend(q, q, q.bfloat16(), spec=Spec())


def test_under_autocast_they_become_its_dtype() -> None:
    q = torch.randn(1, 2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, q, q.bfloat16(), spec=Spec())
    assert out.dtype == torch.bfloat16
    same = attend(q.bfloat16(), q.bfloat16(), q.bfloat16(), spec=Spec())
    assert torch.equal(out, same)
