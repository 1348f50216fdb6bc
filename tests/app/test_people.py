"""Users, services and keys as the owner's operations: policy first, one entry a change, replicas told, nothing half."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bedplate import bundle, ids
from bedplate.app import endpoints, people, rights
from bedplate.errors import (
    AuthenticationError,
    BedplateError,
    ConflictError,
    DeniedError,
    InputError,
    NotFoundError,
    StateError,
    StorageError,
)
from bedplate.serve import snapshot
from bedplate.usecase.starter import starter
from tests import servers, team
from tests.serve.support import World, body, client, eventually
from tests.team import Team

FROZEN = '@id("frozen") @reason("it is frozen") forbid (principal, action == Action::"predict", resource);'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Team]:
    """A home with a member of each role."""
    with team.running(tmp_path / "home") as running:
        yield running


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Such a home, for tests after which it is as it was."""
    with team.running(tmp_path_factory.mktemp("calm") / "home") as running:
        yield running


def last_entry(home: Team) -> dict[str, Any]:
    """The newest entry of the ledger, with its payload."""
    with home.system.store.read() as tx:
        entry, payload = home.system.ledger.entry(tx, tx.ledger.head()[0] - 1)
    return {"actor": entry.actor, "action": entry.action, "policies": entry.policies, "payload": payload}


def test_a_user_comes_in_with_a_key_and_has_the_rights_of_its_groups(home: Team) -> None:
    added = home.do("add_user", name="ana", groups=["risk", "viewers", "risk"])
    key = home.do("create_key", name="ana", label="laptop", expires="90 d")
    with httpx.Client(base_url=home.address, headers={"authorization": f"Bearer {key.key}"}) as ana:
        assert ana.get("/api/v1/use-cases").status_code == 200
        home.do("set_groups", name="ana", groups=["risk"])
        assert ana.get("/api/v1/use-cases").status_code == 403
        assert ana.get("/api/v1/me").json()["groups"] == ["risk"]
        home.do("disable_user", name="ana")
        assert ana.get("/api/v1/me").status_code == 401

    assert (added.kind, added.groups, added.keys) == ("user", ("risk", "viewers"), 0)
    (kept,) = home.do("list_keys", name="ana")
    assert (kept.id, kept.label, kept.state, kept.expires) == (key.id, "laptop", "in force", key.expires)
    assert not hasattr(kept, "key")
    assert next(user for user in home.do("list_users") if user.name == "ana").disabled is not None


def test_a_group_that_nothing_names_is_told_of(home: Team, tmp_path: Path) -> None:
    folder = tmp_path / "starter"
    starter(folder, "starter")
    with home.system.store.transaction() as tx:
        tx.use_cases.put(
            "starter",
            folder=str(folder),
            file="usecase.yaml",
            file_digest=ids.digest_file(folder / "usecase.yaml"),
            objective=ids.digest_bytes(b""),
        )
    given = ["engineers", "enginers", "risk", "growth", "night"]
    added = home.do("add_user", name="ana", groups=given)
    assert added.unnamed == ("enginers", "growth", "night", "risk")

    home.do("create_workspace", name="growth", readers=["growth"])
    home.do("add_policies", text='@id("n") permit (principal in Group::"night", action == Action::"list", resource);')
    (folder / "usecase.yaml").write_text(
        (folder / "usecase.yaml").read_text().replace("any of [your.name, finance-lead]", "1 of [risk, finance-lead]")
    )
    assert home.do("set_groups", name="ana", groups=given).unnamed == ("enginers",)
    (folder / "usecase.yaml").write_text("name: [")
    assert home.do("set_groups", name="ana", groups=given).unnamed == ("enginers", "risk")


def test_every_change_is_one_entry_with_who_and_by_what(home: Team) -> None:
    changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("add_user", "principal.create", {"name": "ana", "service": True, "groups": ["callers"]}),
        ("set_groups", "principal.update", {"name": "ana", "groups": ["risk"]}),
        ("create_key", "key.create", {"name": "ana", "label": "ci"}),
        ("disable_user", "principal.disable", {"name": "ana"}),
    )
    for operation, action, arguments in changes:
        before = home.size()
        home.do(operation, role="administrator", **arguments)
        entry = last_entry(home)
        assert home.size() == before + 1
        assert (entry["action"], entry["actor"]) == (action, home.who("administrator").id)
        assert entry["policies"] == ("administrators",)
    assert "bp_" not in json.dumps([last_entry(home)["payload"]])


