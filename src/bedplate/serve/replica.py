"""One replica: ``python -m bedplate.serve.replica <spec.json> <pipe> <parent> <holder> <socket> [<socket for gRPC>]``.

With the spec alone it is its own master, as in a container: it opens its sockets, and tells nobody but its log.

It verifies and loads its bundle, says ``ready`` on the pipe (or why not) and then a few times a second how it fares,
answers on the sockets it inherited, and drains when told to end. It dies with its supervisor.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import uvloop

from bedplate import bundle, online
from bedplate.bundle import Manifest
from bedplate.errors import BedplateError
from bedplate.http import Limits
from bedplate.http.server import Server
from bedplate.journal import Writer
from bedplate.records import ModelSignature
from bedplate.serve import batching, edges, predictors, quotas, repository, sockets, threads
from bedplate.serve import spec as specs
from bedplate.serve.access import Access
from bedplate.serve.batching import Batcher
from bedplate.serve.candidate import Candidate
from bedplate.serve.deidentified import SafeLog
from bedplate.serve.durations import Durations
from bedplate.serve.features import Features
from bedplate.serve.grpc import GrpcServer
from bedplate.serve.handlers import Inference
from bedplate.serve.holding import Held
from bedplate.serve.joining import JoiningPredictor
from bedplate.serve.predictors import FeatureReader, Predictor, Stepped
from bedplate.serve.quotas import Meters
from bedplate.serve.rest import RestApplication
from bedplate.serve.routing import Router
from bedplate.serve.scaling import Meter
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.tensors import DTYPES
from bedplate.serve.threads import Threads
from bedplate.serve.wishes import Wishes

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_TICK = 0.2


class Say(Protocol):
    """Tells the supervisor something; what it does not read in time is lost, and nothing waits for it."""

    def __call__(self, state: str, **more: object) -> None: ...


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


class CandidateReplica:
    """A candidate release: it answers what the endpoint's replicas pass on, and keeps no log of its own.

    Raises:
        BedplateError: the bundle cannot be trusted, or a file cannot be opened.
    """

    def __init__(self, spec: ReplicaSpec) -> None:
        manifest, predictor, self.features, _computed = _load(spec)
        self._batcher = _batcher(spec, manifest, predictor, self.features)
        self._candidate = Candidate(self._batcher)
        self._drain = spec.drain

    async def serve(self, descriptors: Sequence[int], say: Say) -> None:
        """Answer on the socket until told to end."""
        ending = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
        listener = socket.socket(fileno=descriptors[0])
        server = await asyncio.start_unix_server(self._candidate.talk, sock=listener)
        say("ready")
        meter = Meter()
        while not ending.is_set():
            say("load", **msgspec.structs.asdict(meter.read(0, 0.0, 0)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), _TICK)
        server.close()
        end = asyncio.get_running_loop().time() + self._drain
        while self._candidate.busy and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        await self._candidate.close()
        self._batcher.close()
        self.features.close()


class Replica:
    """The parts of one replica, put together from its spec; ``held``, where others go on with what it has in hand.

    Raises:
        BedplateError: the bundle cannot be trusted, or a file cannot be opened.
    """

    def __init__(self, spec: ReplicaSpec, wishes: Wishes, held: Held | None = None) -> None:
        self.spec, self.held = spec, held
        manifest, predictor, self.features, computed = _load(spec)
        self.meters = Meters(spec.journal / quotas.FILE, spec.quota, spec.unit)
        self.access = Access(spec.snapshot, spec.snapshot_key, spec.use_case, spec.name, self.meters)
        self.journal = Writer(
            spec.journal, spec.mode, seal_seconds=spec.seal, backlog=None if held is None else held.backlog
        )
        self.batcher = _batcher(spec, manifest, predictor, self.features)
        self.router = Router(spec.digest, str(manifest.version), spec.evidence, manifest.signature)
        self.router.follow(self.access.routes.get(spec.name))
        safe = None if spec.log is None else SafeLog(spec.log, spec.use_case, manifest.signature, _stored(predictor))
        self.inference = Inference(spec, manifest, self.access, self.batcher, self.journal, self.router, safe)
        self.inference.metrics.settings = {"threads": computed.count, "batch_rows": self.batcher.plan.rows}
        if isinstance(predictor, Stepped):  # anew: what was computed to warm up does not count
            predictor.steps = self.inference.metrics.steps = {name: Durations() for name in predictor.steps}
        routes = [*edges.routes(self.inference, predictor, manifest), *repository.routes(self.inference, wishes)]
        self.looked_up = Features(self.access, self.features, spec)
        routes += self.looked_up.routes(Limits(body=64 << 10, depth=4, receipt=spec.receipt))
        self.app = RestApplication(self.inference, _release(), routes)
        self.grpc = GrpcServer(self.inference, _release(), wishes, None if held is None else held.calls)

    async def serve(self, descriptors: Sequence[int], say: Say) -> None:
        """Answer on the sockets until told to end; says when the first request can come, and then its load."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: loop.run_in_executor(None, self._seal))
        descriptor, *more = descriptors
        for one in more:
            self.grpc.start(socket.socket(fileno=one))
        server = Server(
            self.app.__rsgi__,
            descriptor,
            at_once=self.app.at_once,
            most=sockets.connections(),
            places=None if self.held is None else self.held.places,
            who=self.app.who,
            turns=self.inference.turns,
        )
        self.batcher.together = server.together
        await server.start()
        if self.held is not None:
            self.held.start(server)
        ticking = [asyncio.create_task(self._tick(say)), asyncio.create_task(self.inference.pressure.watch())]
        say("ready")
        await ending.wait()
        self.inference.end(self.spec.drain)
        server.stop_accepting()
        await asyncio.gather(self._drain(), *(self.grpc.stop(self.spec.drain) for _ in more))
        await server.close(self.spec.drain)
        if self.held is not None:
            await self.held.said(self.spec.drain)
        for task in ticking:
            task.cancel()
        self.batcher.close()
        self.router.close()
        self.meters.close()
        self.journal.close()
        self.looked_up.close()
        self.features.close()

    async def _tick(self, say: Say) -> None:
        loop, meter, metrics = asyncio.get_running_loop(), Meter(), self.inference.metrics
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            load = meter.read(metrics.in_flight, loop.time() - due, metrics.predictions, metrics.late, metrics.faults)
            say("load", **msgspec.structs.asdict(load))
            try:
                self.meters.tick()
                self.access.refresh()
                self.router.follow(self.access.routes.get(self.spec.name))
                self.router.tick()
            except Exception:  # noqa: BLE001  what fails here must not end the ticking: the old rules would never end
                _log.exception("the access snapshot or the route could not be refreshed")

    async def _drain(self) -> None:
        """Tell every connection that this was its last answer, and wait until nothing is in flight.

        Clients that keep connections alive get at least two ticks to meet the flag.
        """
        self.app.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self.spec.drain
        await asyncio.sleep(2 * _TICK)
        while self.inference.metrics.in_flight and loop.time() < end:
            await asyncio.sleep(0.02)

    def _seal(self) -> None:
        try:
            self.journal.seal()
            self.looked_up.seal()
        except BedplateError as error:
            _log.error("a log could not be sealed: %s", error)


