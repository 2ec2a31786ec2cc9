"""The benchmark runner, through its entry point, on benchmarks whose answers are known."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from benchmarks import run as runner
from benchmarks.registry import benchmark, discover
from unspool.errors import ConfigError

SUITE = """
    import time
    from benchmarks import Timed, benchmark, peer

    @peer("t_sleep", "half", package="pytest", missing="pytest")
    def half(ms):
        return lambda: time.sleep(ms / 2000)

    @benchmark("t_sleep", tests={tests!r}, against=("half",), sweep={{"ms": (8, 16)}},
               runs=10, seconds=0.0)
    def full(ms):
        return lambda: time.sleep(ms / 1000)

    @benchmark("t_size", tests={tests!r}, against=("gone", "broken"), unit="bytes", fresh=True,
               runs=2)
    def size():
        return lambda: {{"value": 40, "rate": 2.5, "kind": "fm"}}

    @peer("t_size", "broken", missing="json")
    def broken():
        raise RuntimeError("this peer always fails")

    @peer("t_size", "gone", missing="no_such_module_anywhere")
    def gone():
        return lambda: 1

    @peer("t_size", "double", missing=lambda: None)
    def double():
        return lambda: {{"value": 80, "rate": 5.0}}

    @benchmark("t_per", tests={tests!r}, runs=10, seconds=0.0)
    def per():
        return Timed(lambda: time.sleep(0.01), per=100)
"""


@pytest.fixture(autouse=True)
def tests_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the pytest run that comes before a measurement; the test about it undoes this."""
    monkeypatch.setattr(runner, "_tests_pass", lambda tests: True)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    passing = tmp_path / "test_passes.py"
    passing.write_text("def test_it():\n    assert True\n")
    path = tmp_path / "suite.py"
    path.write_text(textwrap.dedent(SUITE).format(tests=str(passing)))
    return path


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def call(suite: Path, folder: Path, *arguments: str) -> int:
    return runner.main([*arguments, "--from", str(suite), "--results", str(folder)])


def test_times_ours_and_a_peer_side_by_side(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert call(suite, out, "t_sleep", "--sweep", "ms=8") == 0
    (row,) = rows(out, "t_sleep")
    assert row["point"] == {"ms": 8}
    ours = row["results"]["unspool"]
    assert ours["runs"] >= 10
    assert 0.008 <= ours["median"] < 1
    assert ours["q1"] <= ours["median"] <= ours["q3"]
    assert 0.1 < row["ratios"]["half"]["median"] < 1
    assert row["versions"]["pytest"] == pytest.__version__
    assert {"cpu", "cores", "memory_bytes"} <= row["machine"].keys()
    assert row["results"]["half"]["peak_bytes"] > 1 << 20


def test_figures_other_than_seconds_come_from_the_call(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert call(suite, out, "t_size", "--against", "gone,broken,double") == 0
    (row,) = rows(out, "t_size")
    assert row["results"]["unspool"]["median"] == 40
    assert row["results"]["unspool"]["runs"] == 2
    assert row["results"]["unspool"]["facts"] == {"rate": 2.5, "kind": "fm"}
    assert row["ratios"]["double"] == {
        "median": 2.0,
        "rate": 2.0,
        "peak_bytes": row["ratios"]["double"]["peak_bytes"],
    }
    assert row["missing"] == {"gone": "pip install gone"}
    assert "this peer always fails" in row["failed"]["broken"]
    assert "pip install gone" in capsys.readouterr().err


def test_rows_are_appended_never_replaced(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    for _ in range(2):
        assert call(suite, out, "t_size", "--against", "none", "--runs", "1") == 0
    assert len(rows(out, "t_size")) == 2


def test_divides_by_the_operations_in_a_call(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert call(suite, out, "t_per", "--dry") == 0
    assert not out.exists()  # --dry writes nothing
    registered = discover(str(suite))["t_per"]
    assert registered.points({}) == [{}]


def test_a_benchmark_without_tests_is_refused() -> None:
    with pytest.raises(ConfigError, match="t_bare names no tests"):
        benchmark("t_bare", tests=())


def test_measures_nothing_while_its_tests_fail(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "test_passes.py").write_text("def test_it():\n    assert False\n")
    out = tmp_path / "results"
    assert call(suite, out, "t_size", "--against", "none") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "There is no benchmark 'nothing'"),
        (["t_sleep", "--sweep", "speed"], "has no parameter speed. It sweeps over ms."),
        (["t_sleep", "--sweep", "ms=fast"], "--sweep ms=fast"),
        (["t_sleep", "--against", "nobody"], "has no peer nobody"),
    ],
)
def test_wrong_use_says_what_there_is(
    suite: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert call(suite, tmp_path / "results", *arguments) == 2
    assert said in capsys.readouterr().err


def test_sweep_runs_the_whole_grid_or_what_was_chosen(suite: Path) -> None:
    registered = discover(str(suite))["t_sleep"]
    assert registered.points({}) == [{"ms": 8}, {"ms": 16}]
    assert registered.points({"ms": None}) == [{"ms": 8}, {"ms": 16}]
    assert registered.points({"ms": [3]}) == [{"ms": 3}]


def test_draws_the_same_plot_from_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the plots extra")
    from benchmarks import plot

    out = tmp_path / "results"
    out.mkdir()
    with (out / "t.jsonl").open("w") as file:
        for tokens, ours, theirs in ((10, 9, 9), (100, 2, 8), (10, 1, 4)):
            row = {
                "benchmark": "t",
                "point": {"tokens": tokens},
                "unit": "s",
                "results": {"unspool": {"median": ours}, "peer": {"median": theirs}},
            }
            file.write(json.dumps(row) + "\n")
    images = []
    for folder in ("a", "b"):
        assert plot.main(["t", "--results", str(out), "--out", str(tmp_path / folder)]) == 0
        images.append((tmp_path / folder / "t.svg").read_bytes())
    assert images[0] == images[1]
    assert b"tokens" in images[0]
    assert (tmp_path / "a" / "t.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_rows_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import plot

    assert plot.main(["t", "--results", str(tmp_path)]) == 2
    assert "python -m benchmarks.run t" in capsys.readouterr().err
