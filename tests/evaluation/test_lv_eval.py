"""LV-Eval: the two-stage metric, the devices, the release's files, the twins."""

# ruff: noqa: RUF001 - Chinese punctuation is under test

from __future__ import annotations

import json
import re
import string
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, InputError, MissingData
from unspool.evaluation.spec import LengthLevel, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks, lv_eval
from unspool.evaluation.tasks.lv_eval.facts import DATASETS, EMPTY_EN, EMPTY_ZH, LEVELS
from unspool.evaluation.tasks.lv_eval.templates import OWN, parts, reference

EN, ZH, FACT, FACT_ZH, ROUGE = (
    "hotpotwikiqa_mixup", "lic_mixup", "factrecall_en", "factrecall_zh", "dureader_mixup"
)  # fmt: skip


def two_thirds(n: float | int) -> Any:
    return pytest.approx(n, abs=1e-12)


# data set, prediction, answer, keywords, score
TABLE: list[tuple[str, str, str, str | None, float | int]] = [
    # The threshold is 0.2, and exactly 0.2 passes.
    (EN, "alpha", "alpha beta", "alpha beta gamma delta epsilon", 2 / 3),
    (EN, "alpha", "alpha beta", "alpha beta gamma delta epsilon zeta", 0),
    (EN, "alpha", "alpha beta", None, 2 / 3),
    (EN, "alpha", "alpha beta", "", 2 / 3),
    (EN, "nothing alike", "alpha beta", "alpha", 0),
    (EN, "alpha beta", "alpha beta", "alpha beta", 1),
    (EN, "The Alpha, BETA!", "alpha beta", "beta", 1),
    # Empty words never count as said but stay in the denominator.
    (EN, "of and the to", "of and to", "of and to", 0),
    (EN, "of and to", "of and to", None, 1),
    (EN, "of and alpha", "alpha", "of and alpha", 0.5),
    (EN, "alpha", "alpha", "of and to in is alpha", 0),
    (EN, "alpha", "alpha", "of and to in alpha", 1),
    (EN, "at Alpha", "alpha", "alpha", 2 / 3),
    # Bags, not sets: a keyword twice must be said twice.
    (EN, "alpha", "alpha alpha", "alpha alpha alpha alpha alpha alpha", 0),
    (EN, "alpha alpha", "alpha alpha", "alpha alpha alpha alpha alpha alpha", 1),
    (EN, "alpha alpha alpha", "alpha", "alpha", 0.5),
    (EN, "", "alpha", None, 0),
    (EN, "", "alpha", "alpha", 0),
    (EN, "alpha", "", None, 0),
    (EN, "", "", None, 0),
    (EN, "a an the", "the", None, 0),
    (EN, "4 November 2003", "4 November 2003", "4 November 2003", 1),
    (EN, "november", "4 November 2003", "4 November 2003", 0.5),
    (EN, "don't", "dont", "dont", 1),
    (EN, "alpha\nbeta", "alpha beta", "alpha", 1),
    (EN, "alpha-beta", "alphabeta", "alphabeta", 1),
    (EN, "café", "cafe", None, 0),
    (EN, "ＡＬＰＨＡ", "alpha", None, 0),
    # Chinese: 0.4, and the answer stands in for missing keywords.
    (ZH, "北京", "北京", "北京", 1),
    (ZH, "北京 上海", "北京 上海", "北京 上海 广州 深圳 重庆", 1),
    (ZH, "北京", "北京 上海", "北京 上海 广州", 0),
    (ZH, "北京", "北京 上海 广州", None, 0),
    (ZH, "北京", "北京 上海", None, 2 / 3),
    (ZH, "北京。", "“北京”", None, 1),
    (ZH, "北京", "《北京》", None, 2 / 3),  # the release deletes 》 but not 《
    (ZH, "的和是", "的和是", None, 0),
    (ZH, "", "北京", None, 0),
    (ZH, "北京", "", None, 0),
    (ZH, "Beijing", "BEIJING", None, 1),
    # No keyword stage in factrecall.
    (FACT, "of and to", "of and to", "alpha", 1),
    (FACT, "alpha", "alpha beta", "gamma", 2 / 3),
    (FACT_ZH, "的", "的", "北京", 1),
    (FACT_ZH, "北京", "北京 上海", "广州", 2 / 3),
    # ROUGE-L of `rouge`, whose F has a term of 1e-8.
    (ROUGE, "北京 上海", "北京 上海", None, 2 / (2 + 1e-8)),
    (ROUGE, "北京", "上海", None, 0),
    (ROUGE, "", "北京", None, 0),
    (ROUGE, "的", "北京", None, 0),
]


