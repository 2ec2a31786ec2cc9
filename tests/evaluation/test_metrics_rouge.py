"""ROUGE and BLEU against the packages that they reproduce, and in closed form."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claims._hard_texts import pairs, text
from unspool.errors import InputError
from unspool.evaluation.metrics import bleu, rouge, rouge_score

ROUNDS = 300


def package_rouge(prediction: str, reference: str) -> tuple[float, float, float] | None:
    from rouge import Rouge

    try:
        found = Rouge().get_scores([prediction], [reference], avg=True)["rouge-l"]
    except ValueError:
        return None
    return found["r"], found["p"], found["f"]


def package_rouge_zh(prediction: str, reference: str) -> tuple[float, float, float] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rouge_chinese import Rouge

    try:
        found = Rouge().get_scores(prediction, reference)[0]["rouge-l"]
    except ValueError:
        return None
    return found["r"], found["p"], found["f"]


def brute_rouge_l(prediction: str, reference: str) -> tuple[int, int, int]:
    """Hits, distinct words of the reference, distinct words of the prediction: with the path that
    the definition in the package takes, in plain loops."""
    given, wanted = (
        [s.split() or [""] for s in t.split(".") if s] for t in (prediction, reference)
    )
    union: set[str] = set()
    for x in wanted:
        for y in given:
            table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
            for i, a in enumerate(x):
                for j, b in enumerate(y):
                    diagonal = table[i][j] + 1
                    table[i + 1][j + 1] = (
                        diagonal if a == b else max(table[i][j + 1], table[i + 1][j])
                    )
            i, j = len(x), len(y)
            while i and j:
                if x[i - 1] == y[j - 1]:
                    union.add(x[i - 1])
                    i, j = i - 1, j - 1
                elif table[i - 1][j] > table[i][j - 1]:
                    i -= 1
                else:
                    j -= 1
    return len(union), len({w for s in wanted for w in s}), len({w for s in given for w in s})


# Prediction, reference, (hits, distinct words of reference, of prediction); None: undefined.
BY_HAND = [
    ("", "", None),
    ("", "a", None),
    ("a", "", None),
    (".", "a", None),
    ("a", "...", None),
    ("a", "a", (1, 1, 1)),
    ("a", "b", (0, 1, 1)),
    ("a b", "a", (1, 1, 2)),
    ("a a", "a", (1, 1, 1)),
    ("a a a", "a b", (1, 2, 1)),
    ("a b c", "c b a", (1, 3, 3)),
    ("a b c", "a c b", (2, 3, 3)),
    ("a. b. c", "c b a", (3, 3, 3)),
    ("a b c", "c. b. a", (3, 3, 3)),
    ("a.b", "a b", (2, 2, 2)),
    ("3.5", "3 5", (2, 2, 2)),
    (" ", "a", (0, 1, 1)),
    (" ", " ", (1, 1, 1)),
    ("a. ", "a", (1, 1, 2)),
    ("a. ", "a. ", (2, 2, 2)),
    ("a.", "a", (1, 1, 1)),
    ("A", "a", (0, 1, 1)),
    ("a,", "a", (0, 1, 1)),
    ("a\nb", "a b", (2, 2, 2)),
    ("a\u3000b", "a b", (2, 2, 2)),
    ("中国 人民", "中国", (1, 1, 2)),
    ("中国人民", "中国", (0, 1, 1)),
    ("中国。人民", "中国。人民", (1, 1, 1)),
    ("x a y", "a", (1, 1, 3)),
    ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", (4, 5, 8)),
    ("😀 a", "😀", (1, 1, 2)),
    ("1 2 3", "1 2 3", (3, 3, 3)),
    ("a b a b", "b a", (2, 2, 2)),
]


@pytest.mark.parametrize(("prediction", "reference", "counts"), BY_HAND)
def test_rouge_by_hand(
    prediction: str, reference: str, counts: tuple[int, int, int] | None
) -> None:
    found = rouge.rouge_l(prediction, reference)
    if counts is None:
        assert found is None
        return
    hits, wanted, given = counts
    assert found is not None
    assert found[:2] == (hits / wanted, hits / given)
    p, r = hits / given, hits / wanted
    assert found.f == pytest.approx(2 * p * r / (p + r + 1e-8), abs=1e-15)


def test_rouge_equals_its_package() -> None:
    for prediction, reference in pairs(ROUNDS, seed=3, most=60):
        assert rouge.rouge_l(prediction, reference) == package_rouge(prediction, reference)


@settings(max_examples=200, deadline=None)
@given(st.text("ab. c", max_size=60), st.text("ab. c", max_size=60))
def test_rouge_equals_plain_loops(prediction: str, reference: str) -> None:
    found = rouge.rouge_l(prediction, reference)
    if found is None:
        assert not prediction.strip(".") or not reference.strip(".")
        return
    hits, wanted, given = brute_rouge_l(prediction, reference)
    assert found[:2] == (hits / wanted, hits / given)


def test_equal_texts_do_not_reach_one() -> None:
    found = rouge.rouge_l("some words here", "some words here")
    assert found is not None
    assert found.f == 0.999999995


LONGEST = """
import sys
from rouge import Rouge

