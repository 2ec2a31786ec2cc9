"""`unspool encoder` from a short encoder to figures, and what it says of wrong input."""

import json
import random

import pytest
import torch

from tests.models.tiny import tokenizer
from unspool.cli import main as cli


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A short BERT, tagged records and a note."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, pad_token_id=0, initializer_range=0.15,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder / "short")
    words.save_pretrained(folder / "short")
    draw = random.Random(0)
    lines = []
    for _ in range(24):
        lines.append("-DOCSTART- O\n")
        for word in draw.choices(["a", "é", "pain", "drug"], k=20):
            lines.append(f"{word} {'O' if len(word) == 1 else f'B-{word}'}")
    (folder / "train.conll").write_text("\n".join(lines) + "\n")
    (folder / "note.txt").write_text("é a drug é pain")
    run(["encoder", "convert", folder / "short", "--out", folder / "long", "--max-length", 64,
         "--window", 8], 0)  # fmt: skip
    return folder


def run(tokens, code, capsys=None):
    assert cli.run([str(token) for token in tokens]) == code
    return capsys.readouterr() if capsys else None


def test_from_a_short_encoder_to_tags(room, tmp_path, capsys):
    adapted, tagger = tmp_path / "adapted", tmp_path / "tagger"
    adapt = ["encoder", "adapt", room / "long", room / "note.txt", "--out", adapted, "--steps", 3,
             "--length", 32, "--json"]  # fmt: skip
    first = json.loads(run(adapt, 0, capsys).out)
    assert (first["steps"], first["resumed_at"]) == (3, 0)
    assert json.loads(run(adapt, 0, capsys).out)["resumed_at"] == 3
    assert "other settings" in run([*adapt, "--seed", 1], 2, capsys).err
    fit = ["encoder", "fit", "ner", adapted, room / "train.conll", "--out", tagger, "--epochs", 8,
           "--lr", "0.01", "--held", room / "train.conll"]  # fmt: skip
    shown = run(fit, 0, capsys)
    assert "24 records; 480 tokens" in shown.err
    assert "recall" in shown.out
    assert json.loads((tagger / "run.json").read_bytes())["result"]["task"] == "ner"
    assert "had been done before" in run(fit, 0, capsys).err

    found = json.loads(
        run(["encoder", "predict", tagger, room / "note.txt", "--json"], 0, capsys).out
    )
    spans = [(e["label"], e["start"], e["text"]) for e in found["entities"]]
    assert spans == [("drug", 5, "drug"), ("pain", 13, "pain")]
    assert (
        "drug 'drug' (byte 5)"
        in run(["encoder", "predict", tagger, room / "note.txt"], 0, capsys).out
    )
    scores = json.loads(
        run(["encoder", "evaluate", tagger, room / "train.conll", "--json"], 0, capsys).out
    )
    assert scores["figures"]["f1"] > 0.9

    tags = tmp_path / "tags"
    write = ["encoder", "predict", tagger, room / "train.conll", "--out", tags, "--length", 16]
    assert "24 records read in several windows" in run(write, 0, capsys).err
    whole = (tags / "predictions.jsonl").read_bytes()
    (tags / "predictions.jsonl").write_bytes(whole[: len(whole) // 2])  # as after a kill
    assert "had been done before" in run(write, 0, capsys).err
    assert (tags / "predictions.jsonl").read_bytes() == whole
    assert "other options" in run([*write[:-1], 20], 2, capsys).err


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["convert", "{}/short", "--out", "{}/long"], "not an empty folder"),
        (["convert", "{}/short", "--out", "{}/new", "--window", "7"], "window must be even"),
        (["convert", "{}/none", "--out", "{}/new"], "neither a folder"),
        (["convert", "{}/long", "--out", "{}/new"], "is 'longformer'"),
        (["adapt", "{}/short", "{}/note.txt", "--out", "{}/new"], "encoder convert"),
        (["adapt", "{}/long", "--out", "{}/new"], "which texts"),
        (["adapt", "{}/long", "{}/none", "--out", "{}/new"], "no file or folder"),
        (["adapt", "{}/long", "{}/note.txt", "--out", "{}/long"], "must not be the folder"),
        (["fit", "ner", "{}/long", "{}/none.conll", "--out", "{}/new"], "no file or folder"),
        (["fit", "ner", "{}/long", "{}/note.txt", "--out", "{}/new"], "has no label"),
        (["fit", "tags", "{}/long", "{}/note.txt", "--out", "{}/new"], "Choose from"),
        (
            ["fit", "ner", "{}/long", "{}/train.conll", "--out", "{}/new", "--length", "65"],
            "between 8 and the encoder's 64",
        ),
        (
            ["fit", "qa", "{}/long", "{}/train.conll", "--out", "{}/new", "--label-fields", "x"],
            "is for classify",
        ),
        (["predict", "{}/none", "{}/note.txt"], "There is no model"),
        (["evaluate", "{}/long", "{}/note.txt"], "holds no task"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_left(tokens, said, room, capsys):
    shown = run(["encoder", *(token.format(room) for token in tokens)], 2, capsys)
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert not (room / "new").exists()
