"""The whole line on real parts: answers journalled, shipped once, joined to purchases, compared with training."""

import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from bedplate import clock, ids
from bedplate.data.reads import Reader
from bedplate.data.tables import Tables
from bedplate.errors import InputError, IntegrityError, NotFoundError, UnavailableError
from bedplate.ids import Digest, digest_bytes
from bedplate.journal import Writer, read, segments
from bedplate.journal.predictions import Encoder, Packed, decode
from bedplate.observe import (
    ReplayPlan,
    ReplayRequest,
    ReplayWindow,
    answered,
    find,
    latest,
    observe,
    reference,
    replay,
    ship,
)
from bedplate.observe.ship import SCHEMA
from bedplate.policy import values as policy
from bedplate.policy.policies import Policies
from bedplate.policy.values import FLOW, Resource
from bedplate.records import Prediction

BUNDLE = digest_bytes(b"bundle")
MOMENTS = ("2017-12-04T00:00:00+00:00", "2017-12-11T00:00:00+00:00")


def plan(households: int = 40) -> ReplayPlan:
    inputs: dict[str, list[dict[str, Any]]] = {
        str(h): [{"name": "household_id", "datatype": "INT64", "shape": [1], "data": [h]}] for h in range(households)
    }
    windows = tuple(ReplayWindow(as_of=moment, inputs=inputs) for moment in MOMENTS)
    return ReplayPlan(use_case="retail", bundle=BUNDLE, windows=windows)


class Endpoint:
    """Answers as a replica does: recommends items 1 and 2 and journals the prediction."""

    def __init__(self, folder: Path, shift: float = 0.0) -> None:
        self.writer = Writer(folder)
        self.sent: list[ReplayRequest] = []
        self.shift, self.fail_after = shift, 10**9

    def __call__(self, request: ReplayRequest) -> dict[str, Any]:
        if len(self.sent) >= self.fail_after:
            raise UnavailableError("gone")
        self.sent.append(request)
        spend = float(np.random.default_rng(len(self.sent)).normal() + self.shift)
        prediction = Prediction(
            id=ids.new_id("pred"),
            request_id=request.id,
            time=clock.timestamp(),
            use_case="retail",
            endpoint="retail",
            bundle=BUNDLE,
            evidence=Digest(""),
            principal="local",
            decision="",
            entity=request.entity,
            inputs={},
            features={"household": {"spend": spend}},
            outputs={"product_id": [1, 2]},
            latency_ms=2.0,
            replayed=True,
        )
        self.writer.append(Encoder().record(b"{", prediction))
        return {}


def test_what_the_journal_holds_packed_is_plain_in_the_table(tmp_path: Path) -> None:
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    prediction = Prediction(
        **dict.fromkeys(("id", "request_id", "use_case", "endpoint", "principal", "decision", "entity"), ""),
        bundle=BUNDLE,
        evidence=BUNDLE,
        time=clock.timestamp(),
        inputs={"X": Packed(rows.dtype.str, rows.shape, rows.tobytes()), "id": [7]},
        features={},
        outputs={"Y": Packed("<f4", (100,), rows[:, 0].tobytes())},
        latency_ms=1.0,
    )
    with Writer(tmp_path / "journal") as writer:
        writer.append(Encoder().record(b"{", prediction))
    tables = Tables(tmp_path / "tables")

    version = ship(tmp_path / "journal", tables, "predictions").table
    assert version is not None
    (row,) = [row for batch in tables.scan(version) for row in batch.to_pylist()]

    assert msgspec.json.decode(row["inputs"]) == {"X": rows.tolist(), "id": [7]}
    assert msgspec.json.decode(row["outputs"]) == {"Y": rows[:, 0].tolist()}


@pytest.mark.parametrize(
    "value",
    [
        {"dtype": "<f4"},
        {"dtype": "?!", "shape": [1], "at": 0},
        {"dtype": "<f4", "shape": [1], "at": 0},
        {"dtype": "<f4", "shape": [-1], "at": 0},
    ],
)
def test_a_packed_value_that_is_none_is_refused(tmp_path: Path, value: dict[str, Any]) -> None:
    endpoint = Endpoint(tmp_path / "journal")
    endpoint(next(iter(plan(1).requests(plan(1).windows[0]))))
    (segment,) = segments(tmp_path / "journal")
    prediction = msgspec.structs.replace(decode(next(read(segment))), inputs={"X": value})
    endpoint.writer.append(Encoder().record(b"{", prediction))
    endpoint.writer.close()

    with pytest.raises(IntegrityError, match="no array"):
        ship(tmp_path / "journal", Tables(tmp_path / "tables"), "predictions")


