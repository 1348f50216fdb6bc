"""Requests of every route with something hostile in one place at a time: each parameter, field, header and body.

A place is found where a route declares it, and, for pages, which declare no message, where its handler looks. What a
place holds when it is not attacked comes from :func:`usual`; one that is not named there is one that nobody thought of.
"""

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
import pytest

from bedplate.http import Request, Route
from tests import sample
from tests.api.routes import PARAMETER
from tests.team import SEALED, Team

WORD = "plain"
_PAIR = {"key": "mark", "value": "plain"}
_METRIC = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 1}
_DATASET = {"name": "d", "digest": "d1", "source_type": "local", "source": "s", "schema": "{}", "profile": "{}"}


_TEXTS = (
    "action", "alias", "artifact_directory_path", "artifact_file_path", "artifact_location", "dataset_digest",
    "dataset_name", "default_artifact_root", "description", "environment", "expected", "filter", "gate",
    "group", "holder", "key", "label", "link", "metric_key", "model_json", "model_type", "page_token", "policy",
    "prediction", "principal", "purpose", "reason", "resource", "rule", "run_link", "run_name", "series",
    "source_run_id", "text", "trace_archival_config", "upload_id", "user_id", "username", "file", "level", "p0",
    "p1", "p2", "p3", "before", "column", "order", "page", "after", "limit", "other", "seen", "steps",
    "model_id", "feature_view", "decision", "what", "comparison", "id", "at", "view", "left", "under", "axis", "scale",
    "smooth", "value", "scoring", "table", "to",
    "q", "who", "policies", "dataset",
)  # fmt: skip
_LISTS = (
    "groups", "order_by", "readers", "stages", "writers", "outcomes", "columns", "keep",
)  # fmt: skip
_NUMBERS = (
    "end_step", "start_step", "max_results", "number", "num_parts", "start_time", "step", "timestamp",
    "end_time", "index",
)  # fmt: skip
_MARKS = (
    "allow_deleted", "archive", "archive_existing", "archive_existing_versions", "is_admin", "replace",
    "service", "shared", "gates_passed", "only",
)  # fmt: skip


def usual(team: Team, run: str, model: str, csrf: str) -> dict[str, Any]:
    """What stands in each place. ``/prefix name`` is for addresses that begin so, ``name`` for all others."""
    return {
        **dict.fromkeys(_TEXTS, WORD),
        **{name: [WORD] for name in _LISTS},
        **dict.fromkeys(_NUMBERS, 1),
        **dict.fromkeys(_MARKS, False),
        "experiment_id": "0", "experiment": "0", "experiment_name": "Default", "experiment_ids": ["0"],
        "run_id": run, "run": run, "run_ids": [run], "run_uuid": run, "model": model, "csrf": csrf,
        "name": "known", "new_name": "renamed", "version": "1", "stage": "Staging", "workspace_name": "absent",
        "path": f"0/{run}/artifacts/kept.txt", "digest": sample.digest("nothing"), "upload": "upl_" + "0" * 26,
        "tags": [_PAIR], "params": [_PAIR], "metrics": [_METRIC], "parts": [{"part_number": 1, "etag": "x"}],
        "datasets": [{"dataset": _DATASET, "tags": [_PAIR]}], "models": [{"model_id": model, "step": 1}],
        "source": f"runs:/{run}/m", "status": "RUNNING", "expires": "2030-01-01T00:00:00Z",
        "view_type": "ACTIVE_ONLY", "run_view_type": "ACTIVE_ONLY", "mode": "RESTRICT", "workspace": "default",
        "keys": [1],
        "quota": {"rate": 1.0, "burst": 1, "day": 1, "month": 1},
        "/api/2.0/mlflow/logged-models/search datasets": [{"dataset_name": "d", "dataset_digest": "d1"}],
        "/api/v1/use-cases name": sample.NAME,
        "/use-cases name": sample.NAME,
        "from": "0", "use_case": sample.NAME, "budget": "2000 USD",
        "/api/v1/users name": "victim",
        "/api/v1/workspaces name": "absent",
    }  # fmt: skip


class Loaded:
    """What makes a file when it is loaded by a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


class Wanted(NamedTuple):
    """What is sent: texts, values of other types, and whole bodies with what each says that it is."""

    texts: tuple[str, ...]
    others: tuple[Any, ...]
    bodies: tuple[tuple[str, bytes], ...]

    def sample(self) -> "Wanted":
        """One of each kind."""
        return Wanted(self.texts[:3], self.others[:1], self.bodies[:1])


def everything(team: Team, canary: Path, made: Path) -> Wanted:
    """All there is; ``canary`` is a file that nobody may read, ``made`` one that would be made by what is loaded."""
    loaded = pickle.dumps(Loaded(str(made)))
    yaml = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{made}]]".encode()
    json_kind, form_kind = "application/json", "application/x-www-form-urlencoded"
    texts = (
        "'; DELETE FROM runs; --",
        "../../../../../../etc/passwd",
        "\u202e\U0010ffffa\x00b\r\nset-cookie: owned=1",
        f"file://{canary}",
        "<script>{{ 7*7 }}",
        "' OR '1'='1' --",
        "x') UNION SELECT id, secret_hash FROM keys --",
        '" OR ""="',
        "%' ESCAPE '",
        "metrics.`x` = 1; DROP TABLE runs",
        "..\\..\\keys\\admin.key",
        "..%2f..%2fkeys%2fadmin.key",
        "/etc/passwd",
        str(canary),
        "w" * 9_000,
        team.secret.run,
        team.secret.experiment,
        team.secret.model,
        "secret",
        team.secret.path,
        SEALED,
    )
    others: tuple[Any, ...] = (2**63, {"$ne": None}, None, True, -1, 1.5e308, "", [], {}, [[]], [WORD] * 300)
    bodies = (
        (json_kind, loaded),
        (json_kind, b"[" * 100_000),
        ("application/octet-stream", loaded),
        ("application/x-python-pickle", loaded),
        ("application/yaml", yaml),
        (json_kind, yaml),
        (json_kind, b'{"a":' * 50_000),
        (json_kind, b'{"name": 1' + b"0" * 5_000 + b"}"),
        (json_kind, b'{"name": "\xff\xfe\xed\xa0\x80"}'),
        (json_kind, b'{"name": "\\ud800"}'),
        (json_kind, b'{"name": NaN, "__proto__": {}, "__class__": {"__init__": "x"}}'),
        (form_kind, b"a=1&a=2&" + b"x" * 5_000),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; filename="../../x"\r\n\r\ny'),
    )
    return Wanted(texts, others, bodies)


class Sent(NamedTuple):
    """One request, to be sent as it stands."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes
    what: str


