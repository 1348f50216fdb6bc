"""A table through the released model of the starter: as its endpoint answers, governed, traced, whole or not at all."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from bedplate import bundle, settings, store
from bedplate.api.server import ControlPlane
from bedplate.app import access, endpoints, owned, scoring
from bedplate.app.operations import Bedplate
from bedplate.app.read_models import ScoreReport
from bedplate.app.site import Site
from bedplate.app.system import System
from bedplate.data.scoring import Scorer
from bedplate.errors import DeniedError, InputError, NotFoundError
from bedplate.identity import Principal
from bedplate.records import Event, ModelSignature, TensorSpec
from bedplate.serve import predictors
from bedplate.serve.predictors import NO_FEATURES, Answer
from bedplate.settings import Home
from tests import retail
from tests.governed import govern
from tests.serve.support import eventually

pytestmark = pytest.mark.slow

TABLE = "starter.invoices"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("starter")


@pytest.fixture(scope="module")
def ran(folder: Path) -> CompletedProcess[str]:
    """What `bedplate init` writes, run as it is by its command."""
    Bedplate(settings.load({"BEDPLATE_HOME": str(folder / "none")})).init(folder / "starter", "starter")
    return retail.command(folder / "home", "run", str(folder / "starter"), "--json")


@pytest.fixture(scope="module")
def bedplate(folder: Path, ran: CompletedProcess[str]) -> Bedplate:
    """A home in which the starter ran."""
    assert ran.returncode == 0, ran.stderr
    return Bedplate(settings.load({"BEDPLATE_HOME": str(folder / "home"), "BEDPLATE_PORT": "0"}))


@pytest.fixture(scope="module")
def scored(bedplate: Bedplate) -> tuple[ScoreReport, list[Event]]:
    events: list[Event] = []
    return bedplate.score("starter", TABLE, to="all", keep=["invoice_id"], on_event=events.append), events


def rows(bedplate: Bedplate, report: ScoreReport) -> pa.Table:
    with System(bedplate.settings) as system:
        return system.tables.scan(report.table).read_all()


def entries(home: Path, action: str) -> list[dict[str, Any]]:
    opened = store.open(Home(home).database)
    with opened.read() as tx:
        read = [msgspec.json.decode(row.entry) for row in tx.ledger.entries(0, tx.ledger.head()[0])]
    opened.close()
    return [entry for entry in read if entry["action"] == action]


def test_the_starter_runs_as_it_is(ran: CompletedProcess[str]) -> None:
    """Every stage, to a traced prediction."""
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert {stage["state"] for stage in summary["stages"]} == {"finished"}
    assert summary["prediction"]


def test_every_row_is_scored_as_the_release_answers(
    bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]]
) -> None:
    report, events = scored
    table = rows(bedplate, report)

    with System(bedplate.settings) as system:
        with system.store.read() as tx:
            spec = endpoints.here(system, endpoints.spec_of(tx.endpoints.get("starter")))
        manifest = bundle.verify(spec.bundle, public_key=spec.public_key, digest=spec.digest)
        source = system.tables.scan(report.source).read_all()
    given = {
        s.name: np.array(source[s.name].to_pylist(), object if s.datatype == "BYTES" else np.float32)[:, None]
        for s in manifest.signature.inputs
    }
    expected = predictors.load(spec.bundle, manifest).predict(given, NO_FEATURES).outputs["score"]
    assert table.num_rows == report.source.rows == 3000
    assert np.array_equal(table["score"].to_numpy(), expected.ravel())
    assert table["invoice_id"].to_pylist() == source["invoice_id"].to_pylist()
    assert table.column_names == ["invoice_id", "score", "bundle", "evidence", "source", "scoring"]
    marks = {name: table[name].unique().to_pylist() for name in ("bundle", "evidence", "source", "scoring")}
    assert marks == {
        "bundle": [spec.digest],
        "evidence": [spec.evidence],
        "source": [f"{TABLE}@{report.source.version}"],
        "scoring": [report.scoring],
    }
    assert [event.state for event in events][-1] == "finished"


def test_it_stands_in_the_ledger_and_leads_to_the_objective(
    bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]]
) -> None:
    report, _ = scored
    trace = bedplate.trace(report.scoring)

    assert trace.verified
    assert [node.kind for node in trace.nodes][:3] == ["scoring", "approval", "bundle"]
    assert trace.nodes[-1].kind == "objective"
    assert "3,000 rows in starter/scores/all@" in trace.nodes[0].summary
    asked, done = (entries(bedplate.home.root, action)[0] for action in ("table.score", "table.scored"))
    assert asked["purpose"] == "credit_control"
    assert done["resource"] == f"table/{report.table.name}@{report.table.version}"
    reads = [e for e in entries(bedplate.home.root, "table.read") if e["resource"] == asked["resource"]]
    assert reads, "the rows were read under policy"
    with pytest.raises(NotFoundError):
        bedplate.trace("sha256:" + "0" * 64)


def test_the_same_scoring_is_done_once(bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]]) -> None:
    again = bedplate.score("starter", TABLE, to="all", keep=["invoice_id"])
    other = bedplate.score("starter", TABLE, to="all")

    assert (again.table, again.scoring) == (scored[0].table, scored[0].scoring)
    assert other.table.version > again.table.version
    assert "invoice_id" not in rows(bedplate, other).column_names


def test_what_cannot_be_scored_leaves_nothing(bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]]) -> None:
    for wrong, error, match in (
        ({"table": "starter.none"}, NotFoundError, "starter.none"),
        ({"endpoint": "other"}, NotFoundError, "other"),
        ({"to": "../x"}, InputError, "name of a table"),
        ({"keep": ["height"]}, InputError, "no column 'height'"),
        ({"columns": ["invoice_id"]}, InputError, "takes"),
        ({"purpose": "advertising"}, DeniedError, "advertising"),
    ):
        given = {"endpoint": "starter", "table": TABLE, "to": "nothing", **wrong}
        with pytest.raises(error, match=match):
            bedplate.score(**given)  # type: ignore[arg-type]
    with System(bedplate.settings) as system:
        assert "starter/scores/all" in system.tables.names()
        assert "starter/scores/nothing" not in system.tables.names()


def test_a_scoring_that_breaks_leaves_the_table_as_it_was(
    bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After more rows than one file holds at once, so that something was written."""
    before = rows(bedplate, scored[0]).num_rows
    monkeypatch.setattr("bedplate.data.scoring.ROWS", 500)
    true = predictors.OnnxPredictor.predict
    asked = []

    def breaking(self: Any, inputs: Any, features: Any) -> Answer:
        asked.append(len(inputs))
        if len(asked) == 5:
            raise OSError("the disk went away")
        return true(self, inputs, features)

    with System(bedplate.settings) as system:
        current = system.tables.current("starter/scores/all")
        who = Principal(**_administrator(system))
        monkeypatch.setattr(predictors.OnnxPredictor, "predict", breaking)
        with pytest.raises(OSError, match="went away"):
            scoring.score(system, who, lambda event: None, endpoint="starter", table=TABLE, to="all", keep=["amount"])
        assert system.tables.current("starter/scores/all") == current
        monkeypatch.setattr(predictors.OnnxPredictor, "predict", true)
        done = scoring.score(
            system, who, lambda event: None, endpoint="starter", table=TABLE, to="all", keep=["amount"]
        )
    assert done.table.rows == before


