"""The prediction log of a use case that de-identifies: what stands in a record in the place of what was asked.

It is settled once for a model which of its values may be logged; a model whose inputs all may costs a request nothing
but the code of its id. Nothing is guessed: what bears no name of a contract's column is not logged, but for numbers
that a model gives and features that were computed from de-identified tables.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.identifiers import OLDEST, Kept, LogRules, code, key_of, zip3
from bedplate.journal.predictions import Packed
from bedplate.records import ModelSignature, TraceContext
from bedplate.serve.predictors import Answer
from bedplate.serve.tensors import Call, logged, plain

_Made = Callable[[npt.NDArray[Any]], Any]
_MISSING = "missing"
"""Under which name predictors tell whose features were missing."""
_REPLAYED = re.compile(r"replay-[0-9a-f]{32}")
"""The id of a request of held-out history: a digest, which the flow looks up."""


class SafeLog:
    """What the records of one model may hold.

    ``stored`` names the features that are read and not made of the request; None if all are.

    Raises:
        StorageError: the key cannot be read.
    """

    def __init__(
        self, rules: LogRules, use_case: str, signature: ModelSignature, stored: Collection[str] | None
    ) -> None:
        self._key = key_of(rules.secret, use_case)
        kept: dict[str, Kept] = rules.columns
        self._inputs = {
            spec.name: self._made(rule)
            for spec in signature.inputs
            if (rule := kept.get(spec.name, "nothing")) != "value"
        }
        self._plain = not self._inputs
        """Whether no request can hold an identifier, and so no answer tell one."""
        self._outputs: dict[str, _Made] = {}
        for spec in signature.outputs:
            rule = kept.get(spec.name, "value" if self._plain or spec.datatype != "BYTES" else "nothing")
            if rule != "value":
                self._outputs[spec.name] = self._made(rule)
        self._stored = None if stored is None else frozenset((*stored, _MISSING))
        entity: Kept = kept.get(signature.inputs[0].name, "nothing") if signature.inputs else "nothing"
        self._entity = self._made(entity) if entity != "value" else None

    def _made(self, rule: Kept) -> _Made:
        made: dict[Kept, _Made] = {"code": partial(_codes, self._key), "zip": _zips, "age": _ages}
        return made.get(rule, _nothing)

    def inputs(self, call: Call) -> dict[str, Any]:
        """The inputs of a request."""
        if self._plain:
            return call.values
        made = {name: rule(call.arrays[name]) for name, rule in self._inputs.items() if name in call.values}
        return {**call.values, **made}

    def outputs(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs of an answer, each as :func:`~bedplate.serve.tensors.logged` or as a list, by name."""
        if not self._outputs:
            return outputs
        return {**outputs, **{name: rule(_array(outputs[name])) for name, rule in self._outputs.items()}}

    def features(self, answer: Answer) -> dict[str, Any]:
        """The features of an answer: those that are read come from tables that are de-identified."""
        if self._plain or self._stored is None:
            told = answer.features
        else:
            told = {name: value if name in self._stored else None for name, value in answer.features.items()}
        if self._entity is not None and told.get(_MISSING) is not None:
            told = {**told, _MISSING: None}  # it names entities
        return told

    def entity(self, answer: Answer) -> str:
        """Whom an answer is about; empty where that may not be told."""
        if self._entity is None or not answer.entity:
            return answer.entity
        made = self._entity(np.array([answer.entity], object))
        return str(made[0]) if made and made[0] is not None else ""

    def request(self, call: Call) -> str:
        """The id that a caller gave a request, as a code: it may be somebody's number."""
        if not call.id or (call.replayed and _REPLAYED.fullmatch(call.id)):
            return call.id or ""
        return code(self._key, call.id) or ""

    def trace(self, trace: TraceContext) -> TraceContext:
        """The trace of a request without what its caller wrote freely."""
        return msgspec.structs.replace(trace, state="") if trace.state else trace


def _array(value: Any) -> npt.NDArray[Any]:
    return np.frombuffer(value.data, value.dtype).reshape(value.shape) if isinstance(value, Packed) else np.array(value)


def _nothing(_: npt.NDArray[Any]) -> None:
    return None


def _codes(key: bytes, values: npt.NDArray[Any]) -> list[str | None] | None:
    """Of text and whole numbers: a fraction may be any of many numbers."""
    return None if values.dtype.kind in "fcb" else [code(key, str(value)) for value in plain(values)]


def _zips(values: npt.NDArray[Any]) -> list[str | None] | None:
    """Of text: a number has lost the zeros that a ZIP code begins with."""
    return [zip3(str(value)) for value in plain(values)] if values.dtype.kind in "OUS" else None


def _ages(values: npt.NDArray[Any]) -> Any:
    return logged(np.minimum(values, OLDEST)) if values.dtype.kind in "iuf" else None
