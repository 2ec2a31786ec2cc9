"""M4LE: scores worked out by hand, buckets, and generated tasks that a program must solve."""

# ruff: noqa: RUF001 - Chinese texts

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, MissingData
from unspool.evaluation.spec import LengthLevel, Parts, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks, m4le, task
from unspool.evaluation.tasks.m4le.convert import positions
from unspool.evaluation.tasks.m4le.facts import ABILITIES, CONFIGS, config_of


def words(text: str) -> int:
    return len(text.split())


def score(name: str, answer: str, *golds: str) -> float:
    sample = Sample(id="1", parts=Parts(), references=golds, meta={"bucket": 1000})
    return m4le.M4LEMetric.of(name).score(sample, Response(text=answer))["score"]


def test_39_configurations_of_5_abilities() -> None:
    assert len(CONFIGS) == 39
    assert Counter(c.ability for c in CONFIGS.values()) == {
        "explicit-single": 10,
        "explicit-multiple": 4,
        "semantic-single": 10,
        "semantic-multiple": 3,
        "global": 12,
    }
    for each in find_tasks("m4le,m4le-twin"):
        assert task(each.spec.name) is each
        assert each.metric.id == each.spec.metric
    assert len({t.metric.id for t in find_tasks("m4le")}) > 10


def test_both_names_of_a_configuration_are_known() -> None:
    assert config_of("drcd_semantic-single_qa") == "drcd_semantic-single"
    assert config_of("mnds-news_explicit-single_cls+ret") == "mnds-news_explicit-single"
    assert config_of("arxiv") == "arxiv"
    assert config_of("arxiv_qa") is None
    assert config_of("") is None


ANSWERS = [
    # question answering: a substring, before the first newline and full stop
    ("newsqa", "In Paris.", ["Paris"], 1),
    ("newsqa", "in PARIS", ["paris"], 1),
    ("newsqa", "No. Paris", ["Paris"], 0),
    ("newsqa", "no\nParis", ["Paris"], 0),
    ("newsqa", "\nParis", ["Paris"], 0),  # what precedes the newline is empty
    ("newsqa", "", ["Paris"], 0),
    ("newsqa", "", [""], 1),  # the empty answer is in everything
    ("newsqa", "London", ["Paris", "London"], 1),
    ("newsqa", "parisian", ["Paris"], 1),
    ("newsqa", "3.5", ["3.5"], 0),  # cut at its point
    ("c3", "北京。", ["北京"], 1),
    ("c3", "在北京.上海", ["上海"], 1),  # only the Chinese stop ends it
    ("c3", "北京。上海", ["上海"], 0),
    ("wow", "Jazz, and more", ["Jazz"], 1),
    ("wow", "more, Jazz", ["Jazz"], 0),
    ("drcd_explicit-single", "爵士，摇滚", ["摇滚"], 0),
    ("bigpatent_global_cls", "7: physics", ["7"], 1),
    ("bigpatent_global_cls", "physics: 7", ["7"], 0),
    ("bigpatent_global_cls", "17", ["7"], 1),
    # equality
    ("mnds-news_explicit-single", "Sport", ["sport"], 1),
    ("mnds-news_explicit-single", " sport ", ["sport "], 1),
    ("mnds-news_explicit-single", "sport.", ["sport"], 0),
    ("wikitext-103", "A1B2C3.", ["A1B2C3"], 1),
    ("wikitext-103", "A1B2C3. Because", ["A1B2C3"], 1),
    ("wikitext-103", "It is A1B2C3", ["A1B2C3"], 0),
    ("wiki2019zh", "A1B2C3。因为", ["a1b2c3"], 1),
    ("mnds-news_semantic-multiple", "3.", ["3."], 1),
    ("mnds-news_semantic-multiple", "3", ["3. x"], 1),
    ("mnds-news_semantic-multiple", "3 articles", ["3"], 0),
    ("thucnews_semantic-multiple", "3。", ["3。"], 1),
    ("thucnews_semantic-multiple", "3.", ["3"], 0),
    # sets of ids
    ("marc", "A1, B2.", ["B2,A1."], 1),
    ("marc", "A1", ["A1, B2."], 2 / 3),
    ("marc", "A1, A1", ["A1"], 1),
    ("marc", "A1, C3", ["A1, B2"], 1 / 2),
    ("marc", "", ["A1"], 0),
    ("marc", "A1. B2", ["A1, B2"], 2 / 3),
    ("marc", "a1", ["A1"], 0),
    ("mnds-news_explicit-multiple", "A1.", ["A1."], 0),  # this reference keeps its full stop
    ("online-shopping", "A1，B2。", ["B2，A1"], 1),
    ("online-shopping", "A1, B2", ["A1，B2"], 0),
    ("thucnews_explicit-multiple", "A1，B2", ["A1"], 2 / 3),
    # ROUGE-L recall
    ("arxiv", "a b c d", ["a b"], 1),
    ("arxiv", "a", ["a b"], 1 / 2),
    ("arxiv", "a\nb", ["a b"], 1 / 2),
    ("arxiv", "", ["a b"], 0),
    ("arxiv", "a b", ["", "a b"], 1),  # an empty reference is passed over
    ("arxiv", "a b", ["...", "a b"], 0),  # one of full stops only spoils the item
    ("arxiv", "a b", [""], 0),
    ("clts+", "中国新闻人民", ["中国人民"], 1 / 2),  # cut at the word for news
    ("news2016", '答案是"中国人民"吗', ["中国人民"], 1),
    ("news2016", '答案是"中国人民', ["中国人民"], 1),
    ("lcsts", "中国", ["中国人民"], 1 / 2),
]


