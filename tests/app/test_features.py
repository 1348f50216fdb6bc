"""Feature views of a home: listed, put online, read by whom they may be, and compared with what was served."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from bedplate import clock, journal, settings
from bedplate import features as steps
from bedplate.app import access, declarations, endpoints, erase, features, skew, tables, upkeep
from bedplate.app.stages import data
from bedplate.app.system import System
from bedplate.data.ingest import table_name
from bedplate.errors import DeniedError, InputError, NotFoundError, StateError
from bedplate.identity import Principal
from bedplate.ids import digest_bytes
from bedplate.journal import Writer
from bedplate.observe.ship import SCHEMA
from bedplate.records import FeatureRead, Governance
from bedplate.serve.online_views import READS
from bedplate.serve.state import key_of
from bedplate.usecase.starter import starter
from tests.app.test_access import logged
from tests.governed import govern

NAME = "shop"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PIPELINE = """
from bedplate import pipeline


@pipeline.feature_view(entity="customer", inputs=("visits",), time="seen_at")
def totals():
    return "select customer, max(age) as oldest from visits group by customer"


@pipeline.feature_view(entity=("shop", "customer"), inputs=("visits",), time="seen_at")
def pairs():
    return "select shop, customer, count(*) as times from visits group by all"
"""
RECENT = """-- # What somebody did lately.
-- entity: customer
-- inputs: [visits]
-- time: seen_at
-- ttl: 30 d
-- owner: growth
-- windows:
--   visits_2d: { of: count, over: 2 d }
--   spend_2d: { of: sum, column: amount, over: 2 d }
-- on_demand: { over_usual: asked / spend_2d }
-- request: [asked]
-- defaults: { spend_2d: 0 }
select customer, seen_at, amount from visits;
"""
"""Declared in SQL alone: all that holds of views holds of this one."""
VISITS = [
    (1, 7, 1, 10.0, 40),
    (1, 7, 3, 20.0, 41),
    (2, 8, 2, 5.0, 30),
    (7, 8, 50, 1.0, 25),
    (1, 77, 4, 1.0, 50),
    (77, 8, 60, 1.0, 22),
]
"""Shop, customer, hours before noon, amount, age."""


def rows(visits: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        {
            "shop": pa.array([v[0] for v in visits], pa.int64()),
            "customer": pa.array([v[1] for v in visits], pa.int64()),
            "seen_at": pa.array([NOON - timedelta(hours=v[2]) for v in visits], pa.timestamp("us", "UTC")),
            "amount": pa.array([v[3] for v in visits], pa.float64()),
            "age": pa.array([v[4] for v in visits], pa.int64()),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case") / "shop"
    starter(folder, NAME)
    file = folder / "usecase.yaml"
    source = "    source: { kind: csv, path: data/invoices.csv }\n"
    visits = (
        "  visits:\n    contract: contracts/invoices.odcs.yaml\n    source: { kind: csv, path: data/invoices.csv }\n"
    )
    text = file.read_text().replace(source, f"{source}{visits}    subject: customer\n")
    watched = 'upkeep: { skew: 1 d }\nalerts: [{ when: skew, notify: "#growth" }]\n'
    file.write_text(f"{text}\nfeatures: [recent, totals, pairs]\n{watched}")
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "features").mkdir()
    (folder / "features" / "recent.sql").write_text(RECENT)
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[System]:
    """A home whose features were computed as of noon, as the flow does."""
    home = tmp_path_factory.mktemp("home")
    with System(settings.load({"BEDPLATE_HOME": str(home / "home")})) as opened:
        govern(opened, NAME, Governance(purpose="care", sensitive=("age",)))
        version = opened.tables.write(table_name(NAME, "visits"), rows(VISITS), mode="overwrite")
        with opened.store.transaction() as tx:
            row = tx.use_cases.get(NAME)
            tx.use_cases.put(
                NAME, folder=str(folder), file="usecase.yaml", file_digest=row.file_digest, objective=row.objective
            )
        loaded = features.loaded_of(opened, NAME)
        made = steps.compute(
            opened.tables, access.reader(opened, loaded.use_case), {"visits": version},
            declarations.views_of(opened, loaded), [NOON], prefix=access.table_name(NAME, data.PART, ""), key="once",
        )  # fmt: skip
        with opened.store.transaction() as tx:
            tx.facts.put("features", NAME, made)
        yield opened


def admin(system: System) -> Principal:
    return system.identity.authenticate(system.token)


@pytest.fixture(scope="module")
def engineer(system: System) -> Principal:
    principal = system.identity.add_principal("user", "eng", ("engineers",), actor="test")
    return system.identity.authenticate(system.identity.create_key(principal.id, actor="test"))


@pytest.fixture(scope="module")
def online(system: System) -> System:
    features.materialise(system, admin(system), NAME, as_of=NOON.isoformat())
    return system


def values(system: System, view: str, *keys: int, who: Principal | None = None) -> list[Any]:
    found = features.get(system, who or admin(system), NAME, view, keys)
    return [(each.values, each.missing) for each in found.entities]


def test_views_are_listed_with_what_they_inherit(online: System) -> None:
    lines = {line.view: line for line in features.listed(online, admin(online))}
    assert {name: (line.entity, line.features, line.owner) for name, line in lines.items()} == {
        "recent": (("customer",), 3, "growth"),
        "totals": (("customer",), 1, ""),
        "pairs": (("shop", "customer"), 1, ""),
    }
    recent, totals = (features.show(online, admin(online), NAME, name) for name in ("recent", "totals"))
    assert (recent.features, recent.purposes) == (("visits_2d", "spend_2d", "over_usual"), ("care",))
    assert (recent.declared.rests_on, recent.sensitive) == (("customer", "seen_at", "amount"), ())
    assert totals.sensitive == ("age",)
    assert (recent.online >= 2, recent.as_of) == (True, NOON.isoformat())


def test_values_are_those_of_the_moment_or_defaults(online: System) -> None:
    recent = features.get(online, admin(online), NAME, "recent", [7, 8, 9])
    assert recent.features == ("visits_2d", "spend_2d")
    # Of a view that lives for 30 days everything is stale by now, for its moment is long ago.
    assert {each.missing for each in recent.entities} == {"stale", "unknown"}
    assert values(online, "totals", 7, 8, 9) == [((41.0,), ""), ((30.0,), ""), ((None,), "unknown")]


def test_late_rows_of_a_range_touch_their_entities_alone(online: System) -> None:
    """Fresh rows, so that what is online lives: only customers with a row in the range are computed anew."""
    now = datetime.now(UTC)
    hours = round((NOON - now).total_seconds() / 3600)
    fresh = [(1, 21, hours + 1, 3.0, 20), (1, 22, hours + 1, 4.0, 20)]
    online.tables.write(table_name(NAME, "visits"), rows(fresh), mode="append")
    features.materialise(online, admin(online), NAME, ["recent"])
    assert values(online, "recent", 21, 22) == [((1.0, 3.0), ""), ((1.0, 4.0), "")]
    late = [(1, 21, hours + 5, 100.0, 20), (1, 22, hours + 30, 1000.0, 20)]
    online.tables.write(table_name(NAME, "visits"), rows(late), mode="append")
    made = features.materialise(
        online, admin(online), NAME, ["recent"],
        since=(now - timedelta(hours=10)).isoformat(), until=(now - timedelta(hours=3)).isoformat(),
    )  # fmt: skip
    assert made.views == {"recent": 1}
    assert values(online, "recent", 21, 22) == [((2.0, 103.0), ""), ((1.0, 4.0), "")]
    features.materialise(online, admin(online), NAME, as_of=NOON.isoformat())  # as the other tests find it


def test_what_rests_on_hidden_columns_is_hidden_on_every_way(online: System, engineer: Principal) -> None:
    """The view of ages is null for whoever may not see ages, by key and as a table; the other one is not."""
    found = features.get(online, engineer, NAME, "totals", [7])
    assert (found.masked, found.entities[0].values) == (True, (None,))
    assert not features.get(online, engineer, NAME, "recent", [7]).masked
    seen = tables.read(online, engineer, "shop/features/totals", columns=["customer", "oldest"])
    assert {row[1] for row in seen.rows} == {None}
    open_ = tables.read(online, admin(online), "shop/features/totals", columns=["oldest"])
    assert (41.0,) in open_.rows


@pytest.mark.parametrize(("region", "says"), [("us", "says that it is in us"), ("", "does not say where it is")])
def test_nothing_is_put_online_or_read_by_key_where_it_may_not_lie(
    online: System, folder: Path, monkeypatch: pytest.MonkeyPatch, region: str, says: str
) -> None:
    file = folder / "usecase.yaml"
    text = file.read_text()
    file.write_text(text.replace("# residency: [eu]", "residency: [eu]"))
    govern(online, NAME, Governance(purpose="care", sensitive=("age",), residency=("eu",)))
    try:
        for declared in ("eu", region):
            monkeypatch.setattr(online, "settings", msgspec.structs.replace(online.settings, region=declared))
            if declared == "eu":
                assert features.materialise(online, admin(online), NAME, as_of=NOON.isoformat()).views
                assert values(online, "totals", 7) == [((41.0,), "")]
                continue
            with online.store.read() as tx:
                before = tx.ledger.head()[0]
            counts = [features.show(online, admin(online), NAME, name).online for name in ("recent", "totals", "pairs")]
            versions = [online.tables.current(name).version for name in online.tables.names()]
            with pytest.raises(DeniedError, match=says):
                features.materialise(online, admin(online), NAME)
            with pytest.raises(DeniedError, match=says):
                features.get(online, admin(online), NAME, "totals", [7])
            shown = [features.show(online, admin(online), NAME, name).online for name in ("recent", "totals", "pairs")]
            assert shown == counts
            assert [online.tables.current(name).version for name in online.tables.names()] == versions
            with online.store.read() as tx:
                entries = [msgspec.json.decode(row.entry) for row in tx.ledger.entries(before, tx.ledger.head()[0])]
            assert [(e["action"], e["decision"]) for e in entries] == [
                ("features.materialise", "deny"),
                ("features.read", "deny"),
            ]
    finally:
        file.write_text(text)
        govern(online, NAME, Governance(purpose="care", sensitive=("age",)))


def test_another_purpose_and_strangers_are_denied_and_recorded(online: System, engineer: Principal) -> None:
    assert features.get(online, engineer, NAME, "recent", [7]).entities
    with pytest.raises(DeniedError, match="purpose"):
        features.get(online, engineer, NAME, "recent", [7], purpose="marketing")
    nobody = online.identity.add_principal("user", "nobody", (), actor="test")
    stranger = online.identity.authenticate(online.identity.create_key(nobody.id, actor="test"))
    for ask in (
        lambda: features.get(online, stranger, NAME, "recent", [7]),
        lambda: features.show(online, stranger, NAME, "recent"),
        lambda: features.materialise(online, stranger, NAME),
        lambda: skew.measure(online, stranger, NAME),
    ):
        with pytest.raises(DeniedError):
            ask()
    assert features.listed(online, stranger) == ()
    with online.store.read() as tx:
        entries = [json.loads(row.entry) for row in tx.ledger.recent(100, resource="table/shop/features/recent")]
    assert {e["decision"] for e in entries if e["action"] == "features.read"} == {"allow", "deny"}


def test_reads_at_replicas_come_into_the_ledger_once_for_each_segment(system: System) -> None:
    folder = endpoints.journal_of(system, "clinic") / READS
    made = [("a", "recent", "allow", 2), ("a", "recent", "allow", 1), ("b", "recent", "deny", 3)]
    reads = [
        FeatureRead(
            time="2026-01-01T00:00:00.000000Z", principal=principal, view=view, purpose="care", decision=decision,
            keys=keys,
        )
        for principal, view, decision, keys in made
    ]  # fmt: skip
    with Writer(folder) as log:
        for together in (reads[:2], reads[2:]):
            log.append(msgspec.json.Encoder().encode_lines(together))
    (segment,) = journal.segments(folder)
    kept = segment.path.read_bytes()

    assert features.record_reads(system, "clinic") == 1
    segment.path.write_bytes(kept)  # as if it had been killed before it was removed
    assert features.record_reads(system, "clinic") == 1

    assert features.record_reads(system, "clinic") == 0
    with system.store.read() as tx:
        (row,) = tx.ledger.recent(10, resource=f"reads/{segment.id}")
        told = json.loads(tx.ledger.payload(row.position)[1])
    assert (told["count"], told["digest"]) == (2, segment.digest)
    assert [(one["principal"], one["decision"], one["requests"], one["keys"]) for one in told["reads"]] == [
        ("a", "allow", 2, 3),
        ("b", "deny", 1, 3),
    ]


@pytest.mark.parametrize(
    ("ask", "error", "found"),
    [
        (lambda s, a: features.get(s, a, NAME, "recent", []), InputError, "keys"),
        (lambda s, a: features.get(s, a, NAME, "recent", [1 << 63]), InputError, "keys"),
        (lambda s, a: features.get(s, a, NAME, "nothing", [1]), NotFoundError, "no feature view 'nothing'"),
        (lambda s, a: features.get(s, a, NAME, "pairs", [1]), NotFoundError, "view of pairs"),
        (lambda s, a: features.get(s, a, "other", "recent", [1]), NotFoundError, "other"),
        (lambda s, a: features.materialise(s, a, NAME, ["nothing"]), InputError, "no view 'nothing'"),
        (lambda s, a: features.materialise(s, a, NAME, as_of="noon"), InputError, "no time"),
        (lambda s, a: features.materialise(s, a, NAME, since="2026-01-02"), InputError, "computed whole"),
        (lambda s, a: features.materialise(s, a, NAME, ["recent"], since="2026-01-02", until="2026-01-01"), InputError,
         "before it begins"),
        (lambda s, a: skew.measure(s, a, NAME, sample=0), InputError, "0 predictions"),
        (lambda s, a: skew.measure(s, a, NAME, since="soon"), InputError, "no time"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(online: System, ask: Any, error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found):
        ask(online, admin(online))


def predictions(system: System, made: list[tuple[int, datetime, dict[str, Any]]]) -> None:
    """Have these be what was predicted: customer, time and the features that were served."""
    evidence = digest_bytes(b"some")
    told = [
        {**logged(evidence), "id": f"p{i}", "use_case": NAME, "entity": str(customer), "time": time, "replayed": False,
         "inputs": json.dumps({"customer": [customer], "asked": [8.0]}), "features": json.dumps(used)}
        for i, (customer, time, used) in enumerate(made)
    ]  # fmt: skip
    table = pa.Table.from_pylist(told, schema=SCHEMA)
    system.tables.write(access.predictions_table(NAME), table, mode="overwrite")


def test_served_values_that_differ_are_found_and_others_are_not(online: System) -> None:
    """At noon customer 7 had spent 30 in two visits; an hour and a half earlier 20 in one. One feature is planted."""
    right = [
        (7, NOON, {"visits_2d": 2.0, "spend_2d": 30.0, "over_usual": 8 / 30, "missing": {}}),
        (7, NOON - timedelta(minutes=90), {"visits_2d": 1.0, "spend_2d": 20.0, "over_usual": 0.4}),
        (99, NOON, {"visits_2d": -1.0, "spend_2d": 0.0, "over_usual": -1.0}),
        (8, NOON, {"oldest": 30.0}),
    ] * 10
    predictions(online, right)
    clean = skew.measure(online, admin(online), NAME)
    assert (clean.alarm, clean.samples) == (False, 40)
    assert {each.feature: each.share.value for each in clean.features} == {
        "visits_2d": 0, "spend_2d": 0, "over_usual": 0, "oldest": 0,
    }  # fmt: skip

    predictions(online, right + [(7, NOON, {"visits_2d": 2.0, "spend_2d": 25.0})] * 10)
    found = skew.measure(online, admin(online), NAME)
    spend = next(each for each in found.features if each.feature == "spend_2d")
    assert (found.alarm, [each.feature for each in found.features if each.alarm]) == (True, ["spend_2d"])
    assert (spend.share.value, spend.largest, spend.size.value) == (0.25, 5.0, 1.25)
    assert spend.share.low < 0.25 < spend.share.high
    assert features.show(online, admin(online), NAME, "recent").skew == found
    with online.store.read() as tx:
        newest = tx.ledger.recent(1, resource=f"use_case/{NAME}")[0]
        entry, payload = online.ledger.entry(tx, newest.position)
    assert payload is not None
    assert (entry.action, payload["over the limit"]) == ("features.skew", ["spend_2d"])
    with pytest.raises(NotFoundError, match="no logged prediction"):
        skew.measure(online, admin(online), NAME, since=(NOON + timedelta(days=1)).isoformat())


def test_skew_that_is_watched_is_an_alert_once_until_it_is_over(online: System) -> None:
    right, wrong = {"visits_2d": 2.0, "spend_2d": 30.0}, {"visits_2d": 2.0, "spend_2d": 25.0}
    fired = []
    for served, hours in ((right, 1), (wrong, 2), (wrong, 3), (right, 4), (right, 26), (wrong, 5)):
        predictions(online, [(7, NOON, served)] * 10)
        with online.store.read() as tx:
            row = tx.use_cases.get(NAME)
        with clock.frozen(NOON + timedelta(hours=hours)):
            done = upkeep.do(online, row, "skew")
        with online.store.read() as tx:
            entries = [e for e in tx.ledger.recent(100, resource=f"use_case/{NAME}") if b'"features.alert"' in e.entry]
            alert = tx.facts.latest(NAME, "alert")
        fired.append((done.ok, len(entries)))
    assert fired == [(True, 0), (False, 1), (False, 1), (True, 1), (True, 1), (False, 2)]
    assert alert is not None
    assert (alert.body["features"], alert.body["notify"]) == (["spend_2d"], ["#growth"])
    assert "spend_2d (100.0% of them)" in done.found
    assert "#growth" in done.found
    assert f"bedplate features materialize {NAME}" in done.found


def test_a_view_that_was_declared_anew_is_not_put_online(online: System, folder: Path) -> None:
    """The model was trained on another one."""
    file = folder / "features" / "recent.sql"
    text = file.read_text()
    file.write_text(text.replace("amount, over: 2 d", "amount, over: 3 d"))
    try:
        with pytest.raises(StateError, match="declared anew"):
            features.materialise(online, admin(online), NAME)
    finally:
        file.write_text(text)


def test_erasing_a_customer_leaves_the_shop_of_that_number(online: System) -> None:
    """Online values go by the column that names the person: shop 77 is nobody."""
    store = online.online_of(NAME)
    assert all(store.get(view, key_of(77)) is not None for view in ("recent", "totals", "pairs"))
    report = erase.subject(online, admin(online), NAME, "77", "asked for on paper")
    assert report.online == 3
    assert [store.get(view, key_of(77)) is None for view in ("recent", "totals", "pairs")] == [True, True, False]
    assert not any(key_of(77) in value for _, value in store.items("pairs"))  # no shop names the customer
