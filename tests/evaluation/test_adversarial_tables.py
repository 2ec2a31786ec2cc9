"""Answers worked out by hand for metrics whose other tests hold few: empty, odd, ties, scripts."""

from __future__ import annotations

from fractions import Fraction

import pytest

from unspool.evaluation.metrics import choice, f1, fuzzy
from unspool.evaluation.spec import Parts, Response, Sample
from unspool.evaluation.tasks import babilong, mrcr, ruler
from unspool.evaluation.tasks.booookscore import read_one

HALF, THIRD = Fraction(1, 2), Fraction(1, 3)

NUMBERS = {  # of "Paragraph 5": the share of all runs of digits that are 5
    "": 0, " ": 0, "five": 0, "5": 1, "\t5\n": 1, "05": 0, "55": 0, "x5y": 1, "-5": 1, "+5": 1,
    "5.": 1, "5.5": 1, "5,000": HALF, "1e5": HALF, "5 5 5 6": Fraction(3, 4), "6 7 8 9": 0,
    "5 and 55": HALF, "Paragraph 5\n5": 1, "Paragraph\n5": 1, "Paragraph 5 (of 30)": HALF,
    "\uff15": 0, "5 \uff15": HALF, "\u0665": 0, "\u00b25": 1, "5\u00b2": 1, "V": 0,
    "P5P6P7": THIRD, "555": 0, "5" * 50: 0, "5\u00a05": 1, "5/6": HALF, "#5": 1,
}  # fmt: skip


@pytest.mark.parametrize(("said", "wanted"), NUMBERS.items())
def test_paragraph_numbers(said: str, wanted: Fraction | int) -> None:
    assert choice.retrieval(said, "Paragraph 5") == float(wanted)
    assert choice.retrieval(said, "\u6bb5\u843d5", "zh") == float(wanted)
    assert choice.count(said, "5") == float(wanted)


CODE = {  # a reply, the line that counts
    "\n \nx": " ", "a`b\nc": "c", "a#\nb//\nc": "c", "/*x*/": "/*x*/", "x = '#'\ny": "y",
    "x = 'http://a'\ny": "y", "\u6f22\u5b57": "\u6f22\u5b57", "```": "", "\n\n\n# only\n": "",
    "a\n": "a", "%\n": "%", "\x0bx": "\x0bx", "x\x0cy\nz": "x\x0cy", "    ": "    ",
    "\n    return x\n": "    return x", "```\ncode\n```\nx": "code", "#!\n\nx": "",
    "return # done\nreturn": "return", "/ / x": "/ / x", "a\r\n# b": "a\r", "\\n": "\\n",
    "x\ty": "x\ty", "\n\n": "", "`\n`\n`": "", "//": "", "///\nx": "x", "'#'": "", "\u00e9 = 1":
    "\u00e9 = 1", "1\n2\n3": "1", "\u2028#\nx": "x",
}  # fmt: skip


@pytest.mark.parametrize(("said", "line"), CODE.items())
def test_the_line_of_code_that_counts(said: str, line: str) -> None:
    assert fuzzy.code_line(said) == line
    assert fuzzy.code_similarity(said, line or "zz") == (1.0 if line else 0.0)


DICE = [
    ("a", "a", 1), ("a", "b", 0), ("ab", "ab", 1), ("ab", "ba", 1), ("aa", "a", 1),
    ("ab", "a", Fraction(2, 3)), ("abc", "a", HALF), ("abcd", "a", Fraction(2, 5)),
    ("abcde", "a", THIRD), ("a", "abcde", THIRD), ("ab", "bc", HALF), ("abc", "cde", THIRD),
    ("abcd", "cdef", HALF), ("abc", "bcd", Fraction(2, 3)), ("abcd", "bcde", Fraction(3, 4)),
    ("aabb", "ab", 1), ("aab", "abb", 1), ("A", "a", 0), ("aA", "a", Fraction(2, 3)), (" ", " ", 1),
    (" a", "a", Fraction(2, 3)), ("\u00e9", "e", 0), ("\u00e9", "\u00e9", 1),
    ("\u4e2d\u6587", "\u4e2d", Fraction(2, 3)), ("\u4e2d\u6587", "\u6587\u4e2d", 1),
    ("12", "21", 1), ("123", "12", Fraction(4, 5)), ("1234", "12", Fraction(2, 3)),
    ("abcdefghij", "jklmnopqrs", Fraction(1, 10)), ("0", "O", 0), ("ab", "cd", 0),
    ("\t", " ", 0), ("aaaa", "bbbb", 0),
]  # fmt: skip


