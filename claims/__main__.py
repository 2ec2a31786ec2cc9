"""`python -m claims NAME…|--all`: measure claims; `--tables` fills the tables made from rows."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from claims import runner, tables
from docs_build.markers import fill_file, pages
from unspool import catalog
from unspool.cli._output import emit_table, emit_text, human_seconds, message
from unspool.errors import ConfigError, UnspoolError


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        if options.tables:
            return _tables(options)
        found = runner.discover(options.source)
        if options.list:
            return _list(found, options.results)
        if options.original is not None:
            os.environ["UNSPOOL_ORIGINAL"] = str(options.original.resolve())
        names = runner.chosen(found, options.budget) if options.all else options.names
        if not names:
            message("Name a claim, or --all. --list shows what there is.")
            return 2
        unknown = [name for name in names if name not in found]
        if unknown:
            raise ConfigError(
                f"There is no claim {', '.join(unknown)}. Known: {', '.join(found) or 'none'}."
            )
        failed = [name for name in names if not _measure(name, found[name], options)]
        return 1 if failed else 0
    except UnspoolError as error:
        message(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        message("Interrupted. The same command continues after the last finished step.")
        return 130


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m claims", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims to measure")
    parser.add_argument("--all", action="store_true", help="every claim that the budget pays for")
    parser.add_argument("--budget", choices=("cpu", "gpu", "full"), default="cpu")
    parser.add_argument(
        "--original",
        type=Path,
        help="checkout of a release, or a folder of checkouts, for claims that run beside one",
    )
    parser.add_argument("--list", action="store_true", help="show the claims and what they reached")
    parser.add_argument("--tables", action="store_true", help="fill the tables of README and docs")
    parser.add_argument("--results", type=Path, default=runner.RESULTS, help="folder of the rows")
    parser.add_argument("--from", dest="source", type=Path, help="folder of other claim scripts")
    parser.add_argument("--root", type=Path, default=runner.ROOT, help="where README and docs are")
    return parser.parse_args(argv)


def _measure(name: str, module: runner.ModuleType, options: argparse.Namespace) -> bool:
    try:
        row = runner.measure(name, module, options.budget, options.results)
    except UnspoolError as error:
        message(f"{name} could not be measured: {error}")
        return False
    except Exception as error:  # one broken script must not stop the others
        message(f"{name} failed: {runner.explain(error)}")
        return False
    emit_text(f"{row['title']}\n\n{tables.claim_table(row)}\n")
    missed = [f["name"] for f in row["figures"] if f["met"] is False]
    said = f"missed: {', '.join(missed)}" if missed else "every figure reached"
    message(f"{name}: {said}, in {human_seconds(row['seconds'])}")
    return True


def _list(found: dict[str, runner.ModuleType], results: Path) -> int:
    measured = {p.claim: p for proofs in catalog.proofs(results).values() for p in proofs}
    emit_table(
        ["claim", "system", "machine", "proof", "title"],
        (
            [
                name,
                module.CLAIM.system,
                module.CLAIM.budget,
                str(measured.get(name, catalog.UNPROVEN)),
                module.CLAIM.title,
            ]
            for name, module in found.items()
        ),
    )
    return 0


def _tables(options: argparse.Namespace) -> int:
    generators = {"claims": tables.generator(options.results)}
    for page in pages(options.root):
        if fill_file(page, generators):
            message(f"wrote {page.relative_to(options.root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
