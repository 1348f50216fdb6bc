"""Predictions as plain typed JSON: ``POST /predict`` with an object for a row, or a list of them.

The types are made of the model's signature (:mod:`bedplate.serve.rows`), and the same types are what ``/openapi.json``
describes. An object is answered by an object, a list by a list of as many.
"""

from bedplate.errors import BedplateError, InputError
from bedplate.http import APPEND, HeaderParam, Limits, Request, Response, Route, fixed
from bedplate.http.messages import decode_json
from bedplate.serve import streaming
from bedplate.serve.handlers import ENTITY, Inference
from bedplate.serve.rest import outcome
from bedplate.serve.rows import Rows
from bedplate.serve.tensors import Answered, Call


class Typed:
    """The edge of one replica, whose model is a function of ``rows``; ``yields`` says whether it answers in pieces."""

    def __init__(self, inference: Inference, rows: Rows, *, yields: bool = False) -> None:
        self._inference = inference
        self._yields = yields
        self._rows = rows
        self._request = self._rows.request_type

    def routes(self, infer: Limits) -> list[Route]:
        """What is mounted; ``infer`` limits a request for a prediction."""
        return [
            Route(
                "POST", "/predict", "predict", fixed(ENTITY, self._inference.spec.name), APPEND, infer, self._predict,
                name="predict", summary="Predictions for a row, or for a list of rows",
                headers=(HeaderParam("request_id", "x-request-id", ""),),
                request_type=self._rows.request_type, response_type=self._rows.response_type, render=render,
            )
        ]  # fmt: skip

    async def _predict(self, request: Request) -> Response:
        given = decode_json(request.body, self._request, request.depth)
        rows = given if isinstance(given, list) else [given]
        call = self._rows.call(rows, request.params["request_id"] or None)
        if streaming.EVENTS in request.headers.get("accept", ""):
            return await self._stream(call, request, len(rows))
        answered = await self._inference.answer(call, request.decision, request.state["arrival"])
        answers = self._rows.answers(answered.outputs, len(rows))
        headers = (("x-prediction-id", answered.prediction),)
        return Response.json(answers if isinstance(given, list) else answers[0], headers=headers)

    async def _stream(self, call: Call, request: Request, count: int) -> Response:
        if not self._yields or count != 1:
            reason = "answers no list in pieces" if self._yields else "does not answer in pieces"
            raise InputError(
                f"this model {reason}", fix="send one object" if self._yields else "accept application/json"
            )

        def piece(answered: Answered) -> object:
            return self._rows.answers(answered.outputs, 1)[0]

        return await streaming.stream(self._inference, call, request, piece, BedplateError.to_dict)


def render(error: BedplateError) -> Response:
    """An error in the form that Bedplate's own interfaces have."""
    status, headers = outcome(error)
    return Response.json(error.to_dict(), status, headers)
