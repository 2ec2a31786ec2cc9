"""An encoder of long texts: a BERT whose attention is a Longformer's or a BigBird's.

What: embeddings, layers, pooler and head for masked tokens, with the parameter names of the models
in transformers, on the attention kernel that everything here stands on.
Source: Beltagy et al. (2020), "Longformer", section 3; Zaheer et al. (2020), "Big Bird", section 2;
both as continued on clinical notes by Li et al. (2022), "Clinical-Longformer and Clinical-BigBird".
Differs from the models in transformers: texts are not padded to a multiple of anything, random
blocks are fixed (see `blocks`), the first token is global unless the caller says otherwise.
Cost: O(T) time and memory. Shapes: B batch, T tokens, C hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unspool.attention.blocks import BlockMask
from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.blocks import block_attention, block_lists, draw_blocks
from unspool.models.long_encoder.config import LongEncoderConfig
from unspool.models.long_encoder.window import (
    cut,
    global_index,
    global_rows,
    put,
    take,
    window_attention,
)


class EncoderOutput(NamedTuple):
    """What an encoder makes of a batch."""

    last_hidden_state: Tensor
    """[B, T, C]."""
    pooler_output: Tensor
    """[B, C], of the first token."""
    hidden_states: tuple[Tensor, ...]
    """Embeddings and every layer's output, if they were asked for."""


def activation(x: Tensor, name: str) -> Tensor:
    """The non-linearity that a configuration names."""
    if name == "gelu":
        return F.gelu(x)
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return F.gelu(x, approximate="tanh")
    if name == "relu":
        return F.relu(x)
    raise ConfigError(f"hidden_act must be gelu, gelu_new or relu, got {name!r}.")


class _Embeddings(nn.Module):
    def __init__(self, config: LongEncoderConfig) -> None:
        super().__init__()
        width, pad = config.hidden_size, config.pad_token_id
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=pad)
        padded = pad if config.kind == "longformer" else None
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, width, padding_idx=padded
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, types: Tensor | None, positions: Tensor | None) -> Tensor:
        config = self.config
        if positions is None and config.kind == "longformer":
            real = (ids != config.pad_token_id).long()
            positions = real.cumsum(1) * real + config.pad_token_id
        elif positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.word_embeddings(ids)
        if config.rescale_embeddings:
            x = x * config.hidden_size**0.5
        x = x + self.position_embeddings(positions)
        x = x + self.token_type_embeddings(torch.zeros_like(ids) if types is None else types)
        normed: Tensor = self.LayerNorm(x)
        return F.dropout(normed, float(config.hidden_dropout_prob), self.training)


