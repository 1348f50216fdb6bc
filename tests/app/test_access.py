"""What the flow, and what people, get to see of the rows of a use case: decided by policy, masked, and recorded."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from bedplate import settings
from bedplate.app import access, tracing
from bedplate.app.system import System
from bedplate.errors import DeniedError, InputError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import digest_bytes
from bedplate.observe.ship import SCHEMA
from bedplate.policy.values import FLOW
from bedplate.records import Governance, TableVersion
from tests.governed import govern

NAME = "shop"
PURPOSE = "personalisation"
PEOPLE = pa.table({"household_id": [1, 2], "age": ["25-34", "65+"], "income": ["35-49K", None]})
PREDICTION = "pred_1"


def logged(evidence: str) -> dict[str, Any]:
    """One logged prediction, as shipping writes it."""
    return {
        "id": PREDICTION,
        "request_id": "r",
        "use_case": NAME,
        "endpoint": NAME,
        "principal": "p",
        "decision": "d",
        "bundle": digest_bytes(b"bundle"),
        "evidence": evidence,
        "entity": "1",
        "segment": "s",
        "time": datetime.fromisoformat("2026-01-02T03:04:05+00:00"),
        "inputs": '{"household_id":[1],"age":["25-34"]}',
        "features": '{"recency":3,"income":"35-49K"}',
        "outputs": '{"product_id":[7]}',
        "latency_ms": 1.5,
        "replayed": False,
        "exposure": '{"rollout":"roll_1","step":0,"mode":"split","share":0.1,"split":0.07,"assigned":"candidate"}',
        "ended": "",
        "trace": "null",
    }


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A home in which a use case was checked, took rows in and answered once."""
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})) as opened:
        govern(opened, NAME, Governance(purpose=PURPOSE, sensitive=("age", "income")))
        with opened.store.transaction() as tx:
            approval = tx.facts.put("approval", NAME, {"environment": "dev", "state": "approved", "reason": "r"})
        table = pa.Table.from_pylist([logged(approval.digest)], schema=SCHEMA)
        opened.tables.write(access.predictions_table(NAME), table, mode="append")
        yield opened


@pytest.fixture
def people(system: System) -> TableVersion:
    """A table with sensitive columns."""
    return system.tables.write(access.table_name(NAME, "people"), PEOPLE, mode="overwrite")


def somebody(system: System, *groups: str) -> Principal:
    """Somebody who signed in, of these groups."""
    principal = system.identity.add_principal("user", "-".join(("ana", *groups)), groups, actor="test")
    return system.identity.authenticate(system.identity.create_key(principal.id, actor="test"))


def rows_for(system: System, principal: Principal, version: TableVersion, purpose: str | None = None) -> pa.Table:
    """What somebody gets to see of a table."""
    with system.store.read() as tx:
        governed = access.governance(tx, NAME)
    reader = access.reader_for(system, NAME, governed, policy_principal(principal), purpose)
    return reader.read(version).read_all()


def reads(system: System) -> list[tuple[str, str, str, dict[str, str]]]:
    """Who read, whether it was allowed, for what, and which masks were on; oldest first."""
    found = []
    with system.store.read() as tx:
        for row in tx.ledger.entries(0, tx.ledger.head()[0]):
            entry, payload = system.ledger.entry(tx, row.position)
            if entry.action == "table.read":
                assert payload is not None
                found.append((entry.actor, entry.decision, entry.purpose, payload["masks"]))
    return found


def test_the_flow_sees_values_as_they_are_for_its_purpose(system: System, people: TableVersion) -> None:
    """What it computes is what it was."""
    with system.store.read() as tx:
        governed = access.governance(tx, NAME)
    assert access.reader_for(system, NAME, governed, FLOW).read(people).read_all().equals(PEOPLE)
    with pytest.raises(DeniedError, match="only for a purpose"):
        access.reader_for(system, NAME, governed, FLOW, "marketing").read(people)
    assert reads(system) == [("flow", "allow", PURPOSE, {}), ("flow", "deny", "marketing", {})]


def test_people_see_sensitive_columns_only_if_they_may_unmask(system: System, people: TableVersion) -> None:
    """By the columns of the version that is read, whatever the newest one has."""
    engineer = somebody(system, "engineers")
    administrator = system.identity.authenticate(system.token)
    system.tables.write(people.name, PEOPLE.select(["household_id"]), mode="overwrite")

    assert rows_for(system, engineer, people).to_pydict() == {
        "household_id": [1, 2],
        "age": [None, None],
        "income": [None, None],
    }
    assert rows_for(system, engineer, system.tables.current(people.name)).num_columns == 1
    assert rows_for(system, administrator, people).equals(PEOPLE)
    masks = {"age": "null", "income": "null"}
    assert [(decision, on) for _, decision, _, on in reads(system)] == [("allow", masks), ("allow", {}), ("allow", {})]


def test_a_line_that_is_no_row_is_withheld_as_a_whole(system: System) -> None:
    """It was set aside as it stood: a sensitive value may be anywhere in it."""
    aside = pa.table({"household_id": ["x"], "_text": ["x,25-34,too,many"]})
    version = system.tables.write(access.table_name(NAME, "people") + ".quarantine", aside, mode="overwrite")
    shown = rows_for(system, somebody(system, "engineers"), version)
    assert shown.to_pydict() == {"household_id": ["x"], "_text": [None]}


def test_a_prediction_is_traced_without_its_sensitive_values(system: System) -> None:
    """They are null inside it, and the trace says so; who may unmask sees them."""
    found = tracing.trace(system, somebody(system, "engineers"), PREDICTION).nodes[0]
    assert "withheld: age, income" in found.summary
    assert found.details["inputs"] == {"household_id": [1], "age": None}
    assert found.details["features"] == {"recency": 3, "income": None}

    whole = tracing.trace(system, system.identity.authenticate(system.token), PREDICTION).nodes[0]
    assert whole.summary == (
        "for 1 in 1.5 ms, assigned to the candidate release by roll_1 when 10% of the requests were the candidate's"
    )
    assert whole.details["inputs"] == {"household_id": [1], "age": ["25-34"]}
    assert reads(system)[0][3] == dict.fromkeys(("inputs", "features", "outputs"), "redact")
    assert reads(system)[1][3] == {}


@pytest.mark.parametrize(("groups", "purpose"), [((), None), (("viewers",), None), (("engineers",), "marketing")])
def test_a_look_up_that_policy_denies_is_refused_and_recorded(
    system: System, groups: tuple[str, ...], purpose: str | None
) -> None:
    """Neither a stranger, nor who may see everything but rows, nor anybody for another purpose."""
    who = somebody(system, *groups)
    with pytest.raises(DeniedError):
        tracing.trace(system, who, PREDICTION, purpose)
    assert reads(system) == [(who.id, "deny", purpose or PURPOSE, {})]


def test_a_prediction_that_is_not_there(system: System) -> None:
    """It is said so, where one may look; the search is a read like any other."""
    with pytest.raises(NotFoundError, match="pred_none"):
        tracing.trace(system, somebody(system, "engineers"), "pred_none")
    assert [decision for _, decision, _, _ in reads(system)] == ["allow"]


def test_a_use_case_that_was_never_checked_shows_nothing(system: System) -> None:
    """What its rows are for is not known."""
    with system.store.read() as tx, pytest.raises(InputError, match="run the use case"):
        access.governance(tx, "another")
    assert msgspec.to_builtins(reads(system)) == []
