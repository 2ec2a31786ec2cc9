"""Find the files to read: arguments, folders in a stable order, and what was not taken and why.

A file that is given is always read, whatever its name. A folder is walked recursively in the order
of the bytes of relative paths, the same on every machine, and gives the files whose names say that
they are text (or that `include` names); all others are counted by the reason they were left out.
Directory links are not followed; file links are where they stay inside the folder.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

from unspool.errors import InputError, PathNotFound

AnyPath: TypeAlias = str | os.PathLike[str]

_FORMATS = {
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonlines": "jsonl",
    ".json": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED = {".gz": "gz", ".zst": "zst"}
# JavaScript is missing on purpose: folders of pages hold more of it, minified, than sources do.
# fmt: off
TEXT_EXTENSIONS = frozenset([
    ".txt", ".text", ".md", ".markdown", ".mdx", ".rst", ".adoc", ".asciidoc", ".org", ".tex",
    ".bib", ".pod", ".log", ".srt", ".vtt", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".rs", ".go",
    ".java", ".kt", ".scala", ".swift", ".rb", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml",
    ".ex", ".erl", ".el", ".lisp", ".clj", ".cs", ".php", ".ts", ".tsx", ".sh", ".bash", ".zsh",
    ".sql", ".cmake",
])
"""What a folder walk reads as plain text, beside the formats with a reader of their own."""
_TEXT_NAMES = frozenset([
    "readme", "license", "licence", "copying", "copyright", "news", "changes", "changelog",
    "authors", "contributors", "install", "todo", "notice", "makefile", "dockerfile",
])
# fmt: on
# A JSON file is as often a setting as an array of records, so a walk leaves it to `include`.
_NOT_WALKED = frozenset({"json"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read. `id` is its path relative to the argument it was found under."""

    path: str
    id: str
    format: str
    """txt, html, jsonl, json or parquet."""
    compression: str
    """gz, zst or empty."""
    size: int
    """Bytes on disk; -1 for standard input and pipes."""


@dataclass(slots=True)
class ReadReport:
    """What was read, and what was not and why."""

    files: int = 0
    documents: int = 0
    bytes_read: int = 0
    """Bytes taken from disk, compressed where the file is."""
    bytes_text: int = 0
    """Bytes of UTF-8 text in the documents."""
    replaced: int = 0
    """Sequences that were not UTF-8 and became U+FFFD."""
    replaced_bytes: int = 0
    blank_lines: int = 0
    """Empty lines between records."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files and folders of a walk that were not read, by reason."""
    sources: list[SourceFile] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything but the list of sources."""
        names = ("files", "documents", "bytes_read", "bytes_text", "replaced", "replaced_bytes")
        counts = {name: getattr(self, name) for name in (*names, "blank_lines")}
        return {**counts, "skipped": dict(sorted(self.skipped.items()))}


def find_sources(
    paths: AnyPath | Iterable[AnyPath],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip: Iterable[AnyPath] = (),
    report: ReadReport | None = None,
) -> list[SourceFile]:
    """List the files that the arguments stand for, in the order in which they are read.

    Args:
        paths: Files, folders, or `-` for standard input.
        include: Glob patterns; a walk then reads exactly the files that match one, whatever their
            extension. A pattern is tried on the relative path and on the name; `*` crosses `/`.
        exclude: Glob patterns of what a walk leaves out, folders too.
        skip: Folders that a walk does not enter (the output folder).
        report: Gets the sources, and the number of files left out by reason.

    Raises:
        PathNotFound: An argument does not exist; the message names the nearest that does.
        InputError: Nothing to read, or a folder that cannot be listed.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    report = report if report is not None else ReadReport()
    skipped = {os.path.realpath(path) for path in skip}
    for argument in [os.fspath(path) for path in given]:
        if argument == "-":
            report.sources.append(SourceFile("-", "-", "auto", "", -1))
            continue
        try:
            status = os.stat(argument)
        except (FileNotFoundError, NotADirectoryError):
            raise PathNotFound(_missing(argument)) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{argument!r} cannot be read: {_reason(error)}.") from error
        if stat.S_ISDIR(status.st_mode):
            walk = _Walk(argument, tuple(include), tuple(exclude), skipped, report)
            report.sources.extend(walk.files())
        else:
            size = status.st_size if stat.S_ISREG(status.st_mode) else -1
            name = os.path.basename(argument)
            report.sources.append(SourceFile(argument, _as_id(name), *format_of(name), size))
    if not report.sources:
        raise InputError(_nothing(given, report))
    return report.sources


