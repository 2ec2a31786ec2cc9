"""A run folder: resume after a kill, locks, conflicts, caches, costs, and the order of calls."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.scripts import (
    Blind,
    Crash,
    RandomChoice,
    Window,
    echo,
    empty,
    passkey,
    perfect,
)
from unspool.backends.scripted import ScriptedModel
from unspool.errors import (
    BackendError,
    ConfigError,
    InputError,
    OverflowPolicyError,
    RunConflict,
    RunLocked,
)
from unspool.evaluation import _io
from unspool.evaluation.cost import Price
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.report import read_report, score_folder
from unspool.evaluation.run import evaluate, plan_run
from unspool.types import Generation, Overflow, Prompt, Usage

LENGTHS = ("96", "160")
FILES = ("report.json", "scores.jsonl", "samples.jsonl", "manifest.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def responses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


def test_a_perfect_model_scores_100_in_every_kind(tmp_path: Path) -> None:
    report = evaluate(perfect(passkey), "passkey", lengths=LENGTHS, limit=5, out=tmp_path / "r")
    assert {name: found["overall"]["mean"] for name, found in report.data["tasks"].items()} == {
        "passkey/choice": 100,
        "passkey/digits": 100,
        "passkey/loglikelihood": 100,
    }
    assert report.data["missing"] == 0
    assert report.effective_length("passkey/digits") == 160


def test_a_window_gives_a_step_and_its_effective_length(tmp_path: Path) -> None:
    model = Window(passkey, 256)
    report = evaluate(
        model,
        "passkey/digits",
        lengths=("128", "256", "512", "1k"),
        limit=10,
        out=tmp_path / "r",
    )
    for rule in ("ruler", "nolima", "threshold:75"):
        assert report.effective_length("passkey/digits", rule) == 256
    cells = report.data["tasks"]["passkey/digits"]["cells"]
    assert {cell["mean"] for cell in cells} == {0.0, 100.0}
    for level in ("512", "1k"):  # once seen, seen at every greater depth
        seen = [c["mean"] for c in cells if c["level"] == level]
        assert seen == sorted(seen)
        assert 0.0 in seen


@pytest.mark.parametrize(("model", "score"), [(echo(), 0.0), (empty(), 0.0)], ids=["echo", "empty"])
def test_models_that_answer_nothing_score_nothing(
    tmp_path: Path, model: ScriptedModel, score: float
) -> None:
    report = evaluate(model, "passkey/digits", lengths=("96",), limit=5, out=tmp_path / "r")
    assert report.score("passkey/digits", "96") == score


def test_a_blind_half_shows_in_the_depths(tmp_path: Path) -> None:
    report = evaluate(
        Blind(passkey), "passkey/digits", lengths=("512",), limit=20, out=tmp_path / "r"
    )
    depths = {d["depth"]: d["mean"] for d in report.data["tasks"]["passkey/digits"]["depths"]}
    assert depths == {0.0: 0.0, 0.25: 0.0, 0.5: 0.0, 0.75: 100.0, 1.0: 100.0}


@pytest.mark.slow
def test_a_random_choice_lies_in_its_binomial_interval(tmp_path: Path) -> None:
    n = 300
    report = evaluate(
        RandomChoice(7), "passkey/choice", lengths=("96",), limit=n, out=tmp_path / "r"
    )
    # Ten candidates: 99.9% of Binomial(300, 0.1) lies within 30 +- 3.3 * 5.2.
    assert abs(report.score("passkey/choice") * n / 100 - n / 10) < 3.3 * (n * 0.09) ** 0.5


# --- resume


_CHILD = """
import sys
from pathlib import Path
from tests.evaluation.scripts import Crash, passkey
from unspool.evaluation.run import evaluate
at = int(sys.argv[3])
model = Crash(passkey, Path(sys.argv[2]), None if at < 0 else at)
evaluate(model, "passkey/digits", lengths=("96", "160"), limit=15, out=sys.argv[1])
"""


def child(out: Path, log: Path, at: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(out), str(log), str(at)],
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def kill_and_resume(tmp_path: Path, points: Sequence[int]) -> None:
    whole = tmp_path / "whole"
    evaluate(
        Crash(passkey, tmp_path / "whole.log"), "passkey/digits", lengths=LENGTHS, limit=15,
        out=whole,
    )  # fmt: skip
    expected = contents(whole)
    for at in points:
        out, log = tmp_path / f"killed{at}", tmp_path / f"{at}.log"
        assert child(out, log, at).wait(60) == -9
        assert len(responses(out)) == at
        evaluate(Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=15, out=out)
        assert contents(out) == expected
        paid = log.read_text().splitlines()
        assert len(paid) == len(set(paid)) == 30


def test_killed_and_resumed_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, random.Random(1).sample(range(1, 30), 4))


@pytest.mark.slow
def test_killed_at_twenty_points_and_resumed(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, random.Random(2).sample(range(1, 30), 20))


@pytest.mark.slow
def test_killed_at_any_time_and_resumed(tmp_path: Path) -> None:
    """The signal comes from outside, also while samples are planned and files are written."""
    whole = tmp_path / "whole"
    evaluate(perfect(passkey), "passkey/digits", lengths=LENGTHS, limit=15, out=whole)
    draw = random.Random(3)
    for number in range(10):
        out, log = tmp_path / f"killed{number}", tmp_path / f"{number}.log"
        process = child(out, log, -1)
        while not out.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.06)
        process.kill()
        process.wait(60)
        evaluate(perfect(passkey), "passkey/digits", lengths=LENGTHS, limit=15, out=out)
        assert contents(out) == contents(whole)
        assert not list(out.glob(".tmp-*"))


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    out, log = tmp_path / "r", tmp_path / "log"
    evaluate(Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=5, out=out)
    expected = contents(out)
    path = out / "responses.jsonl"
    raw = path.read_bytes()
    last = raw[: raw.rindex(b"\n", 0, -1) + 1]
    for torn in (raw[:-1], raw[:-40], last + b'{"task": 1', last + b"\0\0\0\n"):
        path.write_bytes(torn)
        log.unlink(missing_ok=True)
        evaluate(Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=5, out=out)
        assert contents(out) == expected
        assert len(log.read_text().splitlines()) == 1
    path.write_bytes(b"broken\n" + raw)
    with pytest.raises(InputError, match=r"Line 1 of responses\.jsonl"):
        evaluate(Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=5, out=out)


def test_a_finished_run_asks_nothing(tmp_path: Path) -> None:
    model = perfect(passkey)
    evaluate(model, "passkey/digits", lengths=LENGTHS, limit=5, out=tmp_path / "r")
    asked = len(model.prompts)
    evaluate(model, "passkey/digits", lengths=LENGTHS, limit=5, out=tmp_path / "r")
    assert len(model.prompts) == asked == 10


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lengths": ("128", "512")}, "settings.lengths"),
        ({"limit": 4}, "settings.limit"),
        ({"tasks": "passkey/choice"}, "tasks.passkey/"),
        ({"settings": RunSettings(seed=1)}, "settings.seed was 0 and is now 1"),
        ({"settings": RunSettings(chat="never")}, "settings.chat"),
        ({"window": 5000}, "model.window"),
        ({"model": Window(passkey, 7)}, None),
    ],
)
def test_changed_settings_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], field: str | None
) -> None:
    call: dict[str, Any] = {
        "model": perfect(passkey),
        "tasks": "passkey/digits",
        "lengths": ("128",),
        "limit": 3,
        "out": tmp_path / "r",
    }
    evaluate(**call)
    before = contents(tmp_path / "r")
    if field is None:  # scripted models share one name
        evaluate(**{**call, **change})
        return
    with pytest.raises(RunConflict, match=field):
        evaluate(**{**call, **change})
    assert contents(tmp_path / "r") == before


def test_changed_samples_are_refused(tmp_path: Path) -> None:
    evaluate(perfect(passkey), "passkey/digits", lengths=("96",), limit=3, out=tmp_path / "r")
    path = tmp_path / "r" / "samples.jsonl"
    path.write_bytes(path.read_bytes().replace(b"meadow", b"shadow"))
    with pytest.raises(RunConflict, match=r"samples\.jsonl"):
        evaluate(perfect(passkey), "passkey/digits", lengths=("96",), limit=3, out=tmp_path / "r")


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with _io.locked(tmp_path / "r"), pytest.raises(RunLocked, match="Another process"):
        evaluate(perfect(passkey), "passkey/digits", lengths=("96",), limit=3, out=tmp_path / "r")


# --- calls


def test_the_longest_goes_first_and_order_does_not_matter(tmp_path: Path) -> None:
    model = perfect(passkey)
    evaluate(model, "passkey/digits", lengths=("128", "256", "160"), limit=4, out=tmp_path / "a")
    sizes = [len(prompt.split()) for prompt in model.prompts]
    assert sizes == sorted(sizes, reverse=True)
    one = evaluate(model, "passkey", lengths=("96",), limit=5, out=tmp_path / "b")
    many = evaluate(
        model, "passkey", lengths=("96",), limit=5, out=tmp_path / "c", batch=3, concurrency=4
    )
    assert one.data == many.data


class Slow(ScriptedModel):
    """Remembers how many calls were under way at once."""

    def __init__(self) -> None:
        super().__init__(passkey)
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def tokenizer(self) -> Any:
        return None

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_overflow: Overflow = "error",
    ) -> list[Generation]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        content = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
        return [Generation(passkey(text), "stop", Usage(9, 9, 0, 1)) for text in content]


def test_an_endpoint_is_asked_concurrently(tmp_path: Path) -> None:
    model = Slow()
    words = ScriptedModel("").tokenizer
    report = evaluate(
        model, "passkey/digits", lengths=("96",), limit=30, out=tmp_path / "r", tokenizer=words
    )
    assert report.score("passkey/digits") == 100
    assert 2 <= model.most <= 8
    with pytest.raises(ConfigError, match="--tokenizer"):
        evaluate(model, "passkey/digits", lengths=("96",), limit=3, out=tmp_path / "s")


def test_a_failure_keeps_what_was_answered(tmp_path: Path) -> None:
    def fail(prompt: str) -> str:
        model.calls += 1  # type: ignore[attr-defined] # counted on the model for the test
        if model.calls == 4:  # type: ignore[attr-defined] # as above
            raise BackendError("out of memory")
        return passkey(prompt)

    model = ScriptedModel(fail)
    model.calls = 0  # type: ignore[attr-defined] # as above
    with pytest.raises(BackendError):
        evaluate(model, "passkey/digits", lengths=("96",), limit=6, out=tmp_path / "r")
    assert len(responses(tmp_path / "r")) == 3
    part = score_folder(tmp_path / "r")
    assert (part.data["answered"], part.data["missing"]) == (3, 3)
    evaluate(model, "passkey/digits", lengths=("96",), limit=6, out=tmp_path / "r")
    assert model.calls == 7  # type: ignore[attr-defined] # six answers and the failure


def test_the_cache_answers_what_was_asked_before(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache.sqlite", tmp_path / "log"
    first = evaluate(
        Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=5, out=tmp_path / "a",
        cache=cache,
    )  # fmt: skip
    again = evaluate(
        Crash(passkey, log), "passkey/digits", lengths=LENGTHS, limit=5, out=tmp_path / "b",
        cache=cache,
    )  # fmt: skip
    assert first.data == again.data
    assert len(log.read_text().splitlines()) == 10
    cost = json.loads((tmp_path / "b" / "cost.json").read_bytes())["total"]
    assert cost["cached_tokens"] == cost["prompt_tokens"] > 0
    (tmp_path / "no").write_text("no database, but a long enough text to be taken for one")
    with pytest.raises(ConfigError, match="cannot be opened"):
        evaluate(
            perfect(passkey), "passkey/digits", lengths=("96",), limit=1, out=tmp_path / "c",
            cache=tmp_path / "no",
        )  # fmt: skip


def test_sampled_repeats_are_asked_apart(tmp_path: Path) -> None:
    settings = RunSettings(temperature=0.5, repeats=3)
    model = perfect(passkey)
    report = evaluate(
        model, "passkey/digits", lengths=("96",), limit=2, out=tmp_path / "r", settings=settings
    )
    assert report.data["planned"] == len(model.prompts) == 6
    assert {row["repeat"] for row in responses(tmp_path / "r")} == {0, 1, 2}
    with pytest.raises(ConfigError, match="temperature"):
        RunSettings(repeats=2)


# --- plan and cost


def test_planned_tokens_are_the_observed_ones(tmp_path: Path) -> None:
    prices = {"scripted": Price(input=2.0, output=10.0)}
    planned = plan_run(
        perfect(passkey), "passkey", lengths=LENGTHS, limit=3, prices=prices
    ).to_json()["total"]
    evaluate(
        perfect(passkey), "passkey", lengths=LENGTHS, limit=3, out=tmp_path / "r", prices=prices
    )
    paid = json.loads((tmp_path / "r" / "cost.json").read_bytes())["total"]
    assert paid["prompt_tokens"] == planned["prompt_tokens"]
    assert paid["requests"] == planned["requests"] == 18
    assert paid["output_tokens"] == 6 <= planned["output_tokens"] == 6 * 8
    expected = (2.0 * planned["prompt_tokens"] + 10.0 * 6) / 1e6
    assert paid["price"] == pytest.approx(expected, rel=0.02)
    assert planned["price"] >= paid["price"]


def test_a_plan_sends_and_leaves_nothing(tmp_path: Path) -> None:
    model = perfect(passkey)
    plan_run(model, "passkey", lengths=LENGTHS, limit=3)
    assert model.prompts == []
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_stops_before_anything_is_sent(tmp_path: Path) -> None:
    model = perfect(passkey, window=200)
    with pytest.raises(OverflowPolicyError) as error:
        evaluate(model, "passkey/digits", lengths=("128", "256"), limit=5, out=tmp_path / "r")
    told = str(error.value)
    assert all(part in told for part in ("level 256", "200", "'error'", "--keep", "256-0"))
    assert model.prompts == []


def test_keep_ends_counts_what_is_cut(tmp_path: Path) -> None:
    model = perfect(passkey, window=200)
    report = evaluate(
        model, "passkey/digits", lengths=("256",), limit=5, out=tmp_path / "r",
        settings=RunSettings(keep="ends"),
    )  # fmt: skip
    found = report.data["tasks"]["passkey/digits"]["overall"]
    assert found["truncated_samples"] == 5
    assert found["truncated_tokens"] > 5 * 40
    depths = {d["depth"]: d["mean"] for d in report.data["tasks"]["passkey/digits"]["depths"]}
    assert depths == {0.0: 100.0, 0.25: 100.0, 0.5: 0.0, 0.75: 100.0, 1.0: 100.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": "passkei"}, "passkey"),
        ({"tasks": []}, "No task"),
        ({"lengths": ("8q",)}, "8q"),
        ({"lengths": ("8",)}, "takes .* tokens"),
        ({"limit": 0}, "limit must be >= 1"),
        ({"batch": 0}, "batch"),
        ({"rules": ("best",)}, "best"),
        ({"window": 0}, "window"),
        ({"prices": {"other": Price(1.0, 1.0)}}, "no entry for 'scripted'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"tasks": "passkey/digits", "lengths": ("128",), "limit": 2}
    with pytest.raises(ValueError, match=message):
        evaluate(perfect(passkey), out=tmp_path / "r", **{**call, **change})


def test_a_report_names_what_it_has(tmp_path: Path) -> None:
    evaluate(perfect(passkey), "passkey/digits", lengths=("96",), limit=2, out=tmp_path / "r")
    report = read_report(tmp_path / "r")
    with pytest.raises(ConfigError, match="passkey/digits"):
        report.score("passkey/choice")
    with pytest.raises(ConfigError, match="two levels"):
        report.effective_length("passkey/digits")


def test_nothing_in_a_report_depends_on_time_or_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(perfect(passkey), "passkey", lengths=LENGTHS, limit=4, out=tmp_path / name / "run")
        time.sleep(0.01)
    assert contents(tmp_path / "a" / "run") == contents(tmp_path / "b" / "run")
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "a" / "run").values())


_OVERHEAD = """
import sys, time
from tests.evaluation.scripts import passkey
from unspool.backends.scripted import ScriptedModel
from unspool.evaluation.run import evaluate
from unspool.types import Generation, Usage
class Instant(ScriptedModel):
    def generate(self, prompts, **options):
        return [Generation(" 1", "stop", Usage(9, 9, 0, 1)) for _ in prompts]
