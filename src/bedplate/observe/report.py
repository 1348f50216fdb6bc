"""What was seen in served traffic, as one fact: matches, drift, latency."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from bedplate.data.tables import Tables
from bedplate.errors import InputError
from bedplate.ids import Digest, digest_of
from bedplate.observe.drift import Counted, Reference, columns_of, count, judge, together
from bedplate.observe.outcomes import Matches, match
from bedplate.observe.ship import rows
from bedplate.records import DriftFinding, Observation, ObservedWindow, TableVersion
from bedplate.stats import drift, intervals, sketches

_COLUMNS = ["request_id", "time", "entity", "features", "outputs", "latency_ms", "replayed"]
_ROWS = 1024
"""Predictions that are held as Python values at once."""
_NAMED = 8
"""Names that a note lists at most."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """The observation, and the drift detectors' state that the next one goes on from."""

    observation: Observation
    state: drift.State


def observe(
    *,
    tables: Tables,
    table: TableVersion,
    endpoint: str,
    bundle: Digest,
    outcomes: pa.Table | None,
    within: float,
    items: str = "product_id",
    reference: Reference | None = None,
    state: drift.State | None = None,
    moments: Mapping[str, str] | None = None,
    settings: drift.Settings = drift.Settings(),  # noqa: B008
) -> Observed:
    """Observe the predictions that ``bundle`` gave at ``endpoint``.

    ``moments`` maps request ids of a replay to the moment they stand for (``ReplayPlan.moments()``): only those
    requests are observed then, each once. Without it the time of the prediction counts, one window per day. ``items``
    is the output that names what was recommended. ``outcomes`` has columns entity (text), item, time. ``within`` is
    in seconds. Predictions are streamed: what is kept of them is counts, and with ``outcomes`` what they named.

    What could not be looked at stands in the observation's ``notes``; if no logged feature is one of ``reference``, its
    ``reference`` is empty: drift was not watched, which is something else than no drift.

    Raises:
        InputError: the outputs name items in another type than the outcomes.
    """
    seen = _Seen(reference, items if outcomes is not None else None)
    for window, batch in _windows(rows(tables, table, endpoint, bundle, _COLUMNS), moments):
        seen.add(window, batch)
    matches = Matches(predictions=0, with_outcome=0, matched=_unknown(), windows={})
    if outcomes is not None and seen.predictions:
        matches = match(seen.asked(outcomes["item"].type), outcomes, within)
    verdict, by_window = _judge(seen, matches, reference, state or drift.State(), settings)
    observation = Observation(
        endpoint=endpoint,
        bundle=bundle,
        predictions=seen.predictions,
        with_outcome=matches.with_outcome,
        matched=matches.matched,
        windows=by_window,
        drift=verdict.findings,
        drift_alarm=verdict.alarm,
        drift_evidence=verdict.evidence,
        table=table,
        reference=digest_of(reference) if reference is not None and seen.watched else "",
        latency_p99_ms=seen.latency()[1],
        replayed=seen.replayed,
        notes=seen.notes(),
    )
    return Observed(observation=observation, state=verdict.state)


