"""Unlimited input to an extended model: feed any number of pieces, ask, fork, save, go on.

What: reads text in chunks into one cache, never holding the whole text on the device, and generates
from what the method kept.
Source: this project's own contract.
Differs from `generate`: the prompt may arrive in pieces and be longer than memory; a question asked
on a fork leaves the stream as it was.
Cost: one forward pass a chunk; a fork copies what is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError, InputError, OverflowPolicyError
from unspool.report import Report, count, with_usage

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.caches.cache import UnspoolCache
    from unspool.extension import Extension

_FORMAT = 1
_LINE_STARTS = re.compile(r"(?<=\n)(?=\S)")


class Stream:
    """One sequence read by an extended model. Made by `Extension.stream`."""

    def __init__(self, extension: Extension) -> None:
        self.extension = extension
        self.cache: UnspoolCache = extension.new_cache()
        self._pending: list[int] = []
        self._text = ""
        self._seconds = 0.0
        self._written = 0
        self._started = False

    @property
    def tokens(self) -> int:
        """Tokens fed so far."""
        return int(self.cache.get_seq_length()) + len(self._pending)

    def feed(self, source: str | Path | Iterable[int] | Iterable[str]) -> Stream:
        """Read on: a text, token ids, an iterable of either, or a file.

        Text is tokenised in pieces that end before a line that starts with a word, so that any
        cutting of the input into calls gives the tokens of one call.

        Raises:
            ConfigError: Text was given, and the extension has no tokenizer.
            OverflowPolicyError: The method cannot take this many tokens.
            BudgetError: This machine cannot hold them.
        """
        began = time.perf_counter()
        for ids in self._ids(source):
            self._pending.extend(ids)
            for method in self.extension.methods:
                method.admit(self.extension.facts, tokens=len(self._pending), rows=1)
            self._read()
        self._seconds += time.perf_counter() - began
        return self

    def generate(self, prompt: str | list[int] | None = None, **kwargs: Any) -> str | Tensor:
        """Continue after what was fed (and `prompt`), in place.

        Args:
            prompt: Fed first.
            kwargs: As for transformers' `generate`; `max_new_tokens` defaults to 128.

        Returns:
            Text if the extension has a tokenizer, else new token ids [1, n].
        """
        import torch

        began = time.perf_counter()
        if prompt is not None:
            self.feed(prompt)
        self._flush_text()
        self._read()
        if not self._pending:
            raise InputError("Nothing was fed yet: there is nothing to continue.")
        kwargs.setdefault("max_new_tokens", 128)
        ids = torch.tensor([self._pending], device=self.extension.facts.device)
        self._check_room(int(kwargs["max_new_tokens"]))
        seen = int(self.cache.get_seq_length())
        mask = torch.ones(1, seen + ids.shape[1], dtype=torch.long, device=ids.device)
        with torch.inference_mode():
            out = self.extension.generate(
                ids, past_key_values=self.cache, attention_mask=mask, **kwargs
            )
        new: Tensor = out[:, ids.shape[1] :]
        # The last token was written but not read: it is the first that comes next.
        self._pending = [int(new[0, -1])] if new.shape[1] else []
        self._written += int(new.shape[1])
        self._seconds += time.perf_counter() - began
        if self.extension.tokenizer is None:
            return new
        return str(self.extension.tokenizer.decode(new[0], skip_special_tokens=True))

    def fork(self) -> Stream:
        """A stream with the same past that goes its own way: ask without disturbing the memory."""
        other = Stream.__new__(Stream)
        other.__dict__.update(self.__dict__)
        other.cache = self.cache.copy()
        other._pending = list(self._pending)
        return other

    def fix(self) -> Stream:
        """Say that what was fed is a whole context, of which questions will be asked.

        It is read to its end, and methods that prepare a context (squeezed) or compress it
        (snapkv, think) do so now instead of with the first question.
        """
        import torch

        self._flush_text()
        self._read()
        if self._pending:
            self._check_room(0)
            with torch.inference_mode():
                self._forward(self._pending)
            self._pending = []
        if not self.cache.get_seq_length():
            raise InputError("Nothing was fed yet: there is no context to fix.")
        with torch.inference_mode():
            self.cache.end_prefill()
        return self

    def ask(
        self,
        question: str | list[int] | Sequence[str | list[int]],
        *,
        keep: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue after what was fed and a question, and leave the stream as it was.

        Args:
            question: Text or token ids; or a list of either, of which those with equally many
                tokens are answered as one batch.
            keep: Share of the context's keys to load (method squeezed); None: as the method says.
            kwargs: As for `generate`.

        Returns:
            What `generate` returns; for a list a list of texts, or of ids [n] without a tokenizer.
        """
        from unspool.caches.context_store import set_keep

        fork = self.fork()
        if keep is not None:
            set_keep(fork.cache, keep)
        if isinstance(question, str) or (question and isinstance(question[0], int)):
            return fork.generate(question, **kwargs)  # type: ignore[arg-type]  # one question
        return fork._generate_batch(question, **kwargs)  # type: ignore[arg-type]  # a list of them

    def _generate_batch(self, questions: Sequence[str | list[int]], **kwargs: Any) -> Any:

        if not questions:
            raise InputError("The list of questions is empty.")
        self.fix()
        rows = [self._encode(q) if isinstance(q, str) else list(q) for q in questions]
        if not all(rows):
            raise InputError("A question of the batch is empty.")
        kwargs.setdefault("max_new_tokens", 128)
        self._pending = [0] * max(map(len, rows))  # counted, not read: the rows are read below
        self._check_room(int(kwargs["max_new_tokens"]))
        self._pending = []
        answers: list[Any] = [None] * len(rows)
        # Rows of one length go together: padding behind a context would push tokens out of the
        # sliding layers of models that have them.
        for length in sorted({len(row) for row in rows}):
            places = [i for i, row in enumerate(rows) if len(row) == length]
            written = self._generate_rows([rows[i] for i in places], kwargs)
            for place, new in zip(places, written, strict=True):
                answers[place] = new
        tokenizer = self.extension.tokenizer
        if tokenizer is None:
            return answers
        return [str(tokenizer.decode(new, skip_special_tokens=True)) for new in answers]

    def _generate_rows(self, rows: list[list[int]], kwargs: Mapping[str, Any]) -> Tensor:
        import torch

        device = self.extension.facts.device
        ids = torch.tensor(rows, device=device)
        with torch.inference_mode():
            cache = self.cache.copy()
            seen = int(cache.get_seq_length())
            cache.batch_repeat_interleave(len(rows))
            mask = torch.ones(len(rows), seen + ids.shape[1], dtype=torch.long, device=device)
            out: Tensor = self.extension.generate(
                ids, past_key_values=cache, attention_mask=mask, **kwargs
            )
        return out[:, ids.shape[1] :]

    def report(self) -> Report:
        """Where every token fed is now."""
        report = count(self.cache.reports(), method=self.extension.spec)
        read = report.usage.read_tokens
        return with_usage(
            report,
            input_tokens=report.usage.input_tokens + len(self._pending),
            read_tokens=read,
            output_tokens=self._written,
            seconds=self._seconds,
        )

    def save(
        self,
        directory: str | Path,
        *,
        facts: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Write what is kept into a new directory: safetensors and json.

        Args:
            directory: New, or a saved stream that is replaced.
            facts: Anything of JSON to keep in the header beside it.
            tensors: Tensors to keep beside it, under names without a dot.

        Raises:
            ConfigError: The directory exists and holds something else.
        """
        from unspool.saved import save_stream

        self._flush_text()
        self._read()
        header = {
            "format": _FORMAT,
            "method": self.extension.spec,
            "model": self.extension.facts.name,
            "pending": self._pending,
            "prefill_end": self.cache.prefill_end,
            "written": self._written,
            "facts": dict(facts or {}),
        }
        return save_stream(Path(directory), header, {**self.cache.state(), **(tensors or {})})

    def load(self, directory: str | Path, *, verify: bool = True) -> Stream:
        """Take up what `save` wrote, in place of what was fed so far.

        Args:
            directory: Of a saved stream. Its tensors are mapped into memory, not copied.
            verify: Compare the checksum, which reads every byte; False: sizes and form only.

        Raises:
            InputError: The files are damaged, or belong to another model or method.
        """
        from unspool.saved import load_stream

        header, state = load_stream(Path(directory), _FORMAT, verify=verify)
        for key, own in (("method", self.extension.spec), ("model", self.extension.facts.name)):
            if header[key] != own:
                raise InputError(
                    f"{directory} was saved with {key} {header[key]!r}; this one is {own!r}."
                )
        self.cache = self.extension.new_cache()
        device = self.extension.facts.device
        self.cache.load_state({name: value.to(device) for name, value in state.items()})
        self.cache.prefill_end = header["prefill_end"]
        self._pending = [int(token) for token in header["pending"]]
        self._written = int(header["written"])
        self._text = ""
        return self

    # ---- how it is done

    def _ids(self, source: Any) -> Iterator[list[int]]:
        if isinstance(source, Path):
            with source.open(encoding="utf-8", newline="") as file:
                while piece := file.read(1 << 20):
                    yield from self._tokenise(piece)
            return
        if isinstance(source, str):
            yield from self._tokenise(source)
            return
        batch: list[int] = []
        for item in source:
            if isinstance(item, str):
                yield from self._tokenise(item)
                continue
            batch.append(int(item))
            if len(batch) >= 1 << 16:
                yield batch
                batch = []
        if batch:
            self._flush_text()
            yield batch

    def _tokenise(self, text: str) -> Iterator[list[int]]:
        """What ends before a line that starts with a word; the rest when its end is known."""
        if self.extension.tokenizer is None:
            raise ConfigError(
                "Feeding text needs the tokenizer: extend(model, method, tokenizer=tokenizer)."
            )
        self._text += text
        *whole, self._text = _LINE_STARTS.split(self._text)
        for lines in whole:
            yield self._encode(lines)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.extension.tokenizer.encode(text, add_special_tokens=not self._started)
        self._started = True
        return ids

    def _flush_text(self) -> None:
        if self._text:
            text, self._text = self._text, ""
            self._pending.extend(self._encode(text))

    def _read(self) -> None:
        """Forward whole chunks of what is pending; less than a chunk waits for more."""
        import torch

        size = self.extension.prefill_chunk
        with torch.inference_mode():
            while len(self._pending) > size:  # what is left is never nothing
                self._check_room(0)
                self._forward(self._pending[:size])
                del self._pending[:size]

    def _forward(self, ids: list[int]) -> None:
        import torch

        rows = torch.tensor([ids], device=self.extension.facts.device)
        self.extension.model(rows, past_key_values=self.cache, use_cache=True, **self._one_logit())

    def _one_logit(self) -> dict[str, Any]:
        """Logits of the last position only, where the model can leave out the rest."""
        return {"logits_to_keep": 1} if self.extension.keeps_logits else {}

    def _check_room(self, written: int) -> None:
        capacity = self.extension.capacity
        needed = self.tokens + written
        if capacity is not None and needed > capacity:
            raise OverflowPolicyError(
                f"{self.extension.spec} takes {capacity:,} tokens, and {needed:,} were fed or "
                f"asked for. Choose a method that reads any length, such as lm-infinite or infllm."
            )
