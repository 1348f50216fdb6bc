"""Which names an artifact may have.

No name ever becomes a path of a file system here; but clients write what they download under the name that it has, so a
name that would lead a client elsewhere is refused where it comes in.
"""

import re
import unicodedata

from bedplate.errors import InputError

LONGEST = 1024
"""Bytes of a whole name in UTF-8: what object stores take."""
SEGMENT = 255
"""Characters of one segment."""
# Control characters, line and paragraph separators, marks that turn the direction of writing round, halves of pairs,
# what a decoder puts in place of bytes it cannot read; and what means something in a URL or on other systems.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffd\\%#]")
_DRIVE = re.compile(r"[A-Za-z]:")


def check(path: str) -> str:
    """``path`` as artifacts are named: without the one slash that may end it.

    Raises:
        InputError: it is empty, absolute or too long, leads upwards, or holds what some system takes for more.
    """
    name = path.removesuffix("/")
    problem = _problem(name)
    if problem is not None:
        raise InputError(
            f"Invalid path: {problem}",
            where=_shown(path),
            fix="use relative names of plain text, joined by single slashes",
        )
    return name


def join(folder: str, name: str) -> str:
    """A name within a folder, which may be empty.

    Raises:
        InputError: together they are no name of an artifact.
    """
    return check(f"{folder}/{name}" if folder else name)


def base(path: str) -> str:
    """The last part of a path of any system, as a client gives it of its own file."""
    return re.split(r"[/\\]", path)[-1]


def _problem(name: str) -> str | None:
    # What looks like a dot or a slash to a system that folds letters is one.
    for form in (name, unicodedata.normalize("NFKC", name)):
        if _FORBIDDEN.search(form):
            return "it holds a character that is not plain text"
        segments = form.split("/")
        if len(segments) != name.count("/") + 1:
            return "it holds a character that is not plain text"
        if any(not segment.strip(". ") for segment in segments):
            return "it has a segment that is empty or leads elsewhere"
        if any(_DRIVE.match(segment) for segment in segments):
            return "it has a segment that begins like a drive"
    if any(len(segment) > SEGMENT for segment in name.split("/")):
        return f"a segment is longer than {SEGMENT} characters"
    if len(name.encode("utf-8")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return None


def _shown(path: str) -> str:
    return path[:80].encode("unicode_escape").decode("ascii")
