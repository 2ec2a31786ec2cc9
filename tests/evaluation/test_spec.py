"""The words of the contract: lengths, JSON trips, digests, task names."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool import _registry
from unspool.errors import ConfigError
from unspool.evaluation.spec import (
    LengthLevel,
    Metric,
    Parts,
    Request,
    Response,
    Sample,
    TaskSpec,
    mean_percent,
)
from unspool.evaluation.tasks import find_tasks, task
from unspool.evaluation.tasks.base import Task


@pytest.mark.parametrize(
    ("text", "unit", "nominal"),
    [
        ("8k", "tokens", 8192),
        ("8k", "tokens:gpt2", 8192),
        ("8k", "words", 8000),
        ("1.5k", "chars", 1500),
        ("1m", "tokens", 1 << 20),
        ("512", "pairs", 512),
        ("3", "shots", 3),
        (" 2K ", "words", 2000),
    ],
)
def test_lengths_are_read_in_their_unit(text: str, unit: str, nominal: int) -> None:
    level = LengthLevel.parse(text, unit)
    assert (level.nominal, level.upper) == (nominal, nominal)
    assert LengthLevel.parse(level.name, unit) == level


@pytest.mark.parametrize("text", ["", "k", "-1", "0", "8kb", "1.0001k", "eight"])
def test_a_wrong_length_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="A length is a number"):
        LengthLevel.parse(text, "words")


def test_units_and_bounds_are_checked() -> None:
    with pytest.raises(ConfigError, match="bytes"):
        LengthLevel("bytes", 5)
    with pytest.raises(ConfigError, match="lower 9"):
        LengthLevel("words", 5, lower=9)


texts = st.text(max_size=20)
tuples = st.lists(texts, max_size=3).map(tuple)
# Built in the test, not in the strategy: checking shapes draws random numbers.
samples = st.fixed_dictionaries(
    {
        "id": texts,
        "parts": st.tuples(texts, texts, texts, texts),
        "references": tuples,
        "choices": tuples,
        "level": texts,
        "depth": st.none() | st.floats(0, 1),
        "lengths": st.dictionaries(texts, st.integers(0, 10), max_size=2),
        "classes": tuples,
        "meta": st.dictionaries(texts, st.integers() | texts, max_size=2),
    }
)
requests = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["generate", "loglikelihood", "choice"]),
        "prompt": texts
        | st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=2).map(tuple),
        "continuations": tuples,
        "stop": tuples,
    }
)
responses = st.fixed_dictionaries(
    {
        "text": texts,
        "logprobs": st.lists(st.floats(-9, 0), max_size=3).map(tuple),
        "greedy": st.lists(st.booleans(), max_size=3).map(tuple),
    }
)


@given(samples, requests, responses)
def test_json_round_trip(
    sample: dict[str, Any], asked: dict[str, Any], response: dict[str, Any]
) -> None:
    values = [
        Sample(**{**sample, "parts": Parts(*sample["parts"])}),
        Request(**asked),
        Response(**response),
    ]
    for value in values:
        assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize("name", _registry.names("task"))
def test_every_task_resolves_to_a_sound_spec(name: str) -> None:
    found = task(name)
    assert isinstance(found, Task)
    assert isinstance(found.metric, Metric)
    assert found.spec.name == name
    assert found.spec.metric == found.metric.id
    assert TaskSpec.from_json(json.loads(json.dumps(found.spec.to_json()))) == found.spec


def test_the_digest_changes_with_everything_that_decides_the_answer() -> None:
    base = Request(kind="generate", prompt="a")
    others = [
        replace(base, prompt="b"),
        replace(base, prompt=({"role": "user", "content": "a"},)),
        replace(base, kind="choice"),
        replace(base, continuations=("a",)),
        replace(base, max_new_tokens=1),
        replace(base, stop=("x",)),
        replace(base, temperature=0.5),
        replace(base, seed=1),
        replace(base, repeat=1),
        replace(base, system="s"),
        replace(base, answer_prefix="p"),
    ]
    digests = {each.digest for each in [base, *others]}
    assert len(digests) == len(others) + 1
    assert base.digest == replace(base).digest


def test_a_benchmark_and_an_ability_name_groups() -> None:
    whole = [t.spec.name for t in find_tasks("passkey")]
    assert whole == ["passkey/choice", "passkey/digits", "passkey/loglikelihood"]
    assert [t.spec.name for t in find_tasks("passkey/retrieval")] == whole
    assert find_tasks("passkey/digits, passkey")[0].spec.name == "passkey/digits"


@pytest.mark.parametrize(
    ("name", "near"),
    [("passkey/digit", "passkey/digits"), ("paskey", "passkey"), ("", "named")],
)
def test_an_unknown_task_lists_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        find_tasks(name)


def test_wrong_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match="benchmark/task"):
        TaskSpec(name="digits", ability="x")
    with pytest.raises(ConfigError, match="max_new_tokens"):
        TaskSpec(name="a/b", ability="x", max_new_tokens=0)
    with pytest.raises(ConfigError, match="depths"):
        TaskSpec(name="a/b", ability="x", depths=(2.0,))


def test_the_mean_is_a_percentage() -> None:
    assert mean_percent([{"score": 1.0}, {"score": 0.0}, {"score": 0.0}]) == 33.33
    with pytest.raises(ConfigError, match="empty"):
        mean_percent([])
