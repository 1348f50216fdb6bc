"""Sockets that are opened once, or say why not."""

import socket

import pytest

from bedplate.errors import InputError, UnavailableError
from bedplate.serve.sockets import listen


def test_what_cannot_be_listened_on_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UnavailableError, match="is taken"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError):
        listen("203.0.113.1", 0)
