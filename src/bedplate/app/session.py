"""How a browser's session travels: an HttpOnly cookie, and a token that only our own pages can put into a request."""

import hashlib
import hmac

from bedplate.errors import AuthenticationError, DeniedError
from bedplate.http import Request

COOKIE = "bedplate_session"
CSRF_HEADER = "x-bedplate-csrf"
TICKET_HEADER = "x-bedplate-ticket"
_SAFE = ("GET", "HEAD")
_APIS = ("/api/", "/ajax-api/")


def presented(request: Request) -> str:
    """The key or session token that a request carries; a key in the header wins over a cookie.

    Clients that know user and password only give the key as the password; :func:`claimed` is who they say they are.

    A change that comes with a cookie must carry the session's form token as well, since the cookie alone proves only
    which browser asks, not which page: as a header, or as the field of a page's own form, which the page checks.

    Raises:
        AuthenticationError: it carries none.
        DeniedError: a change with a cookie and without the form token.
    """
    bearer = request.bearer
    if bearer:
        return bearer
    basic = request.basic
    if basic is not None:
        return basic[1]
    token = request.cookie(COOKIE)
    if not token:
        raise AuthenticationError("no key or session was presented", fix="send a key, or sign in: bedplate login")
    form = request.headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"
    if request.method not in _SAFE and (not form or request.path.startswith(_APIS)):
        check_csrf(token, request.headers.get(CSRF_HEADER, ""))
    return token


def ticket(request: Request) -> str | None:
    """The ticket that a request carries instead of a key or a session."""
    return None if "authorization" in request.headers else request.headers.get(TICKET_HEADER)


def claimed(request: Request) -> str | None:
    """The user name that came with a password, None if none did or it is empty: the key says who it is."""
    basic = None if request.bearer else request.basic
    return (basic[0] or None) if basic is not None else None


def csrf(token: str) -> str:
    """The form token of a session: only who holds the session can compute it."""
    return hmac.new(token.encode(), b"bedplate form", hashlib.sha256).hexdigest()


def check_csrf(token: str, given: str) -> None:
    """Accept a form token.

    Raises:
        DeniedError: it is not the session's.
    """
    if not hmac.compare_digest(csrf(token).encode(), given.encode()):
        raise DeniedError("the form does not belong to this session", fix="load the page again and repeat it")


def cookie(token: str) -> tuple[str, str]:
    """The header that gives a browser its session, until the browser is closed or the session ends."""
    return ("set-cookie", f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")


def no_cookie() -> tuple[str, str]:
    """The header that takes it back."""
    return ("set-cookie", f"{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
