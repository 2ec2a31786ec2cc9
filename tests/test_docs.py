"""The documentation shows what is: snippets run, `--help` texts are current, pages are complete."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from docs_build import generate, markers, picture
from docs_build.markers import fill_file, pages
from unspool.cli import main as cli
from unspool.errors import InputError

sybil = pytest.importorskip("sybil", reason="running the snippets needs the docs extra")

ROOT = Path(__file__).resolve().parents[1]
PAGES = pages(ROOT)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `reference/` and its index, as the README's commands leave it."""
    import unspool
    from examples.python_reference import write

    folder = tmp_path_factory.mktemp("docs")
    write(folder / "reference")
    unspool.build_index([str(folder / "reference")], str(folder / "reference.idx"), workers=1)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_snippets_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sybil.document import Document
    from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

    monkeypatch.chdir(workplace)
    document = Document.parse(str(page), PythonCodeBlockParser(), SkipParser())
    examples = list(document.examples())
    text = page.read_text(encoding="utf-8")
    assert len(examples) >= len(re.findall(r"^```python$", text, flags=re.M))  # none was overlooked
    for example in examples:
        example.evaluate()


def test_help_texts_are_current(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def help_text(verb: str) -> str:
        assert cli.run([*verb.split(), "--help"]) == 0
        return f"```text\n{capsys.readouterr().out.rstrip()}\n```"

    stale = [page.name for page in PAGES if fill_file(page, {"help": help_text}, write=False)]
    assert not stale, f"run `make generate`: the --help texts in {', '.join(stale)} are old"


def test_benchmark_tables_are_current() -> None:
    tables: dict[str, Any] = {"bench": generate.benchmark_table}
    stale = [page.name for page in PAGES if fill_file(page, tables, write=False)]
    assert not stale, f"run `make generate`: the benchmark tables in {', '.join(stale)} are old"


def test_generated_parts_are_filled_and_their_commands_known() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for command, body in re.findall(
            r"<!-- run:begin (.*?) -->\n(.*?)<!-- run:end -->", text, flags=re.S
        ):
            assert f"$ {command}\n" in body, f"run `make generate`: {page.name} lacks {command!r}"


def test_every_verb_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for verb, _, _ in cli._VERBS:
        assert f"<!-- help:begin {verb} -->" in text


def test_the_picture_is_what_its_script_draws() -> None:
    drawn = (ROOT / "docs" / "assets" / "unspool.svg").read_text(encoding="utf-8")
    assert drawn == picture.picture()


def test_a_command_that_fails_is_never_shown_as_output(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no verb 'nothing'"):
        generate.command_output("unspool nothing", tmp_path)
    with pytest.raises(InputError, match="does not run unspool"):
        generate.command_output("rm x", tmp_path)
    shown = generate.command_output("unspool --version", tmp_path)
    assert shown.startswith("```console\n$ unspool --version\n")


def test_a_page_whose_parts_are_right_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("a\n<!-- bench:begin x -->\n<!-- bench:end -->\n", encoding="utf-8")
    table = {"bench": lambda name: f"table of {name}"}
    assert markers.fill_file(page, table)
    stamp = page.stat().st_mtime_ns
    assert not markers.fill_file(page, table)
    assert page.stat().st_mtime_ns == stamp
    assert "table of x" in page.read_text(encoding="utf-8")


def test_links_of_the_readme_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{name} links to {target}, which does not exist"


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert sys.version_info >= (3, 11)
