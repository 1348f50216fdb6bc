"""MLflow's scoring protocol: ``/invocations``, ``/ping``, ``/version``, as ``mlflow models serve`` answers for ONNX.

The columns of a frame (``dataframe_split``, ``dataframe_records``, CSV) are the inputs of their names, and it is
answered row by row. Where the model has one input of two dimensions they are its second dimension, in their order; that
and tensors (``inputs``, ``instances``) are answered as tensors. Unlike there, nothing is cast in silence: a fraction is
no integer, and a text is no number. No model here declares parameters, so they change nothing, as there; a header of
the answer says so. Parquet and the fields of chat models are 501, for nothing here reads them.
"""

import csv
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from bedplate.errors import BedplateError, InputError
from bedplate.http import APPEND, Limits, ProtocolError, Request, Response, Route, fixed, unaudited
from bedplate.http.messages import decode_json
from bedplate.records import TensorSpec
from bedplate.serve.handlers import ENTITY, Inference
from bedplate.serve.rest import outcome
from bedplate.serve.rows import Rows, nested
from bedplate.serve.tensors import Call

SPOKEN = "3.17.0"
"""The release of MLflow whose scoring protocol this is; clients read it as a version."""
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES = {
    400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
    413: "BAD_REQUEST", 429: "REQUEST_LIMIT_EXCEEDED", 501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_PARQUET = "application/vnd.apache.parquet"
_CHAT = frozenset(("messages", "prompt", "input"))
"""Fields with which MLflow takes a body as one for a chat model, as it stands."""
_UNREAD = ("warning", '299 - "params were not read: this model declares none"')
_TRUTH = {"True": True, "true": True, "False": False, "false": False}

Columns = dict[Any, list[Any]]


class Invocations:
    """The edge of one replica."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._rows = Rows(inference.signature)
        self._inputs = inference.signature.inputs

    def routes(self, none: Limits, infer: Limits) -> list[Route]:
        """What is mounted; ``none`` for requests without a body, ``infer`` for those that ask for a prediction."""
        own = fixed(ENTITY, self._inference.spec.name)
        probe = unaudited("a probe that tells nothing but whether the process answers")
        return [
            Route("GET", "/ping", "predict", own, probe, none, self._ping, public=True, name="ping"),
            Route("GET", "/health", "predict", own, probe, none, self._ping, public=True, twin=True),
            Route("GET", "/version", "predict", own, probe, none, self._version, public=True, name="version"),
            Route(
                "POST", "/invocations", "predict", own, APPEND, infer, self._invoke, name="invocations",
                summary="Predictions in MLflow's scoring protocol", render=render, error_type=Failure,
                request_type=BODY, response_type=Predictions,
            ),
        ]  # fmt: skip

    async def _ping(self, request: Request) -> Response:
        return Response.text("\n", content_type="application/json")

    async def _version(self, request: Request) -> Response:
        return Response.text(SPOKEN, content_type="application/json")

    async def _invoke(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        call, count, unread = self.read(kind, request.body, request.depth)
        call.id = request.headers.get("x-request-id")
        answered = await self._inference.answer(call, request.decision, request.state["arrival"])
        predictions: Any
        if count is None:
            outputs = self._inference.signature.outputs
            predictions = {spec.name: nested(answered.outputs[spec.name]) for spec in outputs}
        else:
            predictions = self._rows.answers(answered.outputs, count)
        headers = ("x-prediction-id", answered.prediction), *((_UNREAD,) if unread else ())
        return Response.json({"predictions": predictions}, headers=headers)

    # ---------------------------------------------------------------------------------------------------------- reading

    def read(self, content_type: str, body: bytes, depth: int = 64) -> tuple[Call, int | None, bool]:
        """The call of a body, its rows when it is a frame, and whether it has parameters, which nobody reads.

        Raises:
            InputError: it does not fit the model.
            ProtocolError: 415, it is neither JSON nor CSV; 501, it is a form of MLflow's that nothing here reads.
        """
        kind, _, parameter = (part.strip().lower() for part in content_type.partition(";"))
        if kind == _PARQUET:
            raise ProtocolError(501, "this server reads no Parquet", fix="send dataframe_split as JSON, or CSV")
        if kind not in ("application/json", "text/csv") or parameter.replace(" ", "") not in ("", "charset=utf-8"):
            raise ProtocolError(
                415, f"this server takes no {content_type[:100]!r}", fix="send application/json or text/csv in UTF-8"
            )
        if kind == "text/csv":
            return *self._frame(_csv(body, self._inputs)), False
        given = decode_json(body, dict[str, Any], depth)
        if chat := sorted(_CHAT & given.keys()):
            raise ProtocolError(501, f"no chat model is served here, which {chat[0]!r} is for", fix=f"send {FORMS[0]}")
        forms = [form for form in FORMS if form in given]
        if len(forms) != 1:
            raise InputError(
                f"the body has the fields {', '.join(list(given)[:10]) or 'none at all'}",
                fix=f"send exactly one of {', '.join(FORMS)}",
            )
        params = given.get("params")
        if not isinstance(params, dict | None):
            raise InputError("params are no object", fix="leave params out")
        return *self._form(forms[0], given[forms[0]]), bool(params)

    def _form(self, form: str, data: Any) -> tuple[Call, int | None]:
        if form == "dataframe_split":
            return self._frame(_split(data))
        if form == "dataframe_records" or (form == "instances" and _records(data)):
            frame = _table(data)
            return self._frame(frame) if form == "dataframe_records" else (self._tensors(frame), None)
        return self._tensors(data), None

    def _frame(self, frame: Columns) -> tuple[Call, int | None]:
        """A frame's call; the columns of one without names are called by their positions."""
        count = len(next(iter(frame.values()))) if frame else 0
        if not count:
            raise InputError("the frame has no rows", fix="send at least one")
        if self._rows.kind == "whole" or (self._rows.kind == "one" and count != 1):
            raise InputError(f"this model does not answer {count} rows of a frame", fix="send inputs, or one row")
        inputs = self._inputs
        if len(inputs) == 1 and inputs[0].name not in frame and len(inputs[0].shape) == 2:
            rows = [list(row) for row in zip(*frame.values(), strict=True)]
            return self._tensors(rows), None
        if all(isinstance(name, int) for name in frame) and len(frame) == len(inputs):
            frame = {spec.name: column for spec, column in zip(inputs, frame.values(), strict=True)}
        missing = [spec.name for spec in inputs if spec.name not in frame]
        if missing:
            raise InputError(f"the frame has no column {missing[0]!r}", fix=f"send {_names(inputs)}")
        columns = {spec.name: _cell(spec.datatype, frame[spec.name], spec.name) for spec in inputs}
        return self._rows.call_of(columns, None), count

    def _tensors(self, data: Any) -> Call:
        """The call of tensors by name, or of one where the model has one input."""
        inputs = self._inputs
        if not isinstance(data, dict):
            if len(inputs) != 1:
                raise InputError(
                    f"this model has {len(inputs)} inputs", fix=f"send each under its name: {_names(inputs)}"
                )
            data = {inputs[0].name: data}
        if set(data) != {spec.name for spec in inputs}:
            raise InputError(f"the tensors are {', '.join(map(repr, list(data)[:10]))}", fix=f"send {_names(inputs)}")
        return self._rows.call_whole(
            {spec.name: _cell(spec.datatype, data[spec.name], spec.name) for spec in inputs}, None
        )


class Failure(msgspec.Struct):
    """An error as MLflow says it."""

    error_code: str
    message: str


class Split(msgspec.Struct, omit_defaults=True):
    """A frame as ``to_dict(orient="split")`` writes it."""

    data: Annotated[list[list[Any]], msgspec.Meta(min_length=1)]
    columns: list[str | int] | None = None
    index: list[Any] | None = None


Tensors = dict[str, Any] | list[Any] | str | float | bool


class Body(msgspec.Struct):
    """What ``/invocations`` takes as JSON; none of the four may be null."""

    dataframe_split: Split | UnsetType = UNSET
    dataframe_records: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)] | UnsetType = UNSET
    instances: Tensors | UnsetType = UNSET
    inputs: Tensors | UnsetType = UNSET
    params: dict[str, Any] | None = None


