"""An index finds what exact search finds, as far as was measured; arrays that do not belong together are refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.bundle import formats, safetensors
from bedplate.errors import InputError, IntegrityError
from bedplate.serve import vectors
from bedplate.serve.recommender import Factors
from bedplate.serve.vectors import ARRAYS, INDEX, Approximate, Chosen, Exact
from bedplate.train import indexing
from bedplate.train.indexing import IndexParameters
from tests.laws import examples

KINDS = ("ivf", "pq", "hnsw")
ROWS, SIZE = 700, 8


def clustered(rows=ROWS, size=SIZE, seed=1):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, size))
    return (centres[random.integers(0, 12, rows)] + 0.3 * random.normal(size=(rows, size))).astype(np.float32)


VECTORS = clustered()
QUERIES = clustered(40, seed=2)


@pytest.fixture(scope="module")
def built():
    """The arrays of each kind, as a bundle keeps them."""
    return {kind: safetensors.write(indexing._BUILDERS[kind](VECTORS, 7)) for kind in KINDS}


def opened(built, kind, setting):
    return Approximate(kind, setting, safetensors.read(built[kind], ARRAYS), VECTORS)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_exact_search_is_exact(rows, count, seed):
    given_vectors = clustered(rows, seed=seed)
    products = given_vectors @ QUERIES[0]

    found = Exact(given_vectors).nearest(QUERIES[0], count)

    assert sorted(products[found])[::-1] == sorted(products)[::-1][:count]


@pytest.mark.parametrize(("kind", "least"), [("ivf", 1.0), ("pq", 1.0), ("hnsw", 0.8)])
def test_looking_everywhere_finds_everything(built, kind, least):
    """With every cell or candidate in view an index is exact; a graph may have no way to a vector that is short."""
    index = opened(built, kind, ROWS)
    found = [len(set(index.nearest(q, 20)) & set(Exact(VECTORS).nearest(q, 20))) / 20 for q in QUERIES]

    assert np.mean(found) >= least
    assert len(set(index.nearest(QUERIES[0], 5 * ROWS))) <= ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_make_the_same_arrays(built, kind):
    assert formats.identify(ARRAYS, built[kind]) == "safetensors"
    assert safetensors.write(indexing._BUILDERS[kind](VECTORS, 7)) == built[kind]


@examples(40)
@given(st.sampled_from(KINDS), st.data())
def test_arrays_that_somebody_else_wrote_are_refused_or_harmless(built, kind, data):
    """Native code walks over them: whatever passes the checks must give places that are there."""
    arrays = {name: array.copy() for name, array in safetensors.read(built[kind], ARRAYS).items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    change = data.draw(st.sampled_from(["values", "shape", "type", "gone"]))
    if change == "values":
        flat = arrays[name].reshape(-1)
        for _ in range(data.draw(st.integers(1, 5))):
            value = data.draw(st.integers(-3, 2 * ROWS) | st.sampled_from([2**31 - 1, -(2**31)]))
            kind_of = flat.dtype
            at = data.draw(st.integers(0, len(flat) - 1))
            flat[at] = np.int64(value).astype(kind_of)
    elif change == "shape":
        arrays[name] = arrays[name][: data.draw(st.integers(0, len(arrays[name]) - 1))]
    elif change == "type":
        arrays[name] = arrays[name].astype(np.float64)
    else:
        del arrays[name]
    try:
        index = Approximate(kind, 50, arrays, VECTORS)
    except IntegrityError:
        return
    assert change == "values" or (kind == "ivf" and name == "centres" and change == "shape")
    for query in QUERIES[:4]:
        found = index.nearest(query, 20)
        assert len(found) <= 20
        assert ((found >= 0) & (found < ROWS)).all()


def test_a_small_catalogue_is_searched_exactly_and_measures_nothing():
    assert indexing.choose(VECTORS, QUERIES, IndexParameters(), top=20, count=40) == {}
    index, chosen = vectors.load({}, VECTORS)
    assert isinstance(index, Exact)
    assert chosen is None


def test_the_index_that_is_kept_finds_what_was_asked_for_and_brings_its_evidence():
    catalogue = clustered(40_000, 32)
    queries = clustered(60, 32, seed=5)
    parameters = IndexParameters(kinds=("ivf", "pq"), recall=0.9)

    files = indexing.choose(catalogue, queries, parameters, top=20, count=40, budget_ms=1000)

    chosen = msgspec.json.decode(files[INDEX], type=Chosen)
    kept = [t for t in chosen.trials if (t.kind, t.setting) == (chosen.kind, chosen.setting)]
    assert {t.kind for t in chosen.trials} == {"exact", "ivf", "pq"}
    assert chosen.rows == 0
    assert kept[0].recall_low >= 0.9
    assert formats.identify(INDEX, files[INDEX]) == "json"
    index, loaded = vectors.load(files, catalogue)
    assert loaded == chosen
    found = [len(set(index.nearest(q, 20)) & set(Exact(catalogue).nearest(q, 20))) / 20 for q in clustered(40, 32, 6)]
    assert np.mean(found) >= 0.85  # other queries than it was chosen with


def test_where_answers_are_among_the_longest_vectors_no_others_are_looked_at():
    """Lengths that vary as popularity does; with even ones an index holds all, as the test above finds."""
    random = np.random.default_rng(3)
    catalogue = random.normal(size=(40_000, 32)).astype(np.float32)
    catalogue *= random.gamma(9, 1 / 9, (len(catalogue), 1)).astype(np.float32) / 5
    queries = random.normal(size=(120, 32)).astype(np.float32)

    # No search is in time, so that exact search is not kept where the machine is fast enough for it.
    files = indexing.choose(catalogue, queries[:80], IndexParameters(kinds=("pq",)), top=20, count=40, budget_ms=1e-6)

    chosen = msgspec.json.decode(files[INDEX], type=Chosen)
    assert 0 < chosen.rows < 20_000
    assert {t.rows for t in chosen.trials[1:]} == {chosen.rows}
    index, _ = vectors.load(files, catalogue)
    found = [len(set(index.nearest(q, 20)) & set(Exact(catalogue).nearest(q, 20))) / 20 for q in queries[80:]]
    assert np.mean(found) >= 0.9
    rows = safetensors.read(files[ARRAYS], ARRAYS)[vectors.ROWS]
    for wrong in (rows - rows[0] - 1, rows + len(catalogue), rows[1:], rows.astype(np.int64)):
        with pytest.raises(IntegrityError, match="not there"):
            vectors.load({**files, ARRAYS: safetensors.write({vectors.ROWS: wrong})}, catalogue)


def trial(kind, recall, p50, p99=1.0):
    return vectors.Trial(kind=kind, setting=8, recall=recall, recall_low=recall, p50_ms=p50, p99_ms=p99,
                         build_seconds=1, bytes=1)  # fmt: skip


@pytest.mark.parametrize(
    ("trials", "kind", "reason"),
    [
        ([trial("exact", 1, 9), trial("ivf", 0.9, 0.1), trial("pq", 0.94, 0.1)], "exact", "no index finds 95%"),
        ([trial("exact", 1, 9), trial("ivf", 0.99, 2), trial("pq", 0.96, 1)], "pq", "1.00 ms, exact 9.00"),
        ([trial("exact", 1, 9), trial("ivf", 0.99, 2, 9), trial("hnsw", 0.96, 4)], "hnsw", "the fastest"),
        ([trial("exact", 1, 9), trial("ivf", 0.99, 2, 9)], "ivf", "over the 5.00 ms"),
        ([trial("exact", 1, 0.4), trial("ivf", 1, 0.2)], "exact", "too little"),
        ([trial("exact", 1, 0.4, 6), trial("ivf", 1, 0.2)], "ivf", "the fastest"),
    ],
)
def test_the_fastest_that_finds_enough_in_time_is_kept(trials, kind, reason):
    best, why = indexing._best(trials, IndexParameters(), 10.0)

    assert best.kind == kind
    assert reason in why


@pytest.mark.parametrize("parameters", [IndexParameters(recall=0), IndexParameters(kinds=("exact",))])
def test_what_cannot_be_chosen_says_why(parameters):
    with pytest.raises(InputError, match="index"):
        indexing.choose(VECTORS, QUERIES, parameters, top=20, count=20)


def test_an_index_without_its_arrays_is_refused(built):
    chosen = {"kind": "pq", "setting": 64, "reason": "", "target": 0.95, "top": 20, "queries": 1}
    for files in (
        {INDEX: b"{}"},
        {INDEX: msgspec.json.encode(chosen)},
        {INDEX: msgspec.json.encode({**chosen, "setting": 0}), ARRAYS: built["pq"]},
        {INDEX: msgspec.json.encode({**chosen, "kind": "ivf"}), ARRAYS: built["pq"]},
    ):
        with pytest.raises(IntegrityError):
            vectors.load(files, VECTORS)


@pytest.mark.parametrize("kind", ["ivf", "pq"])
def test_candidates_of_an_index_that_looks_everywhere_are_those_of_exact_search(built, kind):
    """The stages behind the index see the same candidates and the same affinities."""
    items = np.arange(100, 100 + ROWS)
    settings_ = msgspec.json.encode(
        {"kind": kind, "setting": ROWS, "reason": "", "target": 0.95, "top": 20, "queries": 1}
    )
    exact, indexed = (
        Factors(items, VECTORS, items[:30], alpha=10, regularization=1, files=files)
        for files in ({}, {INDEX: settings_, ARRAYS: built[kind]})
    )
    history, weights = np.array([105, 300, 99999]), np.array([1.0, 2.0, 1.0], np.float32)

    one, other = exact.propose(history, weights, 40, 20), indexed.propose(history, weights, 40, 20)

    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert len(set(one[0])) == len(one[0])
