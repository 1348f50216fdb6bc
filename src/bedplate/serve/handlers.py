"""One prediction, whatever protocol carried it: admit, predict, check, give it an id, count it, log it.

A protocol is an edge around :class:`Inference`. It calls :meth:`Inference.admit` before it receives a body, makes
a :class:`~bedplate.serve.tensors.Call` of what it received, awaits :meth:`Inference.answer`, and encodes the
:class:`~bedplate.serve.tensors.Answered`. Errors of :mod:`bedplate.errors` come out of all; how they are said is the
protocol's.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import msgspec

from bedplate import clock, ids
from bedplate.bundle import Manifest
from bedplate.errors import (
    BedplateError,
    DeadlineError,
    InternalError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from bedplate.http import ResourceRef, places
from bedplate.http.turns import Turns
from bedplate.ids import Digest
from bedplate.journal import Writer, predictions
from bedplate.records import Exposure, TraceContext
from bedplate.serve.access import Access, Admitted
from bedplate.serve.arrival import Arrival
from bedplate.serve.batching import Batcher
from bedplate.serve.deidentified import SafeLog
from bedplate.serve.metrics import Metrics
from bedplate.serve.predictors import Answer
from bedplate.serve.pressure import Pressure
from bedplate.serve.routing import Routed, Router, split_key
from bedplate.serve.snapshot import Route
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.tensors import Answered, Arrays, Call, check, logged, plain

_log = logging.getLogger(__name__)
ENTITY = "Endpoint"
_MOST_HEADS = 1000
_KILLED = "the replica was killed"
"""Why a stream broke off whose process says nothing any more."""


class _Own(msgspec.Struct):
    """The fields of a :class:`~bedplate.records.Prediction` that differ from one to the next.

    The others are encoded once for each caller and release: together that is a third of the work.
    """

    entity: str
    exposure: Exposure | None
    features: dict[str, Any]
    id: str
    inputs: dict[str, Any]
    latency_ms: float
    outputs: dict[str, Any]
    replayed: bool
    request_id: str
    time: str


class _Pieces(_Own):
    """The same of an answer in pieces."""

    ended: str


Outcome = Answered | Exception
"""What comes of a request."""


class Caller(Protocol):
    """Who asks, and the way to say which record is about the request that it is answered now.

    Requests of one ``connection`` come one after the other.
    """

    @property
    def connection(self) -> object: ...

    def claim(self, record: str) -> None: ...


class Inference:
    """The model of one replica, with everything a prediction needs. To be used from one event loop."""

    def __init__(
        self,
        spec: ReplicaSpec,
        manifest: Manifest,
        access: Access,
        batcher: Batcher,
        journal: Writer,
        router: Router,
        safe: SafeLog | None = None,
    ) -> None:
        """``safe``: what the log may hold of people, where the use case de-identifies."""
        self.spec = spec
        self.access = access
        self.router = router
        self.version = str(manifest.version)
        self.signature = manifest.signature
        self.metrics = Metrics(spec.name, self.version, access.meters, spec.price, spec.budget)
        self.metrics.router = router
        self.resource = ResourceRef(ENTITY, spec.name)
        self._unit = spec.unit
        self._outputs = [output.name for output in manifest.signature.outputs]
        self.turns = Turns()
        self.pressure = Pressure(spec, batcher, self.metrics, self.turns)
        self.queues = batcher.queues
        self._batcher = batcher
        self._journal = journal
        self._durable = spec.mode == "durable"
        self._ends = math.inf
        self._records = predictions.Encoder()
        self._safe = safe
        self._heads: dict[tuple[str, str, Digest, Digest], bytes] = {}
        self._settled: deque[tuple[Callable[[BedplateError | None], None], StorageError | None]] = deque()
        self._waking = False

    def end(self, seconds: float) -> None:
        """This replica ends: answers in pieces that are not whole after so many seconds are told so, and break off."""
        self._ends = perf_counter() + seconds

    def admit(self, authorization: str | None, resource: ResourceRef, arrival: Arrival) -> Admitted:
        """Who asks for a prediction, if they may and there is room; before anything is received or parsed.

        ``authorization`` is the value of the header of that name; ``resource`` is what is asked, :attr:`resource`
        unless the caller named another model. A protocol raises ``metrics.in_flight`` by one for each request that it
        is answering, before it asks.

        Raises:
            AuthenticationError: no key, or one that is unknown, revoked or expired.
            DeniedError: policy does not allow it.
            OverloadedError: more is asked than the replica can answer in time.
            QuotaError: the principal asks for more than it may.
            UnavailableError: access cannot be decided, or the request not be counted.
        """
        admitted = self.access.admit(authorization, "predict", resource)
        self.pressure.admit(arrival.seconds, admitted.principal.id)
        if admitted.meter is not None:
            admitted.meter.take()
        return admitted

    def served(self, model: str, version: str | None) -> None:
        """Whether this is the model, and the version of it if one is named, that is served here.

        Raises:
            NotFoundError: it is another.
        """
        if model != self.spec.name:
            raise NotFoundError(f"the model {model[:100]!r} is not served here", fix=f"ask {self.spec.name!r}")
        if version is not None and version != self.version:
            raise NotFoundError(f"version {version[:100]!r} is not served here", fix=f"ask version {self.version}")

    async def answer(self, call: Call, admitted: Admitted, arrival: Arrival, *, pinned: bool = False) -> Answered:
        """Answer one request: with the model of this process, or with the release being rolled out.

        ``pinned`` keeps it to the release of this process: for who names a version gets that one. In durable mode it
        returns when the prediction is on disk. What was not begun when its time was over is not computed.

        Raises:
            DeadlineError: the time that the caller waits, or that the endpoint allows, was over before it was begun.
            InputError: the model refuses the values, or they are more than a quota ever grants at once.
            ModelError: the model failed, or gave what cannot be an answer, on a request that no candidate answered.
            QuotaError: they are more than the principal may ask now.
            StorageError: the prediction is not on disk, and the mode is durable.
            UnavailableError: the prediction cannot be logged, and the mode is buffered.
        """
        self._charge(call, admitted)
        until = self._until(call, arrival)
        who = admitted.principal.id
        self.pressure.answering.take(who)
        try:
            return await self._answer(call, admitted, arrival, until, None if pinned else self.router.route)
        except DeadlineError:
            self.metrics.drop("deadline")
            raise
        finally:
            self.pressure.answering.give(who)

    def immediate(self, connection: object) -> bool:
        """Whether an answer to a request on this connection has to wait for no thread and no other process now."""
        return self.router.route is None and (not self.queues or self._batcher.lone(connection))

    def soon(
        self, call: Call, admitted: Admitted, arrival: Arrival, caller: Caller, settle: Callable[[Outcome], None]
    ) -> None:
        """:meth:`answer` where it is :meth:`immediate`, in a third of the steps: ``settle`` gets what comes of it.

        That is before this returns, or at the end of this turn of the event loop; in durable mode, once it is on disk.
        """
        decoded = perf_counter()
        try:
            self._charge(call, admitted)
        except BedplateError as error:
            settle(error)
            return

        def settled(answer: Answer | BedplateError) -> None:
            if isinstance(answer, BedplateError):
                if isinstance(answer, DeadlineError):
                    self.metrics.drop("deadline")
                settle(answer)
                return
            try:
                check(answer.outputs, self.signature)
                self._finish(call, admitted, arrival, decoded, self._own(answer), caller.claim, settle)
            except Exception as error:  # noqa: BLE001  the last line of defence: every outcome becomes an answer
                settle(error)

        self._batcher.soon(call.arrays, self._until(call, arrival), caller.connection, settled)

    def _finish(
        self,
        call: Call,
        admitted: Admitted,
        arrival: Arrival,
        decoded: float,
        routed: Routed,
        claim: Callable[[str], None],
        settle: Callable[[Outcome], None],
    ) -> None:
        """Record and count what was computed just now from a request that was decoded at that time, and ``settle``.

        That is before this returns; in durable mode, once it is on disk.
        """
        prediction, record = self._record(call, admitted, arrival, decoded, routed)
        claim(prediction)

        def kept(failure: BedplateError | None) -> None:
            if failure is not None:
                settle(failure)
                return
            self.metrics.prediction(perf_counter() - arrival.started)
            settle(Answered(prediction, routed.version, routed.answer.outputs))

        self._keep(record, kept)

    def _until(self, call: Call, arrival: Arrival) -> float:
        return arrival.started + min(arrival.seconds, call.seconds, self.pressure.patience)

    async def _answer(
        self, call: Call, admitted: Admitted, arrival: Arrival, until: float, route: Route | None
    ) -> Answered:
        decoded = perf_counter()
        stable = partial(self._predict, call.arrays, until, admitted.principal.id)
        if route is None:
            routed = self._own(await stable())
        else:
            routed = await self.router.answer(route, call.arrays, split_key(route, call), stable)
        outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._finish(call, admitted, arrival, decoded, routed, places.claim, partial(_tell, outcome))
        return await outcome

    def _own(self, answer: Answer) -> Routed:
        return Routed(answer, self.spec.digest, self.version, self.spec.evidence, None)

    def _record(
        self, call: Call, admitted: Admitted, arrival: Arrival, decoded: float, routed: Routed
    ) -> tuple[str, bytes]:
        """The id of a prediction that was computed just now from a request decoded at that time, and its record."""
        computed, answer = perf_counter(), routed.answer
        outputs = answer.outputs
        prediction = ids.new_id("pred")
        own = _Own(
            entity=answer.entity,
            exposure=routed.exposure,
            features=answer.features,
            id=prediction,
            inputs=call.values,
            latency_ms=round((computed - arrival.started) * 1000, 3),
            outputs={name: logged(outputs[name]) for name in self._outputs},
            replayed=call.replayed,
            request_id=call.id or "",
            time=clock.timestamp(),
        )
        trace = None
        if arrival.traceparent:
            model = min(computed - decoded, self._batcher.took) if self.queues else computed - decoded
            trace = _trace(arrival, decoded, computed, model, answer.steps)
        return prediction, self._logged(own, call, answer, admitted, routed, trace)

    async def stream(
        self, prediction: str, call: Call, admitted: Admitted, arrival: Arrival
    ) -> AsyncGenerator[Answered]:
        """The checked pieces of an answer under the id ``prediction``: by the model of this process, which must be one
        that yields, or by the release being rolled out.

        One record says what was sent, at the end, whatever brought it about; if this process is killed, what was sent
        until then.

        Raises:
            InputError: the model refuses the values, before the first piece.
            ModelError: the model failed, or a piece cannot be one.
            CandidateError: the release being rolled out broke off what it had begun.
            DeadlineError: the answer was not whole in the time that its caller waits, or that the replica allows.
            QuotaError: it is more than the principal may ask now.
            UnavailableError: it cannot be logged, or the replica ends.
        """
        self._charge(call, admitted)
        spec, started, decoded = self.spec, arrival.started, perf_counter()
        seconds = min(arrival.seconds, call.seconds, spec.streaming) - (perf_counter() - started)
        sent: dict[str, list[Any]] = {name: [] for name in self._outputs}
        routed: Routed | None = None
        ended, draft, drafting = "the client left", self._journal.draft(), True

        def record(routed: Routed, ended: str) -> bytes:
            own = _Pieces(
                ended=ended,
                entity=routed.answer.entity,
                exposure=routed.exposure,
                features=routed.answer.features,
                id=prediction,
                inputs=call.values,
                latency_ms=round((perf_counter() - started) * 1000, 3),
                outputs=dict(sent),
                replayed=call.replayed,
                request_id=call.id or "",
                time=clock.timestamp(),
            )
            trace = None
            if arrival.traceparent:
                computed = perf_counter()
                trace = _trace(arrival, decoded, computed, computed - decoded, routed.answer.steps)
            return self._logged(own, call, routed.answer, admitted, routed, trace)

        pieces = self._routed(call, seconds)
        self.pressure.answering.take(admitted.principal.id)
        try:
            async for routed in pieces:
                outputs = routed.answer.outputs
                for name, values in sent.items():
                    values.extend(plain(outputs[name]))
                yield Answered(prediction, routed.version, outputs)
                if draft is not None and drafting:  # it was sent
                    drafting = draft.keep(record(routed, _KILLED))
                if perf_counter() > self._ends:
                    raise ending()
            ended = ""
        except BedplateError as error:
            ended = error.message
            raise
        finally:
            self.pressure.answering.give(admitted.principal.id)
            try:
                await pieces.aclose()
                if routed is not None:
                    kept = asyncio.get_running_loop().create_future()
                    self._keep(record(routed, ended), partial(_tell, kept))
                    await kept
                    self.metrics.prediction(perf_counter() - started)
            finally:
                if draft is not None:
                    draft.end()

    async def _routed(self, call: Call, seconds: float) -> AsyncGenerator[Routed]:
        """The pieces of an answer that has so many seconds, and who gives them."""

        async def stable() -> AsyncGenerator[Answer]:
            pieces = self._batcher.stream(call.arrays, asyncio.get_running_loop().time() + seconds)
            try:
                async for piece in pieces:
                    check(piece.outputs, self.signature)
                    yield piece
            finally:
                await pieces.aclose()

        route = self.router.route
        if route is not None:
            routed = self.router.stream(route, call.arrays, split_key(route, call), seconds, stable)
            try:
                async for one in routed:
                    yield one
            finally:
                await routed.aclose()
            return
        pieces = stable()
        try:
            async for piece in pieces:
                yield self._own(piece)
        finally:
            await pieces.aclose()

    async def _predict(self, arrays: Arrays, until: float, who: str) -> Answer:
        """The checked answer of the model of this process."""
        answer = await self._batcher.predict(arrays, until, who)
        check(answer.outputs, self.signature)
        return answer

    def _charge(self, call: Call, admitted: Admitted) -> None:
        """Count what a request holds, where quotas do that."""
        if self._unit == "requests" or admitted.meter is None:
            return
        arrays = call.arrays.values()
        if self._unit == "rows":
            admitted.meter.charge(max((len(array) for array in arrays if array.ndim), default=1))
        else:
            admitted.meter.charge(sum(array.size for array in arrays))

    def _logged(
        self, own: _Own, call: Call, answer: Answer, admitted: Admitted, routed: Routed, trace: TraceContext | None
    ) -> bytes:
        """The record of a prediction: the one place where what was asked and answered gets into the log."""
        safe = self._safe
        if safe is not None:
            own.entity, own.request_id = safe.entity(answer), safe.request(call)
            own.inputs, own.features, own.outputs = safe.inputs(call), safe.features(answer), safe.outputs(own.outputs)
            trace = None if trace is None else safe.trace(trace)
        return self._records.record(self._head(admitted, routed.bundle, routed.evidence), own, trace)

    def _head(self, admitted: Admitted, bundle: Digest, evidence: Digest) -> bytes:
        """The start of a record: what is the same for all that one caller gets from one release."""
        key = admitted.principal.id, admitted.policies, bundle, evidence
        head = self._heads.get(key)
        if head is None:
            constant = {
                "bundle": bundle,
                "decision": admitted.policies,
                "endpoint": self.spec.name,
                "evidence": evidence,
                "principal": admitted.principal.id,
                "use_case": self.spec.use_case,
            }
            head = self._records.head(constant)
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _keep(self, record: bytes, kept: Callable[[BedplateError | None], None]) -> None:
        """Hand a record to the journal. ``kept`` is called with what prevents that: at once; in durable mode by the
        loop, when the record is on disk or cannot be."""
        if self._durable:
            loop = asyncio.get_running_loop()
            self._journal.submit(record, lambda failure: self._wake(loop, kept, failure))
            return
        try:
            self._journal.submit(record, None)
        except StorageError as error:
            self.metrics.unlogged += 1
            unlogged = UnavailableError("predictions cannot be logged", fix="try again later")
            unlogged.__cause__ = error
            kept(unlogged)
        else:
            kept(None)

    def _wake(
        self,
        loop: asyncio.AbstractEventLoop,
        written: Callable[[BedplateError | None], None],
        failure: StorageError | None,
    ) -> None:
        """Called from the journal's thread. One call of the loop serves all of a group commit."""
        self._settled.append((written, failure))
        if not self._waking:
            self._waking = True
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._waking = False  # first: what comes from now on asks for another call
        while self._settled:
            written, failure = self._settled.popleft()
            written(failure)