def _windows(
    batches: Iterator[pa.RecordBatch], moments: Mapping[str, str] | None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The predictions of each batch by window; of a replayed request the first answer only."""
    taken: set[str] = set()
    for batch in (whole.slice(start, _ROWS) for whole in batches for start in range(0, whole.num_rows, _ROWS)):
        found: dict[str, list[dict[str, Any]]] = {}
        for row in batch.to_pylist():
            if moments is None:
                row["as_of"], window = row["time"], f"{row['time']:%Y-%m-%dT00:00:00Z}"
            elif row["request_id"] in moments and row["request_id"] not in taken:
                taken.add(row["request_id"])
                row["as_of"] = datetime.fromisoformat(moments[row["request_id"]])
                window = f"{row['as_of']:%Y-%m-%dT%H:%M:%SZ}"
            else:
                continue
            found.setdefault(window, []).append(row)
        yield from found.items()


class _Seen:
    """What is kept of a stream of predictions: counts by window, and what was named if outcomes are to be joined."""

    def __init__(self, reference: Reference | None, items: str | None) -> None:
        self.predictions, self.replayed = 0, False
        self._latencies: dict[str, sketches.QuantileSketch] = {}
        self.by_window: dict[str, int] = {}
        self.counted: dict[str, Counted] = {}
        self._reference, self._items = reference, items
        self._logged: set[str] = set()
        self._named = 0
        self._asked: list[tuple[list[str], list[datetime], list[list[Any]], list[str]]] = []

    def add(self, window: str, batch: list[dict[str, Any]]) -> None:
        self.predictions += len(batch)
        self.replayed = self.replayed or any(row["replayed"] for row in batch)
        self.by_window[window] = self.by_window.get(window, 0) + len(batch)
        times = self._latencies.setdefault(window, sketches.QuantileSketch())
        times.add(np.array([row["latency_ms"] for row in batch], dtype=np.float64))
        if self._reference is not None:
            logged = columns_of(msgspec.json.decode(row["features"]) for row in batch)
            self._logged.update(logged.column_names)
            now = count(self._reference, [logged])
            self.counted[window] = together(self.counted.get(window, {}), now)
        if self._items is not None:
            given = (msgspec.json.decode(row["outputs"]).get(self._items) for row in batch)
            named = [[] if item is None else np.ravel(np.asarray(item)).tolist() for item in given]
            self._named += sum(map(bool, named))
            who, when = [row["entity"] for row in batch], [row["as_of"] for row in batch]
            self._asked.append((who, when, named, [window] * len(batch)))

    def latency(self, window: str | None = None) -> tuple[float, float]:
        """The median and the 99th percentile of the answer times in ms, of one window or of all; zeros of nothing."""
        whole = sketches.QuantileSketch()
        for name, times in sorted(self._latencies.items()):
            if window is None or name == window:
                whole.merge(times)
        half, most = whole.quantiles(np.array([0.5, 0.99])) if self._latencies else (0.0, 0.0)
        return float(half), float(most)

    @property
    def watched(self) -> bool:
        """Whether any feature could be compared with the reference."""
        return any(self.counted.values())

    def asked(self, kind: pa.DataType) -> pa.Table:
        """Who was shown which items when, in which window; items are of type ``kind``.

        Raises:
            InputError: the outputs name items in another type than the outcomes.
        """
        entities, moments, named, windows = ([x for batch in self._asked for x in batch[column]] for column in range(4))
        try:
            items = pa.array(named, pa.list_(kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"the output {self._items!r} does not name items as the outcomes do, which are {kind}: {error}",
                where="monitor.outcomes",
                fix="name data whose items have the type that the model gives",
            ) from error
        stamp = pa.timestamp("us", tz="UTC")
        who, when = pa.array(entities, pa.string()), pa.array(moments, stamp)
        return pa.table({"entity": who, "as_of": when, "items": items, "window": pa.array(windows, pa.string())})

    def notes(self) -> tuple[str, ...]:
        """What could not be looked at, so that its absence is not read as good news."""
        notes = []
        if self.predictions and self._reference is not None:
            expected = {feature.name for feature in self._reference.features}
            gone = sorted(expected - self._logged)
            if not self.watched:
                notes.append(
                    f"drift was not watched: no logged feature is one of the reference (logged: {_list(self._logged)}; "
                    f"reference: {_list(expected)})"
                )
            elif gone:
                notes.append(f"drift was not watched in {len(gone)} of {len(expected)} features: {_list(gone)}")
        if self.predictions and self._items is not None and not self._named:
            notes.append(f"no prediction has an output {self._items!r}: nothing could match")
        return tuple(notes)


def _judge(
    seen: _Seen, matches: Matches, reference: Reference | None, state: drift.State, settings: drift.Settings
) -> tuple[drift.Verdict, tuple[ObservedWindow, ...]]:
    """The verdict after all windows (an alarm in any of them stays one), and a row for each."""
    verdict = drift.Verdict(state=state, findings=(), evidence=state.evidence, alarm=False)
    alarms: dict[str, DriftFinding] = {}
    latest: dict[str, DriftFinding] = {}
    by_window: list[ObservedWindow] = []
    for window, predictions in sorted(seen.by_window.items()):
        if reference is not None:
            verdict = judge(reference, seen.counted[window], verdict.state, settings)
            latest.update({finding.feature: finding for finding in verdict.findings})
            alarms.update({finding.feature: finding for finding in verdict.findings if finding.alarm})
        (half, most), matched = seen.latency(window), matches.windows.get(window)
        by_window.append(
            ObservedWindow(
                as_of=window,
                predictions=predictions,
                p50_ms=half,
                p99_ms=most,
                drift_evidence=verdict.evidence,
                drift_alarm=verdict.alarm,
                with_outcome=0 if matched is None else matched.with_outcome,
                matched=None if matched is None else matched.matched,
            )
        )
    findings = tuple(finding for _, finding in sorted({**latest, **alarms}.items()))
    return msgspec.structs.replace(verdict, findings=findings, alarm=bool(alarms)), tuple(by_window)


def _list(names: Any) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return (", ".join(shown[:_NAMED]) or "nothing") + more


def _unknown() -> Any:
    return msgspec.structs.replace(intervals.wilson(0, 0), value=0.0)
