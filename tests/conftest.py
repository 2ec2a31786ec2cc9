"""What every test relies on, whatever started the run."""

import os
import signal
from pathlib import Path

from hypothesis import settings

# Without a GPU, Triton's programs are interpreted. It reads this when it is first imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says nothing on a machine that does other work as well.
settings.register_profile("unspool", deadline=None)
settings.load_profile("unspool")


def pytest_configure() -> None:
    # A run that a script starts in the background ignores Ctrl-C, and so would every command that
    # a test starts. With a handler of our own in place, children begin with the default again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
