"""The evaluation harness: resume exact, nothing paid twice, planned is paid, little overhead.

Models are scripted, so every right number is known. The overhead is the processor time of a whole
run (planning, calls, log, scoring, report) divided by its requests, for a model that answers at
once; lm-evaluation-harness runs the same samples, exported, with the same answers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured

ROOT = Path(__file__).resolve().parents[1]
KILLS = 20
REQUESTS = 60
MANY = 1000

CLAIM = Claim(
    system="evaluate",
    title="A killed run resumes to the same bytes, pays nothing twice, and costs little itself",
    required=(
        Figure("kill points whose resumed report differs", "==", 0),
        Figure("requests answered twice", "==", 0),
        Figure("planned prompt tokens less observed ones", "==", 0),
        Figure("largest difference of a score from lm-evaluation-harness", "==", 0),
        Figure("overhead a request", "<=", 2, unit="ms"),
        Figure("overhead a request of lm-evaluation-harness", "report", unit="ms"),
        Figure("requests", "report"),
    ),
    setup=(
        "Passkey retrieval with scripted models: 60 requests killed with SIGKILL at 20 random "
        "requests; 1,000 requests of 512 tokens for the overhead, an answer cache on; the same "
        "1,000 samples exported for lm-evaluation-harness, without its bootstrap and its "
        "sample log."
    ),
    packages=("lm-eval",),
)

_MODEL = """
import os, re, signal, sys, json, time
from pathlib import Path
from unspool.backends.scripted import ScriptedModel, WordTokenizer
from unspool.types import Generation, Usage

def solve(prompt):
    found = re.search(r"pass key is (\\d+)\\.", prompt)
    return f" {found[1]}" if found else " 0"

class Half:  # sees the second half of a prompt only, so that scores differ from cell to cell
    name, window, calls = "scripted-half@1", None, 0
    tokenizer = WordTokenizer()
    def generate(self, prompts, *, max_tokens, stop=(), temperature=0.0, seed=0,
                 on_overflow="error"):
        if self.calls == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        if LOG:
            with open(LOG, "a") as file:
                file.write("".join(json.dumps(p) + "\\n" for p in prompts))
        found = []
        for p in prompts:
            ids = len(self.tokenizer(p).input_ids)
            found.append(Generation(solve(p[len(p) // 2:]), "stop", Usage(ids, ids, 0, 1)))
        return found
    def logprobs(self, prompt, continuations, *, on_overflow="error"):
        raise NotImplementedError("the tasks of this claim are answered, not scored")
"""

_RUN = """
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.run import evaluate
evaluate(Half(), "passkey/digits", lengths=("128", "256"), limit=30, out=sys.argv[1],
         settings=RunSettings(chat="never"))
"""

_OURS = """
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.run import evaluate, plan_run
class Instant(Half):
    def generate(self, prompts, **_):
        return [Generation(solve(p[len(p) // 2:]), "stop", Usage(1, 1, 0, 1)) for p in prompts]
settings = RunSettings(chat="never")
planned = plan_run(Half(), "passkey/digits", lengths=("512",), limit=MANY, settings=settings)
observed = evaluate(Half(), "passkey/digits", lengths=("512",), limit=MANY,
                    out=sys.argv[1] + "/observed", settings=settings)
paid = json.loads(Path(sys.argv[1], "observed", "cost.json").read_bytes())["total"]
started = time.process_time()
report = evaluate(Instant(), "passkey/digits", lengths=("512",), limit=MANY,
                  out=sys.argv[1] + "/timed", settings=settings, cache=sys.argv[1] + "/cache")
spent = time.process_time() - started
print("RESULT", json.dumps({
    "ms": 1000 * spent / MANY,
    "score": report.data["tasks"]["passkey/digits"]["overall"]["mean"],
    "planned": planned.total.prompt_tokens, "paid": paid["prompt_tokens"]}))
"""

_THEIRS = """
from unspool.evaluation.lm_eval_export import export
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.tasks import find_tasks
import unspool.evaluation.lm_eval_export as bridge
bridge.ruler = lambda name: WordTokenizer()
export(find_tasks("passkey/digits"), Path(sys.argv[1]), RunSettings(lengths=("512",), limit=MANY),
       tokenizer="words")
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
class Instant(LM):
    def generate_until(self, requests, disable_tqdm=False):
        return [solve(r.args[0][len(r.args[0]) // 2:]) for r in requests]
    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError("as above")
    loglikelihood_rolling = loglikelihood
started = time.process_time()
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
found = simple_evaluate(Instant(), tasks=["unspool_passkey_digits_512"], task_manager=manager,
                        bootstrap_iters=0, log_samples=False)
spent = time.process_time() - started
print("RESULT", json.dumps({
    "ms": 1000 * spent / MANY,
    "score": 100 * found["results"]["unspool_passkey_digits_512"]["score,none"]}))
"""


def run(ctx: Context) -> Measured:
    """Kill and resume, then run the same samples here and in lm-evaluation-harness."""
    resumed = ctx.step("resume", lambda: kill_and_resume(ctx.seed))
    ours = ctx.step("overhead", lambda: measured(_OURS))
    theirs = ctx.step("overhead-lm-eval", lambda: measured(_THEIRS))
    return Measured(
        {
            "kill points whose resumed report differs": resumed["different"],
            "requests answered twice": resumed["twice"],
            "planned prompt tokens less observed ones": ours["planned"] - ours["paid"],
            "largest difference of a score from lm-evaluation-harness": round(
                abs(ours["score"] - theirs["score"]), 6
            ),
            "overhead a request": ours["ms"],
            "overhead a request of lm-evaluation-harness": theirs["ms"],
            "requests": MANY,
        },
        facts={"kill points": resumed["points"], "score": ours["score"]},
    )


def kill_and_resume(seed: int) -> dict[str, Any]:
    """Kill runs at random requests, finish them, and compare with a run that was not killed."""
    points = sorted(random.Random(seed).sample(range(1, REQUESTS), KILLS))
    different = twice = 0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        child(_RUN, [str(whole)], die=-1)
        for at in points:
            folder, log = Path(place, f"run{at}"), Path(place, f"{at}.log")
            died = child(_RUN, [str(folder)], die=at, log=log, check=False)
            if died.returncode != -signal.SIGKILL:
                raise RuntimeError(f"The run was to be killed and ended: {died.stderr[-500:]}")
            child(_RUN, [str(folder)], die=-1, log=log)
            names = ("report.json", "scores.jsonl", "samples.jsonl", "manifest.json")
            different += any((folder / n).read_bytes() != (whole / n).read_bytes() for n in names)
            asked = log.read_text().splitlines()
            twice += len(asked) - len(set(asked))
            if len(set(asked)) != REQUESTS:
                raise RuntimeError(f"{len(set(asked))} of {REQUESTS} requests were answered.")
    return {"points": points, "different": different, "twice": twice}


def measured(script: str) -> dict[str, Any]:
    """What a script prints after RESULT."""
    with tempfile.TemporaryDirectory() as place:
        done = child(script, [place], die=-1)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def child(
    script: str, arguments: list[str], *, die: int, log: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a script with the scripted model in a process of its own."""
    head = f"DIE, LOG, MANY = {die}, {str(log) if log else None!r}, {MANY}\n"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, "-c", head + _MODEL + script, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=check,
    )
