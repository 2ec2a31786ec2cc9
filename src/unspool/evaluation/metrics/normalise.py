"""Text made comparable before answers are matched: lower case, no punctuation, no articles.

Source: Rajpurkar et al. (2016), the SQuAD evaluation script; LongBench `metrics.py` (Chinese form).
Differs from the released code: punctuation is deleted by a translation table, with equal results.
Cost: O(length).
"""

# ruff: noqa: RUF001 - the Chinese punctuation is the data

from __future__ import annotations

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛"
    "〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
"""What LongBench deletes from Chinese besides ASCII punctuation; `《` is not in its list."""
_ZH = str.maketrans("", "", string.punctuation + ZH_PUNCTUATION)


def normalise(text: str, *, lower: bool = True) -> str:
    """SQuAD's form: ASCII punctuation deleted, articles made blanks, blanks collapsed.

    Args:
        text: Any string.
        lower: False keeps the case, as L-Eval's exact match does; only lower-case articles go then.
    """
    if lower:
        text = text.lower()
    return " ".join(_ARTICLES.sub(" ", text.translate(_ASCII_PUNCTUATION)).split())


def normalise_zh(text: str) -> str:
    """LongBench's Chinese form: lower case, punctuation and every blank deleted."""
    return "".join(text.lower().translate(_ZH).split())


def first_line(text: str) -> str:
    """The first line after leading newlines; other leading blanks stay."""
    return text.lstrip("\n").split("\n")[0]
