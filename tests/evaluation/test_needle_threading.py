"""Needle threading: generator, solver, scoring, contour, published rows."""

from __future__ import annotations

import ast
import json
import random
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, MissingData, Unsupported
from unspool.evaluation.spec import LengthLevel, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks
from unspool.evaluation.tasks import needle_threading as needles
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.needle_threading.contour import effective_length

# What the release's README shows of row 5: 2,000 characters, 25 pairs, depth 50, repeat 0.
PUBLISHED = {
    "first_key": "e3e70682-c209-4cac-629f-6fbed82c07cd",
    "first_value": "f728b4fa-4248-5e3a-0a5d-2f346baa9455",
    "last_value": "964a870c-7c87-9b74-1d87-8f9f9cdf5a86",
    "key": "247a8333-f7b0-b7d2-cda8-056c3d15eef7",
    "value": "1759edc3-72ae-2244-8b01-63c1cd9d2b7d",
}
VALUE = "1759edc3-72ae-2244-8b01-63c1cd9d2b7d"
OTHER = "f728b4fa-4248-5e3a-0a5d-2f346baa9455"
SETTINGS = [
    ("single_needle", {}),
    ("multiple_needles", {"n_needles": 4}),
    ("multiple_needles", {"n_needles": 4, "placement": "clustered"}),
    ("conditional_needles", {"n_needles": 4}),
    ("conditional_needles", {"n_needles": 3, "placement": "clustered", "condition": "&"}),
    ("single_thread", {"thread_length": 1}),
    ("single_thread", {"thread_length": 5, "direction": "forward"}),
    ("single_thread", {"thread_length": 5, "direction": "backward"}),
    ("single_thread", {"thread_length": 5, "direction": "random"}),
    ("multi_thread", {"thread_length": 3, "n_threads": 4, "direction": "mixed"}),
    ("multi_thread", {"thread_length": 2, "n_threads": 5, "direction": "backward"}),
    ("branched_thread", {"thread_length": 4, "branches": 3}),
    ("branched_thread", {"thread_length": 4, "branches": 2, "direction": "backward"}),
]
IDS = [f"{task}-{'-'.join(map(str, s.values()))}" for task, s in SETTINGS]


def oracle(row: needles.NeedleRow) -> str | list[str]:
    """The answer, from the text alone, by a walk over dictionaries that knows no places."""
    lines = row.haystack.removeprefix("{").removesuffix("}").replace(", ", "\n").splitlines()
    pairs = [tuple(part.strip('"') for part in line.split(": ")) for line in lines]
    if row.conditional_character != "N/A":
        return [v for k, v in pairs if row.conditional_character in k]
    if row.branches > 1:
        ways = [[row.keys]]
        done = []
        while ways:
            way = ways.pop()
            on = [v for k, v in pairs if k == way[-1]]
            ways += [[*way, v] for v in on]
            done += [] if on else [way]
        most = max(map(len, done))
        (longest,) = [way for way in done if len(way) == most]  # there is one only
        return longest[-1]
    table = dict(pairs)
    answers = []
    for key in [row.keys] if isinstance(row.keys, str) else row.keys:
        value = table[key]
        while row.num_threads and value in table:
            value = table[value]
        answers.append(value)
    return answers[0] if isinstance(row.values, str) else answers


def test_the_published_row_comes_out_bit_for_bit() -> None:
    row = needles.make("single_needle", chars=2000, depth=0.5)
    pairs = json.loads(row.haystack, object_pairs_hook=list)
    assert pairs[0] == [PUBLISHED["first_key"], PUBLISHED["first_value"]] or pairs[0] == (
        PUBLISHED["first_key"],
        PUBLISHED["first_value"],
    )
    assert pairs[-1][1] == PUBLISHED["last_value"]
    assert (row.keys, row.values) == (PUBLISHED["key"], PUBLISHED["value"])
    assert (row.context_length, row.num_kv_pairs, row.needle_depth) == (2000, 25, "50")
    assert (row.num_needles, row.needle_placement, row.thread_length) == (1, "depthwise", 1)
    assert (row.conditional_character, row.thread_direction, row.num_threads) == ("N/A", "N/A", 0)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 10**20])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_uuids_are_the_draws_of_python(count: int, seed: int) -> None:
    draw = random.Random(seed)
    expected = [str(uuid.UUID(int=draw.getrandbits(128))) for _ in range(count)]
    assert needles.uuids(count, seed) == expected


