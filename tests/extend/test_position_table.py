"""Models with learned positions: which methods take them, and what ends their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backends.tiny import tokenizer
from tests.extend.conftest import VOCABULARY, tokens
from unspool._facts import read_facts
from unspool.cli import main as cli
from unspool.errors import ConfigError, OverflowPolicyError
from unspool.extension import extend
from unspool.reading.losses import method_losses

ROWS = 96
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": None}


def gpt2(vocabulary: int = VOCABULARY, rows: int = ROWS) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        **SHAPE | {"vocab_size": vocabulary}, n_positions=rows, n_embd=32, n_layer=2, n_head=4
    )
    return transformers.GPT2LMHeadModel(config).eval()


def opt() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.OPTConfig(
        **SHAPE, pad_token_id=0, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2,
        ffn_dim=48, num_attention_heads=4, max_position_embeddings=ROWS,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config).eval()


MAKERS = pytest.mark.parametrize(
    ("make", "path"), [(gpt2, "transformer.wpe"), (opt, "model.decoder.embed_positions")]
)


@MAKERS
def test_masformer_is_the_stock_model_within_its_span_and_another_beyond(
    make: Any, path: str
) -> None:
    model = make()
    ids = tokens(1, ROWS)
    with torch.no_grad():
        stock = model(ids).logits
        with extend(model, "masformer:full=bottom:1,block=24") as ext:
            found = model(ids, past_key_values=ext.new_cache()).logits
        assert torch.allclose(found[:, :48], stock[:, :48], atol=1e-4)
        assert not torch.allclose(found[:, 48:], stock[:, 48:], atol=1e-3)


@MAKERS
@pytest.mark.parametrize("spec", ["masformer:full=none,block=24", "dense", "softplus"])
def test_a_text_past_the_table_is_refused_by_its_name(make: Any, path: str, spec: str) -> None:
    model, ids = make(), tokens(1, ROWS + 1)
    said = f"learned positions for {ROWS} tokens .{path}.*{ROWS + 1} or more.*rotary positions"
    with extend(model, spec) as ext:
        assert ext.capacity == ROWS
        with pytest.raises(OverflowPolicyError, match=said):
            model.generate(ids, max_new_tokens=2)
        with pytest.raises(OverflowPolicyError, match=said):
            method_losses(ext, ids[0].tolist())
    with extend(model, spec) as ext, pytest.raises(OverflowPolicyError, match=said):
        model(ids, past_key_values=ext.new_cache())
    with extend(model, spec, on_overflow="truncate") as ext:
        assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] == ROWS
        assert ext.report().dropped_tokens >= 3
    with pytest.raises(IndexError):  # as it was before
        model(ids)


def test_what_needs_rotations_names_what_does_not() -> None:
    for spec in ("lm-infinite", "streaming-llm"):
        with pytest.raises(ConfigError, match=r"no rotary embedding.*masformer, hip"):
            extend(gpt2(), spec)
    with pytest.raises(ConfigError, match="snapkv or hip"):
        extend(gpt2(), "rope:kind=linear,factor=2")


def test_rotary_models_have_no_table(llama: Any) -> None:
    assert read_facts(llama).table is None
    table = read_facts(gpt2()).table
    assert table is not None
    assert (table.path, table.rows) == ("transformer.wpe", ROWS)


def test_a_comparison_goes_on_past_a_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gpt2(len(tokenizer()), rows=256).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    text = tmp_path / "lake.txt"
    text.write_text("Lake Orm lies far north, says the village.\n" * 40, encoding="utf-8")
    words = ["compare", "--model", str(tmp_path / "model"), "--context", str(text)]
    words += ["--length", "300", "--bucket", "100", "--depths", "0.5"]
    words += [
        "--method",
        "masformer:full=bottom:1,block=24",
        "--method",
        "xl3m:segment=60,overlap=9,keep=1",
    ]
    assert cli.run(words) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "masformer:full=bottom:1,block=24: not measured" in said
    assert "learned positions for 256 tokens" in said
    assert said.count("not measured") == 1
