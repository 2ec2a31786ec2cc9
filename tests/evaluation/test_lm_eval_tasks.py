"""One exported task of every benchmark in lm-evaluation-harness: equal prompts, equal numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from unspool.backends.scripted import ScriptedModel, WordTokenizer
from unspool.errors import Unsupported
from unspool.evaluation.lm_eval_export import export
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.run import evaluate
from unspool.evaluation.tasks import find_tasks
from unspool.evaluation.tasks import task as task_named
from unspool.types import Overflow, Prompt, Scored, Usage

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TASKS = {
    "ada-leval/bestanswer": "2000",
    "ada-leval/tsort": "2000",
    "babilong/qa1": "1500",
    "booookscore/planted": "1500",
    "booookscore/planted_choice": "1500",
    "giraffe/lines": "1500",
    "long-icl/modules": "1",
    "longbench-twin/lcc": "1500",
    "longbench-twin/passage_retrieval": "1500",
    "lv-eval/mixup_twin": "1k",
    "lv-eval/mixup_twin_choice": "1k",
    "m4le-twin/explicit-single": "1k",
    "m4le-twin/semantic-multiple": "1k",
    "mrcr/2needle": "3000",
    "needle-threading/multi_thread": "4k",
    "needle-threading/single_needle": "4k",
    "needle-threading/single_needle_choice": "4k",
    "nolima/onehop_choice": "1500",
    "nolima/twohop": "1500",
    "ruler/niah_multiquery": "1500",
    "ruler/qa_1": "1500",
    "ruler/vt": "1500",
}

_RUN = """
import json, sys
from pathlib import Path
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tests.evaluation.test_lm_eval_tasks import logprob, known, says

class Digest(LM):
    def __init__(self):
        super().__init__()
        self.known = known(Path(sys.argv[1]))
    def generate_until(self, requests, disable_tqdm=False):
        found = []
        for request in requests:
            text = says(self.known, request.args[0])
            for stop in request.args[1]["until"]:
                text = text.split(stop)[0] if stop else text
            found.append(text)
        return found
    def loglikelihood(self, requests, disable_tqdm=False):
        return [(logprob(*r.args), False) for r in requests]
    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

names = sys.argv[2].split(",")
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
found = simple_evaluate(Digest(), tasks=names, task_manager=manager, bootstrap_iters=0)
print("RESULT", json.dumps(found["results"], default=str))
"""


def known(folder: Path) -> dict[str, str]:
    """Right answers by prompt, of exported tasks."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            sample = json.loads(row["sample"])
            listed = sample["meta"].get("listed")
            answer = json.dumps(sample["references"]) if listed else ", ".join(sample["references"])
            found[row["question"] + row["gen_prefix"]] = answer
    return found


def says(answers: dict[str, str], prompt: str) -> str:
    """The right answer to half of the prompts, its beginning to the others."""
    answer = answers[prompt]  # a prompt that is not the exported one is an error
    return answer if sha256(prompt.encode()).digest()[0] % 2 else answer[: len(answer) // 2]


def logprob(prompt: str, continuation: str) -> float:
    """A number that only the texts decide."""
    return -int.from_bytes(sha256(f"{prompt}\0{continuation}".encode()).digest()[:2]) / 1000


class Digest(ScriptedModel):
    """The same model here."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(lambda prompt: says(answers, prompt))

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        assert isinstance(prompt, str)
        found = []
        for each in continuations:
            total = logprob(prompt, each)
            found.append(Scored(total, (total,), False, Usage(1, 1)))
        return found


def test_every_benchmark_gives_equal_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="the bridge needs the extra eval")
    monkeypatch.setattr("unspool.evaluation.lm_eval_export.ruler", lambda name: WordTokenizer())
    harness, names = tmp_path / "harness", {}
    for name, level in TASKS.items():
        settings = RunSettings(lengths=(level,), limit=8)
        _, member = export([task_named(name)], harness, settings, tokenizer="words")
        names[name] = member
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, str(harness), ",".join(names.values())],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "hf"),
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    line = next((x for x in ran.stdout.splitlines() if x.startswith("RESULT ")), None)
    assert line is not None, ran.stderr[-3000:]
    theirs = json.loads(line.removeprefix("RESULT "))
    model = Digest(known(harness))
    between = 0
    for name, level in TASKS.items():
        report = evaluate(
            model, name, out=tmp_path / name.replace("/", "-"), lengths=(level,), limit=8,
            settings=RunSettings(chat="never"),
        )  # fmt: skip
        (mine,) = report.data["tasks"][name]["levels"].values()
        other = theirs[names[name]]
        assert 100 * other["score,none"] == pytest.approx(mine["mean"], abs=1e-6), name
        assert other["official,none"] == pytest.approx(mine["metric"]["score"], abs=1e-9), name
        between += 0 < mine["mean"] < 100
    assert between > len(TASKS) / 2  # the test would be blind if all were right or wrong


@pytest.mark.parametrize("name", ["l-eval-twin/topic_retrieval", "long-icl/modules_choice"])
def test_what_would_give_other_numbers_is_refused(name: str, tmp_path: Path) -> None:
    level = "1" if name.startswith("long-icl") else "1500"
    settings = RunSettings(lengths=(level,), limit=2)
    with pytest.raises(Unsupported, match="Run it with 'unspool evaluate run'"):
        export(find_tasks(name), tmp_path, settings, tokenizer=None if level == "1" else "smollm2")
