"""``/v1/embeddings`` and ``/v1/models`` as OpenAI's clients ask for them, for models that take texts and give vectors.

Any model whose one input is texts and one of whose outputs is a 32-bit vector for each is such a model; a whole-number
output called ``tokens`` is what usage is counted by. Tokens in place of a text are those of the model's own tokenizer.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import clock
from bedplate.bundle import Manifest
from bedplate.errors import BedplateError, InputError, NotFoundError
from bedplate.http import (
    APPEND,
    Limits,
    Request,
    Response,
    Route,
    fixed,
    from_path,
    unaudited,
)
from bedplate.http.messages import decode_json
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.handlers import ENTITY, Inference
from bedplate.serve.predictors import Predictor
from bedplate.serve.rest import outcome
from bedplate.serve.tensors import Call, logged

MOST = 2048
"""Texts in one request, as many as the protocol's author takes."""
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


@runtime_checkable
class Reads(Protocol):
    """A predictor that knows which text a list of its tokens is."""

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that is read as these tokens.

        Raises:
            InputError: there is none.
        """


class Embed(msgspec.Struct):
    """What ``/v1/embeddings`` takes. Further fields are left unread, as they are there."""

    model: str
    input: (
        Annotated[str, msgspec.Meta(min_length=1)]
        | Annotated[
            list[
                Annotated[str, msgspec.Meta(min_length=1)]
                | Annotated[int, msgspec.Meta(ge=0)]
                | Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
            ],
            msgspec.Meta(min_length=1),
        ]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class Embedding(msgspec.Struct, kw_only=True):
    """One vector: numbers, or 32-bit little-endian ones in base 64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(msgspec.Struct):
    """Tokens that the model read; 0 where it does not say."""

    prompt_tokens: int
    total_tokens: int


class Embedded(msgspec.Struct, kw_only=True):
    """What ``/v1/embeddings`` answers."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(msgspec.Struct, kw_only=True):
    """One model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(msgspec.Struct, kw_only=True):
    """The models that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]


class Cause(msgspec.Struct, kw_only=True):
    """What an error is about."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(msgspec.Struct):
    """An error in the protocol's form."""

    error: Cause


def embeds(signature: ModelSignature) -> tuple[TensorSpec, TensorSpec] | None:
    """The input of texts and the output of vectors, where a model has these."""
    vectors = [spec for spec in signature.outputs if spec.datatype == "FP32" and len(spec.shape) == 2]
    if len(signature.inputs) != 1 or len(vectors) != 1:
        return None
    texts = signature.inputs[0]
    fits = texts.datatype == "BYTES" and texts.shape in ((-1,), (-1, 1)) and vectors[0].shape[0] == -1
    return (texts, vectors[0]) if fits else None


class Embeddings:
    """The edge of one replica, whose signature :func:`embeds`."""

    def __init__(self, inference: Inference, predictor: Predictor, manifest: Manifest) -> None:
        found = embeds(inference.signature)
        assert found is not None, "the model takes texts and gives vectors"
        self._texts, self._vectors = found
        counted = [s for s in inference.signature.outputs if s.name == "tokens" and s.datatype == "INT64"]
        self._counted = counted[0].name if counted else None
        self._inference = inference
        self._predictor = predictor
        created = int(clock.parse(manifest.created).timestamp())
        self._model = Model(id=inference.spec.name, created=created, owned_by=inference.spec.use_case)

    def routes(self, none: Limits, infer: Limits) -> list[Route]:
        """What is mounted; ``none`` for requests without a body, ``infer`` for those that ask for a prediction."""
        own = fixed(ENTITY, self._inference.spec.name)
        look = unaudited("metadata of a model the caller may ask anyway")
        return [
            Route(
                "POST", "/v1/embeddings", "predict", own, APPEND, infer, self._embed, name="embeddings",
                summary="Texts to vectors, as OpenAI's clients ask", render=render, error_type=Failure,
                request_type=Embed, response_type=Embedded,
            ),
            Route("GET", "/v1/models", "predict", own, look, none, self._list, name="list models",
                  render=render, error_type=Failure, response_type=Models),
            Route("GET", "/v1/models/{model}", "predict", from_path(ENTITY, "model"), look, none, self._show,
                  name="show model", render=render, error_type=Failure, response_type=Model),
        ]  # fmt: skip

    async def _list(self, request: Request) -> Response:
        return Response.json(Models(data=[self._model]))

    async def _show(self, request: Request) -> Response:
        self._named(request.params["model"])
        return Response.json(self._model)

    async def _embed(self, request: Request) -> Response:
        asked = decode_json(request.body, Embed, request.depth)
        self._named(asked.model)
        size = self._vectors.shape[1]
        if asked.dimensions is not None and size != -1 and asked.dimensions > size:
            raise InputError(f"this model gives {size} dimensions", where="dimensions", fix=f"ask for at most {size}")
        texts = self._read(asked)
        array = np.array(texts, object).reshape((len(texts), *self._texts.shape[1:]))
        call = Call(request.headers.get("x-request-id"), {self._texts.name: array}, {self._texts.name: logged(array)})
        answered = await self._inference.answer(call, request.decision, request.state["arrival"])
        vectors = answered.outputs[self._vectors.name]
        if asked.dimensions is not None:
            vectors = shortened(vectors, asked.dimensions)
        tokens = 0 if self._counted is None else int(answered.outputs[self._counted].sum())
        given: Sequence[Any] = vectors.tolist()
        if asked.encoding_format == "base64":
            given = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        data = [Embedding(index=i, embedding=each) for i, each in enumerate(given)]
        answer = Embedded(data=data, model=self._model.id, usage=Usage(tokens, tokens))
        return Response.json(answer, headers=(("x-prediction-id", answered.prediction),))

    def _named(self, name: str) -> None:
        if name != self._model.id:
            raise NotFoundError(
                f"the model {name[:100]!r} is not served here", where="model", fix=f"ask {self._model.id!r}"
            )

    def _read(self, asked: Embed) -> list[str]:
        """The texts of a request, whichever of the four forms it has."""
        given: list[Any] = [asked.input] if isinstance(asked.input, str) else asked.input
        if all(isinstance(each, str) for each in given):
            texts = given
        elif all(isinstance(each, int) for each in given):
            texts = [self._text(given)]
        elif all(isinstance(each, list) for each in given):
            texts = [self._text(each) for each in given]
        else:
            raise InputError("texts and tokens are mixed", where="input", fix="send either")
        if len(texts) > MOST:
            raise InputError(f"{len(texts)} texts are asked at once", where="input", fix=f"send at most {MOST}")
        return texts

    def _text(self, tokens: list[int]) -> str:
        if not isinstance(self._predictor, Reads):
            raise InputError("this model reads texts alone", where="input", fix="send texts")
        return self._predictor.text_of(tokens)


def shortened(vectors: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """The first ``size`` dimensions, at length 1 again: what a model trained for that gives."""
    cut = vectors[:, :size]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)


def render(error: BedplateError) -> Response:
    """An error in the protocol's form."""
    status, headers = outcome(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if status == 404 else error.code
    text = f"{error.message}; {error.fix}" if error.fix else error.message
    return Response.json(Failure(Cause(message=text, type=kind, param=error.where, code=code)), status, headers)
