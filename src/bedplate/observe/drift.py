"""Drift of served feature values against those of training, window by window, in constant memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.stats import drift, sketches

DISCRETE = 50
"""Numbers with at most so many different values are compared as categories."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The features of training, as cells and counts. JSON-able: kept as a blob beside the observation."""

    features: tuple[drift.FeatureReference, ...]


Blocks = Callable[[], Iterable[Iterable[pa.RecordBatch | pa.Table]]]
"""Gives, each time it is called, the blocks of the reference (such as its weeks), each as batches of one schema."""


def reference(blocks: Blocks) -> Reference:
    """Summarise a reference in two passes: the first finds the cells, the second counts in them.

    One block means that rows are taken as independent of each other. With several blocks, what differs between them
    (season, rows that resemble their neighbours) is not called drift later. Columns that hold
    neither numbers, truth values nor text are left out.
    """
    quantiles: dict[str, sketches.QuantileSketch] = {}
    names: dict[str, Counter[Any]] = {}
    for block in blocks():
        for batch in block:
            for column in batch.schema:
                if not _usable(column.type):
                    continue
                counts = names.setdefault(column.name, Counter())
                values = batch.column(column.name)
                if _numeric(column.type):
                    numbers = _numbers(values)
                    quantiles.setdefault(column.name, sketches.QuantileSketch()).add(numbers[np.isfinite(numbers)])
                    if len(counts) > DISCRETE:
                        continue
                counts.update(_names(values))
                if len(counts) > sketches.MOST_NAMES:
                    names[column.name] = Counter(dict(counts.most_common(sketches.MOST_NAMES // 2)))
    cells: dict[str, tuple[Any, ...]] = {}
    numeric: set[str] = set()
    for name, counts in names.items():
        if name in quantiles and len(counts) > DISCRETE:
            numeric.add(name)
            cells[name] = sketches.bin_edges(quantiles[name], drift.BINS)
        else:
            cells[name] = sketches.top_names(counts)
    counted: dict[str, list[sketches.Histogram]] = {name: [] for name in cells}
    for block in blocks():
        for name, histogram in _count(block, cells, numeric).items():
            counted[name].append(histogram)
    return Reference(
        features=tuple(
            drift.describe(name, "numeric" if name in numeric else "categorical", cells[name], tuple(counted[name]))
            for name in sorted(cells)
            if counted[name]
        )
    )


Counted = dict[str, sketches.Histogram]
"""What was counted of one window, by feature."""


def count(against: Reference, window: Iterable[pa.RecordBatch | pa.Table]) -> Counted:
    """One window of served features, counted in the cells of the reference; others are passed over."""
    cells = {feature.name: feature.cells for feature in against.features}
    return _count(window, cells, {feature.name for feature in against.features if feature.kind == "numeric"})


def together(a: Counted, b: Counted) -> Counted:
    """Two parts of one window."""
    return {
        name: a[name].merge(b[name]) if name in a and name in b else (a.get(name) or b[name]) for name in {**a, **b}
    }


def judge(
    against: Reference,
    counted: Counted,
    state: drift.State,
    settings: drift.Settings = drift.Settings(),  # noqa: B008
) -> drift.Verdict:
    """The verdict after one more window. Features that the window has not are passed over."""
    evidence = tuple(
        drift.compare(feature, counted[feature.name], settings)
        for feature in against.features
        if feature.name in counted
    )
    return drift.step(state, evidence, settings)


def watch(
    against: Reference,
    window: Iterable[pa.RecordBatch | pa.Table],
    state: drift.State,
    settings: drift.Settings = drift.Settings(),  # noqa: B008
) -> drift.Verdict:
    """:func:`judge` a window that was not counted yet."""
    return judge(against, count(against, window), state, settings)


def columns_of(features: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Logged feature values as a table: one column per name, nested names joined by a dot.

    Where a prediction logged a list for a name (one value per candidate) its mean stands for it: candidates of one
    prediction resemble each other, predictions are the unit.
    """
    rows = [_flatten(item) for item in features]
    names = sorted({name for row in rows for name in row})
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers in one row and text in another
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    return pa.table(columns)


def _flatten(item: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in item.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{name}."))
        elif isinstance(value, list | tuple):
            numbers = [float(v) for v in value if isinstance(v, int | float)]
            if numbers:
                flat[name] = float(np.mean(numbers))
        else:
            flat[name] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return flat


def _count(
    batches: Iterable[pa.RecordBatch | pa.Table], cells: Mapping[str, tuple[Any, ...]], numeric: set[str]
) -> dict[str, sketches.Histogram]:
    counted: dict[str, sketches.Histogram] = {}
    for batch in batches:
        for name in batch.schema.names:
            if name not in cells:
                continue
            values = batch.column(name)
            histogram = (
                sketches.count_numbers(_numbers(values), cells[name])
                if name in numeric
                else sketches.count_names(_names(values), cells[name])
            )
            counted[name] = counted[name].merge(histogram) if name in counted else histogram
    return counted


def _usable(kind: pa.DataType) -> bool:
    return _numeric(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not _numeric(values.type) and not pa.types.is_boolean(values.type):  # what was a number is one no more: missing
        return np.full(len(values), np.nan)
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _names(values: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    found = pc.value_counts(values)
    names, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
    merged: Counter[Any] = Counter()
    for name, count in zip(names, counts, strict=True):
        # 3, 3.0 and NaN: one name per value, whatever type a batch happened to have.
        plain = float(name) if isinstance(name, int | float) and not isinstance(name, bool) else name
        merged[None if plain != plain else plain] += count
    return merged