def nothing(message: str, done: int, total: int) -> None:
    pass


def test_a_replay_becomes_an_observation(tmp_path: Path) -> None:
    endpoint, tables, seen = Endpoint(tmp_path / "journal", shift=2.0), Tables(tmp_path / "tables"), []
    report = replay(plan(), endpoint, nothing, set(), before_window=seen.append)
    assert (report.sent, report.skipped, seen) == (80, 0, list(MOMENTS))
    endpoint.writer.close()
    shipped = ship(tmp_path / "journal", tables, "predictions")
    assert shipped.rows == 80
    assert shipped.table is not None
    training = pa.table({"household.spend": np.random.default_rng(0).normal(size=20_000)})
    outcomes = pa.table(
        {
            "entity": [str(h) for h in range(20)] * 2,
            "item": [1] * 10 + [9] * 10 + [1] * 20,
            "time": pa.array(
                [clock.parse("2017-12-05T00:00:00.000000Z")] * 20 + [clock.parse("2017-12-25T00:00:00.000000Z")] * 20,
                pa.timestamp("us", tz="UTC"),
            ),
        }
    )
    observed = observe(
        tables=tables,
        table=shipped.table,
        endpoint="retail",
        bundle=BUNDLE,
        outcomes=outcomes,
        within=7 * 86400.0,
        reference=reference(lambda: [[training]]),
        moments=plan().moments(),
    )
    seen_now = observed.observation
    assert (seen_now.predictions, seen_now.with_outcome, seen_now.replayed) == (80, 20, True)
    assert seen_now.matched.value == pytest.approx(10 / 80)
    assert [window.predictions for window in seen_now.windows] == [40, 40]
    assert [window.as_of for window in seen_now.windows] == ["2017-12-04T00:00:00Z", "2017-12-11T00:00:00Z"]
    assert all(0 < window.p50_ms <= window.p99_ms <= seen_now.latency_p99_ms * 2 for window in seen_now.windows)
    assert sum(window.with_outcome for window in seen_now.windows) == 20
    assert sum(window.matched.value * window.predictions for window in seen_now.windows) == pytest.approx(10)
    assert seen_now.drift_alarm
    assert seen_now.drift[0].feature == "household.spend"
    assert seen_now.drift[0].effect.value == pytest.approx(2.0, abs=0.4)
    msgspec.json.decode(msgspec.json.encode(observed), type=type(observed))  # the app keeps both


def test_a_replay_cut_off_goes_on_and_never_doubles(tmp_path: Path) -> None:
    tables, journal = Tables(tmp_path / "tables"), tmp_path / "journal"
    endpoint = Endpoint(journal)
    endpoint.fail_after = 30
    with pytest.raises(UnavailableError):
        replay(plan(), endpoint, nothing, set(), concurrency=1, pause=0.001)
    endpoint.writer.close()
    there = answered(journal, tables, "predictions")
    assert len(there) == 30
    some = set(list(plan().moments())[::2])
    assert answered(journal, tables, "predictions", some) == there & some
    ship(journal, tables, "predictions")
    again = Endpoint(journal)
    report = replay(plan(), again, nothing, answered(journal, tables, "predictions"))
    assert (report.sent, report.skipped) == (50, 30)
    again.writer.close()
    version = ship(journal, tables, "predictions").table
    assert version is not None
    ids_seen = [i for batch in tables.scan(version, ["request_id"]) for i in batch.column(0).to_pylist()]
    assert sorted(ids_seen) == sorted(plan().moments())


def test_shipping_again_after_a_crash_before_the_deletion_adds_nothing(tmp_path: Path) -> None:
    tables, journal = Tables(tmp_path / "tables"), tmp_path / "journal"
    endpoint = Endpoint(journal)
    replay(plan(5), endpoint, nothing, set())
    endpoint.writer.close()
    kept = {path: path.read_bytes() for path in journal.iterdir()}
    first = ship(journal, tables, "predictions").table
    for path, data in kept.items():
        path.write_bytes(data)
    assert ship(journal, tables, "predictions").table == first
    assert not list(journal.iterdir())


