"""Which vectors have the largest inner product with a query: exactly, or by an index that was chosen by measuring it.

An index is kept as plain arrays (safetensors) and put together here, each of them checked first. The library's own
index files are never read: that parser is native code, and what it would read was written by training code. Whatever
an index proposes is scored again with the vectors themselves, so an approximate one can leave out, never misrank.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.bundle import safetensors
from bedplate.errors import IntegrityError

INDEX, ARRAYS = "index.json", "index.safetensors"
ROWS = "rows"
"""The array that says which vectors an index looks at, where it does not look at all."""

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Kind = Literal["exact", "ivf", "pq", "hnsw"]
LINKS = 16
"""Links of a node in an HNSW graph, twice as many on its lowest level."""
_LEVELS = 16


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of index did with ``setting``: share of the exact answer found, processor time of a search, its
    making.

    ``recall`` is the mean over queries and ``recall_low`` the lower end of its 95 % interval. ``bytes`` come on top of
    the vectors. ``rows`` is how many vectors it looks at, the longest ones; 0 for all.
    """

    kind: Kind
    setting: int
    recall: float
    recall_low: float
    p50_ms: float
    p99_ms: float
    build_seconds: float
    bytes: int
    rows: int = 0


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What ``index.json`` holds: the kind of index, how it is searched, and the evidence for the choice.

    ``setting`` is how many cells are looked into (``ivf``), how many candidates are scored again (``pq``), or how many
    are kept in view (``hnsw``). ``rows`` is that of :class:`Trial`.
    """

    format: Literal[1] = 1
    kind: Kind
    setting: int = 0
    rows: int = 0
    reason: str
    target: float
    top: int
    queries: int
    trials: tuple[Trial, ...] = ()


class Index(Protocol):
    """Finds vectors."""

    def nearest(self, query: Floats, count: int) -> Places:
        """At most ``count`` places, shape (k,), of vectors with the largest inner product; in no order."""


class Exact:
    """All products, in one pass over the vectors (n, d)."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors

    def nearest(self, query: Floats, count: int) -> Places:
        """The true nearest."""
        count = min(len(self._vectors), count)
        if not count:
            return np.empty(0, np.int64)
        return np.argpartition(-(self._vectors @ query), count - 1)[:count]


class Longest:
    """What ``index`` finds among some of all vectors: it looks at those whose places are ``rows``, in their order."""

    def __init__(self, index: Index, rows: Places) -> None:
        self._index, self._rows = index, rows

    def nearest(self, query: Floats, count: int) -> Places:
        """The nearest of those, by their places among all."""
        return self._rows[self._index.nearest(query, count)]


class Approximate:
    """An index of faiss over ``vectors``, which must be those it was made of.

    Raises:
        IntegrityError: the arrays do not belong together.
    """

    def __init__(self, kind: Kind, setting: int, arrays: Mapping[str, npt.NDArray[Any]], vectors: Floats) -> None:
        import faiss  # 0.15 s: only a replica with a large catalogue needs it

        faiss.omp_set_num_threads(1)  # one query at a time: threads of its own would only wait
        self._vectors, self._kind, self.setting = vectors, kind, setting
        try:
            self._index = {"ivf": _ivf, "pq": _pq, "hnsw": _hnsw}[kind](faiss, arrays, vectors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise IntegrityError(f"the index cannot be used: {error}", where=ARRAYS) from error

    def nearest(self, query: Floats, count: int) -> Places:
        """The nearest that the index finds; those of a ``pq`` after their exact products decided."""
        wanted = count
        if self._kind == "ivf":
            self._index.nprobe = self.setting
        elif self._kind == "hnsw":
            self._index.hnsw.efSearch = max(self.setting, count)
        else:
            wanted = max(self.setting, 2 * count)
        found = self._index.search(query[None], min(wanted, len(self._vectors)))[1][0]
        found = found[found >= 0]
        if wanted > count < len(found):
            products = self._vectors[found] @ query
            found = found[np.argpartition(-products, count - 1)[:count]]
        return np.asarray(found, np.int64)


def load(files: Mapping[str, bytes], vectors: Floats) -> tuple[Index, Chosen | None]:
    """The index over ``vectors`` that a bundle's files hold; exact where they hold none.

    Raises:
        IntegrityError: they hold one that cannot be used.
    """
    if INDEX not in files:
        return Exact(vectors), None
    try:
        chosen = msgspec.json.decode(files[INDEX], type=Chosen)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"the index cannot be read: {error}", where=INDEX) from error
    if chosen.kind == "exact" and not chosen.rows:
        return Exact(vectors), chosen
    if ARRAYS not in files or (chosen.kind != "exact" and chosen.setting < 1):
        raise IntegrityError(f"an index of kind {chosen.kind} lacks its arrays or its setting", where=INDEX)
    arrays = safetensors.read(files[ARRAYS], ARRAYS)
    rows = _rows(arrays, chosen.rows, len(vectors)) if chosen.rows else None
    held = vectors if rows is None else vectors[rows]
    index = Exact(held) if chosen.kind == "exact" else Approximate(chosen.kind, chosen.setting, arrays, held)
    return index if rows is None else Longest(index, rows), chosen


