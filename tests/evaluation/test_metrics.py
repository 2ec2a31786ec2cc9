"""Metrics against tables worked out by hand, and against the packages whose numbers they give."""

# ruff: noqa: RUF001 - confusable characters are the point

from __future__ import annotations

import subprocess
import sys
import warnings
from difflib import SequenceMatcher
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claims._hard_texts import pairs
from unspool.errors import ConfigError, InputError
from unspool.evaluation.metrics import choice, f1, fuzzy, lcs, normalise

ROUNDS = 400

NORMAL = {
    "": "",
    " ": "",
    "\n\t ": "",
    "The cat": "cat",
    "a an the": "",
    "A An THE": "",
    "theater": "theater",
    "the-cat": "thecat",
    "the.cat": "thecat",
    "the cat.": "cat",
    "O'Neill": "oneill",
    "U.S.A.": "usa",
    "a.b": "ab",
    "1,000": "1000",
    "3.5": "35",
    "$5": "5",
    "C++": "c",
    "  many   blanks ": "many blanks",
    "tab\tand\nline": "tab and line",
    "no\u3000break\u00a0here": "no break here",
    "É": "é",
    "İ": "i\u0307",
    "an—the": "—",
    "the,": "",
    "_a_": "",
    "a_b": "ab",
    "don't": "dont",
    "the the cat": "cat",
    "cat the": "cat",
    "中国的银行。": "中国的银行。",
    "a中国": "a中国",
    "“quoted”": "“quoted”",
    "x\u200by": "x\u200by",
    "😀 a 😀": "😀 😀",
}


@pytest.mark.parametrize(("raw", "wanted"), NORMAL.items())
def test_normalise(raw: str, wanted: str) -> None:
    assert normalise.normalise(raw) == wanted


def test_normalise_with_case_keeps_it_and_capital_articles() -> None:
    assert normalise.normalise("The Cat, a DOG", lower=False) == "The Cat DOG"


QA = [
    ("", "", Fraction(0)),
    ("", "cat", Fraction(0)),
    ("cat", "", Fraction(0)),
    ("the", "a", Fraction(0)),
    ("the", "the", Fraction(0)),
    ("cat", "cat", Fraction(1)),
    ("The Cat.", "cat", Fraction(1)),
    ("cat", "dog", Fraction(0)),
    ("cat dog", "cat", Fraction(2, 3)),
    ("cat", "cat dog", Fraction(2, 3)),
    ("cat cat", "cat", Fraction(2, 3)),
    ("cat cat", "cat cat", Fraction(1)),
    ("cat cat", "cat dog", Fraction(1, 2)),
    ("cat dog", "dog cat", Fraction(1)),
    ("one two three", "one two four", Fraction(2, 3)),
    ("one two three four", "one", Fraction(2, 5)),
    ("1,000", "1000", Fraction(1)),
    ("1 000", "1000", Fraction(0)),
    ("3.5", "35", Fraction(1)),
    ("U.S.", "us", Fraction(1)),
    ("yes", "Yes!", Fraction(1)),
    ("no.", "No", Fraction(1)),
    ("unanswerable", "Unanswerable", Fraction(1)),
    ("a b c", "b c d", Fraction(4, 5)),
    ("cat\ndog", "cat dog", Fraction(1)),
    ("cat\u3000dog", "cat dog", Fraction(1)),
    ("caté", "cate", Fraction(0)),
    ("É", "é", Fraction(1)),
    ("e\u0301", "é", Fraction(0)),
    ("中国 银行", "中国", Fraction(2, 3)),
    ("中国银行", "中国", Fraction(0)),
    ("it's", "its", Fraction(1)),
    ("x-ray", "xray", Fraction(1)),
    ("x ray", "x-ray", Fraction(0)),
    ("😀 cat", "cat", Fraction(2, 3)),
]


@pytest.mark.parametrize(("prediction", "reference", "wanted"), QA)
def test_qa_f1(prediction: str, reference: str, wanted: Fraction) -> None:
    assert f1.qa_f1(prediction, reference) == pytest.approx(float(wanted), abs=1e-15)


