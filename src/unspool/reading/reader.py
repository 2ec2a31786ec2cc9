"""What prompt methods may ask of a model: logits, and the attention rows of one layer.

What: runs short sub-contexts, batched and without a cache, through an extended model.
Source: this project's own contract; rows are softmax(q k^T) of one layer, summed over heads.
Differs from `output_attentions=True`: one layer, the rows asked for, memory O(rows * tokens); the
layers after it are not run.
Cost: one forward pass of the tokens given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool._dispatch import tapped
from unspool.attention.reference import scores
from unspool.errors import ConfigError, InputError, UnspoolError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.call import Call
    from unspool.extension import Extension


class _Seen(Exception):  # not an error: it ends a forward pass that has done its work
    pass


class Reader:
    """A model as prompt methods see it."""

    def __init__(self, extension: Extension) -> None:
        self.extension = extension
        self.facts = extension.facts
        self.tokenizer = extension.tokenizer
        self.read_tokens = 0
        """Tokens sent through the model so far, padding left out."""
        if self.tokenizer is None:
            raise ConfigError(
                f"{extension.spec} needs the tokenizer: extend(model, method, tokenizer=tokenizer)."
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose rows can be asked for: those that attend to everything."""
        return self.facts.full_layers

    def logits(self, batch: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Logits of the last `keep` positions of each sequence, float32.

        Args:
            batch: Token ids; sequences of one length need no padding, others are padded left.
            keep: At most the shortest length.

        Returns:
            [len(batch), keep, vocabulary].
        """
        import torch

        longest = max(len(ids) for ids in batch)
        if keep > min(len(ids) for ids in batch):
            raise ConfigError(f"keep={keep} is more than the shortest of the sequences has.")
        device = self.facts.device
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(batch):
            ids[row, longest - len(sequence) :] = torch.tensor(list(sequence), device=device)
            mask[row, longest - len(sequence) :] = 1
        options: dict[str, Any] = {"use_cache": False}
        if int(mask.sum()) < mask.numel():
            options["attention_mask"] = mask
            options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if self.extension.keeps_logits:
            options["logits_to_keep"] = keep
        self.read_tokens += int(mask.sum())
        with torch.inference_mode():
            logits: Tensor = self.extension.model(ids, **options).logits[:, -keep:]
            return logits.float()

    def rows(self, ids: Sequence[int], layer: int, first_row: int) -> Tensor:
        """Attention of the rows from `first_row` on, summed over heads, in one layer.

        Args:
            ids: One sequence.
            layer: Its number; negative numbers count from the last.
            first_row: The first query of interest.

        Returns:
            [len(ids) - first_row, len(ids)], float32; each row sums to the number of heads.

        Raises:
            ConfigError: The layer attends in a window only, or does not exist.
        """
        return self.rows_of_layers(ids, (layer,), first_row)[0]

    def rows_of_layers(
        self, ids: Sequence[int], layers: Sequence[int], first_row: int
    ) -> list[Tensor]:
        """`rows` of several layers in one pass."""
        import torch

        wanted = [self.layer_number(layer) for layer in layers]
        found: dict[int, Tensor] = {}

        def see(call: Call) -> None:
            if call.layer in wanted:
                found[call.layer] = _rows(call, first_row)
                if len(found) == len(set(wanted)):
                    raise _Seen

        tokens = torch.tensor([list(ids)], device=self.facts.device)
        self.read_tokens += len(ids)
        with torch.inference_mode(), tapped(see):
            try:
                self.extension.model(tokens, use_cache=False)
            except _Seen:
                pass
            else:
                raise UnspoolError(f"Layers {wanted} of {self.facts.name} were never attended.")
        return [found[layer] for layer in wanted]

    def layer_number(self, layer: int) -> int:
        """A layer's number from 0, checked."""
        number = layer + self.facts.num_layers if layer < 0 else layer
        if number not in self.layers:
            shown = ", ".join(map(str, self.layers[-6:]))
            raise ConfigError(
                f"layer={layer} of {self.facts.name} does not attend to the whole text. Layers "
                f"that do: … {shown}."
            )
        return number


def _rows(call: Call, first_row: int) -> Tensor:
    """softmax(q k^T) of the last rows of a causal call, summed over heads."""
    import torch

    q, k = call.q, call.k
    if getattr(call.rotate, "inv_freq", None) is not None:  # raw: rotate as the model would
        q, k = call.rotate(q, 0), call.rotate(k, 0)
    length = k.shape[2]
    s = scores(q[:, :, first_row:].float(), k.float(), call.scale)
    where = torch.arange(length, device=q.device)
    s = s.masked_fill(where[None, :] > where[first_row:, None], float("-inf"))
    return torch.softmax(s, dim=-1).sum(dim=1)[0]


def frame(tokenizer: Any, question: str, template: str | None = None) -> tuple[str, str]:
    """What stands before and after the text in a prompt: (head, tail).

    Args:
        tokenizer: With its chat template, if it has one.
        question: Of the user.
        template: With {context} and {question}; None: the text, a blank line, the question, wrapped
            in the chat template where there is one.

    Raises:
        ConfigError: The template lacks a field.
        InputError: The question is empty.
    """
    from unspool.backends.prompts import has_chat_template

    if not question.strip():
        raise InputError("The question is empty: say what to look for in the text.")

    mark = "\ue000text\ue000"  # private use: no text holds it
    form = template or "{context}\n\n{question}"
    for name in ("{context}", "{question}"):
        if name not in form:
            raise ConfigError(f"The template has no {name}; it needs {{context}} and {{question}}.")
    body = form.replace("{context}", mark).replace("{question}", question)
    if has_chat_template(tokenizer) and tokenizer is not None:
        body = tokenizer.apply_chat_template(
            [{"role": "user", "content": body}], tokenize=False, add_generation_prompt=True
        )
    elif template is None:
        body += "\nAnswer:"
    head, _, tail = body.partition(mark)
    return head, tail


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of a prompt: special tokens in it count, none are added."""
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def begins(tokenizer: Any, head: list[int]) -> list[int]:
    """The head of a prompt, begun by the token that a text begins with, if the model has one."""
    start = getattr(tokenizer, "bos_token_id", None)
    adds = bool(getattr(tokenizer, "add_bos_token", False))
    return [start, *head] if adds and start is not None and head[:1] != [start] else head


def text_of(torch_ids: torch.Tensor, tokenizer: Any) -> str:
    """Written tokens as text."""
    return str(tokenizer.decode(torch_ids, skip_special_tokens=True)).strip()