@pytest.mark.parametrize(("said", "wanted", "score"), DICE)
def test_sets_of_answers(said: str, wanted: str, score: Fraction | int) -> None:
    assert f1.set_f1(said, wanted) == pytest.approx(float(score), abs=1e-15)
    assert f1.set_f1(wanted, said) == pytest.approx(float(score), abs=1e-15)


STRINGS = [  # references, answer, share of them found, whether any is
    (("12",), "12", 1, 1), (("12",), "", 0, 0), (("12",), " 12 ", 1, 1), (("12",), "1 2", 0, 0),
    (("12",), "012", 1, 1), (("12",), "3121", 1, 1), (("12", "12"), "12", 1, 1),
    (("12", "34"), "12", HALF, 1), (("12", "34"), "1234", 1, 1), (("12", "34"), "34 12", 1, 1),
    (("12", "34"), "56", 0, 0), (("12", "123"), "123", 1, 1), (("12", "123"), "12", HALF, 1),
    (("a", "b", "c"), "c", THIRD, 1), (("a", "b", "c"), "cab", 1, 1), (("A",), "a", 1, 1),
    (("a",), "A", 1, 1), (("\u00c9",), "\u00e9", 1, 1), (("e",), "\u00e9", 0, 0),
    (("\u00df",), "SS", 0, 0), (("\u4e2d",), "\u4e2d\u6587", 1, 1), (("a b",), "a  b", 0, 0),
    (("a b",), "a\nb", 0, 0), (("a-b",), "A-B", 1, 1), (("word",), "words", 1, 1),
    (("x", "y"), "only Y", HALF, 1), (("x", "y"), "z", 0, 0), (("12", "34"), "12, 34, 56", 1, 1),
    (("1" * 36,), "1" * 37, 1, 1), (("ab",), "a\u200bb", 0, 0), (("\uff11",), "1", 0, 0),
    (("no",), "I do not know", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("references", "said", "share", "some"), STRINGS)
def test_strings_that_are_found(
    references: tuple[str, ...], said: str, share: Fraction | int, some: int
) -> None:
    sample = Sample(id="s", parts=Parts(), references=references)
    for any_of, wanted in ((False, float(share)), (True, float(some))):
        metric = ruler.StringMatch(any_of)
        assert metric.score(sample, Response(text=said))["score"] == pytest.approx(wanted)


WHERE, NORTH = "Where is Amira?", "What is north of the cellar?"
LABELS = [  # question, references, answer, score; the labels are attic, cellar, garden, kitchen
    (WHERE, "attic", "attic", 1), (WHERE, "attic", "ATTIC", 1), (WHERE, "attic", "", 0),
    (WHERE, "attic", " attic ", 1), (WHERE, "attic", "The attic.", 1), (WHERE, "attic", ".", 0),
    (WHERE, "attic", "attics", 0), (WHERE, "attic", "at tic", 0), (WHERE, "attic", "attic!", 1),
    (WHERE, "attic", "attic,", 1), (WHERE, "attic", "'attic'", 1), (WHERE, "attic", "cellar", 0),
    (WHERE, "attic", "attic or cellar", 0), (WHERE, "attic", "attic. cellar", 1),
    (WHERE, "attic", "cellar. attic", 0), (WHERE, "attic", "attic\ncellar", 0),
    (WHERE, "attic", "attic attic", 1), (WHERE, "attic", "not the attic", 1),
    (WHERE, "attic", "attic-garden", 0), (WHERE, "attic", "in the\tattic", 1),
    (WHERE, "attic", ". attic", 0), (WHERE, "attic", "\u00e0ttic", 0),
    (WHERE, "attic", "attic1", 1), (WHERE, "attic", "the castle", 0),
    (NORTH, "attic", "attic", 1), (NORTH, "attic", "North of the cellar is the attic", 1),
    (NORTH, "attic", "cellar", 0), (NORTH, "attic", "attic, garden", 0), (NORTH, "cellar", "cellar",
    1), (WHERE, "attic cellar", "cellar and attic", 1), (WHERE, "attic cellar", "attic", 0),
    (WHERE, "attic cellar", "attic, cellar, garden", 0), (WHERE, "attic cellar", "", 0),
]  # fmt: skip


@pytest.mark.parametrize(("question", "references", "said", "score"), LABELS)
def test_labels_that_are_named(question: str, references: str, said: str, score: int) -> None:
    meta = {"question": question, "classes": ["attic", "cellar", "garden", "kitchen"]}
    sample = Sample(id="s", parts=Parts(), references=tuple(references.split()), meta=meta)
    assert babilong.Labels().score(sample, Response(text=said))["score"] == score


RATIOS = [  # what follows the mark, 2 M / T with M by hand; the answer is "abcd"
    ("abcd", 1), ("", 0), ("abc", Fraction(6, 7)), ("bcd", Fraction(6, 7)), ("ab", Fraction(2, 3)),
    ("cd", Fraction(2, 3)), ("a", Fraction(2, 5)), ("d", Fraction(2, 5)), ("x", 0), ("wxyz", 0),
    ("dcba", Fraction(1, 4)), ("abxcd", Fraction(8, 9)), ("xabcd", Fraction(8, 9)),
    ("abcdx", Fraction(8, 9)), ("abcdabcd", Fraction(2, 3)), ("aabbccdd", Fraction(2, 3)),
    ("ABCD", 0), ("aBcD", HALF), (" abcd", Fraction(8, 9)), ("abcd\n", Fraction(8, 9)),
    ("a b c d", Fraction(8, 11)), ("acbd", Fraction(3, 4)), ("badc", HALF), ("cdab", HALF),
    ("bd", Fraction(2, 3)), ("ad", Fraction(2, 3)), ("\u00e4bcd", Fraction(3, 4)),
    ("a\u0308bcd", Fraction(8, 9)), ("abcd" + "x" * 4, Fraction(2, 3)), ("x" * 4, 0),
    ("abd", Fraction(6, 7)), ("acd", Fraction(6, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "ratio"), RATIOS)
def test_recalled_texts(said: str, ratio: Fraction | int) -> None:
    sample = Sample(id="s", parts=Parts(), references=("Mk7abcd",), meta={"mark": "Mk7"})
    metric = mrcr.Ratio()
    found = metric.score(sample, Response(text=f"Mk7{said}"))["score"]
    assert found == pytest.approx(float(ratio), abs=1e-12)
    assert metric.score(sample, Response(text=said))["score"] == 0
    assert metric.score(sample, Response(text=f" Mk7{said}"))["score"] == 0


CLEAR = (None, ())
JUDGED = [
    ("Questions: no confusion\nTypes: no confusion", CLEAR),
    ("Questions: no confusion.\nTypes: no confusion.", CLEAR),
    ("Questions: There is no confusion\nTypes: no confusion here", CLEAR),
    ("Questions: NO CONFUSION\nTypes: no confusion", None),
    ("Questions: no confusion\nTypes: No Confusion", CLEAR),
    ("Questions: no confusion\nTypes: salience", None),
    ("Questions: no confusion\nTypes: ", None),
    ("Questions: Who?\nTypes: no confusion", None),
    ("Questions: Who?\nTypes: salience", ("Who?", ("salience",))),
    ("Questions: Who?\nTypes: SALIENCE", ("Who?", ("salience",))),
    ("Questions: Who?\nTypes:  salience ", ("Who?", ("salience",))),
    ("Questions: Who?\nTypes: salience, language", ("Who?", ("salience", "language"))),
    ("Questions: Who?\nTypes: salience, salience", ("Who?", ("salience", "salience"))),
    ("Questions: Who?\nTypes: salience,language", None),
    ("Questions: Who?\nTypes: salience;language", None),
    ("Questions: Who?\nTypes: entity omission", ("Who?", ("entity omission",))),
    ("Questions: Who?\nTypes: entity  omission", None),
    ("Questions: Who?\nTypes: entity", None),
    ("Questions: Who?\nTypes: salience.", None),
    ("Questions: \u8c01\uff1f\nTypes: language", ("\u8c01\uff1f", ("language",))),
    ("Questions: \nTypes: language", ("", ("language",))),
    ("Questions: Who?\n\n\nTypes: language", ("Who?", ("language",))),
    ("Questions: Who?\nWell.\nTypes: language\nTypes: salience", ("Who?", ("language",))),
    ("Questions: Who?\nQuestions: Why?\nTypes: language", None),
    ("Types: language\nQuestions: Who?", None),
    ("1. Questions: Who?\n2. Types: language", ("Who?", ("language",))),
    ("**Questions: Who?**\n**Types: language**", None),
    ("questions: Who?\ntypes: language", None),
    ("Questions:\tWho?\nTypes: language", None),
    ("Questions: Who?\r\nTypes: language\r\n", ("Who?", ("language",))),
    ("Questions: Who? Types: language", None),
    ("", None),
    ("no confusion", None),
]


@pytest.mark.parametrize(("said", "read"), JUDGED)
def test_answers_of_a_judge(said: str, read: tuple[str | None, tuple[str, ...]] | None) -> None:
    assert read_one(said) == (None if read is None else [read])


@pytest.mark.parametrize(
    "table",
    [NUMBERS, CODE, DICE, STRINGS, LABELS, RATIOS, JUDGED],
    ids=lambda table: str(len(table)),
)
def test_every_table_has_thirty_cases(table: list[object]) -> None:
    assert len(table) >= 30
