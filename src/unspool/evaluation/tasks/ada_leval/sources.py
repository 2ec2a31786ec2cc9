"""Question threads that need no network: functions of Python's standard library.

What: a question is what a function's docstring says first, the accepted answer its body without
docstring, the other answers bodies of functions of the same module. Tags are the module and
`python`, so that distractors come from the module first and from all others after.
Source: the standard library of the running Python; threads from JSON lines of the user's.
Differs from the release: questions of a programming site; licences aside, bodies of functions can
be told apart by reading, and there is one right one.
Cost: parses some 60 files, about two seconds, once a process.
"""

from __future__ import annotations

import ast
import sysconfig
from functools import cache
from pathlib import Path

import orjson

from unspool.errors import InputError
from unspool.evaluation.spec import Source
from unspool.evaluation.tasks.ada_leval.bestanswer import Thread

MODULES = (
    "_pydecimal _pyio argparse ast asyncio/base_events asyncio/streams asyncio/tasks bdb bisect "
    "calendar cgitb cmd code codecs collections/__init__ compileall configparser contextlib copy "
    "csv dataclasses datetime difflib dis doctest email/message email/utils enum filecmp fileinput "
    "fractions ftplib functools gettext glob gzip heapq html/parser http/client http/cookiejar "
    "imaplib inspect ipaddress json/encoder linecache locale logging/__init__ mailbox mimetypes "
    "multiprocessing/pool ntpath numbers optparse os pathlib pdb pickle pickletools platform "
    "posixpath pprint profile pstats pydoc queue random sched shelve shlex shutil smtplib socket "
    "socketserver ssl statistics string subprocess tarfile tempfile textwrap threading timeit "
    "tokenize trace traceback turtle typing unittest/case unittest/mock urllib/parse "
    "urllib/request uuid warnings wave weakref xml/dom/minidom xml/etree/ElementTree zipfile"
)
_OTHERS = 8
"""Other bodies of the module that stand as answers of one question."""
_SHORTEST, _LONGEST = 80, 4_000


def threads(source: Source) -> list[Thread]:
    """Threads of a JSON-lines file, or of the standard library where no path is given.

    A line holds `id`, `question`, `answers` (list), `accepted` (place) and `tags` (list).

    Raises:
        InputError: A line is no such thread; the message names it.
    """
    if source.path is None:
        return list(standard_library())
    return read_threads(Path(source.path))


def read_threads(path: Path) -> list[Thread]:
    """Threads of a JSON-lines file; see `threads`."""
    if not path.is_file():
        raise InputError(
            f"{path} is no file. BestAnswer is built from a JSON-lines file of threads."
        )
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            thread = Thread(
                str(row["id"]),
                str(row["question"]),
                tuple(map(str, row["answers"])),
                int(row["accepted"]),
                tuple(map(str, row.get("tags", ()))),
            )
        except KeyError as error:
            raise InputError(f"{path}: line {number} lacks {error.args[0]!r}.") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: line {number} is no thread: {error}") from error
        found.append(thread)
    if not found:
        raise InputError(f"{path} holds no threads.")
    return found


@cache
def standard_library() -> tuple[Thread, ...]:
    """Threads of functions of the standard library, in the order of modules and lines."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: list[Thread] = []
    for name in MODULES.split():
        file = folder / f"{name}.py"
        if file.is_file():
            found += _of_module(name.replace("/", "."), file.read_text(encoding="utf-8"))
    return tuple(found)


def _of_module(module: str, text: str) -> list[Thread]:
    functions: list[tuple[str, str, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            said = (ast.get_docstring(node) or "").partition("\n")[0].strip()
            body = _body(node, text)
            if len(said) >= 20 and _SHORTEST <= len(body) <= _LONGEST:
                functions.append((f"{module}.{node.name}:{node.lineno}", said, body))
    unique: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for name, said, body in functions:
        if said not in unique and body not in seen:
            unique[said] = (name, body)
            seen.add(body)
    bodies = [body for _, body in unique.values()]
    found = []
    for place, (said, (name, body)) in enumerate(unique.items()):
        others = [bodies[(place + k) % len(bodies)] for k in range(1, min(_OTHERS, len(bodies)))]
        question = f"Which body does the function with this description have?\n{said}"
        found.append(Thread(name, question, (body, *others), 0, (module, "python")))
    return found


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> str:
    """The source of a function below its docstring, without the shared indentation."""
    import textwrap

    statements = node.body[1:]
    if not statements:
        return ""
    first, last = statements[0].lineno, statements[-1].end_lineno or 0
    lines = text.splitlines()[first - 1 : last]
    return textwrap.dedent("\n".join(lines)).strip()
