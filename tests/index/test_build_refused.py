"""What a build refuses, with a message that says what to do, and what it leaves behind."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.index.small import files_of, make_corpus
from unspool.errors import (
    BudgetError,
    BuildConflict,
    ConfigError,
    DuplicateDocument,
    EncodingError,
    IndexCorrupt,
    IndexLocked,
    InputError,
    StorageError,
    WorkerLost,
)
from unspool.index import builder, folder
from unspool.index.build import build_index
from unspool.index.open import open_index
from unspool.types import Document

SMALL = {"piece_size": 1500, "shard_size": 5000}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    make_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def interrupted(corpus: Path, out: Path, **options) -> None:
    """Begin a build and stop it while it reads."""

    def stop(stage, done, total):
        if stage == "reading" and done > 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(corpus, out, progress=stop, **{**SMALL, **options})


def test_a_setting_that_differs_is_named_with_both_values(corpus, tmp_path):
    interrupted(corpus, tmp_path / "ix")
    with pytest.raises(BuildConflict) as caught:
        build_index(corpus, tmp_path / "ix", sa_sample=16, normalise="lower", **SMALL)
    message = str(caught.value)
    assert "--sa-sample was 32 and is now 16" in message
    assert "--normalise was not given and is now lower" in message
    assert "--isa-sample" not in message
    build_index(corpus, tmp_path / "ix", **SMALL)


def test_files_that_changed_came_or_went_are_named(corpus, tmp_path):
    interrupted(corpus, tmp_path / "ix")
    (corpus / "part0" / "000.txt").unlink()
    (corpus / "new.txt").write_text("new")
    (corpus / "part1" / "001.txt").write_text("other words, another length")
    with pytest.raises(BuildConflict) as caught:
        build_index(corpus, tmp_path / "ix", **SMALL)
    message = str(caught.value)
    assert "missing: part0/000.txt" in message
    assert "new: new.txt" in message
    assert "changed: part1/001.txt" in message


def test_changed_content_of_the_same_size_and_time_is_a_conflict(corpus, tmp_path):
    build_index(corpus, tmp_path / "ix")
    path = corpus / "part2" / "002.txt"
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if data else b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BuildConflict, match=r"changed: part2/002\.txt"):
        build_index(corpus, tmp_path / "ix")


def test_other_documents_from_a_program_are_a_conflict(corpus, tmp_path):
    documents = [("a", "one"), ("b", "two")]
    build_index(documents=documents, out=tmp_path / "ix")
    before = files_of(tmp_path / "ix")
    with pytest.raises(BuildConflict, match="not those"):
        build_index(documents=[("a", "one"), ("b", "TWO")], out=tmp_path / "ix")
    with pytest.raises(BuildConflict, match="documents from a program"):
        build_index(corpus, tmp_path / "ix")
    assert open_index(tmp_path / "ix").count("two") == 1
    assert files_of(tmp_path / "ix") == before


def test_a_second_builder_is_refused(corpus, tmp_path, monkeypatch):
    interrupted(corpus, tmp_path / "ix")
    held = os.open(tmp_path / "ix" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(IndexLocked, match="Another process is building"):
        build_index(corpus, tmp_path / "ix", **SMALL)
    os.close(held)
    build_index(corpus, tmp_path / "ix", **SMALL)
    assert not (tmp_path / "ix" / ".lock").exists()


def test_a_directory_with_other_files_is_refused(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds other files \(thesis\.tex\)"):
        build_index(corpus, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        build_index(corpus, tmp_path / "file")


def test_the_index_may_lie_inside_the_folder_it_is_built_from(corpus):
    build_index(corpus, corpus / "ix")
    assert build_index(corpus, corpus / "ix").documents == 42


def test_memory_that_cannot_do_names_one_that_would(corpus, tmp_path):
    with pytest.raises(BudgetError, match="256MiB"):
        build_index(corpus, tmp_path / "ix", memory="255MiB")
    with pytest.raises(BudgetError, match="--workers"):
        build_index(corpus, tmp_path / "ix", memory="256MiB", workers=16)
    with pytest.raises(BudgetError, match=r"--memory \d+MiB") as caught:
        build_index(documents=[("big", b"x" * (60 << 20))], out=tmp_path / "ix", memory="256MiB")
    needed = int(str(caught.value).split("--memory ")[1].split("MiB")[0])
    assert 256 < needed < 1000
    assert not (tmp_path / "ix" / "index.json").exists()


def test_input_that_cannot_be_read_leaves_no_trace(corpus, tmp_path):
    (corpus / "zz.txt").write_bytes(b"fine until \xff here")
    with pytest.raises(EncodingError, match=r"zz\.txt.*byte 11"):
        build_index(corpus, tmp_path / "ix", **SMALL)
    assert not (tmp_path / "ix").exists()
    report = build_index(corpus, tmp_path / "ix", encoding_errors="replace", **SMALL)
    assert report.notes == ("1 sequences that were not UTF-8 and became U+FFFD",)
    again = build_index(corpus, tmp_path / "ix", encoding_errors="replace", **SMALL)
    assert again.notes == report.notes


def test_two_documents_of_one_id_are_named_with_their_places(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / "corpus" / name
        folder.mkdir(parents=True)
        (folder / "r.jsonl").write_text(
            f'{{"id": "{name}1", "text": "t"}}\n{{"id": "same", "text": "t"}}'
        )
    with pytest.raises(DuplicateDocument) as caught:
        build_index(tmp_path / "corpus", tmp_path / "ix")
    assert "a/r.jsonl" in str(caught.value)
    assert "b/r.jsonl" in str(caught.value)


def test_two_documents_of_one_id_in_different_tasks(tmp_path, monkeypatch):
    from unspool.index import source

    monkeypatch.setattr(source, "TASK_SIZE", 1)
    for name in ("a", "b"):
        folder = tmp_path / "corpus" / name
        folder.mkdir(parents=True)
        lines = [json.dumps({"id": f"{name}{i}", "text": "t"}) for i in range(5)]
        lines.append('{"id": "same", "text": "t"}')
        (folder / "r.jsonl").write_text("\n".join(lines))
    with pytest.raises(DuplicateDocument) as caught:
        build_index(tmp_path / "corpus", tmp_path / "ix")
    assert "a/r.jsonl (record 6 of it)" in str(caught.value)
    assert "b/r.jsonl (record 6 of it)" in str(caught.value)
    assert not (tmp_path / "ix").exists()


def test_nothing_to_index(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        build_index(tmp_path / "empty", tmp_path / "ix")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match="no document"):
        build_index(tmp_path / "none.jsonl", tmp_path / "ix")
    with pytest.raises(InputError, match="no document"):
        build_index(documents=[], out=tmp_path / "ix")
    assert not (tmp_path / "ix").exists()


def test_documents_of_a_wrong_kind(tmp_path):
    for documents, what in (
        ([1], "tuples"),
        ([("a", 3)], "str or bytes"),
        ([(3, "a")], "must be a str"),
        ([("a", "\ud800")], "surrogate"),
        ([("a", "x", {"k": {1, 2}})], "JSON"),
    ):
        with pytest.raises((ConfigError, InputError), match=what):
            build_index(documents=documents, out=tmp_path / "ix")


def test_document_objects_and_metadata_survive(tmp_path):
    documents = [Document("a", "text", {"title": "T", "n": [1, {"x": None}]}), ("b", b"", {"k": 1})]
    build_index(documents=documents, out=tmp_path / "ix")
    ix = open_index(tmp_path / "ix")
    assert ix.document("a") == documents[0]
    assert ix.document("b").meta == {"k": 1}


def test_a_full_disk_is_said_before_it_is_full(corpus, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="are free"):
        build_index(corpus, tmp_path / "ix")
    assert not (tmp_path / "ix").exists()


LIMITED = """
    import json, resource, sys
    from unspool.index.build import build_index
    from unspool.errors import StorageError
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        build_index(sys.argv[1], sys.argv[2], **json.loads(sys.argv[4]))
    except StorageError as error:
        print(error)
    else:
        print("built")
