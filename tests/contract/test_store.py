"""What holds for the store, on SQLite and on PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from bedplate import ids
from bedplate import store as stores
from bedplate.errors import (
    BedplateError,
    ConflictError,
    HomeError,
    InputError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from bedplate.ids import Digest
from bedplate.records import Estimate
from bedplate.store import Store
from bedplate.store.schema import HEAD, metadata

ABSENT = ids.digest_bytes(b"absent")


def put(store: Store, kind: str, value: int, parents: tuple[Digest, ...] = ()) -> Digest:
    """Put a small fact in a transaction of its own."""
    with store.transaction() as tx:
        return tx.facts.put(kind, "shop", {"value": value}, parents).digest


# --------------------------------------------------------------------------------------------------------- the schema


@pytest.mark.usefixtures("real_migrations")
def test_the_migrations_make_the_schema(store: Store) -> None:
    """What the migrations build is what the code expects, column for column."""
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD


@pytest.mark.usefixtures("real_migrations")
def test_two_migrators_at_once(location: Path | str) -> None:
    """Of several that open an empty database together, each ends with the whole schema."""
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: stores.open(location), range(4)))

    for each in opened:
        with each.read() as tx:
            assert tx.use_cases.list() == []
        each.close()


@pytest.mark.usefixtures("real_migrations")
def test_a_migration_that_fails_changes_nothing(location: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is not bumped, no table is left behind, and the next start succeeds."""
    from alembic.operations import Operations

    create, calls = Operations.create_index, []

    def breaking(self: Operations, *args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 5:
            raise StorageError("power failed")
        return create(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Operations, "create_index", breaking)
        with pytest.raises(StorageError, match="power failed"):
            stores.open(location)
    opened = stores.open(location)

    with opened.read() as tx:
        assert tx.use_cases.list() == []
    opened.close()


@pytest.mark.parametrize("version", ["f2_0001", "f1_9999", "0001"])
def test_a_database_of_another_format_is_refused(location: Path | str, version: str) -> None:
    """It is neither read nor changed, and the error says what to do."""
    opened = stores.open(location)
    with opened.transaction() as tx:
        tx._connection.execute(sa.text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    opened.close()

    with pytest.raises(HomeError, match=version) as raised:
        stores.open(location)

    assert raised.value.fix


# ------------------------------------------------------------------------------------------------------- transactions


def test_an_error_undoes_everything(store: Store) -> None:
    """A block that raises leaves no trace, and its after-commit actions do not run."""
    ran: list[str] = []

    def fail() -> None:
        with store.transaction() as tx:
            tx.facts.put("kind", "shop", {})
            tx.after_commit(lambda: ran.append("ran"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.read() as tx:
        assert tx.facts.list("shop", "kind") == []
    assert ran == []


def test_actions_after_the_commit_see_it(store: Store) -> None:
    """They run once the change is durable."""
    seen: list[bool] = []

    def look() -> None:
        with store.read() as inner:
            seen.append(inner.facts.find(digest) is not None)

    with store.transaction() as tx:
        digest = tx.facts.put("kind", "shop", {}).digest
        tx.after_commit(look)

    assert seen == [True]


def test_reading_never_writes(store: Store) -> None:
    """A write in a read transaction is refused by the database."""
    with pytest.raises(BedplateError), store.read() as tx:
        tx.facts.put("kind", "shop", {})

    assert put(store, "kind", 1)


def test_writers_queue(store: Store) -> None:
    """Concurrent read-modify-write blocks lose no update."""

    def allot(number: int) -> int:
        with store.transaction() as tx:
            tx.ledger.head(lock=True)
            return tx.versions.allot("shop", ids.digest_bytes(b"%d" % number))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(allot, range(40))) == list(range(1, 41))


def test_a_reader_sees_one_moment(store: Store) -> None:
    """What is committed while a reader reads is not seen by it."""
    with store.read() as tx:
        assert tx.facts.list("shop", "kind") == []
        thread = threading.Thread(target=put, args=(store, "kind", 1))
        thread.start()
        thread.join()

        assert tx.facts.list("shop", "kind") == []
    with store.read() as tx:
        assert len(tx.facts.list("shop", "kind")) == 1


# -------------------------------------------------------------------------------------------------------------- facts


def test_a_fact_is_named_by_what_it_says(store: Store) -> None:
    """Structs and plain values with the same content are one fact; other parents make another."""
    struct = Estimate(value=1.0, low=0.5, high=1.5)
    with store.transaction() as tx:
        first = tx.facts.put("kind", "shop", struct)
        again = tx.facts.put("kind", "shop", msgspec.to_builtins(struct))
        other = tx.facts.put("kind", "shop", struct, [first.digest])
        elsewhere = tx.facts.put("kind", "clinic", struct)

    assert first == again
    assert len({first.digest, other.digest, elsewhere.digest}) == 3
    assert first.digest == ids.digest_of(
        {"kind": "kind", "use_case": "shop", "parents": [], "body": msgspec.to_builtins(struct)}
    )


def test_a_fact_rests_on_facts_that_are_there(store: Store) -> None:
    """A fact whose parent is unknown is refused, and nothing of it stays."""
    with pytest.raises(InputError, match=ABSENT), store.transaction() as tx:
        tx.facts.put("kind", "shop", {}, [ABSENT])

    with store.read() as tx:
        assert tx.facts.list("shop", "kind") == []


def test_ancestors_are_the_whole_line(store: Store) -> None:
    """Every fact on any path is named once, also where paths meet; the order of parents is kept."""
    a = put(store, "a", 1)
    b, c = put(store, "b", 2, (a,)), put(store, "c", 3, (a,))
    d = put(store, "d", 4, (c, b))
    unrelated = put(store, "e", 5)

    with store.read() as tx:
        above = {fact.digest for fact in tx.facts.ancestors(d)}
        assert above == {a, b, c}
        assert tx.facts.get(d).parents == (c, b)
        assert [fact.digest for fact in tx.facts.children(a)] == [b, c]
        assert tx.facts.ancestors(unrelated) == []


def test_the_latest_fact_is_the_one_put_last(store: Store) -> None:
    """Also when it had been put before: the file was changed back."""
    first, second = put(store, "plan", 1), put(store, "plan", 2)
    with store.read() as tx:
        assert _latest(tx.facts.latest("shop", "plan")) == second

    put(store, "plan", 1)

    with store.read() as tx:
        assert _latest(tx.facts.latest("shop", "plan")) == first
        assert [fact.digest for fact in tx.facts.list("shop", "plan")] == [first, second]
        assert tx.facts.latest("shop", "other") is None
        with pytest.raises(NotFoundError):
            tx.facts.get(ABSENT)


def _latest(fact: object) -> str:
    return str(getattr(fact, "digest", None))


# ------------------------------------------------------------------------------------------------------------- stages


def test_a_stage_is_finished_for_its_inputs(store: Store) -> None:
    """It is finished for these inputs and no others; finishing again replaces what it made."""
    one, two = put(store, "out", 1), put(store, "out", 2)
    before, after = ids.digest_bytes(b"before"), ids.digest_bytes(b"after")
    with store.transaction() as tx:
        tx.stages.finish("shop", "train", before, {"data": "x"}, one, 1.5)
        tx.stages.finish("shop", "train", after, {"data": "y"}, two, 2.5)

    with store.transaction() as tx:
        assert tx.stages.finished("shop", "train", before) == one
        assert tx.stages.finished("shop", "train", ABSENT) is None
        assert tx.stages.finished("clinic", "train", before) is None
        latest = tx.stages.latest("shop", "train")
        assert latest is not None
        assert (latest.output, latest.inputs, latest.seconds) == (two, {"data": "y"}, 2.5)
        tx.stages.reuse("shop", "train", before)
        assert {name: row.output for name, row in tx.stages.all_latest("shop").items()} == {"train": one}


# ----------------------------------------------------------------------------------------------------------- the rest


def test_use_cases(store: Store) -> None:
    """A use case keeps its first day and takes new values."""
    with store.transaction() as tx:
        for folder in ("/a", "/b"):
            tx.use_cases.put("shop", folder=folder, file="usecase.yaml", file_digest=ABSENT, objective=ABSENT)
        row = tx.use_cases.get("shop")

        assert row.folder == "/b"
        assert row.created <= row.updated
        assert [each.name for each in tx.use_cases.list()] == ["shop"]
        with pytest.raises(NotFoundError):
            tx.use_cases.get("clinic")


def test_executions(store: Store) -> None:
    """A run is under way until it ends; a run that goes on is under way again."""
    with store.transaction() as tx:
        run = tx.executions.start("shop", "ana")
        tx.executions.enter(run.id, "train", "epoch 1")
        assert [row.stage for row in tx.executions.running()] == ["train"]
        tx.executions.end(run.id, "failed", "no disk")
        ended = tx.executions.get(run.id)
        assert (ended.state, ended.message, ended.stage) == ("failed", "no disk", "train")
        assert ended.ended
        tx.executions.enter(run.id, "train")
        assert tx.executions.latest("shop") == tx.executions.get(run.id)
        assert tx.executions.get(run.id).state == "running"
        assert tx.executions.latest("clinic") is None
        with pytest.raises(NotFoundError):
            tx.executions.get("exe_x")


def test_versions(store: Store) -> None:
    """A number belongs to what it was allotted for, and to one bundle, for good."""
    sources = [ids.digest_bytes(b"%d" % i) for i in range(3)]
    with store.transaction() as tx:
        assert [tx.versions.allot("shop", source) for source in (*sources, sources[0])] == [1, 2, 3, 1]
        assert tx.versions.allot("clinic", sources[2]) == 1
        tx.versions.bind("shop", 1, ABSENT)
        tx.versions.bind("shop", 1, ABSENT)
        with pytest.raises(ConflictError):
            tx.versions.bind("shop", 1, sources[0])
        assert tx.versions.get("shop", 1).bundle == ABSENT
        assert [row.number for row in tx.versions.list("shop")] == [3, 2, 1]
        with pytest.raises(NotFoundError):
            tx.versions.get("shop", 9)


def test_approvals_and_waivers(store: Store) -> None:
    """What was said about a bundle stays in order; a waiver is in force until withdrawn."""
    with store.transaction() as tx:
        for by in ("ana", "bo"):
            tx.approvals.add("shop", ABSENT, "dev", state="approved", by=by, reason="good", policies=("p1",))
        assert [row.by for row in tx.approvals.list("shop", ABSENT, "dev")] == ["ana", "bo"]
        assert tx.approvals.list("shop", ABSENT, "production") == []
        assert tx.approvals.of_use_case("shop")[0].policies == ("p1",)
        waiver = tx.waivers.add("shop", "fairness:age", environment="dev", by="ana", reason="few")
        assert tx.waivers.list("shop") == [waiver]
        tx.waivers.withdraw(waiver.id)
        assert tx.waivers.list("shop") == []
        with pytest.raises(NotFoundError):
            tx.waivers.withdraw(waiver.id)


def test_rollouts(store: Store) -> None:
    with store.transaction() as tx:
        assert tx.rollouts.latest("shop") is None
        made = {"use_case": "shop", "bundle": ABSENT, "plan": {}, "spec": {"a": 1}, "before": {}, "by": "ana"}
        first = tx.rollouts.add("shop", **made)  # type: ignore[arg-type]
        tx.rollouts.change(first, state="rolled_back", reason="failed", evidence=[{"step": 0}])
        second = tx.rollouts.add("shop", **made)  # type: ignore[arg-type]
        other = tx.rollouts.add("clinic", **made)  # type: ignore[arg-type]
        frozen = tx.rollouts.change(other, state="frozen", step=1, outcomes={"stable": 2})
    with store.read() as tx:
        assert tx.rollouts.active() == [frozen, second]
        assert tx.rollouts.latest("shop") == second
        newest, oldest = tx.rollouts.list("shop")
        assert (newest.state, oldest.state, oldest.reason) == ("running", "rolled_back", "failed")
        assert oldest.evidence == [{"step": 0}]
        assert (frozen.step, frozen.outcomes, frozen.spec) == (1, {"stable": 2}, {"a": 1})


def test_endpoints(store: Store) -> None:
    """The revision counts changes of what is served, not wishes for the same."""
    with store.transaction() as tx:
        first = tx.endpoints.put("shop", use_case="shop", bundle=ABSENT, spec={"replicas": 1})
        same = tx.endpoints.put("shop", use_case="shop", bundle=ABSENT, spec={"replicas": 1})
        other = tx.endpoints.put("shop", use_case="shop", bundle=ABSENT, spec={"replicas": 2})
        tx.endpoints.set_state("shop", "stopped")
        assert (first.revision, same.revision, other.revision) == (1, 1, 2)
        assert [(row.state, row.spec) for row in tx.endpoints.list()] == [("stopped", {"replicas": 2})]
        with pytest.raises(NotFoundError):
            tx.endpoints.get("clinic")
        with pytest.raises(NotFoundError):
            tx.endpoints.set_state("clinic", "stopped")


def test_a_lease_has_one_holder(store: Store) -> None:
    """Of many that try exactly one gets it; an expired one is taken over, and its holder finds out."""

    def take(number: int) -> bool:
        with store.transaction() as tx:
            return tx.leases.take("owner", f"p{number}", "owner", 60) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
    with store.transaction() as tx:
        held = tx.leases.get("owner")
        assert held is not None
        assert tx.leases.renew("owner", held, -1)
    with store.transaction() as tx:
        taken = tx.leases.take("owner", "new", "owner", 60)
        assert taken is not None
        assert taken.token == held.token + 1
        assert not tx.leases.renew("owner", held, 60)
        tx.leases.release("owner", taken)
        assert tx.leases.take("owner", "third", "owner", 60) is not None


def test_a_server_that_is_not_there() -> None:
    """The error says what does not answer, without the password, and what to do."""
    with pytest.raises(UnavailableError) as raised:
        stores.open("postgresql://user:secret@127.0.0.1:1/none", wait=2)

    assert "secret" not in str(raised.value)
    assert raised.value.fix
