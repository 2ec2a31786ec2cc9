"""Train a soft prompt that makes a frozen model recite what it was trained on.

Source: Zhang et al. (2023), "Ethicist", sections 3 and 4: vectors begin as the embeddings of the
first tokens of the vocabulary; AdamW without decay, a linear warm-up and decay, the prompt of the
epoch with the least validation loss.
Differs from the released code: every micro-batch counts (there, the first update uses one and the
last is lost); warm-up takes at most a third of all steps; the validation loss is kept with and
without its second term, so that runs with another alpha can be compared; epochs are drawn from
(seed, epoch), and the state is on disk after each, so that a killed run gives the same prompt.
Cost: a pass forward and back of m + P + T tokens a pair and epoch; gradients of m * d numbers only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unspool._overflow import fit as check_room
from unspool.errors import ConfigError, InputError, RunConflict
from unspool.forensics.extract.loss import Losses, smoothed, suffix_losses
from unspool.forensics.extract.pairs import Pair, check_apart, check_tokens
from unspool.forensics.extract.prompt import SoftPrompt, enough_memory, network_of

_STATE = "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a prompt is trained."""

    tokens: int = 100
    """Vectors of the prompt."""
    alpha: float | int = 0.7
    """Weight of the hardest tokens."""
    top_losses: int = 5
    """How many of a suffix they are."""
    min_loss: float | int | None = None
    """Instead of `top_losses`: all tokens above so many nats."""
    lr: float | int = 1e-3
    warmup: int = 500
    """Steps; at most a third of all."""
    epochs: int = 20
    """At most."""
    batch: int = 32
    micro: int = 16
    """Pairs that are in memory at a time."""
    patience: int = 5
    """Epochs without a better validation loss after which it ends."""
    seed: int = 42

    def __post_init__(self) -> None:
        least = {"tokens": 1, "top_losses": 1, "epochs": 1, "batch": 1, "micro": 1, "patience": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name} must be >= {low}, got {getattr(self, name)}.")
        if self.alpha < 0 or self.lr <= 0 or self.warmup < 0:
            raise ConfigError(
                f"alpha and warmup must be >= 0 and lr above 0, got {self.alpha}, {self.warmup} "
                f"and {self.lr}."
            )