def format_of(name: str) -> tuple[str, str]:
    """Format and compression that a file name stands for; what is unknown is plain text."""
    stem, extension = os.path.splitext(name)
    compression = _COMPRESSED.get(extension.lower(), "")
    if compression:
        extension = os.path.splitext(stem)[1]
    return _FORMATS.get(extension.lower(), "txt"), compression


@dataclass(frozen=True, slots=True)
class _Walk:
    root: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    skip: set[str]
    report: ReadReport

    def files(self) -> Iterator[SourceFile]:
        # A stack of our own, since folders may nest deeper than Python's calls.
        stack = [("", self._entries(self.root))]
        while stack:
            prefix, entries = stack[-1]
            entry, is_folder = next(entries, (None, False))
            if entry is None:
                stack.pop()
                continue
            relative = prefix + entry.name
            if self.exclude and _matches(relative, entry.name, self.exclude):
                self.report.skipped["excluded"] += 1
            elif not is_folder:
                yield from self._file(entry, relative)
            elif self.skip and os.path.realpath(entry.path) in self.skip:
                self.report.skipped["output folder"] += 1
            else:
                stack.append((relative + "/", self._entries(entry.path)))

    def _entries(self, folder: str) -> Iterator[tuple[os.DirEntry[str], bool]]:
        try:
            with os.scandir(folder) as listing:
                entries = [(entry, entry.is_dir(follow_symlinks=False)) for entry in listing]
        except OSError as error:
            raise InputError(f"The folder {folder!r} cannot be read: {_reason(error)}.") from error
        # With a slash after folders, the order of names is the order of whole relative paths.
        entries.sort(key=lambda pair: os.fsencode(pair[0].name) + (b"/" if pair[1] else b""))
        return iter(entries)

    def _file(self, entry: os.DirEntry[str], relative: str) -> Iterator[SourceFile]:
        reason = ""
        kind, compression = format_of(entry.name)
        try:
            mode = entry.stat()
        except OSError:
            reason = "broken link" if entry.is_symlink() else "vanished"
        else:
            if stat.S_ISDIR(mode.st_mode):
                reason = "link to a folder"
            elif not stat.S_ISREG(mode.st_mode):
                reason = "special file"
            elif entry.is_symlink() and not self._inside(entry.path):
                reason = "link out of the folder"
            elif self.include:
                reason = "" if _matches(relative, entry.name, self.include) else "not included"
            else:
                reason = _not_text(entry.name, kind, compression)
        if reason:
            self.report.skipped[reason] += 1
        else:
            yield SourceFile(entry.path, _as_id(relative), kind, compression, mode.st_size)

    def _inside(self, path: str) -> bool:
        root = os.path.realpath(self.root)
        return os.path.commonpath([root, os.path.realpath(path)]) == root


def _matches(relative: str, name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(relative, p) or fnmatchcase(name, p) for p in patterns)


def _not_text(name: str, kind: str, compression: str) -> str:
    """Why a walk does not read a file of this name; empty if it does."""
    stem, extension = os.path.splitext(os.path.splitext(name)[0] if compression else name)
    extension = extension.lower()
    if kind in _NOT_WALKED:
        return f"extension {extension} (name it, or include='*{extension}')"
    if kind != "txt" or extension in TEXT_EXTENSIONS or stem.lower() in _TEXT_NAMES:
        return ""
    return f"extension {extension}" if extension else "no extension"


def _as_id(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _missing(argument: str) -> str:
    """Say which part of a path does not exist and what is there instead."""
    path = Path(os.path.normpath(argument))
    parent, child = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, child = parent.parent, parent.name
    try:
        near = difflib.get_close_matches(child, sorted(os.listdir(parent))[:10_000], n=1)
    except OSError:
        near = []
    hint = f" Did you mean {str(parent / near[0])!r}?" if near else ""
    return f"There is no file or folder {argument!r}.{hint}"


def _nothing(given: Sequence[AnyPath], report: ReadReport) -> str:
    if not given:
        return "No path was given. Give files, folders, or - for standard input."
    names = ", ".join(repr(os.fspath(path)) for path in given)
    if not report.skipped:
        return f"There is no file in {names}."
    left = ", ".join(f"{count} {reason}" for reason, count in report.skipped.most_common(6))
    return (
        f"There is no text to read in {names}; left out: {left}. "
        "Name files themselves, or give include patterns such as '*.1'."
    )
