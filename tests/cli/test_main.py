"""The command line as a user meets it: exit codes, what is said where, and what is not imported."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from unspool import errors
from unspool.cli import main as cli

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "numpy", "pyarrow")


def unspool(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unspool", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "unspool", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for verb in ("ask", "index", "search", "list", "doctor"):
        assert f" {verb} " in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "cyclopts" in imported  # the list is what we think it is
    assert imported.isdisjoint(HEAVY)


def test_help_is_quick() -> None:
    best = float("inf")
    for _ in range(10):  # a busy machine may be slow; the best of a few is what the code needs
        started = time.perf_counter()
        assert unspool("--help").returncode == 0
        best = min(best, time.perf_counter() - started)
        if best < 0.5:
            return
    pytest.fail(f"unspool --help took {best:.2f} s")


def test_version() -> None:
    import unspool as package

    assert unspool("--version").stdout.strip() == package.__version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch", "x"], "There is no verb 'serch'. Did you mean 'search'?"),
        (["xyzzy"], "The verbs are ask, "),
        (["list", "systms"], 'Did you mean "systems"?'),
        (["list", "--jsn"], "Did you mean --json?"),
        (["list", "systems", "more"], "more"),
        (["list", "--json=maybe"], "maybe"),
    ],
)
def test_wrong_use_exits_2_with_a_hint_and_no_traceback(arguments: list[str], said: str) -> None:
    done = unspool(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("unspool.cli.doctor.doctor", fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("no"), 2),
        (errors.InputError("no"), 2),
        (errors.EncodingError("no"), 2),
        (errors.DuplicateDocument("no"), 2),
        (errors.QueryError("no"), 2),
        (errors.PathNotFound("no"), 2),
        (errors.BuildConflict("no"), 2),
        (errors.BudgetError("no"), 2),
        (errors.MissingExtra("no"), 2),
        (errors.OverflowPolicyError("no"), 2),
        (errors.IndexCorrupt("no"), 1),
        (errors.IndexIncomplete("no"), 1),
        (errors.IndexVersion("no"), 1),
        (errors.IndexLocked("no"), 1),
        (errors.BackendError("no"), 1),
        (errors.DeadlineExceeded("no"), 1),
        (OSError(28, "No space left on device", "out.idx"), 1),
        (MemoryError(), 1),
        (RuntimeError("no"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    raising(monkeypatch, error)
    assert cli.run(["doctor"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err


def test_every_error_of_ours_is_said_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, errors.ConfigError("memory must be at least 256 MiB, got 1 MiB."))
    cli.run(["doctor"])
    assert capsys.readouterr().err == "error: memory must be at least 256 MiB, got 1 MiB.\n"


def test_warnings_are_said_without_a_line_of_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doubtful(*_: object, **__: object) -> int:
        warnings.warn("hip: this is the model as it was.", UserWarning, stacklevel=2)
        warnings.warn("old names", FutureWarning, stacklevel=2)
        return 0

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
    monkeypatch.setattr(cli, "run", doubtful)
    monkeypatch.setattr(sys, "argv", ["unspool", "doctor"])
    with warnings.catch_warnings(action="always"), pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "warning: hip: this is the model as it was.\n"


def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, errors.ConfigError("no"))
    with pytest.raises(errors.ConfigError):
        cli.main(["doctor", "--debug"])


def test_debug_after_the_double_dash_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["list", "--", "--debug"])
    assert stop.value.code == 2
    assert "--debug" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = (
        f"{sys.executable} -m unspool list systems --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    first, code = done.stdout.splitlines()
    assert json.loads(first)["slug"]
    assert code in ("0", "141")  # 0 when all of it fitted into the pipe before it closed
    assert done.stderr == ""


def test_no_color_is_honoured_on_a_terminal() -> None:
    def on_a_terminal(**env: str) -> bytes:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "unspool", "list"],
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | env,
        )
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how a pseudo-terminal says that the other end is closed
                break
            if not part:
                break
            said += part
        process.wait()
        os.close(ours)
        assert b"Infini-gram" in said
        return said

    assert b"\x1b[3" not in on_a_terminal(NO_COLOR="1")


def test_list_systems_as_a_table_and_as_json() -> None:
    table = unspool("list", "systems")
    assert table.returncode == 0
    assert len(table.stdout.splitlines()) == 68
    built = sum(" built " in line for line in table.stdout.splitlines())
    assert f"67 systems: {built} built, {67 - built} planned." in table.stderr
    lines = [json.loads(line) for line in unspool("list", "--json").stdout.splitlines()]
    assert len(lines) == 67
    assert {line["state"] for line in lines} == {"built", "planned"}
    assert all(line["proof"] == "unproven" for line in lines if not line["claims"])


def test_a_terminal_without_unicode_shows_escapes() -> None:
    done = unspool("list", "systems", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "CASTILLO" in done.stdout


def test_list_methods_and_tasks() -> None:
    names = [
        json.loads(s)["name"] for s in unspool("list", "methods", "--json").stdout.splitlines()
    ]
    assert "bm25" in names
    assert unspool("list", "tasks").returncode == 0


def test_list_shows_the_settings_of_one_method() -> None:
    done = unspool("list", "methods", "lm-infinite", "--json")
    rows = {row["option"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["sinks"] == {
        "option": "sinks",
        "default": "16",
        "type": "an integer",
        "meaning": "First tokens that stay visible.",
    }
    assert rows["layers"]["meaning"].startswith("all, full")
    assert "recalls" in unspool("list", "methods", "infllm").stdout
    assert "reader" in unspool("list", "methods", "bm25").stderr
    wrong = unspool("list", "methods", "lm-infinit")
    assert wrong.returncode == 2
    assert "lm-infinite" in wrong.stderr
    assert unspool("list", "tasks", "passkey").returncode == 2


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = unspool("doctor", "--json", UNSPOOL_DATA=str(tmp_path / "cache"))
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["cores"] >= 1
    assert report["cache"] == {"path": str(tmp_path / "cache"), "writable": True}
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    table = unspool("doctor")
    assert table.returncode == 0
    for extra, missing in report["extras"].items():
        assert (f"pip install 'unspool[{extra}]'" in table.stdout) == bool(missing)


def test_doctor_imports_no_torch() -> None:
    code = "import sys, unspool.cli.doctor as d; d.examine(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