def _administrator(system: System) -> dict[str, Any]:
    principal = system.identity.authenticate((system.home.keys / "admin.key").read_text("ascii").strip())
    return msgspec.structs.asdict(principal)


class Doubled:
    """A model of wide rows, lists, or one row at a time, as its signature says."""

    def __init__(self, signature: ModelSignature) -> None:
        self.signature = signature

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        return Answer(outputs={"y": next(iter(inputs.values())) * np.float32(2)})


def _signature(shape: tuple[int, ...], name: str = "x") -> ModelSignature:
    spec = TensorSpec(name=name, datatype="FP32", shape=shape)
    return ModelSignature(predictor="onnx", inputs=(spec,), outputs=(msgspec.structs.replace(spec, name="y"),))


@pytest.mark.parametrize(
    ("shape", "table", "columns", "expected"),
    [
        ((-1, 2), {"a": [1, 2], "b": [3, None]}, ("a", "b"), [[2.0, 6.0], [4.0, None]]),
        ((-1, 2), {"x": [[1.0, 2.0], [3.0, 4.0]]}, (), [[2.0, 4.0], [6.0, 8.0]]),
        ((-1,), {"x": [1, 2]}, (), [2.0, 4.0]),
        ((1,), {"x": [1, 2, 3]}, (), [2.0, 4.0, 6.0]),
        ((1, -1), {"x": [[1.0], [2.0, 3.0]]}, (), [[2.0], [4.0, 6.0]]),
    ],
)
def test_columns_become_what_the_signature_takes(
    shape: tuple[int, ...], table: dict[str, Any], columns: tuple[str, ...], expected: list[Any]
) -> None:
    given = pa.table(table)
    scorer = Scorer(Doubled(_signature(shape)), given.schema, columns)
    if None in expected[-1:] or (isinstance(expected[-1], list) and None in expected[-1]):
        with pytest.raises(Exception, match="no number"):  # what a model says to a missing value is its own matter
            list(scorer.score(given.to_batches(), NO_FEATURES))
        return

    made = pa.Table.from_batches(list(scorer.score(given.to_batches(), NO_FEATURES)))

    assert made["y"].to_pylist() == expected


