"""A served model whose long prompts a prompt method shortens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reading.tiny import byte_tokenizer, tiny
from unspool.backends.reducing import ReducingModel, parts
from unspool.backends.transformers import TransformersModel
from unspool.extension import extend

FACT = "The gate code is 4711. "
LONG = "Grass grows and rain falls on it. " * 30 + FACT + "Nothing else happens here. " * 20
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
SPECS = ("xl3m:segment=100,overlap=20,keep=2", "infini-retri:chunk=150,top_k=12,max_kept=150")


def tokenizer() -> Any:
    import copy

    made = copy.deepcopy(byte_tokenizer())
    made.chat_template = TEMPLATE
    return made


def opened(spec: str) -> ReducingModel:
    speaks = tokenizer()
    extension = extend(tiny(), spec, tokenizer=speaks)
    return ReducingModel(tiny(), speaks, name="tiny", extension=extension)


def sent(model: ReducingModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model is given to continue, as text, from now on."""
    seen: list[str] = []
    real = TransformersModel._prefill

    def prefill(self: TransformersModel, ids: list[int]) -> Any:
        seen.append(str(tokenizer().decode(ids)))
        return real(self, ids)

    monkeypatch.setattr(TransformersModel, "_prefill", prefill)
    return seen


@pytest.mark.parametrize("spec", SPECS)
def test_long_chats_are_shortened_inside_the_text_only(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(spec)
    try:
        seen = sent(model, monkeypatch)
        chat = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": LONG},
            {"role": "assistant", "content": "Read."},
            {"role": "user", "content": "What is the gate code?"},
        ]
        (found,) = model.generate([chat], max_tokens=4)
        pieces = list(model.generate_stream(chat, max_tokens=4))
        (score,) = model.logprobs(chat, ["4711"])
    finally:
        model.extension.remove()  # type: ignore[union-attr]  # it has one
    assert len(set(seen)) == 1
    head, tail = "[system]Be brief.[/system][user]", "[/user][assistant]Read.[/assistant][user]What"
    assert seen[0].startswith(head)
    assert tail in seen[0]
    assert seen[0].endswith("gate code?[/user][assistant]")
    kept = seen[0].removeprefix(head).partition(tail)[0]
    assert 100 <= len(kept) <= 220
    whole = sum(len(m["content"]) for m in chat) + len(seen[0]) - len(kept)
    usage = found.usage
    assert usage.dropped_tokens == len(LONG) - len(kept)
    assert usage.input_tokens == len(seen[0]) + usage.dropped_tokens
    assert usage.read_tokens > len(LONG) < whole
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.dropped_tokens == usage.dropped_tokens
    assert "".join(piece.text for piece in pieces) == found.text
    assert score.usage.dropped_tokens == usage.dropped_tokens


def test_what_fits_is_sent_as_it_stands() -> None:
    model = opened(SPECS[0])
    try:
        (found,) = model.generate(["A short prompt."], max_tokens=5)
    finally:
        model.extension.remove()  # type: ignore[union-attr]  # it has one
    (stock,) = TransformersModel(tiny(), tokenizer(), name="stock").generate(
        ["A short prompt."], max_tokens=5
    )
    assert found.text == stock.text
    assert found.usage.read_tokens == stock.usage.read_tokens == 15


def test_a_question_at_the_end_of_the_text_stays() -> None:
    speaks = tokenizer()
    chat = [{"role": "user", "content": f"{LONG}What is the gate code?"}]
    ids = speaks.apply_chat_template(chat, add_generation_prompt=True).input_ids
    assert parts(speaks, chat, ids) == (len("[user]"), len("[/user][assistant]"), False)
    assert parts(speaks, LONG, speaks(LONG).input_ids) == (0, 0, False)


@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_is_given_up_while_it_is_being_shortened(spec: str) -> None:
    from unspool.backends.stream import Cancelled

    model = opened(spec)
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 4

    try:
        with pytest.raises(Cancelled):
            list(model.generate_stream(LONG, max_tokens=4, cancelled=cancelled))
    finally:
        model.extension.remove()  # type: ignore[union-attr]  # it has one
    assert len(asked) == 5