@pytest.mark.parametrize(("name", "answer", "golds", "wanted"), ANSWERS)
def test_answers(name: str, answer: str, golds: list[str], wanted: float | int) -> None:
    assert score(name, answer, *golds) == pytest.approx(wanted, abs=1e-15)


def test_bleu_is_of_the_corpus_of_a_bucket() -> None:
    metric = m4le.M4LEMetric.of("tedtalks-zh2en")
    rows = [
        ("the cat sat on the mat", "the cat sat on the mat", 1000),
        ("nothing at all here now", "the dog ran in the park", 1000),
        ("the dog ran in a park", "the dog ran in the park", 2000),
    ]
    scores = [
        metric.score(
            Sample(id="1", parts=Parts(), references=(gold,), meta={"bucket": bucket}),
            Response(text=answer),
        )
        for answer, gold, bucket in rows
    ]
    found = metric.aggregate(scores)
    # 1000: precisions 6/11, 5/9, 4/7, 3/5, lengths 11 and 12; 2000: 5/6, 3/5, 2/4, 1/3
    import math

    penalty = math.exp(1 - 12 / 11)
    first = penalty * (6 / 11 * 5 / 9 * 4 / 7 * 3 / 5) ** 0.25
    second = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert found["1000"] == pytest.approx(first)
    assert found["2000"] == pytest.approx(second)
    assert found["score"] == pytest.approx((first + second) / 2)
    assert scores[0]["score"] == 1.0
    nothing = metric.aggregate(
        [metric.score(Sample(id="1", parts=Parts(), references=("",)), Response(text=""))]
    )
    assert nothing["score"] == 0.0


# ----------------------------------------------------------------------------- files and data


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_prediction_files_by_bucket_with_coverage(tmp_path: Path) -> None:
    rows = [
        {"answers": ["Paris"], "length_bucket": 1000, "gen_resp": "Paris"},
        {"answers": ["Paris"], "length_bucket": 1000, "gen_resp": "London"},
        {"answers": ["Paris"], "length_bucket": 2000, "gen_resp": "Paris"},
        {"answers": ["Paris"], "length_bucket": 2000},
    ]
    found = m4le.score_file(write_lines(tmp_path / "newsqa.jsonl", rows))
    assert found.buckets == {1000: 0.5, 2000: 1.0}
    assert found.coverage == 0.75
    odd = write_lines(tmp_path / "drcd_semantic-single_qa.jsonl", rows)
    assert m4le.score_file(odd).buckets == {1000: 0.5, 2000: 1.0}
    assert m4le.score_file(odd, "newsqa").coverage == 0.75
    only_missing = write_lines(tmp_path / "duorc.jsonl", rows[3:])
    assert m4le.score_file(only_missing) == ({}, 0.0)


