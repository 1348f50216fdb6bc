"""Replicas that begin with their modules loaded: forked, as programs are by :mod:`tests.forked`.

To load them takes a new interpreter more than half a second, and tests start a hundred replicas. From then on each runs
what the interpreter would run: its own main, on the descriptors and in the environment that its supervisor gives it.
Tests of how a replica is started, and of the memory that it takes, ask for the fixture ``real_replicas``.
"""

import fcntl
import os
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import IO

from tests.forked import CONTEXT

PIPE = subprocess.PIPE
_HIGH = 1 << 9
"""Above the numbers that a supervisor names."""


class Popen:
    """A replica as :class:`subprocess.Popen` would start it, and as its supervisor uses that."""

    def __init__(
        self,
        command: list[str],
        *,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        pass_fds: tuple[int, ...],
        env: dict[str, str],
        start_new_session: bool,
    ) -> None:
        assert (command[:3], stdin, start_new_session) == (
            [sys.executable, "-m", "bedplate.serve.replica"],
            PIPE,
            True,
        )
        read, write = os.pipe()
        given = {0: read, 1: stdout.fileno(), 2: stderr.fileno(), **{number: number for number in pass_fds}}
        sent = [Connection(os.dup(file)) for file in given.values()]
        os.close(read)
        self.stdin = os.fdopen(write, "wb", buffering=0)
        self._process = CONTEXT.Process(target=_become, args=(sent, list(given), command[3:], env))
        self._guard = threading.Lock()
        try:
            self._process.start()
        finally:
            for each in sent:
                each.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        with self._guard:
            return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """The same."""
        return self.poll()

    def wait(self) -> int | None:
        """How it ended, once it has."""
        self._process.join()
        return self.poll()

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, 9)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(sent: list[Connection], numbers: list[int], arguments: list[str], environment: dict[str, str]) -> None:
    """Be the replica, and never come back."""
    code = 1
    try:
        os.setsid()
        high = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, _HIGH) for each in sent]
        for file, number in zip(high, numbers, strict=True):
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, mode, closefd=False) for n, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        os.environ.clear()
        os.environ.update(environment)
        from bedplate.serve import replica

        spec, pipe, _owner, *more = arguments
        code = replica.main([spec, pipe, str(os.getppid()), *more])  # it ends with the process that it was forked from
    finally:
        sys.stderr.flush()
        os._exit(code)
