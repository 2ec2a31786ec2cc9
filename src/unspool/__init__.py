"""unspool: long text, unabridged. Find it, read it, learn from it, rank it, measure it.

Every name below is imported when it is first used, so `import unspool` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.backends.load import load_model as load_model
    from unspool.corpus.readers import read_documents as read_documents
    from unspool.errors import UnspoolError as UnspoolError
    from unspool.evaluation.run import evaluate as evaluate
    from unspool.extension import extend as extend
    from unspool.index.build import build_index as build_index
    from unspool.index.open import open_index as open_index
    from unspool.reading.ask import ask as ask
    from unspool.reading.choice import list_methods as list_methods
    from unspool.reading.choice import recommend as recommend
    from unspool.types import Answer as Answer
    from unspool.types import Document as Document
    from unspool.types import Generation as Generation
    from unspool.types import LanguageModel as LanguageModel
    from unspool.types import Overflow as Overflow
    from unspool.types import Passage as Passage
    from unspool.types import Scored as Scored
    from unspool.types import Span as Span
    from unspool.types import Usage as Usage

    __version__: str

_LAZY = {
    "Answer": "unspool.types",
    "Document": "unspool.types",
    "Generation": "unspool.types",
    "LanguageModel": "unspool.types",
    "Overflow": "unspool.types",
    "Passage": "unspool.types",
    "Scored": "unspool.types",
    "Span": "unspool.types",
    "UnspoolError": "unspool.errors",
    "Usage": "unspool.types",
    "ask": "unspool.reading.ask",
    "build_index": "unspool.index.build",
    "evaluate": "unspool.evaluation.run",
    "extend": "unspool.extension",
    "list_methods": "unspool.reading.choice",
    "load_model": "unspool.backends.load",
    "open_index": "unspool.index.open",
    "read_documents": "unspool.corpus.readers",
    "recommend": "unspool.reading.choice",
}

__all__ = [  # spelled out, since type checkers and editors read it without running the module
    "Answer",
    "Document",
    "Generation",
    "LanguageModel",
    "Overflow",
    "Passage",
    "Scored",
    "Span",
    "UnspoolError",
    "Usage",
    "__version__",
    "ask",
    "build_index",
    "evaluate",
    "extend",
    "list_methods",
    "load_model",
    "open_index",
    "read_documents",
    "recommend",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: object = version("unspool")
        except PackageNotFoundError:  # run from a source tree that was never installed
            value = "0+source"
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
