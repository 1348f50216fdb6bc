"""Sketches: merging is order-free where counts are exact, ranks are as sure as stated, memory stays where it is."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.stats import sketches
from tests.laws import examples

numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)
cells = st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=8, unique=True).map(lambda e: tuple(sorted(e)))


@given(numbers, numbers, numbers, cells)
def test_histograms_merge_in_any_grouping_and_order(
    a: list[float], b: list[float], c: list[float], edges: tuple[float, ...]
) -> None:
    x, y, z = (sketches.count_numbers(values, edges) for values in (a, b, c))
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == z.merge(x).merge(y)
    assert x.merge(y).merge(z) == sketches.count_numbers(a + b + c, edges)


@given(numbers, cells)
def test_every_value_lies_in_one_cell_or_is_missing(values: list[float], edges: tuple[float, ...]) -> None:
    found = sketches.count_numbers(values, edges)
    assert found.n + found.missing == len(values)
    assert found.missing == sum(not math.isfinite(value) for value in values)
    for j, count in enumerate(found.counts):  # cell j is (edge j-1, edge j]
        low = edges[j - 1] if j else -math.inf
        high = edges[j] if j < len(edges) else math.inf
        assert count == sum(low < value <= high for value in values if math.isfinite(value))


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None])), st.lists(st.sampled_from(["a", "e", None])))
def test_names_add_up(a: list[str | None], b: list[str | None]) -> None:
    kept = sketches.top_names(Counter(a))
    x, y = sketches.count_names(Counter(a), kept), sketches.count_names(Counter(b), kept)
    assert x.merge(y) == sketches.count_names(Counter(a + b), kept)
    assert x.counts[-1] == 0
    assert x.n + x.missing == len(a)


def test_kept_names_are_the_most_frequent_and_do_not_depend_on_order() -> None:
    counts = {f"name {i}": i // 2 for i in range(1000)}
    kept = sketches.top_names(counts)
    assert kept == sketches.top_names(dict(reversed(counts.items())))
    assert len(kept) == sketches.CATEGORIES
    assert min(counts[name] for name in kept) >= max(counts[name] for name in counts if name not in kept)


def test_histograms_of_different_cells_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different cells"):
        sketches.Histogram(counts=(1, 2)).merge(sketches.Histogram(counts=(1, 2, 3)))


def rank_error(sketch: sketches.QuantileSketch, values: np.ndarray) -> float:
    shares = np.arange(1, 100) / 100
    return float(np.abs(np.searchsorted(np.sort(values), sketch.quantiles(shares)) / values.size - shares).max())


@examples(8)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=8), st.integers(0, 2**32), st.booleans())
def test_quantiles_of_any_chunks_merged_in_any_order_are_near(sizes: list[int], seed: int, reverse: bool) -> None:
    rng = np.random.default_rng(seed)
    chunks = [rng.normal(loc=i, size=size) for i, size in enumerate(sizes)]
    parts = []
    for chunk in chunks:
        part = sketches.QuantileSketch()
        part.add(chunk)
        parts.append(part)
    whole = sketches.QuantileSketch()
    for part in reversed(parts) if reverse else parts:
        whole.merge(part)
    values = np.concatenate(chunks)
    levels = max(1, math.ceil(math.log2(max(2, values.size / sketches.SIZE)))) + 1
    assert rank_error(whole, values) <= levels / (2 * sketches.SIZE) + 2 / values.size


@pytest.mark.parametrize("chunk", [100_000, 7_000])
def test_memory_and_error_stay_while_a_stream_goes_on(chunk: int) -> None:
    rng, sketch = np.random.default_rng(0), sketches.QuantileSketch()
    sketch.add(rng.normal(size=chunk))
    kept = []
    tracemalloc.start()
    start, _ = tracemalloc.get_traced_memory()
    for n in range(1, 100):
        sketch.add(rng.normal(size=chunk))
        if n % 33 == 0:
            kept.append(tracemalloc.get_traced_memory()[0] - start)
    tracemalloc.stop()
    assert max(kept) < 2**21  # at most a level of 64 KiB per doubling; 80 MB went through
    assert float(sketch.quantiles(np.array([0.5]))[0]) == pytest.approx(0, abs=0.01)


def test_nothing_seen_gives_no_cells() -> None:
    assert np.isnan(sketches.QuantileSketch().quantiles(np.array([0.5]))).all()
    assert sketches.bin_edges(sketches.QuantileSketch(), 8) == ()
    assert sketches.count_numbers([], (1.0,)).n == 0


def test_ties_give_fewer_cells() -> None:
    sketch = sketches.QuantileSketch()
    sketch.add(np.repeat([1.0, 2.0, 3.0], 1000))
    assert len(sketches.bin_edges(sketch, 256)) < 10
