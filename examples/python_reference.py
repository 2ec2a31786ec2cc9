"""Write the Python language reference that ships in every CPython as text files, one a topic.

Prints the folder, so that `unspool ask "$(python examples/python_reference.py)" "…"` answers from a
real text of about 100,000 tokens without any download.
"""

import os
import sys
from pathlib import Path
from pydoc_data.topics import topics

from unspool._cache import cache_folder


def write(folder: Path) -> Path:
    """Write each topic to `folder` and return it; files that already hold the text stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in topics.items():
        path = folder / f"{name}.txt"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
    return folder


if __name__ == "__main__":
    version = f"python-{sys.version_info.major}.{sys.version_info.minor}-reference"
    sys.stdout.write(f"{write(cache_folder(version))}\n")
