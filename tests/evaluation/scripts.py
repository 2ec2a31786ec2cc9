"""Models whose behaviour is known, so that a harness can be checked against it."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from unspool.backends.scripted import ScriptedModel
from unspool.types import Generation, Overflow, Prompt, Scored

Solve = Callable[[str], str]


def passkey(prompt: str) -> str:
    """The pass key that a prompt holds, or a wrong one."""
    found = re.search(r"pass key is (\d+)\.", prompt)
    return f" {found[1]}" if found else " 0"


def perfect(solve: Solve, *, window: int | None = None) -> ScriptedModel:
    """Answers by a solver; scores a continuation 0 if the solver writes it, else -9."""
    model = ScriptedModel(solve, window=window)
    return _Solver(model, solve)


class _Solver(ScriptedModel):
    def __init__(self, model: ScriptedModel, solve: Solve) -> None:
        super().__init__(solve, window=model.window)
        self.solve = solve

    def see(self, prompt: str) -> str:
        return prompt

    def _answer(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.solve(self.see(prompt))

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        answer = self.solve(self.see(text))
        base = super().logprobs(prompt, continuations, on_overflow=on_overflow)
        return [
            Scored(0.0 if each == answer else -9.0, s.per_token, each == answer, s.usage)
            for each, s in zip(continuations, base, strict=True)
        ]


class Window(_Solver):
    """Perfect, but sees only the last `width` tokens of a prompt."""

    def __init__(self, solve: Solve, width: int) -> None:
        super().__init__(ScriptedModel(solve), solve)
        self.width = width

    def see(self, prompt: str) -> str:
        ids = self.tokenizer(prompt).input_ids
        return self.tokenizer.decode(ids[-self.width :])


class Blind(_Solver):
    """Perfect, but does not see the first half of a prompt."""

    def __init__(self, solve: Solve) -> None:
        super().__init__(ScriptedModel(solve), solve)

    def see(self, prompt: str) -> str:
        return prompt[len(prompt) // 2 :]


def echo() -> ScriptedModel:
    """Writes the prompt back."""
    return ScriptedModel(lambda prompt: prompt)


def empty() -> ScriptedModel:
    """Writes nothing."""
    return ScriptedModel(lambda prompt: "")


class RandomChoice(ScriptedModel):
    """Prefers continuations at random."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        super().__init__([], score=lambda prompt, token: -draw.random())


class Crash(_Solver):
    """Perfect until its process dies at call number `at`, before that call is answered.

    Every call that is answered leaves a line in `log`, which outlives the process.
    """

    def __init__(self, solve: Solve, log: Path, at: int | None = None) -> None:
        super().__init__(ScriptedModel(solve), solve)
        self.log, self.at, self.calls = log, at, 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_overflow: Overflow = "error",
    ) -> list[Generation]:
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        answers = super().generate(
            prompts,
            max_tokens=max_tokens,
            stop=stop,
            temperature=temperature,
            seed=seed,
            on_overflow=on_overflow,
        )
        with self.log.open("a") as file:
            file.write("".join(f"{hash_of(prompt)}\n" for prompt in prompts))
        return answers


def hash_of(prompt: Prompt) -> str:
    import hashlib

    return hashlib.sha256(repr(prompt).encode()).hexdigest()
