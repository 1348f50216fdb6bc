"""A server without a model whose connections are held: ``python -m tests.serve.held <holder> <socket>``."""

import asyncio
import os
import signal
import sys
from typing import Any

import uvloop

from bedplate.http import server as servers
from bedplate.http.server import Server
from bedplate.serve.holding import Held

TEXT = [("content-type", "text/plain")]
LARGE, TOO_LARGE = 40 << 20, 65 << 20


async def app(scope: Any, protocol: Any) -> None:
    """Answers by path; what hangs does so in the first process only."""
    first = os.environ.get("FIRST") == "hangs"
    if scope.path == "/hang" and first:
        await asyncio.sleep(60)
    elif scope.path == "/kill":
        die()
    elif scope.path == "/large":
        protocol.response_bytes(200, TEXT, bytes(range(256)) * (LARGE >> 8))
    elif scope.path == "/too-large":
        protocol.response_bytes(200, TEXT, bytes(TOO_LARGE))
    elif scope.path == "/stream":
        stream = protocol.response_stream(200, TEXT)
        await stream.send_bytes(b"one")
        if first and scope.query_string:
            await asyncio.sleep(60)
        await stream.send_bytes(b"two")
    else:
        protocol.response_bytes(200, TEXT, f"{scope.path} ".encode() + await protocol())


def die(*of: Any) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(holder: int, descriptor: int) -> None:
    """Serve until killed: at the first connection, before a word was said on it, where the environment says so."""
    if os.environ.get("FIRST") == "dies":
        servers._PlacedConnection.connection_made = die  # type: ignore[method-assign]
    held = Held(holder, 64, 1 << 20)
    server = Server(app, descriptor, places=held.places)
    await server.start()
    held.start(server)
    print("ready", flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    (asyncio.run if os.environ.get("LOOP") == "asyncio" else uvloop.run)(main(*map(int, sys.argv[1:])))