def _tell(waiting: "asyncio.Future[Any]", outcome: Any) -> None:
    """Tell who waits how something ended, if somebody still does."""
    if waiting.done():
        return
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


def _trace(
    arrival: Arrival, decoded: float, computed: float, model: float, steps: Mapping[str, tuple[float, float]]
) -> TraceContext:
    """The trace that a request is a part of, which was decoded and computed at those times."""
    return TraceContext(
        parent=arrival.traceparent,
        state=arrival.tracestate,
        receive_ms=round((decoded - arrival.started) * 1000, 3),
        queue_ms=round((computed - decoded - model) * 1000, 3),
        model_ms=round(model * 1000, 3),
        steps_ms={name: round(seconds * 1000, 3) for name, (_, seconds) in steps.items()},
        starts_ms={name: round(began * 1000, 3) for name, (began, _) in steps.items()},
    )


def ending() -> UnavailableError:
    """The error of a stream that its replica cannot come to the end of."""
    return UnavailableError("this replica ends", fix="ask again for what was not answered")


def unforeseen(error: BaseException) -> InternalError:
    """What a caller is told of an exception that nobody foresaw: it is logged, under an id."""
    reference = ids.new_id("err")
    _log.error("unexpected error %s", reference, exc_info=error)
    return InternalError(f"something failed: {reference}", fix="see the log")
