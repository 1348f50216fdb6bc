"""What a process asked of the kernel, as strace wrote it down; and whether what it acknowledged was on disk by then.

Every request carries marks, texts that nothing else has. Where a mark is written tells which bytes a request is about,
however many requests are on their way: in SQLite's write-ahead log the frames up to the next that commits, elsewhere
the whole file, the name it is given, and the folder of that name.
"""

import codecs
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

MARK = re.compile(rb"mark-[0-9a-z]{6}")
_READS, _WRITES = ("read", "recvfrom", "recvmsg"), ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg")
_SYNCS, _RENAMES = ("fsync", "fdatasync"), ("rename", "renameat", "renameat2")
_WATCHED = ",".join((*_READS, *_WRITES, *_SYNCS, *_RENAMES))
_LINE = re.compile(r"(?:(\d+) +)?(.*)")
_BEGUN = re.compile(r"(.*?)\s*<unfinished \.\.\.>$")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+).*")
_CUT = re.compile(r"(\w+)\((.*?),? <detached \.\.\.>$")  # it was begun, and nobody saw how it ended
_FILE = re.compile(r"\d+<([^>]*)>(?!\(deleted\))")  # what has no name any more keeps nothing
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HEADER, _PAGE = 24, 4096


class Call(NamedTuple):
    """One system call: of which file, the texts it has in order, its result, and its begin and end in the order of all.

    What a call reads or writes is as long as strace was told to keep it.
    """

    name: str
    file: str
    texts: tuple[bytes, ...]
    result: int
    begun: int
    ended: int

    @property
    def socket(self) -> bool:
        """Whether it is about a connection."""
        return self.file.startswith(("socket:", "TCP:", "UNIX:"))


class Answer(NamedTuple):
    """When an answer that acknowledges was begun, and the marks of its request."""

    at: int
    marks: frozenset[bytes]


@contextmanager
def traced(process: int, log: Path, *more: str) -> Iterator[None]:
    """Write down what a process and all its threads do in the block, and which ``more`` calls they make; the test is
    skipped where nothing can."""
    watched = ",".join((_WATCHED, *more))
    with _attached(process, "-y", "-x", "-s", "9000", "-e", f"trace={watched}", "-o", str(log)):
        yield


@contextmanager
def refusing(process: int, what: str) -> Iterator[None]:
    """Have the kernel refuse calls of a process in the block, as strace's ``inject=`` says; skipped as above.

    Calls are counted by thread.
    """
    with _attached(process, "-o", "/dev/null", "-e", f"inject={what}"):
        yield


@contextmanager
def _attached(process: int, *options: str) -> Iterator[None]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = ["strace", "-f", *options, "-p", str(process)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "Operation not permitted" in said:
            pytest.skip("this machine lets nobody be traced")
        assert "attached" in said, said
        try:
            yield
        finally:
            tracer.terminate()
            tracer.communicate(timeout=60)


def calls(log: Iterable[str]) -> list[Call]:
    """The calls, by when they began. One that others came between is put together again; one that was under way when
    the watching ended, as the last answer may be, has the result of one that failed."""
    open_calls: dict[str, tuple[int, str]] = {}
    found = []
    for number, line in enumerate(log):
        match = _LINE.match(line.rstrip("\n"))
        assert match is not None
        thread, text = match[1] or "", match[2]
        begun = number
        if resumed := _RESUMED.match(text):
            if thread not in open_calls:
                continue  # it was begun before anybody watched
            begun, beginning = open_calls.pop(thread)
            text = beginning + resumed[1]
        elif unfinished := _BEGUN.match(text):
            open_calls[thread] = number, unfinished[1]
            continue
        call = _CALL.match(text)
        cut = _CUT.match(text) if call is None else None
        if (shown := call or cut) is None:
            continue  # a signal, or the end of a thread
        file = _FILE.match(shown[2])
        texts = tuple(codecs.escape_decode(each.encode())[0] for each in _TEXT.findall(shown[2]))
        result = int(call[3]) if call is not None else -1
        found.append(Call(shown[1], file[1] if file else "", texts, result, begun, number))
    return sorted(found, key=lambda each: each.begun)


def answers(of: list[Call]) -> list[Answer]:
    """The answers that acknowledge something, with the marks of what was read from the same connection before."""
    asked: dict[str, set[bytes]] = {}
    found = []
    for call in sorted((each for each in of if each.socket), key=lambda each: each.begun):
        said = b"".join(call.texts)
        if call.name in _READS:
            asked.setdefault(call.file, set()).update(MARK.findall(said))
        elif call.name in _WRITES and said.startswith(b"HTTP/1.1 "):
            marks = asked.pop(call.file, set())
            if marks and said.startswith(b"HTTP/1.1 2"):
                found.append(Answer(call.begun, frozenset(marks)))
    return found


def unsynced(of: list[Call]) -> list[str]:
    """What was acknowledged although it was not on disk, and why it was not; nothing if all is well."""
    problems = []
    for answer in answers(of):
        before = [call for call in of if call.begun < answer.at and call.result >= 0]
        for mark in sorted(answer.marks):
            files = {call.file for call in before if _is_write(call) and mark in b"".join(call.texts)}
            if not files:
                problems.append(f"{mark.decode()}: nothing was written")
            for file in sorted(files):
                why = _log(before, file, mark, answer.at) if file.endswith("-wal") else _file(before, file, answer.at)
                if why:
                    problems.append(f"{mark.decode()}: {PurePosixPath(file).name}: {why}")
    return problems


def _is_write(call: Call) -> bool:
    return call.name in _WRITES and bool(call.file) and not call.socket


def _log(before: list[Call], log: str, mark: bytes, at: int) -> str:
    writes = [call for call in before if _is_write(call) and call.file == log]
    first = next(number for number, call in enumerate(writes) if mark in b"".join(call.texts))
    for header, page in zip(writes[first - 1 :], writes[first:], strict=False):
        said = header.texts[0]
        # Bytes 4 to 8 of a frame's header are the size of the database where the frame commits, else zero.
        if len(said) == _HEADER and page.result == _PAGE and any(said[4:8]):
            return "" if _synced(before, log, page.ended, at) else "the commit was not synced"
    return "it was not committed"


def _file(before: list[Call], file: str, at: int) -> str:
    last = max(call.ended for call in before if _is_write(call) and call.file == file)
    named = [call for call in before if call.name in _RENAMES and call.texts[0].decode() == file and call.begun > last]
    if not named:
        return "it got no name"
    if not _synced(before, file, last, named[0].begun):
        return "it was not synced before it got its name"
    folder = str(PurePosixPath(named[0].texts[1].decode()).parent)
    return "" if _synced(before, folder, named[0].ended, at) else "the folder of its name was not synced"


def _synced(before: list[Call], file: str, after: int, until: int) -> bool:
    return any(
        call.name in _SYNCS and call.file == file and call.result == 0 and after < call.begun and call.ended < until
        for call in before
    )
