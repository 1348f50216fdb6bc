"""Quotas as the owner's operations: policy first, one entry a change, replicas told, over HTTP as by command."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bedplate.app import endpoints
from bedplate.app.serving_models import EndpointQuota
from bedplate.errors import DeniedError, InputError, NotFoundError
from bedplate.ids import digest_bytes
from bedplate.policy.values import Principal
from bedplate.records import Quota
from bedplate.serve import quotas as counting
from bedplate.serve import snapshot
from bedplate.serve.spec import ReplicaSpec
from tests import sample, team
from tests.team import Team

NAME = sample.NAME


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home with a member of each role and an endpoint that nobody started."""
    with team.running(tmp_path_factory.mktemp("quotas") / "home", evidence=True) as running:
        system = running.system
        nothing = digest_bytes(b"")
        spec = ReplicaSpec(
            name=NAME, use_case=NAME, bundle=Path("b"), digest=nothing, evidence=nothing, public_key=Path("k"),
            snapshot=Path("s"), snapshot_key=Path("k"), journal=Path("j"), online=Path("o"), quota=Quota(month=9),
        )  # fmt: skip
        with system.store.transaction() as tx:
            tx.endpoints.put(NAME, use_case=NAME, bundle=nothing, spec=endpoints.as_row(spec))
        yield running


def told(home: Team) -> snapshot.Quotas | None:
    """What replicas know."""
    key = snapshot.load_public_key(home.system.home.keys / "access.pub")
    return snapshot.read(endpoints.access_path(home.system), key).quotas.get(NAME)


def test_a_quota_is_set_listed_used_and_removed(home: Team) -> None:
    start = home.size()
    made = home.do("set_quota", endpoint=NAME, holder="caller.one", quota={"rate": 5.0, "burst": 9})
    who = home.system.identity.authenticate(home.keys["caller"]).id
    assert (made.kind, made.holder, made.quota) == ("principal", "caller.one", Quota(rate=5.0, burst=9))
    home.do("set_quota", endpoint=NAME, holder="callers", group=True, quota={"day": 7})
    assert told(home) == snapshot.Quotas(principals={who: Quota(rate=5.0, burst=9)}, groups={"callers": Quota(day=7)})

    counts = counting.Counts(endpoints.journal_of(home.system, NAME) / counting.FILE)
    meter = counting.Meter(Principal(kind="User", id=who, name="x"), Quota(rate=5.0, burst=9), counts, set())
    meter.take()
    meter.give_back()
    counts.close()
    listed = {quota.holder: quota for quota in home.do("list_quotas", endpoint=NAME)}
    assert list(listed) == ["everybody else", "callers", "caller.one"]
    assert listed["everybody else"].quota == Quota(month=9)
    assert (listed["caller.one"].used_day, listed["caller.one"].used_month) == (1, 1)

    home.do("remove_quota", endpoint=NAME, holder="caller.one")
    home.do("remove_quota", endpoint=NAME, holder="callers", group=True)
    assert told(home) is None
    assert home.entries(start) == [
        (action, f"endpoint/{NAME}", "allow") for action in ("quota.set", "quota.set", "quota.remove", "quota.remove")
    ]


@pytest.mark.parametrize(
    ("quota", "match"),
    [
        ({}, "bounds nothing"),
        ({"burst": 3}, "burst of no rate"),
        ({"rate": 0.0}, "above zero"),
        ({"rate": float("inf")}, "above zero"),
        ({"rate": 1.0, "burst": 0}, "above zero"),
        ({"day": -1}, "below zero"),
        ({"month": 1 << 63}, "too large"),
    ],
)
def test_a_quota_that_is_none_is_refused_whole(home: Team, quota: dict[str, float], match: str) -> None:
    start = home.size()
    with pytest.raises(InputError, match=match):
        home.do("set_quota", endpoint=NAME, holder="caller.one", quota=quota)
    assert home.size() == start


def test_who_and_what_must_be_there_and_policy_allow_it(home: Team) -> None:
    for arguments in ({"endpoint": "nowhere", "holder": "caller.one"}, {"endpoint": NAME, "holder": "nobody.at.all"}):
        with pytest.raises(NotFoundError):
            home.do("set_quota", **arguments, quota={"day": 1})
    with pytest.raises(NotFoundError):
        home.do("remove_quota", endpoint=NAME, holder="caller.one")
    with pytest.raises(DeniedError):
        home.do("set_quota", role="viewer", endpoint=NAME, holder="viewer.one", quota={"day": 1})
    assert home.do("list_quotas", role="viewer", endpoint=NAME)
    with pytest.raises(DeniedError):
        home.do("list_quotas", role="caller", endpoint=NAME)


def test_over_http(home: Team) -> None:
    base = f"/api/v1/use-cases/{NAME}/quotas"
    with home.client("engineer") as client:
        made = client.put(base, json={"holder": "caller.one", "quota": {"day": 3}})
        assert msgspec.convert(made.json(), EndpointQuota).quota == Quota(day=3)
        assert [quota["holder"] for quota in client.get(base).json()["quotas"]] == ["everybody else", "caller.one"]
        assert client.put(base, json={"holder": "caller.one", "quota": {"day": "3"}}).status_code == 400
        assert client.post(f"{base}/remove", json={"holder": "caller.one"}).status_code == 200
        assert client.post(f"{base}/remove", json={"holder": "caller.one"}).status_code == 404
