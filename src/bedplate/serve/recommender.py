"""The two-stage recommender as it answers: candidates for one household, their features, the ranker's order.

Training, evaluation and serving call the functions of this file, so what is measured is what is served. Everything the
predictor knows of the use case stands in ``recommender.json`` (:class:`Config`); nothing it loads can run code.

*Candidates* are what the household bought before, the items nearest to its vector in the factor model, and the popular
items. The household's vector is not stored: it is solved for from the household's own history at each request (the
"fold-in" of Hu, Koren & Volinsky, *Collaborative Filtering for Implicit Feedback Datasets*, 2008, equation 4), so a
purchase counts as soon as the online features hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.bundle import safetensors
from bedplate.errors import InputError, IntegrityError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.sessions import Session, open_session
from bedplate.serve.state import (
    MISSING,
    Floats,
    Ids,
    View,
    blank_row,
    key_of,
    pad,
    unpack_many,
    unpack_row,
    unpack_rows,
)
from bedplate.serve.vectors import load as load_index

CONFIG, ITEMS, RANKER = "recommender.json", "items.safetensors", "ranker.onnx"


class Derived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature made of two others: ``left / right`` or ``left - right``; missing where either is, or right is 0."""

    name: str
    left: str
    right: str
    by: str = "ratio"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``recommender.json`` holds.

    ``weight``, ``count`` and ``last`` name columns of ``pairs``: how much a past purchase still weighs, how often it
    was, and how many days ago. ``groups`` names product columns that hold codes: a candidate learns what the household
    bought among the products of the same code. ``features`` is the order of the ranker's input.
    """

    format: int = 1
    household: View
    pairs: View
    products: tuple[View, ...]
    groups: tuple[str, ...] = ()
    weight: str
    count: str
    last: str
    derived: tuple[Derived, ...] = ()
    features: tuple[str, ...]
    top: int = 20
    nearest: int = 40
    popular: int = 40
    alpha: float = 10.0
    regularization: float = 1.0


SIGNATURE = ModelSignature(
    predictor="recommender",
    inputs=(TensorSpec(name="household_id", datatype="INT64", shape=(1,)),),
    outputs=(
        TensorSpec(name="product_id", datatype="INT64", shape=(1, -1)),
        TensorSpec(name="score", datatype="FP32", shape=(1, -1)),
    ),
)


# --------------------------------------------------------------------------------------------------------- factor model


class Factors:
    """Item factors of the candidate stage.

    ``items`` ascending ids, shape (n,); ``vectors`` (n, d); ``popular`` ids by falling popularity. ``files`` may hold
    an index of the vectors (:mod:`bedplate.serve.vectors`); without one, each search looks at all of them.
    """

    def __init__(
        self,
        items: Ids,
        vectors: Floats,
        popular: Ids,
        *,
        alpha: float,
        regularization: float,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.items = items
        self.vectors = np.ascontiguousarray(vectors)
        self.index, self.chosen = load_index(files or {}, self.vectors)
        self.popular = popular
        at, known = self.rows(popular)
        self._popular = np.where(known, at, -1).tolist()
        self.alpha = np.float32(alpha)
        self._gram = self.vectors.T @ self.vectors + np.float32(regularization) * np.eye(
            vectors.shape[1], dtype=np.float32
        )

    def rows(self, items: Ids) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Where ``items`` stand in the model, and which of them it knows."""
        at = np.searchsorted(self.items, items)
        at[at == len(self.items)] = 0
        return at, self.items[at] == items

    def fold_in(self, items: Ids, weights: Floats) -> Floats:
        """The vector, shape (d,), of a household that bought ``items`` with these weights."""
        at, known = self.rows(items)
        return self._fold_in(at[known], weights[known])

    def _fold_in(self, at: npt.NDArray[np.intp], weights: Floats) -> Floats:
        y = self.vectors[at]
        confidence = self.alpha * weights
        a = self._gram + (y * confidence[:, None]).T @ y
        return np.linalg.solve(a, y.T @ (1 + confidence)).astype(np.float32)

    def propose(self, history: Ids, weights: Floats, nearest: int, popular: int) -> tuple[Ids, Floats]:
        """Candidates, history first in its order, then new ones; and the affinity of each, 0 where unknown."""
        at, known = self.rows(history)
        vector = self._fold_in(at[known], weights[known])
        affinity = np.where(known, self.vectors[at] @ vector, np.float32(0))
        taken = set(at[known].tolist())  # few, and a set of few is faster than any array
        places = self.index.nearest(vector, nearest + len(taken)).tolist()
        near = np.array([place for place in places if place not in taken], np.int64)
        scores = self.vectors[near] @ vector
        near = near[np.lexsort((near, -scores))][:nearest]
        taken.update(near.tolist())
        more = [place for place in self._popular[:popular] if place >= 0 and place not in taken]
        extra = np.concatenate([near, np.array(more, np.int64)])
        scores = self.vectors[extra] @ vector
        return np.concatenate([history, self.items[extra]]), np.concatenate([affinity, scores])