@pytest.mark.parametrize(
    "operation",
    ["add_user", "list_users", "set_groups", "disable_user", "create_key", "list_keys", "revoke_key"],
)
def test_only_who_administers_the_home_may(calm: Team, operation: str) -> None:
    arguments = {} if operation == "list_users" else {"name": "nobody.one"}
    arguments = {"key": "x"} if operation == "revoke_key" else arguments
    arguments |= {"groups": ["administrators"]} if operation == "set_groups" else {}
    before = calm.do("list_users"), calm.do("list_keys")

    for role in ("engineer", "viewer", "auditor", "caller", "nobody"):
        with pytest.raises(DeniedError):
            calm.do(operation, role=role, **arguments)
    with pytest.raises(AuthenticationError):
        calm.do(operation, role="disabled", **arguments)

    assert (calm.do("list_users"), calm.do("list_keys")) == before


@pytest.mark.parametrize(
    ("operation", "arguments", "error"),
    [
        ("add_user", {"name": ""}, InputError),
        ("add_user", {"name": " ana"}, InputError),
        ("add_user", {"name": "a\nb"}, InputError),
        ("add_user", {"name": "x" * 201}, InputError),
        ("add_user", {"name": "viewer.one"}, ConflictError),
        ("add_user", {"name": "ana", "groups": ["a", ""]}, InputError),
        ("add_user", {"name": "ana", "groups": [f"g{i}" for i in range(101)]}, InputError),
        ("set_groups", {"name": "nobody at all", "groups": []}, NotFoundError),
        ("set_groups", {"name": "administrator", "groups": ["viewers"]}, ConflictError),
        ("disable_user", {"name": "administrator"}, ConflictError),
        ("disable_user", {"name": "disabled.one"}, ConflictError),
        ("create_key", {"name": "disabled.one"}, ConflictError),
        ("create_key", {"name": "viewer.one", "expires": "90"}, InputError),
        ("create_key", {"name": "viewer.one", "expires": "soon"}, InputError),
        ("create_key", {"name": "viewer.one", "expires": "-1 d"}, InputError),
        ("create_key", {"name": "viewer.one", "expires": "0 s"}, InputError),
        ("create_key", {"name": "viewer.one", "expires": "1e300 d"}, InputError),
        ("create_key", {"name": "viewer.one", "label": "two\nlines"}, InputError),
        ("list_keys", {"name": "nobody at all"}, NotFoundError),
        ("revoke_key", {"key": "nothing"}, NotFoundError),
    ],
)
def test_bad_input_says_what_is_wrong_and_changes_nothing(
    calm: Team, operation: str, arguments: dict[str, Any], error: type[BedplateError]
) -> None:
    before = calm.do("list_users"), calm.do("list_keys"), calm.size()

    with pytest.raises(error) as raised:
        calm.do(operation, **arguments)

    assert raised.value.fix or raised.value.where
    assert (calm.do("list_users"), calm.do("list_keys"), calm.size()) == before


def test_the_administrators_own_key_is_replaced_when_it_is_revoked(home: Team) -> None:
    before = home.system.token
    home.do("revoke_key", role="administrator", key=before.split("_")[1])

    with pytest.raises(AuthenticationError):
        home.system.identity.authenticate(before)
    assert home.home.local_token() == home.system.token != before
    assert home.do("list_users")


def test_replicas_know_soon(home: Team, tmp_path: Path) -> None:
    world = World(tmp_path / "models")
    spec, made = world.spec(), home.system.home
    folder = shutil.copytree(spec.bundle, bundle.path_of(made.bundles, spec.digest))
    bundle.sign(folder, home.system.opened.signing_key, home.system.opened.signing_public)
    url = endpoints.start(home.system, spec)

    def asks(key: str) -> int:
        with client(url, key) as caller:
            return caller.post("/v2/models/linear/infer", json=body()).status_code

    def soon(key: str, status: int) -> None:
        eventually(lambda: asks(key) == status, what=f"not {status}")

    key = home.keys["caller"]
    assert asks(key) == 200
    home.do("set_groups", name="caller.one", groups=[])
    soon(key, 403)
    home.do("set_groups", name="caller.one", groups=["callers"])
    soon(key, 200)
    home.do("add_policies", text=FROZEN)
    soon(key, 403)
    home.do("remove_policy", policy_id="frozen")
    soon(key, 200)
    second = home.do("create_key", name="caller.one")
    soon(second.key, 200)
    home.do("revoke_key", key=second.id)
    soon(second.key, 401)
    home.do("disable_user", name="caller.one")
    soon(key, 401)


def published(home: Team) -> snapshot.Snapshot:
    """What replicas are told now."""
    key = snapshot.load_public_key(home.system.home.keys / "access.pub")
    return snapshot.read(endpoints.access_path(home.system), key)


