"""DNS rebinding and pages of other sites."""

import pytest

from bedplate.http import HostGuard, OriginGuard, ProtocolError, Request, security_headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8700", "LOCALHOST:1", "[::1]:8700"])
def test_the_loopback_names_are_answered(host: str) -> None:
    guard = HostGuard()
    guard.check(host)
    guard.check(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "localhost:99999999", "localhost:", "a@localhost"]
)
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        HostGuard().check(host)
    assert caught.value.status == 421


def request(method: str = "POST", **headers: str) -> Request:
    return Request(
        method, "/", headers={"host": "localhost:8700", **{k.replace("_", "-"): v for k, v in headers.items()}}
    )


def test_reads_and_clients_without_origin_pass() -> None:
    guard = OriginGuard(HostGuard())
    for accepted in (
        request("GET", origin="https://evil.example"),
        request(),
        request(origin="http://localhost:8700"),
        request(sec_fetch_site="same-origin"),
    ):
        guard.check(accepted)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": "http://localhost:8700.evil.example"},
        {"origin": "file://localhost:8700"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_state_changes_from_other_origins_do_not(headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolError) as caught:
        OriginGuard(HostGuard()).check(request(**headers))
    assert caught.value.status == 403


def test_pages_carry_a_content_policy() -> None:
    assert "content-security-policy" in dict(security_headers(page=True))
    assert "content-security-policy" not in dict(security_headers())
