"""One prediction, whatever protocol carried it: admit, predict, check, give it an id, count it, log it.

A protocol is an edge around :class:`Inference`. It calls :meth:`Inference.admit` before it receives a body, makes
a :class:`~bedplate.serve.tensors.Call` of what it received, awaits :meth:`Inference.answer`, and encodes the
:class:`~bedplate.serve.tensors.Answered`. Errors of :mod:`bedplate.errors` come out of all; how they are said is the
protocol's.
"""

import asyncio
from time import perf_counter

import msgspec

from bedplate import clock, ids
from bedplate.bundle import Manifest
from bedplate.errors import StorageError, UnavailableError
from bedplate.http import ResourceRef
from bedplate.journal import Done, Writer
from bedplate.records import Prediction
from bedplate.serve.access import Access, Admitted
from bedplate.serve.batching import Batcher
from bedplate.serve.metrics import Metrics
from bedplate.serve.predictors import Answer
from bedplate.serve.routing import Router, split_key
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.tensors import Answered, Arrays, Call, check, plain

ENTITY = "Endpoint"
# Sorted keys, so that equal records read equal; the inputs stand in it as they were sent.
_record = msgspec.json.Encoder(order="sorted")


class OverloadedError(UnavailableError):
    """More requests at once than the replica takes."""

    code = "overloaded"


class Inference:
    """The model of one replica, with everything a prediction needs. To be used from one event loop."""

    def __init__(
        self, spec: ReplicaSpec, manifest: Manifest, access: Access, batcher: Batcher, journal: Writer, router: Router
    ) -> None:
        self.spec = spec
        self.access = access
        self.router = router
        self.version = str(manifest.version)
        self.signature = manifest.signature
        self.metrics = Metrics(spec.name, self.version, access.meters)
        self.resource = ResourceRef(ENTITY, spec.name)
        self._batcher = batcher
        self._journal = journal

    def admit(self, authorization: str | None, resource: ResourceRef) -> Admitted:
        """Who asks for a prediction, if they may and there is room; before anything is received or parsed.

        ``authorization`` is the value of the header of that name; ``resource`` is what is asked, :attr:`resource`
        unless the caller named another model. A protocol raises ``metrics.in_flight`` by one for each request that it
        is answering, before it asks.

        Raises:
            AuthenticationError: no key, or one that is unknown, revoked or expired.
            DeniedError: policy does not allow it.
            OverloadedError: more requests are being answered than the replica takes.
            QuotaError: the principal asks for more than it may.
            UnavailableError: access cannot be decided, or the request not be counted.
        """
        admitted = self.access.admit(authorization, "predict", resource)
        if self.metrics.in_flight > self.spec.max_in_flight:
            raise OverloadedError("too many requests are being answered", fix="try again in a second")
        if admitted.meter is not None:
            admitted.meter.take()
        return admitted

    async def answer(self, call: Call, admitted: Admitted, started: float, *, pinned: bool = False) -> Answered:
        """Answer one request: with the model of this process, or with the release being rolled out.

        ``started`` is ``perf_counter()`` when the request arrived. ``pinned`` keeps it to the release of this process:
        for who names a version gets that one. In durable mode it returns when the prediction is on disk.

        Raises:
            InputError: the model refuses the values.
            ModelError: the model failed, or gave what cannot be an answer, on a request that no candidate answered.
            StorageError: the prediction is not on disk, and the mode is durable.
            UnavailableError: the prediction cannot be logged, and the mode is buffered.
        """
        route = None if pinned else self.router.route
        spec = self.spec
        if route is None:
            answer = await self._predict(call.arrays)
            version, bundle, evidence, exposure = self.version, spec.digest, spec.evidence, None
        else:
            routed = await self.router.answer(
                route, call.arrays, split_key(route, call), lambda: self._predict(call.arrays)
            )
            answer = routed.answer
            version, bundle, evidence, exposure = routed.version, routed.bundle, routed.evidence, routed.exposure
        outputs = answer.outputs
        values = {output.name: plain(outputs[output.name]) for output in self.signature.outputs}
        prediction = ids.new_id("pred")
        record = Prediction(
            id=prediction,
            request_id=call.id or "",
            time=clock.timestamp(),
            use_case=spec.use_case,
            endpoint=spec.name,
            bundle=bundle,
            evidence=evidence,
            principal=admitted.principal.id,
            decision=admitted.policies,
            entity=answer.entity,
            inputs=call.values,
            features=answer.features,
            outputs=values,
            latency_ms=round((perf_counter() - started) * 1000, 3),
            replayed=call.replayed,
            exposure=exposure,
        )
        await self._log(_record.encode(record))
        self.metrics.prediction(perf_counter() - started)
        return Answered(prediction, version, outputs, values)

    async def _predict(self, arrays: Arrays) -> Answer:
        """The checked answer of the model of this process."""
        answer = await self._batcher.predict(arrays)
        check(answer.outputs, self.signature)
        return answer

    async def _log(self, record: bytes) -> None:
        """Hand a record to the journal; in durable mode, return when it is on disk."""
        if self.spec.mode == "durable":
            loop = asyncio.get_running_loop()
            written: asyncio.Future[StorageError | None] = loop.create_future()
            self._journal.submit(record, _waker(loop, written))
            failure = await written
            if failure is not None:
                raise failure
            return
        try:
            self._journal.submit(record, None)
        except StorageError as error:
            self.metrics.unlogged += 1
            raise UnavailableError("predictions cannot be logged", fix="try again later") from error


def _waker(loop: asyncio.AbstractEventLoop, written: "asyncio.Future[StorageError | None]") -> Done:
    """What the journal's thread calls to settle ``written`` in its loop."""

    def settle(error: StorageError | None) -> None:
        if not written.done():
            written.set_result(error)

    def wake(error: StorageError | None) -> None:
        loop.call_soon_threadsafe(settle, error)

    return wake
