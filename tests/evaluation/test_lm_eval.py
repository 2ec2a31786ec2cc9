"""The bridge to lm-evaluation-harness: exported tasks give equal numbers, its models run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.scripts import Window, passkey
from unspool.backends.lm_eval import LmEvalModel
from unspool.backends.scripted import WordTokenizer
from unspool.errors import ConfigError, OverflowPolicyError, Unsupported
from unspool.evaluation.lm_eval_export import aggregate, export, process_results
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.run import evaluate
from unspool.evaluation.tasks import find_tasks

SETTINGS = RunSettings(lengths=("96", "160"), limit=10, seed=2)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("unspool.evaluation.lm_eval_export.ruler", lambda name: WordTokenizer())
    out = tmp_path / "harness"
    names = export(find_tasks("passkey"), out, SETTINGS, tokenizer="words")
    assert names[:3] == [
        "unspool_passkey_choice", "unspool_passkey_choice_96", "unspool_passkey_choice_160",
    ]  # fmt: skip
    return out


def test_exported_samples_hold_prompt_and_answer(exported: Path) -> None:
    for kind in ("choice", "digits", "loglikelihood"):
        path = exported / f"unspool_passkey_{kind}_160.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 10
        for row in rows:
            assert row["gen_prefix"] == " The pass key is"
            assert row["target"].strip() in row["question"]
            if kind == "choice":
                assert row["choices"][row["gold"]] == row["target"]


def test_results_are_scored_by_our_metric(exported: Path) -> None:
    path = exported / "unspool_passkey_digits_96.jsonl"
    docs = [json.loads(line) for line in path.read_text().splitlines()]
    right = [process_results(doc, [doc["target"] + ", surely"]) for doc in docs[:7]]
    wrong = [process_results(doc, ["no"]) for doc in docs[7:]]
    assert [r["score"] for r in right + wrong] == [1.0] * 7 + [0.0] * 3
    assert aggregate([r["official"] for r in right + wrong]) == 70.0


_RUN = """
import json, sys
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tests.evaluation.scripts import Window, passkey

class Scripted(LM):
    def __init__(self):
        super().__init__()
        self.model = Window(passkey, 120)
    def generate_until(self, requests, disable_tqdm=False):
        return [self.model.generate([r.args[0]], max_tokens=r.args[1]["max_gen_toks"],
                                    stop=r.args[1]["until"])[0].text for r in requests]
    def loglikelihood(self, requests, disable_tqdm=False):
        found = [self.model.logprobs(*[r.args[0], [r.args[1]]])[0] for r in requests]
        return [(each.total, each.greedy) for each in found]
    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
names = ["unspool_passkey_choice", "unspool_passkey_digits", "unspool_passkey_loglikelihood"]
found = simple_evaluate(Scripted(), tasks=names, task_manager=manager, bootstrap_iters=0)
print("RESULT", json.dumps(found["results"], default=str))
"""


@pytest.mark.slow
def test_the_harness_gives_equal_numbers(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the bridge needs the extra eval")
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, str(exported)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "hf"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    line = next((x for x in ran.stdout.splitlines() if x.startswith("RESULT ")), None)
    assert line is not None, ran.stderr[-3000:]
    theirs = json.loads(line.removeprefix("RESULT "))
    report = evaluate(
        Window(passkey, 120), "passkey", out=tmp_path / "run",
        settings=RunSettings(lengths=("96", "160"), limit=10, seed=2, chat="never"),
    )  # fmt: skip
    for kind in ("choice", "digits", "loglikelihood"):
        for level in ("96", "160"):
            mine = report.data["tasks"][f"passkey/{kind}"]["levels"][level]
            other = theirs[f"unspool_passkey_{kind}_{level}"]
            assert 100 * other["score,none"] == pytest.approx(mine["mean"], abs=1e-6)
            assert other["official,none"] == mine["metric"]["score"]
    means = {row["mean"] for row in report.data["tasks"]["passkey/digits"]["cells"]}
    assert means == {0.0, 100.0}  # the test would be blind if all were right


class Harness:
    """What the bridge uses of a model of the harness."""

    max_length = 60
    tokenizer = WordTokenizer()

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.seen += requests
        return [passkey(r.args[0]) for r in requests]

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        self.seen += requests
        return [
            (0.0 if r.args[1] == passkey(r.args[0]) else -5.0, r.args[1] == passkey(r.args[0]))
            for r in requests
        ]

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )


def test_a_model_of_the_harness_runs_here(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the bridge needs the extra eval")
    lm = Harness()
    model = LmEvalModel(lm, name="harness@1", window=4096)
    report = evaluate(model, "passkey", lengths=("96",), limit=5, out=tmp_path / "r", batch=5)
    assert {t["overall"]["mean"] for t in report.data["tasks"].values()} == {100.0}
    first = next(r for r in lm.seen if r.request_type == "generate_until")
    assert first.args[1] == {
        "until": [], "max_gen_toks": 8, "do_sample": False, "temperature": 0.0,
    }  # fmt: skip
    assert first.args[0].endswith("assistant:The pass key is")


def test_what_the_harness_would_do_in_silence_is_refused() -> None:
    model = LmEvalModel(Harness(), name="harness@1")
    assert model.window == 60
    with pytest.raises(OverflowPolicyError):
        model.generate(["word " * 60], max_tokens=8)
    with pytest.raises(OverflowPolicyError):
        model.logprobs("word " * 60, [" a"])
    with pytest.raises(Unsupported, match="draw"):
        model.generate(["a"], max_tokens=8, temperature=1.0)
    with pytest.raises(Unsupported, match="without saying so"):
        model.generate(["a"], max_tokens=8, on_overflow="truncate")
    with pytest.raises(ConfigError, match="generate_until"):
        LmEvalModel(object(), name="x")