@pytest.mark.parametrize(("task", "settings"), SETTINGS, ids=IDS)
@pytest.mark.parametrize("style", ["json", "lines"])
@pytest.mark.parametrize("pairs", [20, 37, 257])
def test_every_answer_follows_from_the_text(
    task: str, settings: dict[str, object], style: str, pairs: int
) -> None:
    for seed in range(8):
        row = needles.make(task, pairs=pairs, seed=seed, style=style, **settings)
        assert oracle(row) == row.values
        assert needles.verify(row)
        assert row == needles.make(task, pairs=pairs, seed=seed, style=style, **settings)


@pytest.mark.parametrize(("task", "settings"), SETTINGS, ids=IDS)
def test_a_haystack_is_80_characters_a_pair(task: str, settings: dict[str, object]) -> None:
    for chars in (1600, 1679, 8000, 12_345):
        row = needles.make(task, chars=chars, **settings)
        assert len(row.haystack) == row.context_length == 80 * (chars // 80)
        assert row.num_kv_pairs == chars // 80


@pytest.mark.parametrize(("task", "settings"), SETTINGS, ids=IDS)
def test_keys_are_unique_and_only_planted_threads_chain(
    task: str, settings: dict[str, object]
) -> None:
    config = needles.NeedleConfig(task=task, pairs=200, **settings)
    row = needles.build(config)
    pairs = json.loads(row.haystack, object_pairs_hook=list)
    keys, values = [k for k, _ in pairs], [v for _, v in pairs]
    assert len(set(values)) == 200
    chained = len(set(values) & set(keys))
    steps = config.thread_length - 1
    if task == "branched_thread":
        assert len(keys) - len(set(keys)) == steps * (config.branches - 1)
        assert chained == steps
    else:
        assert len(set(keys)) == 200
        assert chained == (steps * config.n_threads if "thread" in task else 0)


@pytest.mark.parametrize("seed", range(6))
def test_directions_run_as_they_say(seed: int) -> None:
    for direction in ("forward", "backward"):
        row = needles.make(
            "single_thread", pairs=50, thread_length=6, direction=direction, seed=seed
        )
        key, offsets = row.keys, []
        table = json.loads(row.haystack)
        while key in table:
            offsets.append(row.haystack.index(f'"{key}": '))
            key = table[key]
        assert len(offsets) == 6
        assert offsets == sorted(offsets, reverse=direction == "backward")


@pytest.mark.parametrize("depth", [0, 0.1, 0.3, 0.5, 0.7, 1])
@pytest.mark.parametrize("pairs", [25, 100, 101])
def test_the_needle_stands_at_its_depth(depth: float | int, pairs: int) -> None:
    row = needles.make("single_needle", pairs=pairs, depth=depth)
    keys = list(json.loads(row.haystack))
    assert keys.index(row.keys) == round(depth * (pairs - 1))
    forward = needles.make("single_thread", pairs=pairs, thread_length=4, depth=depth)
    last = list(json.loads(forward.haystack).values()).index(forward.values)
    assert last == 3 + round(depth * (pairs - 4))
    anywhere = needles.make(
        "single_thread", pairs=pairs, thread_length=4, depth=depth, direction="random"
    )
    place = list(json.loads(anywhere.haystack).values()).index(anywhere.values)
    assert place == round(depth * (pairs - 1))


def test_clustered_needles_stand_together_and_random_ones_do_not() -> None:
    def places(**settings: object) -> list[int]:
        row = needles.make("multiple_needles", pairs=400, n_needles=6, **settings)
        keys = list(json.loads(row.haystack))
        return sorted(keys.index(key) for key in row.keys)

    together = places(placement="clustered")
    assert together == list(range(together[0], together[0] + 6))
    assert places(placement="clustered", depth=0)[0] == 0
    assert places(placement="clustered", depth=1)[-1] == 399
    apart = places(placement="random")
    assert apart[-1] - apart[0] > 6


def test_a_haystack_is_the_same_at_every_depth_and_in_every_task_but_for_what_is_planted() -> None:
    one, other = (needles.make("single_needle", pairs=30, depth=d) for d in (0.0, 0.8))
    assert one.haystack == other.haystack
    thread = needles.make("single_thread", pairs=30, thread_length=3)
    changed = [
        a != b
        for a, b in zip(
            json.loads(one.haystack).items(), json.loads(thread.haystack).items(), strict=True
        )
    ]
    assert sum(changed) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "single_needle"}, "chars or pairs"),
        ({"task": "single_needle", "chars": 2000, "pairs": 25}, "chars or pairs"),
        ({"task": "single_needle", "chars": 79}, "at least one pair"),
        ({"task": "single_needle", "pairs": 0}, "at least one pair"),
        ({"task": "pointer", "pairs": 5}, "single_needle"),
        ({"task": "single_needle", "pairs": 5, "depth": 1.5}, "between 0 and 1"),
        ({"task": "single_thread", "pairs": 5, "thread_length": 6}, "holds 5"),
        ({"task": "multi_thread", "pairs": 5, "thread_length": 3, "n_threads": 2}, "plants 6"),
        ({"task": "branched_thread", "pairs": 5, "thread_length": 4}, "plants 7"),
        ({"task": "branched_thread", "pairs": 5, "branches": 1}, "branches >= 2"),
        ({"task": "multiple_needles", "pairs": 5, "n_needles": 0}, "n_needles must be >= 1"),
        (
            {"task": "single_thread", "pairs": 5, "direction": "backward", "depth": 0.5},
            "takes no depth",
        ),
        ({"task": "multi_thread", "pairs": 5, "depth": 0.5}, "several places"),
        ({"task": "multiple_needles", "pairs": 5, "depth": 0.5}, "clustered"),
        ({"task": "conditional_needles", "pairs": 5, "condition": "a"}, "can occur in any key"),
        ({"task": "conditional_needles", "pairs": 5, "condition": "-"}, "can occur in any key"),
        ({"task": "conditional_needles", "pairs": 5, "condition": '"'}, "one printable"),
        ({"task": "conditional_needles", "pairs": 5, "condition": "**"}, "one printable"),
        ({"task": "single_needle", "pairs": 5, "style": "yaml"}, "json, lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
        needles.make(**settings)


def test_verify_finds_a_changed_answer_and_a_missing_key() -> None:
    row = needles.make("single_needle", pairs=9)
    assert not needles.verify(needles.NeedleRow(**{**row.to_json(), "values": OTHER}))
    with pytest.raises(InputError, match="lacks"):
        needles.verify(needles.NeedleRow(**{**row.to_json(), "keys": "nowhere"}))
    with pytest.raises(InputError, match="no JSON object"):
        needles.solve(needles.NeedleRow(**{**row.to_json(), "haystack": '{"a": '}))


def released(reply: str, answer: str) -> bool | None:
    """The rule of the release's example, word for word of its meaning; None where it raises."""
    try:
        value = ast.literal_eval(reply)
        return bool(value[0 : len(str(answer))] == str(answer))
    except Exception:
        return None


SINGLE = [  # reply, parsed, literal, prefix, substring
    (f'"{VALUE}"', 1, 1, 1, 1),
    (f"'{VALUE}'", 1, 1, 1, 1),
    (f' "{VALUE}"', 1, 1, 1, 1),
    (f'"{VALUE}"\n', 1, 1, 1, 1),
    (f'"{VALUE} and more"', 1, 1, 1, 1),
    (f'" {VALUE}"', 1, 0, 1, 1),
    (f'["{VALUE}"]', 1, 0, 0, 1),
    (f'{{"value": "{VALUE}"}}', 1, 0, 0, 1),
    (f'"""{VALUE}"""', 1, 1, 1, 1),
    (f'"{VALUE[:18]}" "{VALUE[18:]}"', 1, 1, 1, 0),
    (f'"{VALUE.upper()}"', 1, 0, 0, 0),
    (f'"{VALUE[:-1]}"', 1, 0, 0, 0),
    (f'"{OTHER}"', 1, 0, 0, 0),
    (f'b"{VALUE}"', 1, 0, 0, 1),
    ('""', 1, 0, 0, 0),
    ("42", 1, 0, 0, 0),
    ("None", 1, 0, 0, 0),
    (VALUE, 0, 0, 1, 1),
    (f" {VALUE}\n", 0, 0, 1, 1),
    (f"`{VALUE}`", 0, 0, 1, 1),
    (f"\u201c{VALUE}\u201d", 0, 0, 1, 1),
    (f"{VALUE}.", 0, 0, 1, 1),
    (f"{VALUE}junk", 0, 0, 1, 1),
    (f"Value: {VALUE}", 0, 0, 0, 1),
    (f"The value is {VALUE}", 0, 0, 0, 1),
    (f'"{VALUE}', 0, 0, 1, 1),
    (f"{OTHER}, {VALUE}", 0, 0, 0, 1),
    ("", 0, 0, 0, 0),
    (" \n\t", 0, 0, 0, 0),
    ("I do not know", 0, 0, 0, 0),
    (VALUE.replace("-", ""), 0, 0, 0, 0),
    (VALUE.replace("-", "\u2011"), 0, 0, 0, 0),
    (f"\\d {VALUE}", 0, 0, 0, 1),
    (f"'\\d{VALUE}'", 1, 0, 0, 1),
    ("(" * 5000, 0, 0, 0, 0),
    ("\x00", 0, 0, 0, 0),
]


@pytest.mark.parametrize(("reply", "parsed", "literal", "prefix", "substring"), SINGLE)
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_single_answers_by_hand(
    reply: str, parsed: int, literal: int, prefix: int, substring: int
) -> None:
    found = needles.score_single(reply, VALUE)
    assert found == {
        "parsed": parsed,
        "literal": literal,
        "prefix": prefix,
        "substring": substring,
    }
    assert found["literal"] == (released(reply, VALUE) or 0)


LISTS = [  # reply, answers, parsed, literal, prefix, substring
    ('["a1", "b2"]', ["a1", "b2"], 1, 1, 1, 1),
    ("['a1', 'b2']", ["a1", "b2"], 1, 1, 1, 1),
    ("('a1', 'b2')", ["a1", "b2"], 1, 1, 1, 1),
    ("'a1', 'b2'", ["a1", "b2"], 1, 1, 1, 1),
    ("['b2', 'a1']", ["a1", "b2"], 1, 0, 0, 1),
    ("['a1']", ["a1", "b2"], 1, 0.5, 0.5, 0.5),
    ("['a1', 'b2', 'c3']", ["a1", "b2"], 1, 1, 1, 1),
    ("['x', 'a1', 'b2']", ["a1", "b2"], 1, 0, 0, 1),
    ("['a1', 'a1']", ["a1", "b2"], 1, 0.5, 0.5, 0.5),
    ("[' a1', 'b2 ']", ["a1", "b2"], 1, 0, 1, 1),
    ("[]", ["a1"], 1, 0, 0, 0),
    ("", ["a1"], 0, 0, 0, 0),
    ("a1, b2", ["a1", "b2"], 0, 0, 1, 1),
    ("a1,b2", ["a1", "b2"], 0, 0, 1, 1),
    ("a1\nb2", ["a1", "b2"], 0, 0, 1, 1),
    ("[a1, b2]", ["a1", "b2"], 0, 0, 1, 1),
    ('"a1", \'b2', ["a1", "b2"], 0, 0, 1, 1),
    ("a1 b2", ["a1", "b2"], 0, 0, 0, 1),
    ("The values are a1, b2", ["a1", "b2"], 0, 0, 0.5, 1),
    ("{'a1': 1}", ["a1"], 1, 0, 0, 1),
    ("'a1'", ["a1"], 1, 0, 1, 1),
    ("7", ["7"], 1, 0, 1, 1),
    ("[7]", ["7"], 1, 1, 1, 1),
    ("['a1', None]", ["a1", "None"], 1, 1, 1, 1),
    ("a1,,b2", ["a1", "b2"], 0, 0, 1, 1),
    ("a1; b2", ["a1", "b2"], 0, 0, 0, 1),
    ("- a1\n- b2", ["a1", "b2"], 0, 0, 0, 1),
    ("```['a1']```", ["a1"], 0, 0, 1, 1),
    ("A1, B2", ["a1", "b2"], 0, 0, 0, 0),
    ("a1, b", ["a1", "b2"], 0, 0, 0.5, 0.5),
    ("a12, b2", ["a1", "b2"], 0, 0, 0.5, 1),
    ("[]", [], 1, 1, 1, 1),
    ("a1", [], 0, 0, 0, 1),
]


@pytest.mark.parametrize(("reply", "answers", "parsed", "literal", "prefix", "substring"), LISTS)
def test_lists_by_hand(
    reply: str,
    answers: list[str],
    parsed: int,
    literal: float | int,
    prefix: float | int,
    substring: float | int,
) -> None:
    found = needles.score_list(reply, answers)
    if reply in ("{'a1': 1}", "'a1'", "7"):
        parsed = 0  # a literal, but no list
    assert found == {
        "parsed": parsed,
        "literal": literal,
        "prefix": prefix,
        "substring": substring,
    }


@given(st.text(max_size=60), st.booleans())
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_any_reply_gets_the_released_verdict(reply: str, quoted: bool) -> None:
    reply = repr(reply) if quoted else reply
    found = needles.score_single(reply, VALUE)
    assert found["literal"] == (released(reply, VALUE) or 0)
    assert all(value in (0.0, 1.0) for value in found.values())
    listed = needles.score_list(reply, [VALUE, OTHER])
    assert all(0 <= value <= 1 for value in listed.values())


def responses(task: needles.NeedleThreading, how: object, **options: object) -> list[float]:
    level = LengthLevel("chars", 4000)
    scores = []
    for sample in task.samples(level, 22, **options):
        scores.append(task.metric.score(sample, Response(text=how(sample)))["score"])
    return scores


def off_by_one(sample: Sample) -> str:
    """Follows a thread one pair too short."""
    table = json.loads(sample.parts.context)
    before = {v: k for k, v in table.items()}
    return repr(before[sample.references[0]])


@pytest.mark.parametrize("task", find_tasks("needle-threading"), ids=lambda task: task.spec.name)
def test_perfect_answers_score_1_and_empty_ones_0(task: needles.NeedleThreading) -> None:
    if task.spec.kind == "choice":
        for sample in task.samples(LengthLevel("chars", 4000), 10):
            assert len(sample.choices) == len(set(sample.choices)) == 16
            ranks = tuple(float(c in sample.references) for c in sample.choices)
            assert task.metric.score(sample, Response(logprobs=ranks)) == {"score": 1.0}
            wrong = tuple(-rank for rank in ranks)
            assert task.metric.score(sample, Response(logprobs=wrong)) == {"score": 0.0}
        return
    as_list = ("multiple", "conditional", "multi_")

    def perfect(sample: Sample) -> str:
        listed = any(word in task.spec.name for word in as_list)
        return repr(list(sample.references)) if listed else repr(sample.references[0])

    assert responses(task, perfect) == [1.0] * 22
    assert responses(task, lambda sample: "") == [0.0] * 22
    if "single_thread" in task.spec.name:
        assert responses(task, off_by_one) == [0.0] * 22


def test_a_model_that_sees_only_the_end_gives_a_step() -> None:
    task = find_tasks("needle-threading/single_needle")[0].with_depths(needles.DEPTHS)
    for sample in task.samples(LengthLevel("chars", 8000), 22):
        seen = sample.parts.context[-4000:]
        key = sample.meta["keys"]
        place = seen.find(f'"{key}": "')
        reply = seen[place + 41 : place + 77] if place >= 0 else ""
        score = task.metric.score(sample, Response(text=reply))["score"]
        # Pairs 50 to 99 of 100 are whole in the last 4,000 characters.
        assert score == float(round(sample.depth * 99) >= 50)


def test_samples_keep_their_haystack_over_depths_and_do_not_depend_on_n() -> None:
    (task,) = find_tasks("needle-threading/single_needle")
    level = LengthLevel("chars", 2000)
    few, many = list(task.samples(level, 7, seed=3)), list(task.samples(level, 12, seed=3))
    assert few == many[:7]
    assert [s.depth for s in many[:6]] == [0.0, 0.25, 0.5, 0.75, 1.0, 0.0]
    assert len({s.parts.context for s in many[:5]}) == 1
    assert many[5].parts.context != many[0].parts.context
    assert len({s.id for s in many}) == 12
    assert all(Sample.from_json(s.to_json()) == s for s in many)


@pytest.mark.parametrize("budget", [150, 1000, 1001, 4099])
def test_a_level_in_tokens_is_filled_and_never_passed(budget: int) -> None:
    def words(text: str) -> int:
        return len(text.replace("-", " - ").split())

    (task,) = find_tasks("needle-threading/single_thread")
    for sample in task.samples(LengthLevel("tokens", budget), 6, size=words):
        parts = sample.parts
        used = words(parts.context + parts.query + parts.answer_prefix)
        assert budget - 18 <= used <= budget
    with pytest.raises(InputError, match="Choose a longer level"):
        next(task.samples(LengthLevel("tokens", 40), 1, size=words))


@given(
    st.integers(0, 400),
    st.integers(0, 60),
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_fitting_finds_a_count_that_fits(
    limit: int, fixed: int, steps: list[int], low: int
) -> None:
    def size_of(count: int) -> int:
        whole, rest = divmod(count, len(steps))
        return fixed + whole * (sum(steps) + 1) + sum(steps[:rest])

    fit = Fitter(limit, low=low, most=500)
    for _ in range(3):
        count = fit(size_of)
        if count < low:
            assert count == low - 1
            assert size_of(low) > limit
        else:
            assert size_of(count) <= limit
            assert count == 500 or size_of(count + 2 * len(steps) + 2) > limit


def test_depth_decides_which_tasks_have_one() -> None:
    deep = {t.spec.name for t in find_tasks("needle-threading") if t.spec.depths}
    assert "needle-threading/single_needle" in deep
    assert "needle-threading/single_thread_backward" not in deep
    assert "needle-threading/multiple_needles_clustered" in deep
    assert "needle-threading/multi_thread" not in deep


def test_a_list_is_not_chosen() -> None:
    with pytest.raises(ConfigError, match="list"):
        needles.task("multi_thread", form="choice", n_threads=2)


def test_effective_length_by_hand() -> None:
    cells = {
        (1000, 1): 1.0,
        (2000, 1): 0.8,
        (4000, 1): 0.6,
        (8000, 1): 1.0,
        (1000, 5): 0.5,
        (2000, 5): 1.0,
        (1000, 2): 0.9,
        (4000, 2): 0.9,
        (1000, 3): 0.75,
        (2000, 3): 0.25,
    }
    found = effective_length(cells)
    assert found.by_difficulty[1.0] == pytest.approx(2500)  # a quarter of the way from 0.8 to 0.6
    assert found.by_difficulty[5.0] == 0.0
    assert found.by_difficulty[2.0] == 4000.0
    assert found.by_difficulty[3.0] == 1000.0
    assert found.overall == 0.0
    assert effective_length({(10, 0): 1}, 1).overall == 10.0
    with pytest.raises(ConfigError, match="no cells"):
        effective_length({})
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        effective_length({(10, 0): 1.0}, 0)


def test_tokenizer_table_counts_characters_a_token() -> None:
    (row,) = needles.tokenizer_table({"chars": list}, "some prose", pairs=10)
    assert (row.prose, row.uuids) == (1.0, 1.0)
    (row,) = needles.tokenizer_table({"words": str.split}, "some more prose", pairs=10)
    assert row.prose == 5.0
    assert row.uuids == 40.0
    with pytest.raises(ConfigError, match="empty"):
        needles.tokenizer_table({"words": str.split}, "")


def test_published_files_are_read_in_each_of_their_forms(tmp_path: Path) -> None:
    rows = [needles.make("single_needle", chars=2000, depth=d, row_id=i).to_json()
            for i, d in enumerate((0.0, 0.5, 1.0))]  # fmt: skip
    for row in rows:
        del row["branches"]
    expected = [needles.NeedleRow.from_json(row) for row in rows]
    columns = {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}
    forms = {
        "list.json": json.dumps(rows),
        "lines.jsonl": "\n".join(map(json.dumps, rows)),
        "columns.json": json.dumps(columns),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert needles.load(tmp_path / name) == expected
    folder = tmp_path / "json_data"
    folder.mkdir()
    (folder / "Single_Needle.json").write_text(forms["list.json"])
    assert needles.load(tmp_path) == needles.load(folder) == expected
    (task,) = find_tasks("needle-threading/single_needle")
    samples = list(task.samples(None, 9, source=Source(kind="release", path=str(tmp_path))))
    assert [s.depth for s in samples] == [0.0, 0.5, 1.0]
    assert [s.references for s in samples] == [(row.values,) for row in expected]
    level = LengthLevel("chars", 4000)
    assert not list(task.samples(level, 9, source=Source(kind="release", path=str(tmp_path))))


def test_lists_in_published_rows_may_be_text(tmp_path: Path) -> None:
    row = needles.make("multiple_needles", pairs=9, n_needles=3).to_json()
    row["keys"], row["values"] = str(row["keys"]), str(row["values"])
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (read,) = needles.load(tmp_path / "rows.json", "multiple_needles")
    assert needles.verify(read)


def test_data_that_is_not_there_or_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"evaluate make --task needle-threading/single_thread"):
        needles.load(tmp_path, "single_thread")
    with pytest.raises(MissingData, match=r"json_data\.zip"):
        needles.load(tmp_path / "nothing")
    (task,) = find_tasks("needle-threading/single_needle")
    with pytest.raises(MissingData, match="not given"):
        next(task.samples(None, 1, source=Source(kind="release")))
    bad = tmp_path / "bad.json"
    for text, said in (
        ('[{"id": 1}]', "row 1 lacks haystack"),
        ("[1, 2]", "neither rows nor columns"),
        ('{"id": 1}\nnonsense', "line 2 is no JSON"),
    ):
        bad.write_text(text)
        with pytest.raises(InputError, match=said):
            needles.load(bad)


def test_the_table_of_the_release_example_is_scored(tmp_path: Path) -> None:
    (task,) = find_tasks("needle-threading/single_needle")
    table = tmp_path / "predictions.csv"
    table.write_text(
        "Question_ID,Output,Answer,Correct?\n"
        f"0,{VALUE},{VALUE},True\n1,{OTHER},{VALUE},False\n2,{VALUE} etc,{VALUE},True\n"
    )
    found = [task.metric.score(p.sample, p.response) for p in task.read_predictions(table)]
    assert [each["literal"] for each in found] == [1.0, 0.0, 1.0]
    assert task.metric.aggregate(found)["literal"] == pytest.approx(200 / 3)
    table.write_text("id,Output\n")
    with pytest.raises(InputError, match="Question_ID, Answer"):
        list(task.read_predictions(table))
    table.write_text("Question_ID,Output,Answer\n")
    with pytest.raises(InputError, match="no predictions"):
        list(task.read_predictions(table))
    (thread,) = find_tasks("needle-threading/single_thread")
    with pytest.raises(Unsupported, match="no prediction files"):
        thread.read_predictions(table)


def test_long_haystacks_are_made_in_no_time() -> None:
    started = time.perf_counter()
    for seed in range(10):
        needles.make("single_thread", chars=200_000, thread_length=25, seed=seed)
    assert time.perf_counter() - started < 5  # 500 take a second or two on an idle core
