"""The texts that generated samples are built from: a path of the user's, or what Python brings."""

from __future__ import annotations

from functools import cache

from unspool.errors import InputError
from unspool.evaluation.spec import Source
from unspool.types import Document


def texts(source: Source) -> list[Document]:
    """The documents of `source.path`, or the language reference that ships with Python.

    Raises:
        PathNotFound: There is nothing at the path.
        InputError: It holds no text.
    """
    if source.path is None:
        return list(language_reference())
    from unspool.corpus.readers import read_documents

    found = [document for document in read_documents(source.path) if document.text.strip()]
    if not found:
        raise InputError(f"{source.path} holds no text to build samples from.")
    return found


@cache
def language_reference() -> tuple[Document, ...]:
    """A document a topic of the Python language reference, by name."""
    from pydoc_data.topics import topics

    return tuple(Document(name, text) for name, text in sorted(topics.items()))
