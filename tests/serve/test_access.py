"""Who may do what at a replica, and that every doubt ends in a denial."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedplate import clock
from bedplate.errors import AuthenticationError, DeniedError, UnavailableError
from bedplate.http import ResourceRef
from bedplate.policy.values import Principal
from bedplate.serve import snapshot
from bedplate.serve.access import Access

CALLER, STRANGER = "bp_caller_secret", "bp_stranger_secret"
MODEL = ResourceRef("Endpoint", "m")
FORBID = '@id("frozen") @reason("m is frozen") forbid (principal, action, resource == Endpoint::"m");'


class Owner:
    """Writes snapshots as the owner of a home does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.json"
        self._public = folder / "access.pub.pem"
        self.key = snapshot.make_key(folder / "access.pem", self._public)
        self.number = 0

    def publish(
        self, groups: dict[str, tuple[str, ...]], policies: tuple[str, ...] = (), expires: str | None = None
    ) -> None:
        keys = {
            snapshot.name_of_token(token): snapshot.Key(
                principal=Principal(kind="Service", id=token, name=token, groups=names), expires=expires
            )
            for token, names in groups.items()
        }
        self.number += 1
        snapshot.write(
            self.path,
            snapshot.Snapshot(number=self.number, created=clock.timestamp(), keys=keys, policies=policies),
            self.key,
        )

    def access(self) -> Access:
        return Access(self.path, self._public, "demo")


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    owner = Owner(tmp_path)
    owner.publish({CALLER: ("callers",), STRANGER: ()})
    return owner


def admitted(access: Access, token: str = CALLER, action: str = "predict") -> str:
    return access.admit(f"Bearer {token}", action, MODEL).principal.id


def test_a_caller_is_admitted_by_a_policy_that_is_named(owner: Owner) -> None:
    found = owner.access().admit(f"bearer  {CALLER} ", "predict", MODEL)

    assert (found.principal.id, found.policies, found.until) == (CALLER, "callers", 0.0)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", CALLER, f"Basic {CALLER}", "Bearer bp_caller_wrong", "Bearer \ud800_a_b"]
)
def test_without_a_good_key_nobody_is_known(owner: Owner, header: str | None) -> None:
    with pytest.raises(AuthenticationError):
        owner.access().admit(header, "predict", MODEL)


def test_a_known_key_without_rights_is_denied(owner: Owner) -> None:
    access = owner.access()
    with pytest.raises(DeniedError):
        admitted(access, STRANGER)
    with pytest.raises(DeniedError):
        admitted(access, action="read")
    with pytest.raises(DeniedError):
        admitted(access, action="no such action")


def test_whose_turn_it_is_is_known_of_a_key_that_was_good(owner: Owner) -> None:
    access = owner.access()
    assert access.caller(f"Bearer {CALLER}") == ""
    admitted(access)
    with pytest.raises(AuthenticationError):
        admitted(access, "bp_nobody")
    assert [access.caller(text) for text in (f"Bearer {CALLER}", "Bearer bp_nobody", None)] == [CALLER, "", ""]


def test_a_decision_for_one_thing_is_not_one_for_another(owner: Owner) -> None:
    """What was admitted is kept by key, action and resource together."""
    owner.publish({CALLER: ("callers",)}, (FORBID,))
    access = owner.access()
    other = ResourceRef("Endpoint", "other")

    assert access.admit(f"Bearer {CALLER}", "predict", other)
    assert access.admit(f"Bearer {CALLER}", "predict", other) is access.admit(f"Bearer {CALLER}", "predict", other)
    with pytest.raises(DeniedError, match="frozen"):
        admitted(access)


def test_a_new_snapshot_takes_force_and_forgets_what_was_decided(owner: Owner) -> None:
    access = owner.access()
    assert admitted(access) == CALLER
    owner.publish({STRANGER: ("callers",)})

    access.refresh()

    assert admitted(access, STRANGER) == STRANGER
    with pytest.raises(AuthenticationError):
        admitted(access)


def test_a_new_policy_takes_force(owner: Owner) -> None:
    access = owner.access()
    assert admitted(access) == CALLER
    owner.publish({CALLER: ("callers",)}, (FORBID,))
    access.refresh()
    with pytest.raises(DeniedError, match="frozen"):
        admitted(access)


def test_an_admission_ends_with_its_key_even_when_it_was_kept(owner: Owner) -> None:
    now = clock.now()
    owner.publish({CALLER: ("callers",)}, expires=clock.text(now + timedelta(seconds=60)))
    access = owner.access()
    with clock.frozen(now):
        assert admitted(access) == CALLER
    with clock.frozen(now + timedelta(seconds=59)):
        assert admitted(access) == CALLER
    with clock.frozen(now + timedelta(seconds=60)), pytest.raises(AuthenticationError):
        admitted(access)


def _missing(owner: Owner) -> None:
    owner.path.unlink()


def _torn(owner: Owner) -> None:
    owner.path.write_bytes(owner.path.read_bytes()[:-10])


def _foreign(owner: Owner) -> None:
    mine, owner.key = owner.key, Ed25519PrivateKey.generate()
    owner.publish({CALLER: ("callers",)})
    owner.key = mine


def _older(owner: Owner) -> None:
    owner.number = -5
    owner.publish({CALLER: ("callers",)})
    owner.number = 10


def _unreadable_policy(owner: Owner) -> None:
    owner.publish({CALLER: ("callers",)}, ("permit (",))


@pytest.mark.parametrize("spoil", [_missing, _torn, _foreign, _older, _unreadable_policy])
def test_a_bad_snapshot_denies_everything_until_a_good_one_comes(owner: Owner, spoil: object) -> None:
    access = owner.access()
    assert admitted(access) == CALLER
    assert access.ready

    assert callable(spoil)
    spoil(owner)
    access.refresh()

    assert not access.ready
    with pytest.raises(UnavailableError):
        admitted(access)
    owner.publish({CALLER: ("callers",)})
    access.refresh()
    assert access.ready
    assert admitted(access) == CALLER


def test_a_replica_that_starts_without_a_snapshot_denies(owner: Owner) -> None:
    owner.path.unlink()
    access = owner.access()
    assert not access.ready
    with pytest.raises(UnavailableError):
        admitted(access)


def test_what_is_kept_is_bounded(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate.serve.access._MOST_KEPT", 3)
    access = owner.access()
    for number in range(10):
        assert access.admit(f"Bearer {CALLER}", "predict", ResourceRef("Endpoint", f"m{number}"))
        assert len(access._kept) <= 3
