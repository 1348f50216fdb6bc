"""Whether served features are what training would have seen: sampled from the prediction log and computed again.

The log holds the values that each answer rested on. For the same entities and moments they are recomputed from the
tables by the code that makes training's, and compared. What differs is skew: online values that were not brought up to
date, a view that was changed, rows that came late.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bedplate.app import access, features
from bedplate.app.feature_reports import SKEW, FeatureSkew, SkewReport
from bedplate.errors import InputError, NotFoundError
from bedplate.identity import Principal
from bedplate.records import Estimate
from bedplate.serve.state import MISSING

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.app.system import System
    from bedplate.features.views import FeatureView

LIMIT = 0.01
"""The share of differing values that alarms."""
_TOLERANCE = 1e-5
"""Relative: values are kept in 32 bits, and sums depend a little on their order."""
_MOST = 20_000
_COLUMNS = ("id", "entity", "time", "inputs", "features", "replayed")


class _Served(msgspec.Struct, frozen=True):
    """One sampled prediction: whom it was about, when, what was asked and which features it rested on."""

    entity: int
    time: datetime
    inputs: Mapping[str, Any]
    features: Mapping[str, float]


def measure(
    system: "System",
    principal: Principal,
    use_case: str,
    sample: int = 1000,
    since: str | None = None,
    limit: float = LIMIT,
) -> SkewReport:
    """Compare the features of a sample of logged predictions with their recomputation; the result is kept.

    Replayed predictions, and those about several entities at once, are left out. The ledger says what was found.

    Raises:
        DeniedError: policy does not let this person operate the use case.
        InputError: no such sample, limit or time.
        NotFoundError: there is no such use case, or no prediction that rests on features was logged.
        StateError: a view was declared anew since it was computed.
    """
    if not 1 <= sample <= _MOST or not 0 <= limit < 1:
        raise InputError(f"{sample} predictions and a limit of {limit} cannot be used", fix=f"1 to {_MOST}; 0 to 1")
    loaded = features.loaded_of(system, use_case)
    decision = access.demand(system, principal, "operate", access.use_case_resource(loaded.use_case))
    views = features.unchanged(system, loaded)
    served = _sampled(system, loaded, views, sample, features.time(since, "--since"))
    found = tuple(_compared(system, loaded, views, served, limit))
    if not found:
        raise NotFoundError(
            f"no logged prediction of {use_case} says which features it rested on",
            fix="wait for predictions of single entities that are not replayed, or widen --since",
        )
    times = [each.time for each in served]
    report = SkewReport(
        use_case=use_case,
        samples=len(served),
        since=min(times).isoformat(),
        until=max(times).isoformat(),
        limit=limit,
        features=found,
        alarm=any(each.alarm for each in found),
    )
    with system.store.transaction() as tx:
        entry = system.ledger.record(
            tx,
            actor=principal.id,
            action="features.skew",
            resource=f"use_case/{use_case}",
            decision="allow",
            payload={
                "samples": report.samples,
                "limit": str(limit),
                "over the limit": [each.feature for each in found if each.alarm],
            },
            auth=principal.auth,
            policies=decision.policies,
            purpose=loaded.use_case.governance.purpose,
        )
        report = msgspec.structs.replace(report, entry=entry)
        tx.facts.put(SKEW, use_case, report)
    return report


def _sampled(
    system: "System", loaded: Any, views: Sequence["FeatureView"], sample: int, since: datetime | None
) -> list[_Served]:
    """Predictions drawn evenly over the log; the same log, the same sample."""
    table = access.predictions_table(loaded.use_case.name)
    if table not in system.tables.names():
        raise NotFoundError(f"nothing was predicted by {loaded.use_case.name} yet", fix="ask its endpoint first")
    rows = access.reader(system, loaded.use_case).read(system.tables.current(table), list(_COLUMNS))
    names = {view.entity[0] for view in views if len(view.entity) == 1}
    every = (row for batch in rows for row in batch.to_pylist())
    found = [row for row in every if not row["replayed"] and row["entity"] and (since is None or row["time"] >= since)]
    found.sort(key=lambda row: (row["time"], row["id"]))
    step = max(1, len(found) // sample)
    served = (_served(row, names) for row in found[::step][:sample])
    return [each for each in served if each is not None]


def _served(row: dict[str, Any], entities: set[str]) -> _Served | None:
    try:
        key, inputs, used = int(row["entity"]), msgspec.json.decode(row["inputs"]), msgspec.json.decode(row["features"])
    except (ValueError, msgspec.DecodeError):
        return None
    if not entities & inputs.keys():
        return None
    numbers = {name: float(value) for name, value in used.items() if type(value) in (int, float)}
    return _Served(entity=key, time=row["time"], inputs=inputs, features=numbers)


def _compared(
    system: "System", loaded: Any, views: Sequence["FeatureView"], served: list[_Served], limit: float
) -> Iterator[FeatureSkew]:
    for view in views:
        if len(view.entity) != 1:
            continue
        known = [each for each in served if view.entity[0] in each.inputs]
        if not known:
            continue
        offline = _recomputed(system, loaded, view, known)
        for name in offline.column_names:
            pairs = [
                (each.features[name], MISSING if value is None else value)
                for each, value in zip(known, offline[name].to_pylist(), strict=True)
                if name in each.features
            ]
            if pairs:
                yield _skew(name, np.array(pairs, np.float64), limit)


def _recomputed(system: "System", loaded: Any, view: "FeatureView", served: list[_Served]) -> "pa.Table":
    import pyarrow as pa

    from bedplate.features import join

    asked_at = pa.array([each.time for each in served], pa.timestamp("us", "UTC"))
    if view.rows:
        given = features.governed(system, loaded)(next(iter(view.times)))
        if getattr(given.schema.field(view.event_time).type, "tz", None) is None:
            asked_at = asked_at.cast(pa.timestamp("us"))  # a clock that names no zone is held to be in UTC, as ours is
    else:
        table = access.table_name(loaded.use_case.name, "features", view.name)
        given = access.reader(system, loaded.use_case).read(system.tables.current(table))
    labels = pa.table(
        {
            view.entity[0]: pa.array([each.entity for each in served], pa.int64()),
            "asked at": asked_at,
            **{
                name: pa.array([_number(each.inputs.get(name)) for each in served], pa.float64())
                for name in view.request
            },
        }
    )
    return join(labels, "asked at", [view], lambda _: given).drop_columns(labels.column_names)


def _number(given: Any) -> float | None:
    while isinstance(given, list) and len(given) == 1:
        given = given[0]
    return float(given) if type(given) in (int, float) else None


def _skew(name: str, pairs: np.ndarray, limit: float) -> FeatureSkew:
    """``pairs``: served and recomputed values, shape (samples, 2)."""
    from bedplate.stats import intervals  # heavy: nobody needs it to serve

    difference = np.abs(pairs[:, 0] - pairs[:, 1])
    differs = int((difference > _TOLERANCE * np.maximum(1.0, np.abs(pairs[:, 1]))).sum())
    share = intervals.wilson(differs, len(pairs))
    return FeatureSkew(
        feature=name,
        share=share,
        size=_mean(difference),
        largest=float(difference.max()),
        alarm=share.low > limit,
    )


def _mean(values: np.ndarray) -> Estimate:
    """The mean with its interval; of a single value, which has none that ends, as wide as the value itself."""
    from bedplate.stats import intervals

    if len(values) > 1:
        return intervals.mean(values)
    only = float(values[0])
    return Estimate(value=only, low=0.0, high=2 * only, level=0.95, n=1, method="none: one value")
