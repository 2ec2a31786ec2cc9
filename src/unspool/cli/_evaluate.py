"""What `unspool evaluate` prints: plans, scores, costs, and a bar a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from unspool.cli._output import (
    emit_json,
    emit_table,
    emit_text,
    human_bytes,
    human_number,
    human_seconds,
    message,
    progress,
)
from unspool.errors import InputError

if TYPE_CHECKING:
    from unspool.evaluation.report import Report
    from unspool.evaluation.run import PlannedRun

_UNITS = {
    "planning": "samples",
    "answering": "tokens",
    "answering one by one": "answers",
    "scoring": "answers",
    "making": "samples",
}


class _Bars:
    """One progress bar a stage; the next stage closes the one before."""

    def __init__(self, stack: ExitStack, quiet: bool) -> None:
        self._stack, self._quiet, self._stage = stack, quiet, ""

    def __call__(self, stage: str, done: int | float, total: int | float | None) -> None:
        if stage != self._stage:
            self._stack.close()
            self._stage = stage
            unit = _UNITS.get(stage, "samples")
            self._bar = self._stack.enter_context(
                progress(stage.capitalize(), total=total, unit=unit, quiet=self._quiet)
            )
        self._bar.update(done, total=total)


@contextmanager
def bars(quiet: bool) -> Iterator[_Bars]:
    with ExitStack() as stack:
        yield _Bars(stack, quiet)


def show_plan(planned: PlannedRun, json: bool) -> None:
    if json:
        emit_json(planned)
        return
    rows = [(task, level, cost) for (task, level), cost in planned.costs.items()]
    rows.append(("all", "", planned.total))
    priced = planned.total.price is not None
    columns = [
        *("task", "level", "requests", "prompt tokens", "shared", "answer tokens"),
        *("cut", "tokens cut"),
    ]
    emit_table(
        [*columns, "price"] if priced else columns,
        (
            [
                task,
                level,
                human_number(cost.requests),
                "unknown" if cost.prompt_tokens is None else human_number(cost.prompt_tokens),
                human_number(cost.shared_tokens),
                f"≤ {human_number(cost.output_tokens)}",
                human_number(cost.truncated_samples),
                human_number(cost.truncated_tokens),
                *([f"≤ {cost.price:,.4f}" if cost.price is not None else ""] if priced else []),
            ]
            for task, level, cost in rows
        ),
        right=[*columns[2:], "price"],
    )
    if planned.total.prompt_tokens is None:
        message("The model tells no tokenizer: --tokenizer NAME counts the prompts.")
    if planned.total.shared_tokens:
        message("Shared tokens begin the prompt before, too; a local model reads them once.")
    message("Nothing was sent. Without --dry-run the same command runs it.")


def show_report(report: Report) -> None:
    from unspool.evaluation.render.facts import sorted_levels

    data = report.data
    show_levels([(task, found) for task, found in data["tasks"].items()])
    for task, found in data["tasks"].items():
        told = [
            f"{each['rule']} {'none' if each['length'] is None else human_number(each['length'])}"
            for each in found["effective_length"]
        ]
        if told:
            unit = (found["levels_unit"] or "").partition(":")[0]
            emit_text(f"\nEffective length of {task}, in {unit}: {', '.join(told)}")
        dirty = found.get("contamination")
        if dirty:
            clean = dirty["clean"]["mean"] if dirty["clean"] else None
            emit_text(
                f"{task}: {dirty['contaminated']} of {dirty['samples']} samples overlap the index "
                f"by {dirty['threshold']} bytes or more; without them "
                f"{'there is no sample left' if clean is None else f'{clean:.1f}'}"
            )
    for benchmark, each in data["benchmarks"].items():
        if each["official"]:
            numbers = ", ".join(f"{name} {value:.2f}" for name, value in each["official"].items())
            emit_text(f"\n{benchmark}: {numbers}")
    cut = sum(found["overall"]["truncated_samples"] for found in data["tasks"].values())
    tokens = sum(found["overall"]["truncated_tokens"] for found in data["tasks"].values())
    emit_text(
        f"\n{human_number(data['answered'])} answers, {human_number(data['missing'])} missing, "
        f"{human_number(cut)} prompts cut by {human_number(tokens)} tokens"
    )
    _show_cost(report)
    levels = max(len(sorted_levels(found)) for found in data["tasks"].values())
    more = " Heat maps: unspool view " if levels > 1 else " All of it: unspool view "
    message(f"The run is in {report.folder}.{more}{report.folder}")


def _show_cost(report: Report) -> None:
    import orjson

    try:
        total = orjson.loads((report.folder / "cost.json").read_bytes())["total"]
    except (OSError, ValueError, KeyError):
        return
    memory = f", {human_bytes(total['peak_bytes'])} at most" if total["peak_bytes"] else ""
    price = "" if total["price"] is None else f", {total['price']:,.4f} paid"
    emit_text(
        f"{human_number(total['prompt_tokens'] or 0)} tokens of prompts "
        f"({human_number(total['cached_tokens'])} of them read before), "
        f"{human_number(total['output_tokens'])} written, {human_seconds(total['seconds'])} in the "
        f"model{memory}{price}"
    )


def show_levels(rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    from unspool.evaluation.render.facts import sorted_levels

    table = []
    for task, found in rows:
        groups = [*sorted_levels(found)]
        if len(groups) != 1:
            groups.append(("all", found["overall"]))
        for level, cell in groups:
            official = cell["metric"].get("score")
            table.append(
                [
                    task,
                    level,
                    human_number(cell["n"]),
                    f"{cell['mean']:.1f}",
                    f"{cell['low']:.1f}-{cell['high']:.1f}",
                    "" if official is None else f"{official:g}",
                    human_number(cell["truncated_samples"]),
                ]
            )
    if not table:
        raise InputError("There is nothing to show: no task has an answer.")
    columns = ["task", "level", "n", "score", "95%", "official", "cut"]
    emit_table(columns, table, right=columns[2:])
