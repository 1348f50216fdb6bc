"""Policies that users wrote: all of a file or none, one entry a change, in force at once, and never a lock-out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bedplate import Bedplate, settings
from bedplate.app import owned
from bedplate.errors import (
    BedplateError,
    ConflictError,
    DeniedError,
    InputError,
    NotFoundError,
    StateError,
    UnavailableError,
)
from bedplate.ids import digest_bytes
from bedplate.policy import untrusted
from bedplate.policy import values as policy
from bedplate.policy.policies import builtin_text
from tests import sample, team
from tests.team import Team

pytestmark = pytest.mark.slow

NIGHT = """
// Nobody runs anything while it is frozen.
@id("freeze")
@reason("the home is frozen; see the calendar")
forbid (principal, action == Action::"run", resource);

@id("interns")
permit (principal in Group::"interns", action in [Action::"read", Action::"list"], resource is UseCase);  // and no more
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Team]:
    """A home with a member of each role and one use case."""
    with team.running(tmp_path / "home", evidence=True) as running:
        yield running


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Such a home, for tests after which it is as it was."""
    with team.running(tmp_path_factory.mktemp("calm") / "home", evidence=True) as running:
        yield running


def may(home: Team, role: str, action: str, resource: policy.Resource = policy.HOME) -> bool:
    """What policy says about a role."""
    groups = {"intern": ("interns",)}.get(role, team.ROLES.get(role, ()))
    who = policy.Principal(kind="User", id=role, name=role, groups=groups)
    return home.system.policies.decide(who, action, resource).allowed


def kept(home: Team) -> list[str]:
    """The ids of the policies that were added."""
    with home.system.store.read() as tx:
        return [row.id for row in tx.policies.list()]


def test_what_is_added_decides_at_once_and_is_one_entry(home: Team) -> None:
    before, size = home.system.policies.version, home.size()
    assert may(home, "engineer", "run")
    assert not may(home, "intern", "read", policy.use_case(sample.NAME))

    change = home.do("add_policies", text=NIGHT)

    assert (change.added, change.replaced, change.removed) == (("freeze", "interns"), (), ())
    assert not may(home, "engineer", "run")
    assert may(home, "intern", "read", policy.use_case(sample.NAME))
    assert home.entries(size) == [("policy.add", "policies", "allow")]
    assert home.system.policies.version != before
    assert home.system.policies.decide(
        policy.Principal(kind="User", id="u", name="u", groups=("engineers",)), "run", policy.HOME
    ).reasons == ("the home is frozen; see the calendar",)

    removed = home.do("remove_policy", policy_id="freeze")
    assert removed.removed == ("freeze",)
    assert may(home, "engineer", "run")
    assert kept(home) == ["interns"]
    home.do("remove_policy", policy_id="interns")
    assert home.system.policies.version == before
    assert [entry[0] for entry in home.entries(size)] == ["policy.add", "policy.remove", "policy.remove"]


def test_who_gains_and_who_loses_is_said(home: Team) -> None:
    home.member("iva", "interns")

    compared = home.do("compare_policies", text=NIGHT)
    added = home.do("add_policies", text=NIGHT)

    assert compared == added
    told = {(gain.who, gain.action, gain.resource, gain.allowed) for gain in added.gains}
    assert ("iva", "read", f"UseCase/{sample.NAME}", True) in told
    assert ("engineer.one", "run", "Home/home", False) in told
    assert ("flow", "run", f"UseCase/{sample.NAME}", False) in told
    assert not any(who in ("viewer.one", "disabled.one") for who, *_ in told)
    assert added.compared_all


def test_comparing_changes_nothing(calm: Team) -> None:
    size, version = calm.size(), calm.system.policies.version

    calm.do("compare_policies", text=NIGHT)

    assert (kept(calm), calm.size(), calm.system.policies.version) == ([], size, version)


def test_the_same_text_again_is_no_change_and_another_needs_replace(home: Team) -> None:
    home.do("add_policies", text=NIGHT)
    size = home.size()
    other = NIGHT.replace('Action::"run"', 'Action::"plan"')

    assert home.do("add_policies", text=NIGHT).added == ()
    with pytest.raises(ConflictError, match="freeze"):
        home.do("add_policies", text=other)
    assert home.size() == size
    assert not may(home, "engineer", "run")

    change = home.do("add_policies", text=other, replace=True)
    assert (change.added, change.replaced) == (("freeze",), ("freeze",))
    assert may(home, "engineer", "run")
    assert not may(home, "engineer", "plan")
    assert sorted(kept(home)) == ["freeze", "interns"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no policy"),
        ("// only a remark", "no policy"),
        ("permit (principal, action, resource);", "no id"),
        ('@id("a b") permit (principal, action, resource);', "no id"),
        ('@id("x") permit (', "line 1"),
        ('@id("y") permit (principal, action, resource);\n\n@id("x")\npermit (', "line 3"),
        (
            '@id("x") forbid (principal, action, resource is Home) when { resource.owner == "a" };',
            "x: attribute `owner`",
        ),
        ('@id("x") permit (principal, action == Action::"fly", resource);', "x: unrecognized action"),
        ('@id("x") permit (principal == ?principal, action, resource);', "template"),
        (
            '@id("x") permit (principal, action, resource); @id("x") forbid (principal, action, resource);',
            "two policies",
        ),
        ('@id("administrators") permit (principal, action, resource);', "built-in"),
        ('@id("x") permit (principal, action, resource) when { ' + "(" * 5000 + "true" + ")" * 5000 + " };", "nests"),
        ('@id("x") permit (principal, action, resource);' + "// " + "x" * 300_000, "longer than"),
        ('@id("x") permit (principal, action, resource);\ud800', "no text"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_whole(calm: Team, text: str, problem: str) -> None:
    size, version = calm.size(), calm.system.policies.version

    with pytest.raises(InputError, match=problem) as raised:
        calm.do("add_policies", text=text, where="team.cedar")

    assert "team.cedar" in str(raised.value)
    assert (kept(calm), calm.size(), calm.system.policies.version) == ([], size, version)


def test_only_who_administers_the_home_may(home: Team) -> None:
    home.do("add_policies", text=NIGHT)
    question = {"name": "viewer.one", "action": "read", "resource": "Home"}
    for operation, arguments in (
        ("add_policies", {"text": '@id("mine") permit (principal, action, resource);'}),
        ("compare_policies", {"text": NIGHT}),
        ("list_policies", {}),
        ("remove_policy", {"policy_id": "freeze"}),
        ("test_policies", question),
    ):
        for role in ("engineer", "viewer", "auditor", "caller", "nobody"):
            with pytest.raises(DeniedError):
                home.do(operation, role=role, **arguments)

    assert kept(home) == ["freeze", "interns"]


@pytest.mark.parametrize(
    "text",
    [
        '@id("x") forbid (principal, action, resource);',
        '@id("x") forbid (principal, action == Action::"administer", resource is Home);',
        '@id("x") forbid (principal in Group::"administrators", action, resource);',
        '@id("x") forbid (principal, action, resource is Home) when { 9223372036854775807 + 1 > 0 };',
    ],
)
def test_a_set_that_would_lock_everybody_out_is_refused(calm: Team, text: str) -> None:
    version = calm.system.policies.version
    for operation in ("add_policies", "compare_policies"):
        with pytest.raises(StateError, match="nobody could administer"):
            calm.do(operation, text=text)

    assert (kept(calm), calm.system.policies.version) == ([], version)


def test_what_is_built_in_stays(calm: Team) -> None:
    with pytest.raises(NotFoundError, match="built in"):
        calm.do("remove_policy", policy_id="purpose")
    with pytest.raises(NotFoundError, match="no policy"):
        calm.do("remove_policy", policy_id="nothing")


def test_a_list_says_by_whom_and_when(home: Team) -> None:
    home.do("add_policies", role="administrator", text=NIGHT)

    found = home.do("list_policies")

    first, second, *built_in = found
    assert (first.id, first.effect, first.by, first.reason) == (
        "freeze",
        "forbid",
        "administrator.one",
        "the home is frozen; see the calendar",
    )
    assert first.created
    assert first.digest.startswith("sha256:")
    assert first.text.startswith("// Nobody runs")
    assert second.text.endswith("// and no more")
    assert {one.by for one in built_in} == {"built in"}
    assert len(built_in) == builtin_text().count("@id(")


def test_they_are_in_force_after_a_restart(tmp_path: Path) -> None:
    with team.running(tmp_path / "home") as first:
        first.do("add_policies", text=NIGHT)
        version = first.system.policies.version
    with owned.open_home(settings.load({"BEDPLATE_HOME": str(tmp_path / "home"), "BEDPLATE_PORT": "0"})) as again:
        assert again.system.policies.version == version


NO_SUCH_KIND = '@id("interns") permit (principal, action, resource in Shed::"x");'


@pytest.mark.parametrize("spoiled", ["its schema", "its text"])
def test_a_home_whose_policies_cannot_be_used_is_locked_until_they_are_mended(tmp_path: Path, spoiled: str) -> None:
    """As after an update whose schema has no place for them. Nobody gets through what they may have forbidden."""
    root = tmp_path / "home"
    with team.running(root) as first:
        first.do("add_policies", text=NIGHT)
        keys = first.keys
        text = NO_SUCH_KIND if spoiled == "its schema" else NIGHT
        digest = digest_bytes(text.encode() if spoiled == "its schema" else b"another")
        with first.system.store.transaction() as tx:
            change = "UPDATE policies SET text = ?, digest = ? WHERE id = 'interns'"
            tx._connection.exec_driver_sql(change, (text, digest))

    with owned.open_home(settings.load({"BEDPLATE_HOME": str(root), "BEDPLATE_PORT": "0"})) as again:

        def do(operation: str, role: str = "administrator", **arguments: Any) -> Any:
            return again.carry_out(operation, arguments, keys[role], lambda event: None)

        for role in ("engineer", "viewer"):
            who = again.system.identity.authenticate(keys[role])
            seen = policy.Principal(kind="User", id=who.id, name=who.name, groups=who.groups)
            assert not again.system.policies.decide(seen, "read", policy.HOME).allowed
        admin = policy.Principal(kind="User", id="a", name="a", groups=("administrators",))
        assert not again.system.policies.decide(admin, "run", policy.HOME).allowed
        assert [one.id for one in do("list_policies")][:2] == ["freeze", "interns"]
        do("remove_policy", policy_id="interns")
        assert again.system.policies.decide(admin, "plan", policy.HOME).allowed
        assert not again.system.policies.decide(admin, "run", policy.HOME).allowed, "the other one holds again"


def test_without_a_child_to_parse_it_nothing_is_taken(calm: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    untrusted.validate.cache_clear()
    monkeypatch.setattr(untrusted.sys, "executable", "/bin/false")
    with pytest.raises(UnavailableError):
        calm.do("add_policies", text=NIGHT)
    assert kept(calm) == []


@pytest.mark.parametrize(
    ("name", "action", "resource", "allowed", "by"),
    [
        ("engineer.one", "run", "Home/home", True, "engineers"),
        ("engineer.one", "run", f"UseCase/{sample.NAME}", True, "engineers"),
        ("viewer.one", "run", "Home", False, None),
        ("viewer.one", "read", "Workspace/default", True, "viewers"),
        ("viewer.one", "read", "Workspace/sealed", False, "closed-workspaces"),
        ("auditor.one", "audit", "Ledger", True, "auditors"),
        ("caller.one", "predict", f"Endpoint/{sample.NAME}", True, "callers"),
        ("flow", "plan", "Home", True, "flow"),
    ],
)
def test_a_test_says_what_the_policies_say_and_which(
    calm: Team, name: str, action: str, resource: str, allowed: bool, by: str | None
) -> None:
    answer = calm.do("test_policies", name=name, action=action, resource=resource)

    assert (answer.allowed, answer.resource) == (allowed, resource)
    assert (by in answer.policies) if by else not answer.policies
    assert answer.reasons


@pytest.mark.parametrize(
    ("name", "action", "resource", "error"),
    [
        ("nobody at all", "read", "Home", NotFoundError),
        ("disabled.one", "read", "Home", NotFoundError),
        ("viewer.one", "raed", "Home", InputError),
        ("viewer.one", "predict", "Home", InputError),
        ("viewer.one", "read", "Hoem", InputError),
        ("viewer.one", "read", "", InputError),
        ("viewer.one", "read", "Workspace", InputError),
        ("viewer.one", "read", "Workspace/absent", NotFoundError),
        ("viewer.one", "read", "UseCase/absent", NotFoundError),
        ("viewer.one", "read", "Endpoint/absent", NotFoundError),
        ("viewer.one", "read", "Run/r1", InputError),
    ],
)
def test_a_test_of_nothing_says_what_there_is(
    calm: Team, name: str, action: str, resource: str, error: type[BedplateError]
) -> None:
    with pytest.raises(error) as raised:
        calm.do("test_policies", name=name, action=action, resource=resource)

    assert raised.value.fix


def test_a_file_is_checked_with_and_without_a_home(tmp_path: Path) -> None:
    file = tmp_path / "team.cedar"
    file.write_text(NIGHT)
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))

    alone = bedplate.policies.check(file)
    assert [one.id for one in alone.policies] == ["freeze", "interns"]
    assert alone.change is None
    assert not (tmp_path / "home").exists()

    bedplate.users.add("eve", groups=["engineers"])
    within = bedplate.policies.check(str(file))
    assert within.change is not None
    assert any(gain.who == "eve" and not gain.allowed for gain in within.change.gains)
    assert bedplate.policies.add(file) == within.change
    assert not bedplate.policies.test("eve", "run", "Home").allowed


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (2 << 20)])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "team.cedar"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})).policies.check(file)
    assert raised.value.where == str(file)
