"""Evaluate contract rules over Arrow batches: which rows break which rule."""

import operator
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import shapes
from bedplate.data.model import RowRule
from bedplate.errors import ContractError

Mask: TypeAlias = Any
"""True where a row breaks a rule; never null."""
_COMPARE = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_COMPARE_ALL = {
    "minimum": pc.greater_equal,
    "maximum": pc.less_equal,
    "exclusiveMinimum": pc.greater,
    "exclusiveMaximum": pc.less,
}


def broken(rule: RowRule, values: pa.Array) -> Mask | None:
    """Which of ``values`` break ``rule``; None where none does, which is mostly seen without judging each of them.

    A null breaks only ``required`` and ``missingValues``, NaN every limit.

    Raises:
        ContractError: the rule's limit does not fit the column's type.
    """
    if rule.check == "required":
        return values.is_null() if values.null_count else None
    try:
        if pa.types.is_dictionary(values.type):
            return _of_codes(rule, values)
        if _within(rule, values):
            return None
        verdicts = pc.fill_null(_verdicts(rule, values), False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, TypeError) as error:
        raise ContractError(
            f"rule {rule.id} does not fit column {rule.column} of type {values.type}: {error}",
            fix="correct the rule or the column's logicalType",
        ) from error
    return verdicts if pc.any(verdicts).as_py() else None


def _of_codes(rule: RowRule, values: pa.DictionaryArray) -> Mask | None:
    """Judge each distinct value once."""
    verdicts = broken(rule, values.dictionary)
    null_breaks = rule.check == "missingValues" and values.null_count > 0
    if verdicts is None:
        return values.is_null() if null_breaks else None
    return pc.fill_null(pc.take(verdicts, values.indices), null_breaks)


def _within(rule: RowRule, values: pa.Array) -> bool:
    """Whether the least and the greatest value show that all lie within the limit. NaN is within none."""
    if rule.check not in _COMPARE or not len(values):
        return False
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)):
        return False
    if isinstance(rule.limit, bool) or not isinstance(rule.limit, int | float):
        return False
    numbers = (values.drop_null() if values.null_count else values).to_numpy()
    if not len(numbers):
        return True
    low_is_enough = rule.check in ("minimum", "exclusiveMinimum")
    end = (numbers.min() if low_is_enough else numbers.max()).item()  # NaN if any is NaN
    return bool(_COMPARE[rule.check](end, rule.limit))


def _verdicts(rule: RowRule, values: pa.Array) -> pa.Array:
    limit = rule.limit
    if rule.check == "missingValues":
        listed = [item for item in limit if item is not None]
        missing = pc.is_in(values, value_set=pa.array(listed, values.type)) if listed else pa.scalar(False)
        return pc.or_(values.is_null(), pc.fill_null(missing, False))
    if rule.check == "validValues":
        return pc.and_(values.is_valid(), pc.invert(pc.is_in(values, value_set=pa.array(list(limit), values.type))))
    if rule.check == "pattern":
        return pc.invert(pc.match_substring_regex(values, limit))
    if rule.check == "minLength":
        return pc.less(pc.utf8_length(values), limit)
    if rule.check == "maxLength":
        return pc.greater(pc.utf8_length(values), limit)
    if rule.check in shapes.BREAKS:
        return shapes.verdicts(rule.check, limit, values)
    if rule.check == "multipleOf":
        quotient = pc.divide(pc.cast(values, pa.float64()), float(limit))
        return pc.invert(pc.less(pc.abs(pc.subtract(quotient, pc.round(quotient))), 1e-9))
    compare = _COMPARE_ALL[rule.check]
    scalar = pa.scalar(limit)
    if pa.types.is_integer(values.type) and isinstance(limit, float):
        values = pc.cast(values, pa.float64(), safe=False)
    elif pa.types.is_temporal(values.type):
        scalar = pc.cast(scalar, pa.timestamp("us"))
        values = pc.cast(values, pa.timestamp("us"), safe=False)
    return pc.invert(compare(values, scalar))
