"""Longformer and BigBird attention and encoders against dense masks and transformers' models."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder import LongEncoder, LongEncoderConfig
from unspool.models.long_encoder.blocks import block_attention, block_lists, draw_blocks
from unspool.models.long_encoder.window import (
    global_index,
    global_rows,
    put,
    take,
    window_attention,
)

warnings.filterwarnings("ignore", message=".*padded.*")


def dense(q, k, v, seen):
    """softmax(q k^T) v under a mask, one row after the other."""
    out = torch.zeros_like(q)
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    for at in np.ndindex(*scores.shape[:3]):
        kept = seen[at].nonzero()[:, 0]
        if len(kept):
            out[at] = torch.softmax(scores[at][kept], 0) @ v[at[:2]][kept]
    return out


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    ("tokens", "window", "dilation"), [(1, 4, 1), (13, 6, 1), (53, 4, 1), (65, 8, 1), (47, 4, 3)]
)
def test_window_attention_is_dense_attention_under_its_mask(tokens, window, dilation, backend):
    torch.manual_seed(tokens + window)
    q, k, v, qg, kg, vg = torch.randn(6, 2, 2, tokens, 8, dtype=torch.float64)
    valid = torch.ones(2, tokens, dtype=torch.bool)
    valid[1, max(1, tokens - 5) :] = False
    is_global = (torch.rand(2, tokens) < 0.1) & valid
    is_global[0] = False  # one row has none, the other some
    is_global[1, 0] = True
    index = global_index(is_global)
    out = window_attention(
        q,
        k,
        v,
        window=window,
        valid=valid,
        index=index,
        dilation=dilation,
        backend=backend,
    )
    rows = global_rows(take(qg, index), kg, vg, valid=valid, index=index, backend=backend)
    out = put(out, rows, index)

    step = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    near = (step % dilation == 0) & (step.abs() <= window // 2 * dilation)
    pair = valid[:, :, None] & valid[:, None]
    seen = (near | is_global[:, None, :]) & pair
    expected = dense(q, k, v, seen[:, None].expand(2, 2, tokens, tokens))
    whole = dense(qg, kg, vg, pair[:, None].expand(2, 2, tokens, tokens))
    expected = torch.where(is_global[:, None, :, None], whole, expected)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("tokens", [4 * 10, 4 * 10 + 1, 4 * 12 + 3])
def test_block_attention_is_dense_attention_under_its_mask(tokens, backend):
    torch.manual_seed(tokens)
    block, num_blocks = 4, -(-tokens // 4)
    q, k, v = torch.randn(3, 2, 2, tokens, 8, dtype=torch.float64)
    valid = torch.ones(2, tokens, dtype=torch.bool)
    valid[1, -9:] = False
    random = torch.randint(0, num_blocks, (2, num_blocks - 2, 2))  # some are listed anyway
    lists = block_lists(random, num_blocks, block)
    actual = block_attention(q, k, v, valid=valid, lists=lists, backend=backend)

    seen = torch.zeros(2, num_blocks, num_blocks, dtype=torch.bool)
    seen[:, [0, -1]] = True
    seen[:, :, [0, -1]] = True
    for head in range(2):
        for row in range(1, num_blocks - 1):
            seen[head, row, row - 1 : row + 2] = True
            seen[head, row, random[head, row - 1]] = True
    full = seen.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :tokens, :tokens]
    pair = valid[:, None, :, None] & valid[:, None, None]
    torch.testing.assert_close(actual, dense(q, k, v, full[None] & pair), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("which", ["window", "blocks"])
def test_float32_and_its_gradients_follow_the_reference(which):
    torch.manual_seed(3)
    start = torch.randn(3, 1, 2, 61, 16)
    valid = torch.ones(1, 61, dtype=torch.bool)
    valid[:, 58:] = False
    is_global = torch.zeros_like(valid)
    is_global[:, [0, 20]] = True
    lists = block_lists(draw_blocks(16, 2, 2, (0,)), 16, 4)
    results = []
    for backend in ("auto", "reference"):
        leaves = start.clone().requires_grad_()
        q, k, v = leaves
        if which == "window":
            out = window_attention(
                q, k, v, window=8, valid=valid, index=global_index(is_global), backend=backend
            )
        else:
            out = block_attention(q, k, v, valid=valid, lists=lists, backend=backend)
        out.sin().sum().backward()
        results.append((out.detach(), leaves.grad))
    torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=2e-5)


def test_random_blocks_are_drawn_once_and_never_listed_anyway():
    drawn = draw_blocks(20, 3, 3, (0, 1))
    assert torch.equal(drawn, draw_blocks(20, 3, 3, (0, 1)))
    assert not torch.equal(drawn, draw_blocks(20, 3, 3, (0, 2)))
    assert not torch.equal(drawn[0], drawn[1])
    rows = torch.arange(1, 19)[None, :, None]
    assert ((drawn - rows).abs() > 1).all()
    assert ((drawn > 0) & (drawn < 19)).all()
    assert (drawn.sort(-1).values.diff(dim=-1) > 0).all()
    with pytest.raises(ConfigError, match="leave no 3 to draw"):
        draw_blocks(7, 1, 3, (0,))


SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _copy(theirs, ours):
    """Their weights in our model, and nothing missing but the head for masked tokens."""
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("lm_head") for name in missing)


def _batch(length, pad, seed=0):
    torch.manual_seed(seed)
    ids = torch.randint(5, 60, (2, length))
    mask = torch.ones(2, length, dtype=torch.long)
    ids[1, length - length // 4 :] = pad
    mask[1, length - length // 4 :] = 0
    return ids, mask


@pytest.mark.parametrize("length", [7, 8, 37])
@pytest.mark.parametrize("globals_", ["none", "first", "ragged"])
def test_longformer_is_that_of_transformers(length, globals_):
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(1)
    their_config = LongformerConfig(
        **SIZES, attention_window=[4, 8], max_position_embeddings=70, pad_token_id=1
    )
    theirs = LongformerModel(their_config).eval()
    for parameter in theirs.parameters():  # biases and norms are trivial as they start
        torch.nn.init.normal_(parameter, std=0.3)
    ours = LongEncoder(LongEncoderConfig.from_hf(their_config.to_dict())).eval()
    _copy(theirs, ours)
    ids, mask = _batch(length, 1)
    is_global = torch.zeros_like(ids)
    if globals_ != "none":
        is_global[:, 0] = 1
    if globals_ == "ragged":
        is_global[0, [2, 5]] = 1
        is_global[1, 3] = 1
    with torch.no_grad():
        expected = theirs(
            ids,
            attention_mask=mask,
            global_attention_mask=is_global,
            output_hidden_states=True,
        )
        actual = ours(ids, mask, is_global, output_hidden_states=True)
    assert len(actual.hidden_states) == len(expected.hidden_states) == 3
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one[mask > 0], other[:, :length][mask > 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(actual.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-4)


def _big_bird(**changes):
    from transformers import BigBirdConfig, BigBirdModel

    torch.manual_seed(2)
    config = BigBirdConfig(
        **SIZES, block_size=4, num_random_blocks=2, max_position_embeddings=80, **changes
    )
    theirs = BigBirdModel(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = LongEncoder(LongEncoderConfig.from_hf(config.to_dict()))
    state = {
        name.replace("pooler.", "pooler.dense."): value
        for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(state, strict=False)
    return theirs, ours


@pytest.mark.parametrize("changes", [{}, {"use_bias": False, "rescale_embeddings": True}])
def test_short_big_bird_is_full_attention_of_transformers(changes):
    theirs, ours = _big_bird(attention_type="original_full", **changes)
    ids, mask = _batch(35, 0)
    with torch.no_grad():
        expected = theirs.eval()(ids, attention_mask=mask, output_hidden_states=True)
        actual = ours.eval()(ids, mask, output_hidden_states=True)
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one[mask > 0], other[mask > 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [44, 50])
def test_big_bird_with_forced_blocks_is_that_of_transformers(length, monkeypatch):
    theirs, ours = _big_bird()
    num_blocks = -(-length // 4)
    lists = draw_blocks(num_blocks, 4, 2, (7,))
    monkeypatch.setattr(
        "transformers.models.big_bird.modeling_big_bird.BigBirdBlockSparseAttention"
        "._bigbird_block_rand_mask_with_head",
        lambda self, **_: list(lists.numpy()),
    )
    ours.force_random_blocks([lists, lists])
    ids, mask = _batch(length, 0)
    with torch.no_grad():
        expected = theirs.train()(ids, attention_mask=mask, output_hidden_states=True)
        actual = ours.eval()(ids, mask, output_hidden_states=True)
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one[mask > 0], other[:, :length][mask > 0], atol=1e-5, rtol=1e-4)


def test_a_wide_window_without_globals_is_roberta():
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(4)
    theirs = RobertaModel(
        RobertaConfig(**SIZES, max_position_embeddings=70, layer_norm_eps=1e-5)
    ).eval()
    ours = LongEncoder(
        LongEncoderConfig(**SIZES, window=64, max_position_embeddings=70, layer_norm_eps=1e-5)
    ).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    ids, mask = _batch(31, 1)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).last_hidden_state
        actual = ours(ids, mask, torch.zeros_like(ids)).last_hidden_state
        narrow = LongEncoder(
            LongEncoderConfig(**SIZES, window=4, max_position_embeddings=70)
        ).eval()
        narrow.load_state_dict(ours.state_dict())
        other = narrow(ids, mask, torch.zeros_like(ids)).last_hidden_state
    torch.testing.assert_close(actual[mask > 0], expected[mask > 0], atol=1e-5, rtol=1e-4)
    assert (other - expected)[mask > 0].abs().max() > 1e-2  # the window does decide


def test_training_with_dropout_and_checkpoints_gives_the_gradients_of_one_pass():
    torch.manual_seed(5)
    config = LongEncoderConfig(
        **{**SIZES, "attention_probs_dropout_prob": 0.2, "hidden_dropout_prob": 0.2},
        window=4,
        max_position_embeddings=70,
    )
    model = LongEncoder(config).train()
    ids, mask = _batch(29, 1)
    found = []
    for saving in (False, True):
        model.gradient_checkpointing = saving
        model.zero_grad()
        torch.manual_seed(6)
        scores = model.masked_scores(model(ids, mask).last_hidden_state)
        F.cross_entropy(scores[mask > 0], ids[mask > 0]).backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[0], found[1])


def test_bad_settings_and_inputs_say_what_to_do():
    with pytest.raises(ConfigError, match=r"even .* got 5; 6 works"):
        LongEncoderConfig(window=5)
    with pytest.raises(ConfigError, match="3 values for 2 layers"):
        LongEncoderConfig(window=(2, 4, 6), num_hidden_layers=2)
    with pytest.raises(ConfigError, match="becomes one by `unspool encoder convert`"):
        LongEncoderConfig.from_hf({"model_type": "bert"})
    model = LongEncoder(LongEncoderConfig(**SIZES, window=4, max_position_embeddings=10)).eval()
    with pytest.raises(InputError, match="9 tokens are more than the 8"):
        model(torch.full((1, 9), 5))
    with pytest.raises(InputError, match=r"global_attention_mask must be \(1, 4\)"):
        model(torch.full((1, 4), 5), global_attention_mask=torch.ones(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["longformer", "bigbird"])
def test_memory_grows_linearly(kind):
    """Bytes that the allocator gave out: not more than twice as many for twice the tokens."""
    from torch.profiler import ProfilerActivity, profile

    config = LongEncoderConfig(
        **SIZES, kind=kind, window=64, block=16, max_position_embeddings=17000
    )
    model = LongEncoder(config).eval()
    used = []
    for length in (1024, 4096, 16384):
        ids = torch.randint(5, 60, (1, length))
        with (
            torch.no_grad(),
            profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
        ):
            model(ids)
        used.append(sum(max(0, event.cpu_memory_usage) for event in seen.events()))
    assert used[1] < 4.6 * used[0]
    assert used[2] < 4.6 * used[1]
