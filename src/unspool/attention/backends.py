"""What computes attention, what each can do, and the one reason why it can't.

What: a table of back-ends with capability flags; the choice of one for a call; the sentence said
when the named one is refused.
Source: this project's own contract; the flags follow what FlashAttention, FlexAttention and
PyTorch's fused kernels document.
Differs from PyTorch's own dispatch: a refusal names its condition, and nothing falls back in
silence when a back-end was asked for by name.
Cost: a few attribute reads a call; a back-end's module is imported when it is first asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec

RULES = (
    "causal",
    "window",
    "beyond",
    "global",
    "positions",
    "documents",
    "mask",
    "blocks",
    "softcap",
    "dropout",
    "deterministic",
)
"""What a Spec can ask for beyond seeing everything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to compute attention, and what it can do."""

    name: str
    where: str
    """ "module:prefix": `why_not_<prefix>` and `<prefix>_attend` live there."""
    devices: tuple[str, ...]
    """Types of device; empty: any."""
    dtypes: tuple[str, ...]
    rules: tuple[str, ...]
    """Of `RULES`."""
    lse: bool = True
    """Returns the log-sum-exp."""
    backward: bool = True
    lse_backward: bool = True
    """The log-sum-exp has a gradient."""
    grouped: bool = True
    """Several query heads may share a key-value head without copies of it."""

    def why_not(
        self, q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool
    ) -> str | None:
        """The first condition that this call does not meet; None: it meets all."""
        import torch

        dtype = str(q.dtype).removeprefix("torch.")
        if self.devices and q.device.type not in self.devices:
            return f"tensors are on {q.device.type}, it needs {' or '.join(self.devices)}"
        if dtype not in self.dtypes:
            return f"dtype is {dtype}, it has {', '.join(self.dtypes)}"
        for rule in asked(spec):
            if rule not in self.rules:
                return f"it has no rule {rule!r}"
        if return_lse and not self.lse:
            return "it returns no log-sum-exp"
        taught = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
        if taught and not self.backward:
            return "it has no backward pass"
        if taught and return_lse and not self.lse_backward:
            return "its log-sum-exp has no gradient"
        if q.shape[1] != k.shape[1] and not self.grouped:
            return "it has no shared key-value heads"
        try:
            why_not: Callable[..., str | None] = self._named("why_not_{}")
        except ImportError as error:
            return f"it could not be imported: {error}"
        return why_not(q, k, v, spec=spec, return_lse=return_lse)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the log-sum-exp if it was asked for."""
        run: Callable[..., tuple[Tensor, Tensor | None]] = self._named("{}_attend")
        return run(q, k, v, spec=spec, scale=scale, return_lse=return_lse)

    def _named(self, pattern: str) -> Any:
        module, prefix = self.where.split(":")
        return getattr(import_module(module), pattern.format(prefix))


_HALF = ("float16", "bfloat16")
_UNMASKED = ("causal", "window", "beyond", "global", "positions", "documents", "mask", "blocks")
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            name="reference",
            where="unspool.attention.reference:reference",
            devices=(),
            dtypes=("float64", "float32", *_HALF),
            rules=RULES,
        ),
        Backend(
            name="sdpa",
            where="unspool.attention.sdpa:sdpa",
            devices=(),
            dtypes=("float64", "float32", *_HALF),
            rules=(*_UNMASKED, "deterministic"),
            lse_backward=False,
        ),
        Backend(
            name="flex",
            where="unspool.attention.flex:flex",
            devices=("cuda", "cpu"),
            dtypes=("float32", *_HALF),
            rules=(*_UNMASKED, "softcap"),
        ),
        Backend(
            name="triton",
            where="unspool.attention.flash.run:triton",
            devices=(),
            dtypes=("float32", *_HALF),
            rules=RULES,
        ),
        Backend(
            name="flash_attn",
            where="unspool.attention.flash_attn:flash_attn",
            devices=("cuda",),
            dtypes=_HALF,
            rules=("causal", "window", "softcap", "deterministic"),
            lse_backward=False,
        ),
        Backend(
            name="native",
            where="unspool.attention.native:native",
            devices=("cpu",),
            dtypes=("float32", "bfloat16"),
            rules=tuple(rule for rule in RULES if rule not in ("mask", "dropout")),
        ),
    )
}


def asked(spec: Spec) -> Iterator[str]:
    """The rules that a pattern uses, as `RULES` names them."""
    if spec.causal:
        yield "causal"
    if spec.window is not None or spec.right is not None:
        yield "window"
        if spec.q_global is not None or spec.k_global is not None:
            yield "global"
    for rule, used in (
        ("beyond", spec.beyond is not None),
        ("positions", spec.q_positions is not None or spec.k_positions is not None),
        ("documents", spec.q_documents is not None),
        ("mask", spec.mask is not None),
        ("blocks", spec.blocks is not None),
        ("softcap", spec.softcap is not None),
        ("dropout", spec.dropout > 0),
        ("deterministic", spec.deterministic),
    ):
        if used:
            yield rule


def choose(name: str, q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool) -> Backend:
    """The back-end of that name, or the fastest that can take the call.

    Raises:
        ConfigError: No such back-end, or it can't take this call, with the reason.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise ConfigError(
                f"backend must be auto or one of {', '.join(BACKENDS)}, got {name!r}."
            )
        reason = BACKENDS[name].why_not(q, k, v, spec=spec, return_lse=return_lse)
        if reason is not None:
            raise ConfigError(f"backend={name!r} can't run here: {reason}.")
        return BACKENDS[name]
    for candidate in _order(q, k, spec):
        backend = BACKENDS[candidate]
        if backend.why_not(q, k, v, spec=spec, return_lse=return_lse) is None:
            return backend
    return BACKENDS["reference"]


def _vendors(q: Tensor, k: Tensor, spec: Spec) -> bool:
    """Whether cuDNN is faster than our kernels on a GPU: many queries with wide heads that see
    everything or a square's causal half, and no gradients, for which PyTorch takes another one."""
    import torch

    square = not spec.causal or q.shape[2] == k.shape[2]
    wide = q.shape[-1] > 64 and q.shape[2] >= 1024
    return wide and square and spec.plain and not (torch.is_grad_enabled() and q.requires_grad)


def _order(q: Tensor, k: Tensor, spec: Spec) -> tuple[str, ...]:
    """Which to try, fastest first: the vendor's kernel where nothing can be skipped."""
    skips = spec.blocks is not None or spec.q_documents is not None or spec.window is not None
    if q.device.type == "cuda":
        half = q.element_size() == 2
        return (
            ("triton", "sdpa")
            if skips or (half and not _vendors(q, k, spec))
            else ("sdpa", "triton")
        )
    # On a processor the vendor's kernel computes hidden pairs too wherever it is given a mask, and
    # reads the keys of a lone query slowly.
    num_queries = q.shape[2]
    bare = spec.plain and num_queries > 1 and (not spec.causal or num_queries == k.shape[2])
    return ("sdpa", "native") if bare else ("native", "sdpa")
