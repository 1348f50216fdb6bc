"""Choose the index of a catalogue's vectors by measuring each kind on them, with queries that are really asked.

A small catalogue is searched exactly. Above it every kind is built and made to look harder until it finds the share of
the exact answer that is wanted; of those that do, the fastest is kept, with the whole table as evidence.

A product with a long vector is near to many: where nearly all answers are among the longer half of the vectors, indexes
hold no others. Of 2,000,000 vectors whose lengths vary by a third, 99.5 % of the answers are among 7 %.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import ids
from bedplate.bundle import safetensors
from bedplate.errors import InputError
from bedplate.serve.vectors import (
    ARRAYS,
    INDEX,
    LINKS,
    ROWS,
    Approximate,
    Chosen,
    Exact,
    Floats,
    Index,
    Kind,
    Longest,
    Places,
    Trial,
)
from bedplate.stats.bootstrap import mean_interval

Arrays = Mapping[str, npt.NDArray[Any]]

_SMALL = 1 << 20
"""Numbers in all vectors: up to so many (4 MB) a pass over them costs what an index would, and nothing is measured."""
_WORTH_MS = 0.3
"""Exact search stays where an index saves less than this on a search."""
_HNSW_MOST = 100_000
"""Vectors above which no graph is tried: building one takes minutes where the others take seconds."""
_SETTINGS: dict[Kind, tuple[int, ...]] = {
    "ivf": (4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "pq": (64, 128, 256, 512, 1024, 2048, 4096),
    "hnsw": (32, 64, 128, 256, 512, 1024),
}
_HELD = 0.995
"""The share of all answers that must be among the longest vectors, where no others are looked at."""
_SPARE = 20
"""So many times what is asked for is looked at in any case."""
_SAMPLE = 100_000
_CONSTRUCTION = 64


class IndexParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``recall``: the share of the exact answer that must be found; ``kinds``: what is tried beside exact search.

    ``share`` of ``requirements.latency.p99`` is what a search may take at its own 99th percentile; ``queries`` is how
    many are measured with.
    """

    recall: float = 0.95
    kinds: tuple[Kind, ...] = ("ivf", "pq", "hnsw")
    share: float = 0.5
    queries: int = 200


