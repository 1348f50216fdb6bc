"""One owner process per home: two on one home would run steps twice."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bedplate import clock
from bedplate.errors import HomeError, StorageError
from bedplate.settings import Home


class HeldError(HomeError):
    """Another process owns the home."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns a home: written into the lock file for others to read."""

    pid: int
    since: str
    started: int
    """When the process began, in clock ticks since boot: with it a reused process id is not taken for the owner."""


class Owner:
    """Hold a home for as long as the block runs. The lock ends with the process, however that ends."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the home.

        Raises:
            HeldError: another process owns it; the text names it.
            StorageError: the lock file cannot be made.
        """
        path = self._home.lock
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"the lock cannot be made: {error.strerror}", where=str(path), fix="check the folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise _owned(self._home) from error
        holder = Holder(pid=os.getpid(), since=clock.timestamp(), started=_process_start(os.getpid()))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the home go."""
        if self._descriptor is not None:
            # Emptied before the lock ends: what stands in an unheld file would name nobody.
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def current(home: Home) -> Holder | None:
    """Who owns the home now; None if nobody does."""
    try:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(home.lock) or Holder(pid=0, since="", started=0)
    else:
        return None
    finally:
        os.close(descriptor)


def _owned(home: Home) -> HomeError:
    holder = _read(home.lock)
    who = f"process {holder.pid} (since {holder.since})" if holder else "another process"
    return HeldError(
        f"{who} owns this home", where=str(home.root), fix="stop it first: bedplate stop; or use another home"
    )


def _read(path: Path) -> Holder | None:
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None  # the owner is between locking and writing
    return holder if _process_start(holder.pid) == holder.started else None


def _process_start(pid: int) -> int:
    """When a process began, in ticks since boot; 0 where there is no /proc or no such process."""
    try:
        # The command in field 2 may hold blanks and parentheses: count from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0
