"""Chinese words: jieba's accurate mode.

Source: jieba 0.42.1, the version that pins every Chinese number here (its dictionary moves them).
Differs from the released code: a tokenizer of our own, which no user dictionary loaded elsewhere
can change; its cache file lies in the user's cache folder, not in the shared temporary one.
Cost: about a second for the dictionary at the first call, then about a megabyte a second.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any

from unspool._cache import cache_folder
from unspool._optional import require


@cache
def _tokenizer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has old escapes and imports pkg_resources
        jieba = require("jieba", extra="eval", purpose="cutting Chinese into words")
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    folder = cache_folder("jieba")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.tmp_dir = str(folder)
    tokenizer.initialize()
    return tokenizer


def cut(text: str) -> list[str]:
    """The words of a text, blanks and punctuation included, in order.

    Raises:
        MissingExtra: jieba is not installed.
    """
    words: list[str] = _tokenizer().lcut(text)
    return words
