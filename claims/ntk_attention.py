"""NTK-Attention beside prefixes of many lengths and LoRA: what a prefix without a length is worth.

Source: Liang et al. (2024), "Toward Infinite-Long Prefix in Transformer", section 6: better than
prefixes and near LoRA or above it, with parameters that do not grow with the prefix.
Differs from the paper: SmolLM2-135M-Instruct in place of ChatGLM3-6B, labels of shipped texts in
place of SuperGLUE; peers are PEFT's. Rates are the best of three, each method's own, on a split of
the training texts (on a CPU: fixed).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._labelled import Row, labels, rows
from claims._long import CODE, PACKAGES

METHODS = (
    "ntk",
    "lora-20",
    "lora-8",
    "prefix-10",
    "prefix-50",
    "prefix-100",
    "prefix-200",
    "last-2",
)
"""lora-R: rank R of queries and values, 20 having as many parameters as ntk; prefix-M: M positions;
last-N: all of the last N layers."""
RATES = {
    "ntk": (1e-3, 3e-3, 1e-2),
    "lora": (5e-4, 1e-3, 3e-3),
    "prefix": (3e-3, 1e-2, 3e-2),
    "last": (1e-4, 3e-4, 1e-3),
}
TUNED = {"ntk": "ntk", "lora": "lora-20", "prefix": "prefix-50", "last": "last-2"}
TIMED_STEPS = 16
PREFIXES = tuple(m for m in METHODS if m.startswith("prefix"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """How much of everything."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int
    train: int
    test: int
    tokens: int
    """Of a text, the question for its label not counted."""
    batch: int
    tune: bool


ARMS = {
    "cpu": Arm(
        tasks=("module",),
        methods=("ntk", "lora-20", "prefix-10", "prefix-100"),
        seeds=2,
        train=320,
        test=160,
        tokens=36,
        batch=8,
        tune=False,
    ),
    "gpu": Arm(
        tasks=("module", "manual", "section"),
        methods=METHODS,
        seeds=3,
        train=2000,
        test=500,
        tokens=56,
        batch=32,
        tune=True,
    ),
}