# jieba cuts these short phrases into the words between the bars; the words are checked too.
ZH = [
    ("", "", "", Fraction(0)),
    ("中国", "", "中国", Fraction(0)),
    ("", "中国", "", Fraction(0)),
    ("中国", "中国", "中国", Fraction(1)),
    ("中国。", "中国", "中国", Fraction(1)),
    ("《中国》", "中国", "《|中国", Fraction(2, 3)),
    ("“中国”", "中国", "中国", Fraction(1)),
    ("中国人民", "中国", "中国|人民", Fraction(2, 3)),
    ("中国 人民", "中国人民", "中国|人民", Fraction(1)),
    ("中国，人民！", "中国人民", "中国|人民", Fraction(1)),
    ("人民中国", "中国人民", "人民|中国", Fraction(1)),
    ("ABC", "abc", "abc", Fraction(1)),
    ("A.B", "ab", "a|b", Fraction(0)),
    ("2010年", "2010年", "2010|年", Fraction(1)),
    ("2010", "2010年", "2010", Fraction(2, 3)),
    ("3.5", "35", "35", Fraction(1)),
    ("50%", "50", "50", Fraction(1)),
    ("中国\n人民", "中国人民", "中国|人民", Fraction(1)),
    ("中国\u3000人民", "中国人民", "中国|人民", Fraction(1)),
    ("the cat", "cat", "the|cat", Fraction(2, 3)),
    ("，。！", "中国", "", Fraction(0)),
    ("——", "中国", "", Fraction(0)),
    ("……", "…", "", Fraction(0)),
    ("银行", "银行", "银行", Fraction(1)),
    ("银行行长", "银行", "银行行长", Fraction(0)),
    ("中国中国", "中国", "中国|中国", Fraction(2, 3)),
    ("中国中国", "中国中国", "中国|中国", Fraction(1)),
    ("😀", "中国", "😀", Fraction(0)),
    ("😀中国", "中国", "😀|中国", Fraction(2, 3)),
    ("人民", "中国人民", "人民", Fraction(2, 3)),
    ("１", "1", "１", Fraction(0)),
]


@pytest.mark.parametrize(("prediction", "reference", "words", "wanted"), ZH)
def test_qa_f1_zh(prediction: str, reference: str, words: str, wanted: Fraction) -> None:
    assert f1.words_zh(prediction) == [word for word in words.split("|") if word]
    assert f1.qa_f1_zh(prediction, reference) == pytest.approx(float(wanted), abs=1e-15)


SETS = [
    ("a", "a", Fraction(1)),
    ("a", "b", Fraction(0)),
    ("ab", "a", Fraction(2, 3)),
    ("a", "ab", Fraction(2, 3)),
    ("aab", "ab", Fraction(1)),
    ("abcd", "ab", Fraction(2, 3)),
    ("abc", "bcd", Fraction(2, 3)),
]


@pytest.mark.parametrize(("prediction", "reference", "wanted"), SETS)
def test_set_f1(prediction: str, reference: str, wanted: Fraction) -> None:
    assert f1.set_f1(prediction, reference) == pytest.approx(float(wanted), abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("ab", max_size=2), min_size=1), st.lists(st.text("ab", max_size=2), min_size=1)
)
def test_set_f1_is_dice(prediction: list[str], reference: list[str]) -> None:
    a, b = set(prediction), set(reference)
    assert f1.set_f1(prediction, reference) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


# Prediction, reference, labels, score: "kept" is what the pruning walk leaves of the labels found.
LABELS = [
    ("", "dog", ["dog"], 0),
    ("dog", "dog", ["dog"], 1),
    ("dog", "dog", ["cat"], 0),
    ("dog", "cat", ["dog", "cat"], 0),
    ("dog cat", "dog", ["dog", "cat"], Fraction(1, 2)),
    ("dog cat cow", "cow", ["dog", "cat", "cow"], Fraction(1, 3)),
    ("Dog", "dog", ["dog"], 0),
    ("hotdog", "dog", ["dog"], 1),
    ("hotdog", "hotdog", ["dog", "hotdog"], 1),
    ("hotdog", "dog", ["dog", "hotdog"], Fraction(1, 2)),
    ("hotdog", "hotdog", ["hotdog", "dog"], 1),
    # nested labels: striking one out passes over the next
    ("abc", "abc", ["a", "ab", "abc"], Fraction(1, 2)),
    ("abc", "abc", ["a", "b", "abc"], Fraction(1, 2)),
    ("abc", "abc", ["a", "x", "b", "abc"], Fraction(1, 2)),
    ("abcd", "abcd", ["a", "b", "c", "abcd"], Fraction(1, 2)),
    ("abcd", "abcd", ["a", "b", "c", "d", "abcd"], Fraction(1, 3)),
    ("abc", "abc", ["abc", "a", "b"], Fraction(1, 2)),
    ("abc z", "abc", ["a", "z", "abc"], Fraction(1, 2)),
    ("abc z", "abc", ["z", "a", "abc"], Fraction(1, 2)),
    ("abc", "ab", ["a", "ab", "abc"], Fraction(1, 2)),
    ("a a", "a", ["a", "a"], Fraction(1, 2)),  # the same label twice
    ("ab", "ab", ["a", "a", "ab"], Fraction(1, 2)),
    ("ab", "ab", ["a", "ab", "a"], 1),
    ("Human: dog", "dog", ["dog", "Human"], Fraction(1, 2)),
    ("dog\ncat", "dog", ["dog", "cat"], Fraction(1, 2)),
    ("体育", "体育", ["体育", "娱乐"], 1),
    ("体育娱乐", "体育", ["体育", "娱乐"], Fraction(1, 2)),
    ("体育新闻", "体育新闻", ["体育", "体育新闻"], 1),
    ("anything", "", ["", "a"], Fraction(1, 2)),  # the empty label is in every text
    ("", "", [""], 1),
    ("ﬁsh", "fish", ["fish"], 0),
    (" dog ", "dog", ["dog "], 0),
    ("dog ", "dog ", ["dog", "dog "], 1),
]


