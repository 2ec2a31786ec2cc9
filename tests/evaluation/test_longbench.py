"""LongBench: scores worked out by hand, data, prompts, twins, prediction files."""

# ruff: noqa: RUF001 - Chinese texts

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, MissingData, PathNotFound
from unspool.evaluation.spec import LengthLevel, Parts, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks, task
from unspool.evaluation.tasks import longbench as lb
from unspool.evaluation.tasks.longbench import facts, passages, templates, v2
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric


def words(text: str) -> int:
    return len(text.split())


def prompt_of(sample: Sample) -> str:
    return sample.parts.prefix + sample.parts.context + sample.parts.query


# ------------------------------------------------------------------------------------ facts


def test_there_are_21_data_sets_with_4750_items() -> None:
    assert len(lb.TASKS) == 21
    assert sum(d.items for d in facts.DATASETS.values()) == 4750
    assert len(lb.EVEN_TASKS) == 13
    assert {d.category for d in facts.DATASETS.values()} == set(facts.CATEGORIES)


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (128, "narrativeqa qasper dureader samsum"),
        (64, "multifieldqa_en multifieldqa_zh trec lsht lcc repobench-p"),
        (
            32,
            "hotpotqa 2wikimqa musique triviaqa passage_count passage_retrieval_en "
            "passage_retrieval_zh",
        ),
        (512, "gov_report qmsum multi_news vcsum"),
    ],
)
def test_most_new_tokens(limit: int, names: str) -> None:
    found = {n for n, t in lb.TASKS.items() if t.spec.max_new_tokens == limit}
    assert found == set(names.split())


