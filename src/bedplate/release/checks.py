"""What names, tags, aliases and sources of the registry may be: MLflow's limits, and none that would open a door.

A name never becomes a path here. The rules about paths are kept because clients that MLflow accepts rely on them, and
because a client may well make a path of a name.
"""

import posixpath
import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from bedplate.errors import DeniedError, InputError
from bedplate.store.registry_search import IS_PROMPT

KEY_LENGTH = 250
VALUE_LENGTH = 100_000
ALIAS_LENGTH = 255
NAME_LENGTH = 256
SOURCE_LENGTH = 2000
DESCRIPTION_LENGTH = 100_000
RESERVED = "bedplate."
"""Tags that begin like this are ours: what they say is acted on."""
APPROVERS = "bedplate.approvers."
"""Tag of a registered model: who must agree to a version in the environment that follows, as in ``usecase.yaml``."""
SAFETY = "bedplate.safety"
"""Tag of a version whose files run code when they are loaded: ``unsafe``."""
REASON = "bedplate.unsafe_because"

PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What clients give as the source of a prompt: it has no files."""

_KEY = re.compile(r"[/\w.\-:  ]*")
_ALIAS = re.compile(r"[\w\-]*")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_HOSTS = frozenset({"ftp", "sftp", "hdfs", "viewfs", "http", "https", "r2", "b2", "abfss"})
_ARTIFACTS = "mlflow-artifacts"


def model_name(name: str, parameter: str = "name") -> str:
    """``name``, if a registered model can have it.

    Raises:
        InputError: it cannot.
    """
    if not name.strip():
        raise InputError(f"the parameter {parameter} is missing or empty", fix="give the model a name")
    if "/" in name or ":" in name or _leads_elsewhere(name) or not name.isprintable():
        raise InputError(
            f"{name!r} cannot name a registered model",
            where=parameter,
            fix="use no '/', no ':', and nothing that a path would resolve to something else",
        )
    _within(parameter, name, NAME_LENGTH)
    return name


def tag(key: str, value: str) -> tuple[str, str]:
    """A tag that can be kept.

    Raises:
        InputError: key or value is malformed or too long.
    """
    tag_key(key)
    _within("key", key, KEY_LENGTH)
    _within("value", value, VALUE_LENGTH)
    if "\x00" in value:
        raise InputError("a tag's value cannot hold a null character", where=key, fix="leave it out")
    return key, value


def tag_key(key: str) -> str:
    """``key``, if a tag can have it.

    Raises:
        InputError: it cannot.
    """
    if not _KEY.fullmatch(key) or _leads_elsewhere(key):
        raise InputError(
            f"{key!r} cannot be the key of a tag",
            where="key",
            fix="use letters, digits, '_', '-', '.', ':', '/' and spaces, as no path that resolves to another",
        )
    return key


def free_tag(key: str) -> None:
    """Refuse a tag whose meaning is ours.

    Raises:
        DeniedError: it is reserved.
    """
    if key.startswith(RESERVED):
        raise DeniedError(f"tags that begin with {RESERVED!r} are set by the server", where=key, fix="use another key")


def alias(name: str) -> str:
    """``name``, if an alias can have it.

    Raises:
        InputError: it cannot.
    """
    if not name:
        raise InputError("an alias cannot be empty", where="alias", fix="give it a name")
    if not _ALIAS.fullmatch(name):
        raise InputError(f"{name!r} cannot name an alias", where="alias", fix="use letters, digits, '_' and '-'")
    _within("alias", name, ALIAS_LENGTH)
    return name


def new_alias(name: str) -> str:
    """``name``, if an alias can be set under it.

    Raises:
        InputError: it cannot, or it is what something else is called.
    """
    alias(name)
    if name.lower() == "latest" or _VERSION_ALIAS.fullmatch(name):
        raise InputError(f"the alias {name!r} is reserved", where="alias", fix="choose another name")
    return name


def version_number(text: str) -> int:
    """The number of a version as clients write it.

    Raises:
        InputError: it is none.
    """
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"a version must be a whole number, not {text!r}", where="version") from None
    if not -(1 << 31) <= number < 1 << 31:
        raise InputError(f"there is no version {text}", where="version")
    return number


def description(text: str | None) -> str | None:
    """``text``, if it is short enough.

    Raises:
        InputError: it is too long.
    """
    if text is not None:
        _within("description", text, DESCRIPTION_LENGTH)
        if "\x00" in text:
            raise InputError("a description cannot hold a null character", fix="leave it out")
    return text


def is_prompt(tags: Mapping[str, str]) -> bool:
    """Whether tags say that this is a prompt."""
    return tags.get(IS_PROMPT, "").lower() == "true"


def _within(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InputError(f"{what!r} is longer than {most} characters", where=what, fix="shorten it")


def _leads_elsewhere(name: str) -> bool:
    normal = posixpath.normpath(name)
    return normal != name or normal == "." or normal.startswith(("..", "/"))


# -------------------------------------------------------------------------------------------------------------- sources


class Source(NamedTuple):
    """A source as its URI says it: of a run (``runs:``), a logged or registered model (``models:``), or a location."""

    uri: str
    kind: str
    """``runs``, ``logged`` (a model id), ``registered`` (a name), ``artifacts``, ``prompt`` or ``elsewhere``."""
    name: str = ""
    """The run's id, the logged model's id, or the registered model's name."""
    suffix: str = ""
    """What follows a registered model's name: a version, a stage, ``latest``, or ``@`` and an alias."""


