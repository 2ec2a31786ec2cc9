"""What every test relies on, whatever started the run."""

import signal


def pytest_configure() -> None:
    # A run that a script starts in the background ignores Ctrl-C, and so would every command that
    # a test starts. With a handler of our own in place, children begin with the default again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
