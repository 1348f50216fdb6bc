"""A person is taken out of a use case: from every place, with a proof that names nobody."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from bedplate import settings
from bedplate.app import access, auditing, erase
from bedplate.app.system import System
from bedplate.cli import root
from bedplate.data.ingest import ingest
from bedplate.errors import DeniedError, InputError, NotFoundError, StateError
from bedplate.identity import Principal
from bedplate.ids import digest_bytes
from bedplate.observe.ship import SCHEMA
from bedplate.records import Bundle, FeatureSet, Governance, ViewRecord
from bedplate.serve.state import key_of, pack_rows
from bedplate.store.subjects import word
from bedplate.usecase.starter import starter
from bedplate.usecase.types import DataSet, Source
from tests.app.test_access import logged
from tests.governed import govern
from tests.ui.tracked import Tracked

SUBJECT, OTHER = "7190283364517", "7190283364518"
NAME = "shop"
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
schema:
  - name: people
    properties:
      - {name: customer, logicalType: integer, required: true}
      - {name: age, logicalType: integer, logicalTypeOptions: {maximum: 120}}
"""
LINES = f"customer,age\n{SUBJECT},40\n{OTHER},41\n{SUBJECT},400\n{SUBJECT},too,many\n{OTHER},401\n"


def _prediction(name: str, entity: str, inputs: dict[str, Any], evidence: str) -> dict[str, Any]:
    told = {"id": name, "use_case": NAME, "entity": entity, "inputs": json.dumps(inputs), "features": "{}"}
    return {**logged(evidence), **told}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The starter under another name, with a person in its data."""
    folder = tmp_path / "shop"
    starter(folder, NAME)
    file = folder / "usecase.yaml"
    source = "    source: { kind: csv, path: data/invoices.csv }\n"
    assert source in file.read_text()
    people = "  people:\n    contract: contracts/people.odcs.yaml\n    source: { kind: csv, path: data/people.csv }\n"
    file.write_text(file.read_text().replace(source, f"{source}{people}    subject: customer\n"))
    (folder / "contracts" / "people.odcs.yaml").write_text(CONTRACT)
    (folder / "data" / "people.csv").write_text(LINES)
    return folder


@pytest.fixture
def system(tmp_path: Path, folder: Path) -> Iterator[System]:
    """A home in which the person is everywhere."""
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})) as opened:
        govern(opened, NAME, Governance(purpose="care", sensitive=()))
        spec = DataSet(contract="contracts/people.odcs.yaml", source=Source(kind="csv", path="data/people.csv"))
        for key in ("one", "two"):
            came_in = ingest(opened.tables, use_case=NAME, dataset="people", spec=spec, folder=folder, key=key)
        features = pa.table({"customer": [int(SUBJECT), int(OTHER)], "recency": pa.array([1.0, 2.0], pa.float32())})
        views = {"recent": opened.tables.write(access.table_name(NAME, "features", "recent"), features, mode="append")}
        opened.online_of(NAME).put_many(
            "recent", [(key_of(int(each)), b"value" + each.encode()) for each in (SUBJECT, OTHER)]
        )
        opened.online_of(NAME).put_many(
            "visits", [(key_of(1), _visits(SUBJECT, OTHER)), (key_of(2), _visits(SUBJECT)), (key_of(3), _visits(OTHER))]
        )
        with opened.store.transaction() as tx:
            row = tx.use_cases.get(NAME)
            tx.use_cases.put(
                NAME, folder=str(folder), file="usecase.yaml", file_digest=row.file_digest, objective=row.objective
            )
            dataset = tx.facts.put("dataset", NAME, came_in)
            recent = ViewRecord(digest=digest_bytes(b""), entity=("customer",), rests_on=())
            visits = ViewRecord(digest=digest_bytes(b""), entity=("shop", "customer"), rests_on=())
            made = FeatureSet(
                views=views, columns={}, as_of=(), code_digest=digest_bytes(b""), inputs=(came_in.table,),
                declared={"recent": recent, "visits": visits},
            )  # fmt: skip
            tx.facts.put("features", NAME, made, (dataset.digest,))
            some = digest_bytes(b"bundle")
            for version, parents in ((1, (dataset.digest,)), (2, ())):
                bundle = Bundle(
                    name=NAME, version=version, digest=some, tenant="", files={}, size=1, signature_digest=some,
                    bom_digest=some,
                )  # fmt: skip
                tx.facts.put("bundle", NAME, bundle, parents)
        predictions = [
            _prediction("p1", SUBJECT, {"age": [40]}, some),
            _prediction("p2", "a batch", {"customer": [[int(OTHER)], [float(SUBJECT)]]}, some),
            _prediction("p3", OTHER, {"customer": [int(OTHER)], "age": [7]}, some),
        ]
        table = pa.Table.from_pylist(predictions, schema=SCHEMA)
        opened.tables.write(access.predictions_table(NAME), table, mode="append")
        opened.tables.write("other/people", features, mode="append")
        yield opened


def _visits(*customers: str) -> bytes:
    ids = np.array([int(customer) for customer in customers])
    return pack_rows(("n",), ids, (ids % 7).astype(np.float32).reshape(-1, 1), 5)


def _somebody(system: System, *groups: str) -> Principal:
    principal = system.identity.add_principal("user", "-".join(("ana", *groups)), groups, actor="test")
    return system.identity.authenticate(system.identity.create_key(principal.id, actor="test"))


def _erase(system: System, value: str = SUBJECT) -> Any:
    return erase.subject(system, system.identity.authenticate(system.token), NAME, value, "asked for on paper")


def _found(home: Path, *forms: bytes) -> list[Path]:
    """The files of a home that hold one of these, Parquet files read as rows."""
    found = []
    for path in (path for path in home.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            data = str(pq.ParquetFile(path).read().to_pydict()).encode()
        if any(form in data for form in forms) and path.name != "lock":
            found.append(path)
    return found


def test_nothing_of_a_person_is_left_in_the_home_and_everybody_else_is(system: System) -> None:
    home = system.home.root
    forms = (SUBJECT.encode(), int(SUBJECT).to_bytes(8, "little"))
    assert {path.suffix for path in _found(home / "tables", *forms)} == {".parquet"}
    assert _found(home / "online", *forms)

    report = _erase(system)
    assert report.tables == {
        "shop.people": 2,
        "shop.people.quarantine": 4,
        "shop/features/recent": 1,
        "shop/predictions": 2,
    }
    assert report.online == 2
    assert report.models == ("shop version 1",)
    assert report.sources == ("people",)
    left = _found(home, *forms)
    assert left == [path for path in left if system.tables.folder_of("other/people").url in str(path)]
    for version in (0, 1):
        rows = system.tables.scan(system.tables.version("shop.people", version)).read_all()
        assert rows.to_pydict() == {"customer": [int(OTHER)], "age": [41]}
    aside = system.tables.scan(system.tables.current("shop.people.quarantine")).read_all()
    assert aside["customer"].to_pylist() == [OTHER]
    kept = system.tables.scan(system.tables.current("shop/predictions")).read_all()
    assert kept["id"].to_pylist() == ["p3"]
    assert system.online_of(NAME).get("recent", key_of(int(SUBJECT))) is None
    assert system.online_of(NAME).get("recent", key_of(int(OTHER))) == b"value" + OTHER.encode()
    visits = dict(system.online_of(NAME).items("visits"))
    assert visits == {key_of(1): _visits(OTHER), key_of(3): _visits(OTHER)}  # shops keep what is of others
    again = _erase(system)
    assert (again.tables, again.online, again.models) == ({}, 0, ())


def test_endpoints_that_serve_what_was_trained_on_somebody_are_named(system: System) -> None:
    """Those of this use case and of others that took the release in, and none that stopped or serves another."""
    with system.store.transaction() as tx:
        for name, bundle in ((NAME, b"bundle"), ("elsewhere", b"bundle"), ("stopped", b"bundle"), ("other", b"other")):
            tx.endpoints.put(name, use_case=NAME, bundle=digest_bytes(bundle), spec={})
        tx.endpoints.set_state("stopped", "stopped")
    report = _erase(system)
    assert report.endpoints == ("elsewhere: shop version 1", "shop: shop version 1")
    with system.store.read() as tx:
        _entry, payload = system.ledger.entry(tx, report.entry)
    assert payload is not None
    assert payload["endpoints that serve them"] == list(report.endpoints)
    assert _erase(system).endpoints == ()


def test_the_proof_stands_in_the_ledger_and_names_nobody(system: System) -> None:
    report = _erase(system)
    with system.store.read() as tx:
        entry, payload = system.ledger.entry(tx, report.entry)
    assert payload is not None
    assert (entry.action, entry.resource, entry.decision) == ("subject.erase", f"use_case/{NAME}", "allow")
    assert payload["rows"] == report.tables
    assert payload["models to train anew"] == ["shop version 1"]
    assert SUBJECT not in msgspec.json.encode([entry, payload]).decode()


def _tracked(system: System) -> Tracked:
    """What logs runs in this home."""
    site = SimpleNamespace(appends=system.appends, artifacts=system.artifacts)
    plane: Any = SimpleNamespace(
        identity=system.identity, key=system.token, store=system.store, ledger=system.ledger, site=site
    )
    return Tracked(plane)


def test_what_people_wrote_about_somebody_goes_or_is_named_with_its_reason(system: System, tmp_path: Path) -> None:
    home = system.home.root
    logs = _tracked(system)
    run = logs.run(
        0,
        "r",
        params={"customer": SUBJECT, "seed": "7", "long": "x" * 900 + f" {SUBJECT}"},
        tags={"customer": SUBJECT, "note": f"for {SUBJECT}, twice", "near": f"{SUBJECT}5"},
    )
    logs.put(run, "list.txt", f"a, {SUBJECT}".encode())
    with system.store.transaction() as tx:
        logs.actor.record(tx, "note", "run/r", about=SUBJECT)
    bundle = system.home.bundles / digest_bytes(b"bundle").removeprefix("sha256:")
    bundle.mkdir(parents=True)
    (bundle / "users.bin").write_bytes(b"\0" * 9 + int(SUBJECT).to_bytes(8, "little"))
    (bundle / "items.json").write_text(f"[1{SUBJECT}]")
    report = _erase(system)
    assert report.logged == 5
    with system.store.read() as tx:
        row = tx.runs.find("default", run)
        assert row is not None
        assert {"customer", "note"}.isdisjoint(dict(tx.runs.tags([row.key])[row.key]))
        assert dict(tx.runs.tags([row.key])[row.key])["near"] == f"{SUBJECT}5"
        assert [key for key, _ in tx.runs.params([row.key])[row.key]] == ["seed"]
    assert {left.where for left in report.left} == {
        f"artifact default/0/{run}/artifacts/list.txt",
        "shop version 1, shop version 2: users.bin",
    }
    assert SUBJECT not in msgspec.json.encode(report).decode()
    assert auditing.verify(system.settings, None).problems == ()
    system.close()
    about = word(SUBJECT)
    assert [path.name for path in home.rglob("*.db*") if about.search(path.read_bytes())] == []


def test_a_short_value_is_looked_for_under_the_names_of_its_columns_alone(system: System) -> None:
    _tracked(system).run(0, "r", tags={"customer": "7", "seed": "7"})
    report = _erase(system, "7")
    assert (report.logged, [left.where for left in report.left]) == (1, ["free text of runs, artifacts and bundles"])


def test_what_is_on_hold_stays_until_the_hold_is_lifted(system: System) -> None:
    administrator = system.identity.authenticate(system.token)
    erase.hold(system, administrator, NAME, "court order 12", on=True)
    with pytest.raises(StateError, match="court order 12"):
        _erase(system)
    assert system.tables.scan(system.tables.current("shop.people")).read_all().num_rows == 2
    erase.hold(system, administrator, NAME, "settled", on=False)
    assert _erase(system).tables["shop.people"] == 2


@pytest.mark.parametrize("groups", [(), ("engineers",), ("viewers",), ("auditors",)])
def test_only_administrators_erase_and_hold(system: System, groups: tuple[str, ...]) -> None:
    who = _somebody(system, *groups)
    with pytest.raises(DeniedError):
        erase.subject(system, who, NAME, SUBJECT, "r")
    with pytest.raises(DeniedError):
        erase.hold(system, who, NAME, "r", on=True)


def test_who_cannot_be_erased_is_named(system: System, folder: Path) -> None:
    administrator = system.identity.authenticate(system.token)
    with pytest.raises(InputError, match="can be nobody"):
        _erase(system, "  ")
    with pytest.raises(InputError, match="reason"):
        erase.subject(system, administrator, NAME, SUBJECT, " ")
    with pytest.raises(InputError, match="names the person"):
        erase.subject(system, administrator, NAME, SUBJECT, f"letter of {SUBJECT}")
    with pytest.raises(NotFoundError):
        erase.subject(system, administrator, "nothing", SUBJECT, "r")
    file = folder / "usecase.yaml"
    file.write_text(file.read_text().replace("    subject: customer\n", ""))
    with pytest.raises(InputError, match="no data set of shop names the person"):
        _erase(system)


def test_somebody_who_is_not_there_costs_nobody_a_row(system: System) -> None:
    for nobody in ("40", "7", "cust", "-1", "99999999999999999999999"):
        report = _erase(system, nobody)
        assert (report.tables, report.online) == ({}, 0), nobody


def test_by_command(system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system.close()
    place = ["--home", str(tmp_path / "home"), "--reason", "asked"]
    assert root.execute(["erasure", "hold", NAME, *place]) == 0
    assert root.execute(["erasure", "subject", NAME, SUBJECT, *place]) == 1
    assert root.execute(["erasure", "lift", NAME, *place]) == 0
    capsys.readouterr()
    assert root.execute(["erasure", "subject", NAME, SUBJECT, *place]) == 0
    said = capsys.readouterr().out
    assert "shop.people: 2 rows" in said
    assert "to be trained anew: shop version 1" in said
    assert root.execute(["erasure", "subject", NAME, SUBJECT, *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"] == {}
