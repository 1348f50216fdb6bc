"""A server that does nothing, as fast as that goes: what a load client reaches with it is what the client can do.

Run as a program: it prints its port, and ends with its standard input.
"""

import asyncio
import sys
from typing import Any

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class _Nothing(asyncio.Protocol):
    """Answers each request, once it is there whole, with two bytes."""

    def __init__(self) -> None:
        self._got = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            length = self._got[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            whole = end + 4 + int(length or 0)
            if len(self._got) < whole:
                return
            self._got = self._got[whole:]
            self._transport.write(_ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Nothing, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