def choose(
    vectors: Floats,
    queries: Floats,
    parameters: IndexParameters,
    *,
    top: int,
    count: int,
    budget_ms: float | None = None,
    seed: int = 7,
    progress: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """The files of the index over ``vectors`` (n, d); none for a small catalogue.

    ``queries`` (q, d) are what is measured with: recall counts the ``top`` best, and ``count`` are asked for. Without a
    kind that finds enough within ``budget_ms``, the search is exact, and the reason in ``index.json`` says so.

    Raises:
        InputError: a kind that is not there is to be tried, or the recall is none.
    """
    if not 0 < parameters.recall <= 1 or not set(parameters.kinds) <= set(_SETTINGS):
        raise InputError("the index cannot be chosen so", where="train.parameters.index",
                         fix=f"recall in (0, 1] and kinds among {', '.join(_SETTINGS)}")  # fmt: skip
    if vectors.size <= _SMALL or not len(queries):
        return {}
    top = min(top, len(vectors))
    truth = _truth(vectors, queries, top)
    exact = _try("exact", 0, Exact(vectors), queries, truth, count, 0.0, 0, seed)
    trials, made = [exact], dict[Kind, Arrays]()
    rows = _longest(vectors, truth, _SPARE * max(count, top))
    held = vectors if rows is None else vectors[rows]
    extra = {} if rows is None else {ROWS: rows.astype(np.int32)}

    def tried(kind: Kind, setting: int, index: Index, seconds: float) -> Trial:
        size = sum(array.nbytes for array in made[kind].values())
        size += held.nbytes if kind != "pq" or rows is not None else 0
        whole = index if rows is None else Longest(index, rows)
        trials.append(_try(kind, setting, whole, queries, truth, count, seconds, size, seed, len(extra.get(ROWS, ()))))
        return trials[-1]

    kinds = parameters.kinds
    if rows is not None:
        made["exact"] = extra
        longest = tried("exact", 0, Exact(held), 0.0)
        kinds = () if longest.p50_ms <= _WORTH_MS and longest.recall_low >= parameters.recall else kinds
    for kind in kinds:
        if kind == "hnsw" and len(held) > _HNSW_MOST:
            continue
        if progress is not None:
            progress(f"index {kind} of {len(held):,} vectors")
        started = time.perf_counter()
        made[kind] = {**_BUILDERS[kind](held, seed), **extra}
        seconds = time.perf_counter() - started
        index = Approximate(kind, 1, made[kind], held)
        for setting in _useful(kind, made[kind], len(held)):
            index.setting = setting
            last = tried(kind, setting, index, seconds)
            if last.recall_low >= parameters.recall or last.p50_ms > exact.p50_ms:
                break
    best, reason = _best(trials, parameters, budget_ms)
    chosen = Chosen(
        kind=best.kind, setting=best.setting, rows=best.rows, reason=reason, target=parameters.recall, top=top,
        queries=len(queries), trials=tuple(trials),
    )  # fmt: skip
    files = {INDEX: ids.canonical(chosen)}
    return files if best is exact else {**files, ARRAYS: safetensors.write(made[best.kind])}


def _longest(vectors: Floats, truth: list[frozenset[int]], least: int) -> Places | None:
    """The places of the longest vectors, which hold nearly all answers, ``least`` at least; None where that takes more
    than half of them."""
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    bound = np.quantile(lengths[[place for answers in truth for place in answers]], 1 - _HELD)
    if least < len(lengths):
        bound = min(bound, np.partition(lengths, -least)[-least])
    rows = np.flatnonzero(lengths >= bound)
    return rows if len(rows) <= len(lengths) / 2 else None


def _best(trials: list[Trial], parameters: IndexParameters, budget_ms: float | None) -> tuple[Trial, str]:
    exact, *others = trials
    allowed = np.inf if budget_ms is None else budget_ms * parameters.share
    found = [t for t in others if t.recall_low >= parameters.recall]
    within = [t for t in found if t.p99_ms <= allowed]
    best = min(within or found, key=lambda t: t.p50_ms, default=None)
    if best is None:
        return exact, f"no index finds {parameters.recall:.0%} of what exact search finds"
    if exact.p50_ms - best.p50_ms < _WORTH_MS and exact.p99_ms <= allowed:
        return exact, f"{best.kind} would save {exact.p50_ms - best.p50_ms:.2f} ms of a search, which is too little"
    late = "" if best in within else f"; its p99 of {best.p99_ms:.2f} ms is over the {allowed:.2f} ms that it may take"
    return best, f"the fastest that finds {parameters.recall:.0%}: {best.p50_ms:.2f} ms, exact {exact.p50_ms:.2f}{late}"


def _truth(vectors: Floats, queries: Floats, top: int) -> list[frozenset[int]]:
    exact = Exact(vectors)
    return [frozenset(exact.nearest(query, top).tolist()) for query in queries]


def _try(
    kind: Kind,
    setting: int,
    index: Index,
    queries: Floats,
    truth: list[frozenset[int]],
    count: int,
    seconds: float,
    size: int,
    seed: int,
    rows: int = 0,
) -> Trial:
    """Ask every query once: what it finds, and the processor time of that, which nobody else on the machine changes."""
    top = len(truth[0])
    times, found = [], []
    for query, wanted in zip(queries, truth, strict=True):
        started = time.thread_time()
        places = index.nearest(query, max(count, top))
        times.append(time.thread_time() - started)
        found.append(len(wanted.intersection(places.tolist())) / top)
    estimate = mean_interval(np.array(found), 500, seed)
    return Trial(
        kind=kind,
        setting=setting,
        recall=round(estimate.value, 4),
        recall_low=round(estimate.low, 4),
        p50_ms=round(float(np.median(times)) * 1e3, 3),
        p99_ms=round(float(np.quantile(times, 0.99)) * 1e3, 3),
        build_seconds=round(seconds, 2),
        bytes=size,
        rows=rows,
    )


def _useful(kind: Kind, arrays: Arrays, rows: int) -> Iterator[int]:
    most = len(arrays["centres"]) if kind == "ivf" else rows
    yield from (setting for setting in _SETTINGS[kind] if setting <= most)


# ------------------------------------------------------------------------------------------------------------- building


def _sample(vectors: Floats, seed: int) -> Floats:
    if len(vectors) <= _SAMPLE:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), _SAMPLE, replace=False))]


def _faiss() -> Any:
    import faiss  # a process that trains has loaded it by now, one that only serves small catalogues never does

    faiss.omp_set_num_threads(1)  # the same seed gives the same arrays
    return faiss


def _ivf(vectors: Floats, seed: int) -> Arrays:
    faiss = _faiss()
    n, d = vectors.shape
    cells = int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(n))), 4, 12))
    means = faiss.Kmeans(d, cells, niter=8, seed=seed, max_points_per_centroid=max(40, _SAMPLE // cells))
    means.train(_sample(vectors, seed))
    coarse = faiss.IndexFlatIP(d)
    coarse.add(means.centroids)
    return {"centres": means.centroids, "cells": coarse.search(vectors, 1)[1][:, 0].astype(np.int32)}


def _pq(vectors: Floats, seed: int) -> Arrays:
    faiss = _faiss()
    d = vectors.shape[1]
    parts = d // 2 if d % 2 == 0 else d
    index = faiss.IndexPQFastScan(d, parts, 4, faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.seed = seed
    index.train(_sample(vectors, seed))
    index.add(vectors)
    centroids = faiss.vector_to_array(index.pq.centroids).reshape(parts, 16, d // parts)
    return {"centroids": centroids.copy(), "codes": faiss.AlignedTable_to_array(index.codes).copy()}


def _hnsw(vectors: Floats, seed: int) -> Arrays:
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _CONSTRUCTION
    index.add(vectors)
    links = index.hnsw.neighbors
    return {
        "levels": faiss.vector_to_array(index.hnsw.levels).copy(),
        "links": faiss.rev_swig_ptr(links.data(), links.size()).copy(),
    }


_BUILDERS: dict[Kind, Callable[[Floats, int], Arrays]] = {"ivf": _ivf, "pq": _pq, "hnsw": _hnsw}
