"""Workspaces as the owner's operations: who may see and change them, what a list shows, and when one can go."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bedplate.app import workspaces
from bedplate.errors import BedplateError, ConflictError, DeniedError, InputError, NotFoundError, StateError
from bedplate.store.schema import metadata
from bedplate.tracking import experiments
from bedplate.tracking.actors import Actor
from tests import team
from tests.team import ABSENT, ROLES, SEALED, Team


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Team]:
    """A home with a member of each role, and of the groups that the closed workspace names."""
    with team.running(tmp_path / "home") as running:
        running.member("insider", "insiders")
        running.member("owner", "owners")
        yield running


def seen(home: Team, role: str) -> list[str]:
    """The workspaces in a role's list."""
    return [one.name for one in home.do("list_workspaces", role=role)]


def test_a_list_shows_no_more_than_its_items_would(home: Team) -> None:
    home.do("create_workspace", name="open", shared=True)

    for role in (*ROLES, "insider", "owner"):
        if role == "disabled":
            continue
        readable = []
        for name in ("default", "open", SEALED):
            with suppress(DeniedError):
                readable.append(workspaces.get(home.system, home.who(role), name).name)
        assert seen(home, role) == readable

    assert seen(home, "administrator") == ["default", "open", SEALED]
    assert seen(home, "engineer") == seen(home, "viewer") == ["default", "open"]
    assert seen(home, "insider") == seen(home, "owner") == [SEALED]
    assert seen(home, "nobody") == seen(home, "caller") == []


def test_a_change_holds_from_the_next_request_on_and_is_one_entry(home: Team) -> None:
    size = home.size()
    made = home.do("create_workspace", role="administrator", name="growth", description="d", readers=["viewers"])
    assert (made.shared, made.readers, made.writers) == (False, ("viewers",), ())
    assert "growth" in seen(home, "viewer")
    home.do("update_workspace", name="growth", readers=[])
    assert "growth" not in seen(home, "viewer")
    home.do("update_workspace", name="growth", shared=True)
    assert "growth" in seen(home, "viewer")
    home.do("update_workspace", name="growth", shared=False, writers=["viewers"], description="e")
    assert workspaces.demand(home.system, home.who("viewer"), "write", "growth").allowed
    home.do("update_workspace", name="growth", writers=["others"])
    with pytest.raises(DeniedError):
        workspaces.demand(home.system, home.who("viewer"), "write", "growth")
    assert home.do("delete_workspace", name="growth").description == "e"
    assert home.system.workspaces.resource("growth") is None

    changes = [entry for entry in home.entries(size) if entry[2] == "allow"]
    assert changes == [
        ("workspace.create", "workspace/growth", "allow"),
        *[("workspace.update", "workspace/growth", "allow")] * 4,
        ("workspace.delete", "workspace/growth", "allow"),
    ]


def test_a_group_that_somebody_leaves_opens_nothing_more(home: Team) -> None:
    assert seen(home, "insider") == [SEALED]
    workspaces.demand(home.system, home.who("insider"), "read", SEALED)

    home.do("set_groups", name="insider", groups=[])

    with pytest.raises(DeniedError):
        workspaces.demand(home.system, home.who("insider"), "read", SEALED)


def test_a_policy_that_forbids_holds_against_what_was_remembered(home: Team) -> None:
    workspaces.demand(home.system, home.who("engineer"), "write", "default")
    home.do("add_policies", text='@id("x") forbid (principal, action == Action::"write", resource is Workspace);')

    with pytest.raises(DeniedError):
        workspaces.demand(home.system, home.who("engineer"), "write", "default")


@pytest.mark.parametrize("action", ["read", "list", "write", "administer"])
def test_a_stranger_cannot_tell_what_is_closed_from_what_is_not_there(home: Team, action: str) -> None:
    def said(name: str) -> str:
        with pytest.raises(DeniedError) as raised:
            workspaces.demand(home.system, home.who("engineer"), action, name)
        return str(raised.value).replace(name, "NAME")

    assert said(SEALED) == said(ABSENT) == said("No Name At All")