class _SelfAttention(nn.Module):
    """Projections of one layer, and its pattern."""

    def __init__(self, config: LongEncoderConfig, number: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.number = number
        bias = config.kind == "longformer" or config.use_bias
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        if config.kind == "longformer":
            self.query_global = nn.Linear(width, width)
            self.key_global = nn.Linear(width, width)
            self.value_global = nn.Linear(width, width)
        self.dropout = float(config.attention_probs_dropout_prob)
        self.forced: Tensor | None = None
        self._lists: tuple[int, BlockMask] | None = None

    def forward(self, x: Tensor, valid: Tensor, index: Tensor | None, backend: str) -> Tensor:
        config = self.config
        dropout = self.dropout if self.training else 0.0
        seed = int(torch.randint(1 << 30, ())) if dropout else 0
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        if config.kind == "bigbird":
            lists = self._blocks(x.shape[1], x.device)
            out = block_attention(
                q, k, v, valid=valid, lists=lists, dropout=dropout, seed=seed, backend=backend
            )
            return out.transpose(1, 2).flatten(2)
        out = window_attention(
            q,
            k,
            v,
            window=config.windows[self.number],
            dilation=config.dilations[self.number],
            valid=valid,
            index=index,
            dropout=dropout,
            seed=seed,
            backend=backend,
        )
        if index is not None:
            at = take(x[:, None], index)[:, 0]
            rows = global_rows(
                self._heads(self.query_global(at)),
                self._heads(self.key_global(x)),
                self._heads(self.value_global(x)),
                valid=valid,
                index=index,
                dropout=dropout,
                seed=seed + 1,
                backend=backend,
            )
            out = put(out, rows, index)
        return out.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return cut(x, 2, self.config.num_attention_heads, -1).transpose(1, 2)

    def _blocks(self, tokens: int, device: torch.device) -> BlockMask | None:
        config = self.config
        if tokens <= config.full_up_to:
            return None
        num_blocks = -(-tokens // config.block)
        if self._lists is None or self._lists[0] != num_blocks:
            drawn = self.forced
            if drawn is None:
                drawn = draw_blocks(
                    num_blocks,
                    config.num_attention_heads,
                    config.random_blocks,
                    (config.random_seed, self.number),
                )
            self._lists = num_blocks, block_lists(drawn, num_blocks, config.block)
        moved = self._lists[1].to(device)
        self._lists = num_blocks, moved
        return moved


class _Residual(nn.Module):
    """A projection, dropout, and the norm of its sum with what went in."""

    def __init__(self, config: LongEncoderConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(float(config.hidden_dropout_prob))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out


class _Layer(nn.Module):
    def __init__(self, config: LongEncoderConfig, number: int) -> None:
        super().__init__()
        self.act = config.hidden_act
        self.attention = nn.ModuleDict(
            {
                "self": _SelfAttention(config, number),
                "output": _Residual(config, config.hidden_size),
            }
        )
        self.intermediate = nn.ModuleDict(
            {"dense": nn.Linear(config.hidden_size, config.intermediate_size)}
        )
        self.output = _Residual(config, config.intermediate_size)

    def forward(self, x: Tensor, valid: Tensor, index: Tensor | None, backend: str) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, valid, index, backend), x)
        inner = activation(self.intermediate["dense"](x), self.act)
        out: Tensor = self.output(inner, x)
        return out


class _MaskedHead(nn.Module):
    """Scores of the vocabulary at each token; its matrix is that of the word embeddings."""

    def __init__(self, config: LongEncoderConfig) -> None:
        super().__init__()
        self.act = "gelu" if config.kind == "longformer" else config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return F.linear(self.layer_norm(activation(self.dense(x), self.act)), words, self.bias)


class LongEncoder(nn.Module):
    """A Longformer or BigBird encoder with a head for masked tokens."""

    def __init__(self, config: LongEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers = [_Layer(config, number) for number in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})
        self.lm_head = _MaskedHead(config)
        self.gradient_checkpointing = False
        self.backend = "auto"
        """Back-end of the attention kernel, as `attend` takes it."""
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Vectors of every token.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 0 is padding; None: where the ids are not padding.
            global_attention_mask: Longformer: [B, T], 1 is a global token, any number a row; None:
                the first token. All zeros is allowed, and poor for classification.
            token_type_ids: [B, T]; None: zeros.
            position_ids: [B, T] rows of the position table; None: one after the other.
            output_hidden_states: Also return every layer's output.

        Raises:
            InputError: More tokens than there are positions, or a mask of another shape.
        """
        config = self.config
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise InputError(f"input_ids must be [batch, tokens], got {tuple(input_ids.shape)}.")
        if input_ids.shape[1] > config.max_length:
            raise InputError(
                f"{input_ids.shape[1]:,} tokens are more than the {config.max_length:,} that this "
                "encoder has positions for. Read the text with a stride, or convert with a larger "
                "max_length."
            )
        for name, given in (
            ("attention_mask", attention_mask),
            ("global_attention_mask", global_attention_mask),
            ("token_type_ids", token_type_ids),
            ("position_ids", position_ids),
        ):
            if given is not None and given.shape != input_ids.shape:
                raise InputError(
                    f"{name} must be {tuple(input_ids.shape)} like input_ids, got "
                    f"{tuple(given.shape)}."
                )
        valid = input_ids != config.pad_token_id if attention_mask is None else attention_mask != 0
        index = None
        if config.kind == "longformer":
            if global_attention_mask is None:
                is_global = torch.zeros_like(valid)
                is_global[:, 0] = True
            else:
                is_global = global_attention_mask != 0
            index = global_index(is_global & valid)
        elif global_attention_mask is not None:
            raise InputError(
                "A BigBird's global tokens are its first and last block: leave "
                "global_attention_mask out."
            )
        x = self.embeddings(input_ids, token_type_ids, position_ids)
        states = [x]
        for layer in self.layers():
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, valid, index, self.backend, use_reentrant=False)
            else:
                x = layer(x, valid, index, self.backend)
            if output_hidden_states:
                states.append(x)
        pooled = torch.tanh(self.pooler["dense"](x[:, 0]))
        return EncoderOutput(x, pooled, tuple(states) if output_hidden_states else ())

    def layers(self) -> list[_Layer]:
        """The layers, first to last."""
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        return [layer for layer in layers if isinstance(layer, _Layer)]

    def masked_scores(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary [.., vocabulary] at hidden states [.., C]."""
        scores: Tensor = self.lm_head(hidden, self.embeddings.word_embeddings.weight)
        return scores

    def drop_attention(self, share: float | int) -> None:
        """Train with this dropout of attention weights, whatever the configuration says."""
        for layer in self.layers():
            attention = layer.attention["self"]
            assert isinstance(attention, _SelfAttention)
            attention.dropout = float(share)

    def force_random_blocks(self, layers: list[Tensor] | None) -> None:
        """Use these random blocks ([H, N - 2, count] a layer) in place of drawn ones; None: draw.

        They fit one number of blocks only, and are not saved.
        """
        for number, layer in enumerate(self.layers()):
            attention = layer.attention["self"]
            assert isinstance(attention, _SelfAttention)
            attention.forced = None if layers is None else layers[number]
            attention._lists = None
