"""`unspool evaluate`: run benchmarks, score predictions, report, make data, export to lm_eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from unspool.cli._evaluate import bars, show_levels, show_plan, show_report
from unspool.cli._evaluate_metric import with_metric
from unspool.cli._evaluate_setup import (
    SampleOptions,
    cache_file,
    load,
    named_tokenizer,
    resolve,
    share,
    words,
)
from unspool.cli._output import emit_json, emit_text, human_bytes, human_number, message
from unspool.errors import ConfigError

_EXAMPLES = """
A run lives in one folder. The same command on the same folder continues where it was stopped, and
the report is then the same, byte for byte. For example:

    unspool evaluate run --tasks passkey --lengths 512,1k,2k --limit 15 --out run/

    unspool evaluate run --tasks passkey --endpoint http://localhost:8000/v1 --out run/ --dry-run

    unspool evaluate report run/ --format html

    unspool evaluate score --task passkey/digits --predictions predictions.jsonl

    unspool evaluate score --task booookscore --predictions summary/ --judge Qwen/Qwen3-8B

    unspool evaluate make --task passkey/digits --length 4k --n 20 --out data.jsonl

    unspool evaluate export --tasks passkey --lengths 1k --out harness/
"""

_DEFAULTS = SampleOptions()

app = App(
    name="evaluate",
    help="Run long-context benchmarks, resume them, and report them with intervals.",
    help_epilogue=_EXAMPLES,
)


@app.command
def run(
    *,
    tasks: str | None = None,
    out: str,
    model: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    lengths: str | None = None,
    depths: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    keep: Literal["head", "tail", "ends"] | None = None,
    chat: Literal["auto", "never", "always"] = "auto",
    data: str | None = None,
    source: str | None = None,
    templates: str | None = None,
    window: int | None = None,
    tokenizer: str | None = None,
    prices: Path | None = None,
    cache: str | None = None,
    concurrency: int | None = None,
    contamination: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Run benchmarks on a model; the same command continues a run that was stopped.

    Args:
        tasks: Names, comma-separated: benchmark/task, a whole benchmark, or benchmark/ability.
            'unspool list tasks' shows them. With --resume they are those of the run.
        out: The run folder.
        model: A Hugging Face id, a folder with a model, or the name that the endpoint serves.
            Default: SmolLM2-135M-Instruct, which comes with the package.
        endpoint: An OpenAI-compatible server, such as http://localhost:8000/v1.
        method: How the model reads past its window, such as lm-infinite or infllm:top_k=8.
            'unspool list methods' shows them.
        lengths: Levels in each task's own unit, such as 512,4k,8k. k is 1,024 for tokens, else
            1,000. Default: the tasks' own levels.
        depths: Where the needed text is put, in percent, such as 0,25,50,75,100.
        limit: Most samples a task and length. Default: 25, or all of a release.
        seed: Of samples and intervals.
        keep: What is kept of a prompt that is too long; the rest is counted. Default: each task's
            own policy, which for most is to refuse.
        chat: Whether prompts go through the chat template. auto: as each task says.
        data: The original data: a folder, zip or file, or hub to fetch it.
        source: Texts that generators build from: a file or folder.
        templates: The prompts of the original release, where the task can read them: its file or
            checkout, or lm-eval for those of the installed package. Default: this project's own.
        window: Most tokens of prompt and answer. Default: what the model says.
        tokenizer: Counts for an endpoint: a name, a file or a folder.
        prices: A table of prices of tokens, TOML or JSON, by model name.
        cache: A file of answers to use again, or off. Default: one in the user's cache.
        concurrency: Requests under way at once. Default: 8 for an endpoint, else 1.
        contamination: An index; marks samples whose text occurs in it, and scores without them.
        dry_run: Say what the run would send and cost, and send nothing.
        resume: Continue the run in --out, with its settings; there has to be one.
        json: Print one JSON object.
    """
    from unspool.evaluation.cost import read_prices
    from unspool.evaluation.run import evaluate, plan_run

    settings: dict[str, Any] = {
        "lengths": words(lengths),
        "depths": tuple(share(each) for each in words(depths)),
        "limit": limit,
        "seed": seed,
        "keep": keep,
        "chat": chat,
        "data": data,
        "texts": source,
    }
    chosen, resolved = resolve(tasks, templates, settings, Path(out), resume)
    table = read_prices(prices) if prices is not None else None
    loaded = load(model, endpoint, method)
    counter = named_tokenizer(tokenizer)
    shared: dict[str, Any] = {
        "settings": resolved,
        "prices": table,
        "tokenizer": counter,
        "window": window,
    }
    with bars(quiet=json) as told:
        if dry_run:
            planned = plan_run(loaded, chosen, progress=told, **shared)
        else:
            report = evaluate(
                loaded,
                chosen,
                out=out,
                cache=cache_file(cache),
                concurrency=concurrency,
                progress=told,
                **shared,
            )
            if contamination is not None:
                from unspool.evaluation.contamination import check_folder

                report = check_folder(Path(out), contamination, progress=told)
    if dry_run:
        show_plan(planned, json)
    elif json:
        emit_json(report)
    else:
        show_report(report)


