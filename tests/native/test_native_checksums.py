"""The checksum of the index's files against the definition, bit by bit."""

from __future__ import annotations

import random

import pytest

from unspool import _native


def by_definition(data: bytes, seed: int = 0) -> int:
    """CRC-32C as a remainder of polynomials over GF(2), one bit at a time."""
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_published_value():
    assert _native.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    "length",
    [0, 1, 7, 8, 9, 63, 64, 167, 168, 503, 504, 505, 511, 512, 513, 1008, 1013, 4096, 5000],
)
def test_every_way_that_the_bytes_are_summed(length):
    rng = random.Random(length)
    data = rng.randbytes(length)
    assert _native.crc32c(data) == by_definition(data)
    cut = rng.randrange(length + 1)
    assert _native.crc32c(data[cut:], _native.crc32c(data[:cut])) == by_definition(data)
