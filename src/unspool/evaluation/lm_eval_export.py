"""Our tasks as tasks of lm-evaluation-harness, with the same numbers.

What: a folder for `lm_eval --include_path`: one task a length level, a group over them, the samples
as JSON lines, and a few lines of Python that call our metric. Prompt, stop strings, new tokens and
arithmetic are ours; the harness brings models.
Source: lm-evaluation-harness 0.4.13 (`TaskConfig`, `custom_dataset`, `process_results`).
Differs from a native run: the harness shortens from the left and says nothing of it, so prompts
should fit the model's window; `score` is in 0-1 there, `official` is the benchmark's own number.
Cost: the samples are written once, with their prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from unspool._optional import require
from unspool.errors import ConfigError, InputError, Unsupported
from unspool.evaluation import _io
from unspool.evaluation.fit import Fitter
from unspool.evaluation.make import ruler
from unspool.evaluation.plan import Progress, RunSettings, draw, levels_of
from unspool.evaluation.report import score_one
from unspool.evaluation.spec import LengthLevel, Response, Sample
from unspool.evaluation.tasks import task as task_named
from unspool.evaluation.tasks.base import Task

HELPER = "unspool_task.py"
_HELPER_TEXT = '''"""Gives lm-evaluation-harness the samples and the metrics of unspool's tasks."""

from pathlib import Path

from unspool.evaluation.lm_eval_export import aggregate, load_samples, process_results


def load(*, file, **_):
    return load_samples(Path(__file__).with_name(file))
