"""Kernels in roles without a GPU: their text as Python, a thread for each role.

Copies land at once, products are taken as late as their wait allows, barriers count arrivals and
bytes: a tile that is let go too early is overwritten, one that is never let go ends in `Stuck`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

_PATIENCE = 20.0
"""Seconds after which a role that waits is stuck."""


class Stuck(Exception):
    """A role waited for a barrier that nobody completed."""


class _Barrier:
    def __init__(self) -> None:
        self.count = self.missing = self.bytes = self.completed = 0
        self.changed = threading.Condition()

    def add(self, arrivals: int, size: int) -> None:
        with self.changed:
            self.missing -= arrivals
            self.bytes += size
            assert self.missing >= 0
            if self.missing == 0 and self.bytes == 0:
                self.completed += 1
                self.missing = self.count
                self.changed.notify_all()

    def wait(self, parity: int) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.completed & 1 != int(parity), _PATIENCE):
                raise Stuck


class _Tile:
    """A view of shared memory, read when it is used."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def reshape(self, shape: list[int]) -> _Tile:
        return _Tile(self.data.view(shape))

    def permute(self, order: list[int]) -> _Tile:
        return _Tile(self.data.permute(order))

    def load(self, _layout: object) -> torch.Tensor:
        return self.data.clone()

    def store(self, values: torch.Tensor) -> None:
        self.data.copy_(values)


class _Queue:
    def __init__(self, dtype: torch.dtype, shape: list[int]) -> None:
        self.dtype = dtype
        self.data = torch.full(shape, float("nan"), dtype=dtype)

    def index(self, slot: int) -> _Tile:
        return _Tile(self.data[int(slot)])


class _Barriers:
    def __init__(self, num: int) -> None:
        self.bars = [_Barrier() for _ in range(num)]

    def index(self, slot: int) -> _Barrier:
        return self.bars[int(slot)]


class _Pointer:
    def __init__(self, data: torch.Tensor, at: Any = 0) -> None:
        self.data, self.at = data.view(-1), at

    def __add__(self, more: Any) -> _Pointer:
        return _Pointer(self.data, self.at + more)