"""


@pytest.mark.parametrize("limit", [0, 900, 1400, 6000])
def test_a_disk_that_fills_up_loses_nothing(corpus, tmp_path, limit):
    build_index(corpus, tmp_path / "whole", **SMALL)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(LIMITED),
            str(corpus),
            str(tmp_path / "ix"),
            str(limit),
            json.dumps(SMALL),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Cannot write in" in done.stdout
    assert "run the same command again" in done.stdout
    assert not (tmp_path / "ix" / "index.json").exists()
    build_index(corpus, tmp_path / "ix", **SMALL)
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up root's rights in a child")
def test_a_read_only_directory(corpus, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o055)
    # Imported first: the interpreter itself may lie where only root can read.
    limited = textwrap.dedent(LIMITED)
    script = limited.replace("limit =", "import os; os.setuid(65534)\nlimit =")
    for out in ("locked", "locked/new"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                str(corpus),
                str(tmp_path / out),
                str(1 << 40),
                "{}",
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert "may not write there" in done.stdout, done.stderr[-2000:]


def test_a_worker_that_dies_is_reported_with_the_way_out(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "IN_PROCESS", 0)
    before = children()

    def kill(stage, done, total):
        if stage == "indexing":
            for pid in children() - before:
                os.kill(pid, 9)

    with pytest.raises(WorkerLost, match=r"SIGKILL.*--workers 1"):
        build_index(corpus, tmp_path / "ix", workers=2, progress=kill, **SMALL)
    build_index(corpus, tmp_path / "ix", workers=2, **SMALL)
    build_index(corpus, tmp_path / "whole", **SMALL)
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")
    assert children() <= before


def test_an_error_in_a_worker_keeps_its_class(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "IN_PROCESS", 0)
    before = children()
    (corpus / "zz.txt").write_bytes(b"fine until \xff here")
    with pytest.raises(EncodingError, match="byte 11"):
        build_index(corpus, tmp_path / "ix", workers=2)
    assert children() <= before


def children() -> set[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found}


def test_damaged_plans_and_spools(corpus, tmp_path):
    interrupted(corpus, tmp_path / "ix")
    build_index(corpus, tmp_path / "whole", **SMALL)
    piece = min((tmp_path / "ix" / "spool").glob("*.bin"))
    piece.write_bytes(piece.read_bytes()[:-3] + b"zzz")
    record = max((tmp_path / "ix" / "spool").glob("*.rec"))
    record.write_bytes(b"nonsense")
    build_index(corpus, tmp_path / "ix", **SMALL)
    assert files_of(tmp_path / "ix") == files_of(tmp_path / "whole")
    interrupted(corpus, tmp_path / "again")
    plan = tmp_path / "again" / "plan.json"
    plan.write_bytes(plan.read_bytes().replace(b'"fm"', b'"sa"'))
    with pytest.raises(IndexCorrupt, match=r"plan\.json"):
        build_index(corpus, tmp_path / "again", **SMALL)


def test_a_finished_index_that_lost_a_shard(corpus, tmp_path):
    build_index(corpus, tmp_path / "ix", **SMALL)
    (tmp_path / "ix" / "shard-00001.fm").unlink()
    with pytest.raises(IndexCorrupt, match=r"shard-00001\.fm is missing"):
        build_index(corpus, tmp_path / "ix", **SMALL)
    with pytest.raises(IndexCorrupt, match=r"shard-00001\.fm is missing"):
        open_index(tmp_path / "ix")


def test_a_document_above_the_limit(corpus, tmp_path):
    with pytest.raises(InputError, match="more than the 10 "):
        build_index(documents=[("a", "x" * 11)], out=tmp_path / "ix", max_document=10)
    with pytest.raises(InputError, match=r"max_document"):
        build_index(corpus, tmp_path / "ix", max_document=100)
    assert not (tmp_path / "ix").exists()
