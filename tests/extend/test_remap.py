"""Λ attention, StreamingLLM, Self-Extend and dual chunks against loops over pairs in float64."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.extend.conftest import build, left_padded, tokens
from tests.oracles.distances import attention_by_distance
from unspool._facts import read_facts
from unspool.attention.call import Call
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.errors import ConfigError, OverflowPolicyError
from unspool.extension import extend
from unspool.methods import Method, resolve_method
from unspool.positions.rotation import Rotation

INV_FREQ = torch.tensor([1.0, 0.31, 0.07])
LENGTHS = (1, 5, 16, 17, 40, 61)


def resolved(spec: str) -> Method:
    (method,) = resolve_method(spec)
    return method.resolve(read_facts(build("llama")))


def run(method: Method, q: Any, k: Any, v: Any, cuts: list[int], layer: int = 0) -> Any:
    """The method's mechanism over a text that arrives in chunks ending at `cuts`."""
    facts = read_facts(build("llama"))
    attend, store = method.attend(facts, layer), method.store(facts, layer)
    rotation = Rotation(INV_FREQ)
    outs, start = [], 0
    for end in cuts:
        chunk = KV(k[:, :, start:end], v[:, :, start:end], None, start, rotated=False)
        store.update(chunk.k, chunk.v)
        store.meet()
        store.append(chunk)
        call = Call(
            q=q[:, :, start:end],
            k=chunk.k,
            v=chunk.v,
            positions=None,
            start=start,
            spec=Spec(),
            rotate=rotation,
            store=store,
            phase="prefill",
            layer=layer,
            scale=q.shape[-1] ** -0.5,
            answers=end - start == 1 or end == cuts[-1],
        )
        outs.append(attend(call))
        store.settle()
        start = end
    return torch.cat(outs, dim=2)


def random_qkv(length: int, seed: int = 0) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, 4, length, 7, generator=generator, dtype=torch.float32)
    k = torch.randn(1, 2, length, 7, generator=generator, dtype=torch.float32)
    v = torch.randn(1, 2, length, 7, generator=generator, dtype=torch.float32)
    return q, k, v


def lambda_distance(local: int, sinks: int, limit: int) -> Any:
    def distance(i: int, j: int) -> int | None:
        if j > i:
            return None
        if i - j < local:
            return i - j
        return min(i - j, limit) if j < sinks else None

    return distance


def streaming_distance(window: int, sinks: int) -> Any:
    def distance(i: int, j: int) -> int | None:
        if j > i:
            return None
        if i - j < window:
            return i - j
        return min(i, sinks + window - 1) - j if j < sinks else None

    return distance


def grouped_distance(neighbours: int, group: int) -> Any:
    def distance(i: int, j: int) -> int | None:
        if j > i:
            return None
        if i - j < neighbours:
            return i - j
        return i // group - j // group + neighbours - neighbours // group

    return distance


def folded_distance(chunk: int, window: int) -> Any:
    def distance(i: int, j: int) -> int | None:
        if j > i:
            return None
        apart = i // chunk - j // chunk
        if apart == 0:
            return i - j
        place = min(chunk + i % chunk, window - 1) if apart == 1 else window - 1
        return place - j % chunk

    return distance


CASES = [
    ("lm-infinite:local=16,sinks=3", lambda_distance(16, 3, 16)),
    ("lm-infinite:local=1,sinks=0", lambda_distance(1, 0, 1)),
    ("lm-infinite:local=16,sinks=5,distance_limit=23", lambda_distance(16, 5, 23)),
    ("lm-infinite:local=7,sinks=0", lambda_distance(7, 0, 7)),
    ("streaming-llm:window=16,sinks=4", streaming_distance(16, 4)),
    ("streaming-llm:window=9,sinks=1", streaming_distance(9, 1)),
    ("self-extend:neighbours=16,group=3", grouped_distance(16, 3)),
    ("self-extend:neighbours=5,group=1", grouped_distance(5, 1)),
    ("dual-chunk:chunk=12,window=16", folded_distance(12, 16)),
    ("dual-chunk:chunk=5,window=64", folded_distance(5, 64)),
]


