"""Tasks of long encoders: windows that lose nothing, training that learns and resumes, answers."""

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.tiny import encoder, tokenizer
from unspool.errors import ConfigError, InputError, OverflowPolicyError, RunConflict
from unspool.models.long_encoder import save
from unspool.models.long_encoder.tasks import (
    Answer,
    Example,
    FitSettings,
    TaskModel,
    evaluate,
    fit,
    predict,
)
from unspool.models.long_encoder.tasks.examples import split_words, tags_of, to_bytes
from unspool.models.long_encoder.tasks.windows import encode, reading_of

TOKENIZER = tokenizer()


def _encode(task, example, **changed):
    options = {"length": 16, "overlap": 4, "on_overflow": "window", "segments": True}
    return encode(task, example, TOKENIZER, **(options | changed))


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 70), length=st.integers(8, 30), overlap=st.integers(0, 40))
def test_windows_hold_every_token_and_each_is_decided_once(count, length, overlap):
    words = [random.Random(count).choice("abcdefg") for _ in range(count)]
    text = " ".join(words)
    found = _encode("classify", Example(id="x", text=text), length=length, overlap=overlap)
    plain = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    decided = [token for w in found.windows for token in range(*w.own)]
    assert decided == list(range(count))
    for window in found.windows:
        assert len(window.ids) <= length
        inner = window.ids[window.first : window.first + window.stop - window.start]
        assert inner == plain[window.start : window.stop]
        assert window.start <= window.own[0] <= window.own[1] <= window.stop
    assert found.dropped == 0
    assert reading_of([found]).tokens == count


def test_a_pair_is_laid_out_as_the_tokenizer_does_it():
    question, text = "what is red?", "the drug is blue."
    qa = _encode("qa", Example(id="x", text=text, second=question), length=64).windows[0]
    pair = TOKENIZER(question, text)
    assert qa.ids == pair["input_ids"]
    assert qa.types == pair["token_type_ids"]
    asked = len(TOKENIZER(question)["input_ids"])  # with [CLS] and [SEP]
    assert qa.is_global == [i < asked for i in range(len(qa.ids))]
    nli = _encode("nli", Example(id="x", text=text, second=question), length=64).windows[0]
    pair = TOKENIZER(text, question)
    assert nli.ids == pair["input_ids"]
    assert nli.types == pair["token_type_ids"]
    first = len(TOKENIZER(text)["input_ids"])
    assert nli.is_global == [i == 0 or i >= first for i in range(len(nli.ids))]
    alone = _encode("classify", Example(id="x", text=text), length=64).windows[0]
    assert alone.is_global == [i == 0 for i in range(len(alone.ids))]


def test_what_does_not_fit_is_refused_cut_and_counted_or_windowed():
    example = Example(id="note 7", text="a " * 30)
    with pytest.raises(OverflowPolicyError, match=r"note 7.*30 tokens long and at most 14"):
        _encode("classify", example, on_overflow="error")
    cut = _encode("classify", example, on_overflow="truncate")
    assert (len(cut.windows), cut.dropped) == (1, 16)
    assert reading_of([cut]).dropped_tokens == 16
    assert reading_of([cut]).tokens == 30
    with pytest.raises(InputError, match="leaves no room in 16"):
        _encode("qa", Example(id="x", text="a", second="b " * 20))
    with pytest.raises(InputError, match="has no tokens"):
        _encode("ner", Example(id="x", text="a b"))


def test_only_the_first_token_of_a_word_carries_its_tag():
    from unspool.models.long_encoder.tasks.fitting import _targets

    text = "the xyz pain"
    words = split_words(text)
    example = Example(id="x", text=text, words=words, labels=("O", "B-drug", "B-sign"))
    model = TaskModel(encoder(), TOKENIZER, "ner", ("O", "B-drug", "B-sign"))
    row = _targets(model, example, _encode("ner", example))[0]
    assert TOKENIZER.convert_ids_to_tokens(_encode("ner", example).windows[0].ids) == [
        "[CLS]",
        "the",
        "x",
        "##y",
        "##z",
        "pain",
        "[SEP]",
    ]
    assert row == [-100, 0, 1, -100, -100, 2, -100]


