"""Writing the samples of a task to a file, for other programs and for later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unspool.evaluation import _io
from unspool.evaluation.fit import Fitter
from unspool.evaluation.plan import RunSettings, draw, levels_of
from unspool.evaluation.tasks.base import Task

Progress = Callable[[str, int | float, int | float | None], None]


class RulerTokenizer:
    """A tokenizer to count with, in the form that models bring theirs."""

    chat_template = None

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self.backend_tokenizer = tokenizer

    def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> _Ids:
        return _Ids(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True, **_: Any) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


class _Ids:
    __slots__ = ("input_ids",)

    def __init__(self, ids: list[int]) -> None:
        self.input_ids = ids


def ruler(name: str) -> RulerTokenizer:
    """The tokenizer of a name, a `tokenizer.json` or a folder with one."""
    from unspool.corpus.tokenise import load_tokenizer

    return RulerTokenizer(load_tokenizer(name), Path(name).name)


def make(
    task: Task,
    out: Path,
    settings: RunSettings,
    *,
    tokenizer: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the samples of a task, one a line, with the prompt as a model would get it unwrapped.

    Args:
        task: What to make samples of.
        out: The file; it appears when it is whole.
        settings: Lengths, limit, depths, seed and source.
        tokenizer: Counts lengths in tokens; a name, a file or a folder.
        progress: Called with stage, how much is done, of how much.

    Returns:
        How many samples and bytes were written, and the level names.
    """
    fitter = Fitter(
        name=tokenizer or "no model",
        tokenizer=ruler(tokenizer) if tokenizer is not None else None,
        window=None,
        chat="never",
    )
    count = 0
    levels: list[str] = []
    with _io.replacing(out) as file:
        for level in levels_of(task.spec, settings.lengths):
            for sample in draw(task, level, settings, fitter):
                request = task.build(sample)
                prompt: Any = request.prompt
                if isinstance(prompt, str):
                    prompt = prompt + request.answer_prefix
                row = {"task": task.spec.name, "prompt": prompt, "sample": sample.to_json()}
                file.write(_io.line(row))
                count += 1
                if sample.level not in levels:
                    levels.append(sample.level)
                if progress is not None:
                    progress("making", count, None)
        size = file.tell()
    return {"task": task.spec.name, "samples": count, "levels": levels, "bytes": size}
