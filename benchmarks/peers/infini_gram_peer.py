"""infini-gram, bytes, one shard on all processors (its defaults) or two workers of one each."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import counted, folder_bytes, located, main, timed

WORKERS = int(os.environ.get("INFINI_GRAM_WORKERS", "1"))
CPUS = 2


def build(workload: Path, out: Path) -> dict[str, Any]:
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    source = out / "source"
    source.mkdir(exist_ok=True)
    if not (source / "documents.jsonl").exists():
        (source / "documents.jsonl").symlink_to(workload / "documents.jsonl")
    command = [sys.executable, "-m", "infini_gram.indexing", "--data_dir", str(source)]
    command += ["--save_dir", str(out / "index"), "--temp_dir", str(out / "temp")]
    command += ["--token_dtype", "u8", "--add_metadata", "--mem", "4", "--ulimit", str(open_files)]
    command += ["--cpus", str(CPUS // WORKERS), "--shards", str(WORKERS)]
    command += ["--workers", str(WORKERS)]
    running = [
        subprocess.Popen([*command, "--worker_id", str(i)], stdout=subprocess.DEVNULL)
        for i in range(WORKERS)
    ]
    if any(process.wait() != 0 for process in running):
        raise SystemExit("infini_gram.indexing failed")
    return {"bytes": folder_bytes(out / "index"), "workers": WORKERS, "cpus": CPUS}


def query(asked: dict[str, Any], out: Path, part: str) -> dict[str, Any]:
    from infini_gram.engine import InfiniGramEngine

    engine = InfiniGramEngine(
        index_dir=str(out / "index"), eos_token_id=0, vocab_size=255, token_dtype="u8"
    )
    if part == "counts":
        return counted(lambda q: engine.count(q)["count"], [list(q.encode()) for q in asked[part]])
    prompts = [(list(p.encode()), n) for p, n in asked["prompts"][:300]]
    if part == "prob":
        micros, found = timed(lambda p: engine.infgram_prob(p[0], p[1]), prompts)
        return {"micros": micros, "facts": {"suffix": sum(a["suffix_len"] for a in found)}}
    if part == "next":  # its largest support: exact where the count is at most that
        micros, found = timed(lambda p: engine.infgram_ntd(p[0], max_support=1_000_000), prompts)
        return {"micros": micros, "facts": {"suffix": sum(a["suffix_len"] for a in found)}}
    segments = [engine.find(list(q.encode()))["segment_by_shard"] for q in asked["locate"]]

    def documents(found: list[tuple[int, int]]) -> int:
        wanted = [(s, r) for s, (lo, hi) in enumerate(found) for r in range(lo, hi)][:1000]
        for shard, rank in wanted:  # its call for many ranks fails in this release
            engine.get_doc_by_rank(s=shard, rank=rank, max_disp_len=1)
        return len(wanted)

    return located(documents, segments)


if __name__ == "__main__":
    main(build, query)