def test_bad_prediction_files(tmp_path: Path) -> None:
    def load(**row: Any) -> object:
        return m4le.score_file(write_lines(tmp_path / "newsqa.jsonl", [row]))

    with pytest.raises(InputError, match="no field 'answers'"):
        load(gen_resp="a", length_bucket=1000)
    with pytest.raises(InputError, match="has no answers"):
        load(gen_resp="a", length_bucket=1000, answers=[])
    with pytest.raises(InputError, match="no field 'length_bucket'"):
        load(gen_resp="a", answers=["a"])
    with pytest.raises(InputError, match="'gen_resp' should be str"):
        load(gen_resp=None, answers=["a"], length_bucket=1000)
    with pytest.raises(ConfigError, match="no configuration 'mine'"):
        m4le.score_file(write_lines(tmp_path / "mine.jsonl", []))


def test_records_by_bucket(tmp_path: Path) -> None:
    rows = [
        {
            "instruction": "Do it.",
            "input": f"text {i}",
            "answers": ["a"],
            "input_length": 10 + i,
            "total_length": 11,
            "length_bucket": bucket,
        }
        for i, bucket in enumerate((1000, 2000, 1000))
    ]
    folder = tmp_path / "qa"
    folder.mkdir()
    write_lines(folder / "nq-open.jsonl", rows)
    source = Source(kind="release", path=str(tmp_path))
    found = task("m4le/nq-open")
    assert [s.level for s in found.samples(None, 9, source=source)] == ["1k", "2k", "1k"]
    level = found.spec.levels[0]
    [first, second] = found.samples(level, 9, source=source)
    assert first.parts.prefix + first.parts.context == "Do it.\ntext 0"
    assert (first.meta["bucket"], second.lengths) == (1000, {"words": 12})
    with pytest.raises(InputError, match=r"no records of length 8000\. Its buckets: 1000, 2000"):
        list(found.samples(found.spec.levels[-1], 1, source=source))
    with pytest.raises(MissingData, match="m4le-twin/semantic-single"):
        list(found.samples(level, 1))


def test_normalised_scores() -> None:
    assert m4le.normalised(0.4, 0.4) == 0.5
    assert m4le.normalised(0.0, 0.0) == 0.0
    assert m4le.normalised(0.2, 0.6) == pytest.approx(0.25)
    scores = {"arxiv": {1000: 0.4, 2000: 0.2, 64000: 0.9}, "c3": {1000: 0.3}}
    found = m4le.headline(scores, {"arxiv": 0.4, "c3": 0.1})
    assert found.buckets == {1000: pytest.approx(0.625), 2000: pytest.approx(1 / 3)}
    assert found.average == pytest.approx((0.625 + 1 / 3) / 2)
    with pytest.raises(InputError, match="no reference score of c3"):
        m4le.headline(scores, {"arxiv": 0.4})
    with pytest.raises(InputError, match="No task has a score"):
        m4le.headline({"arxiv": {64000: 0.1}}, {"arxiv": 0.4})


# ------------------------------------------------------------------------------- conversion

CLASSES = ("plants", "stars", "boats")


def pool(count: int = 240) -> list[dict[str, str]]:
    return [
        {
            "text": f"First sentence number {i} says a thing. Second sentence of {i} goes on.",
            "label": CLASSES[i % 3],
        }
        for i in range(count)
    ]


def prompt_of(sample: Sample) -> str:
    return sample.parts.prefix + sample.parts.context + sample.parts.query


def solve(ability: str, sample: Sample, labels: dict[str, str]) -> str:
    """Answer from the prompt, and from what class each text is of."""
    shown = dict(re.findall(r"^Text (\w{6}): (.*)$", sample.parts.context, flags=re.M))
    asked = re.search("class '(.+)'|of which class is text (\\w{6})", sample.parts.query, re.I)
    of = {id: labels.get(text) for id, text in shown.items()}
    if ability == "explicit-single":
        assert asked
        return str(of[asked[2]])
    if ability == "explicit-multiple":
        assert asked
        return ", ".join(id for id, label in of.items() if label == asked[1])
    if ability == "semantic-multiple":
        assert asked
        return str(sum(label == asked[1] for label in of.values()))
    number = re.findall(r"^Query: .* number (\d+) ", sample.parts.context, flags=re.M)[0]
    [right] = [id for id, text in shown.items() if f"sentence of {number} goes" in text]
    return right


