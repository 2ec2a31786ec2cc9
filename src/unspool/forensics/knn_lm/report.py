"""What an examination found, for programs and for people: JSON, a verdict in words, and a page."""

from __future__ import annotations

from typing import Any

from unspool.forensics.knn_lm.analyse import Evaluation, Generation
from unspool.forensics.knn_lm.plot import Line, curves
from unspool.forensics.knn_lm.tokens import Group, TokenSplit
from unspool.forensics.page import document, percent, section, table, text

_CONTAMINATED = 0.01
NAMES = {"human": "human text", "lm": "the model alone", "mix": "the mixture"}


def to_json(evaluation: Evaluation, generation: Generation | None) -> dict[str, Any]:
    """One object with all figures; the keys of an evaluation are at the top."""
    found = evaluation.to_json()
    if generation is not None:
        mixed = generation.drift["mix"]
        found["slope_H_knn"], found["slope_H_lm"] = mixed.slope_knn, mixed.slope_lm
        found["mauve"] = {arm: list(values) for arm, values in generation.mauve.items()}
        found["generation"] = generation.to_json()
    return found


def verdict(evaluation: Evaluation, generation: Generation | None) -> list[str]:
    """What was found, in sentences, the most important first."""
    split = evaluation.split
    drop, low, high = split.drop
    moved = "falls" if drop > 0 else "rises"
    said = [
        f"Perplexity {moved} from {split.ppl_lm:.2f} to {split.ppl_mix:.2f} ({percent(abs(drop))}; "
        f"the interval of the drop is {percent(low)} to {percent(high)}), while "
        f"{percent(split.share_hurt)} of the tokens become less likely and "
        f"{percent(split.share_helped)} more likely."
    ]
    if split.share_helped:
        said.append(
            f"The tenth of the tokens that gains most holds {percent(split.top_decile_share)} of "
            f"all that is won."
        )
    if evaluation.shared is not None and evaluation.shared > _CONTAMINATED:
        said.append(
            f"Do not trust this gain: {percent(evaluation.shared)} of the tokens stand in runs of "
            f"32 that the datastore holds word for word."
        )
    if generation is None:
        return said
    mixed = generation.drift["mix"]
    gap, low, high = mixed.difference
    faster = "faster than" if low > 0 else "slower than" if high < 0 else "no faster than"
    said.append(
        f"Along the mixture's own texts the entropy of what is retrieved rises {faster} the "
        f"model's ({gap:+.3f} nats per 100 tokens, interval {low:+.3f} to {high:+.3f})."
    )
    if generation.mauve_gap is not None and generation.mauve_spread is not None:
        inside = abs(generation.mauve_gap) <= generation.mauve_spread
        said.append(
            f"MAUVE differs by {generation.mauve_gap:+.3f}, "
            f"{'within' if inside else 'more than'} the spread of {generation.mauve_spread:.3f} "
            f"between seeds" + (": no gain in generation." if inside else ".")
        )
    else:
        said.append("MAUVE needs at least 20 prefixes and was left out.")
    return said


def page(evaluation: Evaluation, generation: Generation | None) -> bytes:
    """One HTML page without scripts."""
    split, mixture = evaluation.split, evaluation.mixture
    lam = f"λ {mixture.lam:g}" if not mixture.lams else f"λ in {len(mixture.lams)} steps"
    lead = text(
        f"{evaluation.settings['model'] or 'A model'}, {split.tokens:,} tokens of "
        f"{evaluation.settings['documents']:,} documents; k {mixture.k}, {lam}, temperature "
        f"{mixture.temperature:g}."
    )
    body = section("Verdict", "".join(f"<p>{text(s)}</p>" for s in verdict(evaluation, generation)))
    body += section("Tokens helped and hurt", _split(split))
    body += section("Where the gains sit", _groups(split))
    body += section("By weight", _weights(split))
    if generation is not None:
        body += section("Entropy along a text", _drift(generation))
        body += section("Generated texts", _quality(generation))
    return document("Does the datastore help?", lead, body)


