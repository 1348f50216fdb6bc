"""A ticket is leave for one request, for as long as what it was issued for is valid."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from bedplate import clock, store
from bedplate.errors import AuthenticationError
from bedplate.identity import Identity, Tickets
from bedplate.ledger import Ledger, Signer, new_key

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = "/api/2.0/mlflow-artifacts/mpu/part/upl_1/2"


@pytest.fixture
def home(tmp_path):
    with (
        closing(store.open(tmp_path / "bedplate.db")) as opened,
        closing(Ledger(opened, tmp_path / "ledger", Signer(new_key("test")))) as ledger,
    ):
        (tmp_path / "keys").mkdir()
        yield Identity(opened, tmp_path / "keys", ledger), Tickets(opened, tmp_path / "keys"), opened, tmp_path / "keys"


def somebody(identity, **key):
    row = identity.add_principal("user", "ana", ("engineers",), actor="test")
    return identity.authenticate(identity.create_key(row.id, actor="test", **key))


def test_a_ticket_is_its_holder_for_one_request(home):
    identity, tickets, _, _ = home
    ana = somebody(identity)

    accepted = tickets.accept(tickets.issue(ana, "PUT", PATH, HOUR), "PUT", PATH)

    assert (accepted.id, accepted.name, accepted.groups, accepted.auth) == (ana.id, "ana", ("engineers",), "ticket")


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("PUT", f"{PATH}1"), ("PUT", "/"), ("PUT", PATH.upper())])
def test_it_is_worth_nothing_for_another_request(home, method, path):
    identity, tickets, _, _ = home
    ticket = tickets.issue(somebody(identity), "PUT", PATH, HOUR)

    with pytest.raises(AuthenticationError):
        tickets.accept(ticket, method, path)


def test_it_ends_with_its_time(home):
    identity, tickets, _, _ = home
    with clock.frozen(START):
        ticket = tickets.issue(somebody(identity), "PUT", PATH, HOUR)
    with clock.frozen(START + timedelta(minutes=59)):
        assert tickets.accept(ticket, "PUT", PATH).name == "ana"
    with clock.frozen(START + HOUR), pytest.raises(AuthenticationError):
        tickets.accept(ticket, "PUT", PATH)


def test_it_ends_with_the_key_that_asked_for_it(home):
    identity, tickets, _, _ = home
    ana = somebody(identity)
    ticket = tickets.issue(ana, "PUT", PATH, HOUR)

    identity.revoke_key(ana.credential, actor="test")

    with pytest.raises(AuthenticationError):
        tickets.accept(ticket, "PUT", PATH)


def test_it_ends_when_the_key_expires_or_its_principal_is_shut_out(home):
    identity, tickets, _, _ = home
    with clock.frozen(START):
        short = somebody(identity, lifetime=timedelta(minutes=5))
        ticket = tickets.issue(short, "PUT", PATH, HOUR)
        with clock.frozen(START + timedelta(minutes=6)), pytest.raises(AuthenticationError):
            tickets.accept(ticket, "PUT", PATH)
        identity.disable(short.id, actor="test")
        with pytest.raises(AuthenticationError):
            tickets.accept(ticket, "PUT", PATH)


def test_a_session_has_tickets_until_it_ends(home):
    identity, tickets, _, _ = home
    row = identity.add_principal("user", "ana", (), actor="test")
    session = identity.authenticate(identity.redeem_link(identity.create_link(row.id, actor="test")))
    ticket = tickets.issue(session, "PUT", PATH, HOUR)
    assert tickets.accept(ticket, "PUT", PATH).id == row.id

    identity.end_session(session.credential, actor=row.id)

    with pytest.raises(AuthenticationError):
        tickets.accept(ticket, "PUT", PATH)


def test_a_ticket_gives_no_tickets(home):
    identity, tickets, _, _ = home
    accepted = tickets.accept(tickets.issue(somebody(identity), "PUT", PATH, HOUR), "PUT", PATH)

    with pytest.raises(AuthenticationError):
        tickets.issue(accepted, "PUT", PATH, HOUR)


def test_forged_ones_are_refused(home):
    identity, tickets, opened, keys = home
    ana = somebody(identity)
    auth, credential, expires, signature = tickets.issue(ana, "PUT", PATH, HOUR).split(".")
    (keys / "other").mkdir()
    foreign = Tickets(opened, keys / "other").issue(ana, "PUT", PATH, HOUR)
    later = str(int(expires) + 3600)
    forged = [
        *("", ".", "...", "a.b.c.d", "é" * 4, "x" * 10_000, foreign, signature, f"{auth}.{credential}.{expires}."),
        *(f"{auth}.{credential}.{later}.{signature}", f"session.{credential}.{expires}.{signature}"),
        *(f"{auth}.{credential}x.{expires}.{signature}", f"{auth}.{credential}.{expires}.{signature[:-1]}"),
        f"{auth}.{credential}.{expires}.{signature}.",
    ]
    for ticket in forged:
        with pytest.raises(AuthenticationError):
            tickets.accept(ticket, "PUT", PATH)


def test_it_outlives_a_restart_and_its_key_is_private(home):
    identity, tickets, opened, keys = home
    ticket = tickets.issue(somebody(identity), "PUT", PATH, HOUR)

    assert Tickets(opened, keys).accept(ticket, "PUT", PATH).name == "ana"
    assert (keys / "tickets.key").stat().st_mode & 0o077 == 0
