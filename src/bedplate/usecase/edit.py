"""Changing one value of a ``usecase.yaml`` and nothing else: comments, order and spacing stay as they were written."""

import json

from bedplate.errors import InputError
from bedplate.usecase import nodes
from bedplate.usecase.nodes import Node
from bedplate.usecase.problems import Keys, path_text


def put(text: str, keys: Keys, value: str) -> str:
    """The text with ``value``, as YAML writes it, at the path ``keys``; sections that are missing are written too.

    Raises:
        InputError: ``value`` is not one YAML value, or the path leads through something that is no section.
    """
    if _alone(value) is None:
        raise InputError(f"{value!r} is not one value", where=path_text(keys), fix="give one value, as in the file")
    root = _root(text)
    depth = next((i for i in range(len(keys), 0, -1) if root.at(keys[:i]) is not None), 0)
    found = root.at(keys[:depth])
    assert found is not None, "the root is there"
    if depth == len(keys):
        return _replaced(text, found, value)
    key, numbered = keys[depth], any(isinstance(key, int) for key in keys[depth:])
    if found.kind == "scalar" and found.plain and found.text in ("", "~", "null") and not numbered:
        return _replaced(text, found, _nested(keys[depth:], value))  # a section that is still empty
    if found.kind != "mapping" or numbered:
        raise InputError(
            f"{path_text(keys[:depth]) or 'the file'} holds no {path_text(keys[depth:])!r}",
            where=path_text(keys),
            fix="name a value that the file has, or one of a section",
        )
    return _inserted(text, found, f"{key}: {_nested(keys[depth + 1 :], value)}")


def quoted(text: str) -> str:
    """A text as a YAML value: as it is where that reads as the same text, else in quotes."""
    plain = _alone(text)
    same = plain is not None and plain.kind == "scalar" and plain.plain and plain.text == text and plain.tag == "str"
    return text if same else json.dumps(text, ensure_ascii=False)


def _alone(value: str) -> Node | None:
    """The value, if it is exactly one and holds no comment; it could not break out of where it is put."""
    if "\n" in value or "\r" in value or not value.strip():
        return None
    try:
        root, problems = nodes.read(f"[{value}]".encode())
        nodes.read(f"a: {value}".encode())  # a "-" alone is a value in brackets only
    except nodes.SyntaxProblem:
        return None
    return root.items[0] if not problems and root.kind == "sequence" and len(root.items) == 1 else None


def _root(text: str) -> Node:
    try:
        return nodes.read(text.encode())[0]
    except nodes.SyntaxProblem as error:
        raise InputError(
            str(error.problem), where="usecase.yaml", fix="correct it; `bedplate check` reads it"
        ) from None


def _nested(keys: Keys, value: str) -> str:
    for key in reversed(keys):
        value = f"{{ {key}: {value} }}"
    return value


def _replaced(text: str, node: Node, value: str) -> str:
    start, end = node.span[0], _end(node)
    tail = "\n" if text[start:end].endswith("\n") else ""
    gap = {"\n": "  ", " ": "", "": ""}.get(text[max(0, start - 1) : start], " ")
    return f"{text[:start]}{gap}{value}{tail}{text[end:]}"


def _inserted(text: str, section: Node, entry: str) -> str:
    """A new entry behind the last one of a section."""
    if section.flow:
        end = section.span[1] - 1  # before the brace
        inside = text[section.span[0] + 1 : end]
        body = inside.rstrip()
        comma = "" if not body.strip() or body.endswith(",") else ","
        gap = inside[len(body) :] or " "
        return f"{text[: section.span[0] + 1]}{body}{comma} {entry}{gap}{text[end:]}"
    end = text.find("\n", max(section.span[0], _end(section) - 1))
    indent = " " * (next(iter(section.key_lines.values()))[1] - 1)
    if end < 0:
        return f"{text}\n{indent}{entry}\n"
    return f"{text[: end + 1]}{indent}{entry}\n{text[end + 1 :]}"


def _end(node: Node) -> int:
    """Where the last value inside a node ends: a block's own mark stands behind the comments that follow it."""
    inside = (*node.entries.values(), *node.items)
    if node.flow or not inside:
        return node.span[1]
    return max(_end(child) for child in inside)
