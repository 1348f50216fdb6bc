"""One reading of a URL, and which addresses a name may stand for."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.egress import Target, allow
from bedplate.egress.targets import Origin, is_public, parse
from bedplate.errors import InputError


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://API.example.com", Origin("https", "api.example.com", 443), ""),
        ("https://example.com:443/a?b=c#d", Origin("https", "example.com", 443), "/a?b=c"),
        ("http://example.com:8080/", Origin("http", "example.com", 8080), "/"),
        ("http://[0:0::1]:80/a", Origin("http", "::1", 80), "/a"),
        ("http://10.0.0.1/a", Origin("http", "10.0.0.1", 80), "/a"),
    ],
)
def test_a_url_has_one_reading(url: str, origin: Origin, path: str) -> None:
    assert parse(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "https://",
        "https:///a",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user@example.com/",
        "https://good.example@evil.example/",
        "https://good.example\\@evil.example/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:8o/",
        "https://exa mple.com/",
        "https://example.com/\r\nhost: evil.example",
        "https://ex%61mple.com/",
        "https://example.com./",
        "https://-example.com/",
        "https://éxample.com/",
        "https://example。com/",
        "https://[::1/",
        "https://[1.2.3.4]/",
        "https://[v1.x]/",
        "https://example.com/" + "a" * 9000,
    ],
)
def test_what_programs_read_differently_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        parse(url)


@given(st.text(max_size=60) | st.text("htps:/[]@.\\%#?0123456789abcdef", max_size=60).map("http://".__add__))
def test_any_text_is_a_url_or_an_input_error(text: str) -> None:
    try:
        origin, path = parse(text)
    except InputError:
        return
    assert parse(f"{origin}{path}" if path.startswith("/") else f"{origin}/")[0] == origin


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::101:101",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b::a9fe:a9fe",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_of_the_public_internet_are_refused(address: str) -> None:
    assert not allow("https://example.com").admits(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::"])
def test_public_addresses_pass(address: str) -> None:
    assert allow("https://example.com").admits(ip_address(address))


def test_a_grant_opens_its_network_and_no_other() -> None:
    target = allow("http://service.test:81", networks=["10.1.0.0/16", "::1"])

    assert target == Target(Origin("http", "service.test", 81), ("10.1.0.0/16", "::1"))
    for address, admitted in [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("::1", True),
        ("127.0.0.1", False),
        ("2002:a01:203::", False),
        ("1.1.1.1", True),
    ]:
        assert target.admits(ip_address(address)) is admitted, address


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_as_itself(inner: IPv4Address) -> None:
    """No form of IPv6 opens what IPv4 keeps closed."""
    target = allow("https://example.com")
    forms = [0xFFFF << 32 | int(inner), 0x2002 << 112 | int(inner) << 80, 0x64FF9B << 96 | int(inner)]
    for form in forms:
        if target.admits(IPv6Address(form)):
            assert is_public(inner)


@pytest.mark.parametrize(
    ("origin", "networks"), [("https://a/path", []), ("https://a?b", []), ("a", []), ("https://a", ["10.0.0.1/8"])]
)
def test_a_target_that_is_none_is_refused(origin: str, networks: list[str]) -> None:
    with pytest.raises(InputError):
        allow(origin, networks=networks)