def _split(split: TokenSplit) -> str:
    rows = [
        ("all", "100.0%", *_pair((split.ppl_lm, split.ppl_mix)), ""),
        (
            "hurt",
            percent(split.share_hurt),
            *_pair(split.ppl_hurt),
            f"{split.mean_delta_hurt:+.3f}",
        ),
        (
            "helped",
            percent(split.share_helped),
            *_pair(split.ppl_helped),
            f"{split.mean_delta_helped:+.3f}",
        ),
    ]
    steps = [i / (len(split.contribution) - 1) * 100 for i in range(len(split.contribution))]
    return (
        table(["tokens", "share", "perplexity, model", "mixture", "mean gain (nats)"], rows)
        + '<p class="note">Gains added up, from the token that wins most to the one that loses '
        "most; the right end is the mean gain.</p>"
        + curves(
            [Line("sum of gains", steps, split.contribution)],
            "tokens, most helped first (%)",
            "nats a token",
        )
    )


def _pair(pair: tuple[float, float]) -> tuple[str, str]:
    return f"{pair[0]:.2f}", f"{pair[1]:.2f}"


def _groups(split: TokenSplit) -> str:
    parts = (
        ("times in the datastore", split.by_frequency),
        ("kind of token", split.by_kind),
        ("place in the document", split.by_position),
    )
    return "<br>".join(_group_table(title, groups) for title, groups in parts if groups)


def _group_table(title: str, groups: tuple[Group, ...]) -> str:
    return table(
        [title, "tokens", "hurt", "mean gain (nats)", "adds to the mean"],
        [
            (text(g.name), f"{g.tokens:,}", percent(g.hurt), f"{g.gain:+.3f}", f"{g.total:+.4f}")
            for g in groups
        ],
    )


def _weights(split: TokenSplit) -> str:
    rows = [(f"{row['lam']:g}", f"{row['perplexity']:.2f}") for row in split.by_weight]
    return (
        table(["λ", "perplexity"], rows)
        + '<p class="note">Which tokens are hurt does not hang on the weight: those that p_kNN '
        "finds less likely than the model does.</p>"
    )


def _drift(found: Generation) -> str:
    rows = [
        (
            text(NAMES[name]),
            f"{d.slope_knn:+.3f}",
            f"{d.slope_lm:+.3f}",
            f"{d.difference[0]:+.3f} ({d.difference[1]:+.3f} to {d.difference[2]:+.3f})",
        )
        for name, d in found.drift.items()
    ]
    lines = [
        Line(f"{what}, {NAMES[name]}", d.places, values)
        for name, d in found.drift.items()
        for what, values in (("p_kNN", d.knn), ("p_LM", d.lm))
    ]
    apart = [Line(NAMES[name], d.places, d.js) for name, d in found.drift.items()]
    return (
        table(["slopes, nats per 100 tokens", "p_kNN", "p_LM", "difference"], rows)
        + curves(lines, "tokens after the prefix", "entropy (nats)")
        + curves(apart, "tokens after the prefix", "Jensen-Shannon divergence (nats)")
    )


def _quality(found: Generation) -> str:
    keys = sorted({key for each in found.quality.values() for key in each})
    rows = [
        (
            text(key),
            *(
                f"{found.quality[arm][key]:.3f}" if key in found.quality[arm] else "–"
                for arm in ("human", "lm", "mix")
            ),
            "{:+.3f} ({:+.3f} to {:+.3f})".format(*found.gaps[key]) if key in found.gaps else "–",
        )
        for key in keys
    ]
    scores = [
        (text(NAMES[arm]), " ".join(f"{v:.3f}" for v in values))
        for arm, values in found.mauve.items()
    ]
    return (
        table(["mean", "human", "model", "mixture", "mixture less model"], rows)
        + (table(["MAUVE against the human texts", "a value a seed"], scores) if scores else "")
        + f'<p class="note">{found.texts:,} prefixes, {found.seeds} seeds. Features of MAUVE are '
        "the model's own last hidden states.</p>"
    )
