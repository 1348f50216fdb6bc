"""What was seen in served traffic, as one fact: matches, drift, latency."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from bedplate.data.tables import Tables
from bedplate.ids import Digest, digest_of
from bedplate.observe.drift import Reference, columns_of, watch
from bedplate.observe.outcomes import Matches, match
from bedplate.observe.ship import rows
from bedplate.records import DriftFinding, Observation, TableVersion
from bedplate.stats import drift, intervals


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
    in seconds.
    """
    seen = _collect(tables, table, endpoint, bundle, moments)
    matches = Matches(predictions=0, with_outcome=0, matched=_unknown(), windows=())
    if outcomes is not None and seen:
        matches = match(_asked(seen, items), outcomes, within)
    verdict, by_window = _drift(seen, reference, state or drift.State(), settings)
    shown = {window["as_of"]: window for window in matches.windows}
    latencies = [float(row["latency_ms"]) for row in seen]
    observation = Observation(
        endpoint=endpoint,
        bundle=bundle,
        predictions=len(seen),
        with_outcome=matches.with_outcome,
        matched=matches.matched,
        windows=tuple({**shown.get(window["as_of"], {}), **window} for window in by_window),
        drift=verdict.findings,
        drift_alarm=verdict.alarm,
        drift_evidence=verdict.evidence,
        table=table,
        reference=digest_of(reference) if reference is not None else "",
        latency_p99_ms=intervals.quantile(latencies, 0.99).value if latencies else 0.0,
        replayed=any(row["replayed"] for row in seen),
    )
    return Observed(observation=observation, state=verdict.state)


def _collect(
    tables: Tables, table: TableVersion, endpoint: str, bundle: Digest, moments: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """The predictions, oldest moment first; of a replayed request the first answer only."""
    found: list[dict[str, Any]] = []
    taken: set[str] = set()
    for batch in rows(tables, table, endpoint, bundle):
        for row in batch.to_pylist():
            if moments is None:
                row["as_of"], row["window"] = row["time"], f"{row['time']:%Y-%m-%dT00:00:00Z}"
            elif row["request_id"] in moments and row["request_id"] not in taken:
                taken.add(row["request_id"])
                row["as_of"] = datetime.fromisoformat(moments[row["request_id"]])
                row["window"] = f"{row['as_of']:%Y-%m-%dT%H:%M:%SZ}"
            else:
                continue
            found.append(row)
    return sorted(found, key=lambda row: (row["window"], row["id"]))


def _asked(seen: list[dict[str, Any]], items: str) -> pa.Table:
    named = [msgspec.json.decode(row["outputs"]).get(items, []) for row in seen]
    return pa.table(
        {
            "entity": pa.array([row["entity"] for row in seen], pa.string()),
            "as_of": pa.array([row["as_of"] for row in seen], pa.timestamp("us", tz="UTC")),
            "items": pa.array(named),
        }
    )


def _drift(
    seen: list[dict[str, Any]], reference: Reference | None, state: drift.State, settings: drift.Settings
) -> tuple[drift.Verdict, list[dict[str, Any]]]:
    """The verdict after all windows (an alarm in any of them stays one), and a row for each."""
    verdict = drift.Verdict(state=state, findings=(), evidence=state.evidence, alarm=False)
    alarms: dict[str, DriftFinding] = {}
    by_window: list[dict[str, Any]] = []
    for window in sorted({row["window"] for row in seen}):
        mine = [row for row in seen if row["window"] == window]
        if reference is not None:
            logged = columns_of(msgspec.json.decode(row["features"]) for row in mine)
            verdict = watch(reference, [logged], verdict.state, settings)
            alarms.update({finding.feature: finding for finding in verdict.findings if finding.alarm})
        by_window.append(
            {
                "as_of": window,
                "predictions": len(mine),
                "drift_evidence": verdict.evidence,
                "drift_alarm": verdict.alarm,
            }
        )
    findings = tuple(alarms.get(finding.feature, finding) for finding in verdict.findings)
    return msgspec.structs.replace(verdict, findings=findings, alarm=bool(alarms)), by_window


def _unknown() -> Any:
    return msgspec.structs.replace(intervals.wilson(0, 0), value=0.0)