MAKES = ("explicit-single", "explicit-multiple", "semantic-single", "semantic-multiple")


@pytest.mark.parametrize("ability", MAKES)
def test_a_program_solves_every_generated_item(ability: str) -> None:
    records = pool()
    labels = {row["text"]: row["label"] for row in records}
    made = m4le.convert(records, ability, [200, 400, 800], n=20)
    metric = task(f"m4le-twin/{ability}").metric
    assert len(made) == 60
    assert len({(s.level, s.id) for s in made}) == 60
    below = {200: 0, 400: 200, 800: 400}
    for sample in made:
        answer = solve(ability, sample, labels)
        assert answer == sample.references[0]
        assert metric.score(sample, Response(text=answer))["score"] == 1.0
        assert metric.score(sample, Response(text=f"{answer}."))["score"] == 1.0
        bucket = int(sample.meta["bucket"])
        total = words(f"{prompt_of(sample)} {answer}")
        assert below[bucket] <= total <= bucket
        ids = re.findall(r"^Text (\w{6}):", prompt_of(sample), flags=re.M)
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("ability", ["explicit-single", "semantic-single"])
def test_gold_positions_follow_the_schedule(ability: str) -> None:
    made = m4le.convert(pool(), ability, [800], n=80)
    places: Counter[int] = Counter()
    for i, sample in enumerate(made):
        items = int(sample.meta["items"])
        turns = positions(items)
        assert sample.depth is not None
        place = round(sample.depth * (items - 1))
        assert place == turns[i % len(turns)]
        places[place] += 1
    assert max(places.values()) - min(places.values()) <= max(places.values()) // 2


def test_positions() -> None:
    assert positions(1) == [0]
    assert positions(4) == [0]
    assert positions(5) == [0, 4]
    assert positions(15) == [0, 4, 9, 14]
    assert positions(200)[:4] == [0, 9, 19, 29]
    assert positions(199)[-1] == 194


def test_the_same_seed_gives_the_same_bytes_and_others_do_not() -> None:
    def made(seed: int, n: int) -> list[dict[str, Any]]:
        found = m4le.convert(pool(), "explicit-multiple", [300], n=n, seed=seed)
        return [sample.to_json() for sample in found]

    assert made(1, 3) == made(1, 5)[:3]
    assert made(1, 3) != made(2, 3)


def test_one_shot_has_ids_of_its_own_and_can_be_left_out() -> None:
    [shown] = m4le.convert(pool(), "explicit-single", [300], n=1)
    [bare] = m4le.convert(pool(), "explicit-single", [300], n=1, one_shot=False)
    assert "Answer: " in shown.parts.prefix
    assert "Answer:" not in bare.parts.prefix
    of_example = set(re.findall(r"Text (\w{6}):", shown.parts.prefix))
    assert len(of_example) == 2
    assert not of_example & set(re.findall(r"Text (\w{6}):", shown.parts.context))


@pytest.mark.parametrize("ability", ["explicit-multiple", "semantic-multiple"])
def test_the_number_of_gold_items_can_be_set(ability: str) -> None:
    made = m4le.convert(pool(), ability, [400], n=10, gold_items=4)
    for sample in made:
        gold = sample.references[0]
        assert (gold if ability.startswith("sem") else str(len(gold.split(", ")))) == "4"
    with pytest.raises(InputError, match="No class has 200 texts"):
        m4le.convert(pool(), ability, [400], n=1, gold_items=200)


def test_global_takes_whole_texts_of_the_right_length() -> None:
    records = [
        {"text": " ".join(f"w{j}" for j in range(n)), "label": CLASSES[n % 3]}
        for n in range(20, 400, 7)
    ]
    made = m4le.convert(records, "global", [200, 400], n=10)
    assert [s.level for s in made].count("200") == 10
    for sample in made:
        assert any(f"{row['text']}\n" == sample.parts.context for row in records)
    assert len({s.parts.context for s in made}) == 20
    with pytest.raises(InputError, match="they take"):
        m4le.convert(records, "global", [10_000, 20_000], n=1)


