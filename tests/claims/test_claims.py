"""The claims runner, through its entry point: rows, steps that resume after a kill, tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from claims import Claim, Context, Figure, runner
from claims.__main__ import main
from claims.tables import claim_table, grid
from docs_build.markers import fill, fill_file, pages
from unspool.errors import ConfigError, InputError

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
    import os, time
    from pathlib import Path
    from claims import Claim, Figure, Measured

    CLAIM = Claim(
        system="infini-gram",
        title="Counting to two",
        required=(
            Figure("first", ">=", 1, "µs"),
            Figure("second", "<=", 1.5, "ratio", aim=1.0),
            Figure("never", ">=", 1),
            Figure("seen", "report", unit="%"),
        ),
        setup="Two steps that note when they run.",
        seed=7,
    )
    LOG = Path(os.environ["CLAIM_LOG"])

    def note(name, value):
        with LOG.open("a") as log:
            log.write(name + "\\n")
        return {"value": value}

    def run(ctx):
        ctx.step("data", lambda: note("data", 0), prepares=True)
        one = ctx.step("one", lambda: note("one", 1), inputs={"n": 1})
        if os.environ.get("CLAIM_WAIT"):
            LOG.with_suffix(".waiting").touch()
            time.sleep(60)
        two = ctx.step("two", lambda: note("two", 2), inputs={"n": 2})
        return Measured({"first": one["value"], "second": two["value"], "seen": 12.34}, {"n": 2})
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "counting.py").write_text(textwrap.dedent(SCRIPT))
    monkeypatch.setenv("CLAIM_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "data"))
    return folder


def call(scripts: Path, *arguments: str) -> int:
    return main([*arguments, "--from", str(scripts), "--results", str(scripts.parent / "results")])


def rows(scripts: Path) -> list[dict]:
    path = scripts.parent / "results" / "infini-gram.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def log(scripts: Path) -> list[str]:
    return (scripts.parent / "log").read_text().split()


def test_a_row_says_what_was_required_reached_and_where(scripts: Path) -> None:
    assert call(scripts, "counting") == 0
    (row,) = rows(scripts)
    assert {f["name"]: (f["reached"], f["met"]) for f in row["figures"]} == {
        "first": (1, True),
        "second": (2, False),
        "never": (None, False),  # what was not measured is not reached
        "seen": (12.34, None),
    }
    assert row["met"] is False
    assert (row["claim"], row["system"], row["seed"]) == ("counting", "infini-gram", 7)
    assert row["facts"] == {"n": 2}
    assert set(row["machine"]) == {"cpu", "cores", "memory_bytes", "system"}  # no host name
    assert row["versions"]["python"].count(".") == 2
    assert row["date"].endswith("Z")


def test_a_killed_run_continues_after_its_last_step(scripts: Path) -> None:
    command = [sys.executable, "-m", "claims", "counting", "--from", str(scripts)]
    command += ["--results", str(scripts.parent / "results")]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "CLAIM_WAIT": "1"}, stderr=subprocess.DEVNULL
    )
    waiting = scripts.parent / "log.waiting"
    deadline = time.monotonic() + 30
    while not waiting.exists():
        assert time.monotonic() < deadline, "the claim never reached its second step"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log(scripts) == ["data", "one"]

    assert call(scripts, "counting") == 0
    assert log(scripts) == ["data", "one", "two"]
    assert len(rows(scripts)) == 1


def test_a_finished_run_measures_anew_but_keeps_its_data(scripts: Path) -> None:
    assert call(scripts, "counting") == 0
    assert call(scripts, "counting") == 0
    assert log(scripts) == ["data", "one", "two", "one", "two"]
    assert len(rows(scripts)) == 2


def test_steps_are_known_by_inputs_and_code(tmp_path: Path) -> None:
    claim = Claim(system="s", title="t", required=(Figure("f", ">=", 1),), setup="s")
    source = tmp_path / "claim.py"
    source.write_text("a")
    done: list[str] = []

    def run(inputs: dict, text: str) -> None:
        source.write_text(text)
        context = Context("c", claim, "cpu", source, tmp_path / "steps")
        context.step("s", lambda: done.append("s"), inputs=inputs)
        context.step("d", lambda: done.append("d"), inputs=inputs, prepares=True)

    run({"n": 1}, "a")
    run({"n": 1}, "a")
    assert done == ["s", "d"]
    run({"n": 2}, "a")
    assert done == ["s", "d", "s", "d"]
    run({"n": 2}, "b")  # other code: what it measured does not count, the data does
    assert done == ["s", "d", "s", "d", "s"]


@pytest.mark.parametrize(
    ("op", "bound", "reached", "met"),
    [
        (">=", 2, 2, True),
        (">=", 2, 1.99, False),
        ("<=", 2, 2, True),
        (">", 2, 2, False),
        ("<", 2, 1, True),
        ("==", 1.0, 1, True),
        ("report", None, 3, None),
        (">=", 0, None, False),
    ],
)
def test_bounds(op: str, bound: float | None, reached: float | None, met: bool | None) -> None:
    assert Figure("f", op, bound).met(reached) is met  # type: ignore[arg-type]  # parametrised


def test_figures_without_bound_or_with_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a bound"):
        Figure("f", ">=")
    twice = (Figure("f", ">=", 1), Figure("f", "<=", 2))
    with pytest.raises(ConfigError, match="different names"):
        Claim(system="s", title="t", required=twice, setup="s")


def test_a_failing_script_stops_no_other(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = (scripts / "counting.py").read_text().split("def run")[0]
    (scripts / "broken.py").write_text(broken + "def run(ctx):\n    return 1 / 0\n")
    strange = broken + "def run(ctx):\n    return {'third': 3}\n"
    (scripts / "strange.py").write_text(strange)
    assert call(scripts, "--all") == 1
    assert [row["claim"] for row in rows(scripts)] == ["counting"]
    said = capsys.readouterr().err
    assert "broken failed: ZeroDivisionError" in said
    assert "strange could not be measured" in said
    assert "third" in said


def test_budget_chooses_the_claims(scripts: Path) -> None:
    gpu = (scripts / "counting.py").read_text().replace("seed=7", "seed=7, budget='gpu'")
    (scripts / "on_gpu.py").write_text(gpu)
    found = runner.discover(scripts)
    assert runner.chosen(found, "cpu") == ["counting"]
    assert runner.chosen(found, "gpu") == ["on_gpu"]
    assert runner.chosen(found, "full") == ["counting", "on_gpu"]


def test_modules_without_a_claim_serve_the_others(scripts: Path) -> None:
    (scripts / "shared.py").write_text("ANSWER = 42\n")
    (scripts / "wrong.py").write_text("CLAIM = 'not one'\ndef run(ctx): ...\n")
    with pytest.raises(ConfigError, match=r"claims/wrong\.py must define CLAIM"):
        runner.discover(scripts)
    (scripts / "wrong.py").unlink()
    assert list(runner.discover(scripts)) == ["counting"]


def test_half_a_row_is_never_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"claim": "a"}\n{"cla')
    with pytest.raises(ConfigError, match="middle of a row"):
        runner.append(path, {"claim": "b"})
    assert path.read_text() == '{"claim": "a"}\n{"cla'


@pytest.mark.parametrize("arguments", [[], ["nothing"]])
def test_wrong_use(scripts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert call(scripts, *arguments) == 2
    assert "claim" in capsys.readouterr().err


def site(scripts: Path, page: str) -> Path:
    root = scripts.parent / "site"
    (root / "docs" / "systems").mkdir(parents=True)
    (root / "README.md").write_text("# nothing generated here\n")
    (root / "docs" / "systems" / "page.md").write_text(page)
    return root


def test_tables_are_made_from_rows_and_stay_the_same(scripts: Path) -> None:
    page = "before\n<!-- claims:begin counting -->\n<!-- claims:end -->\nafter\n"
    root = site(scripts, page)
    assert call(scripts, "counting") == 0
    for _ in range(2):
        assert call(scripts, "--tables", "--root", str(root)) == 0
        text = (root / "docs" / "systems" / "page.md").read_text()
        assert text.startswith("before\n<!-- claims:begin counting -->\n")
        assert text.endswith("<!-- claims:end -->\nafter\n")
        assert "| first | ≥ 1 µs |  | 1 µs | reached |" in text
        assert "| second | ≤ 1.5 ratio | 1 ratio | 2 ratio | **missed** |" in text
        assert "| never | ≥ 1 |  | not measured | **missed** |" in text
        assert "| seen |  |  | 12.3% |  |" in text
        assert text.count("| figure |") == 1
    assert (root / "README.md").read_text() == "# nothing generated here\n"


def _figures(names: list[str], unit: str = "ms") -> list[dict[str, Any]]:
    report = {"op": "report", "required": None, "met": None, "unit": unit}
    return [{"name": name, "reached": i + 1, **report} for i, name in enumerate(names)]


def test_figures_that_cross_two_things_are_a_table_of_their_own() -> None:
    crossed = [f"{p}, d{d}: {k}" for p in ("forward", "backward") for d in (64, 128) for k in "ab"]
    bound = {"name": "step: a", "op": ">=", "required": 2, "reached": 3, "met": True, "unit": "x"}
    row: dict[str, Any] = {
        "figures": [bound, *_figures([*crossed, "memory: a"]), *_figures(["steps, c"], "")],
        "machine": {"cpu": "one", "cores": 2}, "setup": "So.", "seed": 0, "commit": "", "date": "",
    }  # fmt: skip
    listed, table, _ = claim_table(row).split("\n\n")
    assert listed.splitlines()[2:] == [
        "| step: a | ≥ 2 x | 3 x | reached |",
        "| memory: a |  | 9 ms |  |",
        "| steps, c |  | 1 |  |",
    ]
    assert table.splitlines() == [
        "| ms | a | b |",
        "| --- | --- | --- |",
        "| forward, d64 | 1 | 2 |",
        "| forward, d128 | 3 | 4 |",
        "| backward, d64 | 5 | 6 |",
        "| backward, d128 | 7 | 8 |",
    ]
    row["figures"] = _figures(crossed[:6])  # too few
    assert len(claim_table(row).split("\n\n")) == 2


def test_names_are_parted_where_more_of_them_find_a_place() -> None:
    names = [f"{task}, {n}k" for n in (1, 2) for task in ("find, written", "find, ranked", "guess")]
    names += [f"sort, {n}k" for n in (1, 2)]
    assert grid(_figures(names))["find, ranked, 2k"] == ("find, ranked", "2k")
    names = [f"loss at {n}x, {kind}" for n in (1, 2) for kind in ("plain", "plain, log", "c", "d")]
    assert grid(_figures(names))["loss at 2x, plain, log"] == ("plain, log", "loss at 2x")


def test_tables_of_systems_say_unproven(scripts: Path) -> None:
    root = site(
        scripts,
        "<!-- claims:begin systems -->\n<!-- claims:end -->\n"
        "<!-- claims:begin infini-gram-mini -->\nold\n<!-- claims:end -->",
    )
    assert call(scripts, "counting") == 0
    assert call(scripts, "--tables", "--root", str(root)) == 0
    text = (root / "docs" / "systems" / "page.md").read_text()
    assert text.count("| unproven |") == 66
    assert "| 1 of 3 figures reached |" in text
    assert "Not measured yet: unproven." in text


def test_an_unknown_table_is_named(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = site(scripts, "<!-- claims:begin nobody -->\n<!-- claims:end -->\n")
    assert call(scripts, "--tables", "--root", str(root)) == 2
    assert "nobody" in capsys.readouterr().err


def test_markers_leave_other_kinds_alone_and_must_be_closed() -> None:
    other = "<!-- run:begin x -->\nkept\n<!-- run:end -->"
    assert fill(other, {"claims": str}, where="p.md") == other
    with pytest.raises(InputError, match=r"p\.md"):
        fill("<!-- claims:begin x -->\n", {"claims": str}, where="p.md")


def test_the_documentation_shows_the_rows_there_are() -> None:
    from claims.tables import generator

    stale = [
        page.name
        for page in pages(ROOT)
        if fill_file(page, {"claims": generator(runner.RESULTS)}, write=False)
    ]
    assert not stale, f"run `make generate`: {', '.join(stale)} do not show the newest rows"


def test_every_claim_names_a_system_or_a_verb() -> None:
    from unspool import catalog
    from unspool.cli.main import _VERBS

    known = {system.slug for system in catalog.systems()} | {name for name, _, _ in _VERBS}
    found = runner.discover()
    assert {module.CLAIM.system for module in found.values()} <= known