started = time.process_time()
evaluate(Instant(""), "passkey/digits", lengths=("96",), limit=300, out=sys.argv[1],
         cache=sys.argv[1] + ".cache")
print((time.process_time() - started) / 300)
"""


def test_the_harness_costs_little_beside_the_model(tmp_path: Path) -> None:
    # In a process of its own: here every call is checked for its types.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", _OVERHEAD, str(tmp_path / "r")],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    # 2 ms is the promise, planning and scoring included; twice that leaves room for a busy machine.
    assert float(ran.stdout) < 0.004


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"id": "same"}, "two samples the id 'same'"),
        ({"level": "elsewhere"}, "the level 'elsewhere' where '96' was asked for"),
        ({"choices": ()}, "no continuation to score"),
    ],
)
def test_a_task_that_breaks_its_contract_is_named(
    tmp_path: Path, broken: dict[str, Any], message: str
) -> None:
    from dataclasses import dataclass, replace

    from unspool.evaluation.tasks import task
    from unspool.evaluation.tasks.passkey import Passkey

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Broken(Passkey):
        def samples(self, *args: Any, **options: Any) -> Any:
            for sample in Passkey.samples(self, *args, **options):
                yield replace(sample, **broken)

    base = task("passkey/choice")
    wrong = Broken(spec=base.spec, metric=base.metric)
    with pytest.raises(InputError, match=message):
        evaluate(perfect(passkey), [wrong], lengths=("96",), limit=2, out=tmp_path / "r")
    assert not (tmp_path / "r" / "manifest.json").exists()
