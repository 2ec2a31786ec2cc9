"""`unspool evaluate score --judge`: a model judges summaries, or two answers to one question."""

from __future__ import annotations

import json as json_lines
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.cli._output import emit_json, emit_table, emit_text, human_number, message, printable
from unspool.errors import ConfigError, InputError, PathNotFound

if TYPE_CHECKING:
    from unspool.evaluation.kept import KeptModel
    from unspool.evaluation.tasks.booookscore import Coherence

_BENCHMARKS = ("booookscore", "l-eval")


def judge(
    task: str | None,
    predictions: Path | None,
    *,
    model: str | None,
    endpoint: str | None,
    version: int,
    calibrate: int,
    opponent: Path | None,
    cache: str | None,
    dry_run: bool,
    json: bool,
) -> None:
    """Judge a file of summaries (booookscore) or of answers beside others (l-eval)."""
    benchmark = (task or "").partition("/")[0]
    if benchmark not in _BENCHMARKS:
        raise ConfigError(
            f"--judge takes --task {' or '.join(_BENCHMARKS)}, got {task or 'no task'}. Every "
            f"other task is scored without a model."
        )
    if predictions is None:
        raise ConfigError("Say what is to be judged: --predictions FILE.")
    if not predictions.exists():
        raise PathNotFound(f"There is no file of predictions at {predictions}.")
    if benchmark == "l-eval":
        _pairs(predictions, opponent, model, endpoint, cache, dry_run, json)
        return
    if opponent is not None:
        raise ConfigError("--opponent is for --task l-eval: summaries are judged one by one.")
    if version not in (1, 2):
        raise ConfigError(f"--judge-version is 1 or 2, got {version}.")
    summaries = read_summaries(predictions)
    if dry_run:
        _plan(summaries, version, calibrate, json)
        return
    _summaries(summaries, model, endpoint, cache, version, calibrate, json)


def read_summaries(path: Path) -> dict[str, str]:
    """Summaries by name: a text, what `unspool summarize` wrote, or an object by book.

    Raises:
        InputError: There is no summary in it.
    """
    if path.is_dir():
        path = path / "summary.json"  # of unspool summarize --out
        if not path.exists():
            raise InputError(f"The folder {path.parent.name} holds no summary.json. Name a file.")
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {path.stem: text}
    if path.suffix == ".json":
        try:
            held = json_lines.loads(text)
        except ValueError as error:
            raise InputError(f"{path.name} is not JSON: {error}.") from error
        if isinstance(held, dict) and isinstance(held.get("summary"), str):
            found = {path.stem: held["summary"]}
        elif isinstance(held, dict) and held and all(isinstance(v, str) for v in held.values()):
            found = {str(name): value for name, value in held.items()}
        else:
            raise InputError(
                f"{path.name} holds no summaries. Give a text, the summary.json of 'unspool "
                f"summarize --out', or an object from names to summaries."
            )
    empty = [name for name, value in found.items() if not value.strip()]
    if empty:
        raise InputError(f"The summary {empty[0]} in {path.name} is empty.")
    return found


