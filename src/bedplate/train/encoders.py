"""A text embedding model from the files that sentence-transformers saves: BERT and RoBERTa encoders, made ONNX.

The weights are read as safetensors and the graph is written node by node, so that neither torch nor any code of the
model is needed. What was written is compared with the same arithmetic in NumPy before it is handed over.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import ids
from bedplate.bundle import safetensors
from bedplate.compute.task import Result
from bedplate.errors import InputError, IntegrityError
from bedplate.extensions import require
from bedplate.records import Comparison, Metric
from bedplate.serve import embedding
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.sessions import open_session
from bedplate.train import evaluation

OPSET, IR = 17, 9
TOLERANCE = 1e-4
"""Largest difference of a token's vector between graph and NumPy; its parts are of the order of 1."""
_FAMILIES = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}
"""Kinds of encoder, and whether positions are counted from behind the padding token."""
_ACTIVATION = "gelu"
_MEASURED = 1000

Weights = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What of ``config.json`` says how the encoder computes; the rest is about training it."""

    model_type: str
    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = _ACTIVATION
    position_embedding_type: str = "absolute"
    pad_token_id: int = 0

    @property
    def offset(self) -> int:
        """The position of the first token."""
        return self.pad_token_id + 1 if _FAMILIES[self.model_type] else 0

    @property
    def longest(self) -> int:
        """The most tokens that there are positions for."""
        return self.max_position_embeddings - self.offset


def release(
    folder: Path,
    texts: Sequence[str],
    labels: Sequence[Any],
    *,
    max_tokens: int | None = None,
    normalize: bool | None = None,
    seed: int = 7,
) -> Result:
    """What a ``@train`` function returns to release the encoder in ``folder``: files, signature, and how good it is.

    The folder is one that sentence-transformers or transformers saved: ``config.json``, ``model.safetensors``,
    ``tokenizer.json``, and beside them what says how vectors are pooled. ``max_tokens`` and ``normalize`` override it.
    ``labels`` say which of ``texts`` belong together; what is measured on them stands at :func:`measure`.

    Raises:
        InputError: a file is missing or unusable, or the encoder is of a kind that is not converted.
        IntegrityError: the weights are not what ``config.json`` says, or the graph computes something else.
        MissingExtraError: ``onnx`` is not installed.
    """
    architecture = _architecture(_read(folder, "config.json"))
    weights = _encoder_weights(safetensors.read(_read(folder, "model.safetensors"), "model.safetensors"))
    graph = convert(architecture, weights)
    worst = verify(graph, architecture, weights)
    limit = max_tokens or _json(folder, "sentence_bert_config.json").get("max_seq_length") or architecture.longest
    pooling = _json(folder, "1_Pooling/config.json")
    modules = (folder / "modules.json").read_text() if (folder / "modules.json").is_file() else ""
    config = embedding.Config(
        dimensions=architecture.hidden_size,
        max_tokens=min(int(limit), architecture.longest),
        pooling=_pooling(pooling),
        normalize="Normalize" in modules if normalize is None else normalize,
    )
    files = {
        embedding.CONFIG: ids.canonical(config),
        embedding.ENCODER: graph,
        embedding.TOKENIZER: _read(folder, "tokenizer.json"),
    }
    signature = embedding.signature(config.dimensions)
    metrics, comparisons = measure(embedding.assemble(files, signature), texts, labels, seed=seed)
    return Result(
        files=files,
        result={
            "signature": msgspec.to_builtins(signature),
            "metrics": msgspec.to_builtins(metrics),
            "comparisons": msgspec.to_builtins(comparisons),
            "parameters": msgspec.to_builtins(config) | {"architecture": msgspec.to_builtins(architecture)},
            "checks": {"onnx_difference": worst},
        },
    )


def measure(
    model: embedding.EmbeddingPredictor, texts: Sequence[str], labels: Sequence[Any], *, seed: int = 7
) -> tuple[tuple[Metric, ...], tuple[Comparison, ...]]:
    """``same_label@1``: the share of texts whose nearest other text has the same label, with intervals.

    Baselines: ``shared_words``, where the nearest is the text with the largest share of words in common, and
    ``most_common``, which says the commonest label of all. At most 1,000 texts are looked at, spread evenly.

    Raises:
        InputError: there are fewer than two texts, or not one label for each.
    """
    if len(texts) != len(labels) or len(texts) < 2:
        raise InputError(f"{len(texts)} texts and {len(labels)} labels measure nothing", fix="give a label for each")
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _MEASURED)).astype(int))
    kept, names = [str(texts[i]) for i in chosen], np.array([str(labels[i]) for i in chosen])
    vectors = model.predict({embedding.TEXT: np.array(kept, object)}, NO_FEATURES).outputs[embedding.EMBEDDING]
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    words = [frozenset(text.lower().split()) for text in kept]
    shared = np.array([[len(a & b) / max(len(a | b), 1) for b in words] for a in words])
    common = max(sorted(set(names.tolist())), key=names.tolist().count)
    per_unit = {
        evaluation.CANDIDATE: _same(vectors @ vectors.T / lengths / lengths.T, names),
        "shared_words": _same(shared, names),
        "most_common": (names == common).astype(float),
    }
    return evaluation.summarise({"same_label@1": per_unit}, {"all": np.ones(len(kept), bool)}, seed=seed)


def _same(likeness: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    others = likeness.astype(np.float64)
    np.fill_diagonal(others, -np.inf)
    return np.asarray(labels[others.argmax(1)] == labels, np.float64)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"the encoder's folder has no {name}", where=str(folder), fix="save the model with safetensors"
        ) from error


def _json(folder: Path, name: str) -> dict[str, Any]:
    """A file beside the model that may be missing."""
    if not (folder / name).is_file():
        return {}
    try:
        return msgspec.json.decode(_read(folder, name), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InputError(f"{name} cannot be read: {error}", where=str(folder)) from error


def _pooling(given: Mapping[str, Any]) -> Any:
    chosen = [name for name, on in given.items() if name.startswith("pooling_mode_") and on]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(chosen) > 1 or any(name not in known for name in chosen):
        raise InputError(f"vectors are pooled by {', '.join(chosen)}", where="1_Pooling/config.json",
                         fix=f"use a model that is pooled by one of {', '.join(known)}")  # fmt: skip
    return known[chosen[0]] if chosen else "mean"


def _architecture(data: bytes) -> Architecture:
    try:
        found = msgspec.json.decode(data, type=Architecture)
    except msgspec.DecodeError as error:
        raise InputError(f"the encoder cannot be read: {error}", where="config.json") from error
    for what, value, allowed in (
        ("model_type", found.model_type, tuple(_FAMILIES)),
        ("hidden_act", found.hidden_act, (_ACTIVATION,)),
        ("position_embedding_type", found.position_embedding_type, ("absolute",)),
    ):
        if value not in allowed:
            raise InputError(f"{what} is {value!r}", where="config.json", fix=f"there is {', '.join(allowed)}")
    return found


def _encoder_weights(given: Weights) -> Weights:
    """The weights without the prefix that a model around the encoder gives them, as float32."""
    inner = next((name for name in given if name.endswith("embeddings.word_embeddings.weight")), "")
    prefix = inner.removesuffix("embeddings.word_embeddings.weight")
    return {
        name.removeprefix(prefix): array.astype(np.float32, copy=False)
        for name, array in given.items()
        if name.startswith(prefix) and array.dtype.kind == "f"
    }


class _Layers:
    """The weights by what they are for, checked against the architecture."""

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self._weights = weights
        self.size = architecture.hidden_size
        if self.size % architecture.num_attention_heads:
            raise IntegrityError(f"{self.size} does not divide into {architecture.num_attention_heads} heads")
        self.words = self.get("embeddings.word_embeddings.weight", -1, self.size)
        self.positions = self.get(
            "embeddings.position_embeddings.weight", architecture.max_position_embeddings, self.size
        )
        # A text by itself is all of type 0, so that this part of every position's vector is the same.
        self.kind = self.get("embeddings.token_type_embeddings.weight", -1, self.size)[0]

    def get(self, name: str, *shape: int) -> Floats:
        array = self._weights.get(name)
        if array is None or array.ndim != len(shape) or any(
            want not in (-1, size) for want, size in zip(shape, array.shape, strict=True)
        ):  # fmt: skip
            there = "not there" if array is None else f"of shape {list(array.shape)}"
            raise IntegrityError(f"weight {name!r} is {there}", where="model.safetensors")
        return array

    def dense(self, name: str) -> tuple[Floats, Floats]:
        """Matrix (in, out) and bias (out) of a dense layer."""
        matrix = self.get(f"{name}.weight", -1, -1)
        return np.ascontiguousarray(matrix.T), self.get(f"{name}.bias", matrix.shape[0])

    def norm(self, name: str) -> tuple[Floats, Floats]:
        """Scale and shift of a layer normalisation."""
        return self.get(f"{name}.weight", self.size), self.get(f"{name}.bias", self.size)


# ---------------------------------------------------------------------------------------------------------------- graph


def convert(architecture: Architecture, weights: Weights) -> bytes:
    """The encoder as ONNX: ``input_ids`` and ``attention_mask``, INT64 (n, t), to ``hidden``, FP32 (n, t, d).

    Raises:
        IntegrityError: a weight is missing or of another shape.
        MissingExtraError: ``onnx`` is not installed.
    """
    return _Graph(architecture, _Layers(architecture, weights)).model()


class _Graph:
    def __init__(self, architecture: Architecture, layers: _Layers) -> None:
        self._onnx = require("onnx", "train")
        self._a, self._layers = architecture, layers
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def model(self) -> bytes:
        onnx, helper, a = self._onnx, self._onnx.helper, self._a
        hidden = self._embed()
        # 0 where a token counts and a large negative number where it is padding, for every head and every query.
        counts = self.add("Cast", ["attention_mask"], to=onnx.TensorProto.FLOAT)
        ignored = self.add("Sub", [self.constant("one", np.float32(1)), counts])
        bias = self.add("Mul", [ignored, self.constant("lowest", np.float32(-1e9))])
        bias = self.add("Unsqueeze", [bias, self.constant("axes", np.array([1, 2]))])
        for number in range(a.num_hidden_layers):
            hidden = self._layer(f"encoder.layer.{number}", hidden, bias)
        self._nodes.append(helper.make_node("Identity", [hidden], ["hidden"]))
        kinds = onnx.TensorProto
        graph = helper.make_graph(
            self._nodes,
            a.model_type,
            [helper.make_tensor_value_info(n, kinds.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info("hidden", kinds.FLOAT, ["n", "t", a.hidden_size])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR).SerializeToString())

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node; gives the name of its output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def _dense(self, name: str, inputs: str) -> str:
        matrix, bias = self._layers.dense(name)
        product = self.add("MatMul", [inputs, self.constant(f"{name}.matrix", matrix)])
        return self.add("Add", [product, self.constant(f"{name}.bias", bias)])

    def _norm(self, name: str, inputs: str) -> str:
        scale, shift = self._layers.norm(name)
        names = [self.constant(f"{name}.scale", scale), self.constant(f"{name}.shift", shift)]
        return self.add("LayerNormalization", [inputs, *names], axis=-1, epsilon=self._a.layer_norm_eps)

    def _embed(self) -> str:
        layers, a = self._layers, self._a
        words = self.add("Gather", [self.constant("words", layers.words), "input_ids"])
        table = self.constant("positions", layers.positions + layers.kind)
        if a.offset:
            # Positions count the tokens that are none of padding, which itself stands at the position before them.
            before = self.add("CumSum", ["attention_mask", self.constant("along", np.array(1))])
            counted = self.add("Mul", [before, "attention_mask"])
            places = self.add("Add", [counted, self.constant("padding", np.array(a.pad_token_id))])
            positions = self.add("Gather", [table, places])
        else:
            length = self.add("Shape", ["input_ids"], start=1, end=2)
            positions = self.add("Slice", [table, self.constant("from", np.array([0])), length])
        return self._norm("embeddings.LayerNorm", self.add("Add", [words, positions]))

    def _layer(self, name: str, hidden: str, bias: str) -> str:
        a = self._a
        wide = self.constant("heads", np.array([0, 0, a.num_attention_heads, a.hidden_size // a.num_attention_heads]))
        parts = {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            dense = self._dense(f"{name}.attention.self.{part}", hidden)
            parts[part] = self.add("Transpose", [self.add("Reshape", [dense, wide])], perm=order)
        products = self.add("MatMul", [parts["query"], parts["key"]])
        scale = self.constant("scale", np.float32((a.hidden_size / a.num_attention_heads) ** 0.5))
        scores = self.add("Add", [self.add("Div", [products, scale]), bias])
        mixed = self.add("MatMul", [self.add("Softmax", [scores], axis=-1), parts["value"]])
        mixed = self.add("Transpose", [mixed], perm=[0, 2, 1, 3])
        mixed = self.add("Reshape", [mixed, self.constant("joined", np.array([0, 0, a.hidden_size]))])
        attended = self._dense(f"{name}.attention.output.dense", mixed)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self.add("Add", [attended, hidden]))
        inner = self._gelu(self._dense(f"{name}.intermediate.dense", hidden))
        outer = self._dense(f"{name}.output.dense", inner)
        return self._norm(f"{name}.output.LayerNorm", self.add("Add", [outer, hidden]))

    def _gelu(self, inputs: str) -> str:
        scaled = self.add("Div", [inputs, self.constant("root", np.float32(2**0.5))])
        shifted = self.add("Add", [self.add("Erf", [scaled]), self.constant("one", np.float32(1))])
        return self.add("Mul", [self.add("Mul", [inputs, shifted]), self.constant("half", np.float32(0.5))])


# ---------------------------------------------------------------------------------------------------------- in NumPy


def verify(graph: bytes, architecture: Architecture, weights: Weights, seed: int = 7) -> float:
    """The largest difference between the graph and NumPy, over texts of made-up tokens and of several lengths.

    Raises:
        IntegrityError: it is more than rounding, or the graph gives a value that is no number.
    """
    random = np.random.default_rng(seed)
    longest = min(24, architecture.longest)
    lengths = np.array([longest, longest // 2, 3])
    tokens = random.integers(architecture.pad_token_id + 1, len(_Layers(architecture, weights).words), (3, longest))
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    tokens = np.where(mask == 1, tokens, architecture.pad_token_id)
    session = open_session(graph)
    found = session.run(["hidden"], {"input_ids": tokens, "attention_mask": mask})[0]
    worst = 0.0
    for row, length in enumerate(lengths):  # alone and without padding, which must make no difference
        expected = reference(architecture, weights, tokens[row, :length])
        worst = max(worst, float(np.abs(found[row, :length] - expected).max()))
    if not worst <= TOLERANCE:
        raise IntegrityError(f"the graph differs from the weights by {worst:.2g}", where=embedding.ENCODER)
    return worst


def reference(architecture: Architecture, weights: Weights, tokens: npt.NDArray[np.int64]) -> Floats:
    """The vectors (t, d) of one text's tokens (t,), computed in NumPy."""
    from scipy.special import erf  # heavy: only a conversion needs it

    a, layers = architecture, _Layers(architecture, weights)

    def norm(name: str, x: Floats) -> Floats:
        scale, shift = layers.norm(name)
        apart = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((apart**2).mean(-1, keepdims=True) + a.layer_norm_eps)
        return np.asarray(apart / spread * scale + shift, np.float32)

    def dense(name: str, x: Floats) -> Floats:
        matrix, bias = layers.dense(name)
        return x @ matrix + bias

    places = np.arange(len(tokens)) + a.offset
    x = norm("embeddings.LayerNorm", layers.words[tokens] + layers.positions[places] + layers.kind)
    for number in range(a.num_hidden_layers):
        name = f"encoder.layer.{number}"
        parts = (dense(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        q, k, v = (part.reshape(len(tokens), a.num_attention_heads, -1).transpose(1, 0, 2) for part in parts)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1], dtype=np.float32)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ v).transpose(1, 0, 2).reshape(len(tokens), a.hidden_size)
        x = norm(f"{name}.attention.output.LayerNorm", dense(f"{name}.attention.output.dense", mixed) + x)
        inner = dense(f"{name}.intermediate.dense", x)
        inner = inner * (1 + erf(inner / np.float32(2**0.5))) / 2
        x = norm(f"{name}.output.LayerNorm", dense(f"{name}.output.dense", inner) + x)
    return np.asarray(x, np.float32)
