"""Sentences and windows: rules by example, and the partition for any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.corpus.split import sentences, windows
from unspool.errors import ConfigError
from unspool.types import Document

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
# Text that is dense in what the rules look at.
DENSE = st.lists(
    st.sampled_from(
        [
            *".!?\n\r\t aBé😀日1-*#|()\"'\u2026\u3002\uff01\u2028\xa0",
            *("\n\n", "\r\n", "```", "Dr", "e.g", "  ", "word ", "Word ", "    ", "1. ", "- "),
        ]
    ),
    max_size=60,
).map("".join)
TEXT = UNICODE | DENSE


def cut(text: str, **options: int) -> list[str]:
    data = text.encode()
    return [data[start:end].decode() for start, end in sentences(text, **options)]


@pytest.mark.parametrize(
    "parts",
    [
        ["One. ", "Two! ", "Three? ", "Four"],
        ["Dr. Smith paid Mr. J. R. Jones 3.14 dollars. ", "He left."],
        ["See Fig. 3, e.g. the left part, i.e. this. ", "Done."],
        ["He said “Go!” ", "Then he went."],
        ["“Why?” she asked. ", "No answer."],
        ["It ends (here). ", "Next."],
        ["Wait... what? ", "Yes."],
        ["Really?! ", "Yes… ", "No"],
        ["Version 2.0.1 is out. ", "It runs."],
        ["これは文です。", "次の文\uff01", "「はい。」", "終わり"],
        ["这是第一句。", "第二句\uff1f", "好"],
        ["यह वाक्य है। ", "दूसरा।"],
        ["A paragraph that has no stop\n\n", "Another one.\n\n\n", "Third"],
        ["Title\n", "Text begins here.\n", "More text."],
        [
            "A wrapped line that goes on past the width and then\nends here. ",
            "Next one\nwraps too.",
        ],
        [
            "Items:\n",
            "- one\n",
            "- two. ",
            "Still two\n",
            "* three\n",
            "1. four. ",
            "Four\n",
            "2) five",
        ],
        ["Text:\n\n", "    code = 1.0\n", "    more()\n\n", "Text."],
        ["```\n", "a = b. ", "C\n", "x\n", "```\n", "after"],
        ["# Heading\n", "Text."],
        ["|a|b|\n", "|c|d|"],
        ["end.\r\n\r\n", "Next\r\n"],
    ],
    ids=lambda parts: parts[0][:20],
)
def test_rules(parts):
    assert cut("".join(parts)) == parts


@given(TEXT, st.integers(4, 40))
def test_sentences_are_a_partition(text, longest):
    data = text.encode()
    found = sentences(text, longest=longest)
    assert [a for a, _ in found] == [0, *(b for _, b in found)][: len(found)]
    assert (found[-1][1] if found else 0) == len(data)
    assert "".join(data[a:b].decode() for a, b in found) == text
    assert all(0 < b - a <= longest for a, b in found)


@given(TEXT, st.integers(4, 60))
def test_windows_without_overlap_give_the_document_back(text, size):
    found = list(windows(Document("d", text), size))
    data = text.encode()
    assert "".join(window.text for window in found) == text
    assert all(w.text.encode() == data[w.start : w.end] and w.document == "d" for w in found)
    assert all(0 < w.end - w.start <= size for w in found)


@given(TEXT, st.integers(4, 60), st.data())
def test_windows_with_overlap(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    found = list(windows(Document("d", text), size, overlap))
    whole = text.encode()
    covered = 0
    for before, window in zip([None, *found], found, strict=False):
        assert window.text.encode() == whole[window.start : window.end]
        assert window.end - window.start <= size
        assert window.start <= covered < window.end
        if before is not None:
            assert before.start < window.start
            assert before.end - window.start <= overlap
        covered = window.end
    assert covered == len(whole)


@given(TEXT, st.integers(1, 8), st.data())
def test_windows_of_words(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    found = list(windows(Document("d", text), size, overlap, "words"))
    # Words that are cut between two pieces count in both, so this is a bound on whole pieces.
    assert all(len(window.text.split()) <= size for window in found)
    if overlap == 0:
        assert "".join(window.text for window in found) == text


@given(TEXT, st.integers(1, 5))
def test_windows_of_sentences(text, size):
    found = list(windows(Document("d", text), size, 0, "sentences"))
    assert "".join(window.text for window in found) == text
    assert len(found) == -(-len(sentences(text, longest=1 << 30)) // size)


def test_windows_are_as_full_as_they_fit():
    text = "Aaaa. Bbbb. Cccc. Dddd. Eeee."
    assert [w.text for w in windows(Document("d", text), 12)] == [
        "Aaaa. Bbbb. ",
        "Cccc. Dddd. ",
        "Eeee.",
    ]
    assert [w.text for w in windows(Document("d", text), 18, 6)] == [
        "Aaaa. Bbbb. Cccc. ",
        "Cccc. Dddd. Eeee.",
    ]


def test_long_sentences_are_divided_at_white_space():
    text = "word " * 1000
    assert all(part.endswith(" ") and len(part) <= 64 for part in cut(text, longest=64))
    assert all(part.strip("é") == "" for part in cut("é" * 1000, longest=64))


def test_a_function_or_a_tokenizer_may_count():
    text = "One two. Three four five. Six."
    letters = list(windows(Document("d", text), 12, 0, lambda texts: [len(t) for t in texts]))
    assert "".join(w.text for w in letters) == text
    assert all(len(w.text) <= 12 for w in letters)

    class Words:
        def encode_batch(self, texts, add_special_tokens):
            assert add_special_tokens is False
            return [type("E", (), {"ids": text.split()})() for text in texts]

    assert [w.text for w in windows(Document("d", text), 3, 0, Words())] == [
        "One two. ",
        "Three four five. ",
        "Six.",
    ]


@pytest.mark.parametrize(
    ("size", "overlap", "unit"),
    [(0, 0, "words"), (3, 0, "bytes"), (8, 8, "bytes"), (8, -1, "bytes"), (8, 0, "lines")],
)
def test_wrong_settings(size, overlap, unit):
    with pytest.raises(ConfigError):
        list(windows(Document("d", "text"), size, overlap, unit))
    with pytest.raises(ConfigError):
        sentences("text", longest=3)


@pytest.mark.parametrize("text", [".", ". ", ".)", "\n", " ", "a", "。", "([", ". \n", "A.\n"])
def test_repetitive_text_takes_linear_time(text):
    begun = time.perf_counter()
    assert "".join(cut(text * 20_000)) == text * 20_000
    assert time.perf_counter() - begun < 5