BODY = Annotated[Body, msgspec.Meta(extra_json_schema={"oneOf": [{"required": [form]} for form in FORMS]})]
"""A body has exactly one of the four, which a type alone does not say."""


class Predictions(msgspec.Struct):
    """What ``/invocations`` answers."""

    predictions: Any


def render(error: BedplateError) -> Response:
    """An error in MLflow's form."""
    status, headers = outcome(error)
    text = f"{error.message}; {error.fix}" if error.fix else error.message
    return Response.json(Failure(_CODES.get(status, "INTERNAL_ERROR"), text), status, headers)


# --------------------------------------------------------------------------------------------------------------- frames


def _split(data: Any) -> Columns:
    """The columns of a frame whose rows are lists."""
    try:
        split = msgspec.convert(data, Split)
    except msgspec.ValidationError as error:
        raise InputError(
            f"dataframe_split does not fit: {error}", fix="send columns, and data as a list of rows"
        ) from error
    if odd := set(data) - {"columns", "data", "index"}:
        raise InputError(f"dataframe_split has a field {sorted(odd)[0][:100]!r}", fix="send columns, index and data")
    width = len(split.data[0]) if split.data else 0
    names: list[Any] = list(range(width)) if split.columns is None else split.columns
    if any(len(row) != len(names) for row in split.data):
        raise InputError(f"a row of dataframe_split does not have {len(names)} values")
    if len(set(names)) != len(names):
        raise InputError("dataframe_split names a column twice")
    return dict(zip(names, map(list, zip(*split.data, strict=True)), strict=True)) if split.data else {}