def _held(spec: ReplicaSpec, holder: int) -> Held | None:
    """What lets others go on with the connections of this process; None on a system that has no such memory."""
    try:
        return Held(holder, sockets.connections(), spec.max_body)
    except (OSError, ValueError) as error:
        _log.warning("what this process has in hand is lost should it be killed: %s", error)
        return None


def _load(spec: ReplicaSpec) -> tuple[Manifest, Predictor, online.Online, Threads]:
    manifest = bundle.verify(spec.bundle, public_key=spec.public_key, digest=spec.digest)
    features = online.Scoped(online.open(spec.online, read_only=True), spec.use_case)
    predictor, computed = threads.choose(
        lambda count: predictors.load(spec.bundle, manifest, count, spec.provider),
        features,
        manifest.signature,
        min(spec.threads, len(os.sched_getaffinity(0))),
    )
    _log.info("the model computes with %d threads on %s: %s", computed.count, spec.provider, computed.reason)
    _warm_up(predictor, manifest.signature, features)
    return manifest, predictor, features, computed


def _batcher(spec: ReplicaSpec, manifest: Manifest, predictor: Predictor, features: FeatureReader) -> Batcher:
    plan = batching.sweep(predictor, features, manifest.signature, spec.budget) if spec.batching else batching.OFF
    _log.info("batches of up to %d rows: %s", plan.rows, plan.reason)
    return Batcher(predictor, features, plan)


def _stored(predictor: Predictor) -> tuple[str, ...] | None:
    """The features that a model reads, where it makes others of the request; None where it makes none."""
    if not isinstance(predictor, JoiningPredictor):
        return None
    return tuple(column for view in predictor.config.views for column in view.columns)


def _warm_up(predictor: Predictor, signature: ModelSignature, features: FeatureReader) -> None:
    """Ask once before anybody waits, for the first answer allocates. Zeros may make no sense: a refusal is fine."""
    inputs = {}
    for tensor in signature.inputs:
        shape = [1 if size == -1 else size for size in tensor.shape]
        inputs[tensor.name] = np.full(shape, "" if tensor.datatype == "BYTES" else 0, DTYPES[tensor.datatype])
    try:
        predictor.predict(inputs, features)
    except BedplateError as error:
        _log.info("the model refused zeros: %s", error)


def _release() -> str:
    """The version of Bedplate, as the protocol's server metadata gives it."""
    try:
        return version("bedplate")
    except PackageNotFoundError:  # run from a source tree
        return "source"


def main(arguments: list[str]) -> int:
    """Run one replica to its end; the exit status is 0 after a drain."""
    path, *inherited = arguments
    if inherited:
        pipe, parent, holder, *descriptors = map(int, inherited)
        die_with_parent(parent)
        os.set_blocking(pipe, False)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)

    def say(state: str, **more: object) -> None:
        if not inherited:
            if state != "load":
                _log.info("%s", state)
            return
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(pipe, msgspec.json.encode({"state": state, **more}) + b"\n")

    try:
        spec = specs.decode(Path(path).read_bytes())
        if not inherited:
            ports = [spec.port, *([] if spec.grpc is None else [spec.grpc])]
            descriptors = [sockets.listen(spec.host, port).detach() for port in ports]
        held = _held(spec, holder) if inherited and spec.socket is None else None
        wishes = Wishes(say, sys.stdin.fileno() if inherited else None)
        replica = Replica(spec, wishes, held) if spec.socket is None else CandidateReplica(spec)
    except BedplateError as error:
        _log.error("not started: %s", error)
        say("failed", error=error.to_dict())
        return error.exit_code
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not walk it again and again
    uvloop.run(replica.serve(descriptors, say))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
