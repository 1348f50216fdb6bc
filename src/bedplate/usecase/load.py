"""Reading a use case: every problem of the file at once, or the use case with the line of everything it says."""

from pathlib import Path
from typing import Any

import msgspec

from bedplate.errors import NotFoundError, UseCaseError
from bedplate.ids import Digest, digest_bytes
from bedplate.usecase import checks, convert, files, nodes
from bedplate.usecase.problems import Problem
from bedplate.usecase.types import UseCase

FILE_NAME = "usecase.yaml"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A use case and where it was written. ``digest`` covers the bytes of the file."""

    use_case: UseCase
    path: Path
    folder: Path
    digest: Digest
    text: str
    root: nodes.Node

    def line(self, *keys: str | int) -> int:
        """The line, counted from 1, of a path of keys; of the nearest parent that the file has, if it is left out."""
        return self.root.position(keys)[0]


def load(path: Path, *, check_files: bool = True) -> Loaded:
    """Read and check ``usecase.yaml``, or the one in the folder ``path``.

    With ``check_files`` contracts, sources and feature views must exist, too.

    Raises:
        NotFoundError: there is no such file.
        UseCaseError: it cannot be used; ``problems`` holds every :class:`Problem`, in file order.
    """
    data, path = _bytes(Path(path))
    return read(data, path, check_files=check_files)


def read(data: bytes, path: Path, *, check_files: bool = True) -> Loaded:
    """:func:`load` of bytes that stand, or could stand, in the file ``path``.

    Raises:
        UseCaseError: it cannot be used; ``problems`` holds every :class:`Problem`, in file order.
    """
    problems: list[Problem] = []
    try:
        root, problems = nodes.read(data)
    except nodes.SyntaxProblem as error:
        raise _error(path, [error.problem]) from None
    if root.at(("apiVersion",)) is not None and root.at(("bedplate",)) is None:
        raise UseCaseError(
            "this is a data contract, not a use case", where=str(path), fix=f"name the folder that holds {FILE_NAME}"
        )
    reading = convert.Reading(root, problems)
    value: Any = convert.convert(reading, UseCase)
    checks.check(reading)
    if check_files:
        files.check(reading, path.parent)
    if reading.problems:
        raise _error(path, reading.problems)
    return Loaded(
        use_case=value,
        path=path,
        folder=path.parent,
        digest=digest_bytes(data),
        text=data.decode("utf-8-sig"),
        root=root,
    )


def _bytes(path: Path) -> tuple[bytes, Path]:
    try:
        if path.is_dir():
            path = path / FILE_NAME
        if not path.exists():
            raise NotFoundError(
                "there is no such file", where=str(path), fix="name a use case, or write one with `bedplate init NAME`"
            )
        with path.open("rb") as file:
            return file.read(nodes.MAX_BYTES + 1), path.absolute()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UseCaseError(f"the file cannot be read: {reason}", where=str(path), fix="name a readable file") from error


def _error(path: Path, problems: list[Problem]) -> UseCaseError:
    ordered = tuple(sorted(problems, key=lambda p: (p.line, p.column)))
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    lines = "\n".join(f"  {problem}" for problem in ordered)
    return UseCaseError(
        f"{count}\n{lines}", where=str(path), fix="correct each line; `bedplate check` reads it again", problems=ordered
    )
