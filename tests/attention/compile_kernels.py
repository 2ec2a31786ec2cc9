"""Compile the kernels for a Hopper GPU on any machine; run as a script, outside the interpreter."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language import NVMMASharedLayout

from unspool.attention.flash.kernels import (
    dense_backward,
    dense_forward,
    hopper_forward,
    sparse_backward,
    sparse_forward,
)

_SIZES = {"D": 64, "DV": 64, "BLOCK_D": 64, "BLOCK_DV": 64, "GROUPS": 2, "PRECISION": "ieee"}
_BAND = {"BLOCK_M": 64, "BLOCK_N": 64, "LEFT": True, "RIGHT": True}
_RULES = dict.fromkeys(
    ("CAUSAL", "NEAR", "BEYOND", "AT_Q", "AT_K", "DOCUMENTS", "GLOBAL_Q", "GLOBAL_K", "MASK",
     "SOFTCAP", "DROPOUT"), True,
)  # fmt: skip
_LISTED = {**_SIZES, **_RULES, "BLOCK_M": 64, "BLOCK_N": 64, "LIST_GROUPS": 2, "SUBTILES": 1}
_TILED = {"Q", "K", "V", "D_OUT"}
_HALF = {"OUT", "D_Q", "D_K", "D_V", *_TILED}
_FLOAT = {"LSE", "LSE2", "DELTA", "D_LSE", "PARTS", "PART_LSE"}
_INTEGERS = {
    "Q_AT", "K_AT", "Q_DOCUMENT", "K_DOCUMENT", "Q_GLOBAL", "K_GLOBAL", "LISTS", "COUNTS"
}  # fmt: skip


def build(kernel: Any, constants: dict[str, Any]) -> str:
    """The assembly of one kernel for these constants."""
    signature, fixed = {}, {}
    scatters = constants.get("SCATTER", False)
    for position, parameter in enumerate(kernel.params):
        name = parameter.name
        if parameter.is_constexpr:
            signature[name], fixed[(position,)] = "constexpr", constants[name]
        elif name in _TILED and constants.get("DESCRIBED"):
            signature[name] = "tensordesc<bf16[1, 1, 64, 64]>"
        elif name in _FLOAT or (scatters and name in ("D_K", "D_V")):
            signature[name] = "*fp32"
        elif name in _HALF:
            signature[name] = "*bf16"
        elif name in _INTEGERS:
            signature[name] = "*i32"
        elif name == "MASK_AT":
            signature[name] = "*u8"
        else:
            signature[name] = "fp32" if name in ("scale", "softcap", "inverse_kept") else "i32"
    source = ASTSource(kernel, signature, fixed, {})
    return str(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])


def build_roles(kernel: Any, tiles: dict[str, int], constants: dict[str, Any]) -> str:
    """The assembly of a kernel in roles; `tiles`: rows of what comes and goes by descriptor."""
    layout = NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    signature, fixed = {}, {}
    for position, parameter in enumerate(kernel.params):
        name = parameter.name
        if parameter.is_constexpr:
            signature[name], fixed[(position,)] = "constexpr", constants[name]
        elif name in tiles:
            signature[name] = f"tensordesc<bf16[1, 1, {tiles[name]}, {constants['D']}],{layout!r}>"
        elif name in _FLOAT:
            signature[name] = "*fp32"
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
    source = GluonASTSource(kernel, signature, fixed, {})
    target = GPUTarget("cuda", 90, 32)
    return str(triton.compile(source, target=target, options={"num_warps": 4}).asm["ptx"])


def main() -> None:
    for described in (True, False):
        band = {**_SIZES, **_BAND, "DESCRIBED": described}
        forward = build(dense_forward.dense_forward, {**band, "AHEAD": True})
        assert "wgmma" in forward
        assert ("cp.async.bulk.tensor" in forward) == described
        build(dense_backward.dense_dq, band)
    build(dense_backward.dense_dkdv, {**band, "DESCRIBED": True, "BACKWARDS": True})
    for right in (True, False):
        roles = build_roles(
            hopper_forward.hopper_forward,
            {"Q": 64, "K": 128, "V": 128, "OUT": 64},
            {
                "D": 128,
                "BLOCK_M": 128,
                "BLOCK_N": 128,
                "STAGES": 2,
                "RIGHT": right,
                "TURNS": True,
            },
        )
        assert "setmaxnreg" in roles
        assert "wgmma.wait_group.sync.aligned 1" in roles  # products run beside the softmax
    for mode, fold in ((0, True), (1, False)):
        build(
            sparse_forward.sparse_forward,
            {**_LISTED, "ROW_TILES": 1, "SPLITS": 3, "MODE": mode, "FOLD": fold},
        )
    for scatter in (False, True):
        build(
            sparse_backward.sparse_dq,
            {**_LISTED, "ROW_TILES": 1, "MODE": 1 + scatter, "SCATTER": scatter},
        )
    build(sparse_backward.sparse_dkdv, {**_LISTED, "COLUMN_TILES": 1})
    rows = {"DV": 64, "BLOCK_DV": 64, "BLOCK_M": 32, "WITH_LSE": True}
    build(sparse_backward.row_facts, rows)
    build(sparse_forward.merge_splits, {"DV": 64, "BLOCK_DV": 64, "SPLITS": 3, "BLOCK_SPLITS": 4})
    sys.stdout.write("compiled\n")


if __name__ == "__main__":
    main()