'''
_OUTPUT = {
    "generate": "generate_until",
    "loglikelihood": "loglikelihood",
    "choice": "multiple_choice",
}


def export(
    tasks: Sequence[Task],
    out: Path,
    settings: RunSettings,
    *,
    tokenizer: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write tasks into a folder for `lm_eval --include_path`.

    Args:
        tasks: What to export.
        out: The folder; files of the same names are replaced.
        settings: Lengths, limit, depths, seed and source.
        tokenizer: Counts lengths in tokens; a name, a file or a folder.
        progress: Called with stage, how much is done, of how much.

    Returns:
        The names of the groups and tasks, as `lm_eval --tasks` takes them.

    Raises:
        ConfigError: `out` is a file.
        Unsupported: A task sends whole conversations, or ranks answers by token, which the harness
            cannot.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, and the tasks are written to a folder. Name another.")
    fitter = Fitter(
        name=tokenizer or "no model",
        tokenizer=ruler(tokenizer) if tokenizer is not None else None,
        window=None,
        chat="never",
    )
    out.mkdir(parents=True, exist_ok=True)
    _io.write_atomic(out / HELPER, [_HELPER_TEXT.encode()])
    names: list[str] = []
    for task in tasks:
        base = _name(task.spec.name)
        members: list[str] = []
        for level in levels_of(task.spec, settings.lengths):
            rows = _rows(task, level, settings, fitter, progress)
            name = f"{base}_{rows[0]['level']}"
            members.append(name)
            _io.write_atomic(out / f"{name}.jsonl", (_io.line(row) for row in rows))
            _write_yaml(out / f"{name}.yaml", _task_config(task, name))
        group = {
            "group": base,
            "task": members,
            "aggregate_metric_list": [{"metric": "score", "weight_by_size": True}],
            "metadata": {"version": task.spec.version},
        }
        _write_yaml(out / f"{base}.yaml", group)
        names += [base, *members]
    return names


def _name(task: str) -> str:
    return "unspool_" + re.sub(r"[^A-Za-z0-9]+", "_", task)


def _rows(
    task: Task,
    level: LengthLevel | None,
    settings: RunSettings,
    fitter: Fitter,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for sample in draw(task, level, settings, fitter):
        request = task.build(sample)
        if not isinstance(request.prompt, str) or request.system:
            raise Unsupported(
                f"{task.spec.name} sends conversations or a system message, which an exported "
                f"task cannot. Run it with 'unspool evaluate run'."
            )
        if request.continuations and getattr(task.metric, "ranks_by_token", False):
            raise Unsupported(
                f"{task.spec.name} ranks answers by log-probability a token, and the harness does "
                f"not tell how many tokens an answer has. Run it with 'unspool evaluate run'."
            )
        right = [i for i, each in enumerate(request.continuations) if each in sample.references]
        rows.append(
            {
                "task": task.spec.name,
                "level": sample.level,
                "question": request.prompt,
                "gen_prefix": request.answer_prefix,
                "choices": list(request.continuations),
                "gold": right[0] if right else 0,
                "target": sample.references[0] if sample.references else "",
                "sample": json.dumps(sample.to_json(), ensure_ascii=True),
            }
        )
        if progress is not None:
            progress("exporting", len(rows), None)
    return rows


def _task_config(task: Task, name: str) -> dict[str, Any]:
    spec = task.spec
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": f"!function {HELPER.removesuffix('.py')}.load",
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "output_type": _OUTPUT[spec.kind],
        "doc_to_text": "question",
        "doc_to_target": "gold" if spec.kind == "choice" else "target",
        "gen_prefix": "gen_prefix",
        "target_delimiter": "",
        "num_fewshot": 0,
        "process_results": f"!function {HELPER.removesuffix('.py')}.process_results",
        "metric_list": [
            {"metric": "score", "aggregation": "mean", "higher_is_better": True},
            {
                "metric": "official",
                "aggregation": f"!function {HELPER.removesuffix('.py')}.aggregate",
                "higher_is_better": True,
            },
        ],
        "metadata": {"version": spec.version},
    }
    if spec.kind == "generate":
        config["generation_kwargs"] = {
            "until": list(spec.stop),
            "max_gen_toks": spec.max_new_tokens,
            "do_sample": False,
            "temperature": 0.0,
        }
    if spec.kind == "choice":
        config["doc_to_choice"] = "choices"
    return config


def _write_yaml(path: Path, config: Mapping[str, Any]) -> None:
    """JSON is YAML, but for the tags that name functions."""
    text = json.dumps(config, indent=2, ensure_ascii=True)
    text = re.sub(r'"!function ([\w.]+)"', r"!function \1", text)
    _io.write_atomic(path, [text.encode() + b"\n"])


# --- what the exported helper calls, inside the harness


def load_samples(path: Path) -> dict[str, Any]:
    """The samples of one exported level as the harness takes them."""
    datasets = require("datasets", extra="eval", purpose="Running an exported task")
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
    if not rows:
        raise InputError(f"{path.name} holds no samples. Export the task again.")
    return {"test": datasets.Dataset.from_list(rows)}


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """The numbers of one answer: `score` in 0-1, `official` for the benchmark's own aggregate."""
    task = task_named(doc["task"])
    sample = Sample.from_json(json.loads(doc["sample"]))
    if task.spec.kind == "generate":
        response = Response(text=str(results[0]))
    else:
        pairs = [(float(total), bool(greedy)) for total, greedy in results]
        best = max(range(len(pairs)), key=lambda i: (pairs[i][0], -i))
        choices = doc["choices"] or [doc["target"]]
        response = Response(
            text=choices[best],
            finish_reason="scored",
            logprobs=tuple(total for total, _ in pairs),
            greedy=tuple(greedy for _, greedy in pairs),
        )
    scores = score_one(task.metric, sample, response)
    return {"score": scores["score"], "official": (doc["task"], scores)}


def aggregate(items: Sequence[tuple[str, dict[str, float]]]) -> float:
    """The benchmark's own number over all answers of a level."""
    metric = task_named(items[0][0]).metric
    found: Callable[[Sequence[Mapping[str, float]]], dict[str, float]] = metric.aggregate
    return found([scores for _, scores in items])["score"]
