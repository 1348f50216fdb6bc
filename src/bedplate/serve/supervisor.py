"""Keeps replicas running: owns the listening sockets, restarts what crashes, swaps bundles and fails no request."""

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from socket import socket
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from bedplate import clock, errors, files, ids
from bedplate.errors import BedplateError, ConflictError, NotFoundError, UnavailableError
from bedplate.serve import sockets
from bedplate.serve import spec as specs
from bedplate.serve.spec import ReplicaSpec
from bedplate.settings import Home, threads_environment

T = TypeVar("T")

READY_SECONDS = 60.0
_TICK = 0.1
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0
_HEALTHY_SECONDS = 30.0
State = Literal["starting", "running", "restarting"]


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as it is now. ``restarts`` counts crashes; ``error`` is why the last start failed, if it did."""

    name: str
    url: str
    state: State
    digest: ids.Digest
    pid: int | None
    restarts: int
    since: str
    error: str = ""


class _Process:
    """One replica process and the pipe on which it says that it is ready."""

    def __init__(self, spec: ReplicaSpec, listener: socket, run: Path, log: Path) -> None:
        self.spec_path = run / f"{ids.new_id('replica')}.json"
        files.write(self.spec_path, specs.encode(spec))
        files.make_folder(log.parent)
        read_end, write_end = os.pipe()
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "bedplate.serve.replica",
                        str(self.spec_path),
                        str(listener.fileno()),
                        str(write_end),
                        str(os.getpid()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(listener.fileno(), write_end),
                    env=threads_environment(spec.threads),
                    start_new_session=True,  # Ctrl-C in a terminal is for the owner, which then drains replicas
                )
        except OSError as error:
            os.close(read_end)
            raise UnavailableError(f"a replica cannot be started: {error.strerror}") from error
        finally:
            os.close(write_end)
        self._pipe: BinaryIO = os.fdopen(read_end, "rb", buffering=0)
        self.started = clock.monotonic()
        self.since = clock.timestamp()
        self.ready = False
        self.error: BedplateError | None = None

    def poll_ready(self, seconds: float) -> bool:
        """Whether it said something within ``seconds``; sets :attr:`ready` or :attr:`error`."""
        if self.ready or self.error is not None:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            if not selector.select(seconds):
                return False
        line = self._pipe.read(65536)
        status: dict[str, Any] = json.loads(line) if line else {}
        if status.get("state") == "ready":
            self.ready = True
        else:
            self.error = _error_of(status.get("error"))
        return True

    def end(self, seconds: float) -> None:
        """Drain it, and kill it when it takes longer than ``seconds``."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._forget()

    def _forget(self) -> None:
        self._pipe.close()
        self.spec_path.unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class _Endpoint:
    """An endpoint that is wanted: its socket, its spec, and the process that answers for it now."""

    def __init__(self, spec: ReplicaSpec, listener: socket) -> None:
        self.spec, self.listener = spec, listener
        self.process: _Process | None = None
        self.restarts = 0
        self.delay = _FIRST_DELAY
        self.not_before = 0.0
        self.error = ""
        self.changing = threading.Lock()

    @property
    def url(self) -> str:
        if self.spec.socket is not None:
            return f"unix:{self.spec.socket}"
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Supervisor:
    """All endpoints of one home. Safe to use from several threads; :meth:`close` drains them.

    Processes are started from one thread that lives as long as this object, because the kernel ends a replica with the
    *thread* that started it (``PR_SET_PDEATHSIG``). When this process is killed, so are its replicas.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._endpoints: dict[str, _Endpoint] = {}
        self._lock = threading.Lock()
        self._ports_path = home.run / "ports.json"
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        for left in home.run.glob("replica_*.json"):  # by an owner that was killed; its replicas died with it
            left.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------------------- what is asked

    def start(self, spec: ReplicaSpec, within: float = READY_SECONDS) -> str:
        """Serve ``spec`` and return its address once it answers, which it must do ``within`` so many seconds.

        An endpoint that runs already under this name is swapped: the new replica becomes ready first, then the old one
        drains, and both answer on the same socket meanwhile. When the new one does not become ready, the old one stays.

        Raises:
            UnavailableError: the port is taken, or the replica was not ready in time.
            BedplateError: the replica refused to start; the error is its own.
        """
        endpoint = self._endpoint(spec)
        with endpoint.changing:
            old = endpoint.process
            if old is not None and old.alive and old.ready and endpoint.spec == spec:
                return endpoint.url
            try:
                new = self._spawn(endpoint, spec)
                self._await_ready(new, spec, within)
            except BedplateError:
                if old is None:
                    self._forget(endpoint)
                raise
            endpoint.spec, endpoint.process, endpoint.error = spec, new, ""
            endpoint.delay = _FIRST_DELAY
            if old is not None:
                old.end(spec.drain * 2 + 1)
            return endpoint.url

    def stop(self, name: str) -> None:
        """Drain an endpoint and close its socket.

        Raises:
            NotFoundError: there is no endpoint of this name.
        """
        with self._lock:
            endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise NotFoundError(f"no endpoint is called {name!r}")
        with endpoint.changing:
            self._forget(endpoint)
            if endpoint.process is not None:
                endpoint.process.end(endpoint.spec.drain * 2 + 1)

    def seal(self, name: str) -> None:
        """Ask the replica of an endpoint to seal its prediction log, so that it can be shipped now.

        Raises:
            NotFoundError: there is no endpoint of this name.
        """
        with self._lock:
            endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise NotFoundError(f"no endpoint is called {name!r}")
        process = endpoint.process
        if process is not None and process.ready and process.alive:
            process.process.send_signal(signal.SIGUSR1)

    def status(self) -> list[EndpointStatus]:
        """Every endpoint as it is now, by name."""
        with self._lock:
            endpoints = sorted(self._endpoints.items())
        return [_status(name, endpoint) for name, endpoint in endpoints]

    def close(self) -> None:
        """Drain every endpoint, side by side, and end."""
        self._closed = True
        with self._lock:
            names = list(self._endpoints)
        stopping = [threading.Thread(target=self._stop_quietly, args=(name,)) for name in names]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._work.put(None)
        self._thread.join()

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _stop_quietly(self, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            self.stop(name)

    # ------------------------------------------------------------------------------------------------- how it is done

    def _endpoint(self, spec: ReplicaSpec) -> _Endpoint:
        with self._lock:
            if self._closed:
                raise UnavailableError("the supervisor is closed")
            endpoint = self._endpoints.get(spec.name)
            if endpoint is not None:
                if spec.socket is not None:
                    return endpoint
                host, port = endpoint.listener.getsockname()[:2]
                if spec.host != host or spec.port not in (0, port):
                    raise ConflictError(
                        f"{spec.name!r} answers on {host}:{port} already", fix="stop it before moving it elsewhere"
                    )
                return endpoint
            endpoint = _Endpoint(spec, self._listen(spec))
            self._endpoints[spec.name] = endpoint
            return endpoint

    def _listen(self, spec: ReplicaSpec) -> socket:
        if spec.socket is not None:
            return sockets.listen_local(spec.socket)
        if spec.port:
            return sockets.listen(spec.host, spec.port)
        remembered = self._ports()
        listener: socket | None = None
        if spec.name in remembered:
            with contextlib.suppress(UnavailableError):
                listener = sockets.listen(spec.host, remembered[spec.name])
        if listener is None:
            listener = sockets.listen(spec.host, 0)
        port = listener.getsockname()[1]
        if remembered.get(spec.name) != port:
            files.write(self._ports_path, json.dumps({**remembered, spec.name: port}).encode())
        return listener

    def _ports(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._ports_path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def _forget(self, endpoint: _Endpoint) -> None:
        with self._lock:
            self._endpoints.pop(endpoint.spec.name, None)
        endpoint.listener.close()

    def _spawn(self, endpoint: _Endpoint, spec: ReplicaSpec) -> _Process:
        name = ids.digest_bytes(spec.name.encode())[7:23]
        log = self._home.logs / f"replica-{name}.log"
        return self._in_thread(lambda: _Process(spec, endpoint.listener, self._home.run, log))

    def _in_thread(self, function: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  whatever it is belongs to the caller
                future.set_exception(error)

        self._work.put(run)
        return future.result()

    def _await_ready(self, process: _Process, spec: ReplicaSpec, within: float) -> None:
        if not process.poll_ready(within):
            process.kill()
            raise UnavailableError(f"the replica of {spec.name!r} was not ready within {within:g} s")
        if process.error is not None:
            process.kill()
            raise process.error

    def _run(self) -> None:
        """The supervisor's thread: starts processes when asked to, and looks after them in between."""
        while True:
            try:
                job = self._work.get(timeout=_TICK)
            except queue.Empty:
                self._look_after()
                continue
            if job is None:
                return
            job()

    def _look_after(self) -> None:
        if self._closed:
            return
        with self._lock:
            endpoints = list(self._endpoints.values())
        for endpoint in endpoints:
            if not endpoint.changing.acquire(blocking=False):
                continue
            try:
                self._mend(endpoint)
            except BedplateError as error:
                endpoint.error = error.message
                endpoint.process = None
                self._delay(endpoint)
            finally:
                endpoint.changing.release()

    def _mend(self, endpoint: _Endpoint) -> None:
        process, now = endpoint.process, clock.monotonic()
        if endpoint.listener.fileno() < 0:  # it was stopped meanwhile
            return
        if process is None:
            if now >= endpoint.not_before:
                endpoint.process = self._spawn(endpoint, endpoint.spec)
            return
        if process.alive:
            if process.poll_ready(0) and process.ready and now - process.started > _HEALTHY_SECONDS:
                endpoint.delay, endpoint.error = _FIRST_DELAY, ""
            return
        process.poll_ready(0)
        endpoint.error = (
            process.error.message if process.error else f"it ended with status {process.process.returncode}"
        )
        process.kill()
        endpoint.process = None
        endpoint.restarts += 1
        self._delay(endpoint)

    def _delay(self, endpoint: _Endpoint) -> None:
        endpoint.not_before = clock.monotonic() + endpoint.delay
        endpoint.delay = min(_LONGEST_DELAY, endpoint.delay * 2)


def _status(name: str, endpoint: _Endpoint) -> EndpointStatus:
    process = endpoint.process
    alive = process is not None and process.alive
    state: State = "restarting" if not alive else "running" if process and process.ready else "starting"
    return EndpointStatus(
        name=name,
        url=endpoint.url,
        state=state,
        digest=endpoint.spec.digest,
        pid=process.process.pid if process is not None and alive else None,
        restarts=endpoint.restarts,
        since=process.since if process is not None else "",
        error=endpoint.error,
    )


def _error_of(told: Any) -> BedplateError:
    """The error that a replica told before it ended, as the type it was."""
    if not isinstance(told, dict):
        return UnavailableError("the replica ended before it was ready", fix="see its log file")
    kinds = {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BedplateError) and kind is not BedplateError
    }
    kind = kinds.get(str(told.get("error")), UnavailableError)
    return kind(str(told.get("message")), where=told.get("where"), fix=told.get("fix"))
