"""A limited process as its owner sees it: started, confined, asked over a socket, watched, and ended.

What comes back is treated as written by an adversary. A process that holds too much memory or makes too many threads is
killed; whoever waits for its answer then learns why.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

from bedplate.isolation import processes, wire
from bedplate.isolation.confine import Isolation

_log = logging.getLogger(__name__)
_POLL, _PARTING = 0.05, 2.0
_LOG_BYTES = 16 << 10


class Process(Protocol):
    """A started process, as :class:`subprocess.Popen` has it."""

    pid: int
    stdout: Any
    """What it prints, as a binary file."""

    def poll(self) -> int | None:
        """How it ended; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has."""

    def kill(self) -> None:
        """Kill it."""


Start: TypeAlias = Callable[[socket.socket, Path], Process]
"""Starts a process with a socket as its standard input, in a working folder; see also :mod:`.template`."""


def module(name: str, threads: int) -> Start:
    """A module, run by an interpreter of its own with the pid of the owner as its argument."""

    def start(connection: socket.socket, scratch: Path) -> Process:
        return subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", "-m", name, str(os.getpid())],
            stdin=connection.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=scratch,
            env=processes.environment(scratch, threads=threads),
            start_new_session=True,
        )

    return start


class Worker:
    """One limited process, begun by ``start``; confined when this returns.

    It MUST read a ``header`` frame from its standard input, a socket, confine itself, and answer ``confined``
    with its :class:`~bedplate.isolation.confine.Isolation`. To ``header`` are added ``memory`` and ``scratch``, its
    working folder, in which it finds ``files``.

    Raises:
        ValueError: it ended, was not ready in time, or is not confined although ``require_isolation`` was asked for.
    """

    def __init__(
        self,
        start: Start,
        header: Mapping[str, Any],
        *,
        files: Mapping[str, bytes],
        memory: int,
        seconds: float,
        require_isolation: bool = True,
    ) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="bedplate-"))
        for name, data in files.items():
            (scratch / name).write_bytes(data)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        try:
            self._process = start(theirs, scratch)
        except BaseException:
            ours.close()
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            theirs.close()
        self._socket, self._memory, self._killed, self._said = ours, memory, "", bytearray()
        self._closed = False
        self.pid = self._process.pid
        # Also when nobody calls end(): an owner that is no longer needed leaves no process behind.
        self._finalizer = weakref.finalize(self, _clean_up, self._process, ours, scratch)
        threading.Thread(target=_watch, args=(weakref.ref(self), self._process), daemon=True).start()
        deadline = time.monotonic() + seconds
        told = json.dumps({**header, "memory": memory, "scratch": str(scratch)}).encode()
        try:
            self.send("header", told, deadline)
            self.isolation = msgspec.json.decode(self.receive({"confined": 1 << 16}, deadline)[1], type=Isolation)
            if require_isolation and not self.isolation.isolated:
                raise ValueError("it is not confined")
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            raise ValueError(self.end(str(error))) from error

    def ended(self) -> str | None:
        """Why the process ended; None while it runs."""
        return None if self._process.poll() is None else self._reason("")

    def end(self, reason: str) -> str:
        """End the process; gives why it ended by itself, or ``reason``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that closed its end is ending, and will have said why; one that is only late is not waited for.
            self._process.wait(_PARTING if self._closed or self._killed else 0)
        told = self._reason(reason)
        self._finalizer()
        if reason != "closed":
            _log.warning(
                "a limited process ended: %s; it printed: %s", told, bytes(self._said).decode(errors="replace")
            )
        return told

    def kill(self, reason: str) -> None:
        """Stop it from another thread; whoever waits for its answer learns of it by the closed socket."""
        self._killed = self._killed or reason
        self._process.kill()

    def send(self, kind: wire.Kind, payload: bytes, deadline: float) -> None:
        """Send one frame before the moment ``deadline`` (of the monotonic clock).

        Raises:
            OSError: the process ended, or took too long.
        """
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        self._socket.sendall(wire.head(kind, len(payload)) + payload)

    def receive(self, limits: dict[wire.Kind, int], deadline: float) -> tuple[wire.Kind, bytearray]:
        """The next frame, of a kind and up to a length in ``limits``.

        Raises:
            ValueError: it is no such frame.
            OSError: the process ended, or took too long.
        """
        kind, length = wire.parse_head(self._exactly(wire.HEAD, deadline), limits)
        return kind, self._exactly(length, deadline)

    def _reason(self, reason: str) -> str:
        code = self._process.poll()
        if self._killed:
            return self._killed
        if code in (None, 0) or reason == "closed":  # by itself it ends with 0 when the socket closed
            return reason
        assert code is not None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"it left with status {code}"

    def _exactly(self, length: int, deadline: float) -> bytearray:
        found = bytearray()
        while len(found) < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("it took longer than allowed")
            self._socket.settimeout(left)
            # Memory is spent on bytes that came: a length is only a claim.
            try:
                block = self._socket.recv(min(length - len(found), 1 << 20))
            except TimeoutError:
                raise TimeoutError("it took longer than allowed") from None
            if not block:
                self._closed = True
                raise ConnectionError("it closed the connection")
            found += block
        return found


def _clean_up(process: Process, connection: socket.socket, scratch: Path) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    connection.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _watch(owner: "weakref.ref[Worker]", process: Process) -> None:
    """Kill the process when it holds too much memory or makes too many threads; keep the end of what it prints."""
    assert process.stdout is not None
    poll = select.poll()  # unlike select(), it takes any number
    with process.stdout as printed:
        poll.register(printed, select.POLLIN)
        while process.poll() is None:
            ready = poll.poll(_POLL * 1000)
            block = os.read(printed.fileno(), 1 << 16) if ready else b""
            one = owner()
            if one is None:
                return
            if block:
                one._said += block
                del one._said[:-_LOG_BYTES]
            held, threads, _ = processes.usage(process.pid)
            if held > one._memory:
                one.kill(f"it held {processes.size_of(held)} of memory and may hold {processes.size_of(one._memory)}")
            elif threads > processes.THREADS:
                one.kill(f"it ran {threads} threads at once, and {processes.THREADS} are allowed")
            del one
            if ready and not block:  # it closed what it prints to
                time.sleep(_POLL)
