"""Arrays and objects as values of a column: read from JSON under a contract, written as JSON, and held to rules."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from typing import Any

import msgspec
import pyarrow as pa

from bedplate.data import contract_types
from bedplate.data.model import Column, RowCheck

_encoder = msgspec.json.Encoder(enc_hook=str)


def read(texts: Sequence[str | None], kind: pa.DataType, said: Column) -> pa.Array:
    """Values written as JSON; null stands for what is not what the contract says.

    Where the contract says nothing of what is inside, the text itself is kept.
    """
    found: list[Any] = []
    for text in texts:
        try:
            value = None if text is None else _shaped(msgspec.json.decode(text), said)
        except (ValueError, OverflowError, RecursionError):
            found.append(None)
        else:
            found.append(text if pa.types.is_string(kind) and value is not None else value)
    return pa.array(found, kind)


def written(value: Any) -> str | None:
    """A value as JSON."""
    return None if value is None else _encoder.encode(value).decode()


def _shaped(value: Any, said: Column) -> Any:
    """A decoded value as what the contract says it is.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        if said.required:
            raise ValueError(f"{said.name} is missing")
        return None
    if said.logical_type == "array":
        if not isinstance(value, list):
            raise ValueError("it is no array")
        return value if said.items is None else [_shaped(each, said.items) for each in value]
    if said.logical_type == "object":
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        if not said.properties:
            return value
        if unknown := value.keys() - {each.name for each in said.properties}:
            raise ValueError(f"it has unknown properties: {unknown}")
        return {each.name: _shaped(value.get(each.name), each) for each in said.properties}
    return _plain(value, said)


_KINDS: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "boolean": (bool,)}


def _plain(value: Any, said: Column) -> Any:
    # A truth value is a whole number to Python alone.
    if type(value) not in _KINDS.get(said.logical_type, (str,)):
        raise ValueError(f"it is no {said.logical_type}")
    if said.logical_type == "integer" and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("it is too large")
    if said.logical_type == "date":
        return date.fromisoformat(value)
    if said.logical_type == "time":
        return time.fromisoformat(value).isoformat()
    if said.logical_type == "timestamp":
        moment = datetime.fromisoformat(value)
        if moment.tzinfo and said.zone == "":
            raise ValueError("it names a zone")
        return contract_types.in_utc(moment, said.zone)
    return bytes.fromhex(value) if said.format == "binary" else value


BREAKS: dict[RowCheck, Callable[[Any, Any], bool]] = {
    "minItems": lambda value, limit: len(value) < limit,
    "maxItems": lambda value, limit: len(value) > limit,
    "uniqueItems": lambda value, _: len(set(map(written, value))) < len(value),
    "minProperties": lambda value, limit: len(_present(value)) < limit,
    "maxProperties": lambda value, limit: len(_present(value)) > limit,
    "requiredProperties": lambda value, limit: not _present(value).issuperset(limit),
}
"""By check, whether an array or an object breaks it."""


def _present(value: dict[str, Any]) -> set[str]:
    return {name for name, each in value.items() if each is not None}


def verdicts(check: RowCheck, limit: Any, values: pa.Array) -> pa.Array:
    """Which arrays or objects, which may be kept as JSON, break a check; null breaks none."""
    text = pa.types.is_string(values.type)
    decoded = (msgspec.json.decode(value) if text and value is not None else value for value in values.to_pylist())
    return pa.array([value is not None and BREAKS[check](value, limit) for value in decoded], pa.bool_())
