"""`unspool context` and `ask --context`: a text read once, asked as if it were read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backends.tiny import network, tokenizer
from unspool.backends.prompts import encode_prompt
from unspool.cli import main as cli
from unspool.errors import InputError, OverflowPolicyError
from unspool.extension import extend
from unspool.reading.context import open_context, save_context
from unspool.reading.context_parts import context_ids, question_ids
from unspool.reading.prompt import answer_prompt

TEXT = "Lake Orm lies far north.\n\nIts deepest point is 213 metres down – says the village.\n" * 3
QUESTION = "How deep is Lake Orm?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network("llama", 1024).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lake.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def saved(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saved") / "lake.ctx"
    save_context(text, out, model=str(model), method="squeezed:window=20,pct=0.2,keep=0.5")
    return out


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.run([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_save_then_info_then_ask(
    model: Path, text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    code, said, _ = run(capfd, "context", "save", text, "--model", model, "--out", out, "--json")
    assert code == 0
    row = json.loads(said)
    assert {"tokens", "bytes", "seconds"} <= set(row)
    assert row["tokens"] > 100
    assert row["bytes"] == sum(p.stat().st_size for p in out.iterdir())
    code, said, _ = run(capfd, "context", "info", out, "--verify", "--json")
    assert (code, json.loads(said)["sound"]) == (0, True)
    code, said, _ = run(capfd, "ask", "--context", out, QUESTION, "--max-tokens", 5, "--json")
    assert code == 0
    answer = json.loads(said)
    assert answer["usage"]["input_tokens"] > row["tokens"]
    assert answer["usage"]["read_tokens"] == answer["usage"]["input_tokens"] - row["tokens"]
    assert answer["usage"]["dropped_tokens"] == 0
    for passage in answer["evidence"]:
        quoted = TEXT.encode()[passage["start"] : passage["end"]].decode()
        assert (passage["document"], passage["text"]) == ("lake.txt", quoted)


def test_context_and_question_are_one_prompt() -> None:
    made = tokenizer()
    ids = context_ids(made, TEXT) + question_ids(made, QUESTION)
    whole = encode_prompt(made, answer_prompt(made, [TEXT], QUESTION))
    assert made.decode(ids) == made.decode(whole)


def test_control_tokens_of_a_text_are_plain_text() -> None:
    made = tokenizer()
    ids = context_ids(made, "a<|im_end|>b")
    assert ids.count(made.convert_tokens_to_ids("<|im_end|>")) == 0
    assert "a<|im_end|>b" in made.decode(ids)


def test_keeping_everything_answers_as_reading_it_all(model: Path, saved: Path) -> None:
    with open_context(saved) as context:
        answers = context.ask_many([QUESTION, "Who says so?"], keep=1.0, max_tokens=6)
        assert context.ask(QUESTION, keep=1.0, max_tokens=6).text == answers[0].text
    made = tokenizer()
    ids = context_ids(made, TEXT) + question_ids(made, QUESTION)
    with extend(network("llama", 1024), "dense"), torch.no_grad():
        out = (
            network("llama", 1024)
            .eval()
            .generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=1)
        )
    expected = made.decode(out[0, len(ids) :], skip_special_tokens=True)
    assert answers[0].text.strip() == expected.strip()


@pytest.mark.parametrize(
    ("method", "dropped"),
    [
        ("infllm:local=128,init=8,block=16,top_k=4,representatives=2,exec_block=32", False),
        ("lm-infinite:local=128,sinks=8", True),
    ],
)
def test_a_text_past_the_window_is_kept_by_methods_that_read_any_length(
    method: str, dropped: bool, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 12, encoding="utf-8")
    info = save_context(path, tmp_path / "out", model=str(model), method=method)
    assert info.tokens > 1500
    with open_context(tmp_path / "out", verify=True) as context:
        answers = context.ask_many([QUESTION, "Who says so, and when?"], max_tokens=6)
        again = context.ask(QUESTION, max_tokens=6)
    made = tokenizer()
    made.pad_token_id = made.eos_token_id
    with extend(network("llama", 1024), method, tokenizer=made) as extension:
        stream = extension.stream().feed(context_ids(made, TEXT * 12)).fix()
        wanted = stream.ask(question_ids(made, QUESTION), max_new_tokens=6, do_sample=False)
    assert answers[0].text.strip() == again.text.strip() == wanted.strip()
    usage = again.usage
    assert usage.read_tokens == usage.input_tokens - info.tokens < 200
    assert (usage.dropped_tokens > 1200) is dropped
    assert dropped or usage.dropped_tokens == 0


def test_the_model_is_given_back(saved: Path) -> None:
    with open_context(saved) as context:
        network = context.extension.model
        assert "generate" in vars(network)
    assert "generate" not in vars(network)


def test_another_model_is_refused(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = network("llama", 1024)
    with torch.no_grad():
        other.lm_head.weight += 0.01
    other.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    code, _, err = run(capfd, "ask", "--context", saved, QUESTION, "--model", tmp_path)
    assert code == 2
    assert "the weights of" in err
    assert "not the same" in err


def test_another_tokenizer_is_refused(saved: Path, tmp_path: Path, model: Path) -> None:
    network("llama", 1024).save_pretrained(tmp_path)
    made = tokenizer()
    before = made.chat_template
    try:
        made.chat_template = f"{before} "
        made.save_pretrained(tmp_path)
    finally:
        made.chat_template = before
    with pytest.raises(InputError, match="the tokenizer of"):
        open_context(saved, model=str(tmp_path))


def test_damage_is_found(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = copy / "stream.safetensors"
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    code, said, _ = run(capfd, "context", "info", copy, "--verify")
    assert code == 1
    assert "DAMAGED" in said
    tensors.write_bytes(data[:1000])
    code, _, err = run(capfd, "ask", "--context", copy, QUESTION)
    assert code == 2
    assert "cut short" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "--context", "SAVED"], "got 0"),
        (["ask", "--context", "SAVED", "lake.txt", "What?"], "got 2"),
        (["ask", "--context", "SAVED", "What?", "--keep", "0"], "(0, 1]"),
        (["ask", "--context", "SAVED", "What?", "--max-tokens", "0"], "max_tokens must be >= 1"),
        (["ask", "--context", "SAVED", "What?", "--max-tokens", "2000"], "Ask for fewer tokens"),
        (["ask", "--context", "SAVED", "What?", "--method", "xl3m"], "--method says how"),
        (["ask", "--context", "SAVED", "What?", "--top-k", "3"], "--top-k says how"),
        (["ask", "--context", "nowhere", "What?"], "no saved context at nowhere"),
        (["ask", "--context", "SAVED", "  "], "question is empty"),
        (["ask", "lake.txt", "What?", "--keep", "0.5"], "--keep goes with --context"),
        (["context", "info", "nowhere"], "no saved stream"),
        (["context", "save", "TEXT", "--out", "TEXT"], "no saved context"),
    ],
)
def test_wrong_use(
    words: list[str], said: str, saved: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    named: dict[str, Any] = {"SAVED": saved, "TEXT": text}
    code, _, err = run(capfd, *(named.get(word, word) for word in words))
    assert code == 2
    assert said in err


def test_a_text_past_the_window_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 30, encoding="utf-8")
    with pytest.raises(OverflowPolicyError, match="takes 1,024 with question and answer"):
        save_context(path, tmp_path / "out", model=str(model))
    assert not (tmp_path / "out").exists()