# ------------------------------------------------------------------------------------------------------------- features


@dataclass(frozen=True)
class Rows:
    """Candidates of one or more households, those of a household side by side.

    ``owner`` (m,) counts households from 0; ``households`` (B, H) holds a row for each; ``products`` (m, Q) and
    ``pairs`` (m, P) a row for each candidate; ``known`` (m,) says which were bought before; ``affinity`` (m,).
    """

    owner: npt.NDArray[np.intp]
    households: Floats
    products: Floats
    pairs: Floats
    known: npt.NDArray[np.bool_]
    affinity: Floats


def pair_features(config: Config, rows: Rows) -> Floats:
    """The ranker's input, float32 of shape (m, features): one row per candidate, in the order of ``config.features``.

    A candidate's row depends on its own household alone, so one household gives the same bits as many at once.
    """
    columns: dict[str, npt.NDArray[Any]] = {"affinity": rows.affinity, "known": rows.known}
    for i, name in enumerate(config.household.columns):
        columns[name] = rows.households[rows.owner, i]
    for i, name in enumerate(c for view in config.products for c in view.columns):
        columns[name] = rows.products[:, i]
    for i, name in enumerate(config.pairs.columns):
        columns[name] = rows.pairs[:, i]
    for group in config.groups:
        _add_group(config, rows, group, columns)
    for d in config.derived:
        left, right = columns[d.left], columns[d.right]
        given = (left != MISSING) & (right != MISSING)
        if d.by == "ratio":
            given &= right != 0
            value = np.divide(left, right, where=given, out=np.full(len(left), MISSING, np.float32))
        else:
            value = np.where(given, left - right, np.float32(-1000))
        columns[d.name] = value
    out = np.empty((len(rows.owner), len(config.features)), np.float32)
    for i, name in enumerate(config.features):
        out[:, i] = columns[name]
    return out


