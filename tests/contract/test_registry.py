"""The registry, on SQLite and on PostgreSQL: its history cannot be rewritten, and answers what was live, for ever."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate import store as stores
from bedplate.errors import ConflictError, DeniedError, InputError, NotFoundError, StateError
from bedplate.release import line, past
from bedplate.release.changes import newest
from bedplate.release.registry import NewVersion, aliased
from bedplate.store import Store
from bedplate.store.models import VersionRow
from tests.contract.registry import ANA, BO, Home

S3 = "s3://models/a"
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def home(store: Store, tmp_path: Path) -> Iterator[Home]:
    """A registry on an empty store."""
    opened = Home(store, tmp_path)
    yield opened
    opened.close()


def at(minute: float) -> int:
    """A moment of the tests, in milliseconds."""
    return clock.milliseconds(START + timedelta(minutes=minute))


def when(minute: float) -> AbstractContextManager[None]:
    """Hold the clock at a moment of the tests."""
    return clock.frozen(START + timedelta(minutes=minute))


# -------------------------------------------------------------------------------------------------------- the history


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE version_history SET after = 'Production'",
        "UPDATE version_history SET time = 0 WHERE seq = 1",
        "DELETE FROM version_history",
        "DELETE FROM version_history WHERE seq = (SELECT max(seq) FROM version_history)",
        "INSERT INTO version_history SELECT 1, workspace, name, model, number, kind, value, before, after, 'eve', time,"
        " entry FROM version_history WHERE seq = 1",
        "INSERT INTO version_history SELECT seq + 7, workspace, name, model, number, kind, value, before, after, 'eve',"
        " time, entry FROM version_history WHERE seq = 1",
    ],
)
def test_the_database_refuses_to_change_the_history(home: Home, statement: str) -> None:
    """No row is changed, removed, put between others, or added where it does not follow."""
    home.model("fraud", versions=2)
    with home.store.read() as tx:
        before = list(tx.history.all())

    with pytest.raises(ConflictError, match="history of versions"), home.store.transaction() as tx:
        tx._connection.execute(sa.text(statement))

    with home.store.read() as tx:
        assert list(tx.history.all()) == before


@pytest.mark.parametrize("statement", ["INSERT OR REPLACE", "REPLACE", "TRUNCATE"])
def test_there_is_no_way_around_the_triggers(home: Home, statement: str) -> None:
    """What removes rows without asking a trigger about each of them is refused as well."""
    home.model("fraud", versions=1)
    if home.store.postgresql != (statement == "TRUNCATE"):
        pytest.skip("the other database's word")
    text = (
        "TRUNCATE version_history"
        if statement == "TRUNCATE"
        else f"{statement} INTO version_history SELECT seq, workspace, name, model, number, kind, value, before, 'x',"
        " by, time, entry FROM version_history WHERE seq = 1"
    )

    with pytest.raises(ConflictError, match="history of versions"), home.store.transaction() as tx:
        tx._connection.execute(sa.text(text))


def test_the_history_is_what_the_ledger_holds(home: Home) -> None:
    """It checks out; a row that was changed behind the triggers' back, or removed at the end, is found."""
    home.model("fraud", versions=2)
    home.alias("fraud", "blue", 2)
    with home.store.read() as tx:
        assert list(past.verify(tx)) == []
        last = tx.history.last()

    with home.without_triggers() as connection:
        connection.execute(sa.text("UPDATE version_history SET by = 'eve' WHERE seq = 2"))
        connection.execute(sa.text("DELETE FROM version_history WHERE seq = :last"), {"last": last})

    with home.store.read() as tx:
        found = list(past.verify(tx))
    assert [words for words in found if "row 2 " in words]
    assert [words for words in found if f"row {last} " in words and "gone" in words]


def test_every_change_is_one_entry_of_the_ledger(home: Home) -> None:
    """Who did it, to which model, and what happened, in the transaction of the change."""
    home.model("fraud", versions=1)
    home.alias("fraud", "blue", 1)

    with home.store.read() as tx:
        entries = [home.ledger.entry(tx, i) for i in range(tx.ledger.head()[0])]
        rows = list(tx.history.all())
    assert [entry.action for entry, _ in entries] == ["model.create", "model_version.create", "model.alias"]
    assert {(entry.actor, entry.resource) for entry, _ in entries} == {(ANA.id, "model/default/fraud")}
    assert [row.entry for row in rows] == [0, 1, 2]
    assert [row.kind for row in rows] == ["model-created", "created", "alias-set"]