@pytest.mark.parametrize(
    ("datatype", "values", "match"),
    [
        ("INT64", [1, None], "without a value"),
        ("INT64", [1.5], "no INT64"),
        ("UINT8", [300], "no UINT8"),
        ("BOOL", ["yes"], "no BOOL"),
        ("FP32", ["many"], "no FP32"),
        ("BYTES", [None, "a"], "without a value"),
    ],
)
def test_values_that_do_not_fit_are_refused(datatype: str, values: list[Any], match: str) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=(-1,))
    out = TensorSpec(name="y", datatype="FP32", shape=(-1,))
    table = pa.table({"x": values})
    scorer = Scorer(Doubled(ModelSignature(predictor="onnx", inputs=(spec,), outputs=(out,))), table.schema)

    with pytest.raises(InputError, match=match):
        list(scorer.score(table.to_batches(), NO_FEATURES))


def test_a_model_is_not_asked_about_values_that_are_hidden_from_who_asks(bedplate: Bedplate) -> None:
    """It would answer about others."""
    with System(bedplate.settings) as system:
        with system.store.read() as tx:
            before = access.governance(tx, "starter")
        added = system.identity.add_principal("user", "curious", ("engineers",), actor="test")
        who = system.identity.authenticate(system.identity.create_key(added.id, actor="test"))
        govern(system, "starter", msgspec.structs.replace(before, sensitive=("amount",)))
        try:
            with pytest.raises(DeniedError, match="unmask"):
                scoring.score(system, who, lambda event: None, endpoint="starter", table=TABLE, to="hidden")
        finally:
            govern(system, "starter", before)
        with pytest.raises(InputError, match="no table of starter"):
            scoring.score(system, who, lambda event: None, endpoint="starter", table="other.people", to="theirs")


class Served:
    """The owner of the home with its control plane, and somebody who may only ask endpoints."""

    def __init__(self, bedplate: Bedplate) -> None:
        self.home = owned.open_home(bedplate.settings)
        self.system = self.home.system
        self.server = ControlPlane(Site(self.system, self.home.carry_out))

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.server.address, headers={"authorization": f"Bearer {token}"}, timeout=30)

    def member(self, name: str, *groups: str) -> str:
        def do(operation: str, **arguments: Any) -> Any:
            return self.home.carry_out(operation, arguments, self.system.token, lambda event: None)

        do("add_user", name=name, groups=groups)
        key: str = do("create_key", name=name).key
        return key

    def close(self) -> None:
        self.server.stop()
        self.home.close()


