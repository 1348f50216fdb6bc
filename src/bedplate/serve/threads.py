"""With how many threads a model computes: one, unless a measurement at the start shows that more answer a row sooner.

More threads help a model with much arithmetic and slow down any other. What decides is a single row, as a lone request
brings it, so that nobody waits longer for the sake of a load that may never come.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import msgspec

from bedplate.records import ModelSignature
from bedplate.serve.batching import probe
from bedplate.serve.predictors import FeatureReader, Predictor
from bedplate.serve.tensors import Arrays

_LONG = 0.002
"""Seconds that a row must take for more threads to be tried: below, to wake them costs a good part of that."""
_WORTH = 0.2
_REPEATS, _SECONDS = 7, 0.1
"""Turns that the two take against each other, at most as long as this."""


class Threads(msgspec.Struct, frozen=True, kw_only=True):
    """What the measurement found: the threads to compute with, why, and the seconds of a row by threads."""

    count: int
    reason: str
    seconds: dict[int, float] = {}


def choose(
    load: Callable[[int], Predictor], features: FeatureReader, signature: ModelSignature, most: int
) -> tuple[Predictor, Threads]:
    """The predictor that ``load`` gives with the threads that were found best, at most ``most``.

    More are kept only where a row takes a fifth less time than with half of them.

    Raises:
        BedplateError: it cannot be loaded.
    """
    kept = load(1)
    if most < 2:
        return kept, Threads(count=1, reason="the replica was given one")
    try:
        row = probe(signature, 1)
        alone = _turns(features, row, kept)[0]
        seconds, count = {1: alone}, 1
        if alone < _LONG:
            return kept, Threads(count=1, reason=f"a row takes {alone * 1e6:.0f} µs", seconds=seconds)
        while 2 * count <= most:
            other = load(2 * count)
            before, after = _turns(features, row, kept, other)
            seconds[2 * count] = after
            if after > (1 - _WORTH) * before:
                break
            kept, count = other, 2 * count
    except Exception as error:  # noqa: BLE001  a model may refuse made-up inputs in any way; it answers with one thread
        return kept, Threads(count=1, reason=f"the model refuses made-up inputs: {type(error).__name__}")
    told = ", ".join(f"{taken * 1e3:.2f} ms with {threads}" for threads, taken in seconds.items())
    return kept, Threads(count=count, reason=f"a row takes {told}", seconds=seconds)


def _turns(features: FeatureReader, row: Arrays, *predictors: Predictor) -> list[float]:
    """The median seconds of a row for each, which take turns: what disturbs the machine disturbs both."""
    times: list[list[float]] = [[] for _ in predictors]
    for predictor in predictors:
        predictor.predict(row, features)  # the first one allocates
    began = perf_counter()
    while len(times[0]) < _REPEATS and perf_counter() - began < _SECONDS * len(predictors):
        for predictor, taken in zip(predictors, times, strict=True):
            started = perf_counter()
            predictor.predict(row, features)
            taken.append(perf_counter() - started)
    return [median(taken) for taken in times]