@app.command
def score(
    folder: Path | None = None,
    /,
    *,
    task: str | None = None,
    predictions: Path | None = None,
    metric: str | None = None,
    judge: str | None = None,
    endpoint: str | None = None,
    judge_version: int = 1,
    calibrate: int = 12,
    opponent: Path | None = None,
    cache: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Score a file of predictions, or a run folder again, without a model but for judges.

    Args:
        folder: A run folder, finished or not.
        task: The task that was predicted.
        predictions: A file as the original release writes it, or lines of 'evaluate make' with the
            answer under "prediction". With a judge: a summary, or the summary.json of 'unspool
            summarize --out' (booookscore).
        metric: Options of the task's metric, such as ratio=levenshtein for code or
            recursion_limit=none for ROUGE; what was used is printed. Default: the release's.
        judge: The model that judges, as --model of 'evaluate run' takes it: the coherence of
            summaries (--task booookscore), or answers beside others (--task l-eval).
        endpoint: The judge is served here; --judge is the name that it is served by.
        judge_version: Of BooookScore: 1 asks about a sentence a call, 2 about ten.
        calibrate: Test sentences that a judge of summaries is asked about first. 0: none.
        opponent: The answers to compare with (l-eval).
        cache: A file of the judge's answers to use again, or off. Default: one in the user's cache.
        dry_run: Say how often the judge would be asked, and ask nothing.
        json: Print one JSON object.
    """
    if judge is not None or endpoint is not None:
        from unspool.cli._evaluate_judge import judge as judge_file

        if folder is not None:
            raise ConfigError("A judge takes --task NAME --predictions FILE, not a run folder.")
        judge_file(
            task,
            predictions,
            model=judge,
            endpoint=endpoint,
            version=judge_version,
            calibrate=calibrate,
            opponent=opponent,
            cache=cache,
            dry_run=dry_run,
            json=json,
        )
        return
    if opponent is not None or dry_run:
        raise ConfigError("--opponent and --dry-run are for a judge: name one with --judge.")
    if (folder is None) == (predictions is None):
        raise ConfigError(
            "Give a run folder, or --predictions FILE with --task NAME: one of the two."
        )
    if folder is not None:
        from unspool.evaluation.report import score_folder

        with bars(quiet=json) as told:
            report = score_folder(folder, progress=told)
        if json:
            emit_json(report)
        else:
            show_report(report)
        return
    if task is None:
        raise ConfigError("Say which task was predicted: --task NAME.")
    from unspool.evaluation.predictions import score_predictions
    from unspool.evaluation.tasks import task as task_named

    assert predictions is not None
    found = score_predictions(with_metric(task_named(task), metric), predictions)
    if json:
        emit_json(found)
        return
    show_levels([(task, found)])
    official = found["overall"]["metric"]
    emit_text(
        f"\n{found['predictions']:,} predictions. {task} by {found['metric']}: "
        + ", ".join(f"{k} {human_number(v)}" for k, v in official.items())
    )


@app.command
def report(
    folder: Path,
    /,
    *,
    format: Literal["md", "html", "csv", "png", "json"] = "md",
    out: Path | None = None,
    compare: Path | None = None,
    heatmap: str = "length,depth",
    contamination: str | None = None,
    rule: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    non_monotone: bool = False,
) -> None:
    """Report a run: tables, heat maps, effective lengths, cost, and what was cut.

    Args:
        folder: The run folder.
        format: md and csv go to standard output unless --out names a file; html and png are
            written to report.html and report.png in the folder.
        out: The file to write.
        compare: Another run; the samples of both are compared in pairs.
        heatmap: The two axes of heat maps: length,depth or depth,length.
        contamination: An index; marks samples whose text occurs in it, and scores without them.
        rule: Of effective length: ruler, nolima or threshold:X. May be given several times.
            Default: ruler, nolima and threshold:75.
        non_monotone: Let an effective length skip a shorter level that fails.
    """
    from unspool.evaluation.contamination import check_folder
    from unspool.evaluation.render import render
    from unspool.evaluation.report import read_report, score_folder

    axes = tuple(part.strip() for part in heatmap.split(","))
    if sorted(axes) != ["depth", "length"]:
        raise ConfigError(f"--heatmap takes length,depth or depth,length, got {heatmap!r}.")
    if rule or non_monotone:
        from unspool.evaluation.effective import RULES

        found = score_folder(folder, rules=rule or RULES, monotone=not non_monotone)
    else:
        found = read_report(folder)
    if contamination is not None:
        with bars(quiet=False) as told:
            found = check_folder(folder, contamination, progress=told)
    target = out or (folder / f"report.{format}" if format in ("html", "png") else None)
    text = render(found, format, compare=compare, swap=axes[0] == "depth")
    if target is None:
        emit_text(text.decode().rstrip("\n"))
        return
    from unspool.evaluation._io import write_atomic

    write_atomic(target, [text])
    message(f"{target} ({human_bytes(len(text))})")


@app.command
def make(
    *,
    task: str,
    out: Path,
    length: str | None = None,
    n: int | None = None,
    options: SampleOptions = _DEFAULTS,
) -> None:
    """Write the samples of a task to a file, with their prompts and answers.

    Args:
        task: The task.
        out: The file, JSON lines.
        length: One level or several, such as 4k,16k, in the task's own unit.
        n: Samples a length. Default: 25, or all of a release.
        options: As of 'evaluate export'.
    """
    from unspool.evaluation.make import make as make_samples
    from unspool.evaluation.tasks import task as task_named

    chosen = task_named(task)
    settings, name = options.settings(length, n), options.ruler([chosen])
    with bars(quiet=options.json) as told:
        done = make_samples(chosen, out, settings, tokenizer=name, progress=told)
    if options.json:
        emit_json({**done, "out": str(out)})
        return
    counted = f", tokens counted by {name}" if name else ""
    emit_text(
        f"{human_number(done['samples'])} samples of {task} ({', '.join(done['levels'])}{counted}) "
        f"in {out}, {human_bytes(done['bytes'])}"
    )


@app.command
def export(
    *,
    tasks: str,
    out: Path,
    lengths: str | None = None,
    limit: int | None = None,
    options: SampleOptions = _DEFAULTS,
) -> None:
    """Write tasks for lm-evaluation-harness: lm_eval --include_path OUT --tasks NAME.

    Args:
        tasks: Names, comma-separated.
        out: The folder.
        lengths: Levels in each task's own unit. Default: the tasks' own levels.
        limit: Samples a length. Default: 25, or all of a release.
        options: As of 'evaluate make'.
    """
    from unspool.evaluation.lm_eval_export import export as export_tasks
    from unspool.evaluation.tasks import find_tasks

    chosen = find_tasks(tasks)
    settings, name = options.settings(lengths, limit), options.ruler(chosen)
    with bars(quiet=options.json) as told:
        names = export_tasks(chosen, out, settings, tokenizer=name, progress=told)
    if options.json:
        emit_json({"out": str(out), "tasks": names})
        return
    for each in names:
        emit_text(each)
    message(f"Run them with: lm_eval --include_path {out} --tasks {names[0]} --model …")
