"""A process that has loaded what limited processes need and turns a fork of itself into each: a start without imports.

It runs our own code alone: it never sees a source, and a fork gives up everything before it is told what to do. It has
one thread, so that a fork is whole and Landlock holds all of it. It ends with its owner, or after a minute in which
nobody needed it; the next fork then starts another.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import BinaryIO

from bedplate.isolation import confine, processes

_IDLE = 60.0
_MESSAGE = 4096
_POLL = 0.01
SHARED = 3
"""The descriptor under which a fork finds the memory that it shares with its owner."""
_GONE = -9
"""How a fork ends whose template has ended: killed, as the kernel does then."""


def shared_memory(size: int) -> int:
    """A descriptor of memory whose size nobody can change; pages are taken as they are written.

    What the other side writes into it may change at any time: read it once, by :func:`os.preadv`, and believe the copy.
    """
    file = os.memfd_create("bedplate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    # Cut short while it is read, it would end its reader.
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return file


class Template:
    """The owner's side. Nothing is started before :meth:`warm` or :meth:`start`; any number of threads may call.

    ``module`` MUST load without starting a thread, and have ``main(parent)``, which confines itself: see
    :class:`.worker.Worker`.
    """

    def __init__(self, module: str, *, threads: int) -> None:
        self._module, self._threads = module, threads
        self._guard = threading.Lock()
        self._running: _Running | None = None

    def warm(self) -> None:
        """Begin to load, and do not wait for it."""
        with self._guard:
            self._current()

    def start(self, connection: socket.socket, scratch: Path, shared: int) -> "Fork":
        """A limited process that talks through ``connection`` and works in ``scratch``.

        It finds the descriptor ``shared``, of memory of :func:`shared_memory`, as its own :data:`SHARED`.

        Raises:
            ValueError: the template cannot be loaded.
        """
        read, write = os.pipe()
        told = json.dumps({"fork": str(scratch)}).encode()
        try:
            with self._guard:
                for attempt in (1, 2):
                    running = self._current()
                    try:
                        pid = int(running.ask(told, [connection.fileno(), write, shared]))
                        handle = os.pidfd_open(pid)
                        break
                    except (OSError, ValueError):  # it was about to leave when it was asked
                        self._running = None
                        left = running.end()
                        if attempt == 2:
                            raise ValueError(f"the process that loads {self._module} left with status {left}") from None
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return Fork(pid, handle, os.fdopen(read, "rb", buffering=0), running)

    def end(self) -> None:
        """End it, and what it became: nothing is left to be waited for."""
        with self._guard:
            if self._running is not None and self._running.owner == os.getpid():
                self._running.end()
                atexit.unregister(self.end)
            self._running = None

    def _current(self) -> "_Running":
        running = self._running
        if running is None:
            atexit.register(self.end)
        # A process that was forked from the owner has a socket like its owner's: it starts a template of its own.
        elif running.owner != os.getpid() or running.process.poll() is not None:
            running.close()
        else:
            return running
        self._running = _Running(self._module, self._threads)
        return self._running


class _Running:
    """One template process."""

    def __init__(self, module: str, threads: int) -> None:
        self.owner = os.getpid()
        self._guard = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Allocators start no thread of their own, which no fork would have.
        environment = processes.environment(Path("/"), threads=threads) | {
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
            # ms: what is freed is mostly wanted again at once, and to give it back meanwhile costs a tenth of a scan.
            "MIMALLOC_PURGE_DELAY": "1000",
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-B", "-m", "bedplate.isolation.template", module],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", env=environment, start_new_session=True,
            )  # fmt: skip

    def ask(self, message: bytes, files: list[int] | None = None) -> str:
        """Its answer to one message.

        Raises:
            OSError: it has ended.
        """
        with self._guard:
            socket.send_fds(self._socket, [message], files or [])
            answer = self._socket.recv(_MESSAGE)
        if not answer:
            raise ConnectionError("it closed the connection")
        return answer.decode()

    def status_of(self, pid: int) -> int:
        """How a fork ended, of which it is known that it has."""
        try:
            return int(self.ask(json.dumps({"wait": pid}).encode()))
        except (OSError, ValueError):
            return _GONE

    def close(self) -> None:
        """Let it leave."""
        self._socket.close()

    def end(self) -> int:
        """Let it leave, and give the status that it left with."""
        self.close()
        return self.process.wait()


class Fork:
    """One limited process as its owner sees it, with the methods of :class:`subprocess.Popen` that a worker needs.

    It is known by ``handle``, a pidfd: its number is somebody else's once the template, or who takes over from a
    template that has ended, knows of its end.
    """

    def __init__(self, pid: int, handle: int, stdout: BinaryIO, template: _Running) -> None:
        self.pid, self.stdout = pid, stdout
        self._template, self._guard = template, threading.Lock()
        self._code: int | None = None
        self._handle = handle

    def poll(self) -> int | None:
        """How it ended, as in :attr:`subprocess.Popen.returncode`; None while it runs."""
        with self._guard:
            if self._code is None and _readable(self._handle):
                self._code = self._template.status_of(self.pid)
                os.close(self._handle)
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within ``timeout`` seconds.
        """
        until, pause = None if timeout is None else time.monotonic() + timeout, 0.0005
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() >= until:
                raise subprocess.TimeoutExpired("a limited process", timeout or 0.0)
            time.sleep(pause)
            pause = min(2 * pause, _POLL)
        return code

    def kill(self) -> None:
        """Kill it, if it runs."""
        with self._guard:
            if self._code is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)


def _readable(handle: int) -> bool:
    """Of a pidfd: whether the process has ended."""
    poll = select.poll()  # unlike select(), it takes any number
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


# -------------------------------------------------------------------------------------------------- inside the template


def main() -> None:
    """Load the module, then fork whenever asked to, until the owner has gone."""
    # Above the numbers that a fork gives to what it is handed, as are those descriptors then.
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 16))
    for number in range(SHARED + 1):
        if number not in (1, 2):
            os.dup2(2, number)
    control.settimeout(_IDLE)
    module = importlib.import_module(sys.argv[1])
    confine.interpreter()  # looked up once
    gc.freeze()  # what is loaded is shared with the forks: a collector that visits it would copy it into each
    children: set[int] = set()
    while True:
        try:
            data, files, _, _ = socket.recv_fds(control, _MESSAGE, 3)
        except TimeoutError:
            if children:
                continue
            return
        if not data:
            return
        told = json.loads(data)
        if "fork" in told:
            template = os.getpid()
            if (pid := os.fork()) == 0:
                _become(module.main, template, control, files, told["fork"])
            for file in files:
                os.close(file)
            children.add(pid)
            control.send(str(pid).encode())
        else:
            pid, status = os.waitpid(told["wait"], 0)
            children.discard(pid)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(run: object, template: int, control: socket.socket, files: list[int], scratch: str) -> None:
    """Be a limited process, and never come back."""
    code = 1
    try:
        control.close()
        connection, printed, shared = files
        for file, target in ((connection, 0), (printed, 1), (printed, 2), (shared, SHARED)):
            os.dup2(file, target)
        os.closerange(SHARED + 1, os.sysconf("SC_OPEN_MAX"))
        os.setsid()
        os.chdir(scratch)
        os.environ |= {"HOME": scratch, "TMPDIR": scratch}
        run(template)  # type: ignore[operator]
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  it is said where the owner reads what a limited process prints
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):  # an owner that was killed before it had read an answer
        main()
