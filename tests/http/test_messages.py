"""Bounded JSON, literal cookies, answers that stay on this server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import DeniedError
from bedplate.http import ProtocolError, Request, Response
from bedplate.http.messages import decode_json, too_deep

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab[]{}"\\,', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a[{"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(JSON, st.integers(1, 6))
def test_depth_is_counted_exactly_and_never_inside_strings(value: Any, limit: int) -> None:
    assert too_deep(json.dumps(value).encode(), limit) == (depth(value) > limit)


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 300_000, b"[" * 500_000 + b"]" * 500_000])
def test_deep_json_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="nests deeper"):
        decode_json(body, dict)


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"\xff", b'{"a":NaN}', b'"\xff"', b"[1]"])
def test_what_does_not_fit_is_400(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_json(body, dict)
    assert caught.value.status == 400


def test_query_parameters_are_given_once() -> None:
    assert Request("GET", "/", query_string="a=1&b=%20").query == {"a": "1", "b": " "}
    for bad in ("a=1&a=2", "&".join(f"a{i}=1" for i in range(200)), "a=%ff"):
        with pytest.raises(ProtocolError):
            _ = Request("GET", "/", query_string=bad).query


def test_cookies_and_bearer_tokens_are_taken_literally() -> None:
    request = Request("GET", "/", headers={"cookie": "a=1; session=x=y ;b", "authorization": "bearer  k "})

    assert (request.cookie("session"), request.cookie("b"), request.cookie("c")) == ("x=y", None, None)
    assert request.bearer == "k"
    assert Request("GET", "/", headers={"authorization": "Basic k"}).bearer is None


def test_a_form_has_its_type_and_single_fields() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}

    assert Request("POST", "/", headers=headers, body=b"a=1&b=x+y").form() == {"a": "1", "b": "x y"}
    with pytest.raises(ProtocolError) as caught:
        Request("POST", "/", body=b"a=1").form()
    assert caught.value.status == 415
    with pytest.raises(ProtocolError):
        Request("POST", "/", headers=headers, body=b"a=1&a=2").form()


@pytest.mark.parametrize("path", ["//evil", "/\\evil", "https://evil", "x", "/a\r\nset-cookie: x"])
def test_redirects_stay_here(path: str) -> None:
    assert Response.redirect("/ok").headers == [("location", "/ok")]
    with pytest.raises(ValueError, match="leaves"):
        Response.redirect(path)


def test_errors_become_their_status_and_json() -> None:
    response = Response.error(DeniedError("no", where="here", fix="ask"))

    assert response.status == 403
    assert json.loads(response.body) == {"error": "denied", "message": "no", "where": "here", "fix": "ask"}
    assert Response.error(ProtocolError(413, "big")).status == 413
