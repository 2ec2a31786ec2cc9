"""`unspool generate` with an n-gram model and with drafts, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.backends.tiny import saved
from unspool.cli import main as cli
from unspool.index.build import build_index

TEXT = "The quick brown fox jumps over the lazy dog. To be, or not to be"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and two indexes of a text: of its tokens and of bytes."""
    found = tmp_path_factory.mktemp("generate")
    saved(found / "model")
    (found / "text.txt").write_text(TEXT)
    build_index([found / "text.txt"], found / "tokens", alphabet=f"tokenizer:{found / 'model'}")
    build_index([found / "text.txt"], found / "bytes")
    return found


def run(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    """Exit code, and the JSON object or the message on stderr."""
    asked = ["generate", "The quick brown", "--model", str(folder / "model"), "--json"]
    code = cli.run([*asked, "--max-tokens", "14", *more])
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else err


def test_drafts_write_the_same_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, plain = run(folder, capsys)
    for more in (["text"], [str(folder / "bytes")], ["text", str(folder / "tokens")]):
        options = [part for each in more for part in ("--draft", each)]
        code, found = run(folder, capsys, *options)
        assert code == 0
        assert found["text"] == plain["text"]
        assert found["usage"]["output_tokens"] == plain["usage"]["output_tokens"]
        assert found["report"]["draft"]["written"] == found["usage"]["output_tokens"]
    assert "draft" not in plain["report"]


def test_an_n_gram_model_recites_and_drafts_shorten_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = str(folder / "tokens")
    code, alone = run(folder, capsys, "--ngram", f"{tokens}:1")
    assert code == 0
    assert TEXT.startswith("The quick brown" + alone["text"])
    _, both = run(folder, capsys, "--ngram", f"{tokens}:1", "--draft", tokens)
    assert both["text"] == alone["text"]
    draft = both["report"]["draft"]
    assert draft["passes"] < draft["written"]
    assert draft["passes"] + draft["kept"] == draft["written"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--draft", "nowhere"], "no index at nowhere"),
        (["--draft", "text", "--weights", "int8"], "Leave one of them out"),
        (["--draft", "text", "--method", "streaming-llm:window=16"], "Use method dense"),
        (["--draft", "text", "--method", "xl3m"], "rewrites it"),
        (["--ngram", "BYTES"], "--alphabet tokenizer:MODEL"),
        (["--ngram", "TOKENS:1.5"], "between 0 and 1"),
    ],
)
def test_what_does_not_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    places = {"BYTES": str(folder / "bytes"), "TOKENS": str(folder / "tokens")}
    for name, place in places.items():
        more = [each.replace(name, place) for each in more]
    code, message = run(folder, capsys, *more)
    assert code == 2
    assert said in message
    assert "Traceback" not in message