def test_other_units_and_languages() -> None:
    records = [
        {"t": f"第{i}句话说了一件事。第二句话接着说{i}。", "c": "甲乙丙"[i % 3]} for i in range(200)
    ]
    made = m4le.convert(
        records, "semantic-single", [600], n=3, unit="chars", language="zh", text="t", label="c"
    )
    for sample in made:
        assert 300 < len(prompt_of(sample)) <= 600
        assert "候选文本" in sample.parts.prefix
    tokens = m4le.convert(pool(), "explicit-single", [300], n=2, unit="tokens", size=words)
    assert all(sample.lengths == {} for sample in tokens)
    assert all(words(prompt_of(sample)) <= 300 for sample in tokens)


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="got 'explicit'"):
        m4le.convert(pool(), "explicit", [300])
    with pytest.raises(ConfigError, match="got 'fr'"):
        m4le.convert(pool(), "global", [300], language="fr")
    with pytest.raises(ConfigError, match="needs size="):
        m4le.convert(pool(), "global", [300], unit="tokens")
    with pytest.raises(ConfigError, match="gold_items must be >= 1, got 0"):
        m4le.convert(pool(), "explicit-multiple", [300], gold_items=0)
    with pytest.raises(InputError, match="Record 2 has no text in its field 'label'"):
        m4le.convert([*pool(1), {"text": "a", "label": " "}], "global", [300])
    with pytest.raises(InputError, match=r"fill \d+ words at most, and 5000 were asked"):
        m4le.convert(pool(12), "explicit-single", [5000], n=1)
    with pytest.raises(InputError, match="Four texts of at most 5 words"):
        m4le.convert(pool(), "explicit-single", [20], n=1)
    with pytest.raises(InputError, match="Two classes"):
        m4le.convert([{"text": "a b. c d.", "label": "x"}] * 9, "explicit-single", [300])
    assert m4le.convert([{"text": f"a {i}. c {i}.", "label": "x"} for i in range(99)],
                        "semantic-single", [100], n=1)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("ab .\nT:0", min_size=1, max_size=40), min_size=8, max_size=30))
def test_any_texts_are_either_made_into_a_test_or_refused(texts: list[str]) -> None:
    records = [
        {"text": text.strip() or "x", "label": CLASSES[i % 2]} for i, text in enumerate(texts)
    ]
    for ability in ABILITIES:
        try:
            made = m4le.convert(records, ability, [90], n=2)
        except InputError:
            continue
        for sample in made:
            assert words(prompt_of(sample)) <= 90


# ------------------------------------------------------------------------------------ twins


def test_twins_take_folders_of_classes_or_labelled_lines(tmp_path: Path) -> None:
    for row in pool(60):
        folder = tmp_path / "texts" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.txt").write_text(row["text"], "utf-8")
    lines = write_lines(tmp_path / "texts.jsonl", [dict(row) for row in pool(60)])
    twin = task("m4le-twin/explicit-single")
    level = LengthLevel("words", 300)
    for path in (tmp_path / "texts", lines):
        [sample] = twin.samples(level, 1, source=Source(path=str(path)), size=words)
        assert sample.references[0] in CLASSES
    (tmp_path / "texts" / "stray.txt").write_text("a text without a class", "utf-8")
    with pytest.raises(InputError, match=r"stray\.txt has no class"):
        list(twin.samples(level, 1, source=Source(path=str(tmp_path / "texts")), size=words))


def test_lines_without_text_are_explained_in_the_task_s_words(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "texts.jsonl", [{"body": "a", "label": "b"}])
    twin = task("m4le-twin/explicit-single")
    with pytest.raises(InputError, match="under 'text' and its class under 'label'"):
        list(twin.samples(LengthLevel("words", 300), 1, source=Source(path=str(lines))))


@pytest.mark.parametrize("ability", ABILITIES)
def test_twins_need_no_source(ability: str) -> None:
    twin = task(f"m4le-twin/{ability}")
    [sample] = twin.samples(twin.spec.levels[1], 1, size=words)
    assert words(prompt_of(sample)) <= 512
    assert twin.metric.score(sample, Response(text=sample.references[0]))["score"] == 1.0
    with pytest.raises(InputError, match="needs a length"):
        list(twin.samples(None, 1))
