"""Features in the path: whom a request is about is named, and what the model needs of them is read here.

A model of columns (``model.onnx``) is released with ``features.json`` (:class:`Joined`): some of its inputs are
features of an entity. A request gives the entity's key instead, under the entity's name, and the other inputs as ever;
protocols, checks and log see a model of exactly these inputs. What is not in the online store, or is older than the
model bears, or could not be read in time, takes its declared default. Every value goes into the log record.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import clock
from bedplate.errors import IntegrityError, UnavailableError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.expressions import Expression, on_demand
from bedplate.serve.predictors import Answer, FeatureReader, OnnxPredictor
from bedplate.serve.state import MISSING, Floats, View, key_of, moments_of, unpack_many

CONFIG, MODEL = "features.json", "model.onnx"
PREDICTOR = "onnx-features"
Missing = dict[str, list[str]]


class Joined(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``features.json`` holds.

    ``entity`` names the input that keys come in, whole numbers. ``features`` are the columns of ``views`` that the
    model takes, each one of its inputs. ``defaults`` stand for what is missing; without one it is what a null is in
    training (:data:`~bedplate.serve.state.MISSING`). ``on_demand`` are expressions over those columns and the other
    inputs, by the name of the input that each is. ``max_age``: seconds from the moment that a value is of, after
    which it counts as missing. ``within``: seconds that reading may take of a request's time; views after that count as
    missing.
    """

    format: int = 1
    entity: str
    views: tuple[View, ...]
    features: tuple[str, ...]
    defaults: dict[str, float] = {}
    on_demand: dict[str, str] = {}
    max_age: Annotated[float, msgspec.Meta(gt=0)] | None = None
    within: Annotated[float, msgspec.Meta(gt=0)] = 0.01

    def __post_init__(self) -> None:
        known = [column for view in self.views for column in view.columns]
        if len(set(known)) != len(known):
            raise ValueError("two of its views have a column of the same name")
        if odd := [name for name in (*self.features, *self.defaults) if name not in (*known, *self.on_demand)]:
            raise ValueError(f"no view has the feature {odd[0]!r}")


def signature(config: Joined, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSignature:
    """What a request gives, of the ``inputs`` that the graph has: the entity, and what is no feature."""
    key = TensorSpec(name=config.entity, datatype="INT64", shape=(-1, 1))
    given = tuple(spec for spec in inputs if spec.name not in config.features)
    return ModelSignature(predictor=PREDICTOR, inputs=(key, *given), outputs=outputs)


class JoiningPredictor:
    """A model of columns, some of which are features.

    Raises:
        IntegrityError: graph, features and signature do not fit each other.
    """

    def __init__(self, config: Joined, model: bytes, promised: ModelSignature, threads: int = 1) -> None:
        features = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 1)) for name in config.features)
        given = promised.inputs[1:]
        if promised != signature(config, (*features, *given), promised.outputs):
            raise IntegrityError(f"the signature does not begin with the entity {config.entity!r}", where=CONFIG)
        inner = ModelSignature(predictor="onnx", inputs=(*features, *given), outputs=promised.outputs)
        self.signature = promised
        self.config = config
        self._model = OnnxPredictor(model, inner, threads)
        columns = [column for view in config.views for column in view.columns]
        self._default = np.array([config.defaults.get(column, MISSING) for column in columns], np.float32)
        self._columns = columns
        self._on_demand = {name: Expression(text) for name, text in config.on_demand.items()}

    def predict(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Answer:
        """The answers for the entities of a request, and the feature values they rest on.

        Raises:
            InputError: the graph refuses the values.
            IntegrityError: the online features are of another shape than the model was trained on.
        """
        entities = inputs[self.config.entity].ravel().tolist()
        values, missing = self._read(entities, features)
        given = {name: array for name, array in inputs.items() if name != self.config.entity}
        known = {name: values[:, at] for at, name in enumerate(self._columns)}
        if self._on_demand:
            known |= on_demand(self._on_demand, {**given, **known}, self.config.defaults)
        joined = {name: np.ascontiguousarray(known[name])[:, None] for name in self.config.features}
        answer = self._model.predict({**given, **joined}, features)
        alone = len(entities) == 1
        used: dict[str, Any] = {
            name: float(column[0, 0]) if alone else column.ravel().tolist() for name, column in joined.items()
        }
        if missing:
            used["missing"] = missing
        return Answer(outputs=answer.outputs, features=used, entity=str(entities[0]) if alone else "")

    def _read(self, entities: list[int], reader: FeatureReader) -> tuple[Floats, dict[str, Missing]]:
        """Values, shape (entities, columns), and by view and reason (unknown, stale, late) whose are missing."""
        started = perf_counter()
        keys = [key_of(entity) for entity in entities]
        out = np.tile(self._default, (len(entities), 1))
        missing: dict[str, Missing] = {}
        for view, start in self._views():
            absent: Missing = {}
            if perf_counter() - started > self.config.within:
                missing[view.namespace] = {"late": [str(entity) for entity in entities]}
                continue
            try:
                found = reader.get_many(view.namespace, keys)
            except (
                UnavailableError
            ):  # the store is away: an answer from defaults is better than none, and the log says it
                missing[view.namespace] = {"late": [str(entity) for entity in entities]}
                continue
            at = [i for i, value in enumerate(found) if value is not None]
            rows = [value for value in found if value is not None]
            fresh = self._fresh(rows)
            good = [i for i, is_good in zip(at, fresh, strict=True) if is_good]
            out[good, start : start + len(view.columns)] = unpack_many(view, rows)[np.array(fresh, bool)]
            for reason, whose in (
                ("unknown", [i for i, value in enumerate(found) if value is None]),
                ("stale", [i for i, is_good in zip(at, fresh, strict=True) if not is_good]),
            ):
                if whose:
                    absent[reason] = [str(entities[i]) for i in whose]
            if absent:
                missing[view.namespace] = absent
        return out, missing

    def _views(self) -> Iterator[tuple[View, int]]:
        start = 0
        for view in self.config.views:
            yield view, start
            start += len(view.columns)

    def _fresh(self, rows: list[bytes]) -> list[bool]:
        if self.config.max_age is None:
            return [True] * len(rows)
        oldest = (clock.now().timestamp() - self.config.max_age) * 1e6
        return [moment >= oldest for moment in moments_of(rows)]


def assemble(files: dict[str, bytes], promised: ModelSignature, *, threads: int = 1) -> JoiningPredictor:
    """The predictor from the content of its two files and what their bundle's signature says.

    Raises:
        IntegrityError: a file is missing or cannot be used.
    """
    try:
        config = msgspec.json.decode(files[CONFIG], type=Joined)
    except (KeyError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"the bundle does not say its features: {error}", where=CONFIG) from error
    return JoiningPredictor(config, files[MODEL], promised, threads)
