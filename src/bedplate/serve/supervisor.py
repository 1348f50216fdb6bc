"""Keeps endpoints answering: owns their listening sockets, wakes, restarts and swaps their replicas, minds memory."""

import contextlib
import json
import logging
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from socket import socket
from typing import Literal, TypeVar

import msgspec

from bedplate import clock, files, ids
from bedplate.errors import BedplateError, ConflictError, NotFoundError, UnavailableError
from bedplate.records import ReplicaPrice
from bedplate.serve import sockets
from bedplate.serve.fleet import Fleet, Took
from bedplate.serve.holding import Holder
from bedplate.serve.process import Process
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.wishes import Asked
from bedplate.settings import Home

T = TypeVar("T")
Decide = Callable[[ReplicaSpec, Asked], None]
"""Whether what is asked of an endpoint may be done; puts it on record, or raises a :class:`BedplateError`."""

_log = logging.getLogger(__name__)
READY_SECONDS = 60.0
_TICK = 0.1
State = Literal["starting", "running", "restarting", "asleep"]


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as it is now.

    ``pids`` are its replicas, ``ready`` of which answer; an endpoint that is asleep has none until somebody connects.
    ``grpc`` is the host and port that answer gRPC, empty without it. ``memory`` in bytes is what they take.
    ``restarts`` counts crashes; ``error`` is why the last start failed, if so. ``took`` is of all replicas
    since the supervisor has had the endpoint, at ``price`` where one is known.
    """

    name: str
    url: str
    grpc: str
    state: State
    digest: ids.Digest
    pids: tuple[int, ...]
    ready: int
    memory: int
    restarts: int
    since: str
    took: Took
    price: ReplicaPrice | None
    error: str = ""


class Supervisor:
    """All endpoints of one home. Safe to use from several threads; :meth:`close` drains them.

    Their replicas together take no more than ``memory`` bytes, where it is not None: those of endpoints that may have
    none and are asked nothing go, the least recently used first, when another one needs room.

    ``decide`` is asked before anything is done that a caller asked a replica for; without it, nothing is.

    Processes are started from one thread that lives as long as this object, because the kernel ends a replica with the
    *thread* that started it (``PR_SET_PDEATHSIG``). When this process is killed, so are its replicas.
    """

    def __init__(self, home: Home, memory: int | None = None, decide: Decide | None = None) -> None:
        sockets.connections()  # one descriptor here for each connection that a replica has
        self._home, self._memory, self._decide = home, memory, decide
        self._fleets: dict[str, Fleet] = {}
        self._lock = threading.Lock()
        self._ports_path = home.run / "ports.json"
        self._work: deque[Callable[[], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = self._ended = False
        for left in home.run.glob("replica_*.json"):  # by an owner that was killed; its replicas died with it
            left.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------------------- what is asked

    def start(self, spec: ReplicaSpec, within: float = READY_SECONDS) -> str:
        """Serve ``spec`` and return its address once it answers, which it must do ``within`` so many seconds.

        An endpoint that runs already under this name is swapped: new replicas become ready first, then the old ones
        drain, and all answer on the same socket meanwhile. When the new ones do not become ready, the old ones stay.

        Raises:
            UnavailableError: the port is taken, there is no room, or the replica was not ready in time.
            BedplateError: the replica refused to start; the error is its own.
        """
        fleet, made = self._fleet(spec)
        with fleet.ordering:
            if not made and fleet.serves(spec):
                with fleet.changing:
                    fleet.adopt(spec)
                return fleet.url
            try:
                fleet.swap(spec, within)
            except BedplateError:
                if made:
                    self._forget(fleet)
                    fleet.stop()
                raise
            return fleet.url

    def hold(self, spec: ReplicaSpec) -> str:
        """Serve ``spec``, with no replica until somebody connects, if it may have none; returns its address.

        Raises:
            UnavailableError: the port is taken.
            BedplateError: as :meth:`start`, where there must be a replica.
        """
        if spec.scale.least(clock.now()):
            return self.start(spec)
        fleet, _ = self._fleet(spec)
        fleet.begun = True
        self._ring()  # its socket has to be listened to from now on
        return fleet.url

    def stop(self, name: str) -> None:
        """Drain an endpoint and close its socket.

        Raises:
            NotFoundError: there is no endpoint of this name.
        """
        fleet = self._named(name)
        with fleet.ordering:
            self._forget(fleet)
            fleet.stop()

    def seal(self, name: str) -> None:
        """Ask the replicas of an endpoint to seal their prediction logs, so that they can be shipped now.

        Raises:
            NotFoundError: there is no endpoint of this name.
        """
        for process in tuple(self._named(name).replicas):
            if process.ready and process.alive:
                process.signal(signal.SIGUSR1)

    def status(self) -> list[EndpointStatus]:
        """Every endpoint as it is now, by name."""
        with self._lock:
            fleets = sorted(self._fleets.items())
        return [_status(name, fleet) for name, fleet in fleets]

    def close(self) -> None:
        """Drain every endpoint, side by side, and end."""
        with self._lock:
            self._closed = True
            names = list(self._fleets)
        stopping = [threading.Thread(target=self._stop_quietly, args=(name,)) for name in names]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if not self._ended:
            self._ended = True
            self._ring()
            self._thread.join()
            os.close(self._bell)

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _stop_quietly(self, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            self.stop(name)

    # ------------------------------------------------------------------------------------------------- how it is done

    def _named(self, name: str) -> Fleet:
        with self._lock:
            fleet = self._fleets.get(name)
        if fleet is None:
            raise NotFoundError(f"no endpoint is called {name!r}")
        return fleet

    def _fleet(self, spec: ReplicaSpec) -> tuple[Fleet, bool]:
        """The fleet of this name, and whether it was made just now."""
        with self._lock:
            if self._closed:
                raise UnavailableError("the supervisor is closed")
            fleet = self._fleets.get(spec.name)
            if fleet is not None:
                if spec.socket is None:
                    _stays(spec.host, spec.port, spec.name, fleet.listener)
                    if fleet.grpc_listener is None:
                        fleet.grpc_listener = self._listen_grpc(spec)
                    elif spec.grpc is not None:
                        _stays(spec.host, spec.grpc, spec.name, fleet.grpc_listener)
                return fleet, False
            listener = self._listen(spec)
            try:
                fleet = Fleet(spec, listener, self._listen_grpc(spec), self._spawn)
            except BedplateError:
                listener.close()
                raise
            self._fleets[spec.name] = fleet
        return fleet, True

    def _listen(self, spec: ReplicaSpec) -> socket:
        if spec.socket is not None:
            return sockets.listen_local(spec.socket)
        return self._open(spec.name, spec.host, spec.port)

    def _listen_grpc(self, spec: ReplicaSpec) -> socket | None:
        if spec.grpc is None or spec.socket is not None:
            return None
        return self._open(f"{spec.name} over gRPC", spec.host, spec.grpc)

    def _open(self, name: str, host: str, port: int) -> socket:
        """A socket on the port that is asked for, or on the one that ``name`` had before, if nobody has it now."""
        if port:
            return sockets.listen(host, port)
        remembered = self._ports()
        listener: socket | None = None
        if name in remembered:
            with contextlib.suppress(UnavailableError):
                listener = sockets.listen(host, remembered[name])
        if listener is None:
            listener = sockets.listen(host, 0)
        port = listener.getsockname()[1]
        if remembered.get(name) != port:
            files.write(self._ports_path, json.dumps({**remembered, name: port}).encode())
        return listener

    def _ports(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._ports_path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def _forget(self, fleet: Fleet) -> None:
        with self._lock:
            self._fleets.pop(fleet.spec.name, None)

    # ------------------------------------------------------------------------------------------- the thread of its own

    def _run(self) -> None:
        """Start processes when asked to, wake who is connected to, and look after all of them in between."""
        due = clock.monotonic()
        while True:
            self._wait(max(0.0, due - clock.monotonic()))
            while self._work:
                self._work.popleft()()
            if self._ended:
                return
            self._look_after()
            due = clock.monotonic() + _TICK

    def _wait(self, seconds: float) -> None:
        """Until the time is over, the bell rings, or somebody connects to an endpoint that is asleep."""
        end = clock.monotonic() + seconds
        while not self._listen_until(end):
            pass
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def _listen_until(self, end: float) -> bool:
        """Hear what is said of connections; whether there is more to do than that."""
        poll, heard = select.poll(), dict[int, tuple[Fleet, Holder]]()
        poll.register(self._bell, select.POLLIN)
        with self._lock:
            fleets = list(self._fleets.values())
        for fleet in fleets:
            if not fleet.begun or fleet.stopped or fleet.changing.locked():
                continue
            for listener in fleet.listeners(fleet.spec) if fleet.wakes else ():
                poll.register(listener, select.POLLIN)
            for holder in fleet.holders():
                poll.register(holder.socket, select.POLLIN)
                heard[holder.socket.fileno()] = fleet, holder
        found = {descriptor for descriptor, _ in poll.poll(max(0.0, end - clock.monotonic()) * 1000)}
        ended = False
        for descriptor in found & heard.keys():
            fleet, holder = heard[descriptor]
            if fleet.changing.acquire(blocking=False):
                try:
                    holder.hear()
                finally:
                    fleet.changing.release()
            ended = ended or holder.ended
        return ended or not found or bool(found - heard.keys())

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _in_thread(self, function: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  whatever it is belongs to the caller
                future.set_exception(error)

        self._work.append(run)
        self._ring()
        return future.result()

    def _spawn(self, fleet: Fleet, spec: ReplicaSpec) -> Process | None:
        name = ids.digest_bytes(spec.name.encode())[7:23]
        log = self._home.logs / f"replica-{name}.log"
        needed = fleet.expected(spec)
        return self._in_thread(
            lambda: Process(spec, fleet.listeners(spec), self._home.run, log) if self._room(needed, fleet) else None
        )

    def _room(self, needed: int, asking: Fleet | None = None) -> bool:
        """Whether there are so many bytes for replicas; if not, endpoints that nobody needs now let theirs go."""
        if self._memory is None:
            return True
        with self._lock:
            fleets = list(self._fleets.values())
        over = sum(fleet.memory() for fleet in fleets) + needed - self._memory
        missing = over - sum(fleet.going() for fleet in fleets)
        for fleet in sorted(fleets, key=lambda fleet: fleet.used):
            if missing <= 0:
                break
            if fleet is asking or not fleet.changing.acquire(blocking=False):
                continue
            try:
                if fleet.may_rest():
                    missing -= fleet.memory()
                    fleet.rest()
            finally:
                fleet.changing.release()
        return over <= 0

    def _look_after(self) -> None:
        if self._closed:
            return
        self._room(0)  # what grew since it was started counts as well
        with self._lock:
            fleets = list(self._fleets.values())
        for fleet in fleets:
            if not fleet.changing.acquire(blocking=False):
                continue
            try:
                fleet.look()
            except BedplateError as error:
                fleet.put_off(error)
            finally:
                fleet.changing.release()
            for process in fleet.processes():
                while process.asked:  # on record first, which takes a transaction: not in this thread
                    arguments = fleet, process, process.asked.pop(0)
                    threading.Thread(target=self._carry_out, args=arguments, name="asked", daemon=True).start()

    def _carry_out(self, fleet: Fleet, process: Process, asked: Asked) -> None:
        """Do what somebody asked a replica for its endpoint, if they may."""
        try:
            if self._decide is None:
                raise UnavailableError("nobody here decides about loading and unloading")
            with fleet.ordering:
                if fleet.stopped:
                    raise UnavailableError(f"{fleet.spec.name!r} is stopped")
                if asked.wish == "unload":
                    fleet.check_rest()
                self._decide(fleet.spec, asked)
                process.answer(asked)
                with fleet.changing:
                    if asked.wish == "unload":
                        fleet.rest()
                    else:
                        fleet.wake()
        except BedplateError as error:
            process.answer(asked, error)
        except Exception:  # noqa: BLE001  whoever asked is told, whatever it was
            _log.exception("what was asked of %s could not be done", fleet.spec.name)
            process.answer(asked, UnavailableError("it could not be done now", fix="try again"))


def _stays(host: str, port: int, name: str, listener: socket) -> None:
    """Whether an endpoint that answers on ``listener`` may be told that it answers on this host and port."""
    now, taken = listener.getsockname()[:2]
    if host != now or port not in (0, taken):
        raise ConflictError(f"{name!r} answers on {now}:{taken} already", fix="stop it before moving it elsewhere")


def _status(name: str, fleet: Fleet) -> EndpointStatus:
    alive = [process for process in tuple(fleet.replicas) if process.alive]
    ready = [process for process in alive if process.ready]
    # One that has no replica yet because its first is on its way is not waiting for somebody to connect.
    begins = fleet.asleep and not (fleet.wakes and fleet.begun)
    state: State = "restarting"
    if fleet.asleep:
        state = "starting" if begins else "asleep"
    elif alive:
        state = "running" if ready else "starting"
    return EndpointStatus(
        name=name,
        url=fleet.url,
        grpc=fleet.grpc,
        state=state,
        digest=fleet.spec.digest,
        pids=tuple(process.pid for process in alive),
        ready=len(ready),
        memory=fleet.memory(),
        restarts=fleet.restarts,
        since=max((process.since for process in alive), default=""),
        took=fleet.took(),
        price=fleet.spec.price,
        error=fleet.error,
    )
