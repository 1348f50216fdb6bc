"""Named pipes: how a server that sends files sends what no file holds, at the speed of whoever receives it."""

import asyncio
import atexit
import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from bedplate.errors import UnavailableError

CAPACITY = 1 << 20
"""Bytes that lie in a pipe at most, where the system allows so many."""
PATIENCE = 10.0
"""Seconds in which the reader must open its end."""

_numbers = itertools.count()
_folders: list[Path] = []


def _folder() -> Path:
    """A folder of this process alone; it goes with the process."""
    if not _folders or _folders[0].name.rpartition("-")[2] != str(os.getpid()):
        made = Path(tempfile.mkdtemp(prefix="bedplate-pipes-", suffix=f"-{os.getpid()}"))
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        _folders[:] = [made]
    return _folders[0]


@contextlib.contextmanager
def made() -> Iterator[Path]:
    """The path of a new pipe, for as long as the block lasts."""
    path = _folder() / str(next(_numbers))
    os.mkfifo(path, 0o600)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class Writer:
    """The end of a pipe that is written to, open once somebody reads from the other one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = -1

    async def __aenter__(self) -> "Writer":
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while self._end < 0:
            try:
                self._end = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                if loop.time() > until:
                    raise UnavailableError("nobody reads what was to be sent") from error
                await asyncio.sleep(0.0005)
        with contextlib.suppress(OSError):  # the user has as much in pipes as the system gives
            fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, CAPACITY)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._end)

    async def write(self, piece: bytes) -> None:
        """Write all of it; returns when it is in the pipe.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._end, left) :]
            except BlockingIOError:
                await self._room()

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        room: asyncio.Future[None] = loop.create_future()

        def there_is() -> None:
            if not room.done():
                room.set_result(None)

        loop.add_writer(self._end, there_is)
        try:
            await room
        finally:
            loop.remove_writer(self._end)
