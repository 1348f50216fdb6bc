"""One replica process as its supervisor sees it: started, told of, drained, killed."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Any

import msgspec

from bedplate import clock, errors, files, ids
from bedplate.errors import BedplateError, UnavailableError
from bedplate.serve import spec as specs
from bedplate.serve.holding import Holder, Orphan
from bedplate.serve.scaling import Load
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.wishes import Asked, answer_to
from bedplate.settings import threads_environment

_LINES = 1 << 16


class Process:
    """One replica process, and the pipe on which it says that it is ready and then how it fares.

    ``ready`` once it said so, ``error`` when it said why it will not be; ``load`` is the newest, None before the first.
    ``holder`` has what it has in hand, and ``orphans``, when it has ended, the connections that others go on with.
    ``asked`` is what it asks for its endpoint and was not answered yet.

    Raises:
        UnavailableError: it cannot be started.
        StorageError: its spec cannot be written.
    """

    def __init__(self, spec: ReplicaSpec, listeners: Sequence[socket], run: Path, log: Path) -> None:
        self.spec = spec
        self._spec_path = run / f"{ids.new_id('replica')}.json"
        files.write(self._spec_path, specs.encode(spec))
        files.make_folder(log.parent)
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "bedplate.serve.replica", str(self._spec_path)]
        self.holder, self.orphans = Holder(), list[Orphan]()
        inherited = [self.holder.theirs.fileno(), *(listener.fileno() for listener in listeners)]
        command += [str(write_end), str(os.getpid()), *map(str, inherited)]
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=(write_end, *inherited),
                    env=threads_environment(spec.threads),
                    start_new_session=True,  # Ctrl-C in a terminal is for the owner, which then drains replicas
                )
        except OSError as error:
            os.close(read_end)
            self.holder.socket.close()
            self._spec_path.unlink(missing_ok=True)
            raise UnavailableError(f"a replica cannot be started: {error.strerror}") from error
        finally:
            os.close(write_end)
            self.holder.theirs.close()
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(read_end, False)
        self._pipe, self._rest = read_end, b""
        self.pid = self._process.pid
        self.started = self.heard = clock.monotonic()
        self.since = clock.timestamp()
        self.ready = False
        self.error: BedplateError | None = None
        self.load: Load | None = None
        self.asked: list[Asked] = []
        self.memory = 0
        self._kill_at = float("inf")
        self._ended: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended or clock.monotonic()) - self.started

    @property
    def returncode(self) -> int | None:
        """How it ended."""
        return self._process.returncode

    def hear(self) -> None:
        """Take in what it said since the last time."""
        with contextlib.suppress(BlockingIOError):
            while self._pipe >= 0 and (data := os.read(self._pipe, _LINES)):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._take(msgspec.json.decode(line))
                self.heard = clock.monotonic()

    def await_ready(self, seconds: float) -> bool:
        """Wait until it is ready or has failed; whether it came to that within ``seconds``."""
        end = clock.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while not self.ready and self.error is None:
                if not selector.select(max(0.0, end - clock.monotonic())):
                    return False
                self.hear()
                if not self.ready and self.error is None and not self.alive:
                    self.error = _error_of(None)
        return True

    def _take(self, said: dict[str, Any]) -> None:
        state = said.pop("state")
        if state == "ready":
            self.ready = True
        elif state == "load":
            self.load = msgspec.convert(said, Load)
        elif state == "asks":
            self.asked.append(msgspec.convert(said["asked"], Asked))
        else:
            self.error = _error_of(said.get("error"))

    def answer(self, asked: Asked, error: BedplateError | None = None) -> None:
        """Tell it what came of what it asked; one that has ended, or reads nothing, is told nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            os.write(self._process.stdin.fileno(), answer_to(asked.number, error))

    def measure(self) -> None:
        """Take its memory: what is its own, and its share of what it shares with others, in bytes."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:
                line = next(line for line in file if line.startswith(b"Pss:"))
        except (OSError, StopIteration):
            return  # it has just ended
        self.memory = int(line.split()[1]) * 1024

    # ------------------------------------------------------------------------------------------------------ its end

    def drain(self) -> None:
        """Have it take no more connections, finish what is in flight, and end."""
        if self._kill_at == float("inf"):
            self._kill_at = clock.monotonic() + self.spec.drain * 2 + 1
            self.signal(signal.SIGTERM)

    def over(self) -> bool:
        """Whether a drained one has ended; one that takes too long is killed here."""
        if self.alive:
            if clock.monotonic() < self._kill_at:
                return False
            self.kill()
        self._forget()
        return True

    def kill(self) -> None:
        """End it outright."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._forget()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _forget(self) -> None:
        if self._pipe >= 0:
            self.hear()
            os.close(self._pipe)
            self._pipe = -1
            self._ended = clock.monotonic()
            self.orphans = self.holder.end(self.spec.journal)
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._spec_path.unlink(missing_ok=True)


def _error_of(told: Any) -> BedplateError:
    """The error that a replica told before it ended, as the type it was."""
    if not isinstance(told, dict):
        return UnavailableError("the replica ended before it was ready", fix="see its log file")
    return errors.of_dict(told)
