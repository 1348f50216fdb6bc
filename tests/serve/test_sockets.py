"""The one internal of Granian that serving rests on: a server on a socket that was open before it."""

import asyncio
import socket
from typing import Any

import pytest

from bedplate.errors import InputError, UnavailableError
from bedplate.serve.sockets import InheritedServer, listen


def test_connections_that_came_before_the_server_are_answered() -> None:
    async def app(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, [], b"here")

    async def main() -> bytes:
        with listen("127.0.0.1", 0) as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            server = InheritedServer(app, listener.fileno())
            task = asyncio.create_task(server.serve())
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            server.stop()
            await asyncio.wait_for(task, 5)
            listener.detach()
        return answer

    assert asyncio.run(main()).endswith(b"here")


def test_what_cannot_be_listened_on_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UnavailableError, match="is taken"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError):
        listen("203.0.113.1", 0)