def test_who_may_know_is_told_that_it_is_not_there(home: Team) -> None:
    with pytest.raises(NotFoundError):
        workspaces.demand(home.system, home.who("administrator"), "read", ABSENT)
    with pytest.raises(InputError, match="cannot name"):
        workspaces.demand(home.system, home.who("administrator"), "read", "No Name At All")


@pytest.mark.parametrize(
    ("operation", "arguments", "error"),
    [
        *[
            ("create_workspace", {"name": name}, InputError)
            for name in ("", "a", "A", "a_b", "-ab", "ab-", "a" * 64, "api", "workspaces", "default", "ab\n", "é" * 3)
        ],
        ("create_workspace", {"name": SEALED}, ConflictError),
        ("create_workspace", {"name": "fine", "readers": ["a", " "]}, InputError),
        ("create_workspace", {"name": "fine", "description": "x" * 5001}, InputError),
        ("update_workspace", {"name": SEALED}, InputError),
        ("update_workspace", {"name": ABSENT, "shared": True}, NotFoundError),
        ("update_workspace", {"name": SEALED, "writers": [""]}, InputError),
        ("delete_workspace", {"name": "default"}, InputError),
        ("delete_workspace", {"name": ABSENT}, NotFoundError),
        ("delete_workspace", {"name": SEALED}, StateError),
    ],
)
def test_bad_input_changes_nothing(
    calm: Team, operation: str, arguments: dict[str, Any], error: type[BedplateError]
) -> None:
    before, size = calm.do("list_workspaces"), calm.size()

    with pytest.raises(error) as raised:
        calm.do(operation, **arguments)

    assert raised.value.fix
    assert (calm.do("list_workspaces"), calm.size()) == (before, size)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home for tests after which it is as it was."""
    with team.running(tmp_path_factory.mktemp("calm") / "home") as running:
        yield running


@pytest.mark.parametrize("operation", ["create_workspace", "update_workspace", "delete_workspace"])
def test_only_who_administers_may_change_them(home: Team, operation: str) -> None:
    before = home.do("list_workspaces")
    for role in ("engineer", "viewer", "auditor", "caller", "nobody", "insider", "owner"):
        for name in ("default", SEALED, ABSENT):
            with pytest.raises(DeniedError):
                home.do(operation, role=role, name=name)

    assert home.do("list_workspaces") == before


def test_policy_may_let_others_administer_one(home: Team) -> None:
    text = '@id("owners") permit (principal in Group::"owners", action == Action::"administer", resource is Workspace)'
    home.do("add_policies", text=f'{text} when {{ resource.name == "{SEALED}" }};')

    home.do("update_workspace", role="owner", name=SEALED, description="ours")
    with pytest.raises(DeniedError):
        home.do("update_workspace", role="owner", name="default", description="ours")


def test_one_that_holds_something_stays(home: Team) -> None:
    by = Actor(ledger=home.system.ledger, name="test")
    home.do("create_workspace", name="full", shared=True)
    with home.system.store.transaction() as tx:
        made = experiments.create(tx, "full", "e", by=by)
        experiments.delete(tx, "full", str(made.id), by=by)

    with pytest.raises(StateError, match="experiments"):
        home.do("delete_workspace", name="full")
    assert home.system.workspaces.resource("full") is not None


def test_every_table_of_things_in_workspaces_is_looked_at() -> None:
    from bedplate.store.workspaces import _KEPT, _USED

    held = {table.name for table in metadata.tables.values() if "workspace" in table.c}
    assert held == set(_USED)
    assert {"experiments", "registered_models", "artifacts"} <= held
    assert set(_KEPT) <= held


def test_looking_while_it_changes_never_remembers_what_was_before(home: Team) -> None:
    """Readers and a writer at once: once a change is answered, nobody sees what was before it."""
    known = home.system.workspaces

    def change(number: int) -> bool:
        name = f"w{number}"
        home.do("create_workspace", name=name)
        there = known.resource(name) is not None
        home.do("delete_workspace", name=name)
        return there and known.resource(name) is None

    with ThreadPoolExecutor(6) as pool:
        looking = [pool.submit(lambda: [known.resource("default") for _ in range(2000)]) for _ in range(4)]
        assert all(pool.map(change, range(20)))
    assert all(all(future.result()) for future in looking)