@pytest.mark.parametrize(("dataset", "said", "answer", "keywords", "expected"), TABLE)
def test_scores_by_hand(
    dataset: str, said: str, answer: str, keywords: str | None, expected: float | int
) -> None:
    assert lv_eval.score(dataset, said, answer, keywords) == two_thirds(expected)


def plain_english(said: str, answer: str, keywords: str | None) -> float:
    """The English rule from its description, on plain lists."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return [w for w in re.split(r"\s+", re.sub(r"\b(?:a|an|the)\b", " ", kept)) if w]

    def shared(one: list[str], other: list[str]) -> list[str]:
        left, both = list(other), []
        for word in one:
            if word in left:
                left.remove(word)
                both.append(word)
        return both

    s, a = words(said), words(answer)
    if keywords:
        k = words(keywords)
        telling = [w for w in shared(s, k) if w not in EMPTY_EN]
        if 5 * len(telling) < len(k):
            return 0.0
    both = len(shared(s, a))
    return 2 * both / (len(s) + len(a)) if both else 0.0


WORDS = st.lists(
    st.sampled_from(["alpha", "Beta", "the", "of", "and", "a", "x,y", "don't", "7", "beta.", ""]),
    max_size=8,
).map(" ".join)


@given(WORDS, WORDS, st.none() | WORDS)
@settings(max_examples=300, deadline=None)
def test_english_against_a_plain_one(said: str, answer: str, keywords: str | None) -> None:
    if keywords and not re.sub(r"\b(a|the)\b|[\s.,']", "", keywords.lower()):
        with pytest.raises(InputError, match="hold no word"):
            lv_eval.score(EN, said, answer, keywords)
        return
    expected = plain_english(said, answer, keywords)
    assert lv_eval.score(EN, said, answer, keywords) == pytest.approx(expected, abs=1e-12)


def test_word_lists_are_those_of_the_release() -> None:
    assert (len(EMPTY_EN), len(EMPTY_ZH)) == (38, 85)
    assert {"of", "which", "does"} <= EMPTY_EN
    assert {"的", "‰", "万元"} <= EMPTY_ZH


def test_facts_are_those_of_the_paper() -> None:
    assert sum(d.questions for d in DATASETS.values() if d.max_new_tokens == 64) == 1329
    assert {n for n, d in DATASETS.items() if d.max_new_tokens == 16} == {FACT, FACT_ZH}
    assert Counter(d.hops for d in DATASETS.values()) == {"single-hop": 6, "multi-hop": 5}
    assert sum(d.replaced for d in DATASETS.values()) == 1924
    assert sum(d.confusing_facts for d in DATASETS.values()) == 6


def test_unknown_data_sets_are_refused() -> None:
    with pytest.raises(ConfigError, match="hotpotwikiqa_mixup"):
        lv_eval.score("hotpotqa", "a", "b")


def test_long_wrong_sentences_of_empty_words_score_0() -> None:
    answer = "He was with her because of the war in Alpha"
    wrong = "He was with her because of the peace in Beta"
    assert lv_eval.score(FACT, wrong, answer) > 0.7
    assert lv_eval.score(EN, wrong, answer, "war Alpha") == 0.0


# --- prediction files


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_folders_are_scored_as_the_release_does(tmp_path: Path) -> None:
    rows = [
        {"pred": "alpha", "answers": ["alpha", "other"], "gold_ans": "alpha", "length": 3},
        {"pred": "other", "answers": ["alpha", "other"], "gold_ans": None, "length": 3},
        {"pred": "alpha", "answers": ["alpha beta"], "gold_ans": "alpha", "length": 3},
        {"pred": "alpha", "answers": []},
    ]
    write_predictions(tmp_path / f"{EN}_16k.jsonl", rows)
    write_predictions(tmp_path / f"{FACT}_16k.jsonl", rows[:1])
    write_predictions(tmp_path / f"{EN}_256k.jsonl", rows[1:2])
    found = lv_eval.score_dir(tmp_path)
    # 1, 0 (only the first answer counts), 2/3, 0
    assert found == {
        f"{FACT}_16k": 100.0,
        f"{EN}_16k": 41.67,
        f"{EN}_256k": 0.0,
        "level/16k": 70.84,
        "level/256k": 0.0,
    }
    (task,) = find_tasks(f"lv-eval/{EN}")
    predictions = list(task.read_predictions(tmp_path / f"{EN}_16k.jsonl"))
    scores = [task.metric.score(p.sample, p.response) for p in predictions]
    assert task.metric.aggregate(scores) == {"score": 41.67}
    assert {p.sample.level for p in predictions} == {"16k"}


def test_prediction_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no <dataset>_<level>"):
        lv_eval.score_dir(tmp_path)
    write_predictions(tmp_path / "other_16k.jsonl", [{"pred": "a", "answers": ["a"]}])
    with pytest.raises(InputError, match="'other_16k' is not <dataset>_<level>"):
        lv_eval.score_dir(tmp_path)
    file = tmp_path / f"{EN}_16k.jsonl"
    (tmp_path / "other_16k.jsonl").unlink()
    for text, said in (
        ("", "holds no predictions"),
        ("nonsense\n", "Line 1"),
        ('{"pred": "a"}\n', "'answers'"),
        ('{"answers": ["a"]}\n', "'pred'"),
        ('{"pred": "a", "answers": ["a"], "gold_ans": 3}\n', "gold_ans"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            lv_eval.score_dir(tmp_path)


# --- released data and prompts


def test_released_records_become_samples(tmp_path: Path) -> None:
    record = {
        "input": "Who {x}?", "context": "Text {y}.", "answers": ["Ann", "Bea"], "length": 12345,
        "dataset": EN, "language": "en", "answer_keywords": "Ann", "confusing_facts": ["No."],
    }  # fmt: skip
    line = json.dumps(record) + "\n"
    (tmp_path / f"{EN}_32k.jsonl").write_text(line * 3)
    (task,) = find_tasks(f"lv-eval/{EN}")
    source = Source(kind="release", path=str(tmp_path))
    level = LengthLevel.parse("32k", "words")
    samples = list(task.samples(level, 2, source=source))
    assert [s.id for s in samples] == ["0", "1"]
    assert samples[0].references == ("Ann", "Bea")
    assert samples[0].meta == {"keywords": "Ann", "confusing_facts": ["No."]}
    assert samples[0].lengths == {"words": 12345}
    prompt = task.build(samples[0]).prompt
    assert prompt == OWN[EN].replace("{context}", "Text {y}.").replace("{input}", "Who {x}?")
    packed = tmp_path / f"{EN}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{EN}_32k.jsonl", line)
    (again,) = task.samples(level, 2, source=Source(kind="release", path=str(packed)))
    assert again == samples[0]
    with pytest.raises(MissingData, match="lv-eval/mixup_twin"):
        list(task.samples(LengthLevel.parse("16k", "words"), 2, source=source))
    with pytest.raises(MissingData, match="takes a token"):
        list(task.samples(level, 2))
    with pytest.raises(ConfigError, match="16k, 32k, 64k, 128k, 256k"):
        list(task.samples(LengthLevel.parse("8k", "words"), 2, source=source))


def test_released_prompts_are_read_but_not_run(tmp_path: Path) -> None:
    table = {name: f"{name}: {{context}} ? {{input}} !" for name in DATASETS}
    config = tmp_path / "config.py"
    config.write_text(f"import os\nos.abort()\nDATASET_PROMPT = {table!r}\n")
    assert reference(tmp_path) == reference(config) == table
    (task,) = find_tasks(f"lv-eval/{EN}")
    with_prompt = task.with_templates(str(tmp_path))
    assert with_prompt.spec.prompt_source == "reference"
    assert with_prompt.spec.prompt_fingerprint != task.spec.prompt_fingerprint
    pieces = parts(with_prompt.template, "C", "Q")
    assert pieces.prefix + pieces.context + pieces.query == f"{EN}: C ? Q !"
    for text, said in (
        ("x = 1\n", "no table"),
        ("DATASET_PROMPT = f()\n", "no table"),
        ("def (\n", "no table"),
        ("DATASET_PROMPT = []\n", "should be a table"),
        (f"DATASET_PROMPT = {{{EN!r}: 'no places'}}\n", "no usable prompt"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=said):
            reference(tmp_path)
    with pytest.raises(MissingData, match="infinigence/LVEval"):
        reference(tmp_path / "elsewhere")


def test_levels_are_words_or_characters_and_limits_are_the_originals() -> None:
    for task in find_tasks("lv-eval"):
        if task.spec.ability == "twins":
            continue
        assert [level.name for level in task.spec.levels] == list(LEVELS)
        assert task.spec.unit == ("chars" if task.spec.language == "zh" else "words")
        assert (task.spec.overflow, task.spec.limit_rule) == ("ends", "thousands")
        assert task.spec.levels[0].nominal == 16_000


# --- devices


def test_replacement_changes_all_three_texts_at_once() -> None:
    made = lv_eval.replace(
        "Paris is the capital of France. In Paris, France's best (Paris) lives; Parisian life.",
        "What is the capital of France?",
        "Paris",
        {"Paris": "Velmora", "France": "Ostria"},
    )
    assert made.document == (
        "Velmora is the capital of Ostria. In Velmora, Ostria's best (Velmora) lives; "
        "Parisian life."
    )
    assert made.question == "What is the capital of Ostria?"
    assert (made.answer, made.places) == ("Velmora", 7)
    assert lv_eval.replace("a", "b", "c", {}) == ("a", "b", "c", 0)


def test_replacement_takes_the_longest_phrase_and_each_place_once() -> None:
    made = lv_eval.replace(
        "New York City beats New York.", "New York?", "New York City",
        {"New York": "Old Town", "New York City": "Big Village"},
    )  # fmt: skip
    assert (made.document, made.answer) == ("Big Village beats Old Town.", "Big Village")


def test_inflections_are_replaced_only_if_asked() -> None:
    texts = ("The engine stops. Engines stop; the engine's noise.", "Which engine?", "engine")
    assert lv_eval.replace(*texts, {"engine": "mill"}).document == (
        "The mill stops. Engines stop; the mill's noise."
    )
    upper = ("Three engines of one engine.", "Which engine?", "engine")
    assert lv_eval.replace(*upper, {"engine": "mill"}, inflections=True).document == (
        "Three mills of one mill."
    )


def test_chinese_phrases_need_no_word_limits() -> None:
    made = lv_eval.replace(
        "法国的首都是巴黎。", "法国的首都？", "巴黎", {"巴黎": "维摩", "法国": "欧丝"}
    )
    assert made == ("欧丝的首都是维摩。", "欧丝的首都？", "维摩", 4)
    with pytest.raises(ConfigError, match="shares '黎'"):
        lv_eval.replace("巴黎", "巴黎", "巴黎", {"巴黎": "黎明"})


def test_replacements_that_leave_a_trace_are_refused() -> None:
    texts = ("Paris is big.", "Is Paris big?", "yes")
    with pytest.raises(InputError, match="'Rome' is not in the document"):
        lv_eval.replace(*texts, {"Rome": "Velmora"})
    with pytest.raises(InputError, match="neither question nor answer"):
        lv_eval.replace("Paris is big.", "Is it?", "yes", {"Paris": "Velmora"})
    with pytest.raises(ConfigError, match="shares 'paris'"):
        lv_eval.replace(*texts, {"Paris": "Little Paris"})
    with pytest.raises(ConfigError, match="hold text"):
        lv_eval.replace(*texts, {"Paris": " "})
    with pytest.raises(InputError, match="is still in the document"):
        lv_eval.replace("Paris in Rome.", "Paris, Rome?", "x", {"Paris": "Rome", "Rome": "Bonn"})


@given(st.text(alphabet="ab .Paris'", max_size=40), st.sampled_from(["Paris", "b", "a.b", "ab"]))
@settings(max_examples=200, deadline=None)
def test_after_replacement_the_phrase_is_gone(text: str, phrase: str) -> None:
    document = f"{text} {phrase} {text}"
    made = lv_eval.replace(document, phrase, phrase, {phrase: "Zzz"})
    alone = re.compile(rf"(?<![A-Za-z0-9]){re.escape(phrase)}(?![A-Za-z0-9])")
    assert made.question == made.answer == "Zzz"
    assert not alone.search(made.document)
    assert made.document.count("Zzz") == made.places - 2 >= 1


def test_confusing_facts_differ_in_subject_and_object() -> None:
    fact = lv_eval.Fact("Ostria", "capital", "Velmora")
    assert (str(fact), fact.asked) == (
        "The capital of Ostria is Velmora.",
        "What is the capital of Ostria?",
    )
    others = lv_eval.confuse(
        fact, 3, subjects=["Ostria", "A", "B", "C"], objects=["Velmora", "x", "y", "z"], seed=1
    )
    assert {f.subject for f in others} == {"A", "B", "C"}
    assert {f.object for f in others} == {"x", "y", "z"}
    assert {f.relation for f in others} == {"capital"}
    with pytest.raises(InputError, match="holds the right answer"):
        lv_eval.confuse(fact, 1, subjects=["A"], objects=["New Velmora"])
    with pytest.raises(InputError, match="got 1 and 2"):
        lv_eval.confuse(fact, 2, subjects=["A"], objects=["x", "y"])


SENTENCES = [f"Sentence number {i} says {i * 37 % 101}." for i in range(400)]
PASSAGES = [" ".join(SENTENCES[i : i + 10]) for i in range(0, 400, 10)]


@pytest.mark.parametrize("level", [100, 257, 1000, 2000])
@pytest.mark.parametrize("unit", ["words", "chars"])
@pytest.mark.parametrize("depth", [None, 0, 0.5, 1])
def test_mixed_contexts_meet_their_length(level: int, unit: str, depth: float | int | None) -> None:
    level *= 5 if unit == "chars" else 1
    made = lv_eval.mixup(
        "SUPPORT stands here.", PASSAGES, level, unit, depth=depth, insert=["INSERTED so."] * 2
    )
    length = len(made.context) if unit == "chars" else len(made.context.split())
    assert 0.99 * level - 3 <= length == made.length <= level
    assert made.context.count("SUPPORT stands here.") == 1
    assert made.context.count("INSERTED so.") == 2
    headings = re.findall(r"^Passage (\d+)$", made.context, re.MULTILINE)
    assert headings == [str(i) for i in range(1, made.passages + 1)]
    if depth is not None:
        assert made.depth == pytest.approx(depth, abs=0.5 / max(1, made.passages - 1) + 1e-9)
        before = made.context[: made.context.index("SUPPORT")].count("Passage ") - 1
        assert before == round(made.depth * (made.passages - 1))


def test_without_the_support_nothing_says_the_answer() -> None:
    question = lv_eval.question(3)
    made = lv_eval.mixup(
        str(question.fact), PASSAGES, 500, insert=[str(c) for c in question.confusers]
    )
    assert question.fact.object not in made.context.replace(str(question.fact), "")


def test_mixing_that_cannot_work() -> None:
    with pytest.raises(InputError, match="short of the level"):
        lv_eval.mixup("Support.", PASSAGES[:2], 5000)
    with pytest.raises(InputError, match="more than the level"):
        lv_eval.mixup("word " * 50, PASSAGES, 20)
    with pytest.raises(ConfigError, match="words or chars"):
        lv_eval.mixup("Support.", PASSAGES, 100, "tokens")


@pytest.mark.parametrize("unit", ["words", "chars"])
def test_the_pressure_test_sweeps_the_depth(unit: str) -> None:
    book = " ".join(SENTENCES)
    fact = lv_eval.Fact("Ostria", "capital", "Velmora")
    found = lv_eval.pressure_test(
        fact, ["The capital of A is x.", "The capital of B is y."], book, [300, 1200],
        depths=21, unit=unit,
    )  # fmt: skip
    for level, contexts in found.items():
        places = []
        for made in contexts:
            length = len(made.context) if unit == "chars" else len(made.context.split())
            assert level - 8 <= length <= level
            assert made.context.count(str(fact)) == 1
            assert made.context.count("The capital of A is x.") == 1
            places.append(made.context.index(str(fact)) / len(made.context))
        assert places[0] < 0.35
        assert places[-1] > 0.6
        assert [made.depth for made in contexts] == [i / 20 for i in range(21)]
    with pytest.raises(InputError, match="longer book"):
        lv_eval.pressure_test(fact, [], book, [10**6], depths=1)
    with pytest.raises(ConfigError, match="depths must be >= 1"):
        lv_eval.pressure_test(fact, [], book, [100], depths=0)


# --- twins


def reader(prompt: str) -> str:
    """Answers from the text: the sentence about the subject that is asked for."""
    subject = re.findall(r"What is the capital of ([^?]+)\?", prompt)[-1]
    found = re.search(rf"The capital of {re.escape(subject)} is ([^.]+)\.", prompt)
    return found[1] if found else "unknown"


def rememberer(prompt: str) -> str:
    """Answers from what everybody knows, whatever the text says."""
    subject = re.findall(r"What is the capital of ([^?]+)\?", prompt)[-1]
    return dict(lv_eval.CAPITALS).get(subject, "unknown")


@pytest.mark.parametrize("name", ["mixup_twin", "factrecall_twin"])
def test_a_reader_scores_1_at_every_length_and_a_rememberer_0(name: str) -> None:
    (task,) = find_tasks(f"lv-eval/{name}")
    asked = []
    for words in (300, 800):
        samples = list(task.samples(LengthLevel("words", words), 10, seed=2))
        for sample in samples:
            prompt = task.build(sample).prompt
            scores = [
                task.metric.score(sample, Response(text=who(prompt)))["score"]
                for who in (reader, rememberer)
            ]
            assert scores == [1.0, 0.0]
            assert 0.99 * words - 3 <= len(sample.parts.context.split()) <= words
        asked.append([s.parts.query for s in samples])
        assert [s.depth for s in samples[:5]] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert list(task.samples(LengthLevel("words", words), 4, seed=2)) == samples[:4]
        assert all(Sample.from_json(s.to_json()) == s for s in samples)
    assert asked[0] == asked[1]


def test_a_model_that_sees_the_end_only_gives_a_step() -> None:
    (task,) = find_tasks("lv-eval/factrecall_twin")
    for sample in task.samples(LengthLevel("words", 1000), 10):
        end = sample.parts.context[len(sample.parts.context) // 2 :] + sample.parts.query
        score = task.metric.score(sample, Response(text=reader(end)))["score"]
        if sample.depth != 0.5:
            assert score == float(sample.depth > 0.5)


def test_choices_are_the_answer_and_the_confusing_ones() -> None:
    (task,) = find_tasks("lv-eval/mixup_twin_choice")
    for sample in task.samples(LengthLevel("words", 400), 5):
        assert len(sample.choices) == len(set(sample.choices)) == 5
        right = tuple(float(c in sample.references) for c in sample.choices)
        assert task.metric.score(sample, Response(logprobs=right))["score"] == 1.0
        assert task.metric.score(sample, Response(logprobs=tuple(-r for r in right)))["score"] == 0


def test_questions_have_drawn_names_that_are_no_known_ones() -> None:
    names = set()
    known = {name for pair in lv_eval.CAPITALS for name in pair}
    for number in range(len(lv_eval.CAPITALS) + 5):
        question = lv_eval.question(number, seed=9)
        names.add(question.fact.object)
        assert not {question.fact.subject, question.fact.object} & known
        assert (question.original.subject, question.original.object) in lv_eval.CAPITALS
        assert len({f.object for f in question.confusers} | {question.fact.object}) == 5
    assert len(names) == len(lv_eval.CAPITALS) + 5
    bare = lv_eval.question(0, without=("kpr", "cfi"))
    assert bare.fact == bare.original
    assert bare.confusers == ()
    with pytest.raises(ConfigError, match="no device 'cfl'"):
        lv_eval.question(0, without=("cfl",))
    with pytest.raises(ConfigError, match="confusers"):
        lv_eval.question(0, confusers=500)


def test_levels_in_tokens_bound_the_prompt() -> None:
    def quarter(text: str) -> int:
        return len(text) // 4

    for name in ("mixup_twin", "factrecall_twin"):
        (task,) = find_tasks(f"lv-eval/{name}")
        for sample in task.samples(LengthLevel("tokens", 700), 3, size=quarter):
            used = quarter(sample.parts.prefix + sample.parts.context + sample.parts.query)
            assert 0.98 * 700 <= used <= 700
        with pytest.raises(InputError, match="Choose a longer level"):
            next(task.samples(LengthLevel("tokens", 60), 1, size=quarter))
        with pytest.raises(InputError, match="too few"):
            next(task.samples(LengthLevel("tokens", 10**7), 1, size=quarter))


def _tokens(text: str) -> int:
    """Words, and every character of a rule."""
    return sum(len(word) if set(word) == {"="} else 1 for word in text.split())


@pytest.mark.parametrize("form", ["mixup", "factrecall"])
def test_a_rule_of_a_table_never_stands_in_the_way_of_a_level(form: str, tmp_path: Path) -> None:
    for number, passage in enumerate(PASSAGES):
        rule = "=" * 400 + "\n" if number % 4 == 0 else ""  # one word, 400 tokens
        (tmp_path / f"{number:02}.txt").write_text(rule + passage, encoding="utf-8")
    source = Source(path=str(tmp_path))
    task, level = lv_eval.twin(form), LengthLevel("tokens", 250)

    def made() -> list[Sample]:
        return list(task.samples(level, 20, source=source, size=_tokens))

    for sample in made():
        used = _tokens(sample.parts.prefix + sample.parts.context + sample.parts.query)
        assert used <= 250
        assert sample.references[0] in sample.parts.context
        assert all(fact in sample.parts.context for fact in sample.meta["confusing_facts"])
    assert made() == made()


def test_filler_shrinks_to_what_facts_need_and_no_further() -> None:
    (task,) = find_tasks("lv-eval/mixup_twin")

    def words(limit: int) -> list[str]:
        (sample,) = task.samples(LengthLevel("tokens", limit), 1, size=lambda t: len(t.split()))
        assert all(fact in sample.parts.context for fact in sample.meta["confusing_facts"])
        assert sample.references[0] in sample.parts.context
        return sample.parts.context.split()

    with pytest.raises(InputError, match=r"takes \d+ tokens at its shortest") as refused:
        words(60)
    least = int(re.findall(r"takes (\d+)", str(refused.value))[0])
    prompt = 250 - len(words(250))  # around the context
    assert len(words(least)) == least - prompt < 80  # ample filler ends at 100
    with pytest.raises(InputError, match=f"takes {least} tokens"):
        words(least - 1)


def test_devices_can_be_left_off_one_at_a_time() -> None:
    def follows_the_first(prompt: str) -> str:
        found = re.findall(r"The capital of [^.]+ is ([^.]+)\.", prompt)
        return f"{found[0]} of the and to" if found else ""

    task = lv_eval.twin("factrecall", confusers=2)
    level = LengthLevel("words", 400)
    confused = lv_eval.ablate(ScriptedModel(follows_the_first), task, level, n=10)
    assert confused.without["cfi"] > confused.full  # the only fact is the right one
    known = lv_eval.ablate(ScriptedModel(rememberer), task, level, n=10)
    assert (known.full, known.without["kpr"]) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="mixup or factrecall"):
        lv_eval.twin("other")
    with pytest.raises(ConfigError, match="to choose among"):
        lv_eval.twin("mixup", choice=True, confusers=0)
