"""Fuzzes the reader of infini-gram v4 directories, which carry no checksums at all.

    python -m tests.fuzz.fuzz_v4 [--seconds 60] [--cases N] [--seed 0]

Any byte of any file may be wrong, and any file may be cut or grown: an answer or an error of the
index is fine; a crash, a hang or another exception is not. The directory that is bent is written
here, by sorting, from nothing of the project.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.fuzz_index import LIMIT_SECONDS
from tests.native.answers import questions
from tests.oracles.corpora import cut, prose
from unspool import _native
from unspool.errors import IndexFileError, UnspoolError

FILES = ("tokenized.0", "table.0", "offset.0")


def write(folder: Path, documents: list[list[int]], width: int) -> None:
    """A v4 directory: documents behind separators of all ones, suffixes sorted as bytes."""
    separator = b"\xff" * width
    text, offsets = b"", []
    for document in documents:
        offsets.append(len(text))
        text += separator + b"".join(s.to_bytes(width, "little") for s in document)
    order = sorted(range(0, len(text), width), key=lambda at: text[at:])
    pointer = math.ceil(math.log2(len(text)) / 8)
    (folder / "tokenized.0").write_bytes(text)
    (folder / "table.0").write_bytes(b"".join(p.to_bytes(pointer, "little") for p in order))
    (folder / "offset.0").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))


def bend(sound: dict[str, bytes], folder: Path, rng: random.Random) -> None:
    for name, data in sound.items():
        (folder / name).write_bytes(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        path = folder / rng.choice(FILES)
        data = bytearray(path.read_bytes())
        at = rng.randrange(max(1, len(data)))
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, rng.randbytes(8)])
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data += rng.randbytes(rng.choice([1, 2, 3, 8, 4096]))
        else:
            del data[at : at + rng.choice([1, 2, 8])]
        path.write_bytes(data)


def run(seed: int, cases: int, seconds: float) -> int:
    text = [s for s in prose(1500, 5) if s != 255]
    documents = [*cut(text, 5, 1), [], [1, 2, 3]]
    asked = {width: questions(bytes(text), width) for width in (1, 2, 4)}
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = []
        for width in (1, 2, 4):
            write(folder, documents, width)
            made.append((width, {f: (folder / f).read_bytes() for f in FILES}))
        for number in range(cases):
            if time.monotonic() > until:
                return number
            rng = random.Random(seed * 1_000_003 + number)
            width, sound = rng.choice(made)
            bend(sound, folder, rng)
            sys.stderr.write(f"\rseed {seed} case {number} ")
            sys.stderr.flush()
            try:
                files = [tuple(str(folder / f) for f in FILES)]
                ix = _native.Index.open_v4(files, width)
            except IndexFileError:
                continue
            for ask in asked[width]:
                _native.set_deadline(LIMIT_SECONDS)
                # A v4 directory has no named sections.
                with contextlib.suppress(UnspoolError, KeyError):
                    ask(ix)
            _native.set_deadline(None)
            ix.close()
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = run(options.seed, options.cases, options.seconds)
    sys.stdout.write(f"{done} cases, nothing found\n")


if __name__ == "__main__":
    main()