def fit(
    model: Any,
    train: Sequence[Pair],
    val: Sequence[Pair],
    settings: FitSettings | None = None,
    *,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SoftPrompt:
    """Train a prompt; with `out`, save it and go on where a run was stopped.

    Args:
        model: A `TransformersModel` or a causal language model of transformers. Its weights do not
            change.
        train: Pairs that it learns from.
        val: Pairs that say when to stop; other prefixes than `train`.
        settings: How it is trained.
        out: Folder for the prompt, and for the state while it is trained.
        force: Let `val` hold prefixes of `train`.
        on_progress: Called with pairs done and pairs in all, were every epoch needed.

    Raises:
        InputError: Pairs of different lengths, foreign ids, or the same prefix on both sides.
        OverflowPolicyError: Prompt and pair are longer than the model's window.
        RunConflict: `out` holds a run with other settings, pairs or model.
        Unsupported: The model is behind an endpoint.
        BackendError: The device ran out of memory.
    """
    settings = settings or FitSettings()
    network = network_of(model)
    rows = network.get_input_embeddings().num_embeddings
    prefix, suffix = check_tokens([*train, *val], rows, suffixes=True)
    if not train or not val:
        raise InputError(f"{len(train)} pairs to train and {len(val)} to validate: give some.")
    if settings.tokens > rows:
        raise ConfigError(f"tokens must be at most the {rows} of the vocabulary.")
    if not force:
        check_apart({pair.key for pair in train}, val, "that validate")
    needed = settings.tokens + prefix + suffix
    check_room(range(needed), window_of(network), "error", what="Prompt, prefix and suffix")
    run = _Run(network, _tensors(train, network), _tensors(val, network), settings)
    name = str(getattr(model, "name", "") or network.config.name_or_path)
    keys = sorted(pair.key for pair in train)
    plan = {
        "settings": asdict(settings),
        "model": name,
        "train": keys,
        "val": sorted(pair.key for pair in val),
    }
    place = None if out is None else Path(out)
    with _frozen(network), enough_memory(name or "The model"):
        if place is not None:
            _resume(run, place, plan)
        while not run.ended:
            run.epoch(on_progress)
            if place is not None:
                _keep(run, place, plan)
    notes = {"settings": asdict(settings), "epochs": run.history}
    prompt = SoftPrompt(run.best.cpu(), name, frozenset(keys), notes)
    if place is not None:
        prompt.save(place)
    return prompt


class _Run:
    """A prompt in training."""

    def __init__(
        self,
        network: Any,
        train: tuple[Tensor, Tensor],
        val: tuple[Tensor, Tensor],
        settings: FitSettings,
    ) -> None:
        self.network, self.train, self.val, self.settings = network, train, val, settings
        with torch.no_grad():
            first = torch.arange(settings.tokens, device=network.device)
            start = network.get_input_embeddings()(first).float().clone()
        self.vectors = torch.nn.Parameter(start)
        self.best = start.clone()
        self.optimiser = torch.optim.AdamW(
            [self.vectors], lr=settings.lr, eps=1e-6, weight_decay=0.0
        )
        self.history: list[dict[str, Any]] = []
        self.steps_an_epoch = -(-len(train[0]) // settings.batch)

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or none got better for so many."""
        if len(self.history) >= self.settings.epochs:
            return True
        bests = [n for n, row in enumerate(self.history) if row["best"]]
        return bool(bests) and len(self.history) - 1 - bests[-1] >= self.settings.patience

    def epoch(self, on_progress: Callable[[int, int], None]) -> None:
        """One pass over the training pairs and one over the others."""
        settings, number = self.settings, len(self.history)
        draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        order = torch.randperm(len(self.train[0]), generator=draw)
        total = settings.epochs * len(order)
        learned = 0.0
        for step, chosen in enumerate(_parts(order, settings.batch)):
            rate = self.rate(number * self.steps_an_epoch + step)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.zero_grad(set_to_none=True)
            for part in _parts(chosen, settings.micro):
                losses = self._losses(self.train, part)
                weighted = losses.total * (len(part) / len(chosen))
                weighted.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                learned += float(losses.total.detach()) * len(part)
            self.optimiser.step()
            on_progress(number * len(order) + (step + 1) * settings.batch, total)
        row = {"epoch": number, "train": learned / len(order), **self.validate()}
        row["best"] = row["total"] < min((r["total"] for r in self.history), default=float("inf"))
        if row["best"]:
            self.best = self.vectors.detach().clone()
        self.history.append(row)

    def rate(self, step: int) -> float:
        """Linear up, then linear down to nothing."""
        total = self.settings.epochs * self.steps_an_epoch
        warm = min(self.settings.warmup, total // 3)
        if step < warm:
            return float(self.settings.lr * (step + 1) / warm)
        return float(self.settings.lr * (total - step) / max(1, total - warm))

    def validate(self) -> dict[str, float]:
        """Losses over the pairs that validate."""
        sums = {"total": 0.0, "mean": 0.0, "smooth": 0.0}
        count = len(self.val[0])
        with torch.no_grad():
            for part in _parts(torch.arange(count), self.settings.micro):
                losses = self._losses(self.val, part)
                for name in sums:
                    sums[name] += float(getattr(losses, name)) * len(part)
        return {name: value / count for name, value in sums.items()}

    def _losses(self, pairs: tuple[Tensor, Tensor], part: Tensor) -> Losses:
        where = part.to(pairs[0].device)
        tokens = suffix_losses(self.network, self.vectors, pairs[0][where], pairs[1][where])
        return smoothed(
            tokens,
            alpha=self.settings.alpha,
            top_losses=self.settings.top_losses,
            min_loss=self.settings.min_loss,
        )


def _parts(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _tensors(pairs: Sequence[Pair], network: Any) -> tuple[Tensor, Tensor]:
    sides = ([p.prefix for p in pairs], [p.suffix for p in pairs])
    prefixes, suffixes = (torch.tensor(side, device=network.device) for side in sides)
    return prefixes, suffixes


def window_of(network: Any) -> int | None:
    """Most tokens that the configuration says the model reads."""
    config = network.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


@contextmanager
def _frozen(network: Any) -> Iterator[None]:
    """No gradients for any weight, and no dropout, as long as this lasts."""
    wanted = [(weight, weight.requires_grad) for weight in network.parameters()]
    training = network.training
    network.eval()
    for weight, _ in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, had in wanted:
            weight.requires_grad_(had)
        network.train(training)


def _keep(run: _Run, folder: Path, plan: dict[str, Any]) -> None:
    """Put everything that the next epoch needs into one file."""
    from safetensors.torch import save

    from unspool.index._files import storage, write_atomic

    state = run.optimiser.state[run.vectors]
    tensors = {
        "vectors": run.vectors.detach(),
        "best": run.best,
        "exp_avg": state["exp_avg"],
        "exp_avg_sq": state["exp_avg_sq"],
        "step": state["step"].reshape(1),
    }
    notes = {"plan": json.dumps(plan, sort_keys=True), "history": json.dumps(run.history)}
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        data = save({k: v.cpu().contiguous() for k, v in tensors.items()}, notes)
        write_atomic(folder / _STATE, [data])


def _resume(run: _Run, folder: Path, plan: dict[str, Any]) -> None:
    """Go on from what a stopped run left, if it is of the same plan."""
    from safetensors import SafetensorError, safe_open

    path = folder / _STATE
    if not path.is_file():
        return
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = file.metadata()
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        known, history = json.loads(notes["plan"]), json.loads(notes["history"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{_STATE} in {folder.name} is not of this command. Choose another folder."
        ) from error
    changed = sorted(name for name in plan if known.get(name) != json.loads(json.dumps(plan[name])))
    if changed:
        raise RunConflict(
            f"The prompt in {folder.name} was begun with other {' and '.join(changed)}. Choose "
            f"another folder, or go on with what it was begun with."
        )
    device = run.vectors.device
    with torch.no_grad():
        run.vectors.copy_(found["vectors"])
    run.best = found["best"].to(device)
    run.history = history
    run.optimiser.state[run.vectors] = {
        "step": found["step"].reshape(()),
        "exp_avg": found["exp_avg"].to(device),
        "exp_avg_sq": found["exp_avg_sq"].to(device),
    }
