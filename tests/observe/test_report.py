"""The whole line on real parts: answers journalled, shipped once, joined to purchases, compared with training."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from bedplate import clock, ids
from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError, UnavailableError
from bedplate.ids import Digest, digest_bytes
from bedplate.journal import Writer
from bedplate.observe import ReplayPlan, ReplayRequest, ReplayWindow, answered, find, observe, reference, replay, ship
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
        self.writer.append(msgspec.json.encode(prediction))
        return {}


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
    assert [window["predictions"] for window in seen_now.windows] == [40, 40]
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
    assert len(answered(journal, tables, "predictions")) == 30
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


def test_a_prediction_is_found_as_it_was_logged(tmp_path: Path) -> None:
    tables, journal = Tables(tmp_path / "tables"), tmp_path / "journal"
    endpoint = Endpoint(journal)
    replay(plan(3), endpoint, nothing, set())
    endpoint.writer.close()
    version = ship(journal, tables, "predictions").table
    assert version is not None
    name = next(iter(tables.scan(version, ["id"]))).column(0)[0].as_py()
    found = find(tables, "predictions", name)
    assert found.id == name
    assert found.outputs == {"product_id": [1, 2]}
    with pytest.raises(NotFoundError, match="no prediction"):
        find(tables, "predictions", "pred_nothing")
