"""Play the same steps on two servers, and say every part of a reply that is not the same.

Compared are status, ``error_code`` of an error (not its text), and the whole body of any other reply, types included.
What no two servers can share is replaced before: an id by its place in the order in which ids appeared, the time of the
server by ``<time>``, a name made up by the server by ``<name>``, a page token by ``<token>``.
"""

import http.client
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tests.mlflow.differences import DIFFERENCES, Difference
from tests.mlflow.steps import ETAG, Kept, Step, fill, find

_HEX = re.compile(r"[0-9a-f]{32}")
_ARTIFACTS = re.compile(r"(mlflow-artifacts:/+(?:workspaces/[^/]+/)?)([1-9][0-9]*)(?=/|$)")
_MADE_UP = re.compile(r"[a-z]+-[a-z]+-[0-9]{1,4}")
_ID = re.compile(r"<id [0-9]+>")
_DAY = 86_400_000
_EXPERIMENTS = frozenset({"experiment_id", "experiment_ids"})
_TOKENS = frozenset({"next_page_token", "upload_id"})
_NO_ORDER = frozenset(
    {
        *("dataset_inputs", "model_inputs", "model_outputs", "dataset_summaries"),
        *("aliases", "latest_versions", "latest_version"),
    }
)
"""Lists that a server may give in any order, besides every list of entries with a ``key`` of their own."""


class Server(msgspec.Struct, frozen=True):
    """Where to send the calls, and what goes with each of them."""

    address: str
    headers: dict[str, str] = {}


class Reply(msgspec.Struct):
    """What came back. ``body`` is tidied JSON, or the text of what is not JSON."""

    status: int
    json: bool
    body: Any
    type: str = ""
    etag: str = ""

    @property
    def error_code(self) -> str | None:
        """The code of an error; None for any other reply."""
        if self.status < 400 or not isinstance(self.body, dict):
            return None
        return self.body.get("error_code")


