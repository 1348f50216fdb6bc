"""Texts to vectors: a tokenizer, an ONNX encoder, pooling. Nothing of it runs code: two JSON files and a graph.

The encoder gives a vector for each token; one for the text is made of them here, so that an encoder exported by any
tool can be released. Texts of about the same length are encoded together: a short one is never padded to a long one.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.sessions import Session, open_session, run

CONFIG, TOKENIZER, ENCODER = "embedding.json", "tokenizer.json", "encoder.onnx"
TEXT, EMBEDDING, TOKENS = "text", "embedding", "tokens"
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_TOGETHER = 8192
"""Tokens, padding included, that are encoded at once: bounds memory."""
_PADDING, _SHARE = 16, 0.25
"""A text that needs more padding than this, in tokens and as a share of its batch's longest, begins another batch: the
weights are read once for each batch, which costs as much as about so many tokens."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``embedding.json`` holds.

    ``max_tokens`` counts the special ones; what is beyond is cut off. ``pooling`` makes a text's vector of those of its
    tokens: their mean, or the first one (``cls``). ``normalize`` gives it length 1.
    """

    format: Literal[1] = 1
    dimensions: Annotated[int, msgspec.Meta(ge=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=4)]
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True


def signature(dimensions: int) -> ModelSignature:
    """Texts in; a vector for each out, and how many tokens of it were read."""
    return ModelSignature(
        predictor="embedding",
        inputs=(TensorSpec(name=TEXT, datatype="BYTES", shape=(-1,)),),
        outputs=(
            TensorSpec(name=EMBEDDING, datatype="FP32", shape=(-1, dimensions)),
            TensorSpec(name=TOKENS, datatype="INT64", shape=(-1,)),
        ),
    )


class EmbeddingPredictor:
    """Answers texts with vectors.

    Raises:
        IntegrityError: tokenizer and encoder cannot be used, or do not fit each other or the signature.
    """

    def __init__(
        self, config: Config, tokenizer: bytes, encoder: bytes, promised: ModelSignature, *, threads: int = 1
    ) -> None:
        import tokenizers  # only a replica of such a model needs it

        self.signature = signature(config.dimensions)
        if promised != self.signature:
            raise IntegrityError(f"the signature is not that of an embedding of {config.dimensions} dimensions")
        self.config = config
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # the library raises plain Exception
            raise IntegrityError(f"the tokenizer cannot be read: {error}", where=TOKENIZER) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(config.max_tokens)
        self._session: Session = open_session(encoder, threads)
        self._names = {node.name for node in self._session.get_inputs()}
        self._output = self._session.get_outputs()[0].name
        if not {_IDS} <= self._names <= {_IDS, _MASK, _TYPES}:
            raise IntegrityError(
                f"the encoder takes {', '.join(sorted(self._names))}",
                where=ENCODER,
                fix=f"export it with the inputs {_IDS}, {_MASK} and, if it has them, {_TYPES}",
            )
        try:
            self._encode(["a text"])
        except InputError as error:
            raise IntegrityError(f"tokenizer and encoder do not fit: {error.message}", where=ENCODER) from error

    def predict(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Answer:
        """A vector for each text, in their order, and the tokens read of each.

        Raises:
            InputError: a text is not UTF-8.
        """
        vectors, tokens = self._encode([_text(value) for value in inputs[TEXT].ravel().tolist()])
        return Answer(outputs={EMBEDDING: vectors, TOKENS: tokens})

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that is read as these tokens; special ones among them say nothing, for each text gets its own.

        Raises:
            InputError: no text is read as these.
        """
        special = {*self._tokenizer.get_added_tokens_decoder(), *self._tokenizer.encode("").ids}
        wanted = [token for token in tokens if token not in special]
        known = self._tokenizer.get_vocab_size()
        text: str = self._tokenizer.decode(wanted) if all(token < known for token in wanted) else ""
        read = [token for token in self._tokenizer.encode(text).ids if token not in special]
        if not wanted or read != wanted[: len(read)] or len(read) < min(len(wanted), self.config.max_tokens // 2):
            raise InputError(
                "no text is read as these tokens", where="input", fix="send tokens of this model, or texts"
            )
        return text

    def _encode(self, texts: Sequence[str]) -> tuple[Floats, Ints]:
        # One by one: given many, the library would start threads of its own beside those the replica was given.
        rows = [self._tokenizer.encode_batch_fast([text])[0].ids for text in texts]
        lengths = np.array([len(row) for row in rows], np.int64)
        vectors = np.empty((len(rows), self.config.dimensions), np.float32)
        for batch in batches(lengths):
            ids = np.zeros((len(batch), int(lengths[batch[0]])), np.int64)
            mask = np.zeros_like(ids)
            for at, row in enumerate(batch):
                ids[at, : lengths[row]] = rows[row]
                mask[at, : lengths[row]] = 1
            given = {_IDS: ids, _MASK: mask, _TYPES: np.zeros_like(ids)}
            hidden = run(self._session, [self._output], {n: given[n] for n in self._names})[0]
            if hidden.shape != (*ids.shape, self.config.dimensions):
                raise IntegrityError(
                    f"the encoder gives {list(hidden.shape)} for tokens {list(ids.shape)}", where=ENCODER
                )
            vectors[batch] = self._pool(hidden, mask)
        return vectors, lengths

    def _pool(self, hidden: Floats, mask: Ints) -> Floats:
        """Token vectors (n, t, d) to text vectors (n, d)."""
        if self.config.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask.astype(np.float32)
            pooled = np.matmul(weights[:, None, :], hidden)[:, 0] / weights.sum(1, keepdims=True)
        if self.config.normalize:
            pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return np.asarray(pooled, np.float32)


def batches(lengths: Ints) -> Iterator[list[int]]:
    """Rows to encode together, each in one batch, the longest first: little padding, bounded size.

    A row is padded by at most 16 tokens or a quarter; a batch holds at most 8,192 tokens, or one row.
    """
    batch: list[int] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        longest = lengths[batch[0]] if batch else 0
        padding = longest - lengths[row]
        if batch and (padding > max(_PADDING, _SHARE * longest) or (len(batch) + 1) * longest > _TOGETHER):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"a text is not UTF-8: {error}", where=TEXT, fix="send texts as UTF-8") from error


def assemble(files: dict[str, bytes], promised: ModelSignature, *, threads: int = 1) -> EmbeddingPredictor:
    """The predictor from the content of its three files and what their bundle's signature says.

    Raises:
        IntegrityError: a file is missing or cannot be used.
    """
    try:
        config = msgspec.json.decode(files[CONFIG], type=Config)
        return EmbeddingPredictor(config, files[TOKENIZER], files[ENCODER], promised, threads=threads)
    except (KeyError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"the bundle is not an embedding model: {error}", where=CONFIG) from error
