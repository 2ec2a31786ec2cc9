"""The embedded model as the claims of benchmarks ask it, and numbers they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def model(dtype: str = "float32", name: str | None = None) -> Any:
    """SmolLM2-135M-Instruct or another packaged model; a beginning that is shared is read once."""
    from unspool import load_model
    from unspool.backends.prefix import keep_prefixes

    return keep_prefixes(load_model(name, dtype=dtype))


def method_model(method: str, dtype: str = "bfloat16") -> Any:
    """SmolLM2-135M-Instruct reading past its window by a method."""
    from unspool import load_model

    return load_model(dtype=dtype, method=method)


def ask_choice(task: Any, sample: Any) -> dict[str, float]:
    """The score of one sample of a choice task."""
    from unspool.evaluation.spec import Response

    scored = model().logprobs(prompt_of(task, sample), list(sample.choices))
    response = Response(
        logprobs=tuple(s.total for s in scored),
        logprob_tokens=tuple(len(s.per_token) for s in scored),
    )
    return {**task.metric.score(sample, response), "said": float(best_of(scored))}


def prompt_of(task: Any, sample: Any) -> str:
    """The plain text of a sample, answer cue included."""
    request = task.build(sample)
    return str(request.prompt) + request.answer_prefix


def best_of(scored: Sequence[Any]) -> int:
    """The continuation that is likeliest by token."""
    return max(range(len(scored)), key=lambda i: scored[i].total / max(1, len(scored[i].per_token)))


def tokens(text: str) -> int:
    """Tokens of the model in a plain text."""
    return len(model().tokenizer(text).input_ids)


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95% interval (normal)."""
    n = len(differences)
    mean = sum(differences) / n
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / max(1, n - 1))
    reach = 1.96 * spread / math.sqrt(n)
    return mean, mean - reach, mean + reach
