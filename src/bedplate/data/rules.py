"""Evaluate contract rules over Arrow batches: which rows break which rule."""

from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data.model import RowRule
from bedplate.errors import ContractError

Mask: TypeAlias = Any
"""True where a row breaks a rule; never null."""


def broken(rule: RowRule, values: pa.Array) -> Mask:
    """Which of ``values`` break ``rule``. A null breaks only ``required`` and ``missingValues``, NaN every limit.

    Raises:
        ContractError: the rule's limit does not fit the column's type.
    """
    if rule.check == "required":
        return values.is_null()
    if pa.types.is_dictionary(values.type):
        # Judge each distinct value once.
        verdicts = pc.take(broken(rule, values.dictionary), values.indices)
        return pc.fill_null(verdicts, rule.check == "missingValues")
    try:
        return pc.fill_null(_verdicts(rule, values), False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, TypeError) as error:
        raise ContractError(
            f"rule {rule.id} does not fit column {rule.column} of type {values.type}: {error}",
            fix="correct the rule or the column's logicalType",
        ) from error


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
    if rule.check == "multipleOf":
        quotient = pc.divide(pc.cast(values, pa.float64()), float(limit))
        return pc.invert(pc.less(pc.abs(pc.subtract(quotient, pc.round(quotient))), 1e-9))
    compare = {
        "minimum": pc.greater_equal,
        "maximum": pc.less_equal,
        "exclusiveMinimum": pc.greater,
        "exclusiveMaximum": pc.less,
    }[rule.check]
    scalar = pa.scalar(limit)
    if pa.types.is_integer(values.type) and isinstance(limit, float):
        values = pc.cast(values, pa.float64(), safe=False)
    elif pa.types.is_temporal(values.type):
        scalar = pc.cast(scalar, pa.timestamp("us"))
        values = pc.cast(values, pa.timestamp("us"), safe=False)
    return pc.invert(compare(values, scalar))
