"""The one model of a replica as a repository, in the forms of Triton: index, configuration, statistics, load, unload.

What an endpoint serves is decided by the release and its approval, so loading and unloading change only whether it has
replicas: a load keeps what woke to answer it, an unload lets all of them rest until somebody asks again.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from bedplate.errors import InputError
from bedplate.http import CHANGE, Limits, Request, Response, Route, fixed, from_path, unaudited
from bedplate.records import TensorSpec
from bedplate.serve.handlers import ENTITY, Inference
from bedplate.serve.rest import Failure, failure
from bedplate.serve.wishes import Wish, Wishes

_LOOK = unaudited("what the model is and how often it was asked, for callers who may ask it")
DATA_TYPES = {
    name: number
    for number, name in enumerate(
        ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"),
        start=1,
    )
} | {"STRING": 13, "BF16": 14}
"""The numbers of Triton's ``DataType``, by the name that follows ``TYPE_``."""


class _Asked(msgspec.Struct):
    """The body that asks for the index."""

    ready: bool = False


class _Wish(msgspec.Struct):
    """The body of a load or an unload."""

    parameters: dict[str, Any] = {}


class Repository:
    """The one model of a replica, as a repository of one."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def index(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The model and whether it answers; with ``ready``, only if it does."""
        answers = self._inference.access.ready
        if ready and not answers:
            return []
        state, reason = ("READY", "") if answers else ("UNAVAILABLE", "access cannot be decided now")
        name, version = self._inference.spec.name, self._inference.version
        return [{"name": name, "version": version, "state": state, "reason": reason}]

    def config(self) -> dict[str, Any]:
        """The model's configuration. Shapes are whole, so there is no batch dimension beside them."""
        inference = self._inference
        return {
            "name": inference.spec.name,
            "platform": f"bedplate_{inference.signature.predictor}",
            "backend": "bedplate",
            "max_batch_size": 0,
            "input": [_tensor(spec) for spec in inference.signature.inputs],
            "output": [_tensor(spec) for spec in inference.signature.outputs],
        }

    def statistics(self) -> dict[str, Any]:
        """What was answered since the replica started: predictions with the time inside the server, and refusals."""
        metrics = self._inference.metrics
        success = {"count": metrics.predictions, "ns": int(metrics.seconds * 1e9)}
        one = {
            "name": self._inference.spec.name,
            "version": self._inference.version,
            "inference_count": metrics.predictions,
            "inference_stats": {"success": success, "fail": {"count": metrics.failures, "ns": 0}},
        }
        return {"model_stats": [one]}


def parameters(wish: Wish, given: Iterable[str]) -> None:
    """Whether the parameters of a wish can be met.

    Raises:
        InputError: one would change what is served.
    """
    # A model here has no dependents, so both values of the one that clients send mean the same.
    if odd := [name for name in given if (wish, name) != ("unload", "unload_dependents")]:
        raise InputError(f"the parameter {odd[0][:100]!r} cannot be met", fix="release what is to be served")


def routes(inference: Inference, wishes: Wishes) -> Iterator[Route]:
    """The same over HTTP."""
    repository = Repository(inference)
    own, named = fixed(ENTITY, inference.spec.name), from_path(ENTITY, "model")
    none = Limits(body=0, depth=1, receipt=inference.spec.receipt)
    small = Limits(body=4096, depth=4, receipt=inference.spec.receipt)
    route = partial(Route, render=failure, error_type=Failure)

    async def index(request: Request) -> Response:
        asked = request.json(_Asked) if request.body else _Asked()
        return Response.json(repository.index(ready=asked.ready))

    async def config(request: Request) -> Response:
        inference.served(request.params["model"], request.params.get("version"))
        return Response.json(repository.config())

    async def statistics(request: Request) -> Response:
        if "model" in request.params:
            inference.served(request.params["model"], request.params.get("version"))
        return Response.json(repository.statistics())

    async def wish(what: Wish, request: Request) -> Response:
        inference.served(request.params["model"], None)
        asked = request.json(_Wish) if request.body else _Wish()
        parameters(what, asked.parameters)
        await wishes.ask(what, request.decision)
        return Response.json({})

    yield route("POST", "/v2/repository/index", "predict", own, _LOOK, small, index)
    yield route("POST", "/v2/repository/models/{model}/load", "load", named, CHANGE, small, partial(wish, "load"))
    yield route("POST", "/v2/repository/models/{model}/unload", "unload", named, CHANGE, small, partial(wish, "unload"))
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        yield route("GET", f"{base}/config", "predict", named, _LOOK, none, config)
        yield route("GET", f"{base}/stats", "predict", named, _LOOK, none, statistics)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}
