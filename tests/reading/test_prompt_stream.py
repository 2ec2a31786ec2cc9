"""Texts that arrive in pieces, for methods that read them for a question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reading.tiny import QUESTION, TEXT, byte_tokenizer, tiny
from unspool.errors import ConfigError, InputError
from unspool.extension import extend

SPECS = ("xl3m:segment=100,overlap=20,keep=2", "infini-retri:chunk=200,top_k=12,max_kept=150")


@pytest.mark.parametrize("spec", SPECS)
def test_pieces_are_answered_as_the_whole(spec: str, tmp_path: Path) -> None:
    place = tmp_path / "rest.txt"
    place.write_bytes(TEXT[400:].encode())
    with extend(tiny(), spec, tokenizer=byte_tokenizer()) as extension:
        want = extension.ask(TEXT, QUESTION, max_new_tokens=4)
        other = extension.ask(TEXT[:400], "Which gate?", max_new_tokens=4)
        stream = extension.stream(QUESTION).feed(TEXT[:150]).feed(iter([TEXT[150:400]]))
        fork = stream.fork()
        found = stream.feed(place).answer(max_new_tokens=4)
        assert stream.generate(max_new_tokens=4) == want.text
        assert stream.select(max_new_tokens=4) == extension.select(TEXT, QUESTION, max_new_tokens=4)
        assert fork.answer("Which gate?", max_new_tokens=4).text == other.text
    assert (found.text, found.evidence) == (want.text, want.evidence)
    assert found.usage.dropped_tokens == want.usage.dropped_tokens > 0


def test_wrong_use_is_told_the_way_out() -> None:
    with extend(tiny(), SPECS[0], tokenizer=byte_tokenizer()) as extension:
        with pytest.raises(ConfigError, match=r"stream\(question"):
            extension.stream()
        with pytest.raises(InputError, match="question is empty"):
            extension.stream(" ")
        with pytest.raises(InputError, match="Nothing was fed"):
            extension.stream(QUESTION).answer()
        with pytest.raises(ConfigError, match="reads sentences of a text"):
            extension.stream(QUESTION).feed(iter([1, 2]))  # type: ignore[arg-type]  # what is tested
    dense = extend(tiny(), "dense", tokenizer=byte_tokenizer())
    with dense, pytest.raises(ConfigError, match=r"then generate\(question\)"):
        dense.stream(QUESTION)
