"""Who comes in: keys, sessions, links; at once when they end; every change in the ledger."""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate import clock
from bedplate import store as stores
from bedplate.errors import AuthenticationError, ConflictError, InputError, NotFoundError
from bedplate.identity import Identity, tokens
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = stores.open(tmp_path / "test.db")
    yield opened
    opened.close()


@pytest.fixture
def identity(store: Store, tmp_path: Path) -> Iterator[Identity]:
    """The identities of an empty home."""
    ledger = Ledger(store, tmp_path / "ledger", Signer(new_key("bedplate/test")))
    yield Identity(store, tmp_path / "keys", ledger)
    ledger.close()


@pytest.fixture
def ana(identity: Identity) -> str:
    """The id of a user."""
    return identity.add_principal("user", "ana", ["growth"], actor="system").id


def actions(store: Store) -> list[str]:
    """What the ledger holds, oldest first."""
    with store.read() as tx:
        return [entry.entry.decode().split('"action":"')[1].split('"')[0] for entry in tx.ledger.entries(0, 1000)]


def refused(identity: Identity, token: str) -> bool:
    """Whether a key or session is refused."""
    try:
        identity.authenticate(token)
    except AuthenticationError:
        return True
    return False


def test_the_administrator_key_is_made_once(identity: Identity, store: Store, tmp_path: Path) -> None:
    """Mode 0600; the same at every start; its principal is in the group of administrators."""
    key = identity.administrator_key()
    path = tmp_path / "keys" / "admin.key"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.administrator_key() == key == path.read_text().strip()
    principal = identity.authenticate(key)
    assert (principal.name, principal.groups, principal.auth) == ("administrator", ("administrators",), "key")
    assert actions(store) == ["principal.create", "key.create"]


@pytest.mark.parametrize("content", [None, "", "bp_foreign_key"])
def test_a_lost_administrator_key_is_replaced(identity: Identity, tmp_path: Path, content: str | None) -> None:
    """And the one before is revoked, also when a crash came between file and commit."""
    before, path = identity.administrator_key(), tmp_path / "keys" / "admin.key"
    path.unlink() if content is None else path.write_text(content)

    after = identity.administrator_key()

    assert not refused(identity, after)
    assert refused(identity, before)


def test_secrets_are_kept_as_hashes_only(identity: Identity, ana: str, tmp_path: Path) -> None:
    """No secret stands anywhere in the database, nor in the form a log would show."""
    secrets = [identity.create_key(ana, actor="x"), identity.create_link(ana, actor="x")]
    secrets.append(identity.redeem_link(secrets[1]))
    written = b"".join(path.read_bytes() for path in tmp_path.glob("test.db*"))

    for text in secrets:
        secret = text.split("_", 2)[2]
        assert len(secret) >= 43
        assert secret.encode() not in written
    assert tokens.new("bp").secret not in repr(tokens.new("bp"))


def test_an_ended_key_is_refused_at_once(identity: Identity, ana: str, store: Store) -> None:
    """Revoked, expired, or its principal shut out."""
    revoked, expiring, shut = (identity.create_key(ana, actor="x", lifetime=timedelta(hours=1)) for _ in range(3))
    assert not any(refused(identity, key) for key in (revoked, expiring, shut))

    identity.revoke_key(revoked.split("_")[1], actor="x")
    assert refused(identity, revoked)
    with clock.frozen(clock.now() + timedelta(hours=1, seconds=1)):
        assert refused(identity, expiring)
    identity.disable(ana, actor="x")
    assert refused(identity, shut)
    assert actions(store)[-2:] == ["key.revoke", "principal.disable"]
    with pytest.raises(NotFoundError):
        identity.revoke_key(revoked.split("_")[1], actor="x")


def test_a_link_begins_one_session_within_a_minute(identity: Identity, ana: str) -> None:
    """Used twice, late, as a key, or with another secret, it is refused; a session ends when it is told to."""
    link, late, forged = (identity.create_link(ana, actor="x") for _ in range(3))
    session = identity.redeem_link(link)
    principal = identity.authenticate(session)
    assert (principal.name, principal.auth) == ("ana", "session")

    with pytest.raises(AuthenticationError):
        identity.redeem_link(link)
    with clock.frozen(clock.now() + timedelta(seconds=61)), pytest.raises(AuthenticationError):
        identity.redeem_link(late)
    with pytest.raises(AuthenticationError):
        identity.redeem_link(forged[:-1] + ("a" if forged[-1] != "a" else "b"))
    assert refused(identity, forged)
    identity.redeem_link(forged)  # a wrong secret used nothing up
    identity.end_session(principal.credential, actor=principal.id)
    assert refused(identity, session)


def test_of_many_that_use_a_link_one_comes_in(identity: Identity, ana: str) -> None:
    """It is consumed in one step."""
    link = identity.create_link(ana, actor="x")

    def redeem(_number: int) -> bool:
        try:
            return bool(identity.redeem_link(link))
        except AuthenticationError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, range(16))) == 1


def test_principals(identity: Identity, ana: str, store: Store) -> None:
    """Names are unique and plain; groups change; every change is one entry."""
    with pytest.raises(ConflictError):
        identity.add_principal("service", "ana", actor="x")
    for name in ("", "  ", "a\nb", "x" * 201):
        with pytest.raises(InputError):
            identity.add_principal("user", name, actor="x")
    identity.set_groups(ana, ["risk"], actor="x")
    with pytest.raises(NotFoundError):
        identity.set_groups("prn_none", [], actor="x")

    assert identity.authenticate(identity.create_key(ana, actor="x")).groups == ("risk",)
    assert actions(store) == ["principal.create", "principal.update", "key.create"]


@given(st.text(max_size=300))
def test_any_other_text_is_no_token(text: str) -> None:
    """Parsing never raises, and what it accepts is what was written."""
    for prefix in ("bp", "bs", "bl"):
        token = tokens.parse(text, prefix)
        assert token is None or str(token) == text


def test_tokens_have_the_same_form() -> None:
    """A token read back is the token."""
    for prefix in ("bp", "bs", "bl"):
        token = tokens.new(prefix)
        assert tokens.parse(str(token), prefix) == token
        assert tokens.parse(str(token), "xx") is None
