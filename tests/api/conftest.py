"""A server in a process of its own."""

import pytest

from tests.api.process import Server


@pytest.fixture
def server(tmp_path):
    """Starts a server on the same home, as often as it is called; the last one is stopped in the end."""
    started = []

    def start():
        started.append(Server(tmp_path / "home"))
        return started[-1]

    yield start
    if started[-1].process.poll() is None:
        started[-1].stop()