def test_six_data_sets_are_never_wrapped_and_all_keep_both_ends() -> None:
    never = {n for n, t in lb.TASKS.items() if t.spec.chat == "never"}
    assert never == {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    assert {t.spec.overflow for t in lb.TASKS.values()} == {"ends"}
    assert {t.spec.limit_rule for t in lb.TASKS.values()} == {"thousands"}


@pytest.mark.parametrize(
    "name", ["longbench", "longbench-e", "longbench-retrieved", "longbench-twin", "longbench-v2"]
)
def test_every_task_is_registered(name: str) -> None:
    found = find_tasks(name)
    assert [len(found)] == [
        n
        for key, n in {"": 21, "-e": 13, "-retrieved": 8, "-twin": 4, "-v2": 1}.items()
        if name == f"longbench{key}"
    ]
    for each in found:
        assert task(each.spec.name) is each
        assert each.metric.id == each.spec.metric


def test_a_category_can_be_named() -> None:
    assert [t.spec.name for t in find_tasks("longbench/code")] == [
        "longbench/lcc",
        "longbench/repobench-p",
    ]


# ----------------------------------------------------------------------------------- scores


def test_best_over_references_and_rounding() -> None:
    found = lb.score("hotpotqa", ["cat", "dog", "x"], [["dog", "the cat"], ["cat dog"], []])
    assert found == round(100 * (1 + 2 / 3 + 0) / 3, 2) == 55.56


@pytest.mark.parametrize(
    ("dataset", "prediction", "answer", "wanted"),
    [
        ("triviaqa", "\n\ncat\ndog", "cat", 100.0),
        ("triviaqa", " \ncat", "cat", 0.0),  # the first line is a blank
        ("triviaqa", "cat\rdog", "cat", 66.67),  # a carriage return ends no line
        ("hotpotqa", "cat\ndog", "cat", 66.67),
        ("samsum", "a b\nc d", "a b", 100.0),
        ("gov_report", "a b\nc d", "a b", 66.67),
        ("qmsum", "a b", "a b", 100.0),
        ("qmsum", "", "a b", 0.0),
        ("qmsum", "...", "a b", 0.0),
        ("passage_count", "3 paragraphs of 7", "3", 50.0),
        ("passage_retrieval_en", "Paragraph 3", "Paragraph 3", 100.0),
        ("passage_retrieval_zh", "段落3", "段落3", 100.0),
        ("passage_retrieval_zh", "Paragraph 3", "段落3", 100.0),
        ("lcc", "\n# a comment\nx = 1", "x = 1", 100.0),
        ("lcc", "```\nx = 1", "x = 1", 100.0),
        ("multifieldqa_zh", "中国人民。", "中国人民", 100.0),
        ("dureader", "中国 人民", "中国人民", 100.0),
        ("vcsum", "中国人民", "中国人民", 100.0),
    ],
)
def test_each_kind_of_data_set(dataset: str, prediction: str, answer: str, wanted: float) -> None:
    assert lb.score(dataset, [prediction], [[answer]]) == wanted


def test_few_shot_rule_belongs_to_the_release_not_to_its_scorer_of_retrieved_contexts() -> None:
    assert lb.score("triviaqa", ["cat\ndog"], [["cat"]], first_line=False) == 66.67


def test_labels_are_needed_and_used() -> None:
    assert lb.score("trec", ["Food or Place"], [["Food"]], ["Food", "Place"]) == 50.0
    with pytest.raises(InputError, match="all_classes"):
        lb.score("trec", ["Food"], [["Food"]])


def test_rouge_fails_where_the_release_fails_unless_told_otherwise() -> None:
    text = " ".join(f"w{i}" for i in range(1200))
    assert lb.score("gov_report", [text], [[text]]) == 0.0
    assert lb.score("gov_report", [text], [[text]], recursion_limit=None) == 100.0
    halved = text.replace(" w600 ", " w600. ")
    assert lb.score("gov_report", [halved], [[halved]]) == 100.0


def test_the_way_lines_are_compared_is_stated() -> None:
    near = ("return tide", "return diet")
    one = lb.score("lcc", [near[0]], [[near[1]]])
    other = lb.score("lcc", [near[0]], [[near[1]]], ratio="levenshtein")
    assert one != other
    assert LongBenchMetric(dataset="lcc").id == "longbench.code@1"
    assert LongBenchMetric(dataset="lcc", ratio="levenshtein").id == "longbench.code.levenshtein@1"
    assert LongBenchMetric(dataset="vcsum").packages == ("jieba",)


def test_wrong_input() -> None:
    with pytest.raises(ConfigError, match="no data set 'hotpot'"):
        lb.score("hotpot", ["a"], [["a"]])
    with pytest.raises(InputError, match="2 predictions meet 1 lists"):
        lb.score("hotpotqa", ["a", "b"], [["a"]])
    with pytest.raises(InputError, match="no predictions"):
        lb.score("hotpotqa", [], [])


def test_buckets_of_longbench_e() -> None:
    metric = LongBenchMetric(dataset="hotpotqa", buckets=True)
    rows = [(3999, 1.0), (0, 0.0), (4000, 0.3), (7999, 0.4), (7999, 0.123456)]
    found = metric.aggregate([{"score": s, "length": float(n)} for n, s in rows])
    assert found["0-4k"] == 50.0
    assert found["4-8k"] == round(100 * np.mean([0.3, 0.4, 0.123456]), 2)
    assert "8k+" not in found
    nothing = Sample(id="7", parts=Parts(), references=("a",))
    with pytest.raises(InputError, match="Item 7 has no 'length'"):
        metric.score(nothing, Response(text="a"))


def test_averages_of_the_paper() -> None:
    # GPT-3.5-Turbo-16k, English: the categories of table 2
    printed = {
        "single-doc-qa": 39.8,
        "multi-doc-qa": 38.7,
        "summaries": 26.5,
        "few-shot": 67.1,
        "synthetic": 54.1,
        "code": 37.8,
    }
    scores = {n: printed[d.category] for n, d in facts.DATASETS.items() if d.language != "zh"}
    found = lb.summary(scores)
    assert found.categories["en"] == pytest.approx(printed)
    assert found.languages["en"] == pytest.approx(44.0)
    assert found.languages["zh"] is None
    assert found.categories["zh"] == {"code": pytest.approx(37.8)}
    assert set(found.missing) == {n for n, d in facts.DATASETS.items() if d.language == "zh"}


# --------------------------------------------------------------------------- prediction files


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_the_release_s_own_files(tmp_path: Path) -> None:
    rows = [
        {"pred": "cat", "answers": ["cat"], "all_classes": None, "length": 100},
        {"pred": "dog", "answers": ["cat"], "all_classes": None, "length": 5000},
    ]
    path = write_lines(tmp_path / "hotpotqa.jsonl", rows)
    assert lb.score_file(path) == {"score": 50.0}
    assert lb.score_file(path, e=True) == {"score": 50.0, "0-4k": 100.0, "4-8k": 0.0}
    other = path.rename(tmp_path / "mine.jsonl")
    with pytest.raises(ConfigError, match="'mine'"):
        lb.score_file(other)
    assert lb.score_file(other, "hotpotqa_e") == {"score": 50.0}


@pytest.mark.parametrize(
    ("dataset", "rows", "message"),
    [
        ("hotpotqa", [], "no predictions"),
        ("hotpotqa", [{"answers": ["a"]}], "Line 1 .* no field 'pred'. It has answers"),
        ("hotpotqa", [{"pred": None, "answers": ["a"]}], "'pred' should be str, got NoneType"),
        ("hotpotqa", [{"pred": "a", "answers": "a"}], "'answers' should be list, got str"),
        ("trec", [{"pred": "a", "answers": ["a"], "all_classes": None}], "no 'all_classes'"),
        (
            "trec",
            [
                {"pred": "a", "answers": ["a"], "all_classes": ["a"]},
                {"pred": "a", "answers": ["a"], "all_classes": ["b"]},
            ],
            "Line 2 .* other 'all_classes'",
        ),
    ],
)
def test_bad_prediction_files(
    tmp_path: Path, dataset: str, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        lb.score_file(write_lines(tmp_path / f"{dataset}.jsonl", rows))


def test_broken_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lcc.jsonl"
    path.write_text('{"pred": "a", "answers": ["a"]}\n{"pred": ', "utf-8")
    with pytest.raises(InputError, match=r"Line 2 of lcc\.jsonl is not JSON"):
        lb.score_file(path)
    path.write_text("[1]\n", "utf-8")
    with pytest.raises(InputError, match="not a JSON object"):
        lb.score_file(path)
    with pytest.raises(InputError, match="LongBench-E"):
        lb.score_file(
            write_lines(tmp_path / "qasper.jsonl", [{"pred": "a", "answers": ["a"]}]), e=True
        )


# --------------------------------------------------------------------------- data and prompts

RECORD = {
    "input": "Who {context} asks?",
    "context": "A {input} text with {braces}.",
    "answers": ["me", "I"],
    "length": 12,
    "dataset": "hotpotqa",
    "language": "en",
    "all_classes": None,
    "_id": "abc",
}


def release_places(folder: Path) -> dict[str, Path]:
    line = json.dumps(RECORD) + "\n"
    flat, nested = folder / "flat", folder / "nested" / "data"
    flat.mkdir()
    nested.mkdir(parents=True)
    (flat / "hotpotqa.jsonl").write_text(line, "utf-8")
    (nested / "hotpotqa.jsonl").write_text(line, "utf-8")
    for name, member in (("data.zip", "data/hotpotqa.jsonl"), ("odd.zip", "x/y/hotpotqa.jsonl")):
        with zipfile.ZipFile(folder / name, "w") as packed:
            packed.writestr("data/lcc.jsonl", "{}\n")
            packed.writestr(member, line)
    holder = folder / "holder"
    holder.mkdir()
    (holder / "data.zip").write_bytes((folder / "data.zip").read_bytes())
    return {
        "file": flat / "hotpotqa.jsonl",
        "flat": flat,
        "nested": nested.parent,
        "zip": folder / "data.zip",
        "odd zip": folder / "odd.zip",
        "folder with zip": holder,
    }


@pytest.mark.parametrize("place", ["file", "flat", "nested", "zip", "odd zip", "folder with zip"])
def test_records_are_found_where_people_keep_them(tmp_path: Path, place: str) -> None:
    source = Source(kind="release", path=str(release_places(tmp_path)[place]))
    [sample] = lb.TASKS["hotpotqa"].samples(None, 5, source=source)
    assert sample.id == "abc"
    assert sample.references == ("me", "I")
    assert sample.lengths == {"words": 12}
    assert sample.parts.context == RECORD["context"]
    prompt = prompt_of(sample)
    assert prompt.index("A {input} text") < prompt.index("Question: Who {context} asks?\nAnswer:")
    assert Sample.from_json(sample.to_json()) == sample


def test_parquet_mirrors_call_the_question_question(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {("question" if k == "input" else k): v for k, v in RECORD.items()}
    path = tmp_path / "hotpotqa.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    source = Source(kind="release", path=str(path))
    [sample] = lb.TASKS["hotpotqa"].samples(None, 5, source=source)
    assert "Who {context} asks?" in sample.parts.query


def test_hub_is_asked_for_the_pinned_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[Any] = []

    def download(*args: Any, **options: Any) -> str:
        asked.append((args, options))
        return str(release_places(tmp_path)["zip"])

    monkeypatch.setattr(hub, "hf_hub_download", download)
    source = Source(kind="release", path="hub")
    assert len(list(lb.TASKS["hotpotqa"].samples(None, 5, source=source))) == 1
    [(args, options)] = asked
    assert args == ("THUDM/LongBench", "data.zip")
    assert options == {"repo_type": "dataset", "revision": facts.REVISION}
    assert re.fullmatch("[0-9a-f]{40}", facts.REVISION)


@pytest.mark.parametrize("path", [None, "nowhere", "."])
def test_missing_data_says_where_it_is_and_names_the_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Source(kind="release", path=path) if path else Source()
    with pytest.raises(MissingData) as caught:
        list(lb.TASKS["lcc"].samples(None, 1, source=source))
    for part in ("THUDM/LongBench", "data/lcc.jsonl", facts.REVISION, "longbench-twin/lcc"):
        assert part in str(caught.value)
    with pytest.raises(MissingData, match="no generated twin"):
        list(lb.TASKS["trec"].samples(None, 1))


def test_bad_records_are_named(tmp_path: Path) -> None:
    def load(dataset: str, record: dict[str, Any]) -> None:
        path = write_lines(tmp_path / f"{dataset}.jsonl", [record])
        list(lb.TASKS[dataset].samples(None, 1, source=Source(kind="release", path=str(path))))

    with pytest.raises(InputError, match="neither 'input' nor 'question'"):
        load("hotpotqa", {k: v for k, v in RECORD.items() if k != "input"})
    with pytest.raises(InputError, match="no field 'context'"):
        load("hotpotqa", {k: v for k, v in RECORD.items() if k != "context"})
    with pytest.raises(InputError, match="'all_classes', the labels"):
        load("trec", RECORD)


@pytest.mark.parametrize("name", list(facts.DATASETS))
def test_own_prompts_hold_what_the_release_s_hold(name: str) -> None:
    fields = re.findall(r"\{(\w+)\}", templates.OWN[name])
    has_input = name not in {"gov_report", "multi_news", "vcsum", "passage_count", "lcc"}
    assert fields == (["context", "input"] if has_input else ["context"])
    assert lb.TASKS[name].spec.prompt_source == "own"


def test_reference_prompts_from_a_file_or_a_checkout(tmp_path: Path) -> None:
    held = {"lcc": "Complete {context}", "hotpotqa": "{context} then {input}", "other": "x"}
    file = tmp_path / "config" / "dataset2prompt.json"
    file.parent.mkdir()
    file.write_text(json.dumps(held), "utf-8")
    for place in (file, tmp_path):
        with_theirs = lb.TASKS["lcc"].with_templates(str(place))
        assert with_theirs.template == "Complete {context}"
        assert with_theirs.spec.prompt_source == "reference"
        own = lb.TASKS["lcc"].spec.prompt_fingerprint
        assert with_theirs.spec.prompt_fingerprint not in ("", own)
    with pytest.raises(ConfigError, match="no template for trec"):
        lb.TASKS["trec"].with_templates(str(file))
    file.write_text(json.dumps({"lcc": "{context}{input}"}), "utf-8")
    with pytest.raises(InputError, match="The template of lcc"):
        lb.TASKS["lcc"].with_templates(str(file))
    file.write_text("[]", "utf-8")
    with pytest.raises(InputError, match="map the name"):
        lb.TASKS["lcc"].with_templates(str(file))
    with pytest.raises(PathNotFound, match="dataset2prompt"):
        lb.TASKS["lcc"].with_templates(str(tmp_path / "none"))


def test_reference_prompts_from_the_installed_harness() -> None:
    pytest.importorskip("yaml")
    import importlib.util

    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed")
    found = templates.reference("lm-eval")
    assert set(found) == set(facts.DATASETS)
    assert found["lcc"].endswith("{context}Next line of code:")


# ------------------------------------------------------------------------------------ twins


def solve(name: str, prompt: str) -> str:
    """Answer a twin from its prompt alone, by program."""
    numbered = {
        int(number): text
        for number, text in re.findall(r"^Paragraph (\d+): (.*)$", prompt, flags=re.M)
    }
    if name == "passage_count":
        return str(len(set(numbered.values())))
    abstract = prompt.split("The abstract:\n\n")[1].split("\n\nWhich paragraph")[0]
    sentences = re.split(r"(?<=[.!?])\s+", abstract)
    [right] = [n for n, text in numbered.items() if all(s in text for s in sentences)]
    return f"Paragraph {right}"


@pytest.mark.parametrize("name", ["passage_count", "passage_retrieval"])
@pytest.mark.parametrize("length", [500, 2000])
def test_a_program_solves_every_twin_of_paragraphs(name: str, length: int) -> None:
    level = LengthLevel("words", length)
    for sample in lb.TWIN_TASKS[name].samples(level, 10, seed=3, size=words):
        assert solve(name, prompt_of(sample)) == sample.references[0]
        metric = lb.TWIN_TASKS[name].metric
        assert metric.score(sample, Response(text=sample.references[0])) == {"score": 1.0}


@pytest.mark.parametrize("name", list(lb.TWIN_TASKS))
def test_twins_fit_their_level_nearly_fill_it_and_repeat(name: str) -> None:
    level = LengthLevel("words", 600)
    made = list(lb.TWIN_TASKS[name].samples(level, 5, seed=1, size=words))
    sizes = [words(prompt_of(sample)) for sample in made]
    assert all(size <= 600 for size in sizes), sizes
    assert all(size > 400 for size in sizes), sizes
    assert list(lb.TWIN_TASKS[name].samples(level, 2, seed=1, size=words)) == made[:2]
    other = next(iter(lb.TWIN_TASKS[name].samples(level, 1, seed=2, size=words)))
    assert other.parts != made[0].parts
    assert len({sample.id for sample in made}) == 5


@pytest.mark.parametrize("name", list(lb.TWIN_TASKS))
def test_twins_have_natural_lengths_too(name: str) -> None:
    [sample] = lb.TWIN_TASKS[name].samples(None, 1)
    assert sample.level == "all"
    if name.startswith("passage"):
        assert prompt_of(sample).count("\n\nParagraph ") == 30


@pytest.mark.parametrize("name", ["lcc", "repobench-p"])
def test_code_twins_ask_for_the_next_line_of_a_real_file(name: str, tmp_path: Path) -> None:
    body = [f"    value_{i} = compute_something({i}, 'text')" for i in range(120)]
    for letter in "ab":
        head = ["import a" if letter == "b" else "import json", f"def function_{letter}():"]
        (tmp_path / f"{letter}.py").write_text("\n".join(head + body) + "\n", "utf-8")
    (tmp_path / "broken.py").write_text("def :\n" * 50, "utf-8")
    texts = [p.read_text("utf-8") for p in sorted(tmp_path.glob("?.py"))]
    source = Source(path=str(tmp_path))
    for sample in lb.TWIN_TASKS[name].samples(None, 10, source=source):
        shown = sample.parts.context if name == "lcc" else sample.parts.query
        before = shown.split("\nNext line")[0].splitlines()[-8:]
        follows = "\n".join([*before, sample.references[0]])
        assert any(follows in text for text in texts)


def test_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one short text", "utf-8")
    (tmp_path / "a.py").write_text("x = 1\n", "utf-8")
    source = Source(path=str(tmp_path))
    level, huge, tiny = (LengthLevel("words", n) for n in (1000, 10_000_000, 50))
    with pytest.raises(InputError, match="hold 0"):
        next(iter(lb.TWIN_TASKS["passage_count"].samples(level, 1, source=source, size=words)))
    with pytest.raises(InputError, match="no line that could be asked"):
        next(iter(lb.TWIN_TASKS["lcc"].samples(level, 1, source=source, size=words)))
    with pytest.raises(InputError, match="do not fill this level"):
        next(iter(lb.TWIN_TASKS["passage_retrieval"].samples(huge, 1, size=words)))
    with pytest.raises(InputError, match="longer level"):
        next(iter(lb.TWIN_TASKS["passage_retrieval"].samples(tiny, 1, size=words)))


# ------------------------------------------------------------------------------------ chunks


@settings(max_examples=200, deadline=None)
@given(st.text("ab .!?\n中。；", max_size=200), st.integers(1, 20))
def test_chunks_hold_the_whole_text(text: str, size: int) -> None:
    found = passages.chunks(text, size)
    assert "".join(found) == text
    for chunk in found:
        sentences = [s for s in re.split(r"(?<=[。？！；\n.!?;])(?=\S)", chunk) if s.strip()]
        assert passages.units(chunk) <= size or len(sentences) <= 1 or size == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 0),
        ("two words", 2),
        ("中国人", 3),
        ("中国 two words。", 4),
        ("don't", 2),
        ("3.5", 2),
        ("a中b", 3),
        ("…", 0),
    ],
)
def test_units(text: str, wanted: int) -> None:
    assert passages.units(text) == wanted