def _records(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict)


def _table(data: Any) -> Columns:
    """The columns of rows that are objects; what a row leaves out is null."""
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise InputError("the records are no list of objects")
    names = dict.fromkeys(name for row in data for name in row)
    return {name: [row.get(name) for row in data] for name in names}


def _csv(body: bytes, inputs: tuple[TensorSpec, ...]) -> Columns:
    """The columns of a CSV with a line of names; a column that is an input is read as its datatype."""
    try:
        lines = list(csv.reader(body.decode("utf-8").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the CSV cannot be read: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError("the CSV is empty", fix="send a line of names and at least one row")
    names, rows = lines[0], lines[1:]
    if len(set(names)) != len(names) or any(len(row) != len(names) for row in rows):
        raise InputError(f"the CSV does not have {len(names)} different columns in each line")
    types = {spec.name: spec.datatype for spec in inputs}
    alone = inputs[0].datatype if len(inputs) == 1 else "BYTES"
    return {name: [_parsed(row[i], types.get(name, alone), name) for row in rows] for i, name in enumerate(names)}


def _parsed(text: str, datatype: str, name: str) -> Any:
    """One cell of a CSV."""
    if datatype == "BYTES":
        return text
    if not text:
        return None
    try:
        if datatype == "BOOL":
            return _TRUTH[text]
        return float(text) if datatype.startswith("FP") else int(text)
    except (KeyError, ValueError) as error:
        raise InputError(f"{text[:50]!r} in column {name!r} is no {datatype}") from error


def _cell(datatype: str, cell: Any, name: str) -> Any:
    """A cell, or a list of them, as an input of this datatype takes it: no number is NaN.

    Raises:
        InputError: a cell is of another type.
    """
    if isinstance(cell, list):
        return [_cell(datatype, part, name) for part in cell]
    if datatype == "BYTES":
        fits = isinstance(cell, str)
    elif datatype == "BOOL":
        fits = isinstance(cell, bool)
    elif cell is None and datatype.startswith("FP"):
        return float("nan")
    else:
        fits = isinstance(cell, int | float) and not isinstance(cell, bool)
    if not fits:
        raise InputError(f"{str(cell)[:50]!r} in {name!r} is no {datatype}")
    return cell


def _names(inputs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in inputs)
