"""Artifacts: names in a workspace, each for content that is kept by digest."""

import re
from typing import Any
from urllib.parse import urlsplit

from bedplate.blobs import Content, Incoming
from bedplate.errors import InputError, IntegrityError, NotFoundError, StateError
from bedplate.ids import Digest
from bedplate.store import Store, Transaction
from bedplate.store.artifacts import ArtifactRow
from bedplate.tracking import paths
from bedplate.tracking.actors import Actor
from bedplate.tracking.contents import Contents

PAGE = 1000
_RUN = re.compile(r"(?:^|/)([0-9a-f]{32})/artifacts(?:/|\Z)")
_MODEL = re.compile(r"(?:^|/)models/(m-[0-9a-f]{32})(?:/|\Z)")


class Artifacts:
    """The artifacts of a home. Paths are checked here: any text may be given."""

    def __init__(self, store: Store, contents: Contents) -> None:
        self._store, self._contents = store, contents

    def expect(self, workspace: str, path: str) -> str:
        """The name under which content can be put, before anything of it is received.

        Raises:
            InputError: no artifact may have this name.
            NotFoundError: there is no such workspace.
            ConflictError: a folder has it, or a file has one of the names above it.
        """
        name = paths.check(path)
        with self._store.read() as tx:
            tx.workspaces.get(workspace)
            tx.artifacts.expect(workspace, name)
        return name

    def receive(self) -> Incoming:
        """Begin to take content in."""
        return self._contents.receive()

    def put(self, workspace: str, path: str, incoming: Incoming, *, by: Actor) -> ArtifactRow:
        """Give what was received a name; when it returns both are safe.

        Raises:
            InputError: no artifact may have this name.
            NotFoundError: there is no such workspace.
            ConflictError: a folder has it, or a file has one of the names above it.
            StorageError: the disk is full or refuses; nothing has changed then.
        """
        name = paths.check(path)
        digest = incoming.seal()
        with self._contents.admitted(digest):
            incoming.keep()
            return self._store.writer.submit(
                lambda tx: name_content(tx, workspace, name, digest, incoming.size, by=by)
            ).result()

    def list(self, workspace: str, path: str = "", *, after: str = "", limit: int = PAGE) -> list[ArtifactRow]:
        """What lies in a folder, one level, by name; nothing if there is no such folder. Empty is the topmost one.

        Raises:
            InputError: no folder may have this name.
        """
        folder = paths.check(path) if path else ""
        with self._store.read() as tx:
            return tx.artifacts.list(workspace, folder, after=after, limit=limit)

    def find(self, workspace: str, path: str) -> ArtifactRow:
        """The file of this name.

        Raises:
            InputError: no artifact may have this name, or it is that of a folder.
            NotFoundError: nothing has this name.
        """
        name = paths.check(path)
        with self._store.read() as tx:
            row = tx.artifacts.find(workspace, name)
        if row is None:
            raise NotFoundError(f"there is no artifact {name!r}")
        if row.digest is None:
            raise InputError(f"{name!r} is a folder", fix="list it, and ask for its files")
        return row

    def read(self, row: ArtifactRow, start: int = 0, stop: int | None = None) -> Content:
        """The content of a file, or the part from ``start`` up to, not including, ``stop``.

        Raises:
            IntegrityError: the content is missing or damaged.
            InputError: there are no such bytes.
        """
        assert row.digest is not None, "a folder has no content"
        try:
            content = self._contents.read(row.digest, start, stop)
        except NotFoundError as error:
            raise IntegrityError("the content of this artifact is missing", where=row.path, fix=error.fix) from error
        if content.size != row.size:
            content.close()
            raise IntegrityError(
                f"the content of this artifact has {content.size} bytes, not {row.size}",
                where=row.path,
                fix="restore it from a backup, or log it again",
            )
        return content

    def delete(self, workspace: str, path: str, *, by: Actor) -> int:
        """Take the name of a file away, or a folder with all that is below it; returns how many files that were.

        Raises:
            InputError: no artifact may have this name.
        """
        name = paths.check(path)
        return self._store.writer.submit(lambda tx: unname_content(tx, workspace, name, by=by)).result()


def name_content(tx: Transaction, workspace: str, path: str, digest: Digest, size: int, *, by: Actor) -> ArtifactRow:
    """Name content that is in place, and record it.

    Raises:
        StateError: the name is that of a file of a model version that is in use.
        NotFoundError: there is no such workspace.
        ConflictError: a folder has the name, or a file has one of the names above it.
    """
    tx.workspaces.get(workspace)
    _refuse_held(tx, workspace, path)
    before = tx.artifacts.put(workspace, path, digest, size, by=by.name)
    payload: dict[str, Any] = {"workspace": workspace, "path": path, "digest": digest, "size": size}
    if before is not None:
        payload["replaces"] = before.digest
    by.record(tx, "artifact.put", subject(workspace, path), **payload)
    row = tx.artifacts.find(workspace, path)
    assert row is not None
    return row


def unname_content(tx: Transaction, workspace: str, path: str, *, by: Actor) -> int:
    """Take a name away with all that is below it, and record it; what is not there changes nothing.

    Raises:
        StateError: files of a model version that is in use are among them.
    """
    if tx.artifacts.find(workspace, path) is None:
        return 0
    _refuse_held(tx, workspace, path)
    files, size = tx.artifacts.remove(workspace, path)
    payload = {"workspace": workspace, "path": path, "files": files, "bytes": size}
    by.record(tx, "artifact.delete", subject(workspace, path), **payload)
    return files


def _refuse_held(tx: Transaction, workspace: str, path: str) -> None:
    """Leave the files alone that somebody let into an environment: what was looked at is what stays there.

    Takes the lock of the ledger's head, as every change of the registry does, so neither overtakes the other.

    Raises:
        StateError: they belong to a version that is in use.
    """
    tx.ledger.head(lock=True)
    held = tx.versions.holding(workspace, path)
    if held is not None:
        raise StateError(
            f"this belongs to version {held[1]} of the registered model {held[0]}, which is in use",
            where=path,
            fix="log the model again, and register it as a new version",
        )


def subject(workspace: str, path: str) -> str:
    """What an artifact belongs to, as the ledger names it. Names themselves stand in payloads, which can be erased."""
    if (run := _RUN.search(path)) is not None:
        return f"run/{run[1]}"
    if (model := _MODEL.search(path)) is not None:
        return f"logged_model/{model[1]}"
    return f"workspace/{workspace}"


def folder_of(location: str) -> str | None:
    """The folder of artifacts that a location names, None if it names a place that is not here.

    Where the artifacts of a run or a model lie is written ``mlflow-artifacts:/0/<run>/artifacts``.
    """
    parts = urlsplit(location)
    folder = parts.path.strip("/")
    return folder if parts.scheme == "mlflow-artifacts" and folder else None
