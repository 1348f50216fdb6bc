"""The language of the corpus: one step is one call, and may keep parts of its reply for later steps.

``"$name"`` inside a path, query, body or header stands for what an earlier step kept under that name; each server has
its own. A path without a leading slash lies under ``/api/2.0/mlflow/``, unless it is a whole address that was kept:
there goes no key. Headers that were kept together have ``"$name"`` for their name.
"""

import re
from typing import Any

import msgspec

PREFIX = "/api/2.0/mlflow/"
ETAG = "@etag"
"""What a step keeps by this is the header of that name."""
_NAME = re.compile(r"\$([a-z][a-z0-9_]*)")

Kept = dict[str, Any]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One call. ``differs`` names the entry of the differences table that allows another reply, and ``ours`` is that
    reply: the status and the ``error_code`` (None: no error). ``unordered``: what is listed has no order that two
    servers could share, as when it is ordered by an id."""

    method: str
    path: str
    query: tuple[tuple[str, Any], ...] = ()
    body: Any = None
    raw: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    keep: dict[str, str] = {}
    unordered: bool = False
    differs: str | None = None
    ours: tuple[int, str | None] | None = None

    @property
    def call(self) -> str:
        """Method and path, with names in place of what was kept: how a person tells one step from another."""
        return f"{self.method} {self.path}"

    def headers_with(self, kept: "Kept") -> dict[str, str]:
        """The headers, with what was kept in place of names."""
        headers: dict[str, str] = {}
        for name, value in self.headers:
            whole = fill(name, kept)
            headers |= whole if isinstance(whole, dict) else {name: fill(value, kept)}
        return headers

    def show(self) -> str:
        """The whole step on one line."""
        parts = [self.call]
        if self.query:
            parts.append("?" + "&".join(f"{name}={value}" for name, value in self.query))
        if self.body is not None:
            parts.append(msgspec.json.encode(self.body).decode())
        if self.raw is not None:
            parts.append(repr(self.raw))
        line = " ".join(parts)
        return line if len(line) <= 400 else f"{line[:400]}…"


def _step(method: str, path: str, options: dict[str, Any]) -> Step:
    if not path.startswith(("/", "$")):
        path = PREFIX + path
    return Step(method=method, path=path, **options)


def post(path: str, body: Any = None, **options: Any) -> Step:
    """POST ``body`` as JSON; ``raw`` in the options sends bytes instead."""
    return _step("POST", path, {"body": body, **options})


def patch(path: str, body: Any = None, **options: Any) -> Step:
    """PATCH ``body`` as JSON."""
    return _step("PATCH", path, {"body": body, **options})


def delete(path: str, body: Any = None, **options: Any) -> Step:
    """DELETE, with ``body`` as JSON."""
    return _step("DELETE", path, {"body": body, **options})


def put(path: str, raw: bytes, **options: Any) -> Step:
    """PUT bytes."""
    return _step("PUT", path, {"raw": raw, **options})


def get(path: str, query: dict[str, Any] | None = None, **options: Any) -> Step:
    """GET; a list in ``query`` is given once for each item."""
    pairs = []
    for name, value in (query or {}).items():
        pairs.extend((name, item) for item in value) if isinstance(value, list) else pairs.append((name, value))
    return _step("GET", path, {"query": tuple(pairs), **options})


def differs(step: Step, name: str, status: int = 400, code: str | None = "INVALID_PARAMETER_VALUE") -> Step:
    """The step, with the entry of the table that its reply here differs by, and that reply."""
    return msgspec.structs.replace(step, differs=name, ours=(status, code))


def strict(step: Step) -> Step:
    """The step, refused here because a value is not of its type: MLflow drops the value and says nothing."""
    return differs(step, "strict-types")


def fill(value: Any, kept: Kept) -> Any:
    """``value`` with what was kept in place of ``$name``. A name nobody kept is a mistake in the corpus."""
    if isinstance(value, str):
        whole = _NAME.fullmatch(value)
        if whole:
            return kept[whole[1]]
        return _NAME.sub(lambda match: str(kept[match[1]]), value)
    if isinstance(value, dict):
        return {name: fill(item, kept) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, kept) for item in value]
    return value


def find(reply: Any, path: str) -> Any:
    """The part of a reply at ``a.b.0.c``; a text that no server ever gives where there is none."""
    for part in path.split("."):
        try:
            reply = reply[int(part)] if part.lstrip("-").isdigit() and isinstance(reply, list) else reply[part]
        except (KeyError, IndexError, TypeError):
            return "nothing-was-kept"
    return reply
