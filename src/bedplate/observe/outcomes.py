"""Joining what happened later to what was predicted. A match is a match: it shows no effect and no value."""

from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.records import Estimate
from bedplate.stats import bootstrap, intervals


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """The same of the predictions of one window."""

    predictions: int
    with_outcome: int
    matched: Estimate


class Matches(msgspec.Struct, frozen=True, kw_only=True):
    """``predictions`` had their whole time; ``with_outcome`` were followed by any purchase of that entity."""

    predictions: int
    with_outcome: int
    matched: Estimate
    windows: dict[str, Matched]


def match(predictions: pa.Table, outcomes: pa.Table, within: float, *, seed: int = 0) -> Matches:
    """The share of predictions followed, within ``within`` seconds, by a purchase of an item they named.

    ``predictions`` has ``as_of`` (timestamp), ``window`` (text), ``entity`` (text) and ``items`` (list); ``outcomes``
    has ``entity``, ``item`` and ``time``; types of items must agree. Predictions whose time is not over by the last
    outcome are left out. With several predictions of one entity the interval draws whole entities.
    """
    empty = intervals.wilson(0, 0)
    if not predictions.num_rows or not outcomes.num_rows:
        return Matches(predictions=0, with_outcome=0, matched=msgspec.structs.replace(empty, value=0.0), windows={})
    span = pa.scalar(timedelta(seconds=within), pa.duration("us"))
    stamp = pa.timestamp("us", tz="UTC")
    known_until = pc.max(outcomes["time"].cast(stamp))
    start = predictions["as_of"].cast(stamp)
    whole = predictions.filter(pc.less_equal(pc.add(start, span), pc.add(known_until, _day())))
    size = whole.num_rows
    if not size:
        return Matches(predictions=0, with_outcome=0, matched=msgspec.structs.replace(empty, value=0.0), windows={})
    start = whole["as_of"].cast(stamp)
    asked = pa.table({"row": np.arange(size), "entity": whole["entity"], "as_of": start})
    bought = pa.table({"entity": outcomes["entity"], "item": outcomes["item"], "time": outcomes["time"].cast(stamp)})
    after = asked.join(bought, "entity", join_type="inner")
    late = pc.add(after["as_of"], span)
    after = after.filter(pc.and_(pc.greater_equal(after["time"], after["as_of"]), pc.less(after["time"], late)))
    lists = whole["items"].combine_chunks()
    named = pa.table({"row": pc.list_parent_indices(lists).cast(pa.int64()), "item": pc.list_flatten(lists)})
    hits = after.join(named, ["row", "item"], join_type="left semi")
    has_outcome, has_match = np.zeros(size, bool), np.zeros(size, bool)
    has_outcome[after["row"].to_numpy()] = True
    has_match[hits["row"].to_numpy()] = True
    entities = np.asarray(whole["entity"].to_pylist())
    named_windows = np.asarray(whole["window"].to_pylist())
    windows = {}
    for window in np.unique(named_windows):
        mine = named_windows == window
        windows[str(window)] = Matched(
            predictions=int(mine.sum()),
            with_outcome=int(has_outcome[mine].sum()),
            matched=intervals.wilson(int(has_match[mine].sum()), int(mine.sum())),
        )
    repeated = np.unique(entities).size < size
    matched = (
        bootstrap.mean_interval(has_match.astype(float), seed=seed, clusters=entities)
        if repeated
        else intervals.wilson(int(has_match.sum()), size)
    )
    return Matches(predictions=size, with_outcome=int(has_outcome.sum()), matched=matched, windows=windows)


def _day() -> pa.Scalar:
    """Outcomes come by the day: a shop that closes at nine has told its last day."""
    return pa.scalar(timedelta(days=1), pa.duration("us"))