def test_a_table_from_before_rollouts_gets_their_column_and_keeps_its_rows(tmp_path: Path) -> None:
    old = logged([{"a": 1.0}, {"a": 2.0}]).drop_columns(["exposure", "ended", "trace"])
    tables = Tables(tmp_path / "tables")
    tables.write("predictions", old, mode="append")
    endpoint = Endpoint(tmp_path / "journal")
    replay(plan(3), endpoint, nothing, set())
    endpoint.writer.close()
    grown = ship(tmp_path / "journal", tables, "predictions").table
    assert grown is not None
    rows = pa.Table.from_batches(tables.scan(grown))
    assert rows["exposure"].to_pylist() == ["null"] * rows.num_rows
    assert rows["ended"].to_pylist() == [""] * rows.num_rows
    assert rows["trace"].to_pylist() == ["null"] * rows.num_rows
    assert rows.num_rows == 2 + 6
    assert {"id 0", "id 1"} <= set(rows["id"].to_pylist())


def test_a_prediction_is_found_as_it_was_logged(tmp_path: Path) -> None:
    tables, journal = Tables(tmp_path / "tables"), tmp_path / "journal"
    endpoint = Endpoint(journal)
    replay(plan(3), endpoint, nothing, set())
    endpoint.writer.close()
    version = ship(journal, tables, "predictions").table
    assert version is not None
    name = next(iter(tables.scan(version, ["id"]))).column(0)[0].as_py()
    rows = Reader(tables, Policies.load(), FLOW, "care", lambda record: None, resource_of=governed)
    found = find(rows, version, name)
    assert found.id == name
    assert found.outputs == {"product_id": [1, 2]}
    newest = latest(rows, version)
    assert newest is not None
    assert all(newest.time >= row for batch in tables.scan(version, ["time"]) for row in stamps(batch))
    with pytest.raises(NotFoundError, match="no prediction"):
        find(rows, version, "pred_nothing")


def governed(name: str) -> Resource:
    return policy.table(name, use_case="shop", purposes=("care",))


