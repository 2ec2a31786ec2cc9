"""Builds the sdsl driver on demand from Debian's libsdsl-dev and runs it.

sdsl-lite 2 is GPL-3: it serves as a peer and as an oracle, in a program of its own that is
compiled into the cache folder and never linked into, shipped with, or imported by the project.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from unspool._cache import cache_folder

TYPES = ("rrr127", "rrr63", "hyb16", "plain")
PACKAGES = ("libsdsl-dev", "libsdsl3", "libdivsufsort-dev", "libdivsufsort3")
SOURCE = Path(__file__).with_name("sdsl_peer.cpp")


def cache() -> Path:
    return cache_folder("bench", "sdsl")


def why_not() -> str | None:
    """What keeps the driver from being built here, or None."""
    if program().exists():
        return None
    for tool in ("g++", "apt-get", "dpkg"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def program() -> Path:
    return cache() / "sdsl_peer"


def ensure() -> Path:
    """The compiled driver; fetches the Debian packages (unpacked, not installed) the first time."""
    if program().exists() and program().stat().st_mtime >= SOURCE.stat().st_mtime:
        return program()
    root = cache() / "root"
    if not (root / "usr/include/sdsl").exists():
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=cache(), check=True)
        for package in sorted(cache().glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    libraries = next(root.glob("usr/lib/*/libsdsl.a")).parent
    include = next((root / "usr/include").glob("*/divsufsort.h")).parent
    command = ["g++", "-std=c++17", "-O3", "-march=native", "-DNDEBUG", "-w", str(SOURCE)]
    command += ["-I", str(root / "usr/include"), "-I", str(include), str(libraries / "libsdsl.a")]
    command += [str(libraries / f"libdivsufsort{bits}.so.3") for bits in ("", "64")]
    subprocess.run([*command, f"-Wl,-rpath,{libraries}", "-o", str(program())], check=True)
    return program()


def run(verb: str, *arguments: object) -> dict[str, Any]:
    """One call of the driver; `verb` is "build" or "query"."""
    command = [str(ensure()), verb, *(str(a) for a in arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
