"""Two answers before a judge: which is nearer to the reference, asked in both orders.

What: question, reference and two answers go to a judging model, then again with the answers
exchanged; `[[A]]`, `[[B]]` and `[[C]]` (tie) are verdicts, anything else is an error and dropped.
Win rate = (wins + ties / 2) / valid verdicts, both orders pooled.
Source: An et al. (2023), section 4.2 and appendix; `llm_eval.py` of the release. Instruction in our
own words.
Differs from the released code: pairs are matched by question and reference without asking for equal
numbers, and what has no partner is reported; verdicts already paid for are read from `out`; the
report says how often the first place and the longer answer won, so that a judge who looks at
nothing else is seen.
Cost: two calls a pair.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from unspool.errors import InputError
from unspool.evaluation import _io
from unspool.evaluation.intervals import wilson
from unspool.evaluation.tasks._release import prediction_lines
from unspool.types import ChatMessage, LanguageModel

Verdict: TypeAlias = Literal["A", "B", "tie", "error"]
_MARKS: tuple[tuple[str, Verdict], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))
_MAX_TOKENS = 2048
_SYSTEM = (
    "You are a judge of two answers to a question about a long document. You get the question, a "
    "reference answer written by a person, and the answers of assistants A and B. Compare each "
    "with the reference. Whatever the reference does not say earns nothing, however good it "
    "sounds; errors of fact by the reference count most. Neither the order of the answers, nor "
    "their length, nor a name may matter. Explain briefly, then give the verdict in exactly this "
    "form: [[A]] if A is better, [[B]] if B is better, [[C]] if they are equally good."
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question."""

    question: str
    reference: str
    answer: str
    opponent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """Verdicts of one comparison; shares are in 0-1, None where nothing can be said."""

    pairs: int
    unmatched: int
    """Answers of either side without a partner."""
    wins: int
    losses: int
    ties: int
    errors: int
    """Verdicts that could not be read."""
    win_rate: float | None
    first_place: float | None
    """Share of decided verdicts for the answer that stood first; 0.5 without a bias of place."""
    longer_wins: float | None
    """Share of decided verdicts, answers of unequal length, for the one with more words."""
    longer_interval: tuple[float, float] | None
    """Its 95% interval."""

    @property
    def length_biased(self) -> bool:
        """Whether the interval of `longer_wins` lies above a half: lengths alone may decide.

        Better answers can be longer; compare with a judge that is trusted, or with people.
        """
        return self.longer_interval is not None and self.longer_interval[0] > 0.5

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "length_biased": self.length_biased}


def read_pairs(predictions: str | Path, opponent: str | Path) -> tuple[list[Pair], int]:
    """The pairs of two prediction files of the release, and how many lines have no partner.

    A side's answers are in its first field with `_pred` in its name, the opponent's in its last.
    """
    ours, theirs = list(_rows(Path(predictions))), list(_rows(Path(opponent)))
    key = _key(ours, Path(predictions), last=False)
    other = _key(theirs, Path(opponent), last=True)
    by_question = {str(row["query"]) + str(row["gt"]): str(row[other]) for row in theirs}
    pairs = []
    for row in ours:
        found = by_question.get(str(row["query"]) + str(row["gt"]))
        if found is not None:
            pairs.append(Pair(str(row["query"]), str(row["gt"]), str(row[key]), found))
    return pairs, len(ours) + len(theirs) - 2 * len(pairs)