@pytest.mark.parametrize(("prediction", "reference", "labels", "wanted"), LABELS)
def test_classification(
    prediction: str, reference: str, labels: list[str], wanted: Fraction | int
) -> None:
    before = list(labels)
    assert choice.classification(prediction, reference, labels) == float(wanted)
    assert labels == before


COUNTS = [
    ("", "5", 0),
    ("five", "5", 0),
    ("5", "5", 1),
    ("05", "5", 0),
    ("5.", "5", 1),
    ("5.0", "5", Fraction(1, 2)),
    ("5 5", "5", 1),
    ("5 of 10", "5", Fraction(1, 2)),
    ("10 of 5", "5", Fraction(1, 2)),
    ("55", "5", 0),
    ("-5", "5", 1),
    ("5th", "5", 1),
    ("x5y", "5", 1),
    ("5,5,6,7", "5", Fraction(1, 2)),
    ("1 2 3 4", "5", 0),
    ("１ 1", "1", Fraction(1, 2)),
    ("１", "１", 1),
    ("٣", "3", 0),
    ("²", "2", 0),
    ("5\n6", "5", Fraction(1, 2)),
    ("1e5", "5", Fraction(1, 2)),
    ("5", "", 0),
    ("Paragraph 5", "5", 1),
    ("第5段", "5", 1),
    ("5 5 5 6", "5", Fraction(3, 4)),
    ("0", "0", 1),
    ("00", "0", 0),
    ("1_000", "1", Fraction(1, 2)),
    ("1,000", "1000", 0),
    ("5" * 30, "5" * 30, 1),
    ("5%", "5", 1),
]


@pytest.mark.parametrize(("prediction", "reference", "wanted"), COUNTS)
def test_count(prediction: str, reference: str, wanted: Fraction | int) -> None:
    assert choice.count(prediction, reference) == pytest.approx(float(wanted), abs=1e-15)


PARAGRAPHS = [
    ("Paragraph 5", "Paragraph 5", "en", 1),
    ("5", "Paragraph 5", "en", 1),
    ("Paragraph 15", "Paragraph 5", "en", 0),
    ("Paragraph 5 or 6", "Paragraph 5", "en", Fraction(1, 2)),
    ("", "Paragraph 5", "en", 0),
    ("none", "Paragraph 5", "en", 0),
    ("5", "see Paragraph 5, Paragraph 6", "en", 1),
    ("6", "see Paragraph 5, Paragraph 6", "en", 0),
    ("paragraph 5", "Paragraph 5 (30)", "en", 1),
    ("段落5", "段落5", "zh", 1),
    ("5", "段落5", "zh", 1),
    ("段落5和6", "段落5", "zh", Fraction(1, 2)),
    ("第五段", "段落5", "zh", 0),
]


@pytest.mark.parametrize(("prediction", "reference", "language", "wanted"), PARAGRAPHS)
def test_retrieval(prediction: str, reference: str, language: str, wanted: Fraction | int) -> None:
    assert choice.retrieval(prediction, reference, language) == float(wanted)


def test_bad_references_are_named() -> None:
    with pytest.raises(InputError, match="all_classes"):
        choice.classification("a", "a", [])
    with pytest.raises(InputError, match=r"Paragraph N.*'the fifth'"):
        choice.retrieval("5", "the fifth")
    with pytest.raises(ConfigError, match="'exact'"):
        fuzzy.ratio("a", "b", "exact")