CLAIM = Claim(
    system="ntk-attention",
    title="A prefix without a length is worth any trained prefix, and nearly LoRA",
    required=(
        Figure("accuracy: ntk less the best prefix", ">=", 0),
        Figure("accuracy: ntk less LoRA of as many parameters", ">=", -0.01),
        Figure("time of a step: ntk over the longest prefix", "<=", 1, "x"),
        *(Figure(f"accuracy, {method}", "report") for method in METHODS),
        *(Figure(f"parameters, {method}", "report") for method in METHODS),
        Figure("accuracy by chance", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct, frozen: the label of a text (which package of the standard library "
        "a piece of source is from; on a GPU also which manual, and which section of Debian), one "
        "epoch of AdamW, the same batches for every method. CPU: 320 texts of 36 tokens, 160 to "
        "test on, 2 seeds. GPU: 2,000 of 56 tokens, 500 to test on, 3 tasks and 3 seeds; rates "
        "chosen from three. Time: the median of 16 steps, measured by themselves."
    ),
    packages=(*PACKAGES, "peft"),
    code=CODE,
)


def run(ctx: Context) -> Measured:
    """Every method, task and seed is a step."""
    arm = ARMS[ctx.budget if ctx.budget in ARMS else "gpu"]
    scores: dict[str, list[dict[str, Any]]] = {method: [] for method in arm.methods}
    for task in arm.tasks:
        for method, found in one_task(ctx, arm, task).items():
            scores[method] += found
    right = {method: statistics.fmean(s["right"] for s in scores[method]) for method in scores}
    prefixes = [method for method in PREFIXES if method in scores]
    seconds = {
        m: ctx.step(f"time-{m}", lambda m=m: step_seconds(ctx, arm, m), inputs={"arm": repr(arm)})
        for m in scores
    }
    return Measured(
        {
            "accuracy: ntk less the best prefix": right["ntk"] - max(right[m] for m in prefixes),
            "accuracy: ntk less LoRA of as many parameters": right["ntk"] - right["lora-20"],
            "time of a step: ntk over the longest prefix": seconds["ntk"] / seconds[prefixes[-1]],
            **{f"accuracy, {m}": right[m] for m in scores},
            **{f"parameters, {m}": scores[m][0]["parameters"] for m in scores},
            "accuracy by chance": statistics.fmean(1 / len(labels(task)) for task in arm.tasks),
        },
        {
            "scores": scores,
            "seconds of a step": seconds,
            "labels": {t: labels(t) for t in arm.tasks},
        },
    )


def one_task(ctx: Context, arm: Arm, task: str) -> dict[str, list[dict[str, Any]]]:
    """Scores of every method and seed on one task."""
    train, test = ctx.step(f"rows-{task}", lambda: rows(task, ctx.data("ntk")), prepares=True)
    train = [(text, label) for text, label in train][: arm.train]
    test = [(text, label) for text, label in test][: arm.test]
    key = {"arm": repr(arm), "task": task}
    rates = dict.fromkeys(RATES, 0.0)
    for family, tried in RATES.items():
        rates[family] = tried[1]
        if not arm.tune or not any(m.startswith(family) for m in arm.methods):
            continue
        held = len(train) // 5
        right = {
            rate: ctx.step(
                f"rate-{task}-{family}-{rate:g}",
                lambda family=family, rate=rate, held=held: trained(
                    ctx, arm, TUNED[family], rate, train[held:], train[:held], labels(task), 1000
                ),
                inputs={**key, "rate": rate},
            )["right"]
            for rate in tried
        }
        rates[family] = max(tried, key=lambda rate, right=right: right[rate])
    out: dict[str, list[dict[str, Any]]] = {}
    for method in arm.methods:
        rate = rates[method.split("-")[0]]
        out[method] = [
            ctx.step(
                f"{task}-{method}-{seed}",
                lambda method=method, rate=rate, seed=seed: trained(
                    ctx, arm, method, rate, train, test, labels(task), seed
                ),
                inputs={**key, "rate": rate},
            )
            for seed in range(arm.seeds)
        ]
    return out


def step_seconds(ctx: Context, arm: Arm, method: str) -> float:
    """Median time of a training step, taken with no other training beside it."""
    task = arm.tasks[0]
    train, _ = ctx.step(f"rows-{task}", lambda: rows(task, ctx.data("ntk")), prepares=True)
    some = [(text, label) for text, label in train][: TIMED_STEPS * arm.batch]
    found = trained(ctx, arm, method, 0.0, some, some[:1], labels(task), 0)
    return float(found["step_seconds"])


def trained(
    ctx: Context,
    arm: Arm,
    method: str,
    rate: float,
    train: Sequence[Row],
    test: Sequence[Row],
    names: tuple[str, ...],
    seed: int,
) -> dict[str, Any]:
    """One epoch of a method, and its share of right labels."""
    import random

    import torch

    torch.manual_seed(seed)
    order = list(train)
    random.Random(seed).shuffle(order)
    with ExitStack() as undo:
        model, parameters = adapted(method, seed, undo)
        best = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
        steps = -(-len(order) // arm.batch)
        times = []
        with ctx.progress(f"{method}, seed {seed}", total=steps, unit="steps") as bar:
            for step in range(steps):
                began = time.perf_counter()
                batch = order[step * arm.batch : (step + 1) * arm.batch]
                logits, wanted = ask(model, batch, names, arm.tokens)
                loss = torch.nn.functional.cross_entropy(logits, wanted)
                best.zero_grad(set_to_none=True)
                loss.backward()
                scale = min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps)
                for group in best.param_groups:
                    group["lr"] = rate * scale
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                best.step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
                bar.update(step + 1)
        right = 0
        for start in range(0, len(test), 2 * arm.batch):
            with torch.no_grad():
                logits, wanted = ask(model, test[start : start + 2 * arm.batch], names, arm.tokens)
            right += int((logits.argmax(-1) == wanted).sum())
        return {
            "right": right / len(test),
            "parameters": sum(p.numel() for p in parameters),
            "rate": rate,
            "step_seconds": statistics.median(times[2:] or times),
        }


def adapted(method: str, seed: int, undo: ExitStack) -> tuple[Any, list[Any]]:
    """The model with a method on it, which `undo` takes off, and what is trained."""
    base = loaded()[0]
    family, _, size = method.partition("-")
    for weight in base.parameters():
        weight.requires_grad_(False)
    if family == "ntk":
        from unspool.attention.ntk import NTKAdapters
        from unspool.extension import extend

        extension = undo.enter_context(extend(base, f"ntk:seed={seed}"))
        return base, list(NTKAdapters(extension).parameters())
    if family == "last":
        import copy

        kept = copy.deepcopy(base.state_dict())
        undo.callback(base.load_state_dict, kept)
        parameters = [p for layer in base.model.layers[-int(size) :] for p in layer.parameters()]
        for weight in parameters:
            weight.requires_grad_(True)
        return base, parameters
    import peft

    if family == "lora":
        config: Any = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=int(size),
            lora_alpha=2 * int(size),
            target_modules=["q_proj", "v_proj"],
        )
    else:
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=int(size))
    wrapped: Any = peft.get_peft_model(base, config)
    if family == "lora":
        undo.callback(wrapped.unload)
    wrapped.train()
    return wrapped, [p for p in wrapped.parameters() if p.requires_grad]


def ask(model: Any, batch: Sequence[Row], names: tuple[str, ...], tokens: int) -> tuple[Any, Any]:
    """Scores of the labels after each text [rows, labels], and which is right."""
    import torch

    from unspool._overflow import shorten

    base, tokenizer = loaded()
    cue = tokenizer("\nLabel:")["input_ids"]
    texts = [list(shorten(tokenizer(text)["input_ids"], tokens, keep="head").ids) + cue
             for text, _ in batch]  # fmt: skip
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    device = base.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        out = model(
            input_ids=ids.to(device), attention_mask=mask.to(device), logits_to_keep=1
        ).logits[:, -1]
    letters = [tokenizer(f" {chr(65 + i)}")["input_ids"][-1] for i in range(len(names))]
    return out[:, letters].float(), torch.tensor([label for _, label in batch], device=device)


@cache
def loaded() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct in float32, and its tokenizer."""
    from unspool import load_model

    found: Any = load_model(dtype="float32")
    return found.model, found.tokenizer
