"""Answers that are sent while the model makes them, as server-sent events, for predictors that yield.

``POST /v2/models/{model}/generate_stream`` (and ``generate``, whole) is the generate extension of the Open Inference
Protocol: an object whose fields are the inputs, of one row. The same events come from ``POST /predict`` to whoever
accepts ``text/event-stream``. A client that reads slowly slows the model down; one that leaves ends its work.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from bedplate import ids
from bedplate.errors import BedplateError, InputError, NotFoundError
from bedplate.http import APPEND, Limits, Request, Response, Route, from_path
from bedplate.http.messages import decode_json
from bedplate.serve.handlers import ENTITY, Inference
from bedplate.serve.rest import Failure, failure
from bedplate.serve.rows import Rows
from bedplate.serve.tensors import Answered, Call

EVENTS = "text/event-stream"
_encode = msgspec.json.Encoder().encode


async def stream(
    inference: Inference,
    call: Call,
    request: Request,
    event: Callable[[Answered], Any],
    fault: Callable[[BedplateError], Any],
) -> Response:
    """The events of one call; ``event`` and ``fault`` are what a piece and an error are in them.

    Raises:
        BedplateError: there is no first piece, so that the answer can still be an error.
    """
    prediction = ids.new_id("pred")
    pieces = inference.stream(prediction, call, request.decision, request.state["arrival"])
    first = await anext(pieces, None)

    async def events() -> AsyncIterator[bytes]:
        try:
            if first is not None:
                yield b"data: " + _encode(event(first)) + b"\n\n"
            async for piece in pieces:
                yield b"data: " + _encode(event(piece)) + b"\n\n"
        except BedplateError as error:
            yield b"event: error\ndata: " + _encode(fault(error)) + b"\n\n"
        finally:
            await pieces.aclose()

    headers = [("content-type", EVENTS), ("cache-control", "no-store"), ("x-prediction-id", prediction)]
    return Response(headers=headers, stream=events())


class Generate:
    """The generate extension of one replica whose predictor yields."""

    def __init__(self, inference: Inference, rows: Rows) -> None:
        self._inference = inference
        self._rows = rows

    def routes(self, infer: Limits) -> list[Route]:
        """What is mounted; ``infer`` limits a request for a prediction."""
        named = from_path(ENTITY, "model")
        base = "/v2/models/{model}"
        return [
            Route("POST", f"{base}/generate_stream", "predict", named, APPEND, infer, self._stream, render=failure,
                  error_type=Failure, request_type=self._rows.row_type,
                  name="generate_stream", summary="An answer in pieces, as server-sent events"),
            Route("POST", f"{base}/generate", "predict", named, APPEND, infer, self._whole, render=failure,
                  error_type=Failure, request_type=self._rows.row_type,
                  name="generate", summary="The same answer at once"),
        ]  # fmt: skip

    async def _stream(self, request: Request) -> Response:
        call = self._call(request)
        return await stream(self._inference, call, request, self._said, _fault)

    async def _whole(self, request: Request) -> Response:
        call = self._call(request)
        answered = await self._inference.answer(call, request.decision, request.state["arrival"])
        headers = (("x-prediction-id", answered.prediction),)
        return Response.json(self._said(answered), headers=headers)

    def _said(self, answered: Answered) -> dict[str, Any]:
        about = {"model_name": self._inference.spec.name, "model_version": answered.version}
        return {**about, **self._rows.answers(answered.outputs, 1)[0]}

    def _call(self, request: Request) -> Call:
        if request.params["model"] != self._inference.spec.name:
            raise NotFoundError(f"the model {request.params['model']!r} is not served here")
        given = decode_json(request.body, dict[str, Any], request.depth)
        name = given.pop("id", None)
        try:
            # Parameters stand beside the inputs or under a name of their own, as its clients have them.
            row = msgspec.convert({**given.pop("parameters", {}), **given}, self._rows.row_type)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(f"the request does not fit: {error}") from error
        return self._rows.call([row], None if name is None else str(name)[:200])


def _fault(error: BedplateError) -> dict[str, str]:
    return {"error": f"{error.message}; {error.fix}" if error.fix else error.message}
