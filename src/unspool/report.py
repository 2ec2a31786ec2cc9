"""Where every token of a text is after it was read: attended, stored or dropped.

The three add up to the tokens given. A token is in the class of the most generous layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from unspool.types import Usage

if TYPE_CHECKING:
    from unspool.caches.base import StoreReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`Usage`, and what became of each token."""

    usage: Usage
    method: str
    attended_tokens: int
    """Met by the last query."""
    stored_tokens: int
    """Held, and still retrievable."""
    bytes_device: int
    bytes_host: int = 0
    bytes_disk: int = 0

    @property
    def dropped_tokens(self) -> int:
        return self.usage.dropped_tokens

    def to_json(self) -> dict[str, Any]:
        out = {**self.usage.to_json(), **asdict(self)}
        del out["usage"]
        return out


def count(layers: Sequence[StoreReport], *, method: str, dropped_before: int = 0) -> Report:
    """One report from those of all layers.

    Args:
        layers: One a layer.
        method: As it would be typed.
        dropped_before: Tokens that were cut from the prompt before the model saw it.
    """
    seen = max((layer.seen for layer in layers), default=0)
    attended = max((layer.attended for layer in layers), default=0)
    reachable = max((layer.attended + layer.stored for layer in layers), default=0)
    usage = Usage(
        input_tokens=seen + dropped_before,
        read_tokens=seen,
        dropped_tokens=seen - reachable + dropped_before,
    )
    return Report(
        usage=usage,
        method=method,
        attended_tokens=attended,
        stored_tokens=reachable - attended,
        bytes_device=sum(layer.bytes_device for layer in layers),
        bytes_host=sum(layer.bytes_host for layer in layers),
        bytes_disk=sum(layer.bytes_disk for layer in layers),
    )


def with_usage(report: Report, **changes: Any) -> Report:
    """The report with some fields of its usage replaced."""
    return replace(report, usage=replace(report.usage, **changes))