def test_what_replicas_cannot_be_told_does_not_happen(home: Team) -> None:
    endpoints.publish_access(home.system)
    path = endpoints.access_path(home.system)
    path.unlink()
    path.mkdir()
    before = home.do("list_users"), home.size()

    for operation, arguments in (
        ("add_user", {"name": "ana"}),
        ("set_groups", {"name": "caller.one", "groups": ["administrators"]}),
        ("create_key", {"name": "caller.one"}),
        ("disable_user", {"name": "viewer.one"}),
        ("add_policies", {"text": FROZEN}),
    ):
        with pytest.raises(StorageError):
            home.do(operation, **arguments)

    assert (home.do("list_users"), home.size()) == before
    path.rmdir()
    home.do("disable_user", name="viewer.one")  # and it goes on without a restart


def test_what_is_not_committed_is_taken_back(home: Team) -> None:
    """The commit itself fails, after replicas were told: they are told again what is in force."""
    endpoints.publish_access(home.system)
    told, users = published(home), home.do("list_users")
    caller = next(user.id for user in users if user.name == "caller.one")

    def fail() -> None:
        with rights.changing(home.system) as tx:
            tx._connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            tx.keys.add("k", "nobody", b"", expires=None)  # refused when everything is looked at: at the commit
            tx.principals.set_groups(caller, ("administrators",))

    with pytest.raises(BedplateError):
        fail()

    assert home.do("list_users") == users
    assert published(home).keys == told.keys
    assert published(home).number > told.number


def test_numbers_of_snapshots_grow_though_clocks_are_set_back(home: Team) -> None:
    endpoints.publish_access(home.system)
    key = snapshot.make_key(home.system.home.keys / "access.key", home.system.home.keys / "access.pub")
    far = snapshot.new({}, after=published(home).number + 10**15)
    snapshot.write(endpoints.access_path(home.system), far, key)

    endpoints.publish_access(home.system)

    assert published(home).number == far.number + 1


def test_changes_at_once_leave_the_last_one_with_replicas(home: Team) -> None:
    endpoints.publish_access(home.system)
    groups = [[f"g{number}"] for number in range(24)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda group: home.do("set_groups", name="caller.one", groups=group), groups))

    user = next(user for user in home.do("list_users") if user.name == "caller.one")
    (known,) = {key.principal for key in published(home).keys.values() if key.principal.id == user.id}
    assert known.groups == user.groups


def test_all_of_it_holds_on_postgresql_too(tmp_path: Path, postgresql: servers.Postgresql) -> None:
    with team.running(tmp_path / "home", database=postgresql.store()) as home:
        endpoints.publish_access(home.system)
        test_changes_at_once_leave_the_last_one_with_replicas(home)
        home.do("add_policies", text=FROZEN)
        assert published(home).policies == home.system.policies.now.texts != ()
        with pytest.raises(StateError):
            home.do("add_policies", text='@id("x") forbid (principal, action, resource);')
        home.do("remove_policy", policy_id="frozen")
        home.do("update_workspace", name=team.SEALED, readers=["viewers"])
        assert [one.name for one in home.do("list_workspaces", role="viewer")] == ["default", team.SEALED]
        with pytest.raises(StateError):
            home.do("delete_workspace", name=team.SEALED)


def test_somebody_can_always_administer_the_home(home: Team) -> None:
    only = (
        '@id("only") forbid (principal, action == Action::"administer", resource) '
        'unless { principal in Group::"chiefs" };'
    )
    with pytest.raises(StateError, match="nobody could administer"):
        home.do("add_policies", text=only)
    home.do("add_user", name="zoe", groups=["administrators", "chiefs"])
    with pytest.raises(StateError):
        home.do("add_policies", text=only)  # she has no key yet
    home.do("create_key", name="zoe", expires="1 d")
    with pytest.raises(StateError):
        home.do("add_policies", text=only)  # and that one ends
    zoe = home.do("create_key", name="zoe")
    home.do("add_policies", text=only)
    home.keys["zoe"] = zoe.key

    with pytest.raises(DeniedError):
        home.do("list_users")
    for operation, arguments in (
        ("set_groups", {"name": "zoe", "groups": ["administrators"]}),
        ("disable_user", {"name": "zoe"}),
        ("revoke_key", {"key": zoe.id}),
    ):
        with pytest.raises(StateError):
            home.do(operation, role="zoe", **arguments)
    home.do("remove_policy", role="zoe", policy_id="only")
    assert home.do("list_users")


def test_a_key_that_expired_says_so(home: Team) -> None:
    made = home.do("create_key", name="viewer.one", expires="1 s")
    assert people.keys(home.system, home.admin, "viewer.one")[-1].state == "in force"
    eventually(lambda: people.keys(home.system, home.admin, "viewer.one")[-1].state == "expired")
    with pytest.raises(AuthenticationError):
        home.system.identity.authenticate(made.key)