def metric(a, b):
    try:
        return Rouge().get_scores([a], [b], avg=True)
    except RecursionError:
        return None

def scorer(n):
    words = " ".join(map(str, range(n)))
    return metric(words, words)

sys.setrecursionlimit({limit})
n = 1
while scorer(n + 1):
    n += 1
print(n)
"""


def longest_path_of_the_package(limit: int) -> int:
    """Most equal words in a row that `rouge` gets through under a recursion limit, called as
    LongBench's script calls it: module, scorer, metric, package."""
    code = LONGEST.format(limit=limit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("limit", [70, 120])
def test_the_recursion_limit_is_met_where_the_package_meets_it(limit: int) -> None:
    longest = longest_path_of_the_package(limit)
    fits = " ".join(map(str, range(longest)))
    assert rouge.rouge_l(fits, fits, recursion_limit=limit) is not None
    over = " ".join(map(str, range(longest + 1)))
    assert rouge.rouge_l(over, over, recursion_limit=limit) is None
    assert rouge.rouge_l(over, over) is not None


def test_long_paths_count_steps_not_words() -> None:
    # 600 words meet 600 others of which none is equal: 600 steps left, and the path ends
    a, b = (" ".join(f"{x}{i}" for i in range(600)) for x in "ab")
    assert rouge.rouge_l(a, b, recursion_limit=1000) == (0.0, 0.0, 0.0)


def test_rouge_chinese_equals_its_package() -> None:
    for prediction, reference in pairs(ROUNDS, seed=4, most=60):
        a, b = rouge.spaced(prediction), rouge.spaced(reference)
        assert rouge.rouge_l_zh(a, b) == package_rouge_zh(a, b), (a, b)


def test_the_two_packages_differ() -> None:
    one, other = rouge.rouge_l("a a", "a"), rouge.rouge_l_zh("a a", "a")
    assert one is not None
    assert other is not None
    assert (one.precision, other.precision) == (1.0, 0.5)


def test_rouge_score_equals_its_package() -> None:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for prediction, reference in pairs(ROUNDS, seed=5, most=60):
        wanted = scorer.score(reference, prediction)
        found = rouge_score.rouge_scores(prediction, reference)
        assert found == tuple(wanted[kind].fmeasure for kind in ("rouge1", "rouge2", "rougeL"))


def test_bleu_tokens_equal_sacrebleu() -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    english, chinese = Tokenizer13a(), TokenizerZh()
    draw = random.Random(6)
    for _ in range(ROUNDS):
        sample = text(draw, 60)
        assert " ".join(bleu.tokens_13a(sample)) == english(sample)
        assert " ".join(bleu.tokens_zh(sample)) == chinese(sample)


def test_every_character_is_split_as_sacrebleu_splits_it() -> None:
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    chinese = TokenizerZh()
    for start in range(0, 0x30000, 64):
        sample = "".join(
            f"x{chr(code)}y" for code in range(start, start + 64) if not 0xD800 <= code < 0xE000
        )
        assert " ".join(bleu.tokens_zh(sample)) == chinese(sample), hex(start)


@pytest.mark.parametrize("tokens", ["13a", "zh"])
def test_bleu_counts_and_figure_equal_sacrebleu(tokens: str) -> None:
    from sacrebleu.metrics import BLEU

    draw = random.Random(7)
    for _ in range(40):
        items = [
            (text(draw, 30) + " x", [text(draw, 30) + " x" for _ in range(draw.randint(1, 3))])
            for _ in range(draw.randint(1, 8))
        ]
        counts = [bleu.bleu_counts(p, refs, tokens=tokens) for p, refs in items]
        most = max(len(refs) for _, refs in items)
        columns = [[(r[i] if i < len(r) else None) for _, r in items] for i in range(most)]
        wanted = BLEU(tokenize=tokens, smooth_method="none", effective_order=False).corpus_score(
            [p for p, _ in items], columns
        )
        assert [sum(c.matches[i] for c in counts) for i in range(4)] == wanted.counts
        assert [sum(c.possible[i] for c in counts) for i in range(4)] == wanted.totals
        if most == 1:  # with several, sacreBLEU takes the closest length and M4LE the shortest
            assert 100 * bleu.bleu(counts) == pytest.approx(wanted.score, abs=1e-9)


def test_bleu_in_closed_form() -> None:
    words = "one two three four five six"
    assert bleu.bleu([bleu.bleu_counts(words, [words])]) == 1.0
    # half the length, every n-gram right: the brevity penalty alone, 1 - 8/4
    short = bleu.bleu_counts("a b c d", ["a b c d e f g h", "a b c d e f g h i"])
    assert bleu.bleu([short]) == pytest.approx(math.exp(-1.0))
    assert bleu.bleu([bleu.bleu_counts("a b c", ["a b c"])]) == 0.0  # no 4-gram, no smoothing
    assert bleu.bleu([bleu.bleu_counts("", ["a"])]) == 0.0


def test_bleu_without_references_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one reference"):
        bleu.bleu_counts("a", [])
    with pytest.raises(InputError, match="no token"):
        bleu.bleu([bleu.bleu_counts("a", [""])])
