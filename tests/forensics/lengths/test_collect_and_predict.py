"""Collecting from a scripted model, predicting from made-up rows, and the commands."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tests.forensics.lengths.test_rows_and_stats import row
from unspool.backends.scripted import ScriptedModel
from unspool.cli import main as cli
from unspool.errors import ConfigError, InputError, OverflowPolicyError, RunConflict
from unspool.forensics.lengths import Collection, Predictor, Question, Row, collect, read_questions
from unspool.forensics.lengths.held_out import held_out
from unspool.forensics.lengths.predictor import LEVELS, pinball, ridge
from unspool.forensics.lengths.traces import requests_of


def talker() -> ScriptedModel:
    draw = random.Random(0)
    return ScriptedModel(lambda prompt: "word " * draw.randrange(1, 12))


QUESTIONS = [Question("one"), Question("two two"), Question("one")]


def test_collects_sizes_and_marks_what_was_cut() -> None:
    rows = collect(talker(), QUESTIONS, Collection(n=4, cap=6))
    assert [r.prompt_text for r in rows] == ["one", "two two"]
    draw = random.Random(0)
    expected = [draw.randrange(1, 12) for _ in range(8)]
    # The scripted tokenizer has one token for the space at the end.
    sizes = [min(n + 1, 7) for n in expected]
    assert [x for r in rows for x in r.output_sizes] == sizes
    assert [r.truncated for r in rows] == [sum(x > 6 for x in r.output_sizes) for r in rows]
    assert rows[0].top_k == 0
    assert rows[0].cap == 6


def test_goes_on_after_a_stop_with_equal_rows(tmp_path: Path) -> None:
    whole = collect(talker(), QUESTIONS, Collection(n=3, cap=9))
    out = tmp_path / "rows.jsonl"
    model = talker()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, QUESTIONS, Collection(n=3, cap=9), out=out, on_progress=stop)
    with out.open("ab") as file:
        file.write(b'{"half": ')
    again = collect(model, QUESTIONS, Collection(n=3, cap=9), out=out)
    assert [r.output_sizes for r in again] == [r.output_sizes for r in whole]
    assert len(out.read_bytes().splitlines()) == 2
    assert len(model.prompts) == 6
    with pytest.raises(RunConflict, match="Choose another file"):
        collect(model, QUESTIONS, Collection(n=3, cap=10), out=out)


def test_a_long_prompt_is_refused_or_its_loss_is_said() -> None:
    long = [Question("a b c d e f")]
    with pytest.raises(OverflowPolicyError, match="6 tokens long"):
        collect(talker(), long, Collection(n=2, cap=4, max_prompt=4))
    model = talker()
    (found,) = collect(model, long, Collection(n=2, cap=4, max_prompt=4, on_overflow="truncate"))
    assert found.dropped_tokens == 2
    assert "a b c d" in model.prompts[0]
    assert "e" not in model.prompts[0].replace("user", "").replace("assistant", "")


@pytest.mark.parametrize("change", [{"n": 1}, {"cap": 1}, {"temperature": 0.0},
                                    {"on_overflow": "window"}])  # fmt: skip
def test_refuses_settings_that_measure_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Collection(**change)


def test_reads_prompts_of_each_form(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"

    def read(kind: str, record: dict[str, Any]) -> Question:
        path.write_text(json.dumps(record) + "\n")
        (found,) = read_questions(path, kind)
        return found

    assert read("plain", {"prompt": "x", "category": "c"}) == Question("x", "prompts", "c")
    dolly = {"instruction": "x", "context": "y", "category": "qa"}
    assert read("dolly", dolly) == Question("x\nContext: y", "dolly", "qa")
    assert read("alpaca", {"instruction": "x", "input": "y"}).text == "x\nInput: y"
    assert read("alpaca", {"instruction": "x", "input": ""}).text == "x"
    turns = [{"from": "gpt", "value": "n"}, {"from": "human", "value": "h"}]
    assert read("sharegpt", {"conversations": turns}).text == "h"
    with pytest.raises(InputError, match=r"Record 1 of p\.jsonl has no prompt"):
        read("plain", {"text": "x"})
    with pytest.raises(ConfigError, match="kind must be one of"):
        read("csv", {"prompt": "x"})


def rows_by_rule(count: int, seed: int) -> list[Row]:
    """Answers whose length depends on what the prompt asks: lists are long, yes or no is short."""
    draw = np.random.default_rng(seed)
    kinds = [("Is it so? Answer yes or no", 8.0, 0.2), ("List all of them in detail", 150.0, 0.5)]
    rows = []
    for i in range(count):
        text, middle, spread = kinds[i % 2]
        sizes = np.maximum(1, np.exp(np.log(middle) + spread * draw.standard_normal(10)))
        rows.append(row([int(x) for x in sizes], prompt=f"{text} {i}", cap=1000))
    return rows


def true_quantiles(i: int) -> dict[float, float]:
    """Quantiles of the two lognormals of `rows_by_rule`, from the standard library."""
    middle, spread = [(8.0, 0.2), (150.0, 0.5)][i % 2]
    normal = NormalDist()
    return {level: middle * math.exp(spread * normal.inv_cdf(level)) for level in LEVELS}


@pytest.mark.parametrize("encoder", ["features", "tfidf"])
def test_predicts_what_the_prompt_decides(encoder: Any, tmp_path: Path) -> None:
    rows = rows_by_rule(80, seed=0)
    fitted = Predictor.fit(rows, encoder=encoder)
    short, long = fitted.predict(["Is it so? Answer yes or no 8", "List all of them in detail 9"])
    assert short.quantiles[0.5] == pytest.approx(8, rel=0.25)
    assert long.quantiles[0.5] == pytest.approx(150, rel=0.25)
    # The quantile of a lognormal: exp(log m + 1.2816 s).
    assert long.quantiles[0.9] == pytest.approx(150 * np.exp(1.2816 * 0.5), rel=0.25)
    assert list(long.quantiles.values()) == sorted(long.quantiles.values())
    tested = held_out(rows, encoder=encoder)
    # What a predictor that knows the two distributions loses; 64 prompts do not pin 256 words down.
    ideal = np.mean([pinball(r.output_sizes, true_quantiles(i)) for i, r in enumerate(rows)])
    assert 0.98 * ideal < tested.loss < (1.05 if encoder == "features" else 1.15) * ideal
    assert tested.coverage == pytest.approx(0.9, abs=0.05)
    fitted.save(tmp_path / "p.json")
    assert Predictor.load(tmp_path / "p.json") == fitted


def test_learns_nothing_where_there_is_nothing() -> None:
    draw = np.random.default_rng(1)
    rows = [row([int(x) for x in draw.integers(1, 99, 10)], prompt=f"p{i}") for i in range(60)]
    assert abs(held_out(rows).gain) < 0.1


def test_ridge_equals_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="the oracle is scikit-learn")
    draw = np.random.default_rng(0)
    x = np.concatenate([np.ones((30, 1)), draw.standard_normal((30, 5))], axis=1)
    x[:, 3] = 2.0  # constant: no weight
    y = draw.standard_normal(30)
    z = (x[:, 1:] - x[:, 1:].mean(0)) / np.where(x[:, 1:].std(0) > 0, x[:, 1:].std(0), 1)
    oracle = linear.Ridge(alpha=2.5).fit(z, y)
    np.testing.assert_allclose(x @ ridge(x, y, 2.5), oracle.predict(z), atol=1e-10)


def test_pinball_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
    actual = [3, 9, 27]
    said = {0.5: 8.0, 0.9: 20.0}
    oracle = [metrics.mean_pinball_loss(actual, [q] * 3, alpha=a) for a, q in said.items()]
    assert pinball(actual, said) == pytest.approx(np.mean(oracle))


def test_predictor_refuses_bad_input(tmp_path: Path) -> None:
    rows = rows_by_rule(12, seed=0)
    with pytest.raises(InputError, match="at least 8 prompts, got 3"):
        Predictor.fit(rows[:3])
    with pytest.raises(InputError, match="several caps"):
        Predictor.fit([*rows, row([1, 2], prompt="q", cap=5)])
    with pytest.raises(ConfigError, match="encoder must be"):
        Predictor.fit(rows, encoder="big")
    with pytest.raises(ConfigError, match="quantile must be one of"):
        requests_of(rows, Predictor.fit(rows), quantile=0.91)
    for text in ("[]", "{}", "x", '{"format": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="not a predictor"):
            Predictor.load(tmp_path / "bad.json")


def test_requests_come_from_the_rows() -> None:
    rows = rows_by_rule(20, seed=0)
    fitted = Predictor.fit(rows)
    found = requests_of(rows, fitted, count=200, rate=5.0, seed=4)
    sizes = {size for r in rows for size in r.output_sizes}
    assert len(found) == 200
    assert {r.output for r in found} <= sizes
    assert found == requests_of(rows, fitted, count=200, rate=5.0, seed=4)
    assert all(r.reserve >= 1 for r in found)
    assert 0.9 in LEVELS


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("unspool.cli.audit", reason="the verb is not there")
    source, fitted = tmp_path / "rows.jsonl", tmp_path / "p.json"
    source.write_text("".join(json.dumps(r.to_json()) + "\n" for r in rows_by_rule(40, seed=0)))

    def run(*words: str) -> list[dict[str, Any]]:
        assert cli.run(["audit", "lengths", *words, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (group,) = run("stats", str(source), "--by", "dataset")
    assert group["rows"] == 40
    (counts,) = run("sanitize", str(source), "--out", str(tmp_path / "clean.jsonl"))
    assert counts["rows"] == 40
    (tested,) = run("fit", str(source), "--out", str(fitted))
    assert tested["gain"] > 0.5
    outcomes = run("simulate", str(source), "--predictor", str(fitted), "--capacity", "4000")
    gains = {o["policy"]: o["gain"] for o in outcomes}
    assert gains["max"] == 1.0
    assert gains["quantile"] > 1.2
    assert cli.run(["audit", "lengths", "stats", str(source)]) == 0
    assert "within std" in capsys.readouterr().out
    assert cli.run(["audit", "lengths", "simulate", str(source), "--capacity", "4000"]) == 2
    assert "--predictor" in capsys.readouterr().err
    assert cli.run(["audit", "lengths", "stats", str(tmp_path / "no.jsonl")]) == 2