def source(uri: str) -> Source:
    """What a client named as the source of a version.

    Raises:
        InputError: it is a path of this machine, names a host that we would have to ask, or leads out of its place.
    """
    if len(uri) > SOURCE_LENGTH or not uri.isprintable():
        raise _refused(uri[:200], f"it is longer than {SOURCE_LENGTH} characters or holds some that cannot be printed")
    try:
        parsed = urllib.parse.urlsplit(uri)
    except ValueError as error:
        raise _refused(uri, "it is no address") from error
    scheme = parsed.scheme.lower()
    if scheme in ("", "file"):
        raise _refused(uri, "files of the server's machine are no source; log the model to a run")
    if scheme in _HOSTS or (scheme == _ARTIFACTS and parsed.netloc):
        raise _refused(uri, "it names a host; models are taken from runs, logged models and object stores")
    _check_path(uri, parsed.path)
    if scheme in ("runs", "models") and parsed.netloc:
        raise _refused(uri, "runs and models of another server are no source")
    parts = parsed.path.lstrip("/").split("/")
    if scheme == "runs":
        if not parts[0]:
            raise _refused(uri, "it names no run")
        return Source(uri, "runs", parts[0])
    if scheme == "models":
        return _model_source(uri, parts)
    return Source(uri, "artifacts" if scheme == _ARTIFACTS else "elsewhere")


def _model_source(uri: str, parts: list[str]) -> Source:
    if len(parts) > 2 or not parts[0].strip() or (len(parts) == 2 and not parts[1].strip()):
        raise _refused(uri, "it should read models:/<id>, models:/<name>/<version> or models:/<name>@<alias>")
    if len(parts) == 2:
        return Source(uri, "registered", parts[0], parts[1])
    name, at, alias_name = parts[0].rpartition("@")
    if at:
        if not name or not alias_name.strip():
            raise _refused(uri, "it names no model or no alias")
        return Source(uri, "registered", name, f"@{alias_name}")
    return Source(uri, "logged", parts[0])


def _check_path(uri: str, path: str) -> None:
    plain = uri
    while (unquoted := urllib.parse.unquote_plus(plain)) != plain:
        plain = unquoted
    pieces = re.split(r"[/\\]", plain)
    if "\x00" in plain or ".." in pieces or "." in pieces or not plain.isprintable():
        raise _refused(uri, "its path leads out of the place that it names")
    if not path.startswith("/"):
        raise _refused(uri, "its path is not absolute")


def within(uri: str, root: str) -> bool:
    """Whether a location lies at or below another one, segment by segment, however either is escaped."""
    (scheme, host, parts), (root_scheme, root_host, root_parts) = _parts(uri), _parts(root)
    same_place = (scheme, host) == (root_scheme, root_host)
    return same_place and bool(root_parts) and parts[: len(root_parts)] == root_parts


def plain(uri: str) -> str:
    """A location with single slashes and nothing escaped: two ways to write one place become one."""
    scheme, host, parts = _parts(uri)
    return f"{scheme}:{f'//{host}' if host else ''}/{'/'.join(parts)}"


def _parts(uri: str) -> tuple[str, str, tuple[str, ...]]:
    parsed = urllib.parse.urlsplit(uri)
    pieces = []
    for piece in filter(None, parsed.path.split("/")):
        plain = piece
        while (unquoted := urllib.parse.unquote(plain)) != plain:
            plain = unquoted
        pieces.append(plain)
    return parsed.scheme.lower(), parsed.netloc.lower(), tuple(pieces)


def _refused(uri: str, why: str) -> InputError:
    return InputError(
        f"{uri!r} cannot be the source of a model version: {why}",
        where="source",
        fix="give runs:/<run>/<path>, models:/<id>, or the artifact location of a run or model, with its id",
    )
