"""What went wrong, as an HTTP status and a JSON body that says what to do.

The body is that of the OpenAI interface, `{"error": {"message", "type", "param", "code"}}`, on
every route, so that one kind of client code handles all of them.
"""

from __future__ import annotations

from typing import Any

from unspool import errors

# 400 is a request that has not its form; 422 has it, and cannot be answered here all the same.
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.DeadlineExceeded, 504, "deadline_exceeded"),
    (errors.ShardsMissing, 503, "shards_missing"),
    (errors.IndexFileError, 503, "index_unavailable"),
    (errors.OverflowPolicyError, 400, "context_length_exceeded"),
    (errors.Unsupported, 400, "unsupported"),
    (errors.QueryError, 422, "bad_query"),
    (errors.ConfigError, 422, "bad_setting"),
    (errors.InputError, 422, "bad_input"),
    (errors.BackendError, 502, "model_failed"),
)


class ServiceError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def as_service_error(error: Exception) -> ServiceError | None:
    """The answer to an error that unspool raises on purpose; None for a fault of the program."""
    if isinstance(error, ServiceError):
        return error
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return ServiceError(status, code, str(error))
    if isinstance(error, errors.UnspoolError):
        return ServiceError(500, "failed", str(error))
    return None


def too_busy(message: str) -> ServiceError:
    return ServiceError(503, "overloaded", message, retry_after=1)
