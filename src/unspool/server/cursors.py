"""Cursors: where the next page of hits begins, bound to the index and the question.

A cursor holds how many hits were shown and digests of the index and of the question, so a page
of another index, or of the same name after the index was replaced, is refused and never mixed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import orjson

from unspool.server.failures import ServiceError

_MOST = 1 << 50


def make_cursor(fingerprint: str, question: Any, shown: int) -> str:
    raw = f"{shown:x}.{fingerprint}.{_digest(question)}".encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(cursor: str, fingerprint: str, question: Any) -> int:
    """How many hits the pages before showed.

    Raises:
        ServiceError: 422 for a cursor of another question, 409 if the index was replaced.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        number, of_index, of_question = raw.split(".")
        shown = int(number, 16)
    except (binascii.Error, ValueError):
        raise _refused("This is not a cursor that the service gave out.") from None
    if of_question != _digest(question) or not 0 <= shown < _MOST:
        raise _refused("This cursor belongs to another question; limit and context may differ.")
    if of_index != fingerprint:
        raise ServiceError(
            409,
            "index_replaced",
            "The index was replaced since the page before. Ask again without a cursor.",
            param="cursor",
        )
    return shown


def _refused(message: str) -> ServiceError:
    return ServiceError(422, "bad_cursor", message, param="cursor")


def _digest(question: Any) -> str:
    return hashlib.blake2b(orjson.dumps(question), digest_size=9).hexdigest()