def _add_group(config: Config, rows: Rows, group: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    key = rows.owner.astype(np.int64) << 32 | columns[group].astype(np.int64)
    _, member = np.unique(key, return_inverse=True)
    size = int(member.max()) + 1 if len(member) else 0
    bought = member[rows.known]
    count = np.bincount(bought, weights=columns[config.count][rows.known], minlength=size)
    weight = np.bincount(bought, weights=columns[config.weight][rows.known], minlength=size)
    last = np.full(size, np.inf, np.float32)
    np.minimum.at(last, bought, columns[config.last][rows.known])
    last[np.isinf(last)] = MISSING
    columns[f"{group}_products"] = np.bincount(bought, minlength=size).astype(np.float32)[member]
    columns[f"{group}_count"] = count.astype(np.float32)[member]
    columns[f"{group}_weight"] = weight.astype(np.float32)[member]
    columns[f"{group}_last"] = last[member]


# ------------------------------------------------------------------------------------------------------------ predictor


class RecommenderPredictor:
    """Answers for one household: its candidates ranked, best first."""

    def __init__(self, config: Config, factors: Factors, ranker: bytes, *, threads: int = 1) -> None:
        self.signature = SIGNATURE
        self.config = config
        self.factors = factors
        self._session: Session = open_session(ranker, threads)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._weight = config.pairs.columns.index(config.weight)
        self._width = sum(len(v.columns) for v in config.products)

    def score(self, rows: Floats) -> Floats:
        """The ranker's scores of feature rows, shape (m,)."""
        return np.asarray(self._session.run([self._output], {self._input: rows})[0], np.float32).reshape(-1)

    def rank(self, household: int, reader: FeatureReader) -> tuple[Ids, Floats, Floats] | None:
        """All candidates by falling score, their scores and feature rows; None for an unknown household."""
        config, key = self.config, key_of(household)
        profile = reader.get(config.household.namespace, key)
        packed = reader.get(config.pairs.namespace, key)
        if profile is None or packed is None:
            return None
        history, pairs = unpack_rows(config.pairs, packed)
        items, affinity = self.factors.propose(history, pairs[:, self._weight], config.nearest, config.popular)
        rows = pair_features(
            config,
            Rows(
                owner=np.zeros(len(items), np.intp),
                households=unpack_row(config.household, profile)[None, :],
                products=self._products(items, reader),
                pairs=pad(pairs, len(items)),
                known=np.arange(len(items)) < len(history),
                affinity=affinity,
            ),
        )
        scores = self.score(rows)
        order = np.lexsort((items, -scores))
        return items[order], scores[order], rows[order]

    def predict(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Answer:
        """The ``k`` best products of one household; a household we know nothing of gets the popular ones."""
        top = self.config.top
        household = int(inputs["household_id"].reshape(-1)[0])
        if "k" in inputs:
            top = int(inputs["k"].reshape(-1)[0])
            if not 1 <= top <= self.config.top:
                raise InputError(f"{top} products cannot be asked for", where="k", fix=f"ask 1 to {self.config.top}")
        ranked = self.rank(household, features)
        if ranked is None:
            items = self.factors.popular[:top]
            return _answer(household, items, np.zeros(len(items), np.float32), {"fallback": "popular"})
        items, scores, rows = ranked
        names = self.config.features
        own = set(self.config.household.columns)
        used: dict[str, Any] = {n: float(rows[0, i]) for i, n in enumerate(names) if n in own}
        used["top"] = {n: rows[:top, i].tolist() for i, n in enumerate(names) if n in (self.config.last, "affinity")}
        return _answer(household, items[:top], scores[:top], used)

    def _products(self, items: Ids, reader: FeatureReader) -> Floats:
        keys = [i.to_bytes(8, "little", signed=True) for i in items.tolist()]
        out = np.full((len(items), self._width), MISSING)
        start = 0
        for view in self.config.products:
            blank = blank_row(view)
            found = [blank if value is None else value for value in reader.get_many(view.namespace, keys)]
            out[:, start : start + len(view.columns)] = unpack_many(view, found)
            start += len(view.columns)
        return out


def _answer(household: int, items: Ids, scores: Floats, features: dict[str, Any]) -> Answer:
    outputs: dict[str, np.ndarray] = {"product_id": items[None, :].astype(np.int64), "score": scores[None, :]}
    return Answer(outputs=outputs, features=features, entity=str(household))


# ---------------------------------------------------------------------------------------------------------------- files


def assemble(files: dict[str, bytes], *, threads: int = 1) -> RecommenderPredictor:
    """The predictor from the content of its three files, and of those of an index if there is one.

    Raises:
        IntegrityError: a file is missing or cannot be used.
    """
    try:
        config = msgspec.json.decode(files[CONFIG], type=Config)
        tensors = safetensors.read(files[ITEMS], ITEMS)
        factors = Factors(
            tensors["items"],
            tensors["vectors"],
            tensors["popular"],
            alpha=config.alpha,
            regularization=config.regularization,
            files=files,
        )
        return RecommenderPredictor(config, factors, files[RANKER], threads=threads)
    except (KeyError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"the bundle is not a recommender: {error}", where=CONFIG) from error