def judge(
    pairs: Iterable[Pair],
    model: LanguageModel,
    *,
    swap: bool = True,
    out: str | Path | None = None,
    unmatched: int = 0,
) -> JudgeReport:
    """Ask a model for the better answer of each pair.

    Args:
        pairs: From `read_pairs`, or made.
        model: The judge; asked at temperature 0.
        swap: Ask in both orders.
        out: A file of verdicts, appended to; what it holds is not asked again.
        unmatched: Goes into the report.

    Raises:
        InputError: There is no pair.
    """
    asked = [
        (pair, exchanged) for pair in pairs for exchanged in ((False, True) if swap else (False,))
    ]
    if not asked:
        raise InputError("There is nothing to judge: no question is in both files.")
    verdicts: list[Verdict] = []
    with contextlib.ExitStack() as stack:
        log = _io.Appender(Path(out)) if out is not None else None
        known: dict[str, Verdict] = {}
        if log is not None:
            stack.callback(log.close)
            known = {row["key"]: row["verdict"] for row in log.records}
        for pair, exchanged in asked:
            messages = prompt(pair, exchanged=exchanged)
            key = _digest(model.name, messages)
            if key not in known:
                [found] = model.generate([messages], max_tokens=_MAX_TOKENS)
                known[key] = read_verdict(found.text)
                if log is not None:
                    log.append({"key": key, "verdict": known[key], "text": found.text})
            verdicts.append(known[key])
    return report(asked, verdicts, unmatched=unmatched)


def prompt(pair: Pair, *, exchanged: bool = False) -> list[ChatMessage]:
    """The messages that ask about a pair; `exchanged` puts the opponent first."""
    first, second = (pair.opponent, pair.answer) if exchanged else (pair.answer, pair.opponent)
    text = (
        f"[Question]\n{pair.question}\n\n[Reference answer]\n{pair.reference}\n[End of reference]"
        f"\n\n[Answer of A]\n{first}\n[End of A]\n\n[Answer of B]\n{second}\n[End of B]"
    )
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]


def read_verdict(text: str) -> Verdict:
    """The verdict that a judgement holds; A before B before tie where it holds several."""
    return next((verdict for mark, verdict in _MARKS if mark in text), "error")


def report(
    asked: Sequence[tuple[Pair, bool]], verdicts: Sequence[Verdict], *, unmatched: int = 0
) -> JudgeReport:
    """Counts and shares of verdicts; each of `asked` is a pair and whether it was exchanged."""
    wins = losses = ties = errors = first = longer = unequal = 0
    for (pair, exchanged), verdict in zip(asked, verdicts, strict=True):
        if verdict == "error":
            errors += 1
            continue
        if verdict == "tie":
            ties += 1
            continue
        first += verdict == "A"
        ours = (verdict == "A") != exchanged
        wins += ours
        losses += not ours
        more = len(pair.answer.split()) - len(pair.opponent.split())
        if more:
            unequal += 1
            longer += (more > 0) == ours
    decided, valid = wins + losses, wins + losses + ties
    return JudgeReport(
        pairs=len({id(pair) for pair, _ in asked}),
        unmatched=unmatched,
        wins=wins,
        losses=losses,
        ties=ties,
        errors=errors,
        win_rate=(0.5 * ties + wins) / valid if valid else None,
        first_place=first / decided if decided else None,
        longer_wins=longer / unequal if unequal else None,
        longer_interval=wilson(longer, unequal) if unequal else None,
    )


def _rows(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = [record for _, record in prediction_lines(path)]
    kinds = {row.get("evaluation") for row in rows}
    if kinds & {"rouge", "f1"}:
        rows = [row for row in rows if row.get("evaluation") in ("rouge", "f1")]
    for number, row in enumerate(rows, 1):
        if "query" not in row or "gt" not in row:
            raise InputError(f"Prediction {number} of {path.name} lacks 'query' or 'gt'.")
    return rows


def _key(rows: Sequence[Mapping[str, Any]], path: Path, *, last: bool) -> str:
    keys = [name for name in rows[0] if "_pred" in name] if rows else []
    if not keys:
        raise InputError(f"{path.name} has no field that ends in '_pred'.")
    return keys[-1 if last else 0]


def _digest(name: str, messages: Sequence[ChatMessage]) -> str:
    text = "\0".join([name, *(message["content"] for message in messages)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
