"""The port between the server and what answers: a predictor takes named arrays and gives named arrays.

A trusted process loads only formats that run no code; which loader reads a bundle stands in its signature. Some of them
(:data:`bedplate.bundle.manifest.LIMITED`) hand what may run code to a limited process.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from bedplate import bundle
from bedplate.bundle import Manifest
from bedplate.errors import IntegrityError, UnavailableError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.durations import Durations
from bedplate.serve.sessions import Provider, open_session, run, run_bfloat

__all__ = ["Answer", "FeatureReader", "Manifest", "OnnxPredictor", "Predictor", "load"]


class FeatureReader(Protocol):
    """Where a predictor reads online features."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""


class NoFeatures:
    """The reader of who has none to give."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """Nothing."""
        return None

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        """Nothing, for each."""
        return [None] * len(keys)


NO_FEATURES = NoFeatures()


class Answer(msgspec.Struct):
    """What a predictor gives: the outputs, the feature values it used (logged), and whom it is about.

    ``outputs`` holds one array per output of the signature; string outputs are arrays of ``object`` or ``str``.
    ``features`` must be plain JSON values. ``steps`` says of each step of a graph, in
    their order, how many seconds after the first it began and how many it took.
    """

    outputs: dict[str, np.ndarray]
    features: dict[str, Any] = {}
    entity: str = ""
    steps: dict[str, tuple[float, float]] = {}


class Predictor(Protocol):
    """Answers requests for one bundle. Called from one thread at a time."""

    signature: ModelSignature

    def predict(self, inputs: dict[str, np.ndarray], features: FeatureReader) -> Answer:
        """The answer to checked inputs: every input of the signature is there with its type and shape.

        Raises:
            InputError: the inputs make no sense to this model; the client sees the text.
        """


@runtime_checkable
class Streams(Protocol):
    """A predictor that also answers in pieces."""

    def stream(self, inputs: dict[str, np.ndarray], features: FeatureReader) -> Iterator[Answer]:
        """The answer to checked inputs, piece by piece; each piece holds every output of the signature.

        The iterator is asked for one piece at a time, as the client takes them, and is closed when it leaves.

        Raises:
            InputError: as ``predict``; before the first piece.
        """


@runtime_checkable
class Stepped(Protocol):
    """A predictor that computes in steps; what each of them takes is added to the one of its name."""

    steps: dict[str, Durations]


Loader = Callable[[Path, Manifest, int], Predictor]

ONNX_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
"""Open Inference Protocol datatypes by the element types that ONNX Runtime names."""


class OnnxPredictor:
    """One ONNX graph. Its inputs and outputs are those of the signature, by name and type.

    Raises:
        IntegrityError: ONNX Runtime does not take the graph, or the graph is not what the signature says.
    """

    def __init__(self, model: bytes, signature: ModelSignature, threads: int = 1, provider: Provider = "cpu") -> None:
        self._session = open_session(model, threads, provider)
        for kind, found, promised in (
            ("input", self._session.get_inputs(), signature.inputs),
            ("output", self._session.get_outputs(), signature.outputs),
        ):
            _check_promise(kind, {node.name: ONNX_TYPES.get(node.type, node.type) for node in found}, promised)
        self.signature = signature
        self._outputs = [spec.name for spec in signature.outputs]
        kinds = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
        halves = {name for name, kind in kinds.items() if kind == "BF16"}
        if halves and "BYTES" in kinds.values():
            raise IntegrityError("a graph with both BF16 and string tensors cannot be run", fix="cast one of them away")
        self._run = partial(run_bfloat, halves) if halves else run

    def predict(self, inputs: dict[str, np.ndarray], features: FeatureReader) -> Answer:
        """Run the graph.

        Raises:
            InputError: the graph refuses the values (an index out of range, shapes that do not fit each other).
        """
        values = self._run(self._session, self._outputs, inputs)
        return Answer(outputs=dict(zip(self._outputs, values, strict=True)))


def _check_promise(kind: str, found: dict[str, str], promised: tuple[TensorSpec, ...]) -> None:
    for spec in promised:
        if found.get(spec.name) != spec.datatype:
            there = found.get(spec.name, "not there")
            raise IntegrityError(f"{kind} {spec.name!r} of the model is {there}, the signature says {spec.datatype}")
    missing = set(found) - {spec.name for spec in promised} if kind == "input" else set()
    if missing:
        raise IntegrityError(f"the signature leaves out {kind} {', '.join(sorted(missing))}")


def _load_onnx(folder: Path, manifest: Manifest, threads: int, provider: Provider = "cpu") -> Predictor:
    models = [name for name, file in manifest.files.items() if file.format == "onnx"]
    if len(models) != 1:
        raise IntegrityError(f"a bundle for the onnx loader holds one ONNX file, not {len(models)}", where=str(folder))
    return OnnxPredictor(bundle.read(folder, manifest, models[0]), manifest.signature, threads, provider)


def _load_recommender(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import recommender, vectors  # the first imports this module

    names = [recommender.CONFIG, recommender.ITEMS, recommender.RANKER]
    names += [name for name in (vectors.INDEX, vectors.ARRAYS) if name in manifest.files]
    return recommender.assemble({name: bundle.read(folder, manifest, name) for name in names}, threads=threads)


def _load_embedding(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import embedding  # imports this module

    names = (embedding.CONFIG, embedding.TOKENIZER, embedding.ENCODER)
    files = {name: bundle.read(folder, manifest, name) for name in names}
    return embedding.assemble(files, manifest.signature, threads=threads)


def _load_joining(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import joining  # imports this module

    files = {name: bundle.read(folder, manifest, name) for name in (joining.CONFIG, joining.MODEL)}
    return joining.assemble(files, manifest.signature, threads=threads)


def _load_generating(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import generation  # imports this module

    names = (generation.CONFIG, generation.TOKENIZER, generation.MODEL)
    return generation.assemble({name: bundle.read(folder, manifest, name) for name in names}, threads=threads)


def _load_limited(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import limited  # imports this module

    files = {name: bundle.read(folder, manifest, name) for name in manifest.files}
    kind = manifest.signature.predictor
    return limited.LimitedPredictor(kind, files, manifest.signature, threads=threads)  # type: ignore[arg-type]


def _load_graph(folder: Path, manifest: Manifest, threads: int) -> Predictor:
    from bedplate.serve import graph  # imports this module

    files = {name: bundle.read(folder, manifest, name) for name in manifest.files}
    return graph.assemble(files, manifest.signature, threads=threads)


LOADERS: dict[str, Loader] = {
    "embedding": _load_embedding,
    "graph": _load_graph,
    "graph-limited": _load_graph,
    "onnx": _load_onnx,
    "onnx-features": _load_joining,
    "onnx-generate": _load_generating,
    "python": _load_limited,
    "recommender": _load_recommender,
    "torch-export": _load_limited,
}
"""Every loader a trusted process has. What is not here is not loaded, whatever a bundle says."""


def load(folder: Path, manifest: Manifest, threads: int = 1, provider: Provider = "cpu") -> Predictor:
    """The predictor of a verified bundle; each file is checked against the manifest again as it is read.

    Raises:
        UnavailableError: it cannot compute where ``provider`` says.
        IntegrityError: the signature names no known loader, or the bundle is not what it says.
    """
    loader = LOADERS.get(manifest.signature.predictor)
    if loader is None:
        raise IntegrityError(
            f"no loader is called {manifest.signature.predictor!r}",
            where=str(folder),
            fix=f"release for one of {', '.join(LOADERS)}",
        )
    if provider == "cpu":
        return loader(folder, manifest, threads)
    if loader is not _load_onnx:
        raise UnavailableError(
            f"a model of the loader {manifest.signature.predictor!r} computes on the CPU alone",
            where=str(folder),
            fix="plan for the CPU, or release one ONNX graph",
        )
    return _load_onnx(folder, manifest, threads, provider)