@pytest.mark.parametrize(("spec", "distance"), CASES)
@pytest.mark.parametrize("length", LENGTHS)
def test_distances_against_pairs(spec: str, distance: Any, length: int) -> None:
    q, k, v = random_qkv(length)
    expected = attention_by_distance(
        q[0].numpy(), k[0].numpy(), v[0].numpy(), INV_FREQ.numpy(), distance
    )
    for cuts in ([length], list(range(1, length + 1)), sorted({1, length // 3, length} - {0})):
        out = run(resolved(spec), q, k, v, cuts)[0].numpy()
        np.testing.assert_allclose(out, expected, atol=2e-5)


def test_angles_stay_exact_far_into_a_text() -> None:
    """A million tokens on, the same chunk gives the same output: nothing counts from the start."""
    method = resolved("lm-infinite:local=16,sinks=0")
    q, k, v = random_qkv(48)
    facts = read_facts(build("llama"))
    outs = []
    for first in (0, 1_000_000):
        attend, store = method.attend(facts, 0), method.store(facts, 0)
        store.local.start = store.base = first  # type: ignore[attr-defined]  # a WindowStore
        rotation, parts = Rotation(INV_FREQ), []
        for at in range(48):
            one = slice(at, at + 1)
            store.append(KV(k[:, :, one], v[:, :, one], None, first + at, rotated=False))
            call = Call(
                q=q[:, :, one],
                k=k[:, :, one],
                v=v[:, :, one],
                positions=None,
                start=first + at,
                spec=Spec(),
                rotate=rotation,
                store=store,
                phase="decode",
                layer=0,
                scale=7**-0.5,
            )
            parts.append(attend(call))
            store.settle()
        outs.append(torch.cat(parts, dim=2))
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-6)


def test_top_k_of_everything_is_dense_at_one_distance() -> None:
    """With room for all of the middle, the last query sees every token, the middle at `insert`."""
    length, local, sinks, insert = 45, 8, 3, 8
    q, k, v = random_qkv(length)
    method = resolved(
        f"lm-infinite:local={local},sinks={sinks},top_k=99,top_k_distance={insert},"
        "top_k_from_layer=0"
    )

    def distance(i: int, j: int) -> int | None:
        if j > i or (i < length - 1 and sinks <= j <= i - local):
            return None
        return min(i - j, local)

    expected = attention_by_distance(
        q[0].numpy(), k[0].numpy(), v[0].numpy(), INV_FREQ.numpy(), distance
    )
    for cuts in ([length], [20, length]):
        out = run(method, q, k, v, cuts)[0].numpy()
        np.testing.assert_allclose(out, expected, atol=2e-5)


def test_top_k_keeps_the_best_keys_of_each_head() -> None:
    length, local, sinks, top_k, insert = 45, 8, 3, 4, 5
    q, k, v = random_qkv(length)
    spec = f"lm-infinite:local={local},sinks={sinks},top_k={top_k},top_k_distance={insert}"
    method = resolved(f"{spec},top_k_from_layer=0")
    out = run(method, q, k, v, [length - 1, length])[0, :, -1].numpy()
    rotation = Rotation(INV_FREQ)
    for head in range(4):
        near = rotation.at_one(q[:, head : head + 1, -1:], insert)[0, 0, 0]
        middle = (k[0, head // 2, sinks : length - local] @ near).numpy()
        best = set(sinks + np.argsort(-middle)[:top_k])

        def distance(i: int, j: int, best: set[int] = best) -> int | None:
            if j > i:
                return None
            if i - j < local:
                return i - j
            if j < sinks:
                return local
            return insert if j in best else None

        expected = attention_by_distance(
            q[0, head : head + 1, -1:].numpy(),
            k[0, head // 2 : head // 2 + 1].numpy(),
            v[0, head // 2 : head // 2 + 1].numpy(),
            INV_FREQ.numpy(),
            distance,
        )
        np.testing.assert_allclose(out[head], expected[0, 0], atol=2e-5)


def test_no_sinks_is_a_sliding_window() -> None:
    """LM-Infinite without sinks equals Mistral's own sliding window over the same weights."""
    import transformers

    model = copy.deepcopy(build("mistral")).double()
    config = transformers.MistralConfig(**{**model.config.to_dict(), "sliding_window": 16})
    sliding = transformers.MistralForCausalLM(config).eval().double()
    sliding.load_state_dict(model.state_dict())
    ids = tokens(1, 60)
    with torch.no_grad():
        expected = sliding(ids).logits
        with extend(model, "lm-infinite:local=16,sinks=0") as ext:
            out = model(ids, past_key_values=ext.new_cache()).logits
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("spec", ["lm-infinite:local=40,sinks=4", "streaming-llm:window=40"])
def test_rectangles_are_as_exact_as_a_mask(
    spec: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks read as rectangles err no more than chunks read under a mask, against float64."""
    from unspool.attention.sinks import SinkWindow

    model = copy.deepcopy(build("llama")).to(dtype)
    ids = tokens(2, 210)

    def read(model: Any) -> torch.Tensor:
        with extend(model, spec) as ext, torch.no_grad():
            cache = ext.new_cache()
            cuts = [0, 30, 70, 71, 90, 130, 149, 189, 210]
            parts = [
                model(ids[:, start:end], past_key_values=cache).logits
                for start, end in itertools.pairwise(cuts)
            ]
        return torch.cat(parts, 1).double()

    exact = read(copy.deepcopy(model).double())
    rectangles = read(model)
    monkeypatch.setattr(SinkWindow, "_is_band", lambda *_: False)
    masked = read(model)
    assert not torch.equal(rectangles, masked)
    assert float((rectangles - exact).norm()) < 1.25 * float((masked - exact).norm())


def test_the_cache_is_really_cut() -> None:
    model = build("llama")
    ids = tokens(1, 300)
    with extend(model, "lm-infinite:local=32,sinks=4") as ext, torch.no_grad():
        cache = ext.new_cache()
        for start in range(0, 300, 20):
            model(ids[:, start : start + 20], past_key_values=cache)
            for store in cache.stores:
                assert len(store.local) <= 31 + 20  # type: ignore[attr-defined]  # a WindowStore
        report = ext.report(cache)
    assert report.attended_tokens == 36
    assert report.dropped_tokens == 300 - 36
    assert report.stored_tokens == 0
    heads, size, layers = 2, 8, 3
    per_token = heads * size * 2 * 4
    assert report.bytes_device <= layers * ((31 + 20 + 128 + 4) * per_token + 4 * 8)


def test_without_the_idea_the_window_forgets() -> None:
    """A token that was evicted cannot change a logit any more; a sink can."""
    model = build("llama")
    ids = tokens(1, 120)
    with extend(model, "lm-infinite:local=16,sinks=4") as ext, torch.no_grad():

        def last(text: Any) -> Any:
            return model(text, past_key_values=ext.new_cache()).logits[0, -1]

        base = last(ids)
        # Three layers of 16 tokens reach back 3 * 15 positions, and the sinks see no middle token.
        middle, first = ids.clone(), ids.clone()
        middle[0, 60] = (middle[0, 60] + 7) % 100 + 3
        first[0, 2] = (first[0, 2] + 7) % 100 + 3
        assert torch.equal(last(middle), base)
        assert not torch.allclose(last(first), base, atol=1e-4)


def test_padding_is_never_a_sink() -> None:
    model = build("llama")
    ids, mask = left_padded([70, 41, 9])
    with extend(model, "lm-infinite:local=16,sinks=4") as ext, torch.no_grad():
        together = model(ids, attention_mask=mask, past_key_values=ext.new_cache()).logits
        for row, length in enumerate((70, 41, 9)):
            alone = model(ids[row : row + 1, -length:], past_key_values=ext.new_cache()).logits
            torch.testing.assert_close(together[row, -length:], alone[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("lm-infinite:local=0", "local >= 1"),
        ("lm-infinite:local=8,sinks=8", "sinks < local"),
        ("lm-infinite:local=8,sinks=2,distance_limit=7", "distance_limit >= local"),
        ("lm-infinite:top_k=-1", "top_k >= 0"),
        ("streaming-llm:window=4,sinks=4", "sinks < window"),
        ("self-extend:group=0", "group >= 1"),
        ("self-extend:neighbours=256", "below the trained window"),
        ("dual-chunk:chunk=256", "chunk < window"),
        ("lm-infinite:locale=3", "no option 'locale'"),
        ("lm-infinite:local=many", "local='many' is not an integer"),
        ("lm-infinit", "Did you mean lm-infinite"),
    ],
)
def test_bad_settings_name_the_value(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        extend(build("llama"), spec)


def test_a_prompt_past_what_self_extend_reaches_is_refused() -> None:
    model = build("llama", 32)
    ids = tokens(1, 200)
    with extend(model, "self-extend:neighbours=16,group=4") as ext:
        assert ext.capacity == 16 * 4 + 16
        with pytest.raises(OverflowPolicyError, match="at most 76 fit"):
            model.generate(ids, max_new_tokens=4)
