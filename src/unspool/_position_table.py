"""Tables of learned positions: how long a text a model with one can read at all.

What: finds the table of a model that has one, and refuses a text that runs past its end.
Source: transformers' GPT-2 (`wpe`) and OPT (`embed_positions`); found by name and kind.
Differs from the model alone: the table fails with "index out of range" on a CPU, and with a broken
device on a GPU.
Cost: one maximum of the positions a forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.errors import OverflowPolicyError

if TYPE_CHECKING:
    import contextlib


class PositionTable(NamedTuple):
    """Where a model keeps its learned positions, and for how many tokens."""

    path: str
    rows: int


def find_table(model: Any) -> PositionTable | None:
    """The table of learned positions of a model; None: positions are computed."""
    from torch import nn

    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (name == "wpe" or "position" in name):
            return PositionTable(path, module.num_embeddings - int(getattr(module, "offset", 0)))
    return None


def past_table(table: PositionTable, name: str, tokens: int) -> OverflowPolicyError:
    """The error of a text of `tokens` tokens, which are more than a table has rows."""
    return OverflowPolicyError(
        f"{name} has learned positions for {table.rows:,} tokens ({table.path}), and the text "
        f"has {tokens:,} or more. No change of its attention reads past them: give a shorter text, "
        f"take a method that shortens the prompt (xl3m, infini-retri), give {table.path} more rows "
        f"and train them, or take a model with rotary positions."
    )


def guard_table(model: Any, table: PositionTable, name: str, undo: contextlib.ExitStack) -> None:
    """Refuse texts that a table has no rows for, until `undo` is closed.

    Args:
        model: Of which `table` is.
        table: As `find_table` found it.
        name: Of the model, for the message.
        undo: Takes what removes the check.
    """

    def check(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = kwargs.get("position_ids", args[0] if len(args) == 1 else None)
        last = -1 if positions is None or not positions.numel() else int(positions.max())
        if last >= table.rows:
            raise past_table(table, name, last + 1)

    handle = model.get_submodule(table.path).register_forward_pre_hook(check, with_kwargs=True)
    undo.callback(handle.remove)
