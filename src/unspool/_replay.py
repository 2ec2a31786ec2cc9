"""Replay a packed forward pass as one CUDA graph.

What: passes whose packed rows have one size differ in numbers only, so one capture of all their
kernels serves them; a replay costs the host a few launches.
Source: CUDA graphs bucketed by the number of tokens, as the released code's successors have them.
Differs from `torch.compile(mode="reduce-overhead")`: the whole pass is one graph, embeddings and
the model's Python included; outputs leave it as they are unpacked; it never depends on a
sentence's length.
Cost: memory of the largest pass once, shared by all graphs, and the outputs of each; the second
pass of a size is captured.
Shapes: as `layout`.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unspool._packed import PackedRow, packed
from unspool.attention.padding_free.layout import Layout

if TYPE_CHECKING:
    import torch

MOST = 32
"""Graphs that are kept: those used last."""

Pass = Callable[[dict[str, Any], PackedRow], Any]


@dataclass(eq=False, slots=True)
class _Held:
    """What is kept for passes of one size."""

    given: dict[str, Any]
    """Arguments; its tensors are where a graph reads."""
    row: PackedRow
    """With a layout that stands for any of its size."""
    graph: torch.cuda.CUDAGraph | None = None
    outputs: Any = None


class Replays:
    """The graphs of one model, by the size of a pass."""

    def __init__(self, base: Any, batch_inside: bool) -> None:
        """
        Args:
            base: The model; its modules stay the same, the values of their weights may change.
            batch_inside: Something of the model runs on unpacked batches, so the batch's shape is
                part of a pass's size.
        """
        self._base = base
        self._batch_inside = batch_inside
        self._lock = threading.Lock()
        self._graphs: OrderedDict[Any, _Held] = OrderedDict()
        self._refused: set[Any] = set()
        self._pool: Any = None
        self._done: Any = None

    def run(
        self, call: Pass, given: dict[str, Any], row: PackedRow, finish: Callable[[Any], Any]
    ) -> Any:
        """A pass, replayed if one of its size was captured.

        Args:
            call: The pass itself, from arguments and row.
            given: Its arguments: packed tensors and others.
            row: With the layout of this batch.
            finish: Copies what is wanted out of the outputs.
        """
        import torch

        device = row.layout.indices.device
        if (
            device.type != "cuda"
            or torch.is_grad_enabled()
            or self._base.training
            or not all(_plain(value, device) for value in given.values())
        ):
            return finish(call(given, row))
        key = self._size(given, row)
        with self._lock:
            if key not in self._refused:
                stream = torch.cuda.current_stream(device)
                if self._done is not None:
                    stream.wait_event(self._done)
                try:
                    outputs = self._pass(key, call, given, row)
                except Exception as error:
                    self._refuse(key, error)
                else:
                    finished = finish(outputs)
                    self._done = stream.record_event()
                    return finished
        return finish(call(given, row))

    def _pass(self, key: Any, call: Pass, given: dict[str, Any], row: PackedRow) -> Any:
        """A pass over the tensors that a graph reads: the first of a size runs as it is, which is
        when compilers work; the second is captured, and from then on it is replayed."""
        import torch

        device = row.layout.indices.device
        held = self._graphs.get(key)
        with torch.inference_mode(False), torch.no_grad():
            new = held is None
            if held is None:
                held = _Held(
                    {k: torch.empty_like(x) if _moves(x) else x for k, x in given.items()},
                    replace(row, layout=_standing_for(row.layout)),
                )
            self._keep(key, held)
            self._fill(held, given, row.layout)
            if new:
                with packed(held.row):
                    return call(held.given, held.row)
            if held.graph is None:
                self._capture(held, call, device)
            assert held.graph is not None  # captured just now
            held.graph.replay()
            return held.outputs

    def _fill(self, held: _Held, given: dict[str, Any], layout: Layout) -> None:
        """Put a batch where the graph reads."""
        for name, place in held.given.items():
            if _moves(place):
                place.copy_(given[name])
        there, total = held.row.layout, layout.position_ids.shape[0]
        count = layout.cu_seqlens.shape[0]
        there.cu_seqlens[:count].copy_(layout.cu_seqlens)
        if count < there.cu_seqlens.shape[0]:
            there.cu_seqlens[count:].fill_(total)
        if self._batch_inside:
            rows, columns = layout.batch_shape
            there.indices[: layout.tokens].copy_(layout.indices)
            there.indices[layout.tokens :].fill_(rows * columns)

    def _capture(self, held: _Held, call: Pass, device: torch.device) -> None:
        import torch

        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        beside: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # as PyTorch's
        beside.wait_stream(torch.cuda.current_stream(device))
        with packed(held.row):
            with torch.cuda.stream(beside):  # libraries take their workspace beforehand
                call(held.given, held.row)
            torch.cuda.current_stream(device).wait_stream(beside)
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                held.outputs = call(held.given, held.row)
        held.graph = graph

    def _refuse(self, key: Any, error: Exception) -> None:
        self._graphs.pop(key, None)
        self._refused.add(key)
        warnings.warn(
            f"{type(self._base).__name__} runs without a CUDA graph, since it could not be "
            f"captured: {error}",
            RuntimeWarning,
            stacklevel=4,
        )

    def _size(self, given: dict[str, Any], row: PackedRow) -> Any:
        import torch

        layout = row.layout
        rows, columns = layout.batch_shape
        shapes = tuple(
            (name, value.shape, value.dtype) if isinstance(value, torch.Tensor) else (name, value)
            for name, value in sorted(given.items())
        )
        return (
            layout.position_ids.shape[0],
            _rounded(layout.max_seqlen),
            (rows, columns if self._batch_inside else None),
            row.backend,
            repr(shapes),
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        )

    def forget(self) -> None:
        """Drop every graph: graphs read weights where they lay when captured."""
        with self._lock:
            self._graphs.clear()
            self._refused.clear()

    def _keep(self, key: Any, held: _Held) -> None:
        self._graphs[key] = held
        self._graphs.move_to_end(key)
        while len(self._graphs) > MOST:
            self._graphs.popitem(last=False)


def _moves(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _plain(value: Any, device: torch.device) -> bool:
    """Whether a graph can take an argument: a tensor of the device, or a constant."""
    if _moves(value):
        return bool(value.device == device)
    return value is None or isinstance(value, bool | int | float | str)


def _rounded(longest: int) -> int:
    """The next power of two: few sizes, and a kernel's tiles past a sentence's end are free."""
    return int(2 ** (longest - 1).bit_length())


def _standing_for(layout: Layout) -> Layout:
    """Tensors that hold any layout of one size. Of position numbers only the count is of use: a
    model is given its own."""
    import torch

    rows, _ = layout.batch_shape
    device, total = layout.indices.device, layout.position_ids.shape[0]
    return Layout(
        lengths=(),
        cu_seqlens=torch.zeros(rows + 2, dtype=torch.int32, device=device),
        max_seqlen=_rounded(layout.max_seqlen),
        indices=torch.zeros(total, dtype=torch.int64, device=device),
        position_ids=torch.zeros(total, dtype=torch.int64, device=device),
        tail=0,
        batch_shape=layout.batch_shape,
        in_graph=True,
    )
