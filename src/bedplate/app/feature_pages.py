"""What the page of features shows: the views of each use case, how fresh they are, and which models rest on them."""

from typing import TYPE_CHECKING

import msgspec

from bedplate.app.feature_reports import SKEW, SkewReport
from bedplate.app.read_models import Stamped
from bedplate.records import Bundle, FeatureSet, TableVersion, ViewRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedplate.ids import Digest
    from bedplate.store import Store, Transaction

_BUNDLES = 20


class ViewLine(msgspec.Struct, frozen=True, kw_only=True):
    """A feature view: its columns, its declaration, and the table of its values, one row for each entity and moment."""

    name: str
    columns: tuple[str, ...]
    table: TableVersion
    declared: ViewRecord | None


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """The newest features of a use case. ``as_of`` is the last moment that they know of; ``models`` rest on them.

    ``skew`` is what was last found of served values against their recomputation.
    """

    use_case: str
    made: Stamped[FeatureSet]
    views: tuple[ViewLine, ...]
    as_of: str
    models: tuple[str, ...]
    skew: SkewReport | None


def features(store: "Store", use_cases: "Sequence[str]") -> tuple[Features, ...]:
    """The features of these use cases, those that have any."""
    with store.read() as tx:
        found = (_of(tx, name) for name in use_cases)
        return tuple(each for each in found if each is not None)


def _of(tx: "Transaction", use_case: str) -> Features | None:
    fact = tx.facts.latest(use_case, "features")
    body = None if fact is None else msgspec.convert(fact.body, FeatureSet)
    if fact is None or body is None or not body.views:  # a use case that takes its columns as they are has none
        return None
    skew = tx.facts.latest(use_case, SKEW)
    return Features(
        use_case=use_case,
        made=Stamped(digest=fact.digest, created=fact.created, body=body),
        views=tuple(
            ViewLine(name=name, columns=body.columns.get(name, ()), table=table, declared=body.declared.get(name))
            for name, table in body.views.items()
        ),
        as_of=max(body.as_of, default=""),
        models=_models(tx, use_case, fact.digest),
        skew=None if skew is None else msgspec.convert(skew.body, SkewReport),
    )


def _models(tx: "Transaction", use_case: str, features: "Digest") -> tuple[str, ...]:
    """The model versions that rest on these features, newest first."""
    found = []
    for fact in tx.facts.list(use_case, "bundle", _BUNDLES):
        if any(each.digest == features for each in tx.facts.ancestors(fact.digest)):
            made = msgspec.convert(fact.body, Bundle)
            found.append(f"{made.name} version {made.version}")
    return tuple(found)
