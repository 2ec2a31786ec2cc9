"""Prompt, loss, sampling and resuming against transformers, PEFT, numpy and enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import TopPLogitsWarper

from tests.backends.tiny import full_logits, model, network, tokenizer
from unspool.backends.scripted import ScriptedModel
from unspool.errors import (
    BackendError,
    ConfigError,
    InputError,
    OverflowPolicyError,
    PathNotFound,
    RunConflict,
    Unsupported,
)
from unspool.forensics.extract import AttackSettings, FitSettings, Pair, SoftPrompt, attack, fit
from unspool.forensics.extract.confidence import scores
from unspool.forensics.extract.decode import beam, nucleus
from unspool.forensics.extract.loss import smoothed, suffix_losses

FEW = FitSettings(tokens=3, epochs=3, batch=4, micro=3, top_losses=2, lr=0.05, warmup=2)
ASK = AttackSettings(samples=6, top_p=0.9, temperature=1.0, beams=3, batch=64)


def pairs(count: int, split: Any = "test", seed: int = 0, prefix: int = 5, suffix: int = 4) -> list:
    draw = np.random.default_rng(seed)
    return [
        Pair(
            f"{split}{i}",
            split,
            tuple(draw.integers(2, 300, prefix).tolist()),
            tuple(draw.integers(2, 300, suffix).tolist()),
        )
        for i in range(count)
    ]


def sides(given: list[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([p.prefix for p in given]), torch.tensor([p.suffix for p in given])


@torch.no_grad()
def losses_of(net: Any, vectors: Any, prefixes: torch.Tensor, suffixes: torch.Tensor) -> Any:
    return suffix_losses(net, vectors, prefixes, suffixes)


def test_the_loss_is_that_of_transformers_and_its_top_that_of_numpy() -> None:
    net, (prefixes, suffixes) = network(), sides(pairs(7))
    vectors = torch.randn(3, 16)
    losses = losses_of(net, vectors, prefixes, suffixes)
    ids = torch.cat([prefixes, suffixes], 1)
    embeds = torch.cat([vectors.expand(7, -1, -1), net.get_input_embeddings()(ids).detach()], 1)
    labels = torch.cat([torch.full((7, 8), -100), suffixes], 1)
    with torch.no_grad():
        expected = net(inputs_embeds=embeds, labels=labels).loss
    plain = smoothed(losses, alpha=0, top_losses=2)
    torch.testing.assert_close(plain.total, expected)
    top = np.partition(losses.detach().numpy(), -3, axis=1)[:, -3:].mean()
    found = smoothed(losses, alpha=0.7, top_losses=3)
    assert float(found.smooth) == pytest.approx(float(top), rel=1e-5)
    assert float(found.total) == pytest.approx(float(expected) + 0.7 * float(top), rel=1e-5)
    hard = [[x for x in row if x > 6] for row in losses.tolist()]
    by_hand = np.mean([np.mean(row) if row else 0.0 for row in hard])
    assert float(smoothed(losses, min_loss=6.0).smooth) == pytest.approx(float(by_hand), rel=1e-5)
    with pytest.raises(ConfigError, match="from 1 to the 4"):
        smoothed(losses, top_losses=5)


# PEFT asks transformers for a name that it has since changed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_prompt_of_peft_gives_the_same_loss_and_loads_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # PEFT would look the base model up
    peft = pytest.importorskip("peft", reason="the oracle is PEFT")
    net, given = network(), pairs(4)
    prefixes, suffixes = sides(given)
    ours = SoftPrompt(torch.randn(3, 16), "tiny", frozenset(p.key for p in given), {"a": 1})
    ours.save(tmp_path / "ours")
    mean = float(smoothed(losses_of(net, ours.vectors, prefixes, suffixes), alpha=0,
                          top_losses=1).total)  # fmt: skip
    theirs = peft.PeftModel.from_pretrained(net, str(tmp_path / "ours"))
    ids = torch.cat([prefixes, suffixes], 1)
    labels = torch.cat([torch.full((4, 5), -100), suffixes], 1)
    with torch.no_grad():
        assert float(theirs(input_ids=ids, labels=labels).loss) == pytest.approx(mean, rel=1e-5)
    theirs.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    back = SoftPrompt.load(tmp_path / "theirs")
    torch.testing.assert_close(back.vectors, ours.vectors)
    again = SoftPrompt.load(tmp_path / "ours")
    assert (again.base, again.trained_on, again.notes) == ("tiny", ours.trained_on, {"a": 1})


def test_folders_that_hold_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound, match="no prompt"):
        SoftPrompt.load(tmp_path)
    SoftPrompt(torch.randn(2, 8)).save(tmp_path)
    config = tmp_path / "adapter_config.json"
    raw = config.read_text()
    config.write_text(raw.replace("PROMPT_TUNING", "LORA"))
    with pytest.raises(InputError, match="'LORA'"):
        SoftPrompt.load(tmp_path)
    config.write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        SoftPrompt.load(tmp_path)
    config.write_text(raw)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="holds no prompt"):
        SoftPrompt.load(tmp_path)


def test_only_the_prompt_learns_and_it_does() -> None:
    loaded = model()
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    # One suffix for all: vectors can learn to ask for it whatever the prefix says.
    suffix = (7, 9, 11, 13)
    train = [replace(p, suffix=suffix) for p in pairs(12, "train", 1)]
    val = [replace(p, suffix=suffix) for p in pairs(4, "val", 2)]
    settings = replace(FEW, epochs=12, patience=12)
    prompt = fit(loaded, train, val, settings)
    for name, weight in loaded.model.named_parameters():
        assert weight.grad is None
        assert weight.requires_grad
        torch.testing.assert_close(weight.detach(), before[name], rtol=0, atol=0)
    start = loaded.model.get_input_embeddings().weight[:3].detach()
    first = losses_of(loaded.model, start, *sides(val)).mean()
    last = losses_of(loaded.model, prompt.vectors, *sides(val)).mean()
    assert float(last) < float(first) - 0.5
    rows = prompt.notes["epochs"]
    assert float(last) == pytest.approx(min(r["mean"] for r in rows if r["best"]), rel=1e-5)
    for row in rows:
        assert row["total"] == pytest.approx(row["mean"] + 0.7 * row["smooth"], rel=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    train, val = pairs(8, "train", 1), pairs(3, "val", 2)
    whole = fit(model(), train, val, replace(FEW, batch=8, micro=8))
    parts = fit(model(), train, val, replace(FEW, batch=8, micro=3))
    torch.testing.assert_close(parts.vectors, whole.vectors, rtol=1e-4, atol=1e-5)


def test_the_hardest_tokens_become_easier_when_they_weigh_more() -> None:
    train = pairs(6, "train", 1)
    val = [replace(p, id=f"v{p.id}") for p in train]
    settings = replace(FEW, top_losses=1, epochs=20, patience=20, batch=6, micro=6)
    smooth = {}
    for alpha in (0, 4.0):
        prompt = fit(model(), train, val, replace(settings, alpha=alpha), force=True)
        losses = losses_of(model().model, prompt.vectors, *sides(train))
        smooth[alpha] = float(smoothed(losses, alpha=0, top_losses=1).smooth)
    assert smooth[4.0] < smooth[0] - 0.1


class Stop(Exception):
    """Raised in place of Ctrl-C."""


def test_a_fit_that_was_stopped_gives_the_same_prompt(tmp_path: Path) -> None:
    train, val = pairs(9, "train", 1), pairs(3, "val", 2)
    whole = fit(model(), train, val, FEW, out=tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done > 12:  # in the middle of the second epoch
            raise Stop

    with pytest.raises(Stop):
        fit(model(), train, val, FEW, out=tmp_path / "cut", on_progress=stop)
    assert not (tmp_path / "cut" / "adapter_config.json").exists()
    loaded = model()
    fit(loaded, train, val, FEW, out=tmp_path / "cut")
    for name in ("adapter_config.json", "adapter_model.safetensors", "unspool.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert SoftPrompt.load(tmp_path / "cut").trained_on == whole.trained_on
    with pytest.raises(RunConflict, match="other settings"):
        fit(model(), train, val, replace(FEW, lr=0.1), out=tmp_path / "cut")
    with pytest.raises(RunConflict, match="other train"):
        fit(model(), train[1:], val, FEW, out=tmp_path / "cut")
    (tmp_path / "cut" / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="not of this command"):
        fit(model(), train, val, FEW, out=tmp_path / "cut")


def test_it_ends_when_nothing_gets_better() -> None:
    train, val = pairs(4, "train", 1), pairs(2, "val", 2)
    prompt = fit(model(), train, val, replace(FEW, epochs=40, patience=2, lr=5.0))
    rows = prompt.notes["epochs"]
    best = max(i for i, row in enumerate(rows) if row["best"])
    assert len(rows) == best + 3 < 40


def test_the_nucleus_is_that_of_transformers_and_drawn_by_its_chances() -> None:
    logits = torch.randn(5, 60, generator=torch.Generator().manual_seed(0)) * 2
    for top_p in (0.3, 0.7, 1.0):
        warped = logits / 0.8
        if top_p < 1:
            warped = TopPLogitsWarper(top_p)(None, warped)
        chances = torch.softmax(warped, -1)
        numbers = (torch.arange(4_000) + 0.5) / 4_000
        for row in range(5):
            drawn = nucleus(logits[row].expand(4_000, -1), numbers, top_p=top_p, temperature=0.8)
            shares = torch.bincount(drawn, minlength=60) / 4_000
            torch.testing.assert_close(shares, chances[row], atol=6e-4, rtol=0)


def test_a_nucleus_wider_than_what_is_sorted_first() -> None:
    logits = torch.zeros(1, 5000)
    numbers = torch.tensor([0.999])
    assert nucleus(logits, torch.zeros(1), top_p=1.0, temperature=1.0).shape == (1,)
    drawn = {int(nucleus(logits, numbers * i / 50, top_p=0.9, temperature=1.0)) for i in range(50)}
    assert len(drawn) == 50


def test_greedy_and_beam_are_those_of_transformers() -> None:
    loaded, given = model(), pairs(3)
    records = attack(loaded, given, ASK)
    for pair, record in zip(given, records, strict=True):
        ids = torch.tensor([pair.prefix])
        for name, beams in (("greedy", 1), ("beam", 3)):
            said = loaded.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=beams,
                max_new_tokens=4, eos_token_id=None, pad_token_id=0, length_penalty=0.0,
            )[0, 5:].tolist()  # fmt: skip
            assert record[name]["tokens"] == said
        for answer in (record["greedy"], record["beam"], *record["samples"]):
            table = torch.log_softmax(
                full_logits(loaded.model, [*pair.prefix, *answer["tokens"]]), -1
            )
            by_hand = [-float(table[4 + i, t]) for i, t in enumerate(answer["tokens"])]
            assert answer["loss"] == pytest.approx(sum(by_hand) / 4, rel=1e-4)
            assert answer["text"] == tokenizer().decode(answer["tokens"])
        assert sum(s["count"] for s in record["samples"]) == record["drawn"] == 6


def two_tokens() -> Any:
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
            initializer_range=0.8, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
    ).eval()  # fmt: skip


def test_a_beam_that_is_wide_enough_finds_the_likeliest_text() -> None:
    net = two_tokens()
    for prefix in itertools.product((0, 1), repeat=3):
        losses = {
            text: float(losses_of(net, None, torch.tensor([prefix]),
                                      torch.tensor([text])).mean())
            for text in itertools.product((0, 1), repeat=4)
        }  # fmt: skip
        with torch.no_grad():  # 2^3 beams hold every text but for its last token
            found = beam(net, None, torch.tensor([prefix]), 4, 8)
        assert float(found.losses[0]) == pytest.approx(min(losses.values()))
        assert losses[tuple(found.tokens[0].tolist())] == min(losses.values())


def test_confidence_is_the_models_probability_when_every_text_was_drawn_once() -> None:
    net, prefix = two_tokens(), torch.tensor([[0, 1, 1]])
    texts = list(itertools.product((0, 1), repeat=3))
    losses = [float(losses_of(net, None, prefix, torch.tensor([t])).mean()) for t in texts]
    rows = [{"tokens": t, "count": 1, "loss": x} for t, x in zip(texts, losses, strict=True)]
    chances = np.ones(8)
    for i, text in enumerate(texts):
        ids = torch.cat([prefix[0], torch.tensor(text)])
        table = torch.softmax(full_logits(net, ids.tolist()), -1)
        for at, token in enumerate(text):
            chances[i] *= float(table[2 + at, token])
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(scores(rows), chances, rtol=1e-4)


def test_samples_follow_the_model() -> None:
    net = two_tokens()
    pair = Pair("a", "test", (0, 1, 1), (0, 0))
    (record,) = attack(net, [pair], AttackSettings(samples=3000, top_p=1, temperature=1, beams=0,
                                                   batch=4000))  # fmt: skip
    assert record["beam"] is None
    for sample in record["samples"]:
        chance = np.exp(-2 * sample["loss"])
        spread = np.sqrt(chance * (1 - chance) / 3000)
        assert abs(sample["count"] / 3000 - chance) < 4 * spread


def test_vectors_and_tokens_of_their_own_give_the_same_greedy_text() -> None:
    loaded, given = model(), pairs(4)
    prompt = SoftPrompt(torch.randn(3, 16, generator=torch.Generator().manual_seed(5)))
    records = attack(loaded, given, replace(ASK, samples=0, beams=0), prompt=prompt)
    other = network()
    rows = other.get_input_embeddings().num_embeddings
    other.resize_token_embeddings(rows + 3, mean_resizing=False)
    with torch.no_grad():
        other.get_input_embeddings().weight[rows:] = prompt.vectors
    for pair, record in zip(given, records, strict=True):
        ids = torch.tensor([[rows, rows + 1, rows + 2, *pair.prefix]])
        said = other.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4,
            eos_token_id=None, pad_token_id=0, suppress_tokens=[rows, rows + 1, rows + 2],
        )  # fmt: skip
        assert record["greedy"]["tokens"] == said[0, 8:].tolist()
    assert records[0]["samples"] == []


def test_a_prompt_of_no_vectors_is_the_plain_model() -> None:
    given = pairs(3)
    plain = attack(model(), given, ASK)
    assert attack(model(), given, ASK, prompt=SoftPrompt(torch.empty(0, 16))) == plain
    assert attack(model(), given, ASK, prompt=SoftPrompt(torch.randn(2, 16))) != plain


def test_samples_do_not_depend_on_the_batch_or_the_other_pairs() -> None:
    given = pairs(5)
    whole = attack(model(), given, ASK)
    for batch in (1, 7, 20):
        parts = attack(model(), given, replace(ASK, batch=batch))
        for a, b in zip(parts, whole, strict=True):
            assert [s["tokens"] for s in a["samples"]] == [s["tokens"] for s in b["samples"]]
            assert a["greedy"]["tokens"] == b["greedy"]["tokens"]
    (alone,) = attack(model(), given[3:4], ASK)
    assert [s["tokens"] for s in alone["samples"]] == [s["tokens"] for s in whole[3]["samples"]]
    assert attack(model(), given, replace(ASK, seed=1)) != whole


def test_an_attack_that_was_stopped_gives_the_same_file(tmp_path: Path) -> None:
    given = pairs(7)
    settings = replace(ASK, batch=14)  # two prefixes a group
    path = tmp_path / "a.jsonl"
    records = attack(model(), given, settings, out=path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    for keep in (0, 1, 2, 3, 6):  # also in the middle of a group
        path.write_bytes(b"".join(lines[:keep]) + lines[keep][:9])
        assert attack(model(), given, settings, out=path) == records
        assert path.read_bytes() == b"".join(lines)
    with pytest.raises(RunConflict, match="another settings"):
        attack(model(), given, ASK, out=path)
    with pytest.raises(RunConflict, match="another prompt"):
        attack(model(), given, settings, out=path, prompt=SoftPrompt(torch.randn(2, 16)))
    (tmp_path / "b.jsonl").write_text('{"kind": "notes"}\n')
    with pytest.raises(InputError, match="something else"):
        attack(model(), given, settings, out=tmp_path / "b.jsonl")


def test_adaptive_sampling_stops_what_is_clear_and_nothing_else() -> None:
    given = pairs(6)
    cold = replace(ASK, samples=40, top_p=0.05, beams=0)  # nearly greedy: all samples agree
    for record in attack(model(), given, replace(cold, adaptive=True)):
        assert record["drawn"] == 8
        assert record["samples"][0]["count"] == 8
    warm = replace(ASK, samples=24, top_p=1, temperature=3.0, beams=0)
    full = attack(model(), given, warm)
    stopping = attack(model(), given, replace(warm, adaptive=True))
    assert [r["drawn"] for r in stopping] == [24] * 6
    assert [[s["tokens"] for s in r["samples"]] for r in stopping] == [
        [s["tokens"] for s in r["samples"]] for r in full
    ]


def test_a_reference_scores_the_same_texts() -> None:
    given = pairs(2)
    for record in attack(model(), given, ASK, reference=model()):
        for answer in (record["greedy"], *record["samples"]):
            assert answer["reference"] == pytest.approx(answer["loss"], rel=1e-4)


def test_refuses_what_cannot_be_asked() -> None:
    given = pairs(3)
    prompt = SoftPrompt(torch.randn(2, 16), "", frozenset({given[1].key}))
    with pytest.raises(InputError, match="1 of 3 prefixes to be asked, 'test1' first"):
        attack(model(), given, ASK, prompt=prompt)
    attack(model(), given, replace(ASK, samples=1, beams=0), prompt=prompt, force=True)
    with pytest.raises(InputError, match="trained for another model"):
        attack(model(), given, ASK, prompt=SoftPrompt(torch.randn(2, 8)))
    with pytest.raises(InputError, match="All must have the same"):
        attack(model(), [*given, *pairs(1, prefix=6)], ASK)
    with pytest.raises(InputError, match="token id 9999"):
        attack(model(), [Pair("x", "test", (9999,), (1,))], ASK)
    with pytest.raises(InputError, match="no pairs"):
        attack(model(), [], ASK)
    with pytest.raises(ConfigError, match="how many tokens"):
        attack(model(), [Pair("x", "test", (3,))], ASK)
    with pytest.raises(OverflowPolicyError, match="130 tokens"):
        attack(model(), given, replace(ASK, suffix=125))
    with pytest.raises(Unsupported, match="recite"):
        attack(ScriptedModel(["x"]), given, ASK)
    same = [replace(p, id=f"v{i}", split="val") for i, p in enumerate(given)]
    with pytest.raises(InputError, match="that validate"):
        fit(model(), given, same, FEW)
    with pytest.raises(InputError, match="0 to validate"):
        fit(model(), given, [], FEW)
    with pytest.raises(InputError, match="has no suffix"):
        fit(model(), [Pair("x", "train", (3,))], [Pair("y", "val", (4,))], FEW)
    with pytest.raises(ConfigError, match="at most the"):
        fit(model(), given, pairs(2, "val", 5), replace(FEW, tokens=5000))


def test_too_little_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no more")

    for name, call in (
        ("unspool.forensics.extract.asking.write", lambda: attack(model(), pairs(2), ASK)),
        (
            "unspool.forensics.extract.training.suffix_losses",
            lambda: fit(model(), pairs(2, "train", 1), pairs(2, "val", 2), FEW),
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(BackendError, match="smaller batch"):
                call()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FitSettings(tokens=0), "tokens"),
        (lambda: FitSettings(alpha=-1), "alpha"),
        (lambda: AttackSettings(samples=-1), "samples"),
        (lambda: AttackSettings(top_p=0), "top_p"),
        (lambda: AttackSettings(temperature=0), "greedy"),
        (lambda: AttackSettings(suffix=0), "suffix"),
    ],
)
def test_refuses_settings_that_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