LINES = {
    "": "",
    "\n": "",
    "x = 1": "x = 1",
    "\n\nx = 1\ny": "x = 1",
    "# c\nx": "x",
    "x # c\ny": "y",
    "// c\nx": "x",
    "a // b": "",
    "```python\nx\n```": "x",
    "`x`": "",
    "\n# a\n\nx": "",
    "  x": "  x",
    " \nx": " ",
    "x\r\ny": "x\r",
    "\r\nx": "\r",
    "http://a\nx": "x",
    "a / b": "a / b",
    "#": "",
    "x\u2028y": "x\u2028y",
    "\tx": "\tx",
}


@pytest.mark.parametrize(("prediction", "wanted"), LINES.items())
def test_code_line(prediction: str, wanted: str) -> None:
    assert fuzzy.code_line(prediction) == wanted


RATIOS = [
    ("", "", 100),
    ("a", "", 0),
    ("", "a", 0),
    ("a", "a", 100),
    ("a", "b", 0),
    ("ab", "a", 67),
    ("abcd", "bcde", 75),
    ("abc", "xabc", 86),
    ("中国", "中", 67),
    ("aab", "aba", 67),
    ("ab" * 4, "ba" * 4, 88),
    ("é", "e\u0301", 0),
]


@pytest.mark.parametrize(("a", "b", "wanted"), RATIOS)
def test_ratio_by_hand(a: str, b: str, wanted: int) -> None:
    assert fuzzy.ratio(a, b) == wanted


def test_the_order_of_arguments_and_the_popular_characters_matter() -> None:
    assert fuzzy.ratio("tide", "diet") != fuzzy.ratio("diet", "tide")
    # from 200 characters on difflib ignores characters that are more than a hundredth of the text
    answer = "ab" * 100
    assert fuzzy.ratio("x" + "ab" * 99, answer) == 0
    assert fuzzy.ratio("x" + "ab" * 99, answer, "levenshtein") == 99


def test_difflib_ratio_equals_fuzzywuzzy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fuzzywuzzy import fuzz

    if fuzz.SequenceMatcher is not SequenceMatcher:
        pytest.skip("python-Levenshtein is installed, so fuzzywuzzy has another arithmetic")
    for a, b in pairs(ROUNDS, seed=1):
        assert fuzzy.ratio(a, b) == fuzz.ratio(a, b), (a, b)


def test_levenshtein_ratio_equals_rapidfuzz() -> None:
    from rapidfuzz.distance import Indel

    for a, b in pairs(ROUNDS, seed=2):
        wanted = round(100 * Indel.normalized_similarity(a, b)) if a and b else 100 * (a == b)
        assert fuzzy.ratio(a, b, "levenshtein") == wanted, (a, b)


def plain_lcs(a: str, b: str) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(st.text("abc", max_size=70), st.text("abc", max_size=70))
def test_lcs(a: str, b: str) -> None:
    wanted = plain_lcs(a, b)
    assert lcs.lcs_length(a, b) == wanted
    path = lcs.lcs_path(list(a), list(b))
    assert len(path.items) == wanted
    for text in (a, b):  # the items are a subsequence of both, last first
        rest = iter(reversed(text))
        assert all(item in rest for item in path.items)
    assert path.steps <= len(a) + len(b)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_scores_are_shares(a: str, b: str) -> None:
    assert 0 <= f1.qa_f1(a, b) <= 1
    assert f1.qa_f1(a, b) == f1.qa_f1(b, a)
    assert 0 <= choice.count(a, b) <= 1
    assert 0 <= fuzzy.code_similarity(a, b) <= 1
    assert fuzzy.ratio(a, a) == 100


def test_importing_the_metrics_loads_no_package_for_them() -> None:
    code = (
        "import sys\n"
        "from unspool.evaluation.metrics import bleu, choice, f1, fuzzy, rouge, rouge_score\n"
        "print(*[m for m in ('jieba', 'rouge', 'nltk', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_jieba_is_quiet_and_keeps_its_cache_to_itself(tmp_path: object) -> None:
    code = "from unspool.evaluation.metrics.words import cut\nprint(cut('中国人民银行行长'))"
    import os

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "UNSPOOL_DATA": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stderr == ""
    assert any(f.startswith("jieba") for f in os.listdir(os.path.join(str(tmp_path), "jieba")))
