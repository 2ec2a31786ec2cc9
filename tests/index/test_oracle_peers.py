"""Other engines as oracles, on ten megabytes of real text: infini-gram both ways, and sdsl.

They live outside the project: UNSPOOL_PEERS names the python of an environment made from
`benchmarks/peers-requirements.txt`; sdsl is fetched and compiled by `benchmarks/peers/sdsl.py`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sysconfig
from pathlib import Path

import pytest

from unspool.index.build import build_index
from unspool.index.open import open_index

pytestmark = pytest.mark.slow
PEERS = os.environ.get("UNSPOOL_PEERS")
needs_peers = pytest.mark.skipif(
    PEERS is None, reason="UNSPOOL_PEERS names no environment (benchmarks/peers-requirements.txt)"
)
MEGABYTES = 10

# Answers of the released engine, as JSON lines; run by the peers' python.
ASK = """
import json, sys
from infini_gram.engine import InfiniGramEngine
engine = InfiniGramEngine(sys.argv[1], eos_token_id=254, vocab_size=255, token_dtype="u8")
for prompt in json.load(sys.stdin):
    found = engine.infgram_ntd(prompt_ids=prompt, max_support=10**9)
    prob = engine.infgram_prob(prompt_ids=prompt[:-1], cont_id=prompt[-1])
    print(json.dumps({
        "count": engine.count(input_ids=prompt[-6:])["count"],
        "suffix": found["suffix_len"], "prompt_count": found["prompt_cnt"],
        "next": {k: v["cont_cnt"] for k, v in found["result_by_token_id"].items()},
        "prob": [prob["suffix_len"], prob["prompt_cnt"], prob["cont_cnt"]],
    }))
"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Source files of the standard library and of installed packages, until there are enough."""
    found, total = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found.append(text)
        total += len(text.encode())
        if total >= MEGABYTES * 1_000_000:
            break
    return found


def prompts(texts: list[str]) -> list[list[int]]:
    """Pieces of the texts, some with a strange first byte; none ends as the last text ends: there
    the released engine meets the end of the data at one end of its range and a separator at the
    other, takes both for the end of a document, and gives that everything in between."""
    rng = random.Random(9)
    made = []
    for _ in range(300):
        data = rng.choice(texts).encode() or b"x"
        at = rng.randrange(len(data))
        made.append(list(data[at : at + rng.randint(1, 40)]))
        if rng.random() < 0.5:
            made[-1][0] = rng.randrange(32, 127)
    return [prompt for prompt in made if prompt[-1] != texts[-1].encode()[-1]]


def answers_there(directory: Path, asked: list[list[int]]) -> list[dict]:
    done = subprocess.run(
        [str(PEERS), "-c", ASK, str(directory)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def answers_here(directory: Path, asked: list[list[int]]) -> list[dict]:
    made = []
    with open_index(directory) as ix:
        for prompt in asked:
            q = bytes(prompt)
            found = ix.infgram(q)
            prob = ix.infgram(q[:-1], q[-1])
            # The released engine gives the end of a document the id it was told, here 254.
            following = {str(s.symbol if s.symbol >= 0 else 254): s.count for s in found.symbols}
            made.append(
                {
                    "count": ix.count(q[-6:]),
                    "suffix": found.suffix_length,
                    "prompt_count": found.prompt_count,
                    "next": following,
                    "prob": [prob.suffix_length, prob.prompt_count, prob.count],
                }
            )
    return made


@needs_peers
def test_an_index_that_infini_gram_wrote_gives_its_answers_here(texts, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    lines = (json.dumps({"text": text, "n": n}) for n, text in enumerate(texts))
    (source / "documents.jsonl").write_text("\n".join(lines) + "\n")
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command = [str(PEERS), "-m", "infini_gram.indexing", "--data_dir", str(source)]
    command += ["--save_dir", str(tmp_path / "v4"), "--token_dtype", "u8", "--cpus", "1"]
    command += ["--mem", "4", "--add_metadata", "--ulimit", str(open_files)]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(command, check=True, capture_output=True, env=env)
    asked = prompts(texts)
    assert answers_here(tmp_path / "v4", asked) == answers_there(tmp_path / "v4", asked)


@needs_peers
def test_an_index_written_here_gives_its_answers_there(texts, tmp_path):
    from unspool.index.v4_write import write_v4

    documents = [(f"d{n}", text) for n, text in enumerate(texts)]
    build_index(documents=documents, out=tmp_path / "ix", workers=1)
    with open_index(tmp_path / "ix") as ix:
        write_v4(ix, tmp_path / "v4")
    asked = prompts(texts)
    here = answers_here(tmp_path / "ix", asked)
    assert answers_here(tmp_path / "v4", asked) == here
    assert answers_there(tmp_path / "v4", asked) == here


def test_sdsl_counts_the_same(texts, tmp_path):
    from benchmarks.peers import sdsl

    if sdsl.why_not():
        pytest.skip(f"sdsl cannot be built here: {sdsl.why_not()}")
    joined = "\x01".join(t.replace("\x01", " ").replace("\0", " ") for t in texts)
    (tmp_path / "joined").write_text(joined)
    rng = random.Random(3)
    data = joined.encode()
    queries = []
    for _ in range(2000):
        at = rng.randrange(len(data) - 64)
        piece = bytearray(data[at : at + rng.choice([1, 2, 4, 8, 16, 32, 64])])
        if rng.random() < 0.3:
            piece[-1] = rng.randrange(2, 256)
        queries.append(bytes(piece))
    with open(tmp_path / "queries", "wb") as file:
        file.write(struct.pack("<I", len(queries)))
        for query in queries:
            file.write(struct.pack("<I", len(query)) + query)
    sdsl.run("build", "rrr127", tmp_path / "joined", tmp_path / "sdsl")
    there = sdsl.run("query", "rrr127", tmp_path / "sdsl", tmp_path / "queries", "0,0")["counts"]
    build_index(documents=[("all", joined)], out=tmp_path / "ix", workers=1)
    with open_index(tmp_path / "ix") as ix:
        here = ix.count_batch(queries).tolist()
    assert [d for d in zip(queries, here, there, strict=True) if d[1] != d[2]] == []
