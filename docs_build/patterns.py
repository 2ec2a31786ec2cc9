"""Draw which keys each query meets, by the mechanisms' own code: `docs/assets/patterns/NAME.svg`.

`python -m docs_build.patterns [NAME…]` draws them anew. Same code, same bytes. A picture is a
function that gives a matrix [T, S]: 0 where a key is not met, 1 where it is, 2 where it is met in
another way, which `LEGENDS` names. Add one to `PICTURES`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unspool.cli._output import message

PICTURES = {
    "byte-transformer": (
        "unspool.attention.padding_free.varlen:picture",
        "Padding-free: a packed row, each sentence sees itself",
    ),
    "flash-blocks": (
        "unspool.attention.flash.patterns:picture",
        "Block-sparse attention: a butterfly of blocks and a window, causal",
    ),
    "hip": ("unspool.attention.hip.recall:picture", "HiP: first, newest and found keys"),
    "hyper": (
        "unspool.attention.hyper.reference:picture",
        "HyperAttention: exact squares, sorted blocks, samples and first keys",
    ),
    "longformer": (
        "unspool.models.long_encoder.window:picture",
        "Longformer: a window around each token, and two global tokens",
    ),
    "masformer": (
        "unspool.attention.spans:picture",
        "MASFormer: a local layer, each block and the one before it",
    ),
    "ntk": (
        "unspool.attention.ntk.state:picture",
        "NTK-Attention: a state in the place of a prefix, and the text",
    ),
    "random-blocks": (
        "unspool.attention.controls:picture",
        "Random blocks: first, newest and drawn keys",
    ),
    "softplus": (
        "unspool.attention.softplus.reference:picture",
        "Softplus attention: the keys that the second stage leaves a weight",
    ),
}
"""By name: where the function is, and what the picture shows."""
LEGENDS = {"ntk": ("text", "state, met by all")}
"""By name: what the two colours are; "met" alone if there is one."""
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "assets" / "patterns"
_SIDE, _MARGIN = 320, 26
_SEEN, _HIDDEN = ("#0072B2", "#E69F00"), "#eef2f6"
_INK = "#6e7781"
"""Of words: legible on a light and on a dark page."""


def main(argv: Sequence[str] | None = None) -> int:
    wanted = list(sys.argv[1:] if argv is None else argv) or list(PICTURES)
    unknown = [name for name in wanted if name not in PICTURES]
    if unknown:
        message(f"error: no picture is called {unknown[0]!r}; there are {', '.join(PICTURES)}.")
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8")
        message(f"wrote docs/assets/patterns/{name}.svg")
    return 0


def draw(name: str) -> str:
    """The picture of that name."""
    place, label = PICTURES[name]
    module, function = place.split(":")
    return svg(getattr(import_module(module), function)(), label, LEGENDS.get(name, ("met",)))


def svg(seen: Any, label: str, legend: Sequence[str] = ("met",)) -> str:
    """A matrix [T, S] as a picture: keys from left to right, queries from top to bottom."""
    rows, columns = len(seen), len(seen[0])
    scale = _SIDE / max(rows, columns)
    width, height = columns * scale, rows * scale
    below = _MARGIN + height
    text = f"font-family='sans-serif' font-size='12' fill='{_INK}'"
    drawn, keys, at = "", "", _MARGIN
    for number, (colour, words) in enumerate(
        zip((*_SEEN[: len(legend)], _HIDDEN), (*legend, "not met"), strict=True), 1
    ):
        if number <= len(legend):
            runs = "".join(
                f"M{start} {row}h{end - start}v1h{start - end}z"
                for row, line in enumerate(seen.tolist())
                for start, end in _runs([value == number for value in line])
            )
            drawn += (
                f"<path transform='translate({_MARGIN} {_MARGIN}) scale({scale:g})' "
                f"fill='{colour}' d='{runs}'/>\n"
            )
        keys += (
            f"<rect x='{at}' y='{below + 12:g}' width='12' height='12' fill='{colour}'/>\n"
            f"<text x='{at + 18}' y='{below + 22:g}' {text}>{words}</text>\n"
        )
        at += 42 + 7 * len(words)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width + _MARGIN + 2:g}' "
        f"height='{below + 30:g}' role='img' aria-label='{label}'>\n"
        f"<text x='{_MARGIN}' y='16' {text}>keys →</text>\n"
        f"<text transform='translate(16 {_MARGIN + 60}) rotate(-90)' {text}>← queries</text>\n"
        f"<rect x='{_MARGIN}' y='{_MARGIN}' width='{width:g}' height='{height:g}' "
        f"fill='{_HIDDEN}'/>\n{drawn}{keys}</svg>\n"
    )


def _runs(line: list[bool]) -> list[tuple[int, int]]:
    """Where runs of true begin and end."""
    edges = [
        i for i, (a, b) in enumerate(zip([False, *line], [*line, False], strict=True)) if a != b
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


if __name__ == "__main__":
    sys.exit(main())
