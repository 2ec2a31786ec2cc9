"""A model whose padded batches are computed without their padding: the slot `layout` of `extend`.

What: `LayoutExtension` packs the tokens of a batch before the embeddings, runs the whole model on
one row, and unpacks behind the last layer, so that heads, poolers and callers see the usual shapes.
Source: Zhai et al. (2022), "ByteTransformer", section 3; transformers' keyword arguments for
flattened batches.
Differs from the released code: packed once, not in every layer; any model whose attention goes
through transformers' interface; a model that it would change is refused at install, since a small
batch is tried against the stock model, sentence by sentence.
Cost: at install seven forward passes over a few tokens. Shapes: B sentences, S padded length, T
real tokens, hidden states [1, T, h] inside.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from unspool._dispatch import register
from unspool._installed import mark_extended
from unspool._joint import Joint, Watch, join
from unspool._layout_probe import (
    compile_layers,
    evaluating,
    main_of,
    modules_of,
    own_attention,
    positions_of,
    probe_sentences,
    unpack_all,
    use_function,
)
from unspool._packed import KEY, PackedRow, packed
from unspool._replay import Replays
from unspool.attention.padding_free.collate import LENGTHS
from unspool.attention.padding_free.layout import Layout, arrange, flat
from unspool.attention.padding_free.method import PaddingFree
from unspool.attention.padding_free.packing import read_mask
from unspool.attention.padding_free.timing import Counter
from unspool.errors import ConfigError, OverflowPolicyError, Unsupported
from unspool.extension import Extension
from unspool.methods import Method, spell

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unspool.attention.padding_free.report import PaddingReport

_BOUNDARIES = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


class LayoutExtension(Extension):
    """A model with `PaddingFree` installed. Made by `extend`."""

    def __init__(self, model: Any, methods: Sequence[Method], tokenizer: Any) -> None:
        # Not the parent's: its facts are those of a decoder that keeps a cache.
        if len(methods) != 1 or not isinstance(methods[0], PaddingFree):
            raise ConfigError(
                f"{spell(methods)}: a method of slot 'layout' stands alone, since it packs a "
                f"batch for the whole model."
            )
        if getattr(model.config, "is_encoder_decoder", False):
            raise ConfigError(
                f"{type(model).__name__} is an encoder-decoder: make its encoder padding-free, "
                f"as extend(model.get_encoder(), 'padding-free')."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.methods = tuple(methods)
        self.method: PaddingFree = methods[0]
        self.base: Any = model.base_model
        self._undo = contextlib.ExitStack()
        self._installed = False
        self._stage: Any = None
        self._met: list[Tensor] | None = None
        self._takes: frozenset[str] = frozenset(inspect.signature(self.base.forward).parameters)
        self._start, self._longest = positions_of(self.base)
        self._counter = Counter()
        self._nothing: dict[Any, Tensor] = {}
        self._joints: list[Joint] = []
        self._watch: Watch | None = None
        self._replays: Replays | None = None

    # ---- the handle

    @property
    def capacity(self) -> int | None:
        """Tokens of the longest sentence that the model has positions for; None: any number."""
        return self._longest

    @property
    def prompt_method(self) -> Method | None:
        return None

    def install(self) -> LayoutExtension:
        """Make the model padding-free. `extend` has done it already."""
        if self._installed:
            return self
        register()
        with contextlib.ExitStack() as undo:
            mark_extended(self.model, undo)
            sentences = probe_sentences(self.base, self._start)
            stock, self._stage = self._stock(sentences)
            use_function(self.model, undo)
            if self._stage is not None:
                hook = self._stage.register_forward_hook(self._unpack_stage)
                undo.callback(hook.remove)
            self.base.forward = self._wrap(self.base.forward)
            undo.callback(self.base.__dict__.pop, "forward", None)
            self._try(sentences, stock)
            if self.method.compile or self.method.graphs:
                self._joints = join(self.base, undo)
                self._watch = Watch(self.base)
                undo.callback(setattr, self, "_watch", None)
                compile_layers(self.base, undo)
            if self.method.graphs:
                self._replays = Replays(self.base, self._stage is not None)
                undo.callback(setattr, self, "_replays", None)
            self._counter.reset()
            self._undo = undo.pop_all()
        self._installed = True
        return self

    def report(self, cache: Any = None) -> PaddingReport:  # type: ignore[override]
        # mypy: there is no cache to report on; what is counted is padding.
        """Padding removed and tokens a second since the installation (or `reset_report`)."""
        return self._counter.report()

    def reset_report(self) -> None:
        """Count from here on."""
        self._counter.reset()

    def explain(self) -> str:
        """What is computed, and how long a sentence may be, in a line."""
        most = "of any length" if self._longest is None else f"of up to {self._longest:,} tokens"
        return (
            f"{type(self.model).__name__}: sentences {most}; {self.spec} computes the real tokens "
            f"of a padded batch and leaves out its padding; the outputs keep their shapes."
        )

    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> NoReturn:
        """Not with a packed row."""
        raise Unsupported(
            f"{self.spec} is for encoders and for training: a packed row has no cache to write "
            f"from. Remove it before generating."
        )

    def new_cache(self) -> NoReturn:
        self.generate()

    def stream(self, question: str | None = None) -> NoReturn:
        self.generate()

    def ask(self, context: Any, question: str, **options: Any) -> NoReturn:
        self.generate()

    def select(self, context: Any, question: str, **options: Any) -> NoReturn:
        self.generate()

    def export(self) -> NoReturn:
        raise Unsupported(f"{self.spec} is no matter of rope_parameters.")

    # ---- one forward pass

    def _wrap(self, stock: Any) -> Any:
        signature = inspect.signature(stock)

        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            given = dict(bound.arguments)
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    given.update(given.pop(name, {}))
            layout, is_flat, given = self._pack(given)
            row = PackedRow(layout, self.method.backend, self._met)
            nothing = self._no_mask(layout.indices.device)
            if self._watch is not None and self._watch.moved(self._gather) and self._replays:
                self._replays.forget()

            def run(given: dict[str, Any], row: PackedRow) -> Any:
                return stock(**given, attention_mask=nothing, **{KEY: row})

            with packed(row), self._counter.counting(layout, is_flat):
                if is_flat:
                    return run(given, row)
                if self._replays is None:
                    return unpack_all(run(given, row), layout)
                finish = functools.partial(unpack_all, layout=layout, copied=True)
                return self._replays.run(run, given, row, finish)

        return forward

    def _gather(self) -> None:
        for joint in self._joints:
            joint.gather()

    def _no_mask(self, device: torch.device) -> Tensor:
        """A mask of four dimensions that says nothing: every mask function hands it on."""
        import torch

        key = (device, self.base.dtype)
        if key not in self._nothing:
            with torch.inference_mode(False):
                self._nothing[key] = torch.zeros(1, 1, 1, 1, device=device, dtype=key[1])
        return self._nothing[key]

    def _pack(self, given: dict[str, Any]) -> tuple[Layout, bool, dict[str, Any]]:
        """The layout of a call, whether it came packed, and the call's arguments packed."""
        import torch

        given = {name: value for name, value in given.items() if value is not None}
        shaped = given.get("input_ids", given.get("inputs_embeds"))
        if shaped is None:
            raise ConfigError("A padding-free model needs input_ids or inputs_embeds.")
        mask = given.pop("attention_mask", None)
        lengths = given.pop(LENGTHS, None)
        boundaries = given.get("cu_seq_lens_q")
        for name in _BOUNDARIES:
            given.pop(name, None)
        self._refuse(given)
        rows, columns = int(shaped.shape[0]), int(shaped.shape[1])
        if lengths is not None or boundaries is not None:
            layout = self._flat(lengths, boundaries, mask, rows, columns, shaped.device)
        else:
            every = torch.ones(rows, columns, dtype=torch.bool)
            host = every if mask is None else read_mask(mask, rows, columns)
            layout = arrange(host, shaped.device, multiple=self.method.fill)
        is_flat = lengths is not None or boundaries is not None
        self._check_length(layout)
        for name, value in given.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                if tuple(value.shape[:2]) == (1, columns) and name == "position_ids":
                    value = value.expand(rows, columns)
                if tuple(value.shape[:2]) != (rows, columns):
                    raise ConfigError(
                        f"{type(self.base).__name__} got {name} of shape {tuple(value.shape)}; a "
                        f"padding-free model takes one value a token, ({rows}, {columns}, …)."
                    )
                given[name] = value if is_flat else layout.pack(value)
        if "position_ids" in self._takes and (is_flat or "position_ids" not in given):
            given["position_ids"] = (layout.position_ids + self._start)[None]
        return layout, is_flat, given

    def _flat(
        self,
        lengths: Sequence[int] | None,
        boundaries: Tensor | None,
        mask: Tensor | None,
        rows: int,
        columns: int,
        device: torch.device,
    ) -> Layout:
        if lengths is None:
            assert boundaries is not None  # the caller looked
            lengths = boundaries.diff().tolist()
        if rows != 1 or sum(lengths) != columns or min(lengths) < 0:
            raise ConfigError(
                f"A packed batch is one row whose sentence lengths add up to it: got {rows} rows "
                f"of {columns} tokens and lengths that add up to {sum(lengths)}."
            )
        if mask is not None:
            raise ConfigError("A packed batch has no padding: give boundaries or an attention_mask")
        if self._stage is not None and getattr(self.base, "pooler", None) is not None:
            raise ConfigError(
                f"{type(self.base).__name__} pools the first token of each row, and a packed row "
                f"has one for all sentences. Pad the batch: it is packed here."
            )
        return flat(lengths, device)

    def _refuse(self, given: dict[str, Any]) -> None:
        if given.get("past_key_values") is not None or given.get("use_cache"):
            self.generate()
        if given.get("output_attentions"):
            raise ConfigError(
                f"{self.spec} never makes the attention weights: output_attentions needs the stock "
                f"model with attn_implementation='eager'."
            )
        if given.get("encoder_hidden_states") is not None:
            raise ConfigError(f"{self.spec} packs self-attention; this call attends across.")
        if "use_cache" in self._takes:
            given["use_cache"] = False

    def _check_length(self, layout: Layout) -> None:
        longest = max(layout.lengths[: len(layout.lengths) - bool(layout.tail)], default=0)
        if self._longest is not None and longest > self._longest:
            raise OverflowPolicyError(
                f"A sentence has {longest:,} tokens, and {type(self.model).__name__} has positions "
                f"for {self._longest:,}. Split it, or shorten it with the tokenizer and say so."
            )

    def _unpack_stage(self, module: nn.Module, args: Any, output: Any) -> Any:
        from unspool._packed import packed_now

        row = packed_now()
        if row is None:
            return output
        return unpack_all(output, row.layout, only_last=True)

    # ---- install

    def _stock(self, sentences: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """Last hidden states of the stock model, and the module behind which to unpack, if
        something of the model itself comes after it."""
        import torch

        called: list[tuple[Any, bool]] = []
        inner = [m for child in self.base.children() for m in modules_of(child)]
        size = len(sentences[0])

        def see(module: Any, args: Any, output: Any) -> None:
            tensor = main_of(output)
            long = tensor is not None and tensor.ndim == 3 and tensor.shape[1] == size
            called.append((module, long))

        hooks = [module.register_forward_hook(see) for module in inner]
        try:
            with evaluating(self.base), torch.no_grad():
                outs = [main_of(self.base(row[None]))[0].float() for row in sentences[:1]]
                for hook in hooks:
                    hook.remove()
                outs += [main_of(self.base(row[None]))[0].float() for row in sentences[1:]]
        finally:
            for hook in hooks:
                hook.remove()
        last = max((i for i, (_, long) in enumerate(called) if long), default=-1)
        return outs, called[last][0] if 0 <= last < len(called) - 1 else None

    def _try(self, sentences: Sequence[Tensor], stock: Sequence[Tensor]) -> None:
        import torch

        width = max(len(row) for row in sentences)
        ids = sentences[0].new_zeros(len(sentences) + 1, width)
        mask = torch.zeros(len(sentences) + 1, width, dtype=torch.bool)
        for i, row in enumerate(sentences):
            ids[i, : len(row)], mask[i, : len(row)] = row, True
        self._met = []
        with evaluating(self.base), torch.no_grad():
            try:
                out = main_of(self.base(input_ids=ids, attention_mask=mask)).float()
            except (ConfigError, Unsupported):
                raise
            except Exception as error:
                raise ConfigError(
                    f"{type(self.base).__name__} does not run on a packed row: {error}"
                ) from error
            finally:
                met, self._met = self._met, None
        if not met:
            raise ConfigError(
                f"{type(self.base).__name__} computes its attention itself "
                f"({own_attention(self.base)}), not through transformers' AttentionInterface, so "
                f"sentences of a packed row would see each other. It cannot be padding-free."
            )
        bound = 0.02 if self.base.dtype in (torch.bfloat16, torch.float16) else 1e-4
        for i, right in enumerate(stock):
            apart = float((out[i, : len(right)] - right).abs().max())
            if not apart <= bound * max(1.0, float(right.abs().max())):
                raise ConfigError(
                    f"{type(self.base).__name__} gives other hidden states on a packed row (apart "
                    f"by {apart:.3g}): unsupported."
                )
