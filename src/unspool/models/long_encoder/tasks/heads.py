"""A long encoder with the head of a task.

What: scores of tags at each token, of beginnings and ends of answers at each token, or of classes
at the first token; kept in one folder with the encoder.
Source: the heads of RoBERTa (classes: dense, tanh, projection) and BERT (tags, answers: one
projection), as transformers' Longformer has them.
Differs from transformers: a BigBird has the same heads (its own head for answers is another), and
a record's classes may come from several windows.
Cost: one projection beside the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.checkpoint import fill, folder_of, read_config, read_weights, save
from unspool.models.long_encoder.config import LongEncoderConfig
from unspool.models.long_encoder.model import LongEncoder
from unspool.models.long_encoder.tasks.examples import TaskName, check_task

if TYPE_CHECKING:
    from unspool.models.long_encoder.tasks.windows import Window

_FIELD = "unspool_task"
_CLASSES = {"ner": "ForTokenClassification", "qa": "ForQuestionAnswering"}
_NAMES = ("classifier.", "qa_outputs.")


class TaskModel(nn.Module):
    """An encoder and the head of one task."""

    def __init__(
        self,
        encoder: LongEncoder,
        tokenizer: Any,
        task: TaskName,
        labels: tuple[str, ...] = (),
        *,
        several: bool = False,
        null: bool = False,
    ) -> None:
        """Put a fresh head on an encoder.

        Args:
            encoder: Is used as it is, not copied.
            tokenizer: Its own.
            task: ner, qa, classify or nli.
            labels: Tags or classes; qa has none.
            several: classify: a text may have any number of classes.
            null: qa: a text may have no answer.
        """
        super().__init__()
        if task != "qa" and len(labels) < (1 if several else 2):
            found = ", ".join(labels) or "none"
            raise ConfigError(f"{task} needs at least two labels, got {found}.")
        self.encoder, self.tokenizer, self.task, self.labels = encoder, tokenizer, task, labels
        self.several, self.null = several, null
        width = encoder.config.hidden_size
        heads: dict[str, nn.Module]
        if task == "qa":
            heads = {"qa_outputs": nn.Linear(width, 2)}
        elif task == "ner":
            heads = {"classifier": nn.Linear(width, len(labels))}
        else:
            parts = {"dense": nn.Linear(width, width), "out_proj": nn.Linear(width, len(labels))}
            heads = {"classifier": nn.ModuleDict(parts)}
        self.heads = nn.ModuleDict(heads)
        for module in self.heads.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=encoder.config.initializer_range)
                nn.init.zeros_(module.bias)

    @property
    def segments(self) -> bool:
        """Whether the second part of a row has token type 1."""
        return self.encoder.config.type_vocab_size > 1

    def forward(
        self, ids: Tensor, valid: Tensor, is_global: Tensor, types: Tensor | None = None
    ) -> Tensor:
        """Scores of rows: [B, T, tags], [B, T, 2] of beginning and end, or [B, classes].

        Args:
            ids: [B, T].
            valid: [B, T], 0 is padding.
            is_global: [B, T]; a BigBird has global blocks in its place.
            types: [B, T] segments.
        """
        asked = is_global if self.encoder.config.kind == "longformer" else None
        x = self.encoder(ids, valid, asked, types).last_hidden_state
        share = float(self.encoder.config.hidden_dropout_prob)
        if self.task in ("qa", "ner"):
            name = "qa_outputs" if self.task == "qa" else "classifier"
            out: Tensor = self.heads[name](F.dropout(x, share, self.training))
            return out
        classifier = self.heads["classifier"]
        assert isinstance(classifier, nn.ModuleDict)
        inner = torch.tanh(classifier["dense"](F.dropout(x[:, 0], share, self.training)))
        scores: Tensor = classifier["out_proj"](F.dropout(inner, share, self.training))
        return scores

    def scores_of(self, windows: list[Window], device: str | torch.device) -> Tensor:
        """Scores of windows as one batch, padded behind."""
        most = max(len(window.ids) for window in windows)
        pad = self.encoder.config.pad_token_id

        def rows(values: list[list[int]], filler: int) -> Tensor:
            padded = [row + [filler] * (most - len(row)) for row in values]
            return torch.tensor(padded, device=device)

        out: Tensor = self(
            rows([w.ids for w in windows], pad),
            rows([[1] * len(w.ids) for w in windows], 0),
            rows([[int(g) for g in w.is_global] for w in windows], 0),
            rows([w.types for w in windows], 0),
        )
        return out

    def save(self, folder: Path) -> Path:
        """Write encoder, head and tokenizer where `load` finds them."""
        head = {n.removeprefix("heads."): v for n, v in self.state_dict().items() if "heads." in n}
        facts: dict[str, Any] = {
            _FIELD: {
                "task": self.task,
                "labels": list(self.labels),
                "several": self.several,
                "null": self.null,
            }
        }
        if self.task != "qa":
            facts["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
            facts["label2id"] = {label: i for i, label in enumerate(self.labels)}
        if self.encoder.config.kind == "longformer":
            name = _CLASSES.get(self.task, "ForSequenceClassification")
            facts["architectures"] = [f"Longformer{name}"]
        return save(self.encoder, folder, tokenizer=self.tokenizer, head=head, facts=facts)

    @classmethod
    def load(cls, name: str | Path) -> TaskModel:
        """What `save` wrote.

        Raises:
            PathNotFound: There is no such folder.
            InputError: It holds an encoder without a task, or damaged files.
        """
        folder = folder_of(name)
        config = read_config(folder)
        facts = config.get(_FIELD)
        if not isinstance(facts, dict):
            raise InputError(
                f"{folder} holds no task. `unspool encoder fit TASK {folder} DATA --out DIR` "
                "trains one."
            )
        weights = read_weights(folder)
        encoder = fill(LongEncoder(LongEncoderConfig.from_hf(config)), weights, str(folder)).model
        try:
            model = cls(
                encoder,
                read_tokenizer(folder),
                check_task(facts["task"]),
                tuple(facts["labels"]),
                several=bool(facts["several"]),
                null=bool(facts["null"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / 'config.json'}: the task is damaged: {error}.") from error
        head = {f"heads.{n}": value for n, value in weights.items() if n.startswith(_NAMES)}
        wanted = {n: v.shape for n, v in model.state_dict().items() if n.startswith("heads.")}
        if {n: value.shape for n, value in head.items()} != wanted:
            raise InputError(f"The weights in {folder} do not fit the head of {model.task}.")
        model.load_state_dict(head, strict=False)
        return model.eval()


def read_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        InputError: It has none.
    """
    from unspool._optional import require

    transformers = require("transformers", extra="read", purpose="reading a tokenizer")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of many kinds, by what is missing
        raise InputError(f"{folder} holds no tokenizer that can be read: {error}") from error
