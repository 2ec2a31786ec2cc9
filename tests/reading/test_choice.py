from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unspool
from tests.reading.tiny import QUESTION, TEXT, byte_tokenizer, tiny
from unspool import catalog
from unspool.backends.scripted import ScriptedModel
from unspool.backends.transformers import TransformersModel
from unspool.errors import ConfigError, InputError
from unspool.reading.ask import ask
from unspool.reading.choice import choose, list_methods, recommend


def local() -> TransformersModel:
    return TransformersModel(tiny(), byte_tokenizer(), name="tiny")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    (folder / "b.txt").write_text("Otters – they swim. " * 20, encoding="utf-8")
    (folder / "empty.txt").write_text("", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "method",
    [
        "xl3m:segment=100,overlap=20,keep=2",
        "infini-retri:chunk=200,top_k=12,max_kept=150",
        "lm-infinite:local=64,sinks=4",
        "xl3m:segment=100,overlap=20,keep=2+lm-infinite:local=64,sinks=4",
    ],
)
def test_every_method_gives_the_same_kind_of_answer(files: Path, method: str) -> None:
    answer = ask(files, QUESTION, model=local(), method=method, max_tokens=5)
    texts = {path.name: path.read_bytes() for path in files.iterdir()}
    for passage in answer.evidence:
        span = passage.span
        assert texts[span.document][span.start : span.end].decode() == span.text
    size = sum(map(len, texts.values()))
    assert size < answer.usage.input_tokens < size + 100
    assert 0 < answer.usage.dropped_tokens < answer.usage.input_tokens
    assert type(tiny().generate).__name__ == "method"
    assert "generate" not in tiny().__dict__  # restored


def test_names_and_settings_that_do_not_exist(files: Path) -> None:
    for method, said in (
        ("xl3n", "Did you mean xl3m"),
        ("xl3m:keeep=2", "no option 'keeep'"),
        ("bm25:keeep=2", "no setting 'keeep'"),
        ("xl3m+bm26", "bm26"),
    ):
        with pytest.raises(ConfigError, match=said):
            ask(files, QUESTION, model=local(), method=method)


def test_settings_of_bm25_are_refused_with_other_methods(files: Path) -> None:
    with pytest.raises(ConfigError, match="top_k=3"):
        ask(files, QUESTION, model=local(), method="xl3m", top_k=3)
    with pytest.raises(ConfigError, match="read_tokens"):
        ask(files, QUESTION, model=local(), method="xl3m", read_tokens="window")


def test_a_model_that_cannot_be_changed_is_refused(files: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be changed"):
        ask(files, QUESTION, model=ScriptedModel(["x"]), method="xl3m")
    with pytest.raises(ConfigError, match="endpoint cannot be changed"):
        ask(files, QUESTION, endpoint="http://127.0.0.1:9/v1", method="xl3m")


def test_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("  \n", encoding="utf-8")
    with pytest.raises(InputError, match="no text"):
        ask(tmp_path / "empty.txt", QUESTION, model=local(), method="xl3m")


# ---- auto


def test_auto_says_what_it_chose(files: Path) -> None:
    said: list[str] = []
    model = ScriptedModel(lambda prompt: "Yes.")
    answer = ask(files, QUESTION, model=model, method="auto", explain=said.append)
    assert answer.text == "Yes."
    assert len(said) == 1
    assert said[0].startswith("Method bm25: ")


def _rows(folder: Path, system: str, answered: float, baseline: float) -> None:
    figures = [
        {"name": "answered at 32k", "met": True, "reached": answered},
        {"name": "answered at 32k from passages of BM25", "met": None, "reached": baseline},
    ]
    row = {"system": system, "claim": system, "figures": figures, "met": True, "date": ""}
    (folder / f"{system}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


def test_auto_follows_the_measured_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "results_folder", lambda: tmp_path)
    model = local()
    assert choose(model, 30_000, 2048, on_gpu=False).method == "bm25"  # nothing is measured
    _rows(tmp_path, "xl3m", 0.9, 0.8)
    assert choose(model, 30_000, 2048, on_gpu=False).method == "xl3m"
    _rows(tmp_path, "infini-retri", 0.95, 0.8)
    found = choose(model, 30_000, 2048, on_gpu=False)
    assert found.method == "infini-retri"
    assert "15%" in found.reason
    assert choose(model, 2000, 2048, on_gpu=False).method == "bm25"  # fits
    assert choose(model, 10**6, 2048, on_gpu=False).method == "bm25"  # too slow
    assert choose(model, 10**6, 2048, on_gpu=True).method == "infini-retri"
    assert choose(ScriptedModel(["x"]), 30_000, 2048, on_gpu=True).method == "bm25"
    assert [c.method for c in recommend(8192, 30_000)][:2] == ["infini-retri", "xl3m"]
    _rows(tmp_path, "xl3m", 0.7, 0.8)
    _rows(tmp_path, "infini-retri", 0.8, 0.8)
    assert choose(model, 30_000, 2048, on_gpu=True).method == "bm25"


# ---- recommend and list_methods


@pytest.mark.parametrize("task", ["stream", "recall", "qa"])
def test_recommendations_are_methods_with_reasons(task: Any) -> None:
    known = {each.name for each in list_methods()}
    for length in (100, 9000, 500_000):
        found = recommend(8192, length, task)
        assert found
        assert all(choice.method in known and choice.reason for choice in found)
    assert recommend(8192, 100, task)[0].method == "dense"
    assert recommend(None, 10**9, task)[0].method == "dense"
    assert recommend(tiny(), 600, task)[0].method != "dense"
    assert recommend(local(), 600, task)[0].method != "dense"


def test_what_cannot_be_recommended() -> None:
    with pytest.raises(ConfigError, match="length"):
        recommend(8192, 0)


def test_without_torch_methods_are_still_named(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
    code = blocked + (
        "from unspool import list_methods\n"
        "from unspool.reading.ask import ask\n"
        "assert 'infllm' in {m.name for m in list_methods()}\n"
        "try:\n    ask('x', 'Why?', method='infllm')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "unspool[read]" in done.stdout, done.stderr


def test_every_method_is_described() -> None:
    for each in unspool.list_methods():
        assert each.kind
        assert each.recalls
        assert each.costs
        assert each.options
    by_name = {each.name: each for each in unspool.list_methods()}
    assert by_name["rope"].exportable
    assert not by_name["infllm"].exportable
    assert by_name["xl3m"].options["segment"] == "512"
