"""A text of several policies cut into the policies, before anything parses it."""

import re
from collections.abc import Iterator

_REST_OF_LINE = re.compile(r"[ \t]*//[^\n]*")


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each policy: all up to a semicolon that stands in no string and no comment."""
    start = index = 0
    while index < len(text):
        if text[index] == '"':
            index = _end_of_string(text, index)
        elif text.startswith("//", index):
            index = _end_of_line(text, index)
        elif text[index] == ";":
            remark = _REST_OF_LINE.match(text, index + 1)
            index = index if remark is None else remark.end() - 1
            yield _line(text, start), text[start : index + 1].strip()
            start = index + 1
        index += 1
    if _holds_something(text[start:]):
        yield _line(text, start), text[start:].strip()


def _end_of_string(text: str, index: int) -> int:
    index += 1
    while index < len(text) and text[index] != '"':
        index += 2 if text[index] == "\\" else 1
    return index


def _end_of_line(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _line(text: str, start: int) -> int:
    """The number of the first line at or after ``start`` that is neither empty nor a comment."""
    number = text.count("\n", 0, start) + 1
    for line in text[start:].split("\n"):
        if line.strip() and not line.strip().startswith("//"):
            break
        number += 1
    return number


def _holds_something(text: str) -> bool:
    return any(line.strip() and not line.strip().startswith("//") for line in text.split("\n"))
