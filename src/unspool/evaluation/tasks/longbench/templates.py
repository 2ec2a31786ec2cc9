"""Prompts of LongBench: the project's own wording, or the release's, read when a run needs it.

What: one template a data set with `{context}` and mostly `{input}`; what stands before and after
them is what the model is told.
Source: the form (what is asked, the order, the cue at the end) follows `dataset2prompt.json`; the
words here are ours, so scores of runs with them are not comparable with printed ones. `reference`
takes the release's templates from a file, a checkout, or the installed lm-eval.
Differs from lm-eval: its templates lack some last blanks and newlines of the release's.
Cost: –
"""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

from unspool._optional import require
from unspool.errors import ConfigError, InputError, MissingExtra, PathNotFound
from unspool.evaluation.spec import Parts
from unspool.evaluation.tasks.longbench.facts import DATASETS

_FIELD = re.compile(r"\{(context|input)\}")
_NO_INPUT = {"gov_report", "multi_news", "vcsum", "passage_count", "lcc"}
_PLACES = ("config/dataset2prompt.json", "LongBench/config/dataset2prompt.json")

_PASSAGES = (
    "Several passages follow. Use them to answer the question after them.\n\n{context}\n\n"
    "Answer the question from the passages above. Write the answer and nothing else.\n\n"
    "Question: {input}\nAnswer:"
)

OWN: dict[str, str] = {
    "narrativeqa": (
        "Here is a story or a film script; a question follows it.\n\nStory: {context}\n\n"
        "Answer the question about the story in as few words as you can, without explaining."
        "\n\nQuestion: {input}\n\nAnswer:"
    ),
    "qasper": (
        "Here is a scientific article; a question follows it.\n\nArticle: {context}\n\n"
        "Answer the question from the article with a phrase or one sentence, without explaining. "
        'If the article does not answer it, write "unanswerable". If it is a yes-or-no question, '
        'write "yes", "no" or "unanswerable".\n\nQuestion: {input}\n\nAnswer:'
    ),
    "multifieldqa_en": (
        "Here is a text; a question follows it.\n\n{context}\n\n"
        "Answer the question from the text, briefly and with nothing but the answer.\n\n"
        "Question: {input}\nAnswer:"
    ),
    "multifieldqa_zh": (
        "下面是一篇文章，文章后有一个问题。\n\n{context}\n\n"
        "请根据文章用中文简短作答，只写答案。\n\n问题：{input}\n回答："
    ),
    "hotpotqa": _PASSAGES,
    "2wikimqa": _PASSAGES,
    "musique": _PASSAGES,
    "dureader": (
        "下面是几篇文章。\n\n文章：{context}\n\n请根据文章回答问题。\n\n问题：{input}\n回答："
    ),
    "gov_report": (
        "Here is a report of a government agency.\n\nReport:\n{context}\n\n"
        "Summarise the report on one page.\n\nSummary:"
    ),
    "qmsum": (
        "Here is the transcript of a meeting; a question or request about it follows.\n\n"
        "Transcript:\n{context}\n\nReply to it from the transcript in one or a few sentences.\n\n"
        "Query: {input}\nAnswer:"
    ),
    "multi_news": (
        "Here are several news articles.\n\nNews:\n{context}\n\n"
        "Summarise all of them together on one page.\n\nSummary:"
    ),
    "vcsum": (
        "下面是一次会议的记录。\n\n会议记录：\n{context}\n\n请写一段话总结会议内容。\n\n会议总结："
    ),
    "trec": (
        "Say what type of thing each question asks for. Questions with their types come first.\n\n"
        "{context}\n{input}"
    ),
    "triviaqa": (
        "Answer the question from its passage, with the answer alone. Solved examples come first."
        "\n\n{context}\n\n{input}"
    ),
    "samsum": (
        "Sum up the dialogue in a few short sentences. Solved examples come first.\n\n"
        "{context}\n\n{input}"
    ),
    "lsht": "请给出新闻的类别。先看几个例子。\n\n{context}\n{input}",
    "passage_count": (
        "Below are numbered paragraphs; some may be there more than once.\n\n{context}\n\n"
        "How many different paragraphs are there, when repeats are counted once? Write the number "
        "alone.\n\nThe number of different paragraphs is: "
    ),
    "passage_retrieval_en": (
        "Below are numbered paragraphs; an abstract of one of them follows.\n\n{context}\n\n"
        "The abstract:\n\n{input}\n\nWhich paragraph is it of? Write the answer as "
        '"Paragraph 1", "Paragraph 2" and so on.\n\nThe answer is: '
    ),
    "passage_retrieval_zh": (
        "下面是若干编号的段落，之后是其中一段的摘要。\n\n{context}\n\n摘要：\n\n{input}\n\n"
        '摘要出自哪一段？请按"段落1"、"段落2"的格式回答。\n\n答案是：'
    ),
    "lcc": "Here is the beginning of a source file. Write its next line.\n{context}Next line:\n",
    "repobench-p": (
        "Here are pieces of other files, then the beginning of a source file. Write its next "
        "line.\n{context}{input}Next line:\n"
    ),
}


def parts(template: str, context: str, question: str) -> Parts:
    """A prompt from a template, kept in pieces. Braces in the texts mean nothing."""
    before, after = template.split("{context}")
    return Parts(before, context, after.replace("{input}", question))


def reference(source: str) -> dict[str, str]:
    """The release's templates by data set.

    Args:
        source: `dataset2prompt.json`, a checkout of the release, or `lm-eval` for those of the
            installed lm-evaluation-harness.

    Raises:
        PathNotFound: There is no such file.
        MissingExtra: lm-eval is not installed.
        InputError: The file holds no templates, or one lacks its places.
    """
    found = _of_harness() if source == "lm-eval" else _of_release(Path(source))
    for name, template in found.items():
        wanted = ["context"] if name in _NO_INPUT else ["context", "input"]
        if _FIELD.findall(template) != wanted:
            raise InputError(
                f"The template of {name} in {source} should hold "
                f"{' and '.join(f'{{{w}}}' for w in wanted)} once, in this order."
            )
    return found


def _of_release(path: Path) -> dict[str, str]:
    places = [path / place for place in _PLACES] if path.is_dir() else [path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise PathNotFound(
            f"{path} is neither the release's dataset2prompt.json nor a checkout that holds "
            f"{_PLACES[0]}."
        )
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file.name} is not JSON: {error}.") from error
    if not isinstance(held, dict) or not all(isinstance(value, str) for value in held.values()):
        raise InputError(f"{file.name} should map the name of a data set to its template.")
    return {name: held[name] for name in DATASETS if name in held}


def _of_harness() -> dict[str, str]:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            "Templates of lm-eval need lm_eval, which is not installed. Run: pip install "
            "'unspool[eval]'"
        )
    yaml = require("yaml", extra="eval", purpose="reading lm-eval's templates")
    folder = Path(spec.submodule_search_locations[0]) / "tasks" / "longbench"
    found = {}
    for name in DATASETS:
        file = folder / f"{name}.yaml"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        line = next((line for line in lines if line.startswith("doc_to_text:")), None)
        if line is None:
            raise ConfigError(
                f"The installed lm-eval has no template for {name}; 0.4.9 to 0.4.13 have."
            )
        template = str(yaml.safe_load(line)["doc_to_text"])
        template = re.sub(r"\{\{\s*context\s*\}\}", "{context}", template)
        found[name] = re.sub(r"\{\{\s*(?:input|question)\s*\}\}", "{input}", template)
    return found
