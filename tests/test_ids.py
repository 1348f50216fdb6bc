"""Ids sort by time, are never given twice, and not by a process and its fork either."""

import os
import re
import time

import msgspec
import pytest

from bedplate import ids


def test_ids_have_their_form_and_are_never_given_twice() -> None:
    made = [ids.new_id("pred") for _ in range(3000)]

    assert len(set(made)) == len(made)
    assert all(re.fullmatch("pred_[0-9a-hjkmnp-tv-z]{26}", one) for one in made)


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their start is the milliseconds since 1970 in ten characters of five bits, whatever was written before."""
    moments = sorted({0, 2**48 - 1, *(start + step for start in (1 << 10, 1 << 20, 1 << 40) for step in (-1, 0, 1))})
    made = []
    for moment in (*moments, *reversed(moments)):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 1_000_000 + 999_999)
        made.append(ids.new_id("x")[:12])

    assert [[ids._CROCKFORD.index(ord(sign)) for sign in one[2:]] for one in made] == [
        [moment >> shift & 31 for shift in range(45, -1, -5)] for moment in (*moments, *reversed(moments))
    ]
    assert made[: len(moments)] == sorted(made[: len(moments)])


def test_a_fork_gives_ids_of_its_own() -> None:
    ids.new_id("x")  # there are random ends at hand
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sink, msgspec.json.encode([ids.new_id("x")[-16:] for _ in range(300)]))
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as file:
        theirs = msgspec.json.decode(file.read())
    os.waitpid(child, 0)

    assert len(theirs) == 300
    assert not {ids.new_id("x")[-16:] for _ in range(300)} & set(theirs)
