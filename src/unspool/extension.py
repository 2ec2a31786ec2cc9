"""extend(model, method): the only place that changes a transformers model, and puts it back.

What: installs a composition of methods on a decoder: a hook on its rotary embedding, hooks that
hand each attention module its store, the one registered attention function, and `generate`.
Source: this project's own contract; each method names its paper.
Differs from patching model classes: nothing of an architecture is copied. What is needed is found
by type, tried on a few tokens at install (dense, with early and late rotation, must give the stock
logits), and refused with what failed if it does not hold.
Cost: three forward passes over a few tokens at install.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from unspool._dispatch import LayerPlan, forget, plan_layer, register
from unspool._facts import ModelFacts, read_facts
from unspool._installed import installed as installed
from unspool._installed import mark_extended, save_trained, trained_with
from unspool._overflow import fit
from unspool._plans import hook_rotary, make_plans, make_stores
from unspool._position_table import guard_table, past_table
from unspool._probe import find_layout, use_function
from unspool._registry import resolve
from unspool._slots import fill_slots
from unspool.caches.cache import UnspoolCache
from unspool.errors import ConfigError
from unspool.methods import Method, resolve_method, spell
from unspool.report import Report, count
from unspool.types import Answer, Overflow, Passage

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from unspool.reading.answering import Reduced
    from unspool.reading.prompt_stream import PromptStream
    from unspool.stream import Stream


def extend(
    model: nn.Module,
    method: Method | str | Sequence[Method | str] | None = None,
    *,
    tokenizer: Any = None,
    on_overflow: Overflow = "error",
    weights: Literal["same", "int8"] | None = None,
) -> Extension:
    """Make a transformers decoder read texts past its window, by a method or several.

    Args:
        model: A loaded causal language model.
        method: A Method, its spelling (`"infllm:block=128+think"`), or a list of either; None: the
            one that the checkpoint says it was trained with.
        tokenizer: The model's tokenizer; needed to feed text and by prompt methods.
        on_overflow: What to do with a prompt that the method cannot take: "error", or "truncate"
            (the oldest tokens are dropped, and counted).
        weights: Write tokens through a leaner step over a copy of the weights: "same" (the same
            numbers), or "int8" (8 bits a weight, two to three times faster on a CPU and nearly the
            same numbers). None: through the model's own forward.

    Returns:
        The installed handle; also a context manager that restores the model on exit.

    Raises:
        ConfigError: Options out of range, two methods for one slot, a model that is extended
            already, or an architecture that the probe rejects.
    """
    methods = resolve_method(trained_with(model) if method is None else method)
    if any("layout" in each.slots for each in methods):
        packed: Extension = resolve("layout", "open")(model, methods, tokenizer)
        return packed.install()
    return Extension(model, methods, tokenizer, on_overflow, weights).install()


class Extension:
    """A model with a method installed. Made by `extend`."""

    def __init__(
        self,
        model: Any,
        methods: Sequence[Method],
        tokenizer: Any,
        on_overflow: Overflow,
        weights: Literal["same", "int8"] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.on_overflow = on_overflow
        self.facts: ModelFacts = read_facts(model)
        prepared = [method.prepare(model, tokenizer) for method in methods]
        self.methods = tuple(method.resolve(self.facts) for method in prepared)
        self._owners = fill_slots(self.methods, self.facts)
        self.weights = weights
        self.module = self._learned()
        """What the methods train, by layer: never part of the model's own state."""
        self._layer_plans: dict[int, LayerPlan] = {}
        self._undo = contextlib.ExitStack()
        self._installed = False
        self._last: UnspoolCache | None = None
        self._dropped = 0
        self.keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    # ---- the handle

    @property
    def spec(self) -> str:
        """The composition as it would be typed, with what was chosen for this model."""
        return spell(self.methods)

    @property
    def capacity(self) -> int | None:
        """Most tokens of text and answer together; None: any number."""
        said = [method.capacity(self.facts) for method in self.methods]
        # A method that lifts the limit lifts it for the whole composition; compressors do not.
        most = None if None in said else max(c for c in said if c is not None)
        if self.facts.table is not None and self.prompt_method is None:
            return self.facts.table.rows if most is None else min(most, self.facts.table.rows)
        return most

    @property
    def exact_within(self) -> int | None:
        """Tokens, written ones included, up to which this is the stock model; None: unknown."""
        said = [method.exact_within(self.facts) for method in self.methods]
        return None if None in said else min(tokens for tokens in said if tokens is not None)

    @property
    def prompt_method(self) -> Method | None:
        return next((m for m in self.methods if "prompt" in m.slots), None)

    def install(self) -> Extension:
        """Put the methods on the model. `extend` has done it already."""
        if self._installed:
            return self
        register()
        with contextlib.ExitStack() as undo:
            mark_extended(self.model, undo)
            layout = find_layout(self.model, self.facts)
            self.facts = read_facts(self.model, layout or "half")
            modules, _ = use_function(self.model, self.facts, undo)
            plans = make_plans(self.facts, self._owners, self.spec, can_be_late=layout is not None)
            self._layer_plans = plans
            learned = dict(self.module.items())
            for module, number in modules.items():
                plan = plans[number]
                for handle in plan_layer(module, plan):
                    undo.callback(handle.remove)
                undo.callback(forget, module)
                plan.learned = learned.get(str(number))
            hook_rotary(self.facts, self._owners, plans, undo)
            if self.facts.table is not None:
                guard_table(self.model, self.facts.table, self.facts.name, undo)
            for method in self.methods:
                method.changes(self.model, undo)
            if self.weights is not None:
                self._use_decode_step(undo)
            self.model.generate = self.generate
            undo.callback(self.model.__dict__.pop, "generate", None)
            self._undo = undo.pop_all()
        self._installed = True
        return self

    def remove(self) -> None:
        """Restore the model, bit for bit."""
        self._undo.close()
        self._installed = False

    def __enter__(self) -> Extension:
        return self.install()

    def __exit__(self, *exception: object) -> None:
        self.remove()

    # ---- reading and writing

    def new_cache(self) -> UnspoolCache:
        """An empty cache for one batch of sequences."""
        from transformers.cache_utils import DynamicCache

        config = self.model.config.get_text_config(decoder=True)
        layers = list(DynamicCache(config=config).layers)
        for number, factory in make_stores(self.facts, self._owners).items():
            layers[number] = factory()
        return UnspoolCache(layers)

    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """`model.generate` with the extension's cache; returns what transformers returns.

        Raises:
            OverflowPolicyError: The prompt does not fit the method and may not be shortened.
        """
        ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
        kwargs.pop("input_ids", None)
        if ids is None:
            raise ConfigError(
                "generate needs input_ids: without a prompt there is nothing to read."
            )
        if kwargs.get("use_cache") is False:
            raise ConfigError(
                "An extended model keeps what it has read in a cache: use_cache=True."
            )
        given = kwargs.get("past_key_values")
        method = self.prompt_method
        if method is not None and given is None:
            written = self._output_room(kwargs)
            if self.facts.window is not None and ids.shape[1] + written > self.facts.window:
                ids, kwargs = self._reduced(method, ids, written, kwargs)
        return self.generate_plain(ids, **kwargs)

    def _reduced(
        self, method: Method, ids: Tensor, written: int, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The prompt that a prompt method leaves of one that does not fit."""
        if ids.shape[0] != 1:
            raise ConfigError(f"{method.name} reads one prompt at a time, got {ids.shape[0]}.")
        begins = int(ids[0, 0]) == getattr(self.tokenizer, "bos_token_id", None)
        left = self.reduce(ids[0].tolist(), written, head=int(begins)).ids
        kwargs = {name: value for name, value in kwargs.items() if name != "attention_mask"}
        return ids.new_tensor([left]), kwargs

    def generate_plain(self, ids: Tensor, **kwargs: Any) -> Any:
        """`generate` of a prompt as it stands, whatever prompt method is installed."""
        given = kwargs.pop("past_key_values", None)
        cache = given if given is not None else self.new_cache()
        written = self._output_room(kwargs)
        if given is None:
            ids, kwargs = self._fit(ids, written, kwargs)
        rows = int(ids.shape[0]) * int(kwargs.get("num_beams") or 1)
        for method in self.methods:
            method.admit(self.facts, tokens=int(ids.shape[1]) + written, rows=rows)
        if not cache.get_seq_length() or _restarts_in_chunks():
            kwargs.setdefault("prefill_chunk_size", self.prefill_chunk)
        if isinstance(cache, UnspoolCache):
            cache.prefill_end = cache.get_seq_length() + int(ids.shape[1])
            self._last = cache
        if self.facts.window and int(ids.shape[1]) + written > self.facts.window:
            kwargs.setdefault("max_new_tokens", written)  # the default would stop at the window
        return type(self.model).generate(self.model, ids, past_key_values=cache, **kwargs)

    @property
    def prefill_chunk(self) -> int:
        """Tokens that one forward pass reads while a prompt is read."""
        return min(method.prefill_chunk(self.facts) for method in self.methods)

    @overload
    def stream(self, question: None = None) -> Stream: ...
    @overload
    def stream(self, question: str) -> PromptStream: ...
    def stream(self, question: str | None = None) -> Stream | PromptStream:
        """Unlimited input: feed any number of pieces, then generate.

        Args:
            question: Of a prompt method, which reads a text for it; other methods read first, and
                take a question with `generate`.

        Raises:
            ConfigError: A prompt method got no question, or another method got one.
        """
        if self.prompt_method is not None:
            if question is None:
                raise ConfigError(
                    f"{self.spec} reads a text for a question: stream(question=…), or "
                    f"ask(context, question) where the whole text is at hand."
                )
            made: PromptStream = resolve("prompt", "stream")(self, question)
            return made
        if question is not None:
            raise ConfigError(
                f"{self.spec} reads before it knows the question: stream(), feed the text, then "
                f"generate(question)."
            )
        from unspool.stream import Stream

        return Stream(self)

    def ask(self, context: Any, question: str, **options: Any) -> Answer:
        """Answer a question about a text of any length, with the passages it rests on.

        Args:
            context: A text, an iterable of pieces, or a path; byte offsets count in it.
            question: Comes after the text.
            options: Of the method and of generate, as `max_new_tokens`.
        """
        answer: Answer = self._reader().ask(self, context, question, **options)
        return answer

    def select(self, context: Any, question: str, **options: Any) -> tuple[Passage, ...]:
        """The passages that the method would answer from, without answering."""
        found: tuple[Passage, ...] = self._reader().select(self, context, question, **options)
        return found

    def reduce(self, ids: Sequence[int], written: int, **parts: Any) -> Reduced:
        """A prompt of token ids as the prompt method shortens it, for an answer of `written`.

        `parts` are those of `reading.answering.PromptReader.reduce`.
        """
        found: Reduced = self._reader().reduce(self, ids, written, **parts)
        return found

    def _reader(self) -> Any:
        method = self.prompt_method
        return resolve("prompt", "whole" if method is None else method.prompt())

    def report(self, cache: UnspoolCache | None = None) -> Report:
        """Where every token of the last generation (or of a cache) is now."""
        cache = cache or self._last
        if cache is None:
            raise ConfigError("Nothing was read yet, so there is nothing to report.")
        return count(cache.reports(), method=self.spec, dropped_before=self._dropped)

    def explain(self) -> str:
        """Method, window, attended tokens, memory and what is lost, in a few lines."""
        from unspool.explain import explain

        return explain(self.facts, self.methods)

    def export(self) -> dict[str, Any]:
        """What other engines can take as `config.rope_parameters`."""
        out: dict[str, Any] = {}
        for method in self.methods:
            out.update(method.export(self.facts))
        return out

    def save(self, directory: str | Path) -> None:
        """Save the model, and in its configuration (`unspool_method`) what it was trained with.

        Plain transformers ignores that entry; `extend(model)` installs it again.
        """
        save_trained(self.model, self.methods, directory, self.module)

    # ---- how it is done

    def plan_of(self, layer: int) -> LayerPlan:
        """What a layer does."""
        return self._layer_plans[layer]

    def is_late(self, layer_type: str) -> bool:
        """Whether the model's own rotation of a layer type is switched off."""
        kinds = self.facts.layer_types
        return any(
            plan.rotation is not None and kinds[number] == layer_type
            for number, plan in self._layer_plans.items()
        )

    def _learned(self) -> nn.ModuleDict:
        """What is trained, by layer number, from the method that fills `attend` there."""
        from torch import nn

        made = nn.ModuleDict()
        for number, slots in self._owners.items():
            owner = slots.get("attend", [None])[0]
            learned = None if owner is None else owner.learned(self.facts, number)
            if learned is not None:
                made[str(number)] = learned
        return made

    def _use_decode_step(self, undo: contextlib.ExitStack) -> None:
        """Route forward passes over single tokens through the leaner step."""
        make = resolve("decode", "step")
        forward = make(self, self.weights, self.model.forward)
        self.model.forward = forward
        undo.callback(self.model.__dict__.pop, "forward", None)

    def _output_room(self, kwargs: dict[str, Any]) -> int:
        """Tokens that a call of generate may write."""
        config = kwargs.get("generation_config") or self.model.generation_config
        for said in (kwargs.get("max_new_tokens"), getattr(config, "max_new_tokens", None)):
            if said is not None:
                return int(said)
        return 256

    def _fit(
        self, ids: Tensor, written: int, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The prompt, shortened if it may be and has to be."""
        capacity = self.capacity
        limit = None if capacity is None else max(1, capacity - written)
        columns: torch.Tensor = ids
        table = self.facts.table
        if table is not None and self.on_overflow == "error" and columns.shape[1] > table.rows:
            raise past_table(table, self.facts.name, int(columns.shape[1]))
        kept = fit(
            range(int(columns.shape[1])), limit, self.on_overflow, what=f"{self.spec}: the prompt"
        )
        self._dropped = kept.dropped
        if kept.dropped:
            columns = columns[:, kept.dropped :]
            mask = kwargs.get("attention_mask")
            if mask is not None:
                kwargs = {**kwargs, "attention_mask": mask[:, kept.dropped :]}
        return columns, kwargs


@contextlib.contextmanager
def extended(
    model: nn.Module, method: Method | str | Sequence[Method | str], **options: Any
) -> Iterator[Extension]:
    """`extend` as a block: the model is restored at its end."""
    with extend(model, method, **options) as extension:
        yield extension


def _restarts_in_chunks() -> bool:
    """Whether transformers reads in chunks behind a cache: 5.17 counts their positions from 0.

    Without chunks it takes positions and mask from the cache, in every release.
    """
    import transformers

    return tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (5, 23)
