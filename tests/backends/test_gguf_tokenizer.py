"""A tokenizer from scores, against joining the best pair again and again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

gguf: Any = pytest.importorskip("gguf")
pytest.importorskip("transformers")

from unspool.backends.gguf_tokenizer import merges_of, scored_tokenizer  # noqa: E402

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
USER = ["\n", "\n\n", "  ", "   "]
LEARNED = ["▁t", "he", "▁the", "in", "▁▁x", "an", "▁an", "▁x", "th"]
LETTERS = [*"▁thexina\n"]
TEXTS = ["the inn", "  the x", "   an\n\n\nthe", "x", "a  n    t", "zebra the"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    letters = [x for x in LETTERS if x not in USER]
    groups = ((SPECIAL, 3), (USER, 4), (bytes_, 6), (LEARNED, 1), (letters, 1))
    pieces = [piece for group, _ in groups for piece in group]
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    first = pieces.index(LEARNED[0])
    writer.add_token_scores([-1000.0 if at < first else -float(at) for at in range(len(pieces))])
    writer.add_token_types([kind for group, kind in groups for _ in group])
    for name, number in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def joined(text: str) -> list[str]:
    """The pieces of a text: the pair that makes the best piece is joined first, from the left."""
    rank = {p.replace(" ", "▁"): at for at, p in enumerate((*USER, *LEARNED))}
    known = {*LETTERS, *rank}
    found = ["▁" if c == " " else c for c in text]
    while True:
        pairs = [(rank.get(a + b), at) for at, (a, b) in enumerate(pairwise(found))]
        best = min(((r, at) for r, at in pairs if r is not None), default=None)
        if best is None:
            break
        at = best[1]
        found[at : at + 2] = [found[at] + found[at + 1]]
    return [
        part
        for piece in found
        for part in ([piece] if piece in known else [f"<0x{b:02X}>" for b in piece.encode()])
    ]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("saved", [False, True])
def test_pieces_are_those_of_joining_the_best_pair(
    file: Path, tmp_path: Path, text: str, saved: bool
) -> None:
    import transformers

    tokenizer = scored_tokenizer(file)
    assert tokenizer is not None
    if saved:  # what transformers 5.17 lost
        tokenizer.save_pretrained(tmp_path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(text).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *joined(text)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_are_one_token_each(file: Path) -> None:
    tokenizer = scored_tokenizer(file)
    assert tokenizer is not None
    assert tokenizer("<eos>the").input_ids[:2] == [2, 1]
    assert tokenizer.pad_token_id == 0
    assert tokenizer.unk_token_id == 3


def test_a_file_that_lists_merges_is_left_to_transformers(tmp_path: Path) -> None:
    path = tmp_path / "merges.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert scored_tokenizer(path) is None


def test_merges_are_every_split_of_a_piece_the_best_first() -> None:
    pieces = ["a", "b", "ab", "abb", "bb", "é"]
    assert merges_of(pieces, [0.0, 0.0, -3.0, -1.0, -2.0, 0.0]) == [
        ("a", "bb"), ("ab", "b"), ("b", "b"), ("a", "b"),
    ]  # fmt: skip
