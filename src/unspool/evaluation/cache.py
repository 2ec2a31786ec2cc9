"""Answers that were paid for once, kept across runs.

What: SQLite; the key is a SHA-256 over model identity, tokenizer and the request's digest, which
covers kind, prompt, continuations and decoding. Sampled requests are kept per seed and repeat.
Source: the response caches of lm-evaluation-harness and inspect-ai.
Differs from them: the tokenizer is part of the key, and values are JSON, never pickles. Scoring
does not look here, so metrics can be computed again without a model.
Cost: one look-up and one insertion a request, some tens of microseconds each.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from unspool.errors import ConfigError
from unspool.evaluation.spec import Request, Response
from unspool.types import LanguageModel


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Twelve hexadecimal digits of everything that decides its ids and its template."""
    if tokenizer is None:
        return ""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    text = fast.to_str() if hasattr(fast, "to_str") else type(tokenizer).__qualname__
    template = str(getattr(tokenizer, "chat_template", ""))
    return hashlib.sha256(f"{text}\0{template}".encode()).hexdigest()[:12]


class ResponseCache:
    """A cache file. Threads may share one; so may processes."""

    def __init__(self, path: Path, model: LanguageModel) -> None:
        """Open or make the file.

        Raises:
            ConfigError: The file cannot be opened or is no cache.
        """
        self._scope = f"{model.name}\0{tokenizer_fingerprint(model.tokenizer)}\0"
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS responses (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
                " WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"The response cache {path.name} cannot be opened: {error}. Name another file with "
                f"--cache, or switch it off with --cache off."
            ) from error

    def _key(self, request: Request) -> bytes:
        return hashlib.sha256((self._scope + request.digest).encode()).digest()

    def get(self, request: Request) -> Response | None:
        """The answer to the same request, marked as read from the cache, at no cost."""
        with self._lock:
            row = self._base.execute(
                "SELECT value FROM responses WHERE key = ?", (self._key(request),)
            ).fetchone()
        if row is None:
            return None
        found = Response.from_json(orjson.loads(row[0]))
        return replace(
            found, cached_tokens=found.prompt_tokens, seconds=0.0, first_token_seconds=0.0
        )

    def put(self, request: Request, response: Response) -> None:
        value = orjson.dumps(response.to_json())
        with self._lock, self._base:
            self._base.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?)", (self._key(request), value)
            )

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
