"""The replicas of one endpoint: as many as are wanted, each started again when it ends, all on the same sockets."""

import contextlib
import select
import threading
from collections.abc import Callable, Iterator
from socket import socket

import msgspec

from bedplate import clock
from bedplate.errors import BedplateError, StateError, UnavailableError
from bedplate.serve import sockets
from bedplate.serve.holding import Descriptor, Holder, Orphan, attended, stirred
from bedplate.serve.process import Process
from bedplate.serve.scaling import Scaler
from bedplate.serve.spec import ReplicaSpec

Spawn = Callable[["Fleet", ReplicaSpec], Process | None]
"""Starts a replica of a fleet; None while the host has no room for one."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0
_HEALTHY_SECONDS = 30.0
_SILENT_SECONDS, _START_SECONDS = 60.0, 60.0
"""A replica that told nothing for so long, or is not ready after it, does not live, whatever its process does."""
_MEASURE_SECONDS = 5.0
_PAUSE = 0.02
_ATTENTION_SECONDS = 30.0
"""A client has so long to read that its calls are to be asked elsewhere."""
_IDLE_SECONDS = 2.0
"""An endpoint that was asked nothing for so long may lose its replicas to one that needs their memory."""
_BASE_MEMORY = 96 << 20
"""What a replica takes beside its model, until one was measured."""


class Took(msgspec.Struct, frozen=True):
    """Seconds that replicas ran, idle or not, and what they did: see :class:`~bedplate.serve.scaling.Load`."""

    seconds: float = 0.0
    predictions: int = 0
    late: int = 0
    faults: int = 0

    def __add__(self, other: "Took") -> "Took":
        return Took(
            self.seconds + other.seconds,
            self.predictions + other.predictions,
            self.late + other.late,
            self.faults + other.faults,
        )


class Fleet:
    """Who looks after it holds :attr:`changing`, for a moment; everything here but :meth:`memory` is for that one.

    Who has it do what takes long (:meth:`swap`, :meth:`stop`) holds :attr:`ordering` throughout, and :attr:`changing`
    only where something changes: what is killed meanwhile is started again, and its connections are given on.
    """

    def __init__(self, spec: ReplicaSpec, listener: socket, grpc_listener: socket | None, spawn: Spawn) -> None:
        self.spec, self.listener, self.grpc_listener = spec, listener, grpc_listener
        self.ordering, self.changing = threading.Lock(), threading.Lock()
        self.begun = False
        """Whether it was started or held once: before, its first replica is the business of whoever starts it."""
        self.replicas: list[Process] = []
        self.wanted = 0
        self.restarts = 0
        self.error = ""
        self.used = clock.monotonic()
        self._spawn = spawn
        self._scaler = Scaler()
        self._starting: list[Process] = []
        self._leaving: list[Process] = []
        self._orphans: list[Orphan] = []
        self._dismissed: list[tuple[float, list[Descriptor]]] = []
        self._took = Took()
        self._delay, self._not_before = _FIRST_DELAY, 0.0
        self._measured = 0
        self._measure_at = 0.0

    @property
    def url(self) -> str:
        """Where it answers."""
        if self.spec.socket is not None:
            return f"unix:{self.spec.socket}"
        return f"http://{sockets.address(self.listener)}"

    @property
    def grpc(self) -> str:
        """Host and port that answer gRPC; empty without it."""
        return "" if self.grpc_listener is None or self.spec.grpc is None else sockets.address(self.grpc_listener)

    def listeners(self, spec: ReplicaSpec) -> list[socket]:
        """What a replica with this spec answers on."""
        return [self.listener, *([self.grpc_listener] if spec.grpc is not None and self.grpc_listener else [])]

    @property
    def asleep(self) -> bool:
        """Whether it has no replica until somebody connects."""
        return self.wanted == 0

    @property
    def wakes(self) -> bool:
        """Whether who connects now wakes it: nobody is starting a replica already."""
        return self.asleep and not self._starting

    @property
    def stopped(self) -> bool:
        """Whether its socket is closed."""
        return self.listener.fileno() < 0

    @property
    def kept(self) -> int:
        """How many connections wait here for a replica to go on with them, whether or not anything came on them."""
        return len(self._orphans)

    # ------------------------------------------------------------------------------------------------------- memory

    def expected(self, spec: ReplicaSpec | None = None) -> int:
        """The bytes that one more replica will take: what one took, or a guess from the size of the bundle."""
        spec = spec or self.spec
        if self._measured and spec.digest == self.spec.digest:
            return self._measured
        with contextlib.suppress(OSError):
            return _BASE_MEMORY + 2 * sum(file.stat().st_size for file in spec.bundle.iterdir())
        return _BASE_MEMORY

    def memory(self) -> int:
        """The bytes that its processes take; of those not measured yet, what is expected."""
        expected = self.expected()
        return sum(process.memory or expected for process in self.processes())

    def going(self) -> int:
        """The part of :meth:`memory` that will soon be free."""
        return sum(process.memory for process in tuple(self._leaving))

    def took(self) -> Took:
        """What its replicas took and did since this one began, those that have ended as well."""
        return sum((_took(process) for process in (*self.replicas, *self._leaving)), self._took)

    def may_rest(self) -> bool:
        """Whether nobody needs it now, and it may have no replica."""
        if self.spec.socket is not None or self._starting or not self.replicas:
            return False
        asked = any(process.load is None or process.load.in_flight >= 0.5 for process in self.replicas)
        return not asked and clock.monotonic() - self.used > _IDLE_SECONDS and self.spec.scale.least(clock.now()) == 0

    def check_rest(self) -> None:
        """Whether it may have no replica now, whoever needs it.

        Raises:
            StateError: it may not.
        """
        least = self.spec.scale.least(clock.now())
        if least:
            raise StateError(
                f"{self.spec.name!r} keeps at least {least} replica{'s' if least > 1 else ''} now",
                fix="let it have none while nobody asks: serve.replicas.min: 0",
            )

    def wake(self) -> None:
        """Have a replica, if it has none: somebody needs it."""
        self.wanted, self.used = max(1, self.wanted), clock.monotonic()

    def rest(self) -> None:
        """Let every replica go; the next connection wakes one."""
        self.wanted = 0
        self._scaler.forget()
        self._shrink()

    # -------------------------------------------------------------------------------------------------- what is asked

    def swap(self, spec: ReplicaSpec, within: float) -> None:
        """Have replicas of ``spec`` answer, and then let those that answer now go.

        The first must be ready before others are started: a release that is not costs one process.

        Raises:
            UnavailableError: there is no room, or they were not ready in time; what answers now goes on.
            BedplateError: the replica refused to start; the error is its own.
        """
        end = clock.monotonic() + within
        have = sum(process.alive for process in tuple(self.replicas))
        count = max(1, spec.scale.least(clock.now()), min(have, spec.scale.max))
        try:
            for group in (1, count - 1):
                begun = [self._begin(spec, end, within) for _ in range(group)]
                for process in begun:
                    _await_ready(process, end, within)
        except BedplateError:
            with self.changing:
                for process in self._starting:
                    process.kill()
                self._starting = []
            raise
        with self.changing:
            old, self.replicas, self._starting = self.replicas, self._starting, []
            if spec.digest != self.spec.digest:
                self._measured = 0
            self.adopt(spec)
            self.begun = True
            self.wanted, self.error, self.used = count, "", clock.monotonic()
            self._delay, self._not_before, self._measure_at = _FIRST_DELAY, 0.0, 0.0
            self._leave(old)
        self._wait_for_leaving()

    def serves(self, spec: ReplicaSpec) -> bool:
        """Whether this very spec is served, or will be when somebody connects; how many of it does not matter."""
        same = msgspec.structs.replace(spec, scale=self.spec.scale) == self.spec
        return same and (self.asleep or any(process.alive and process.ready for process in self.replicas))

    def adopt(self, spec: ReplicaSpec) -> None:
        """Take a spec that is served already: from now on there are as many replicas as it says."""
        self.spec = spec
        self._scaler.forget()

    def stop(self) -> None:
        """Close the sockets, let every replica go, and wait for it."""
        with self.changing:
            for listener in (self.listener, self.grpc_listener):
                if listener is not None:
                    listener.close()
            self.wanted = 0
            self._leave(self.replicas)
            self.replicas = []
        self._wait_for_leaving()
        self._orphans, self._dismissed = [], []

    def _begin(self, spec: ReplicaSpec, end: float, within: float) -> Process:
        while (process := self._spawn(self, spec)) is None:
            if clock.monotonic() > end:
                raise UnavailableError(
                    f"there was no memory for a replica of {spec.name!r} within {within:g} s",
                    fix="stop an endpoint, let others have no replica while idle (serve.replicas.min: 0), "
                    "or raise BEDPLATE_MEMORY",
                )
            threading.Event().wait(_PAUSE)
        with self.changing:
            self._starting.append(process)
        return process

    def _leave(self, processes: list[Process]) -> None:
        for process in processes:
            process.drain()
        self._leaving += processes

    def _wait_for_leaving(self) -> None:
        while True:
            with self.changing:
                self._see_off()
                self._give_on()
                if not self._leaving:
                    return
            threading.Event().wait(_PAUSE)

    # --------------------------------------------------------------------------------------------------- looking after

    def look(self) -> None:
        """Do what is due: bury the dead, hear the living, and have as many as are wanted.

        Raises:
            BedplateError: a replica cannot be started.
        """
        if self.stopped or not self.begun:
            return
        now = clock.monotonic()
        self._dismissed = [(until, here) for until, all in self._dismissed if until > now and (here := attended(all))]
        self._see_off()
        self._bury(now)
        self._measure(now)
        loads = [process.load for process in self.replicas if process.ready and process.load is not None]
        self._give_on()
        if self.wakes and (self._stirred() or self._knocked()):
            self.wake()
        self.wanted = self._scaler.wanted(
            self.spec.scale, now, clock.now(), self.wanted, loads, now - self.used
        )  # fmt: skip
        self._grow(now)
        self._shrink()

    def put_off(self, error: BedplateError) -> None:
        """A replica could not be started: try again later."""
        self.error = error.message
        self._back_off(clock.monotonic())

    def _knocked(self) -> bool:
        """Whether somebody connected whom nobody has answered."""
        poll = select.poll()
        for listener in self.listeners(self.spec):
            poll.register(listener, select.POLLIN)
        return bool(poll.poll(0))

    def _stirred(self) -> bool:
        """Whether a client that was connected while there was a replica waits for an answer."""
        self._orphans, waits = stirred(self._orphans)
        return waits

    def _bury(self, now: float) -> None:
        for process in tuple(self.replicas):
            before = process.load.predictions if process.load is not None else 0
            process.hear()
            load = process.load
            if load is None or load.predictions != before or load.in_flight >= 0.5:  # one that starts is waited for
                self.used = now
            if process.ready and now - process.started > _HEALTHY_SECONDS:
                self._delay, self.error = _FIRST_DELAY, ""
            patience = _SILENT_SECONDS if process.ready else _START_SECONDS
            silent = now - process.heard > patience
            if process.alive and not silent:
                continue
            process.kill()
            self._inherit(process)
            ended = f"it told nothing for {patience:g} s" if silent else f"it ended: {process.returncode}"
            self.error = process.error.message if process.error else ended
            self.replicas.remove(process)
            self.restarts += 1
            self._back_off(now)

    def _see_off(self) -> None:
        """Let go of those that have ended: what they had not answered, and what they leave, is for others."""
        staying = []
        for process in self._leaving:
            process.hear()
            process.holder.hear()
            over = process.over()
            self._orphans += process.holder.parted
            process.holder.parted.clear()
            if over:
                self._inherit(process)
            else:
                staying.append(process)
        self._leaving = staying

    def _inherit(self, process: Process) -> None:
        """Take over what one that has ended leaves: connections, and what it did."""
        self._took += _took(process)
        self._orphans += process.orphans
        if process.holder.dismissed:
            self._dismissed.append((clock.monotonic() + _ATTENTION_SECONDS, process.holder.dismissed))

    def _give_on(self) -> None:
        """Have replicas go on with the connections of those that ended, each with its share."""
        ready = [process for process in self.replicas if process.ready and process.alive]
        orphans, self._orphans = self._orphans, [] if ready else self._orphans
        for number, process in enumerate(ready):
            self._orphans += process.holder.give(orphans[number :: len(ready)])

    def holders(self) -> list[Holder]:
        """What has to be heard while nothing else is to be done here."""
        return [process.holder for process in self.processes() if not process.holder.ended]

    def _measure(self, now: float) -> None:
        fresh = [process for process in self.replicas if process.ready and not process.memory]
        if now < self._measure_at and not fresh:
            return
        self._measure_at = now + _MEASURE_SECONDS
        for process in self.processes():
            process.measure()
        self._measured = max((process.memory for process in self.replicas if process.ready), default=self._measured)

    def _grow(self, now: float) -> None:
        while len(self.replicas) < self.wanted and now >= self._not_before:
            process = self._spawn(self, self.spec)
            if process is None:
                size = self.expected() >> 20
                self.error = f"it waits for about {size} MiB: BEDPLATE_MEMORY is what all replicas may take together"
                return
            self.replicas.append(process)

    def _shrink(self) -> None:
        while len(self.replicas) > self.wanted:
            self._leave([self.replicas.pop()])

    def _back_off(self, now: float) -> None:
        self._not_before = now + self._delay
        self._delay = min(_LONGEST_DELAY, self._delay * 2)

    def processes(self) -> Iterator[Process]:
        """All of them: those that answer, those that start, and those on their way out."""
        yield from tuple(self.replicas)
        yield from tuple(self._starting)
        yield from tuple(self._leaving)


def _await_ready(process: Process, end: float, within: float) -> None:
    if not process.await_ready(max(0.0, end - clock.monotonic())):
        raise UnavailableError(f"the replica of {process.spec.name!r} was not ready within {within:g} s")
    if process.error is not None:
        raise process.error


def _took(process: Process) -> Took:
    load = process.load
    return Took(process.seconds) if load is None else Took(process.seconds, load.predictions, load.late, load.faults)
