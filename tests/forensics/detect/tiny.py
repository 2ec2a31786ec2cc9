"""A tiny encoder and texts that it can tell apart, made here: nothing is fetched."""

from __future__ import annotations

import random
from pathlib import Path

from unspool.forensics.detect import Example, TrainSettings

HUMAN = ["river", "stone", "bread", "lamp", "green", "walk"]
MACHINE = ["delve", "tapestry", "robust", "realm", "pivotal", "underscore"]
BOTH = ["the", "of", "and", "to", "in", "it", "was", "with"]
ROOM = 62
"""Tokens that the encoder reads without the two special ones."""


def make_encoder(folder: Path) -> Path:
    """One layer of BERT with random weights and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", *HUMAN, *MACHINE, *BOTH]
    vocabulary = {word: i for i, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=ROOM + 2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1,
                       num_attention_heads=2, intermediate_size=32,
                       max_position_embeddings=ROOM + 2)
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(draw: random.Random, label: int, words: int = 6) -> str:
    """Mostly words that both use; each with the chance 1/3 of one that tells."""
    own = MACHINE if label else HUMAN
    out = [draw.choice(own if draw.random() < 1 / 3 else BOTH) for _ in range(words)]
    return " ".join(out).capitalize() + "."


def texts(count: int, seed: int, sentences: tuple[int, int] = (1, 6)) -> list[Example]:
    """As many of either class."""
    draw = random.Random(seed)
    return [
        Example(
            " ".join(sentence(draw, label) for _ in range(draw.randint(*sentences))),
            label,
            f"{seed}-{i}",
            "robot" if label else "people",
        )
        for i in range(count)
        for label in (0, 1)
    ]


def recipe(encoder: Path, **changes: object) -> TrainSettings:
    """Settings under which the tiny encoder learns in a second."""
    given: dict[str, object] = {
        "encoder": str(encoder), "lr": 1e-2, "epochs": 3, "batch": 16, "max_length": ROOM + 2,
        "len_threshold": 24, "target_fpr": 0.05, **changes,
    }  # fmt: skip
    return TrainSettings(**given)  # type: ignore[arg-type]  # the names are those of the settings
