"""What comes with a request beside its body: when, how long its caller waits, and the trace that it is a part of."""

import math
import re
from collections.abc import Mapping

import msgspec

from bedplate.errors import InputError

TIMEOUT = "x-request-timeout-ms"
"""The header in which a caller says how many milliseconds it waits for the answer."""

# https://www.w3.org/TR/trace-context/ 3.2: what a later version appends is passed over, zeros are no id.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_LONGEST_STATE = 512


class Arrival(msgspec.Struct, frozen=True):
    """``started`` is ``perf_counter()`` when the request arrived, ``seconds`` how long its caller waits for the answer.

    ``traceparent`` and ``tracestate`` are those of W3C, empty if there are none that are well formed.
    """

    started: float
    seconds: float = math.inf
    traceparent: str = ""
    tracestate: str = ""


def of(started: float, headers: Mapping[str, str]) -> Arrival:
    """What the headers of a request say; their names are in lower case.

    Raises:
        InputError: the timeout is no number above zero. A trace that is not well formed is passed over, as W3C asks.
    """
    timeout, parent = headers.get(TIMEOUT), headers.get("traceparent")
    if timeout is None and parent is None:
        return Arrival(started)
    if parent is None or not _PARENT.fullmatch(parent):
        return Arrival(started, _seconds(timeout))
    state = headers.get("tracestate") or ""
    if len(state) > _LONGEST_STATE or not state.isascii() or not state.isprintable():
        state = ""
    return Arrival(started, _seconds(timeout), parent[:55], state)


def _seconds(timeout: str | None) -> float:
    if timeout is None:
        return math.inf
    try:
        seconds = float(timeout) / 1000 if len(timeout) <= 20 else math.nan
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InputError(f"{TIMEOUT} is no number above zero", fix="say how many milliseconds you wait")
    return seconds