def _plan(summaries: dict[str, str], version: int, calibrate: int, json: bool) -> None:
    from unspool.evaluation.tasks.booookscore.judge import BATCH, sentences_of

    sentences = [len(sentences_of(text)) for text in summaries.values()]
    step = 1 if version == 1 else BATCH
    calls = sum(-(-count // step) for count in sentences) + calibrate
    words = sum(len(t.split()) * -(-n // step) for t, n in zip(summaries.values(), sentences,
                                                               strict=True))  # fmt: skip
    plan = {
        "summaries": len(summaries),
        "sentences": sum(sentences),
        "calls": calls,
        "words_of_summaries": words,
    }
    if json:
        emit_json(plan)
        return
    emit_text(
        f"{human_number(plan['summaries'])} summaries of {human_number(plan['sentences'])} "
        f"sentences: {human_number(calls)} calls, {calibrate} of them to test the judge, if every "
        f"answer is valid; {human_number(words)} words of summaries are sent"
    )


def _judge(
    stack: ExitStack, model: str | None, endpoint: str | None, cache: str | None
) -> KeptModel:
    from unspool.cli._evaluate_setup import cache_file, load
    from unspool.evaluation.cache import ResponseCache
    from unspool.evaluation.kept import KeptModel

    loaded = load(model, endpoint, None)
    file = cache_file(cache)
    store = stack.enter_context(ResponseCache(Path(file), loaded)) if file is not None else None
    return KeptModel(loaded, store)


def _summaries(
    summaries: dict[str, str],
    model: str | None,
    endpoint: str | None,
    cache: str | None,
    version: int,
    calibrate: int,
    json: bool,
) -> None:
    from unspool.evaluation.tasks.booookscore import score
    from unspool.evaluation.tasks.booookscore.calibrate import calibrate as test

    with ExitStack() as stack:
        asked = _judge(stack, model, endpoint, cache)
        tested = test(asked, calibrate) if calibrate else None
        if tested is not None and not json:
            low, high = tested.interval
            emit_text(
                f"{asked.name} says right of {tested.right} of {tested.questions} test sentences "
                f"whether they confuse ({100 * low:.0f}-{100 * high:.0f}%)"
            )
        if tested is not None and not tested.fit:
            message(
                "That is no better than a coin: scores of this judge say nothing. Choose a larger "
                "model (--judge, --endpoint)."
            )
        found = {name: score(text, asked, version=version) for name, text in summaries.items()}
        kept = asked.kept
    if json:
        emit_json(
            {
                "judge": asked.name,
                "calibration": tested,
                "summaries": found,
                "score": _mean(found),
            }
        )
        return
    _show(found)
    if kept:
        message(f"{human_number(kept)} questions were answered before and not asked again.")


def _mean(found: dict[str, Coherence]) -> float | None:
    shares = [each.score for each in found.values() if each.score is not None]
    return sum(shares) / len(shares) if shares else None


def _show(found: dict[str, Coherence]) -> None:
    rows = [
        [
            printable(name, one_line=True),
            "none" if each.score is None else f"{100 * each.score:.1f}",
            len(each.annotations),
            sum(a.confusing for a in each.annotations),
            each.unscored,
            ", ".join(f"{kind} {count}" for kind, count in each.types.items()),
        ]
        for name, each in found.items()
    ]
    columns = ["summary", "coherence", "sentences", "confusing", "not judged", "types"]
    emit_table(columns, rows, right=columns[1:5])
    for each in found.values():
        for said in each.annotations:
            if said.confusing:
                emit_text(f"\n[{said.number + 1}] {printable(said.sentence, one_line=True)}")
                emit_text(f"    {', '.join(said.types)}: {printable(said.questions or '')}")


def _pairs(
    predictions: Path,
    opponent: Path | None,
    model: str | None,
    endpoint: str | None,
    cache: str | None,
    dry_run: bool,
    json: bool,
) -> None:
    from unspool.evaluation.tasks import l_eval

    if opponent is None:
        raise ConfigError("L-Eval judges answers beside others: --opponent FILE.")
    if not opponent.exists():
        raise PathNotFound(f"There is no file of predictions at {opponent}.")
    pairs, unmatched = l_eval.read_pairs(predictions, opponent)
    if dry_run:
        plan = {"pairs": len(pairs), "unmatched": unmatched, "calls": 2 * len(pairs)}
        if json:
            emit_json(plan)
        else:
            emit_text(f"{plan['pairs']} pairs, {unmatched} without partner, {plan['calls']} calls")
        return
    with ExitStack() as stack:
        asked = _judge(stack, model, endpoint, cache)
        report = l_eval.judge(pairs, asked, unmatched=unmatched)
    if json:
        emit_json({"judge": asked.name, **report.to_json()})
        return
    rows: list[list[Any]] = [
        [
            report.pairs,
            report.wins,
            report.ties,
            report.losses,
            report.errors,
            "none" if report.win_rate is None else f"{100 * report.win_rate:.1f}",
        ]
    ]
    columns = ["pairs", "won", "tied", "lost", "not read", "win rate"]
    emit_table(columns, rows, right=columns)
    if report.first_place is not None:
        emit_text(f"The answer that stood first won {100 * report.first_place:.0f}% of verdicts.")
    if report.length_biased:
        message("The longer answer won more often than not: lengths alone may decide.")
