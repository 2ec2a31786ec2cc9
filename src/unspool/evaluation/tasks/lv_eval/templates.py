"""Prompts of LV-Eval: this project's wording, or the released one out of a checkout.

What: instruction, article, instruction again, question, answer cue; shorter for factrecall.
Source: Yuan et al. (2024), arXiv 2402.05136, appendix; `DATASET_PROMPT` in `config.py`.
Differs from the release: own words unless `reference` is given a checkout, whose `config.py` is
read as data and never run.
Cost: none.
"""

# ruff: noqa: RUF001 - Chinese punctuation belongs to Chinese prompts

from __future__ import annotations

import ast
from pathlib import Path

from unspool.errors import InputError, MissingData
from unspool.evaluation.spec import Parts
from unspool.evaluation.tasks.lv_eval.facts import DATASETS

_SHORT = "Reply with the answer alone, without explanation or evidence."
_ONE = f"Only one of the passages below matters for the question at the end. {_SHORT}"
_SOME = f"Only some of the passages below matter for the question at the end. {_SHORT}"
_ZH_SHORT = "只写出答案，不要解释，也不要给出依据。"
_ZH_ONE = f"下面的文章中只有一篇与最后的问题有关。{_ZH_SHORT}"


def _english(instruction: str) -> str:
    return f"{instruction}\n\nText: {{context}}\n\n{instruction}\n\nQuestion: {{input}}\nAnswer:"


def _chinese(instruction: str) -> str:
    return f"{instruction}\n\n文本：{{context}}\n\n{instruction}\n\n问题：{{input}}\n回答："


OWN: dict[str, str] = {
    name: _chinese(_ZH_ONE) if facts.language == "zh" else _english(_ONE)
    for name, facts in DATASETS.items()
}
OWN["hotpotwikiqa_mixup"] = _english(_SOME)
OWN["factrecall_en"] = _english("Answer the question at the end from the text.")
OWN["factrecall_zh"] = _chinese("根据文本回答最后的问题。")


def parts(template: str, context: str, question: str) -> Parts:
    """The pieces of a prompt; the answer cue belongs to the question, as in the release."""
    before, _, rest = template.partition("{context}")
    middle, _, after = rest.partition("{input}")
    return Parts(before, context, f"{middle}{question}{after}")


def reference(checkout: str | Path) -> dict[str, str]:
    """The released prompts, out of `config.py` of a checkout or that file itself.

    Raises:
        MissingData: There is no such file.
        InputError: It holds no prompt for every data set.
    """
    path = Path(checkout)
    file = path if path.is_file() else path / "config.py"
    if not file.is_file():
        raise MissingData(
            f"{file} does not exist. The released prompts are in config.py of the repository "
            "infinigence/LVEval; give the folder of a checkout."
        )
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(getattr(target, "id", "") == "DATASET_PROMPT" for target in node.targets)
        )
    except (SyntaxError, ValueError, StopIteration) as error:
        raise InputError(f"{file} holds no table DATASET_PROMPT of plain texts.") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: DATASET_PROMPT should be a table, got {type(found).__name__}.")
    for name in DATASETS:
        text = found.get(name)
        if not isinstance(text, str) or "{context}" not in text or "{input}" not in text:
            raise InputError(f"{file}: DATASET_PROMPT has no usable prompt for {name}.")
    return {name: str(found[name]) for name in DATASETS}
