"""infini-gram's directories and its engine's interface, beside the package itself where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.index.test_search import TEXTS, byte_level
from unspool.errors import IndexCorrupt, IndexIncomplete, Unsupported
from unspool.index.build import build_index
from unspool.index.compat import InfiniGramEngine
from unspool.index.open import open_index
from unspool.index.v4 import open_v4
from unspool.index.v4_write import write_v4

RNG = random.Random(7)
DOCUMENTS = [
    (f"d{i}", "".join(RNG.choices("abcde é", k=RNG.randrange(50))), {"n": i}) for i in range(60)
]

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("infini_gram") is None,
    reason="the infini-gram package is not installed",
)


@pytest.fixture(scope="module", params=["bytes", "tokens"])
def pair(request, tmp_path_factory) -> tuple[Path, Path, str]:
    """An index and the same as a v4 directory, under names that the released engine trips over."""
    root = tmp_path_factory.mktemp("v4")
    alphabet, kind = "bytes", "u8"
    documents = DOCUMENTS
    if request.param == "tokens":
        alphabet, kind = f"tokenizer:{byte_level(root)}", "u16"
        documents = [(f"t{i}", text, {}) for i, text in enumerate(TEXTS * 15)]
    build_index(
        documents=documents,
        out=root / "ours",
        tier="sa",
        alphabet=alphabet,
        piece_size=200,
        shard_size=800,
    )
    write_v4(open_index(root / "ours"), root / "my tables and offsets")
    return root / "ours", root / "my tables and offsets", kind


def test_a_v4_directory_answers_as_the_index_it_was_written_from(pair):
    ours, theirs = open_index(pair[0]), open_index(pair[1])
    assert theirs.verify().ok
    assert (len(ours), ours.info().symbols) == (len(theirs), theirs.info().symbols)
    for number in range(len(ours)):
        assert theirs.extract(number) == ours.extract(number)
        assert theirs.describe(number)[0] == ours.describe(number)[0] + ":0"
    for text in ("a", "ab", "é", "the", "the cat", "zz", " c"):
        query = ours.encode(text)
        assert theirs.count(query) == ours.count(query)
        assert theirs.next(query) == ours.next(query)
        assert theirs.infgram(query) == ours.infgram(query)
        places = [
            [(h.number, h.span.start) for h in ix.find(query, limit=None, order="position")]
            for ix in (ours, theirs)
        ]
        assert places[0] == places[1]
    document = theirs.document(theirs.describe(3)[0])
    assert document.text == ours.document(3).text


def test_damaged_v4_directories(pair, tmp_path):
    for missing in ("table.0", "offset.1"):
        folder = tmp_path / missing
        shutil.copytree(pair[1], folder)
        (folder / missing).unlink()
        with pytest.raises(IndexIncomplete, match=missing):
            open_index(folder)
    for damaged in ("table.0", "metaoff.0"):
        folder = tmp_path / ("cut" + damaged)
        shutil.copytree(pair[1], folder)
        data = (folder / damaged).read_bytes()
        (folder / damaged).write_bytes(data[:-1])
        with pytest.raises(IndexCorrupt, match=damaged):
            open_index(folder)
    folder = tmp_path / "wild"
    shutil.copytree(pair[1], folder)
    for name in ("table.0", "metaoff.0", "offset.0"):
        (folder / name).write_bytes(b"\xfe" * (folder / name).stat().st_size)
    ix = open_index(folder)
    for ask in (lambda: ix.count("a"), lambda: ix.describe(0), lambda: ix.extract(0)):
        with pytest.raises(IndexCorrupt):
            ask()
    with pytest.raises(IndexIncomplete):
        open_v4(tmp_path)


def test_the_separator_cannot_be_written(tmp_path):
    build_index(documents=[("a", b"x\xffy")], out=tmp_path / "ix")
    with pytest.raises(Unsupported, match="255"):
        write_v4(open_index(tmp_path / "ix"), tmp_path / "v4")


def engines(pair):
    eos = 0
    released = None
    size = 250 if pair[2] == "u8" else 65535
    if importlib.util.find_spec("infini_gram") is not None:
        from infini_gram.engine import InfiniGramEngine as Released

        plain = pair[1].with_name("v4x")
        if not plain.exists():
            shutil.copytree(pair[1], plain)
        released = Released(str(plain), eos, vocab_size=size, token_dtype=pair[2], max_support=2000)
    return (
        released,
        InfiniGramEngine(str(pair[1]), eos, vocab_size=size, token_dtype=pair[2]),
        InfiniGramEngine(str(pair[0]), eos, vocab_size=size, token_dtype=pair[2]),
    )


def test_the_shim_gives_the_same_over_both_kinds_of_index(pair):
    _, theirs, ours = engines(pair)
    prompts = [open_index(pair[0]).encode(t).tolist() for t in ("a", "ab", "the cat", "")]
    for prompt in prompts:
        assert theirs.count(prompt) == ours.count(prompt)
        assert theirs.ntd(prompt) == ours.ntd(prompt)
        assert theirs.creativity(prompt) == ours.creativity(prompt)
        distribution = ours.ntd(prompt)
        total = sum(r["cont_cnt"] for r in distribution["result_by_token_id"].values())
        assert total == distribution["prompt_cnt"]
        for token, result in distribution["result_by_token_id"].items():
            assert ours.prob(prompt, token)["cont_cnt"] == result["cont_cnt"]
        if prompt:
            found = ours.search_docs(prompt, maxnum=1000, max_disp_len=20)
            assert len(found["documents"]) == found["cnt"]
            assert all(len(d["token_ids"]) <= 20 for d in found["documents"])
            for d in found["documents"]:
                at = d["needle_offset"]
                assert d["token_ids"][at : at + len(prompt)] == prompt[: len(d["token_ids"]) - at]
    assert ours.prob([1, 1, 1, 1], 2)["prob"] == -1.0
    assert "error" in ours.count([-1])
    assert "error" in ours.get_doc_by_rank(99, 0)
    assert "error" in ours.find_cnf([])
    with pytest.raises(Unsupported, match="version 5"):
        InfiniGramEngine(str(pair[0]), 0, version=5)
    cnf = [[prompts[0]], [prompts[1]]]
    assert ours.count_cnf(cnf)["count"] == theirs.find_cnf(cnf)["cnt"]
    shown = ours.search_docs_cnf(cnf, maxnum=5)
    assert len(shown["documents"]) == min(5, shown["cnt"])


@needs_package
def test_the_shim_answers_as_the_released_engine(pair):
    released, ours, _ = engines(pair)
    index = open_index(pair[0])
    rng = random.Random(1)
    prompts = [index.encode(t).tolist() for t in ("a", "ab", "the cat", "é", "zz", "bc ")]
    prompts += [
        index.symbols(d)[s : s + 3].tolist()
        for d in range(0, len(index), 5)
        for s in [rng.randrange(5)]
    ]
    kind = {"u8": "<u1", "u16": "<u2"}[pair[2]]
    ends = [np.fromfile(path, kind)[-9:].tolist() for path in pair[1].glob("tokenized.*")]
    for prompt in prompts:
        for call in ("find", "count", "ntd", "infgram_ntd", "creativity"):
            theirs, mine = getattr(released, call)(prompt), getattr(ours, call)(prompt)
            used = prompt[len(prompt) - mine.get("suffix_len", len(prompt)) :]
            if "ntd" in call and any(end[len(end) - len(used) :] == used for end in ends):
                continue  # it takes the end of the data and a separator for equal ends of a range
            if call == "find":  # where nothing is found, the empty ranges lie elsewhere
                for result in (theirs, mine):
                    result["segment_by_shard"] = [
                        (lo, hi) if hi > lo else (0, 0) for lo, hi in result["segment_by_shard"]
                    ]
            assert mine == theirs, (call, prompt)
        for token in (prompt[-1:] or [3])[0], 98, 5:
            assert ours.prob(prompt, token) == released.prob(prompt, token)
            assert ours.infgram_prob(prompt, token) == released.infgram_prob(prompt, token)
    for shard, (low, high) in enumerate(released.find(prompts[0])["segment_by_shard"]):
        for rank in range(low, high, 7):
            for size in (1, 4, 9, 1000):
                assert ours.get_doc_by_rank(shard, rank, size) == released.get_doc_by_rank(
                    shard, rank, size
                )
            assert ours.get_doc_by_rank_2(shard, rank, 2, 5) == released.get_doc_by_rank_2(
                shard, rank, 2, 5
            )
    for number in range(0, len(index), 9):
        for size in (1, 7, 1000):
            assert ours.get_doc_by_ix(number, size) == released.get_doc_by_ix(number, size)
            assert ours.get_doc_by_ix_2(number, size) == released.get_doc_by_ix_2(number, size)
    assert ours.get_total_doc_cnt() == released.get_total_doc_cnt()
    assert ours.compute_unigram_counts(1) == {
        token: count
        for token, count in dict(enumerated(released.compute_unigram_counts(1))).items()
        if count
    }
    for trial in range(60):
        clauses = [
            [
                rng.choice(prompts)[: rng.choice([1, 1, 2])] or prompts[0]
                for _ in range(rng.choice([1, 2]))
            ]
            for _ in range(rng.choice([1, 2, 2, 3, 4]))
        ]
        theirs = released.find_cnf(clauses, max_diff_tokens=1 + trial % 12)
        mine = ours.find_cnf(clauses, max_diff_tokens=1 + trial % 12)
        assert mine == theirs, clauses
        assert ours.count_cnf(clauses)["count"] == released.count_cnf(clauses)["count"]
    for text in prompts[-6:]:
        ids = (text * 3)[:9]
        theirs = released.attribute(ids, [], 1, 10**6, False)["spans"]
        mine = ours.attribute(ids, [], 1, 10**6, False)["spans"]
        for spans in (theirs, mine):
            for span in spans:
                span["docs"] = sorted((d["s"], d["ptr"]) for d in span["docs"])
                del span["unigram_logprob_sum"]  # without precomputed ones it says -10000 a token
        assert mine == theirs


def enumerated(counts):
    return counts.items() if isinstance(counts, dict) else enumerate(counts)


@pytest.mark.slow
@needs_package
def test_a_directory_that_infini_gram_wrote_opens_here(tmp_path):
    from infini_gram import indexing

    rng = random.Random(3)
    words = ["".join(rng.choices("abcdefghij", k=rng.randrange(1, 9))) for _ in range(4000)]
    texts = [" ".join(rng.choices(words, k=rng.randrange(2000, 6000))) for _ in range(600)]
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data" / "all.jsonl", "w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"text": text, "number": number}) + "\n")
    command = [sys.executable, "-m", "infini_gram.indexing"]
    command += ["--data_dir", str(tmp_path / "data"), "--save_dir", str(tmp_path / "v4")]
    command += ["--token_dtype", "u8", "--cpus", "1", "--mem", "4", "--add_metadata"]
    (Path(indexing.__file__).parent / "rust_indexing").chmod(0o755)
    paths = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [*command, "--ulimit", "1024"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(map(len, texts)) > 10 << 20
    build_index(documents=[(str(n), t) for n, t in enumerate(texts)], out=tmp_path / "ours")
    theirs, ours = open_index(tmp_path / "v4"), open_index(tmp_path / "ours")
    for _ in range(300):
        text = rng.choice(texts)
        at, size = rng.randrange(len(text)), rng.choice([1, 3, 8, 20, 60])
        query = text[at : at + size]
        assert theirs.count(query) == ours.count(query) > 0
        assert theirs.next(query) == ours.next(query)
        assert theirs.infgram("zz" + query) == ours.infgram("zz" + query)
    document = theirs.document("all.jsonl:17")
    assert (document.text, document.meta) == (texts[17], {"number": 17})
