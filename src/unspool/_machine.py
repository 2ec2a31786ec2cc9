"""What the machine is: processor, cores, memory, and how much of it this process has used."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_FEATURES = ("popcnt", "bmi2", "avx2", "avx512f", "avx512_vpopcntdq", "asimd", "sve")
"""Instruction sets that matter to the native engine, in the kernel's names."""


def cpu_model() -> str:
    """The processor's name as its maker gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of memory, or of this container's share of it when that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total


def gpu_model() -> str | None:
    """Names of the CUDA devices that this process has used; None if it has used none."""
    torch = sys.modules.get("torch")  # a process that has not imported it has used no device
    if torch is None or not torch.cuda.is_initialized():
        return None
    names = [str(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or None


def cpu_features() -> list[str]:
    """Instruction sets of this machine that the native engine can use; empty if unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                present = set(line.split(":", 1)[1].split())
                return [name for name in _FEATURES if name in present]
    except OSError:
        pass
    return []


def peak_rss() -> int:
    """Most bytes of memory this process has held at once, 0 where the system does not say."""
    try:  # the counter of getrusage survives exec, so a child would inherit its parent's peak
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> dict[str, Any]:
    """The machine as a measured row states it: no host name, nothing that points at a person."""
    described: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": total_memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    gpu = gpu_model()
    return {**described, "gpu": gpu} if gpu else described


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, unspool and those of the named packages that are installed."""
    found = {"python": platform.python_version()}
    for name in ("unspool", *packages):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commit(root: Path) -> str | None:
    """The commit of the checkout at `root`, `+changes` if code differs; None if there is none.

    A copy without its history states its commit in `UNSPOOL_COMMIT`.
    """
    if not (root / ".git").exists():
        return os.environ.get("UNSPOOL_COMMIT") or None
    git = ("git", "-C", str(root))
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "src", "native"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changed else head