def test_retrieved_contexts_are_the_best_chunks_best_first(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    sentences = [f"Sentence {i} speaks of nothing much at all here. " * 20 for i in range(12)]
    sentences[4] = "The harbour master of Ystad keeps bees. " * 20
    row = {**RECORD, "context": "".join(sentences), "input": "Who keeps bees in Ystad?"}
    path = write_lines(tmp_path / "hotpotqa.jsonl", [row, {**row, "input": "zzz"}])
    source = Source(kind="release", path=str(path))
    found, other = lb.RETRIEVED_TASKS["hotpotqa"].samples(None, 5, source=source)
    assert found.meta["chunks_kept"] == 7
    assert found.meta["chunks"] > 7
    assert "bees" in found.parts.context[:1500]
    assert found.parts.context.count("bees") == 20
    assert len(found.parts.context) < len(row["context"])
    assert other.parts.context == row["context"][: len(other.parts.context)]  # nothing matches
    plain = next(iter(lb.TASKS["hotpotqa"].samples(None, 1, source=source)))
    assert plain.parts.context == row["context"]


def test_a_text_of_one_chunk_is_shown_whole() -> None:
    task_of = lb.RETRIEVED_TASKS["qasper"]
    assert isinstance(task_of, lb.LongBenchTask)
    assert task_of.shown("Short.", "What?") == ("Short.", {"chunks": 1, "chunks_kept": 1})
    assert task_of.shown("", "What?") == ("", {"chunks": 0, "chunks_kept": 0})


# --------------------------------------------------------------------------------------- v2

LETTERS = [
    ("The correct answer is (A)", "A"),
    ("The correct answer is A", "A"),
    ("The correct answer is B.", "B"),
    ("**The correct answer is (C)**", "C"),
    ("The correct answer is **(D)**", "D"),
    ("The correct answer is *D*", "D"),
    ("The correct answer is: A", None),
    ("the correct answer is (A)", None),
    ("The correct answer is (E)", None),
    ("The correct answer is ( A )", None),
    ("The correct answer is  (A)", None),
    ("The correct answer is\n(A)", None),
    ("The correct answer is A, not (B)", "A"),
    ("The correct answer is A. The correct answer is (B)", "B"),
    ("The correct answer is (A). The correct answer is (B)", "A"),
    ("The correct answer is Apple", "A"),
    ("The correct answer is (Apple)", None),
    ("The correct answer is (insert answer here)", None),
    ("A", None),
    ("(A)", None),
    ("", None),
    ("   ", None),
    ("Answer: The correct answer is (B)", "B"),
    ("The correct answer is (A", None),
    ("The correct answer is A)", "A"),
    ("The correct answer is 'A'", None),
    ("The correct answer is (A)(B)", "A"),
    ("The correct answer is (Ａ)", None),
    ("正确答案是 (A)", None),
    ("The *correct* answer is (D)", "D"),
    ("The correct answer is (D)\nThe correct answer is A", "D"),
]


@pytest.mark.parametrize(("response", "letter"), LETTERS)
def test_v2_letter(response: str, letter: str | None) -> None:
    assert v2.extract(response) == letter


def test_v2_groups_and_compensation(tmp_path: Path) -> None:
    rows = [
        ("The correct answer is (A)", "A", "easy", "short"),
        ("The correct answer is (A)", "B", "hard", "short"),
        ("no idea", "B", "hard", "long"),
    ]
    path = write_lines(
        tmp_path / "model.jsonl",
        [
            {"_id": str(i), "response": r, "answer": a, "difficulty": d, "length": n}
            for i, (r, a, d, n) in enumerate(rows)
        ],
    )
    task_v2 = lb.V2_TASKS["all"]
    predictions = list(task_v2.read_predictions(path))

    def aggregated(metric: v2.V2Metric) -> dict[str, float]:
        return metric.aggregate([metric.score(p.sample, p.response) for p in predictions])

    plain = {"score": 33.3, "easy": 100.0, "hard": 0.0, "short": 50.0, "long": 0.0}
    assert aggregated(v2.V2Metric()) == plain
    assert aggregated(v2.V2Metric(compensated=True)) == {
        **plain,
        "score": 41.7,
        "hard": 12.5,
        "long": 25.0,
    }


def test_v2_prompt_and_data(tmp_path: Path) -> None:
    record = {
        "_id": "1",
        "difficulty": "easy",
        "length": "short",
        "domain": "Law",
        "question": " What $DOC$? ",
        **{f"choice_{letter}": f"choice {letter}" for letter in "ABCD"},
        "answer": "C",
        "context": " The $Q$ text. ",
    }
    (tmp_path / "data.json").write_text(json.dumps([record]), "utf-8")
    source = Source(kind="release", path=str(tmp_path))
    [sample] = lb.V2_TASKS["all"].samples(None, 9, source=source)
    prompt = prompt_of(sample)
    assert "<text>\nThe $Q$ text.\n</text>" in prompt
    assert "What $DOC$?" in prompt
    assert "(D) choice D" in prompt
    request = lb.V2_TASKS["all"].build(sample)
    assert (request.temperature, request.max_new_tokens) == (0.1, 128)
    theirs = tmp_path / "prompts" / "0shot.txt"
    theirs.parent.mkdir()
    theirs.write_text("$DOC$|$Q$|$C_A$|$C_B$|$C_C$|$C_D$", "utf-8")
    [again] = lb.V2_TASKS["all"].with_templates(str(tmp_path)).samples(None, 1, source=source)
    assert prompt_of(again).split("|")[1:3] == ["What $DOC$?", "choice A"]
    theirs.write_text("$DOC$", "utf-8")
    with pytest.raises(InputError, match="once each"):
        lb.V2_TASKS["all"].with_templates(str(theirs))
    with pytest.raises(PathNotFound):
        lb.V2_TASKS["all"].with_templates(str(tmp_path / "none"))
