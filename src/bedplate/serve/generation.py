"""Text that a model writes on: a tokenizer, an ONNX graph of what comes next, and the loop around it. It yields.

The graph takes ``tokens`` (INT64 ``[1, n]``) and gives ``logits`` (FP32 ``[1, n, vocabulary]``); each step takes the
likeliest token, so the same request has the same answer. Nothing of it runs code: two JSON files and a graph.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.sessions import Session, open_session, run

CONFIG, TOKENIZER, MODEL = "generate.json", "tokenizer.json", "model.onnx"
TEXT, MAX_TOKENS = "text", "max_tokens"
PREDICTOR = "onnx-generate"
_UNFINISHED = "\ufffd"
"""What a decoder writes for the bytes of a character that is not complete yet."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``generate.json`` holds.

    ``context`` is how many tokens the graph sees at most, the last ones; ``max_tokens`` how many an answer may have;
    ``end`` the number of the token that ends it.
    """

    format: Literal[1] = 1
    context: Annotated[int, msgspec.Meta(ge=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    end: Annotated[int, msgspec.Meta(ge=0)] | None = None


SIGNATURE = ModelSignature(
    predictor=PREDICTOR,
    inputs=(
        TensorSpec(name=TEXT, datatype="BYTES", shape=(1,)),
        TensorSpec(name=MAX_TOKENS, datatype="INT64", shape=(1,)),
    ),
    outputs=(TensorSpec(name=TEXT, datatype="BYTES", shape=(1,)),),
)


class GeneratingPredictor:
    """Writes texts on, whole or piece by piece.

    Raises:
        IntegrityError: tokenizer and graph cannot be used.
    """

    def __init__(self, config: Config, tokenizer: bytes, model: bytes, *, threads: int = 1) -> None:
        import tokenizers  # only a replica of such a model needs it

        self.signature = SIGNATURE
        self.config = config
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # the library raises plain Exception
            raise IntegrityError(f"the tokenizer cannot be read: {error}", where=TOKENIZER) from error
        self._session: Session = open_session(model, threads)
        names = [[node.name for node in nodes] for nodes in (self._session.get_inputs(), self._session.get_outputs())]
        if names != [["tokens"], ["logits"]]:
            raise IntegrityError(f"the graph takes and gives {names}, not tokens and logits", where=MODEL)

    def predict(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Answer:
        """The whole text that follows.

        Raises:
            InputError: the text has no token, or too many are asked.
        """
        pieces = [str(piece.outputs[TEXT][0]) for piece in self.stream(inputs, features)]
        return Answer(outputs={TEXT: np.array(["".join(pieces)], object)})

    def stream(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Iterator[Answer]:
        """The text that follows, piece by piece.

        Raises:
            InputError: as :meth:`predict`, before the first piece.
        """
        wanted = int(inputs[MAX_TOKENS][0])
        if not 1 <= wanted <= self.config.max_tokens:
            most = self.config.max_tokens
            raise InputError(f"{wanted} tokens cannot be asked for", where=MAX_TOKENS, fix=f"ask 1 to {most}")
        text = inputs[TEXT][0]
        tokens: list[int] = self._tokenizer.encode(text.decode() if isinstance(text, bytes) else text).ids
        if not tokens:
            raise InputError("the text has no token", where=TEXT, fix="send a text to write on")
        written: list[int] = []
        before = said = 0  # what is decoded again, for tokens change with their neighbours, and what was yielded
        for _ in range(wanted):
            token = self._next(tokens)
            if token == self.config.end:
                break
            tokens.append(token)
            written.append(token)
            known: str = self._tokenizer.decode(written[before:said])
            now: str = self._tokenizer.decode(written[before:])
            if len(now) > len(known) and not now.endswith(_UNFINISHED):  # the rest comes with the next token
                yield Answer(outputs={TEXT: np.array([now[len(known) :]], object)})
                before, said = said, len(written)

    def _next(self, tokens: list[int]) -> int:
        seen = np.array([tokens[-self.config.context :]], np.int64)
        logits = run(self._session, ["logits"], {"tokens": seen})[0]
        return int(logits[0, -1].argmax())


def assemble(files: dict[str, bytes], *, threads: int = 1) -> GeneratingPredictor:
    """The predictor from the content of its three files.

    Raises:
        IntegrityError: a file is missing or cannot be used.
    """
    try:
        config = msgspec.json.decode(files[CONFIG], type=Config)
        return GeneratingPredictor(config, files[TOKENIZER], files[MODEL], threads=threads)
    except (KeyError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"the bundle is not a generating model: {error}", where=CONFIG) from error
