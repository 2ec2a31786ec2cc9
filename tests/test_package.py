"""The package as it is imported: quick, lazy, and with names that lead somewhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

import unspool
from unspool import _registry, errors


def test_import_is_quick_and_light() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import unspool; print(time.perf_counter() - t);"
        "print(*[m for m in ('numpy', 'torch', 'rich', 'cyclopts') if m in sys.modules])"
    )
    taken = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        seconds, heavy = done.stdout.split("\n")[:2]
        taken.append(float(seconds))
        assert heavy == ""
    assert min(taken) < 0.1


@pytest.mark.parametrize("name", unspool.__all__)
def test_every_name_leads_somewhere(name: str) -> None:
    assert getattr(unspool, name) is not None
    assert name in dir(unspool)


def test_the_table_of_lazy_names_is_what_is_exported() -> None:
    assert sorted([*unspool._LAZY, "__version__"]) == sorted(unspool.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        unspool.nothing  # noqa: B018 - looking the name up is the test


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k, table in _registry._TABLES.items() for n in table]
)
def test_every_registered_name_resolves(kind: str, name: str) -> None:
    target = _registry._TABLES[kind][name]
    assert find_spec(target.split(":")[0]) is not None
    assert _registry.resolve(kind, name) is not None


def test_an_unknown_registered_name_lists_the_nearest() -> None:
    with pytest.raises(errors.ConfigError, match="Did you mean bm25"):
        _registry.resolve("reader", "bm52")


def test_errors_are_ours_and_what_a_caller_expects() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    for error in found:
        assert issubclass(error, errors.UnspoolError)
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.PathNotFound, FileNotFoundError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert str(errors.PathNotFound("There is no x.")) == "There is no x."