class _Source:
    """A descriptor: blocks of a tensor, 0 where they reach over its edge."""

    def __init__(self, descriptor: Any) -> None:
        self.base, self.block = descriptor.base, descriptor.block_shape
        self.dtype, self.layout = self.base.dtype, None

    def parts(self, at: list[Any]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        starts = [int(i) for i in at]
        assert all(i >= 0 for i in starts)
        sizes = [
            max(0, min(width, length - start))
            for start, width, length in zip(starts, self.block, self.base.shape, strict=True)
        ]
        inside = tuple(slice(0, size) for size in sizes)
        return tuple(slice(i, i + n) for i, n in zip(starts, sizes, strict=True)), inside


class _Products(threading.local):
    """What one role has under way."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.leaving: list[Callable[[], None]] = []


_own = _Products()


def _value(x: Any) -> torch.Tensor:
    return (x.data if isinstance(x, _Tile) else x).float()


def _product(a: Any, b: Any, acc: Any, use_acc: bool = True, is_async: bool = False) -> Any:
    assert is_async
    assert not isinstance(acc, dict)
    under_way = {"of": (a, b, acc if use_acc else torch.zeros_like(acc))}
    _own.waiting.append(under_way)
    return under_way


def _wait_for_products(left: int, deps: list[Any]) -> Any:
    while len(_own.waiting) > left:
        first = _own.waiting.pop(0)
        a, b, acc = first["of"]
        first["is"] = _value(a) @ _value(b) + acc
    found = [dep["is"] if isinstance(dep, dict) else dep for dep in deps]
    return found[0] if len(found) == 1 else tuple(found)


def _copy_in(source: _Source, at: list[Any], barrier: _Barrier, tile: _Tile) -> None:
    outside, inside = source.parts(at)
    tile.data.zero_()
    tile.data[inside] = source.base[outside]
    barrier.add(0, -tile.data.numel() * tile.data.element_size())


def _copy_out(source: _Source, at: list[Any], tile: _Tile) -> None:
    outside, inside = source.parts(at)
    _own.leaving.append(lambda: source.base[outside].copy_(tile.data[inside]))


def _store_wait(left: int) -> None:
    while len(_own.leaving) > left:
        _own.leaving.pop(0)()


def _mixed(function: Any) -> Callable[[Any, Any], Any]:
    return lambda a, b: function(torch.as_tensor(a), torch.as_tensor(b))


def _store(at: _Pointer, values: torch.Tensor, mask: torch.Tensor) -> None:
    at.data[at.at[mask]] = values[mask]


def _side_by_side(roles: list[Any], warps: list[int], registers: list[int]) -> None:
    failed: list[BaseException] = []

    def play(function: Any, args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=play, args=role, daemon=True) for role in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _PATIENCE)
    if failed:
        raise failed[0]


def _language(program: tuple[int, ...], grid: tuple[int, ...]) -> SimpleNamespace:
    def allocate(dtype: torch.dtype, shape: list[int], _layout: object) -> Any:
        return _Barriers(shape[0]) if dtype == torch.int64 else _Queue(dtype, shape)

    return SimpleNamespace(
        float32=torch.float32, int64=torch.int64, static_range=range,
        program_id=lambda axis: torch.tensor(program[axis]),
        num_programs=lambda axis: torch.tensor(grid[axis]),
        maximum=_mixed(torch.maximum), minimum=_mixed(torch.minimum),
        cdiv=lambda a, b: -(-a // b),
        where=lambda c, a, b: torch.where(torch.as_tensor(c), a, b),
        arange=lambda start, end, layout: torch.arange(start, end),
        zeros=lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype),
        full=lambda shape, value, dtype, layout: torch.full(shape, value, dtype=dtype),
        max=lambda x, axis: x.amax(axis), sum=lambda x, axis: x.sum(axis),
        exp2=torch.exp2, log2=torch.log2, convert_layout=lambda x, layout: x,
        SliceLayout=lambda *_: None, NVMMADistributedLayout=lambda *_: None,
        DotOperandLayout=lambda *_: None, allocate_shared_memory=allocate,
        load=lambda at: at.data[at.at], store=_store, warp_specialize=_side_by_side,
    )  # fmt: skip


def _init(barrier: _Barrier, count: int) -> None:
    barrier.count = barrier.missing = count


_BARRIERS = SimpleNamespace(
    MBarrierLayout=lambda: None,
    init=_init,
    expect=lambda barrier, size: barrier.add(1, size),
    arrive=lambda barrier, count: barrier.add(count, 0),
    wait=lambda barrier, parity, pred=True: barrier.wait(parity) if pred else None,
)
_INSTRUCTIONS: dict[str, Any] = {
    "product": _product, "wait_for_products": _wait_for_products, "copy_in": _copy_in,
    "copy_out": _copy_out, "together": lambda: None, "mbarrier": _BARRIERS,
    "tma": SimpleNamespace(store_wait=_store_wait),
    "hopper": SimpleNamespace(fence_async_shared=lambda: None),
}  # fmt: skip


class _Played:
    """A kernel whose programs run one after the other, each in three threads."""

    def __init__(self, kernel: Any, modules: list[ModuleType]) -> None:
        self.kernel, self.modules = kernel, modules

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, num_warps: int, **constants: Any) -> None:
            given = [
                _Source(x) if hasattr(x, "block_shape")
                else _Pointer(x) if isinstance(x, torch.Tensor) else x
                for x in args
            ]  # fmt: skip
            for program in itertools.product(*map(range, grid)):
                for module in self.modules:
                    vars(module)["gl"] = _language(program, grid)
                self.kernel(*given, **constants)

        return launch


@contextmanager
def played(patch: pytest.MonkeyPatch, *modules: ModuleType) -> Iterator[None]:
    """Within, kernels of these modules run as Python; the first holds what the others share."""
    for module in modules:
        patch.setattr(module, "gl", None)
        kernel = None
        for name, value in list(vars(module).items()):
            if name in _INSTRUCTIONS:
                patch.setattr(module, name, _INSTRUCTIONS[name])
            elif hasattr(value, "fn") and hasattr(value, "params"):
                patch.setattr(module, name, value.fn)
                if value.fn.__module__ == module.__name__ and not name.startswith("_"):
                    kernel = name
        if module is not modules[0]:
            assert kernel is not None
            patch.setattr(module, kernel, _Played(vars(module)[kernel], list(modules)))
    yield
