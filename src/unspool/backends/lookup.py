"""Speculative decoding by look-up: the same tokens, several to a pass of the model.

What: guessed tokens are read by the model in one pass, and kept as far as they are what it would
have written itself; what was read in vain is taken back out of the cache.
Source: speculative decoding (Leviathan et al. 2023, arXiv 2211.17192, section 2) with drafts that
are looked up (see `drafts`).
Differs from it: a draft is one certain guess, so a token is drawn (or chosen) from the model alone
and kept if it is the guess; each token takes one draw, as in plain sampling, so the text is the
same for a seed, not only its distribution. A pass over several tokens rounds otherwise than one
over a single token: where two tokens are equal to the last bits, another one may come first.
Cost: one pass a round; a round writes between one token and the longest draft and one. Memory for
the keys of one draft more. Shapes: ids [1, T].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unspool.backends.drafts import Draft, Drafter, TextDrafts
from unspool.errors import ConfigError, Unsupported

_FIRST = 4
"""Tokens of the first draft. One that held doubles it, one that broke sets it to what held."""


@dataclass(frozen=True, slots=True)
class LookupReport:
    """What guessing was worth in one generation."""

    passes: int
    """Of the model, the prompt's included."""
    written: int
    drafted: int
    """Tokens that were guessed and read."""
    kept: int
    """Of them, those that the model wrote."""

    def to_json(self) -> dict[str, int]:
        return {
            "passes": self.passes,
            "written": self.written,
            "drafted": self.drafted,
            "kept": self.kept,
        }


class Lookup:
    """Speculative decoding for transformers: `model.generate(ids, custom_generate=Lookup())`.

    One sequence at a time, greedy or sampled, with any logits processors and stopping criteria.
    transformers gives no `streamer` to a method of one's own, so none is fed.
    """

    def __init__(
        self,
        *drafters: Drafter,
        most: int = 16,
        before: Sequence[int] = (),
    ) -> None:
        """Choose where guesses come from.

        Args:
            drafters: The one with the longest match is followed, the first of equals; none: the
                text itself.
            most: Most tokens of one draft.
            before: Ids that the model has read already and `generate` is not given again.
        """
        if most < 1:
            raise ConfigError(f"A draft needs at least 1 token, got most={most}.")
        self.drafters: tuple[Drafter, ...] = drafters or (TextDrafts(),)
        self.most = most
        self.before = list(before)
        self.report = LookupReport(0, 0, 0, 0)
        """Of the last generation."""

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Write, as transformers' own methods do; called by `generate`.

        Raises:
            ConfigError: Several sequences, beams, padding, or a cache that cannot give tokens back.
        """
        _check(model, input_ids, generation_config, model_kwargs)
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
        cache = outputs.past_key_values
        check_cache(cache)
        cache.activate_past_recording()
        rows, draft = outputs.logits[:, -1:], Draft([], 0)
        history = [*self.before, *input_ids[0].tolist()]
        ids, over = input_ids, False
        limit, passes, drafted, kept = min(_FIRST, self.most), 1, 0, 0
        while True:
            guesses, held = draft.tokens, 0
            for place in range(len(guesses) + 1):
                scores = rows[:, place].to(torch.float32, copy=True)
                scores = logits_processor(ids, scores) if logits_processor else scores
                token = _pick(scores, sample=bool(generation_config.do_sample))
                ids = torch.cat([ids, token.to(ids.device)], dim=-1)
                history.append(int(token))
                over = bool(stopping_criteria(ids, None).all())
                matches = place < len(guesses) and history[-1] == guesses[place]
                held += matches
                if over or not matches:
                    break
            # As after any method: everything is in the cache but the last token written.
            _crop(cache, len(guesses) - place)
            kept += held
            if over:
                break
            if guesses:
                limit = min(self.most, 2 * limit) if held == len(guesses) else max(held, 2)
            draft = self._draft(history, min(limit, self._room(generation_config, ids)))
            row = ids.new_tensor([[history[-1], *draft.tokens]])
            rows = _forward(model, row, cache)
            passes, drafted = passes + 1, drafted + len(draft.tokens)
        self.report = LookupReport(passes, int(ids.shape[1] - input_ids.shape[1]), drafted, kept)
        return _answer(ids, cache, generation_config)

    def _draft(self, history: list[int], most: int) -> Draft:
        best = Draft([], 0)
        for drafter in self.drafters:
            found = drafter.draft(history, most)
            if found.tokens and found.match > best.match:
                best = found
        return best

    @staticmethod
    def _room(config: Any, ids: Tensor) -> int:
        """Tokens that may be guessed, so that one more can follow them."""
        longest = config.max_length
        return 1 << 30 if longest is None else max(0, int(longest) - int(ids.shape[1]) - 1)


def _check(model: Any, ids: Tensor, config: Any, kwargs: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder:
        raise Unsupported("Look-up decoding is for decoders; this model has an encoder as well.")
    if ids.shape[0] != 1 or (config.num_beams or 1) > 1 or (config.num_return_sequences or 1) > 1:
        raise ConfigError(
            f"Look-up decoding writes one sequence at a time, without beams, got {ids.shape[0]} "
            f"rows and {config.num_beams or 1} beams. Call generate once a prompt."
        )
    mask = kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        raise ConfigError("Look-up decoding takes a prompt without padding: leave the mask out.")
    asked = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    for name in asked:
        if getattr(config, name, None):
            raise ConfigError(f"Look-up decoding gives no {name.removeprefix('output_')}.")


def check_cache(cache: Any) -> None:
    """Refuse a cache that cannot give tokens back.

    Raises:
        ConfigError: One of its layers evicts or compresses what it has read.
    """
    if not getattr(cache, "is_croppable", False):
        kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
        raise ConfigError(
            "Look-up decoding takes back what it read in vain, and this cache cannot give tokens "
            f"back ({', '.join(sorted(kinds)) or type(cache).__name__}). Use method dense, or "
            "write without drafts."
        )


def _forward(model: Any, row: Tensor, cache: Any) -> Tensor:
    """Logits [1, T, V] after each token of a row."""
    out = model(row, past_key_values=cache, use_cache=True, return_dict=True)
    logits: Tensor = out.logits
    return logits


def _crop(cache: Any, tokens: int) -> None:
    """Take the newest tokens out; layers that recorded them for that are told in any case."""
    recording = any(getattr(layer, "record_past", False) for layer in cache.layers)
    if tokens or recording:
        cache.crop(-tokens)


def _pick(scores: Tensor, *, sample: bool) -> Tensor:
    if not sample:
        return scores.argmax(dim=-1, keepdim=True)
    return torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1)


def _answer(ids: Tensor, cache: Any, config: Any) -> Any:
    if not config.return_dict_in_generate:
        return ids
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    given: dict[str, Any] = {"sequences": ids, "past_key_values": cache}
    return GenerateDecoderOnlyOutput(**given)
