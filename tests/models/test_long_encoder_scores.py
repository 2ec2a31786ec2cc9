"""Figures of tasks beside published scripts, scikit-learn, and what can be counted by hand."""

import collections
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import InputError
from unspool.models.long_encoder.tasks.predicting import entities_of
from unspool.models.long_encoder.tasks.scores import (
    answer_scores,
    auc,
    class_scores,
    entity_scores,
)

TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]


def _chunks(tags):
    """Entities by the two rules of conlleval: where a chunk ends, and where one begins."""
    cells = [(t.split("-")[0], t.split("-")[-1] if "-" in t else "") for t in [*tags, "O"]]
    found, begin, before = [], None, ("O", "")
    for at, (prefix, kind) in enumerate(cells):
        old, old_kind = before
        ends = old in "BI" and (prefix in ("B", "O") or kind != old_kind)
        begins = (prefix == "B") or (prefix == "I" and (old == "O" or kind != old_kind))
        if ends:
            found.append((old_kind, begin, at - 1))
        if begins:
            begin = at
        before = (prefix, kind)
    return found


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_entities_are_those_of_conlleval(tags):
    assert entities_of(tags) == _chunks(tags)


def test_entity_scores_are_those_of_seqeval():
    # The example of its documentation, for which it gives 0.50 (MISC 0, PER 1).
    right = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    figures, by_label = entity_scores(right, said)
    assert figures == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert by_label["MISC"]["f1"] == 0
    assert by_label["PER"]["f1"] == 1
    with pytest.raises(InputError, match="2 tags for 1 words"):
        entity_scores([["O"]], [["O", "O"]])


def _squad_f1(said, right):
    """As the script of SQuAD 2.0 has it."""

    def words(text):
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    one, other = words(right), words(said)
    same = sum((collections.Counter(one) & collections.Counter(other)).values())
    if not one or not other:
        return float(one == other)
    if not same:
        return 0.0
    precision, recall = same / len(other), same / len(one)
    return 2 * precision * recall / (precision + recall)


@given(
    st.lists(
        st.tuples(
            st.text("ab the.,é", max_size=8), st.lists(st.text("ab the.,é", max_size=8), max_size=2)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_answers_are_scored_as_the_script_of_squad_does(pairs):
    wanted = [max(_squad_f1(said, text) for text in right or [""]) for said, right in pairs]
    figures = answer_scores(pairs)
    assert figures["f1"] == pytest.approx(np.mean(wanted))
    assert figures["exact"] <= figures["f1"] + 1e-9


def test_answers_and_their_absence():
    figures = answer_scores([("the Aspirin.", ["aspirin", "x"]), ("", []), ("x", [])])
    assert figures["exact"] == pytest.approx(2 / 3)
    assert figures["exact, without one"] == 0.5
    assert figures["f1, with an answer"] == 1


@pytest.mark.parametrize("ties", [False, True])
def test_classes_are_scored_as_scikit_learn_does(ties):
    from sklearn import metrics

    draw = np.random.default_rng(0)
    right = draw.random((40, 3)) < 0.4
    shares = draw.random((40, 3)) + 0.5 * right
    if ties:
        shares = shares.round(1)
    said = shares > 0.7
    figures, by_label = class_scores(("a", "b", "c"), right, said, shares)
    assert figures["auc"] == pytest.approx(metrics.roc_auc_score(right, shares, average="macro"))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(right, said))
    for average in ("micro", "macro"):
        wanted = metrics.f1_score(right, said, average=average)
        assert figures[f"{average} f1"] == pytest.approx(wanted)
    assert by_label["a"]["auc"] == pytest.approx(metrics.roc_auc_score(right[:, 0], shares[:, 0]))
    assert auc(np.ones(3, bool), np.arange(3)) is None
