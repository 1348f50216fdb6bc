"""A use case to start from: commented, complete, and running as it is."""

import os
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from bedplate.errors import ConflictError, InputError, StorageError

_PLACEHOLDER = "STARTER_NAME"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def starter(folder: Path, name: str) -> tuple[Path, ...]:
    """Write a use case called ``name`` into ``folder``, which is made if it is missing; the files that were written.

    Raises:
        InputError: ``name`` is not a name.
        ConflictError: ``folder`` holds a file that would be replaced; nothing is written then.
        StorageError: the files cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:60]!r} is not a name", fix="use a lower-case letter, then letters, digits and dashes, 63 at most"
        )
    files = {folder / target: data for target, data in _files(name)}
    try:
        taken = [path for path in files if path.exists() or path.is_symlink()]
        if taken or (folder.exists() and not folder.is_dir()):
            raise ConflictError(
                "this exists already", where=str(taken[0] if taken else folder), fix="choose a new folder"
            )
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"the files cannot be written: {error.strerror}", where=str(folder)) from error
    return tuple(files)


def _files(name: str) -> list[tuple[str, bytes]]:
    root = resources.files("bedplate.usecase") / "starter_files"
    return sorted((target, data.replace(_PLACEHOLDER.encode(), name.encode())) for target, data in _walk(root, ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                found += _walk(entry, f"{prefix}{entry.name}/")
        else:
            # pipeline.py is kept as text, so that no tool takes it for a module of this package
            found.append((prefix + entry.name.removesuffix(".txt"), entry.read_bytes()))
    return found