def test_a_change_that_fails_leaves_nothing(home: Home) -> None:
    """Neither the row, nor its history, nor its entry."""
    home.model("fraud", versions=1)
    with home.store.read() as tx:
        before = (tx.ledger.head()[0], tx.history.last())

    def fail() -> None:
        with home.store.transaction() as tx:
            home.registry.create_version(tx, ANA, "default", "fraud", NewVersion(source=S3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with home.store.read() as tx:
        assert (tx.ledger.head()[0], tx.history.last()) == before
        assert len(tx.versions.list("fraud")) == 1


# ----------------------------------------------------------------------------------------------------- what was live


def test_which_version_was_in_a_stage_at_a_time(home: Home) -> None:
    """At each moment since, whatever happened later: the version moved away, was deleted, the model was renamed."""
    with when(0):
        home.model("fraud", versions=3)
    with when(1):
        home.move("fraud", 1, "Staging")
    with when(2):
        home.move("fraud", 2, "Staging", archive=True)
    with when(3):
        home.move("fraud", 3, "Staging")
    with when(4), home.store.transaction() as tx:
        home.registry.delete_version(tx, ANA, "default", "fraud", 2)
    with when(5), home.store.transaction() as tx:
        home.registry.rename_model(tx, ANA, "default", "fraud", "fraud-2")
    with when(6), home.store.transaction() as tx:
        home.registry.delete_model(tx, ANA, "default", "fraud-2")

    def live(name: str, minute: float) -> tuple[int | None, tuple[int, ...]]:
        with home.store.read() as tx:
            found = past.live(tx, "default", name, at(minute), "stage", "staging")
        return found.version, found.versions

    assert [live("fraud", minute) for minute in (0.5, 1, 1.5, 2, 3.5, 4.5)] == [
        (None, ()),
        (1, (1,)),
        (1, (1,)),
        (2, (2,)),
        (3, (2, 3)),
        (3, (3,)),
    ]
    assert live("fraud-2", 5.5) == (3, (3,))
    for name, minute in (("fraud", -1), ("fraud", 5.5), ("fraud", 7), ("fraud-2", 7), ("nobody", 3)):
        with pytest.raises(NotFoundError):
            live(name, minute)


def test_a_renamed_model_answers_for_the_time_before(home: Home) -> None:
    """Under the name it has now, and says what it was called then."""
    with when(0):
        home.model("old", versions=1)
        home.alias("old", "blue", 1)
    with when(1), home.store.transaction() as tx:
        home.registry.rename_model(tx, ANA, "default", "old", "new")

    with home.store.read() as tx:
        found = past.live(tx, "default", "new", at(0.5), "alias", "blue")
        again = past.live(tx, "default", "old", at(0.5), "alias", "blue")

    assert (found.version, found.name) == (1, "old")
    assert again == found


def test_which_version_an_alias_meant_at_a_time(home: Home) -> None:
    """Set, moved, removed, and gone with its version."""
    with when(0):
        home.model("fraud", versions=2)
    with when(1):
        home.alias("fraud", "blue", 1)
    with when(2):
        home.alias("fraud", "blue", 2)
    with when(3), home.store.transaction() as tx:
        home.registry.delete_version(tx, ANA, "default", "fraud", 2)
    with when(4):
        home.alias("fraud", "blue", 1)
    with when(5), home.store.transaction() as tx:
        home.moves.delete_alias(tx, ANA, "default", "fraud", "blue")

    with home.store.read() as tx:
        found = [
            past.live(tx, "default", "fraud", at(minute), "alias", "blue").version for minute in (0.5, 1, 2.5, 3, 4, 9)
        ]
    assert found == [None, 1, 2, None, 1, None]


def test_which_version_served_at_a_time(home: Home) -> None:
    """The flow's versions are versions of the model of the use case's name; serving one is part of its history."""
    bundles = [ids.digest_bytes(b"bundle %d" % i) for i in range(2)]
    for minute, bundle in enumerate(bundles):
        with when(minute), home.store.transaction() as tx:
            number = line.allot(home.ledger, tx, ANA, "shop", ids.digest_bytes(b"gates %d" % minute))
            assert line.allot(home.ledger, tx, ANA, "shop", ids.digest_bytes(b"gates %d" % minute)) == number
            line.bind(home.ledger, tx, ANA, "shop", number, bundle)
            line.bind(home.ledger, tx, ANA, "shop", number, bundle)
            line.serve(home.ledger, tx, ANA, "shop", bundle, "dev")
            line.serve(home.ledger, tx, ANA, "shop", bundle, "dev")

    with home.store.read() as tx:
        found = [past.live(tx, "default", "shop", at(m), "environment", "dev").version for m in (0, 0.5, 1, 2)]
        elsewhere = past.live(tx, "default", "shop", at(2), "environment", "production").version
        kinds = [row.kind for row in reversed(past.history(tx, "default", "shop"))]
    assert found == [1, 1, 2, 2]
    assert elsewhere is None
    assert kinds == ["model-created", *("created", "bundle", "served") * 2]


def test_time_never_goes_back_within_a_model(home: Home) -> None:
    """A clock that was set back does not put what happened later before what happened earlier."""
    with when(10):
        home.model("fraud", versions=1)
    with when(5):
        home.alias("fraud", "blue", 1)

    with home.store.read() as tx:
        assert past.live(tx, "default", "fraud", at(10), "alias", "blue").version == 1
        assert [row.time for row in tx.history.all()] == [at(10)] * 3


# ----------------------------------------------------------------------------------------------------- models, versions


def test_a_number_is_never_given_twice(home: Home) -> None:
    """Neither after the newest version was deleted, nor after the model was, nor to another model of that name."""
    home.model("fraud", versions=2)
    with home.store.transaction() as tx:
        home.registry.delete_version(tx, ANA, "default", "fraud", 2)
        assert home.registry.create_version(tx, ANA, "default", "fraud", NewVersion(source=S3)).number == 3
        home.registry.delete_model(tx, ANA, "default", "fraud")
        home.registry.create_model(tx, ANA, "default", "fraud", {}, None)
        assert home.registry.create_version(tx, ANA, "default", "fraud", NewVersion(source=S3)).number == 4
        home.registry.delete_version(tx, ANA, "default", "fraud", 4)
        home.registry.rename_model(tx, ANA, "default", "fraud", "renamed")
        assert home.registry.create_version(tx, ANA, "default", "renamed", NewVersion(source=S3)).number == 5
        home.registry.rename_model(tx, ANA, "default", "renamed", "fraud")
        home.registry.create_model(tx, ANA, "default", "other", {}, None)
        home.registry.create_version(tx, ANA, "default", "other", NewVersion(source=S3))
        home.registry.delete_model(tx, ANA, "default", "fraud")
        with pytest.raises(ConflictError, match="version 1 of it is on record"):
            home.registry.rename_model(tx, ANA, "default", "other", "fraud")


def test_a_model_renamed_and_back_stays_itself(home: Home) -> None:
    """Versions, tags and aliases go along, and so does its history."""
    home.model("a", versions=2)
    with home.store.transaction() as tx:
        home.registry.set_model_tag(tx, ANA, "default", "a", "team", "risk")
        home.registry.set_version_tag(tx, ANA, "default", "a", 1, "k", "v")
        home.moves.set_alias(tx, ANA, "default", "a", "blue", 2)
        identifier = tx.models.find("default", "a").id  # type: ignore[union-attr]
        home.registry.rename_model(tx, ANA, "default", "a", "b")
        assert tx.models.tags("default", ["b"]) == {"b": {"team": "risk"}}
        assert tx.models.aliases("default", ["b"]) == {"b": {"blue": 2}}
        assert tx.versions.tags("default", [("b", 1)]) == {("b", 1): {"k": "v"}}
        assert tx.models.find("default", "a") is None
        home.registry.rename_model(tx, ANA, "default", "b", "a")
        assert tx.models.find("default", "a").id == identifier  # type: ignore[union-attr]
        assert [row.number for row in tx.versions.list("a")] == [2, 1]


def test_models_belong_to_a_workspace(home: Home) -> None:
    """The same name in another one is another model, and one is not seen from the other."""
    home.model("fraud", versions=1)
    with home.store.transaction() as tx:
        with pytest.raises(NotFoundError):
            home.registry.create_model(tx, BO, "lab", "fraud", {}, "ours")
        tx.workspaces.add("lab")
        home.registry.create_model(tx, BO, "lab", "fraud", {}, "ours")
        assert home.registry.create_version(tx, BO, "lab", "fraud", NewVersion(source=S3)).number == 1
        home.registry.delete_version(tx, BO, "lab", "fraud", 1)
        assert tx.versions.get("fraud", 1).number == 1
        with pytest.raises(NotFoundError):
            aliased(tx, "elsewhere", "fraud", "latest")
        assert past.history(tx, "lab", "fraud")[0].model != past.history(tx, "default", "fraud")[0].model


def test_the_newest_version_in_each_stage(home: Home) -> None:
    """Of every stage that has one, or of the stages asked for."""
    home.model("fraud", versions=4)
    for number, stage in ((1, "Archived"), (2, "Staging"), (3, "Staging")):
        home.move("fraud", number, stage)
    with home.store.read() as tx:
        assert {(row.stage, row.number) for row in newest(tx, "default", "fraud")} == {
            ("Archived", 1),
            ("Staging", 3),
            ("None", 4),
        }
        assert [row.number for row in newest(tx, "default", "fraud", ["staging", "PRODUCTION"])] == [3]
        assert aliased(tx, "default", "fraud", "latest").number == 4
        with pytest.raises(InputError):
            newest(tx, "default", "fraud", ["Retired"])


def test_the_model_of_a_use_case_stays(home: Home) -> None:
    """It is not renamed or deleted, and its versions are evidence; what clients add beside them can go."""
    with home.store.transaction() as tx:
        line.allot(home.ledger, tx, ANA, "shop", ids.digest_bytes(b"gates"))
        home.registry.create_version(tx, ANA, "default", "shop", NewVersion(source=S3))
        for refused in (
            lambda: home.registry.rename_model(tx, ANA, "default", "shop", "other"),
            lambda: home.registry.delete_model(tx, ANA, "default", "shop"),
            lambda: home.registry.delete_version(tx, ANA, "default", "shop", 1),
        ):
            with pytest.raises(StateError):
                refused()
        home.registry.delete_version(tx, ANA, "default", "shop", 2)
        assert [row.number for row in tx.versions.list("shop")] == [1]


def test_tags_that_mean_something_are_the_servers(home: Home) -> None:
    """Nobody names approvers or calls a model safe by setting a tag."""
    home.model("fraud", versions=1)
    with home.store.transaction() as tx:
        for key in ("bedplate.approvers.production", "bedplate.safety"):
            for refused in (
                lambda key=key: home.registry.set_model_tag(tx, ANA, "default", "fraud", key, "x"),
                lambda key=key: home.registry.delete_model_tag(tx, ANA, "default", "fraud", key),
                lambda key=key: home.registry.set_version_tag(tx, ANA, "default", "fraud", 1, key, "x"),
                lambda key=key: home.registry.delete_version_tag(tx, ANA, "default", "fraud", 1, key),
                lambda key=key: home.registry.create_model(tx, ANA, "default", "m", {key: "x"}, None),
            ):
                with pytest.raises(DeniedError):
                    refused()
        copied = NewVersion(source=S3, tags={"bedplate.safety": "safe", "kept": "1"})
        number = home.registry.create_version(tx, ANA, "default", "fraud", copied).number
        assert tx.versions.tags("default", [("fraud", number)]) == {("fraud", number): {"kept": "1"}}


# ------------------------------------------------------------------------------------------------------- concurrency


def test_versions_registered_at_once_get_numbers_of_their_own(home: Home) -> None:
    """Eight at a time, without a gap."""
    home.model("fraud")

    def register(_: int) -> int:
        with home.store.transaction() as tx:
            return home.registry.create_version(tx, ANA, "default", "fraud", NewVersion(source=S3)).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(register, range(40))) == list(range(1, 41))


def test_of_many_who_compare_and_set_one_wins(home: Home) -> None:
    """Every move that went through began where the one before it had ended."""
    home.model("fraud", versions=8)
    home.alias("fraud", "blue", 1)
    barrier, lost = threading.Barrier(8), []

    def race(number: int) -> None:
        for _ in range(6):
            with home.store.read() as tx:
                before = tx.models.aliases("default", ["fraud"])["fraud"]["blue"]
            barrier.wait()
            try:
                with home.store.transaction() as tx:
                    home.moves.set_alias(tx, ANA, "default", "fraud", "blue", number, expected=before)
            except ConflictError:
                lost.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(1, 9)))

    with home.store.read() as tx:
        steps = [(row.before, row.after) for row in tx.history.all() if row.kind == "alias-set"]
        assert list(past.verify(tx)) == []
    assert all(before == after for (_, after), (before, _) in itertools.pairwise(steps))
    assert lost


