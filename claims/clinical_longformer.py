"""A short encoder converted to 2,048 tokens classifies by what stands after token 1,500.

Source: Li et al. (2022), "Clinical-Longformer and Clinical-BigBird", the abstract: long encoders
beat short ones; at the scale of two processor cores, on a proxy (see `_long_encoder`).
Differs from the paper: no clinical data, a smaller encoder, one task of three, one seed.
"""

from __future__ import annotations

from claims import Claim, Context, Figure, Measured
from claims._long_encoder import ARMS, CODE, PACKAGES, Settings, facts_of, gains, measure

CLAIM = Claim(
    system="clinical-longformer",
    title="A converted and adapted encoder decides by what a short one never reads",
    required=(
        Figure("accuracy above every short encoder", ">=", 2, unit="points"),
        *(Figure(f"accuracy, {arm}", "report", unit="%") for arm in ARMS),
        Figure("short task, what adaptation alone gains", "report", unit="points"),
    ),
    setup=(
        "A proxy, since the clinical data and weights need credentials: all-MiniLM-L6-v2 converted "
        "to a Longformer of 2,048 tokens, adapted for 30 steps of one row on sources of manual "
        "pages; two classes told by one passage after token 1,500, 48 records of training, 3 "
        "epochs, 48 of test. The short encoder reads the first 512 tokens, so it can only guess: "
        "the figure shows that length is used, not how much better a domain is read. The short "
        "task, whether one text continues another, separates what adaptation does from length."
    ),
    packages=PACKAGES,
    code=CODE,
)


def run(ctx: Context, settings: Settings | None = None) -> Measured:
    """Prepare four encoders, train and score each."""
    settings = settings or Settings()
    found = measure(ctx, settings)
    return Measured(
        {
            "accuracy above every short encoder": gains(found, ("class",))["class"],
            **{f"accuracy, {arm}": found["class"][arm] for arm in ARMS},
            "short task, what adaptation alone gains": found["short"]["short, adapted"]
            - found["short"]["short"],
        },
        facts_of(settings, found),
    )
