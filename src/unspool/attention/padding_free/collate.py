"""Make training batches that are packed from the start.

What: a collator for `DataLoader` and `Trainer`: sentences of any length become one row, with
position numbers that restart and boundaries, which `PaddingFree` reads; nothing is padded at all.
Source: transformers' DataCollatorWithFlattening, whose keys (`cu_seq_lens_q`, `max_length_q`, …)
it writes.
Differs from it: labels may be of tokens for masked or causal models; lengths stay on the host, so
that a GPU is never waited for; masking of tokens is left to a function of the caller.
Cost: one copy. Shapes: rows [1, T].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unspool.attention.padding_free.layout import count_up
from unspool.errors import ConfigError

IGNORED = -100
LENGTHS = "sequence_lengths"
"""Key of the lengths on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingCollator:
    """Sentences to one packed row, for a model under `PaddingFree`."""

    causal: bool = False
    """Labels of a causal model: those given, or the ids, with the first of each sentence ignored,
    since it would be predicted from the sentence before."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch.

        Args:
            features: Each with `input_ids` and any other keys that hold one value a token
                (`labels`, `token_type_ids`). An `attention_mask` must be all ones: what is masked
                does not belong into a packed row.

        Raises:
            ConfigError: No features, keys that differ, values that do not match the ids.
        """
        import torch

        if any("input_ids" not in each for each in features):
            found = next(sorted(each) for each in features if "input_ids" not in each)
            raise ConfigError(
                f"PackingCollator needs input_ids in each feature, got one with "
                f"{', '.join(found) or 'nothing'}."
            )
        if not features or not any(len(each["input_ids"]) for each in features):
            raise ConfigError("PackingCollator needs at least one token, got none.")
        rows = [{k: _ints(v) for k, v in each.items()} for each in features]
        keys = set(rows[0])
        lengths = [len(row["input_ids"]) for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            if set(row) != keys:
                raise ConfigError(
                    f"Features must have the same keys: one has {', '.join(sorted(keys))}, "
                    f"another {', '.join(sorted(row))}."
                )
            for name, values in row.items():
                if len(values) != length:
                    raise ConfigError(
                        f"{name} holds {len(values)} values for {length} tokens. A packed row "
                        f"takes one value a token; for labels of whole sentences pad the batch, "
                        f"and let PaddingFree pack it."
                    )
            if not all(row.get("attention_mask", ())):
                raise ConfigError("An attention_mask with zeros: drop those tokens before packing.")
        batch = {
            name: torch.tensor([value for row in rows for value in row[name]])[None]
            for name in sorted(keys - {"attention_mask"})
        }
        if self.causal:
            labels = batch.get("labels", batch["input_ids"]).clone()
            starts = [sum(lengths[:i]) for i, n in enumerate(lengths) if n]
            labels[0, starts] = IGNORED
            batch["labels"] = labels
        boundaries = torch.tensor([0, *lengths]).cumsum(0).int()
        return {
            **batch,
            "position_ids": count_up(lengths)[None],
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
            LENGTHS: tuple(lengths),
        }


def _ints(values: Any) -> list[int]:
    return list(values.tolist() if hasattr(values, "tolist") else values)
