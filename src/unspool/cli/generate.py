"""`unspool generate`: let a model continue or answer, past its window if a method is given."""

from __future__ import annotations

import hashlib
import json as json_module
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._models import bars, load_stock, read_text
from unspool.cli._output import (
    emit_json,
    emit_text,
    human_bytes,
    human_number,
    human_seconds,
    message,
)
from unspool.cli._ways import Ways
from unspool.errors import ConfigError, RunConflict

if TYPE_CHECKING:
    from unspool.extension import Extension
    from unspool.stream import Stream

_SAVE_SECONDS = 120.0

_EXAMPLES = """
For example:

    unspool generate "Once upon a time" --max-tokens 40

    unspool generate "Summarise the text above." --context book.txt --chat --method lm-infinite

    unspool generate "Who wrote the letter?" --context book.txt --chat --method infllm:top_k=16 \\
        --resume reading/

    unspool generate "The with statement" --ngram manual-tokens.idx:0.3 --draft text

`unspool list methods` prints the methods and their options.
"""

app = App(
    name="generate",
    help="Continue a prompt with a model, past its window if a method is given.",
    help_epilogue=_EXAMPLES,
)


@app.default
def generate(
    prompt: Annotated[str, MAY_BE_DASH],
    /,
    *,
    context: tuple[str, ...] = (),
    model: str | None = None,
    method: str = "dense",
    max_tokens: int = 64,
    chat: bool = False,
    weights: Literal["same", "int8"] | None = None,
    ngram: str | None = None,
    draft: tuple[str, ...] = (),
    resume: Annotated[Path | None, Parameter(name="--resume")] = None,
    json: bool = False,
) -> None:
    """Continue a prompt, or answer it after a text of any length.

    Args:
        prompt: What to continue; with --context it comes after the text.
        context: Files or folders that are read first.
        model: A Hugging Face id or a folder with a model. Default: SmolLM2-135M-Instruct, which
            comes with the package.
        method: How to read past the window: NAME or NAME:KEY=VALUE,…; several joined by +.
        max_tokens: Most tokens to write.
        weights: Write through a leaner step: same, or int8 (8 bits a weight), which is two to three
            times faster on a CPU and nearly the same numbers.
        ngram: Mix in what an index of the model's tokens says comes next: DIR, DIR:WEIGHT, or
            DIR:SPARSE,OTHER, the weight where the corpus knows one continuation and elsewhere.
        draft: Guess tokens and read several at once, which writes the same text faster: text, from
            what was read and written so far, or the directory of an index. May be given twice.
        chat: Wrap text and prompt in the model's chat template, as one turn of the user.
        resume: A folder where reading is saved every two minutes; the same command goes on there.
        json: Print one JSON object.
    """
    if max_tokens < 1:
        raise ConfigError(f"--max-tokens must be >= 1, got {max_tokens}.")
    ways = Ways(ngram, draft, weights)
    from unspool.methods import resolve_reading

    resolve_reading(method)  # before a model is loaded for nothing
    text = read_text(context) if context else ""
    loaded = load_stock(model)
    from unspool.extension import extend

    started = time.perf_counter()
    with extend(loaded.model, method, tokenizer=loaded.tokenizer, weights=weights) as extension:
        if extension.prompt_method is not None:
            if ways.asked:
                raise ConfigError(
                    f"--ngram and --draft go with methods that read a prompt as it stands, and "
                    f"{extension.spec} rewrites it. Choose another --method, or leave them out."
                )
            answer = extension.ask(text, prompt, max_new_tokens=max_tokens)
            written, usage = answer.text, answer.usage.to_json()
            report: dict[str, Any] = {"method": extension.spec}
        else:
            whole = f"{text}\n\n{prompt}" if text else prompt
            ids = _encode(loaded.tokenizer, whole, chat=chat)
            ways.meet(extension)
            written, usage, report = _read(extension, ids, max_tokens, resume, ways, quiet=json)
    usage["seconds"] = time.perf_counter() - started
    if json:
        emit_json({"text": written, "usage": usage, "report": report})
        return
    emit_text(written)
    emit_text(
        f"\n{human_number(usage['input_tokens'])} tokens given, "
        f"{human_number(usage['read_tokens'])} read, "
        f"{human_number(usage['dropped_tokens'])} dropped, "
        f"{human_number(usage['output_tokens'])} written, {human_seconds(usage['seconds'])}"
    )
    if "bytes_device" in report:
        held = report["bytes_device"] + report["bytes_host"] + report["bytes_disk"]
        emit_text(
            f"{report['method']}: {human_number(report['attended_tokens'])} tokens attended by the "
            f"last one, {human_number(report['stored_tokens'])} more stored, {human_bytes(held)}"
        )
    if "draft" in report:
        found = report["draft"]
        emit_text(
            f"{human_number(found['written'])} tokens in {human_number(found['passes'])} passes: "
            f"{human_number(found['drafted'])} were guessed, {human_number(found['kept'])} kept"
        )


def _encode(tokenizer: Any, text: str, *, chat: bool) -> list[int]:
    from unspool.backends.prompts import encode_prompt

    return encode_prompt(tokenizer, [{"role": "user", "content": text}] if chat else text)


def _read(
    extension: Extension,
    ids: list[int],
    max_tokens: int,
    resume: Path | None,
    ways: Ways,
    *,
    quiet: bool,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Feed, saving now and then; then write."""
    stream = extension.stream()
    done = 0
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
    if resume is not None:
        done = _take_up(stream, resume, digest)
    saved = time.monotonic()
    step = extension.prefill_chunk
    with bars(quiet) as tell:
        for start in range(done, len(ids), step):
            stream.feed(ids[start : start + step])
            tell("Reading", min(start + step, len(ids)), len(ids))
            if resume is not None and time.monotonic() - saved > _SAVE_SECONDS:
                _save(stream, resume, digest)
                saved = time.monotonic()
    if resume is not None and done < len(ids):
        _save(stream, resume, digest)
    options = ways.options(ids[: int(stream.cache.get_seq_length())])
    written = str(stream.generate(max_new_tokens=max_tokens, do_sample=False, **options))
    report = stream.report()
    said = report.to_json()
    if ways.lookup is not None:
        said["draft"] = ways.lookup.report.to_json()
    return written, report.usage.to_json(), said


def _take_up(stream: Stream, folder: Path, digest: str) -> int:
    """Tokens that an interrupted run of the same command has read."""
    note = folder / "reading.json"
    if not note.exists():
        return 0
    before = json_module.loads(note.read_text(encoding="utf-8"))
    if before.get("prompt") != digest:
        raise RunConflict(
            f"{folder} holds the reading of another text, prompt or template. Choose another "
            f"folder, or delete it."
        )
    stream.load(folder / "stream")
    message(f"Going on after {human_number(stream.tokens)} tokens that were read before.")
    return stream.tokens


def _save(stream: Stream, folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stream.save(folder / "stream")
    temporary = folder / f".reading.json.{os.getpid()}"
    temporary.write_text(json_module.dumps({"prompt": digest}) + "\n", encoding="utf-8")
    temporary.replace(folder / "reading.json")