def test_a_model_made_twice_at_once_is_made_once(home: Home) -> None:
    """The second one is told so."""

    def make(_: int) -> bool:
        try:
            with home.store.transaction() as tx:
                home.registry.create_model(tx, ANA, "default", "fraud", {}, None)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1


# --------------------------------------------------------------------------------------------------------- carried over


@pytest.mark.usefixtures("real_migrations")
def test_versions_of_the_first_schema_are_carried_over(location: Path | str, tmp_path: Path) -> None:
    """Each use case with versions gets its model; numbers, bundles and times stay, and the history begins there."""
    from bedplate.store import migrate
    from bedplate.store.database import _postgresql_engine, _sqlite_engine
    from bedplate.store.sql import WRITE

    engine = (
        _postgresql_engine(location, 5)[0]
        if isinstance(location, str)
        else _sqlite_engine(location, 5, read_only=False)
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "HEAD", "f1_0001")
        migrate.upgrade(engine.connect().execution_options(**{WRITE: True}), lambda *_: None, "test")
    rows = [
        ("shop", 1, "sha256:a", "sha256:b", 1),
        ("shop", 2, "sha256:c", None, 2),
        ("clinic", 1, "sha256:a", "sha256:d", 3),
    ]
    with engine.connect().execution_options(**{WRITE: True}) as connection, connection.begin():
        for use_case, number, source, bundle, minute in rows:
            connection.execute(
                sa.text("INSERT INTO versions VALUES (:u, :n, :s, :b, :c)"),
                {
                    "u": use_case,
                    "n": number,
                    "s": source,
                    "b": bundle,
                    "c": clock.text(START + timedelta(minutes=minute)),
                },
            )
    engine.dispose()

    opened = stores.open(location)
    home = Home(opened, tmp_path)
    with opened.read() as tx:
        shop = tx.versions.list("shop")
        assert [(v.number, v.fact, v.bundle, v.status, v.created) for v in shop] == [
            (2, "sha256:c", None, "PENDING_REGISTRATION", at(2)),
            (1, "sha256:a", "sha256:b", "READY", at(1)),
        ]
        assert [row.kind for row in past.history(tx, "default", "shop")] == [
            "created",
            "bundle",
            "created",
            "model-created",
        ]
        assert past.history(tx, "default", "clinic")[-1].time == at(3)
        assert list(past.verify(tx)) == []
    with opened.transaction() as tx:
        assert line.allot(home.ledger, tx, ANA, "shop", ids.digest_bytes(b"next")) == 3
    home.close()
    opened.close()


def test_a_row_is_kept_as_it_was_given(home: Home) -> None:
    """Every field of a version comes back."""
    home.model("fraud")
    given = VersionRow(
        workspace="default", name="fraud", number=0, status="READY", description="d", source="runs:/r/m", location="l",
        run="r", run_link="http://x", logged_model="m-1", creator="ana", findings="{}", content=ids.digest_bytes(b"c"),
        created=1, updated=2,
    )  # fmt: skip
    with home.store.transaction() as tx:
        kept = tx.versions.add(given)
        tx.versions.converted(kept, ids.digest_bytes(b"onnx"), ids.digest_bytes(b"fact"))
    with home.store.read() as tx:
        assert tx.versions.get("fraud", 1) == msgspec.structs.replace(
            given, number=1, onnx=ids.digest_bytes(b"onnx"), evidence=ids.digest_bytes(b"fact")
        )
        assert list(tx.versions.blobs()) == [ids.digest_bytes(b"onnx")]