def stamps(batch: pa.RecordBatch) -> list[str]:
    return [f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" for moment in batch.column("time").to_pylist()]


def logged(features: list[dict[str, Any]], outputs: dict[str, Any] | None = None, days: int = 2) -> pa.Table:
    """A prediction table as shipping writes it, one row for each of ``features``, spread over days."""
    n = len(features)
    text = {name: [f"{name} {i}" for i in range(n)] for name in ("id", "request_id", "entity")}
    same = {"use_case": "retail", "endpoint": "retail", "bundle": BUNDLE, "segment": "seg", "inputs": "{}"}
    start = clock.parse("2017-12-04T12:00:00.000000Z")
    columns: dict[str, Any] = {name: [value] * n for name, value in same.items()}
    columns |= {name: [""] * n for name in ("evidence", "principal", "decision", "exposure", "ended", "trace")} | text
    columns["time"] = [start + timedelta(days=i * days // n) for i in range(n)]
    columns["features"] = [msgspec.json.encode(item).decode() for item in features]
    columns["outputs"] = [msgspec.json.encode(outputs or {"product_id": [[1, 2]]}).decode()] * n
    columns["latency_ms"], columns["replayed"] = [float(i) for i in range(n)], [False] * n
    return pa.table({field.name: columns[field.name] for field in SCHEMA}, schema=SCHEMA)


def look(folder: Path, *parts: pa.Table, training: pa.Table | None = None, outcomes: pa.Table | None = None) -> Any:
    tables = Tables(folder)
    for number, part in enumerate(parts):
        version = tables.write("predictions", part, mode="append", key=str(number))
    return observe(
        tables=tables,
        table=version,
        endpoint="retail",
        bundle=BUNDLE,
        outcomes=outcomes,
        within=86400.0,
        reference=None if training is None else reference(lambda: [[training]]),
    ).observation


TRAINING = pa.table(
    {
        "spend": np.random.default_rng(0).normal(size=5000),
        "visits": np.random.default_rng(1).normal(size=5000),
        "kind": np.random.default_rng(2).choice(["a", "b"], size=5000),
    }
)


def test_when_no_feature_can_be_compared_that_is_not_called_no_drift(tmp_path: Path) -> None:
    seen = look(tmp_path, logged([{"household": {"spend": 1.0}}] * 300), training=TRAINING)
    assert seen.reference == ""
    assert seen.notes == (
        "drift was not watched: no logged feature is one of the reference "
        "(logged: household.spend; reference: kind, spend, visits)",
    )
    assert not seen.drift


def test_features_that_were_not_logged_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    seen = look(tmp_path, logged([{"spend": float(x)} for x in rng.normal(size=300)]), training=TRAINING)
    assert seen.reference
    assert seen.notes == ("drift was not watched in 2 of 3 features: kind, visits",)
    assert [finding.feature for finding in seen.drift] == ["spend"]
    assert not seen.drift_alarm


def test_a_feature_whose_type_changed_is_drift_and_no_failure(tmp_path: Path) -> None:
    rows = [{"spend": "1.5 EUR", "visits": None, "kind": 7} for _ in range(400)]
    seen = look(tmp_path, logged(rows), training=TRAINING)
    assert seen.drift_alarm
    assert {f.feature: f.effect_unit for f in seen.drift if f.alarm} == {
        "spend": "share missing",
        "visits": "share missing",
        "kind": "share",
    }


def test_a_feature_that_alarmed_and_then_vanished_stays_in_sight(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"spend": 5.0 + i / 1000, "visits": 0.0} for i in range(300)]
    seen = look(tmp_path, logged([*rows, *({"visits": i / 300} for i in range(300))]), training=TRAINING)
    assert "spend" in [finding.feature for finding in seen.drift if finding.alarm]


def test_order_and_chunks_change_nothing_that_is_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    names = rng.choice(["a", "b", "c"], size=600).tolist()
    rows = [
        {"spend": float(x), "visits": i, "kind": k}
        for i, (x, k) in enumerate(zip(rng.normal(size=600), names, strict=True))
    ]
    table = logged(rows)
    order = rng.permutation(600)
    one = look(tmp_path / "one", table, training=TRAINING)
    many = look(tmp_path / "many", *(table.take(part) for part in np.array_split(order, 7)), training=TRAINING)
    assert msgspec.structs.replace(many, table=one.table) == one
    assert one.latency_p99_ms == pytest.approx(593, abs=3)


def test_predictions_are_read_in_memory_that_does_not_grow_with_them(tmp_path: Path) -> None:
    row = {f"feature {i}": float(i) for i in range(20)} | {"spend": 1.0}
    peaks = []
    for number, size in enumerate((2_000, 8_000)):
        tables = Tables(tmp_path / str(number))
        version = tables.write("predictions", logged([row] * size, days=1), mode="append", key="k")
        known = reference(lambda: [[TRAINING]])
        tracemalloc.start()
        observe(
            tables=tables, table=version, endpoint="retail", bundle=BUNDLE, outcomes=None, within=0.0, reference=known
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def bought(items: list[Any]) -> pa.Table:
    moment = clock.parse("2017-12-04T13:00:00.000000Z")
    times = pa.array([moment] * (len(items) - 1) + [moment + timedelta(days=9)], pa.timestamp("us", tz="UTC"))
    return pa.table({"entity": [f"entity {i}" for i in range(len(items))], "item": items, "time": times})


def test_items_are_matched_as_the_model_names_them(tmp_path: Path) -> None:
    seen = look(tmp_path, logged([{}] * 4, days=1), outcomes=bought([1, 2, 3, 1]))
    assert (seen.predictions, seen.matched.value, seen.notes) == (4, 0.5, ())


def test_outcomes_that_cannot_match_are_said_to(tmp_path: Path) -> None:
    without = look(tmp_path / "a", logged([{}] * 4, {"score": [0.5]}), outcomes=bought([1, 2, 3, 1]))
    assert without.notes == ("no prediction has an output 'product_id': nothing could match",)
    with pytest.raises(InputError, match="does not name items as the outcomes do"):
        look(tmp_path / "b", logged([{}] * 4), outcomes=bought(["1", "2", "3", "1"]))
