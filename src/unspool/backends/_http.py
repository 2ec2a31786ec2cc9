"""A small JSON client over urllib: timeouts, retries with backoff, no redirects, no secrets shown.

What: POST and GET of JSON with retries for answers that say "later" (408, 425, 429, 5xx) and for
connections that break; a refused connection or an unknown host is reported at once.
Source: RFC 9110 (Retry-After), the OpenAI HTTP interface.
Differs from the `openai` client: redirects are refused, since urllib would carry the key to
wherever they point, and answers are read up to a limit.
Cost: one connection a request.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from typing import Any

from unspool.errors import BackendError

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOST_BYTES = 64 << 20
_MOST_WAIT = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class JsonClient:
    """Sends JSON to one base address."""

    def __init__(
        self,
        base: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 5,
        first_wait: float = 0.5,
    ) -> None:
        self.base = base.rstrip("/")
        self._key = api_key
        self._timeout = timeout
        self._attempts = attempts
        self._first_wait = first_wait
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __repr__(self) -> str:
        return f"JsonClient({self.base!r})"

    def get(self, path: str) -> Any:
        return self._send(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send(path, json.dumps(body).encode())

    def _send(self, path: str, data: bytes | None) -> Any:
        wait = self._first_wait
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                return self._once(path, data)
            except urllib.error.HTTPError as error:
                said = self._scrub(_error_text(error))
                if error.code not in _LATER or last:
                    tries = f" after {attempt} tries" if attempt > 1 else ""
                    raise BackendError(
                        f"{self.base} answered {error.code} to {path}{tries}: {said}"
                        f"{_advice(error.code)}"
                    ) from None  # the chained request would show the key
                pause = _retry_after(error) or wait
            except (http.client.HTTPException, ConnectionError, TimeoutError, OSError) as error:
                reason = getattr(error, "reason", error)
                if last or isinstance(reason, (ConnectionRefusedError, socket.gaierror)):
                    raise BackendError(
                        f"{self.base} cannot be reached: {self._scrub(str(reason) or 'no answer')}."
                        f" Check that the server runs and that the address is right."
                    ) from None
                pause = wait
            time.sleep(min(pause, _MOST_WAIT))
            wait *= 2
        raise BackendError(f"{self.base} was never asked: attempts is {self._attempts}.")

    def _once(self, path: str, data: bytes | None) -> Any:
        request = urllib.request.Request(
            self.base + path, data=data, headers={"Accept": "application/json"}
        )
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self._timeout) as response:
            body = response.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise BackendError(f"{self.base} sent more than {_MOST_BYTES >> 20} MiB for {path}.")
        try:
            return json.loads(body)
        except ValueError:
            start = self._scrub(body[:80].decode(errors="replace"))
            raise BackendError(
                f"{self.base} did not answer {path} in JSON but with {start!r}. Is it an "
                f"OpenAI-compatible endpoint? The address often ends in /v1."
            ) from None

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _error_text(error: urllib.error.HTTPError) -> str:
    """What the server said was wrong, in a line."""
    try:
        body = error.read(4096)
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        said = json.loads(body)
        inner = said.get("error", said)
        text = inner.get("message") if isinstance(inner, dict) else inner
        return " ".join(str(text or error.reason).split())
    except (ValueError, AttributeError):
        return " ".join(body.decode(errors="replace").split())[:200] or str(error.reason)


def _advice(code: int) -> str:
    if code in (401, 403):
        return " Set the key in UNSPOOL_API_KEY."
    if code == 404:
        return " Is the address right? It often ends in /v1."
    if 300 <= code < 400:
        return " Redirects are not followed; give the address that it points to."
    return ""


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    said = error.headers.get("Retry-After") if error.headers else None
    try:
        return max(0.0, float(said)) if said else None
    except ValueError:
        return None  # a date: the growing wait does as well