class Caller:
    """One kept-alive connection. Paths go out as they are written: no client mends them on the way."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=60)

    def call(self, step: Step, kept: Kept) -> Reply:
        """The reply, as it came."""
        path = quote(fill(step.path, kept), safe="/%?=&:;,+~!*'()@")
        if step.query:
            path += "?" + urlencode([(name, fill(value, kept)) for name, value in step.query])
        address = urlsplit(path)
        own = not address.netloc
        headers = {**(self._server.headers if own else {}), **step.headers_with(kept)}
        body = step.raw
        if body is None and step.body is not None:
            body = json.dumps(fill(step.body, kept)).encode()
            headers.setdefault("content-type", "application/json")
        connection = self._connection if own else http.client.HTTPConnection(address.netloc, timeout=60)
        try:
            connection.request(step.method, path.removeprefix(f"http://{address.netloc}"), body, headers)
            with connection.getresponse() as response:
                kind = response.getheader("content-type", "")
                return _reply(response.status, kind, response.read(), response.getheader("etag", ""))
        except (ConnectionError, http.client.HTTPException) as error:  # a finding like any other
            self._connection.close()
            return _reply(0, "", repr(error).encode(), "")
        finally:
            if not own:
                connection.close()

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()


def play(server: Server, steps: Iterable[Step]) -> list[Reply]:
    """Make every call, one after the other."""
    kept: Kept = {}
    tidy, caller, replies = Tidy(), Caller(server), []
    try:
        for step in steps:
            reply = caller.call(step, kept)
            for name, path in step.keep.items():
                kept[name] = reply.etag if path == ETAG else find(reply.body, path)
            reply.body = tidy(reply.body)
            if step.unordered and isinstance(reply.body, dict):
                reply.body = {name: _by_ids(item) for name, item in reply.body.items()}
            replies.append(reply)
    finally:
        caller.close()
    return replies


def _reply(status: int, kind: str, body: bytes, etag: str) -> Reply:
    kind = kind.partition(";")[0]
    if kind == "application/json" and body:
        return Reply(status, True, json.loads(body), kind, etag)
    return Reply(status, False, body.decode("utf-8", errors="backslashreplace"), kind, etag)


class Tidy:
    """Takes out of replies what two servers cannot share. It remembers ids, so that one id has one name throughout."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._experiments: dict[str, str] = {}

    def __call__(self, value: Any, key: str = "") -> Any:
        """``value`` as it can be compared; ``key`` is the field it stands in."""
        if isinstance(value, dict):
            return {name: self(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return _in_order(key, [self(item, key) for item in value])
        if isinstance(value, int) and abs(value - time.time() * 1000) < _DAY:
            return "<time>"
        return self._text(value, key) if isinstance(value, str) else value

    def _text(self, value: str, key: str) -> str:
        if key in _TOKENS and value:
            return "<token>"
        if key in _EXPERIMENTS:
            return self._experiment(value)
        if _MADE_UP.fullmatch(value):
            return "<name>"
        value = _ARTIFACTS.sub(lambda match: match[1] + self._experiment(match[2]), value)
        return _HEX.sub(lambda match: self._ids.setdefault(match[0], f"<id {len(self._ids) + 1}>"), value)

    def _experiment(self, value: str) -> str:
        if value == "0":
            return value
        return self._experiments.setdefault(value, f"<experiment {len(self._experiments) + 1}>")


def _in_order(key: str, items: list[Any]) -> list[Any]:
    """``items`` in an order of their own, where the server may choose any."""
    keyed = all(isinstance(item, dict) and "key" in item for item in items)
    if key in _NO_ORDER or (keyed and len({item["key"] for item in items}) == len(items)):
        return _sorted(items)
    return items


def _sorted(value: Any) -> Any:
    return sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value


def _by_ids(value: Any) -> Any:
    return sorted(value, key=lambda item: _ID.findall(json.dumps(item))) if isinstance(value, list) else value


class Finding(msgspec.Struct, frozen=True):
    """One part of one reply that is not the same."""

    number: int
    step: Step
    field: str
    theirs: Any
    ours: Any
    allowed: str | None = None


_FIELDS_SHOWN = 3


def report(found: Sequence[Finding]) -> str:
    """Findings for the person who reads the failure: each call once, with its first fields."""
    lines: list[str] = []
    for number, several in itertools.groupby(found, lambda finding: finding.number):
        fields = list(several)
        lines.append(f"{number}. {fields[0].step.show()}")
        for finding in fields[:_FIELDS_SHOWN]:
            lines.append(f"     {finding.field}")
            lines.append(f"       MLflow:   {_short(finding.theirs)}")
            lines.append(f"       Bedplate: {_short(finding.ours)}")
        if len(fields) > _FIELDS_SHOWN:
            lines.append(f"     and {len(fields) - _FIELDS_SHOWN} fields more")
    return "\n".join(lines)


def findings(
    steps: Sequence[Step], theirs: Sequence[Reply], ours: Sequence[Reply], table: Sequence[Difference] = DIFFERENCES
) -> list[Finding]:
    """Everything that is not the same; ``allowed`` names the entry of the table that allows it."""
    found: list[Finding] = []
    for number, (step, their, our) in enumerate(zip(steps, theirs, ours, strict=True), 1):
        for field, a, b in _step_findings(step, their, our):
            found.append(Finding(number, step, field, a, b, _allowing(step, field, (a, b), table)))
    return found


def _step_findings(step: Step, theirs: Reply, ours: Reply) -> Iterator[tuple[str, Any, Any]]:
    if step.differs is not None:
        yield from _declared(step, theirs, ours)
        return
    if theirs.status != ours.status:
        yield "internal error" if theirs.status == 500 else "status", _said(theirs), _said(ours)
        return
    if ours.status >= 400:
        # An error that MLflow's web framework answers by itself has no code: a page, a line of text, or other JSON.
        if theirs.error_code and theirs.error_code != ours.error_code:
            yield "error_code", _said(theirs), _said(ours)
        if not _explained(ours, theirs):
            yield "message", "an error_code and a message", ours.body
        return
    if theirs.json != ours.json and not (theirs.body == ours.body == ""):
        yield "content-type", theirs.type, ours.type
    yield from unequal(theirs.body, ours.body, "")


def _explained(ours: Reply, theirs: Reply) -> bool:
    """Whether an error of ours is one: with a code and a text. Outside MLflow's API it has our own form."""
    if not isinstance(ours.body, dict) or not str(ours.body.get("message", "")).strip():
        return False
    return bool(ours.error_code) or (not theirs.error_code and "error" in ours.body)


def _declared(step: Step, theirs: Reply, ours: Reply) -> Iterator[tuple[str, Any, Any]]:
    """A step whose reply is known to differ: ours must be what the step says, and theirs must not."""
    assert step.ours is not None, f"{step.call}: say what our reply is"
    if (ours.status, ours.error_code) != step.ours:
        yield "declared", step.ours, _said(ours)
    elif (theirs.status, theirs.error_code) == step.ours and (
        ours.status >= 400 or not any(unequal(theirs.body, ours.body, ""))
    ):
        yield "declared", "this differs no more: take the mark away", _said(ours)
    else:
        yield "differs", _said(theirs), _said(ours)


def unequal(theirs: Any, ours: Any, field: str) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf that is not the same, with its place (``run.data.tags.0.value``)."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted(theirs.keys() | ours.keys()):
            yield from unequal(theirs.get(name, _ABSENT), ours.get(name, _ABSENT), f"{field}.{name}".lstrip("."))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            yield from unequal(a, b, f"{field}.{index}".lstrip("."))
    elif type(theirs) is not type(ours) or theirs != ours:
        yield field or "body", theirs, ours


_ABSENT = "<absent>"


def _allowing(step: Step, field: str, values: tuple[Any, Any], table: Sequence[Difference]) -> str | None:
    if field == "differs":
        names = [entry.name for entry in table if entry.name == step.differs]
        assert names, f"{step.call}: {step.differs} is not in the table of differences"
        return names[0]
    for entry in table:
        here = any(fnmatchcase(step.call, call) and fnmatchcase(field, place) for call, place in entry.fields)
        if here and (not entry.values or values in entry.values):
            return entry.name
    return None


def _said(reply: Reply) -> str:
    """Status, code and text of a reply, for people."""
    if reply.status < 400:
        return str(reply.status)
    text = reply.body.get("message", "") if isinstance(reply.body, dict) else reply.body
    return f"{reply.status} {reply.error_code or ''} ({str(text)[:160]})"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 300 else f"{text[:300]}…"
