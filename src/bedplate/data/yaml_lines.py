"""YAML with the line of every key, read through the safe loader's node graph. Only plain values are ever made."""

from typing import Any

import yaml

from bedplate.errors import ContractError

_MAX_BYTES = 1 << 20
_MAX_NODES = 50_000
_MAX_DEPTH = 40

Path = tuple[str | int, ...]


class Document:
    """A YAML mapping as plain values; ``line(path)`` tells where each stands (1-based)."""

    def __init__(self, value: dict[str, Any], lines: dict[Path, int]) -> None:
        self.value = value
        self._lines = lines

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def parse(data: bytes, where: str) -> Document:
    """Read one YAML mapping.

    Raises:
        ContractError: it is too large, not UTF-8, not YAML, not one mapping, repeats a key, or nests too deeply.
    """
    if len(data) > _MAX_BYTES:
        raise ContractError(f"the contract is larger than {_MAX_BYTES >> 20} MiB", where=where, fix="split it")
    try:
        text = data.decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ContractError("the contract is not UTF-8 text", where=where, fix="save it as UTF-8") from error
    except RecursionError as error:
        raise ContractError("the contract nests too deeply", where=where, fix="write it flatter") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ContractError(
            f"not YAML: {error.problem or error.context}", where=place, fix="correct the line"
        ) from error
    except yaml.YAMLError as error:
        raise ContractError(f"not YAML: {error}", where=where, fix="correct the file") from error
    if not isinstance(node, yaml.MappingNode):
        raise ContractError("the contract is not a mapping of keys to values", where=where, fix="start from ODCS 3.1")
    reader = _Reader(where)
    value = reader.read(node, ())
    return Document(value, reader.lines)


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Path, int] = {}
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node, path: Path) -> Any:
        # Aliases are read again at each place, so the count also stops an "alias bomb".
        if len(self.lines) > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise ContractError("the contract is too large or nests too deeply", where=self.where, fix="split it")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise ContractError(
                f"the tag {node.tag} is not allowed", where=f"{self.where}:{node.start_mark.line + 1}", fix="remove it"
            )
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise ContractError(
                f"{node.value!r} cannot be read", where=f"{self.where}:{node.start_mark.line + 1}", fix="quote it"
            ) from error

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ContractError("a key is not a word", where=f"{self.where}:{line}", fix="use a plain word")
            if key.value in found:
                raise ContractError(f"the key {key.value} stands twice", where=f"{self.where}:{line}", fix="keep one")
            self.lines[(*path, key.value)] = line
            found[key.value] = self.read(value, (*path, key.value))
        return found