class Places:
    """Where a route takes something from its caller."""

    def __init__(self, route: Route, known: dict[str, Any]) -> None:
        self.route, self._known = route, known
        self.unknown: set[str] = set()
        self.path = {m[1]: self._usual(m[1]) for m in PARAMETER.finditer(route.path)}
        self.headers = {given.header: given.default for given in route.headers}
        self.query: dict[str, Any] = {given.name: given.default for given in route.queries}
        self.form: dict[str, Any] = {}
        self.body: dict[str, Any] | None = None
        if route.request_type is not None:
            fields = [field.encode_name for field in msgspec.structs.fields(route.request_type)]
            message = {name: self._usual(name) for name in fields}
            if route.method == "GET":
                self.query |= message
            else:
                self.body = message

    def looked_at(self, query: set[str], form: set[str]) -> bool:
        """Add the places where the handler looked; whether there were new ones."""
        new = (query - self.query.keys(), form - self.form.keys())
        self.query |= {name: self._usual(name) for name in new[0]}
        self.form |= {name: self._usual(name) for name in new[1]}
        return any(new)

    def plain(self) -> Sent:
        """The request with nothing hostile in it."""
        return self._request("nothing")

    def hostile(self, wanted: Wanted) -> Iterator[Sent]:
        """A request for each place and each text or value that is hostile there."""
        for name, kept in self.path.items():
            for text in wanted.texts:
                self.path[name] = text
                yield self._request(f"path {name}: {text[:60]!r}")
            self.path[name] = kept
        for place, values in (("header", self.headers), ("query", self.query), ("form", self.form)):
            for name, kept in list(values.items()):
                for text in wanted.texts:
                    if place != "header" or (text.isascii() and text.isprintable()):
                        values[name] = text
                        yield self._request(f"{place} {name}: {text[:60]!r}")
                values[name] = kept
        if self.body is not None:
            before = self.body
            for where, body in _changed(before, (*wanted.texts, *wanted.others)):
                self.body = body
                yield self._request(f"body {where}")
            self.body = before
        if self.route.method != "GET":
            for kind, content in wanted.bodies:
                plain = self._request(f"a body of {kind}: {content[:40]!r}")
                yield plain._replace(headers={**plain.headers, "content-type": kind}, content=content)

    def _usual(self, name: str) -> Any:
        of = [key for key in self._known if key.endswith(f" {name}") and self.route.path.startswith(key.split()[0])]
        key = max(of, key=len, default=name)
        if key not in self._known:
            self.unknown.add(name)
            return WORD
        return copy.deepcopy(self._known[key])

    def _request(self, what: str) -> Sent:
        # A text stands in a path as one segment, or as several where the route takes several.
        def segment(match: Any) -> str:
            return quote(str(self.path[match[1]]), safe="/" if match[2] == "path" else "")

        url, headers, content = PARAMETER.sub(segment, self.route.path), dict(self.headers), b""
        if self.query:
            url += "?" + urlencode(self.query, doseq=True)
        if self.body is not None:
            headers["content-type"], content = "application/json", json.dumps(self.body).encode()
        elif self.form:
            headers["content-type"], content = "application/x-www-form-urlencoded", urlencode(self.form).encode()
        return Sent(self.route.method, url, headers, content, f"{self.route.method} {self.route.path} {what}")


def _changed(value: Any, values: tuple[Any, ...], where: str = "") -> Iterator[tuple[str, Any]]:
    """The value with another one in place of it or of one of its parts."""
    for other in values if where else ():
        yield f"{where}: {str(other)[:60]!r}", other
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in list(parts):
        for text, changed in _changed(part, values, f"{where}.{name}"):
            copied = copy.copy(value)
            copied[name] = changed
            yield text, copied


class Looks:
    """What handlers look at of queries and forms."""

    def __init__(self) -> None:
        self.query: set[str] = set()
        self.form: set[str] = set()

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Looks"]:
        """Note them in the block."""
        query, lists, form = Request.query.fget, Request.query_lists.fget, Request.form  # type: ignore[attr-defined]
        with monkeypatch.context() as patched:
            patched.setattr(Request, "query", property(lambda own: _Noting(query(own), self.query)))
            patched.setattr(Request, "query_lists", property(lambda own: _Noting(lists(own), self.query)))
            patched.setattr(Request, "form", lambda own: _Noting(form(own), self.form))
            yield self


_lock = threading.Lock()


class _Noting(dict[str, Any]):
    """A dictionary that notes what it is asked for."""

    def __init__(self, values: dict[str, Any], noted: set[str]) -> None:
        super().__init__(values)
        self._noted = noted

    def _note(self, name: str) -> None:
        with _lock:
            self._noted.add(name)

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        self._note(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._note(str(name))
        return super().__contains__(name)
