"""Fuzzes the index reader with files whose checksums are right and whose content is not.

    python tests/fuzz/fuzz_index.py [--seconds 60] [--seed 0] [--tier fm|sa]   seeded mutations
    python tests/fuzz/fuzz_index.py --atheris CORPUS_DIR                       coverage-guided

A damaged page never gets past its checksum, so here every checksum is made right again after each
mutation: what is tested is that no length, offset, code or rank read from a file is trusted. Any
answer is allowed, and any error of the index; a crash, a hang, another exception, or memory out of
proportion is not. The seed and the number of a failing case are printed, so it can be run again.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

from tests.native.answers import questions, small_corpus, small_shard
from unspool import _native
from unspool.errors import DeadlineExceeded, QueryError, UnspoolError

PAGE = 4096
UNIT = 512
HEAD = struct.Struct("<8sIIQQQII")
"""Magic, version, byte order, file size, offsets of the first and the second table of checksums,
checksum of the second, sections."""
PARAMETERS = HEAD.size
"""Where the 24 parameters of 8 bytes begin in the header page."""
SECTIONS = 512
LIMIT_SECONDS = 2.0
INTERESTING = [0, 1, 2, 3, 7, 31, 32, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536]
INTERESTING += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


def sums(data: bytes) -> bytes:
    """The checksum of each unit."""
    units = (data[at : at + UNIT] for at in range(0, len(data), UNIT))
    return b"".join(struct.pack("<I", _native.crc32c(unit)) for unit in units)


def reseal(data: bytearray) -> None:
    """Make every checksum right for what the file now holds, where the layout still stands."""
    _, _, _, _, table, second, _, _ = HEAD.unpack_from(data)
    if PAGE <= table <= second <= len(data) and table % UNIT == second % UNIT == 0:
        first = bytes(PAGE // UNIT * 4) + sums(bytes(data[PAGE:table]))
        data[table:second] = first.ljust(second - table, b"\0")[: second - table]
        data[second:] = sums(bytes(data[table:second])).ljust(len(data) - second, b"\0")
        struct.pack_into("<I", data, HEAD.size - 8, _native.crc32c(bytes(data[second:])))
    struct.pack_into("<I", data, PAGE - 4, _native.crc32c(bytes(data[: PAGE - 4])))


def mutate(sound: bytes, rng: random.Random) -> bytearray:
    """One to eight changes of bytes, words, ranges, parameters or section entries; then reseal."""
    data = bytearray(sound)
    table = HEAD.unpack_from(data)[4]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        kind = rng.randrange(8)
        at = rng.randrange(PAGE, table)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            size = rng.choice([2, 4, 5, 8])
            value = rng.choice(INTERESTING) % (1 << (8 * size))
            data[at : at + size] = value.to_bytes(size, "little")[: len(data) - at]
        elif kind == 3:
            length = rng.choice([4, 16, 64, 256])
            other = rng.randrange(PAGE, table)
            data[at : at + length] = data[other : other + length][: len(data) - at]
        elif kind == 4:
            place = PARAMETERS + 8 * rng.randrange(14)
            value = struct.unpack_from("<Q", data, place)[0]
            value = rng.choice([*INTERESTING, value + 1, value - 1, value * 2, value // 2])
            struct.pack_into("<Q", data, place, value % 2**64)
        elif kind == 5:
            place = SECTIONS + 24 * rng.randrange(max(1, HEAD.unpack_from(data)[7]))
            field = place + rng.choice([8, 16])
            value = struct.unpack_from("<Q", data, field)[0]
            value = rng.choice([*INTERESTING, value + 1, value - 1, value + 64, value * 2])
            struct.pack_into("<Q", data, field, value % 2**64)
        elif kind == 6:
            place = SECTIONS + 24 * rng.randrange(max(1, HEAD.unpack_from(data)[7]))
            data[place : place + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, rng.randbytes(8)])
            struct.pack_into("<Q", data, place + 8, rng.choice(INTERESTING))
        else:
            length = min(rng.choice([8, 64, 1024]), len(data) - at)
            data[at : at + length] = rng.randbytes(length)
        del data[len(sound) :]
    reseal(data)
    return data


def ask_everything(path: Path, asked: list, allowed: tuple[type[BaseException], ...]) -> int:
    """Ask every question of this file; the number that were refused."""
    refused = 0
    _native.set_deadline(LIMIT_SECONDS)
    try:
        ix = _native.Index([str(path)])
    except allowed:
        return len(asked) + 1
    for ask in asked:
        _native.set_deadline(LIMIT_SECONDS)
        try:
            ask(ix)
        except allowed:
            refused += 1
    _native.set_deadline(None)
    ix.verify(0)
    ix.close()
    return refused


def seeds(folder: Path, tiers: list[str]) -> list[bytes]:
    made = []
    for tier in tiers:
        made.append(small_shard(folder / f"{tier}.idx", tier).read_bytes())
    if "fm" in tiers:
        made.append(small_shard(folder / "dense.idx", "fm", sa_sample=1, isa_sample=1).read_bytes())
        made.append(
            small_shard(folder / "rare.idx", "fm", sa_sample=33, isa_sample=99).read_bytes()
        )
    return made


def run(seed: int, cases: int, seconds: float, tiers: list[str], limit: bool = True) -> int:
    """Run so many cases, or for so long; returns how many were run."""
    # A wrong length must not be believed by an allocator: stay within 4 GiB, except under the
    # sanitizer, which maps terabytes for its shadow.
    if limit and "ASAN_OPTIONS" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    asked = questions(bytes(small_corpus()[0]))
    until = time.monotonic() + seconds
    # MemoryError and a query found to be out of range are errors too, and so is a long answer.
    allowed = (UnspoolError, QueryError, DeadlineExceeded, OverflowError)
    with tempfile.TemporaryDirectory() as folder:
        made = seeds(Path(folder), tiers)
        path = Path(folder) / "case.idx"
        for number in range(cases):
            if time.monotonic() > until:
                return number
            rng = random.Random(seed * 1_000_003 + number)
            path.write_bytes(mutate(rng.choice(made), rng))
            sys.stderr.write(f"\rseed {seed} case {number} ")
            sys.stderr.flush()
            start = time.monotonic()
            ask_everything(path, asked, allowed)
            if time.monotonic() - start > LIMIT_SECONDS * len(asked):
                raise SystemExit("a question outlived its deadline")
    return cases


def run_atheris(arguments: list[str]) -> None:
    import atheris

    asked = questions(bytes(small_corpus()[0]))
    folder = Path(tempfile.mkdtemp())
    made = seeds(folder, ["fm", "sa"])
    path = folder / "case.idx"

    def one(data: bytes) -> None:
        """The input chooses a seed file and is laid over its bytes at a place it names."""
        if len(data) < 6:
            return
        case = bytearray(made[data[0] % len(made)])
        place = int.from_bytes(data[1:5], "little") % len(case)
        piece = data[5:][: len(case) - place]
        case[place : place + len(piece)] = piece
        reseal(case)
        path.write_bytes(case)
        ask_everything(path, asked, (UnspoolError, QueryError, DeadlineExceeded, OverflowError))

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tier", choices=["fm", "sa"])
    parser.add_argument("--no-limit", action="store_true", help="for AddressSanitizer's maps")
    parser.add_argument("--atheris", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.atheris is not None:
        run_atheris(options.atheris)
        return
    tiers = [options.tier] if options.tier else ["fm", "sa"]
    done = run(options.seed, options.cases, options.seconds, tiers, not options.no_limit)
    sys.stdout.write(f"{done} cases, nothing found\n")


if __name__ == "__main__":
    main()