def _rows(arrays: Mapping[str, npt.NDArray[Any]], count: int, n: int) -> Places:
    """The places of the vectors that an index looks at, each below ``n``."""
    rows = arrays.get(ROWS)
    if rows is None or rows.dtype != np.int32 or rows.shape != (count,) or not 0 <= rows.min() <= rows.max() < n:
        raise IntegrityError("the index looks at vectors that are not there", where=ARRAYS)
    return rows.astype(np.int64)


# ------------------------------------------------------------------------------------------------- from plain arrays


def _checked(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
    array = arrays[name]
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}")
    return np.ascontiguousarray(array)


def _ivf(faiss: Any, arrays: Mapping[str, npt.NDArray[Any]], vectors: Floats) -> Any:
    """Cells around ``centres`` (c, d); ``cells`` (n,) says in which one each vector lies."""
    n, d = vectors.shape
    centres = _checked(arrays, "centres", "f4", len(arrays["centres"]), d)
    cells = _checked(arrays, "cells", "i4", n).astype(np.int64)
    if not len(centres) or (n and not 0 <= cells.min() <= cells.max() < len(centres)):
        raise ValueError("a vector lies in a cell that is not there")
    coarse = faiss.IndexFlatIP(d)
    coarse.add(centres)
    index = faiss.IndexIVFFlat(coarse, d, len(centres), faiss.METRIC_INNER_PRODUCT)
    index.add_core(n, faiss.swig_ptr(vectors), None, faiss.swig_ptr(cells))
    return index


def _pq(faiss: Any, arrays: Mapping[str, npt.NDArray[Any]], vectors: Floats) -> Any:
    """Each vector as a code of 4 bits for each ``d / parts`` numbers: ``centroids`` (parts, 16, d / parts), ``codes``.

    The codes stand in the order in which 32 vectors are compared at once.
    """
    n, d = vectors.shape
    parts = len(arrays["centroids"])
    centroids = _checked(arrays, "centroids", "f4", parts, 16, d // max(parts, 1))
    rows, wide = -(-n // 32) * 32, -(-parts // 2) * 2
    codes = _checked(arrays, "codes", "u1", rows * wide // 2)
    index = faiss.IndexPQFastScan(d, parts, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(centroids.ravel(), index.pq.centroids)
    faiss.copy_array_to_AlignedTable(codes, index.codes)
    index.is_trained, index.ntotal, index.ntotal2 = True, n, rows
    return index


def _hnsw(faiss: Any, arrays: Mapping[str, npt.NDArray[Any]], vectors: Floats) -> Any:
    """A graph: ``levels`` (n,) of each node, at least 1; ``links`` of all nodes one after the other, -1 for none."""
    n, d = vectors.shape
    levels = _checked(arrays, "levels", "i4", n)
    if not n or not 1 <= levels.min() <= levels.max() <= _LEVELS:
        raise ValueError("a node lies on a level that is not there")
    offsets = np.concatenate([[0], np.cumsum((levels.astype(np.uint64) + 1) * LINKS)]).astype(np.uint64)
    links = _checked(arrays, "links", "i4", int(offsets[-1]))
    # A link on an upper level must lead to a node that reaches up to it, or a search would read past that node's.
    owner = np.repeat(np.arange(n), np.diff(offsets).astype(np.int64))
    height = np.maximum((np.arange(len(links)) - offsets[owner].astype(np.int64)) // LINKS - 1, 0)
    there = links >= 0
    if links.min() < -1 or links.max() >= n or (levels[links[there]] <= height[there]).any():
        raise ValueError("a link leads nowhere")
    index = faiss.IndexHNSWFlat(d, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph = index.hnsw
    faiss.copy_array_to_vector(levels, graph.levels)
    faiss.copy_array_to_vector(offsets, graph.offsets)
    graph.neighbors.resize(len(links))
    faiss.memcpy(graph.neighbors.data(), faiss.swig_ptr(links), links.nbytes)
    graph.entry_point, graph.max_level = int(levels.argmax()), int(levels.max()) - 1
    faiss.downcast_index(index.storage).add(vectors)
    index.ntotal = n
    return index
