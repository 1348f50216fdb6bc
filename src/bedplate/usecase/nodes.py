"""YAML text to a tree of nodes that know their line and column. Nothing is constructed, so nothing can run."""

import re
from typing import Literal, NoReturn

import msgspec
import yaml

from bedplate.usecase.problems import Keys, Problem, path_text, shown

MAX_BYTES = 256 << 10
"""A use case is written by hand; anything larger was not."""
_MAX_DEPTH = 40
_MAX_NODES = 20_000


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A scalar with its text, or a mapping or list of nodes. ``line`` and ``column`` count from 1."""

    kind: Literal["scalar", "mapping", "sequence"]
    line: int
    column: int
    span: tuple[int, int] = (0, 0)
    """Where it begins and ends in the text, in characters; a block ends where its last value does, or later."""
    flow: bool = False
    """Whether it is a mapping or list in braces or brackets."""
    text: str = ""
    tag: str = ""
    plain: bool = True
    """Whether the scalar was written without quotes."""
    entries: dict[str, "Node"] = {}
    key_lines: dict[str, tuple[int, int]] = {}
    """Line and column of each key."""
    items: tuple["Node", ...] = ()

    def at(self, keys: Keys) -> "Node | None":
        """The node that ``keys`` lead to, if the file has it."""
        node: Node | None = self
        for key in keys:
            if node is None:
                return None
            if isinstance(key, int):
                node = node.items[key] if 0 <= key < len(node.items) else None
            else:
                node = node.entries.get(key)
        return node

    def position(self, keys: Keys) -> tuple[int, int]:
        """Line and column of what ``keys`` lead to: of its key if it has one, of the nearest parent if it is absent."""
        node, position = self, (self.line, self.column)
        for key in keys:
            child = node.at((key,))
            if child is None:
                break
            position = node.key_lines[key] if isinstance(key, str) else (child.line, child.column)
            node = child
        return position


class SyntaxProblem(Exception):  # noqa: N818 -- carries a Problem, never reaches a user by itself
    """The text is not YAML of the kind we read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(data: bytes) -> tuple[Node, list[Problem]]:
    """The tree of a YAML text, and the problems that do not stop reading (keys given twice, keys that are no words).

    Raises:
        SyntaxProblem: the text cannot be read at all.
    """
    text = _decode(data)
    _refuse_tabs(text)
    try:
        root = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error, text)
    except yaml.YAMLError as error:  # a character that YAML does not know; its position counts characters
        position = getattr(error, "position", 0)
        line, column = _line_column(text, position if isinstance(position, int) else 0)
        _refuse(line, column, "this character is not allowed in YAML", "printable characters")
    if root is None:
        _refuse(1, 1, "the file is empty", "a use case; `bedplate init NAME` writes one to start from")
    problems: list[Problem] = []
    return _node(root, (), problems), problems


class _Composer(yaml.SafeLoader):
    """Composes nodes only. Aliases are refused: they can make a small file enormous, and one line would mean much."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _refuse(line, column, "anchors (&) and aliases (*) are not used here", "the value written out")
        self.depth += 1
        self.count += 1
        if self.depth > _MAX_DEPTH:
            _refuse(line, column, f"nested deeper than {_MAX_DEPTH} levels", "the shape of a use case")
        if self.count > _MAX_NODES:
            _refuse(line, column, f"more than {_MAX_NODES} values", "the shape of a use case")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _node(node: yaml.Node, keys: Keys, problems: list[Problem]) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    span = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.ScalarNode):
        return Node(
            kind="scalar",
            line=line,
            column=column,
            span=span,
            text=node.value,
            tag=node.tag.rpartition(":")[2],
            plain=not node.style,
        )
    flow = isinstance(node, yaml.CollectionNode) and bool(node.flow_style)
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_node(child, (*keys, i), problems) for i, child in enumerate(node.value))
        return Node(kind="sequence", line=line, column=column, span=span, flow=flow, items=items, tag="seq")
    entries: dict[str, Node] = {}
    key_lines: dict[str, tuple[int, int]] = {}
    for key, value in node.value:
        where = key.start_mark.line + 1, key.start_mark.column + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(
                Problem(
                    line=where[0], column=where[1], path=path_text(keys), found="a list or mapping as a key",
                    allowed="a word", nearest=None, message="a key must be a word",
                )
            )  # fmt: skip
            continue
        if key.value in entries:
            first = key_lines[key.value][0]
            problems.append(
                Problem(
                    line=where[0], column=where[1], path=path_text((*keys, key.value)), found=shown(key.value),
                    allowed="each key once", nearest=None,
                    message=f"{shown(key.value)!r} is given twice, first on line {first}",
                )
            )  # fmt: skip
            continue
        entries[key.value] = _node(value, (*keys, key.value), problems)
        key_lines[key.value] = where
    return Node(
        kind="mapping", line=line, column=column, span=span, flow=flow, entries=entries, key_lines=key_lines, tag="map"
    )


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        _refuse(1, 1, f"the file has {len(data):,} bytes", f"at most {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = _line_column(before, len(before))
        _refuse(line, column, f"byte 0x{data[error.start]:02x} is not UTF-8", "a text file saved as UTF-8")


def _refuse_tabs(text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        indent = re.match(r"[ \t]*", line)
        if indent and "\t" in indent.group() and line.strip() and not line.strip().startswith("#"):
            _refuse(number, indent.group().index("\t") + 1, "a tab at the start of a line", "spaces to indent with")


def _refuse_syntax(error: yaml.MarkedYAMLError, text: str) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.splitlines()
    line = min(line, max(1, len(lines)))
    source = lines[line - 1] if lines else ""
    allowed, suggestion = "YAML", None
    quorum = re.search(r"\d+ of \[[^\]]*\]", source)
    if quorum:  # inside braces a bracket starts a list, so the text needs quotes
        allowed, suggestion = "inside { } such a text in quotes", f'"{quorum.group()}"'
    elif re.search(r"%|@|`", error.problem or ""):
        allowed = "a text that starts with % @ or ` in quotes"
    elif error.problem and "mapping values are not allowed" in error.problem:
        allowed = "a text that contains ': ' in quotes, and keys indented alike"
    _refuse(line, column, f"this is not YAML: {error.problem or error.context}", allowed, shown(source), suggestion)


def _line_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _refuse(
    line: int, column: int, message: str, allowed: str, found: str = "", suggestion: str | None = None
) -> NoReturn:
    raise SyntaxProblem(
        Problem(line=line, column=column, path="", found=found, allowed=allowed, nearest=suggestion, message=message)
    )
