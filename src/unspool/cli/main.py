"""The `unspool` command: picks a verb, runs it, and turns what went wrong into an exit code.

Verbs are named by import string and imported when they run, so `unspool --help` imports neither
torch nor numpy. Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 130 Ctrl-C, 141 the
reader of our output went away.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

import cyclopts

from unspool import errors
from unspool.cli import _args, _output
from unspool.cli._output import message

_VERBS = (
    ("ask", "unspool.cli.ask:app", "Answer a question from texts of any length, with evidence."),
    ("summarize", "unspool.cli.summarize:app", "Summarise texts of any length, with evidence."),
    (
        "generate",
        "unspool.cli.generate:app",
        "Continue a prompt, past the model's window if a method is given.",
    ),
    ("compare", "unspool.cli.compare:app", "Compare methods on one model and one text."),
    ("curve", "unspool.cli.curve:app", "Show at which length a model breaks."),
    ("context", "unspool.cli.context:app", "Read a text once and keep it for many questions."),
    ("index", "unspool.cli.index:app", "Build, describe and verify exact search indexes."),
    ("search", "unspool.cli.search:app", "Count, find and trace text in an index."),
    ("audit", "unspool.cli.audit:app", "Find out what a model has seen and written."),
    (
        "encoder",
        "unspool.cli.encoder:app",
        "Train encoders that read long records whole, and use them.",
    ),
    ("serve", "unspool.cli.serve:app", "Serve search, a model and a web page over HTTP."),
    ("evaluate", "unspool.cli.evaluate:app", "Run long-context benchmarks and report them."),
    ("view", "unspool.cli.view:app", "Open the report of a benchmark run in the browser."),
    ("list", "unspool.cli.list:list_", "Show the systems, methods or tasks there are."),
    ("doctor", "unspool.cli.doctor:doctor", "Say what this machine can run and what is missing."),
)

_KNOWN = tuple(name for name, _, _ in _VERBS)

_BAD_INPUT = (
    errors.ConfigError,
    errors.InputError,
    errors.QueryError,
    errors.PathNotFound,
    errors.BuildConflict,
    errors.RunConflict,
    errors.BudgetError,
    errors.MissingExtra,
    errors.OverflowPolicyError,
)


def _version() -> str:
    import unspool

    return unspool.__version__


def make_app() -> cyclopts.App:
    """The command line, with every verb registered and none imported."""
    app = cyclopts.App(
        name="unspool",
        help="Long text, unabridged: find it, ask it, trace it. Nothing is cut silently.",
        help_epilogue=(
            "Every verb takes --help and --json. --debug shows the traceback of an error; "
            "a query that begins with a dash goes after `--`."
        ),
        help_format="markdown",
        version=_version,
        default_parameter=cyclopts.Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for name, target, summary in _VERBS:
        app.command(target, name=name, help=summary)
    return app


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a character
        sys.stdout.reconfigure(errors="backslashreplace")
    tokens = list(sys.argv[1:] if argv is None else argv)
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    debug = "--debug" in options
    if debug:
        tokens.remove("--debug")
    else:
        warnings.showwarning = _say_warning
    sys.exit(run(tokens, debug=debug))


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What a person should know, without the line of code; what only programmers should, not."""
    if issubclass(category, (UserWarning, RuntimeWarning)):
        _output.message(f"warning: {message}")


def run(tokens: Sequence[str], *, debug: bool = False) -> int:
    """Run one command line and return its exit code; with `debug`, let exceptions through."""
    _args.given[:] = tokens
    if tokens and not tokens[0].startswith("-") and tokens[0] not in _KNOWN:
        return _unknown_verb(tokens[0])
    try:
        result = make_app()(
            tokens, print_error=False, exit_on_error=False, result_action="return_value"
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        message("Interrupted. The same command continues where this one stopped.")
        return 130
    except BrokenPipeError:
        # Whatever is still buffered has no reader: send it nowhere, so that exiting is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except cyclopts.CycloptsError as error:
        return _usage_error(error)
    except Exception as error:
        if debug:
            raise
        return _failure(error)


def _unknown_verb(verb: str) -> int:
    near = difflib.get_close_matches(verb, _KNOWN, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The verbs are {', '.join(_KNOWN)}."
    message(f"error: There is no verb {verb!r}. {hint}")
    return 2


def _usage_error(error: cyclopts.CycloptsError) -> int:
    # By now the verb exists; what it was given does not fit.
    verbs = " ".join(error.command_chain) if error.command_chain else ""
    message(f"error: {str(error).strip()}")
    message(f"Run 'unspool {f'{verbs} ' if verbs else ''}--help' for what there is.")
    return 2


def _failure(error: Exception) -> int:
    if isinstance(error, errors.UnspoolError):
        message(f"error: {error}")
        return 2 if isinstance(error, _BAD_INPUT) else 1
    if isinstance(error, MemoryError):
        message("error: there is not enough memory for this.")
    elif isinstance(error, OSError):
        message(
            f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        )
    else:
        message(f"error: {type(error).__name__}: {error}")
        message("This is a fault of unspool. Add --debug to see where it happened.")
    return 1
