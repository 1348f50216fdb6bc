"""One prediction, whatever protocol carried it: decode, predict, encode, log."""

from collections.abc import Callable
from time import perf_counter

import msgspec

from bedplate import clock, ids
from bedplate.bundle import Manifest
from bedplate.errors import BedplateError, StorageError
from bedplate.journal import Writer
from bedplate.records import Prediction
from bedplate.serve.access import Admitted
from bedplate.serve.candidate import check
from bedplate.serve.codecs import Call, Codec, ModelError, metadata
from bedplate.serve.predictors import Answer, FeatureReader, Predictor
from bedplate.serve.routing import Routed, Router, split_key
from bedplate.serve.snapshot import Route
from bedplate.serve.spec import ReplicaSpec

Done = Callable[[StorageError | None], None]

# Sorted keys, so that equal records read equal; the inputs stand in it as they were sent.
_record = msgspec.json.Encoder(order="sorted")


class Inference:
    """The model of one replica, with everything a prediction needs."""

    def __init__(
        self,
        spec: ReplicaSpec,
        manifest: Manifest,
        predictor: Predictor,
        features: FeatureReader,
        journal: Writer,
        router: Router,
    ) -> None:
        self.spec = spec
        self.router = router
        self.version = str(manifest.version)
        self.metadata = metadata(spec.name, [self.version], manifest.signature)
        self._predictor = predictor
        self._features = features
        self._journal = journal
        self._signature = manifest.signature
        self._codec = Codec(spec.name, self.version, manifest.signature)
        self.durable = spec.mode == "durable"

    def infer(self, body: bytes, admitted: Admitted, started: float, done: Done | None) -> tuple[bytes, str]:
        """Answer one request; gives the body and the id of the prediction.

        ``done`` is called when the prediction is on disk, which is what a durable answer waits for.

        Raises:
            InputError: the request does not fit the model.
            ModelError: the model failed.
            StorageError: the prediction cannot be logged, and the mode is durable.
        """
        call = self._codec.decode(body)
        return self._finish(call, self._predict(call), admitted, started, done, None)

    async def infer_routed(
        self, route: Route, body: bytes, admitted: Admitted, started: float, done: Done | None
    ) -> tuple[bytes, str]:
        """:meth:`infer` while another release is rolled out: it may give the answer.

        Raises:
            InputError: the request does not fit the model.
            ModelError: the model of this process failed, on a request that no candidate answered.
            StorageError: the prediction cannot be logged, and the mode is durable.
        """
        call = self._codec.decode(body)

        async def stable() -> Answer:
            answer = self._predict(call)
            check(answer.outputs, self._signature)
            return answer

        routed = await self.router.answer(route, call.arrays, split_key(route, call), stable)
        return self._finish(call, routed.answer, admitted, started, done, routed)

    def _predict(self, call: Call) -> Answer:
        try:
            return self._predictor.predict(call.arrays, self._features)
        except BedplateError:
            raise
        except Exception as error:
            raise ModelError(f"the model failed: {type(error).__name__}") from error

    def _finish(
        self, call: Call, answer: Answer, admitted: Admitted, started: float, done: Done | None, routed: Routed | None
    ) -> tuple[bytes, str]:
        prediction = ids.new_id("pred")
        version = "" if routed is None else routed.version
        text, outputs = self._codec.encode(call, answer.outputs, prediction, version)
        spec = self.spec
        record = Prediction(
            id=prediction,
            request_id=call.id or "",
            time=clock.timestamp(),
            use_case=spec.use_case,
            endpoint=spec.name,
            bundle=spec.digest if routed is None else routed.bundle,
            evidence=spec.evidence if routed is None else routed.evidence,
            principal=admitted.principal.id,
            decision=admitted.policies,
            entity=answer.entity,
            inputs=call.values,
            features=answer.features,
            outputs=outputs,
            latency_ms=round((perf_counter() - started) * 1000, 3),
            replayed=call.replayed,
            exposure=None if routed is None else routed.exposure,
        )
        self._journal.submit(_record.encode(record), done)
        return text, prediction
