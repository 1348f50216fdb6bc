"""What clients may log: names, lengths, numbers, and how much at once. The limits are those of MLflow 3.17."""

import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from bedplate.errors import InputError

MOST_METRICS = 1_000
MOST_PARAMS = 100
MOST_TAGS = 100
MOST_TOGETHER = 1_000
LONGEST_KEY = 250
LONGEST_PARAM = 6_000
LONGEST_TAG = 8_000
LONGEST_EXPERIMENT_TAG = 20_000
LONGEST_EXPERIMENT_NAME = 500
LONGEST_LOCATION = 2_048
_MOST_SEEN = 10_000
_seen: set[str] = set()
"""Names of metrics that were checked and found good."""
_NAME = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")


class Metric(NamedTuple):
    """One value to log; ``timestamp`` is milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int = 0


class Param(NamedTuple):
    """One parameter of a run."""

    key: str
    value: str


class Tag(NamedTuple):
    """One tag of a run or an experiment."""

    key: str
    value: str


class Batch(NamedTuple):
    """What is logged to one run together, checked."""

    metrics: Sequence[Metric]
    params: Sequence[Param]
    tags: Sequence[Tag]


def batch(metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[Tag] = ()) -> Batch:
    """Check what is to be logged together. Too long a param or tag is cut, as MLflow does.

    Raises:
        InputError: a name, number or count is out of bounds, or a param comes twice; the message says which.
    """
    if not all(map(_plain, metrics)):
        for index, each in enumerate(metrics):
            metric(each, f"metrics[{index}]")
    params = [param(each, f"params[{index}]") for index, each in enumerate(params)]
    tags = [tag(each, f"tags[{index}]") for index, each in enumerate(tags)]
    _count("metrics", MOST_METRICS, len(metrics))
    _count("params", MOST_PARAMS, len(params))
    _count("tags", MOST_TAGS, len(tags))
    _count("metrics, params, and tags", MOST_TOGETHER, len(metrics) + len(params) + len(tags))
    keys = [each.key for each in params]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"these params come twice: {', '.join(twice)}", fix="give one value for each key")
    return Batch(metrics, params, tags)


def metric(given: Metric, path: str = "") -> Metric:
    """Check one value to log.

    Raises:
        InputError: its name, value, time or step is not as it must be.
    """
    if _plain(given):
        return given
    key, value, timestamp, step = given
    name(key, _join(path, "name"))
    text(key, _join(path, "name"), LONGEST_KEY)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(_join(path, "value"), value, "it must be a 64-bit floating point number")
    if isinstance(timestamp, bool) or not isinstance(timestamp, int) or not 0 <= timestamp < 2**63:
        raise _invalid(_join(path, "timestamp"), timestamp, "it must be a whole number of milliseconds, not negative")
    if isinstance(step, bool) or not isinstance(step, int) or not -(2**63) <= step < 2**63:
        raise _invalid(_join(path, "step"), step, "it must be a 64-bit integer")
    if len(_seen) >= _MOST_SEEN:
        _seen.clear()
    _seen.add(key)
    return given


def _plain(given: Metric) -> bool:
    """Whether it is as it must be, told quickly: a run logs the same names thousands of times."""
    key, value, timestamp, step = given
    return (
        key in _seen
        and type(value) is float
        and type(timestamp) is int
        and type(step) is int
        and 0 <= timestamp < 2**63
        and -(2**63) <= step < 2**63
    )


def param(given: Param, path: str = "") -> Param:
    """Check one parameter; a value that is too long is cut.

    Raises:
        InputError: its name is not as it must be, or its value cannot be stored.
    """
    name(given.key, _join(path, "key"))
    text(given.key, _join(path, "key"), LONGEST_KEY)
    return Param(given.key, text(given.value, _join(path, "value"))[:LONGEST_PARAM])


def tag(given: Tag, path: str = "") -> Tag:
    """Check one tag of a run; a value that is too long is cut.

    Raises:
        InputError: its name is not as it must be, or its value cannot be stored.
    """
    name(given.key, _join(path, "key"))
    text(given.key, _join(path, "key"), LONGEST_KEY)
    return Tag(given.key, text(given.value, _join(path, "value"))[:LONGEST_TAG])


def experiment_tag(given: Tag) -> Tag:
    """Check one tag of an experiment.

    Raises:
        InputError: its name is not as it must be, or its value is too long or cannot be stored.
    """
    name(given.key, "key")
    text(given.key, "key", LONGEST_KEY)
    text(given.value, "value", LONGEST_EXPERIMENT_TAG)
    return given


def experiment_name(given: str) -> str:
    """Check the name of an experiment.

    Raises:
        InputError: it is empty, too long or cannot be stored.
    """
    if not given:
        raise _invalid("name", given, "it must not be empty")
    text(given, "name", LONGEST_EXPERIMENT_NAME)
    return given


def run_id(given: str) -> str:
    """Check the form of the id of a run.

    Raises:
        InputError: no run has such an id.
    """
    if not _RUN_ID.fullmatch(given):
        raise _invalid("run_id", given, "it is letters, digits, - and _")
    return given


def experiment_id(given: str) -> int:
    """The number of an experiment, from how clients write it.

    Raises:
        InputError: it is no number.
    """
    if not (given.isascii() and given.removeprefix("-").isdigit() and len(given) < 19):
        raise InputError(f"Invalid experiment ID {given[:40]!r}: it must be a whole number")
    return int(given)


def name(given: str, path: str) -> str:
    """Check the name of a metric, param or tag. Clients that keep runs as files make paths of them.

    Raises:
        InputError: it has other signs than letters, digits, ``_ - . / :`` and space, or would be another path.
    """
    if not _NAME.fullmatch(given):
        raise _invalid(path, given, "it may have letters, digits, _, -, ., /, : and spaces")
    plain = posixpath.normpath(given)
    if plain != given or plain == "." or plain.startswith(("..", "/")):
        raise _invalid(path, given, f"as a path it would be {plain!r}")
    return given


def text(given: str, path: str, most: int | None = None) -> str:
    """Check that a text can be stored, and that it is no longer than ``most``.

    Raises:
        InputError: it has a NUL or half of a surrogate pair in it, or is too long.
    """
    if "\0" in given or (not given.isascii() and any("\ud800" <= character <= "\udfff" for character in given)):
        raise InputError(f"'{path}' has a character in it that is no text", fix="log it as an artifact")
    if most is not None and len(given) > most:
        raise InputError(f"{path} has {len(given):,} characters, at most {most:,} are possible")
    return given


def milliseconds(given: int, path: str) -> int:
    """Check a time.

    Raises:
        InputError: it is no 64-bit integer.
    """
    if not -(2**63) <= given < 2**63:
        raise _invalid(path, given, "it must be a 64-bit integer")
    return given


def location(given: str) -> str:
    """Check where the artifacts of an experiment are to lie.

    Raises:
        InputError: it is too long, has no scheme, has parameters or a fragment, leads upwards, or is a run's.
    """
    text(given, "artifact_location", LONGEST_LOCATION)
    parts = urlsplit(given)
    if not parts.scheme or parts.scheme == "runs":
        raise _invalid("artifact_location", given, "it must be the address of a place, such as s3://bucket/path")
    if parts.fragment or parts.query or ";" in given:
        raise _invalid("artifact_location", given, "it must have no parameters and no fragment")
    if ".." in unquote(unquote(parts.path)).replace("\\", "/").split("/"):
        raise _invalid("artifact_location", given, "it must not lead upwards")
    return given


def _count(what: str, most: int, count: int) -> None:
    if count > most:
        raise InputError(f"{count} {what} are too many for one call, which takes {most}", fix="log them in parts")


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _invalid(path: str, value: object, reason: str) -> InputError:
    shown = repr(value)
    return InputError(f"{path} is {shown[:200]}: {reason}")