@pytest.fixture
def served(bedplate: Bedplate, scored: tuple[ScoreReport, list[Event]]) -> Iterator[Served]:
    made = Served(bedplate)
    yield made
    made.close()


URL = "/api/v1/use-cases/starter/scorings"


def ended(client: httpx.Client, scoring_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        now: dict[str, Any] = client.get(f"{URL}/{scoring_id}").raise_for_status().json()
        return now if now["state"] not in ("waiting", "running") else {}

    found: dict[str, Any] = eventually(look)
    return found


def test_over_http_it_is_asked_for_and_looked_at(served: Served, scored: tuple[ScoreReport, list[Event]]) -> None:
    with served.client(served.system.token) as client:
        asked = client.post(URL, json={"table": TABLE, "to": "http", "keep": ["invoice_id"]})
        assert asked.status_code == 202, asked.text
        done = ended(client, asked.json()["id"])
        again = client.post(URL, json={"table": TABLE, "to": "all", "keep": ["invoice_id"]}).json()
        again = ended(client, again["id"])
        wrong = [
            client.post(URL, json=body).status_code
            for body in (
                {"table": "starter.none", "to": "x"},
                {"table": TABLE, "to": "../x"},
                {"table": TABLE, "to": "x", "purpose": "advertising"},
                {"table": TABLE, "to": "x", "rows": 3},
            )
        ]
        assert wrong == [404, 400, 403, 400]
        assert client.get(f"{URL}/score_none").status_code == 404
    assert (done["state"], done["done"], done["total"]) == ("finished", scored[0].table.rows, scored[0].source.rows)
    assert done["report"]["table"]["name"] == "starter/scores/http"
    assert done["report"]["scoring"] == done["scoring"]
    assert again["report"]["table"]["digest"] == scored[0].table.digest  # done once, whoever asks and how


def test_over_http_policy_is_that_of_the_command(served: Served) -> None:
    caller, other, viewer = (
        served.member(name, group) for name, group in (("c", "callers"), ("o", "callers"), ("v", "viewers"))
    )
    with served.client(caller) as client:
        assert client.post(URL, json={"table": TABLE, "to": "theirs"}).status_code == 403  # it may not read the table
    with served.client(viewer) as client:
        assert client.post(URL, json={"table": TABLE, "to": "theirs"}).status_code == 403
    with served.client(served.system.token) as client:
        mine = client.post(URL, json={"table": TABLE, "to": "mine"}).json()["id"]
        ended(client, mine)
    with served.client(other) as client:
        assert client.get(f"{URL}/{mine}").status_code == 404
        assert client.post(f"{URL}/{mine}/cancel").status_code == 404
    assert "starter/scores/theirs" not in served.system.tables.names()


def test_a_cancelled_one_ends_without_a_table(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate.data.scoring.ROWS", 100)
    true, going, go_on = predictors.OnnxPredictor.predict, threading.Event(), threading.Event()

    def held(self: Any, inputs: Any, features: Any) -> Answer:
        going.set()
        assert go_on.wait(30)
        return true(self, inputs, features)

    monkeypatch.setattr(predictors.OnnxPredictor, "predict", held)
    with served.client(served.system.token) as client:
        running = client.post(URL, json={"table": TABLE, "to": "never"}).json()["id"]
        assert going.wait(30)
        queued = [client.post(URL, json={"table": TABLE, "to": f"never{i}"}).json()["id"] for i in range(2)]
        assert client.post(f"{URL}/{queued[1]}/cancel").json()["state"] == "cancelled"  # it had not begun
        assert client.post(f"{URL}/{running}/cancel").status_code == 200
        client.post(f"{URL}/{queued[0]}/cancel")
        go_on.set()
        assert [ended(client, one)["state"] for one in (running, *queued)] == ["cancelled"] * 3
        assert client.post(f"{URL}/{running}/cancel").json()["state"] == "cancelled"
    for name in ("never", "never0", "never1"):
        with pytest.raises(NotFoundError):
            served.system.tables.current(f"starter/scores/{name}")