def test_bad_records_are_named():
    with pytest.raises(InputError, match="2 words and 1 tags"):
        Example(id="x", text="a b", words=((0, 1), (2, 3)), labels=("O",))
    with pytest.raises(InputError, match="'blue' is said to begin at character 0"):
        Example(id="x", text="red blue", answers=(Answer(0, "blue"),))
    with pytest.raises(InputError, match="share the word"):
        tags_of(((0, 4),), [(0, 2, "a"), (2, 4, "b")], "x")
    with pytest.raises(InputError, match="no word lies"):
        tags_of(((0, 4),), [(4, 5, "a")], "x")
    with pytest.raises(ConfigError, match="at least two labels"):
        TaskModel(encoder(), TOKENIZER, "classify", ("one",))


@given(text=st.text(max_size=30), data=st.data())
def test_byte_offsets_quote_what_character_offsets_do(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    [(a, b)] = to_bytes(text, [(start, end)])
    raw = text.encode("utf-8", "surrogatepass")
    assert raw[a:b].decode("utf-8", "surrogatepass") == text[start:end]


def _classified(count, seed, words=30):
    """Class by a word that stands anywhere among letters."""
    draw = random.Random(seed)
    out = []
    for number in range(count):
        label = draw.choice(["red", "blue"])
        letters = [draw.choice("abcdefgh") for _ in range(words)]
        letters[draw.randrange(words)] = label
        out.append(Example(id=str(number), text=" ".join(letters), labels=(label,)))
    return out


RECIPE = FitSettings(epochs=12, batch=8, learning_rate=5e-3, save_every=7)


@pytest.mark.parametrize("kind", ["longformer", pytest.param("bigbird", marks=pytest.mark.slow)])
def test_classes_are_learned_saved_and_read_over_windows(kind, tmp_path):
    fitted = fit(
        "classify", encoder(kind), TOKENIZER, _classified(48, 1), tmp_path / "run", RECIPE,
        device="cpu",
    )  # fmt: skip
    assert sum(fitted.losses[-6:]) < 0.5 * sum(fitted.losses[:6])
    test = _classified(30, 2)
    scores = evaluate(fitted.model, test, device="cpu")
    assert scores.figures["accuracy"] >= 0.9
    fitted.model.save(tmp_path / "model")
    again = TaskModel.load(tmp_path / "model")
    one, other = (predict(m, test, device="cpu") for m in (fitted.model, again))
    assert one == other
    apart = predict(again, test, length=20, overlap=4, device="cpu")
    assert apart.reading.windowed == 30
    assert apart.reading.windows == sum(p.windows for p in apart.predictions) == 60
    cut = predict(again, test, length=20, on_overflow="truncate", device="cpu")
    assert cut.reading.dropped_tokens == 30 * 12


def test_an_interrupted_run_ends_where_one_run_does(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=2)
    data = _classified(40, 1)
    whole = fit(
        "classify", encoder(dropout=0.1), TOKENIZER, data, tmp_path / "a", recipe, device="cpu"
    )

    def stop(step, steps, loss):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            "classify", encoder(dropout=0.1), TOKENIZER, data, tmp_path / "b", recipe,
            device="cpu", on_step=stop,
        )  # fmt: skip
    parts = fit(
        "classify", encoder(dropout=0.1), TOKENIZER, data, tmp_path / "b", recipe, device="cpu"
    )
    assert parts.resumed_at == 7
    assert parts.losses == pytest.approx(whole.losses[7:], abs=1e-5)
    done = fit(
        "classify", encoder(dropout=0.1), TOKENIZER, data, tmp_path / "b", recipe, device="cpu"
    )
    assert (done.resumed_at, done.losses) == (10, ())
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(done.model.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    with pytest.raises(RunConflict, match="other records"):
        fit(
            "classify", encoder(dropout=0.1), TOKENIZER, data[:-1], tmp_path / "b", recipe,
            device="cpu",
        )  # fmt: skip


@pytest.mark.slow
def test_several_classes_and_none(tmp_path):
    draw = random.Random(3)
    data = []
    for number in range(60):
        there = [w for w in ("red", "blue") if draw.random() < 0.5]
        letters = [draw.choice("abcdefgh") for _ in range(10)] + there
        draw.shuffle(letters)
        data.append(Example(id=str(number), text=" ".join(letters), labels=tuple(there)))
    fitted = fit("classify", encoder(), TOKENIZER, data, tmp_path, RECIPE, device="cpu")
    assert fitted.model.several
    scores = evaluate(fitted.model, data, device="cpu")
    assert scores.figures["micro f1"] > 0.9
    assert scores.by_label["red"]["auc"] > 0.95


def test_tags_are_learned_and_merged_over_windows(tmp_path):
    def records(count, seed):
        draw = random.Random(seed)
        out = []
        for number in range(count):
            words = [draw.choice(["a", "b", "cé", "pain", "drug", "xy"]) for _ in range(25)]
            text = " ".join(words)
            tags = tuple({"pain": "B-sign", "drug": "B-drug"}.get(w, "O") for w in words)
            spans, at = [], 0
            for word in words:
                spans.append((at, at + len(word)))
                at += len(word) + 1
            out.append(Example(id=str(number), text=text, words=tuple(spans), labels=tags))
        return out

    recipe = dataclasses.replace(RECIPE, epochs=4)
    fitted = fit("ner", encoder(), TOKENIZER, records(40, 1), tmp_path, recipe, device="cpu")
    test = records(10, 2)
    scores = evaluate(fitted.model, test, length=20, overlap=6, device="cpu")
    assert scores.reading.windowed == 10
    assert scores.figures["f1"] > 0.95
    for example, said in zip(
        test, predict(fitted.model, test, device="cpu").predictions, strict=True
    ):
        raw = example.text.encode()
        for entity in said.entities:
            span = entity.span
            assert raw[span.start : span.end].decode() == span.text


@pytest.mark.slow
def test_answers_are_found_in_windows_or_said_to_be_missing(tmp_path):
    """The answer is the letter after "name is"; without it there is none."""

    def records(count, seed, words=24):
        draw = random.Random(seed)
        out = []
        for number in range(count):
            letters = [draw.choice("abcdefgh") for _ in range(words)]
            answers = ()
            if draw.random() < 0.7:
                at = draw.randrange(words - 1)
                letters[at : at + 2] = ["name", draw.choice("xyz")]
                start = len(" ".join(letters[: at + 1])) + 1
                answers = (Answer(start, letters[at + 1]),)
            text = " ".join(letters)
            out.append(Example(id=str(number), text=text, second="what name", answers=answers))
        return out

    recipe = dataclasses.replace(RECIPE, epochs=14)
    fitted = fit("qa", encoder(), TOKENIZER, records(80, 1), tmp_path, recipe, device="cpu")
    assert fitted.model.null
    assert fitted.unreachable == 0
    test = records(30, 2)
    whole = evaluate(fitted.model, test, device="cpu")
    assert whole.figures["exact"] >= 0.85
    apart = evaluate(fitted.model, test, length=20, overlap=6, device="cpu")
    assert apart.reading.windowed == 30
    assert apart.figures["exact"] >= 0.8
    assert set(whole.figures) >= {"exact, with an answer", "exact, without one"}


def test_an_encoder_without_a_task_is_not_one(tmp_path):
    save(encoder(), tmp_path / "plain", tokenizer=TOKENIZER)
    with pytest.raises(InputError, match="holds no task"):
        TaskModel.load(tmp_path / "plain")
    with pytest.raises(InputError, match="has no label"):
        fit("nli", encoder(), TOKENIZER, [Example(id="x", text="a", second="b")], tmp_path)
    with pytest.raises(ConfigError, match="between 8 and the encoder's 64"):
        predict(
            TaskModel(encoder(), TOKENIZER, "qa"), [Example(id="x", text="a", second="b")],
            length=65,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("ner", "LongformerForTokenClassification"),
        ("qa", "LongformerForQuestionAnswering"),
        ("classify", "LongformerForSequenceClassification"),
    ],
)
def test_transformers_gives_the_same_scores(task, name, tmp_path):
    import transformers

    labels = () if task == "qa" else ("O", "B-x", "B-y")
    model = TaskModel(encoder(), TOKENIZER, task, labels).eval()
    model.save(tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path).eval()
    ids = torch.randint(5, 40, (2, 24))
    valid, is_global = torch.ones_like(ids), torch.zeros_like(ids)
    is_global[:, :3] = 1
    with torch.no_grad():
        ours = model(ids, valid, is_global, torch.zeros_like(ids))
        other = theirs(input_ids=ids, attention_mask=valid, global_attention_mask=is_global)
    wanted = (
        torch.stack([other.start_logits, other.end_logits], -1) if task == "qa" else other.logits
    )
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
