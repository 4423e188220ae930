"""The server's program, as it is typed."""

from functools import partial

import pytest

from server.cli import main


@pytest.fixture
def called(typed):
    """Exit code, output and errors of `mumc-server` with these words."""
    return partial(typed, main, "mumc-server")
