"""The registry as its edges use it: rules, tracking and artifacts brought together, and refusals turned into errors."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bedplate.errors import ConflictError, DeniedError, InputError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.release import environments, foreign, searching
from bedplate.release.changes import UNSAID, version
from bedplate.release.foreign import Files
from bedplate.release.moves import Moved, Moves
from bedplate.release.registry import NewVersion, Registry
from bedplate.release.searching import Tagged
from bedplate.store import Transaction
from bedplate.store.artifacts import ArtifactRow
from bedplate.store.models import VersionRow
from bedplate.tracking import logged_models
from bedplate.tracking.artifacts import Artifacts, folder_of

if TYPE_CHECKING:
    from bedplate.app.system import System

T = TypeVar("T")

VERSIONS_TAG = "mlflow.modelVersions"
"""Tag of a logged model in which clients look for the versions that were made of it."""


class ModelRegistry:
    """The registry of one home. Made once by its owner; threads may share it."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._origins = Tracked()
        self.rules = Registry(system.ledger, self._origins)
        self.moves = Moves(
            system.ledger, system.policies, self._origins, environments.parse_aliases(system.settings.aliases)
        )

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` in a transaction; when this returns it is on disk."""
        return self._system.store.writer.submit(work).result()

    # --------------------------------------------------------------------------------------------------------- versions

    def create_version(self, by: Principal, workspace: str, name: str, new: NewVersion) -> Tagged:
        """Register a version of a model, with what is seen in its files where they lie with this server.

        Raises:
            NotFoundError: there is no such model.
            InputError: source, run, tags or description cannot be used.
        """
        with self._system.store.read() as tx:
            folder = self.rules.resolve(tx, workspace, new).folder
            files = None if folder is None else self._files(tx, workspace, folder)
        seen = None if files is None else foreign.inspect(files)

        def work(tx: Transaction) -> Tagged:
            row = self.rules.create_version(tx, by, workspace, name, new, seen)
            if row.logged_model is not None:
                logged_models.add_version(tx, workspace, row.logged_model, name, row.number)
            return searching.get_version(tx, workspace, name, row.number)

        return self.write(work)

    def transition(
        self,
        by: Principal,
        workspace: str,
        name: str,
        number: int,
        stage: str,
        *,
        archive_existing: bool = False,
        expected: str | None = None,
    ) -> tuple[Tagged, Moved]:
        """Move a version to a stage.

        Raises:
            DeniedError: it may not go into the environment that the stage stands for; the text says why.
            NotFoundError: there is no such version.
            InputError: there is no such stage.
            ConflictError: the version is not in the stage ``expected``.
        """
        if environments.STAGES[environments.stage_named(stage)] is not None:
            self._look(by, workspace, name, number)

        def work(tx: Transaction) -> tuple[Tagged, Moved]:
            moved = self.moves.transition(
                tx, by, workspace, name, number, stage, archive_existing=archive_existing, expected=expected
            )
            return searching.get_version(tx, workspace, name, number), moved

        found, moved = self.write(work)
        _demand(moved)
        return found, moved

    def set_alias(
        self, by: Principal, workspace: str, name: str, alias: str, number: int, *, expected: int | None = UNSAID
    ) -> Moved:
        """Point an alias to a version.

        Raises:
            DeniedError: the version may not go into the environment that the alias stands for; the text says why.
            NotFoundError: there is no such version.
            InputError: the alias cannot be used.
            ConflictError: the alias does not point to ``expected``.
        """
        if self.moves.environment_of(alias) is not None:
            self._look(by, workspace, name, number)
        moved = self.write(lambda tx: self.moves.set_alias(tx, by, workspace, name, alias, number, expected=expected))
        _demand(moved)
        return moved

    def name_approvers(self, by: Principal, workspace: str, name: str, environment: str, rule: str) -> int:
        """Say who must agree to versions of a model that belongs to no use case; returns the ledger entry.

        The caller MUST have asked policy whether ``by`` may administer the workspace.

        Raises:
            NotFoundError: there is no such model.
            InputError: the rule is malformed.
        """
        return self.write(lambda tx: self.rules.name_approvers(tx, by, workspace, name, environment, rule))

    def convert(self, by: Principal, workspace: str, name: str, number: int) -> tuple[VersionRow, dict[str, object]]:
        """Make ONNX of a client's version and keep it as part of the version, with the evidence that it says the same.

        Raises:
            NotFoundError: there is no such version.
            InputError: there is no converter for it, or nothing to convert.
            ConflictError: its files are not with this server.
            UserCodeError: it could not be loaded or converted.
            IntegrityError: what it was converted to says something else.
        """
        from bedplate.release.convert import convert  # heavy: only a conversion needs it

        with self._system.store.read() as tx:
            row, _ = version(tx, workspace, name, number)
            files = None if row.folder is None else self._files(tx, workspace, row.folder)
        if row.fact is not None:
            raise InputError("a version that the flow made runs no code", where=f"{name} version {number}")
        if files is None:
            raise ConflictError(
                "the files of this version are not with this server, so they cannot be converted here",
                where=row.location,
                fix="log the model to a run, and register it from there",
            )
        seen = foreign.inspect(files)
        if seen.safety == "safe":
            raise InputError("every file of it is of a format that runs no code", fix="it needs no conversion")
        made = convert(files, seen)
        digest = self._system.contents.put(made.model)
        evidence = self.write(lambda tx: self.rules.keep_conversion(tx, by, row, seen, digest, made.evidence))
        return msgspec.structs.replace(row, onnx=digest, evidence=evidence), made.evidence

    # ------------------------------------------------------------------------------------------------------------ files

    def _look(self, by: Principal, workspace: str, name: str, number: int) -> None:
        """Look at the files of a client's version that could not be looked at when it was registered."""
        with self._system.store.read() as tx:
            row, _ = version(tx, workspace, name, number)
            if row.findings is not None or row.folder is None:
                return
            files = self._files(tx, workspace, row.folder)
        if files is not None:
            seen = foreign.inspect(files)
            self.write(lambda tx: self.rules.keep_findings(tx, by, row, seen))

    def _files(self, tx: Transaction, workspace: str, location: str) -> Files | None:
        folder = folder_of(location)
        if folder is None:
            return None
        rows = {row.path.removeprefix(f"{folder}/"): row for row in tx.artifacts.walk(workspace, folder)}
        return {path: _Stored(self._system.artifacts, row) for path, row in rows.items()} or None


class _Stored:
    """A file of a model among the artifacts."""

    def __init__(self, artifacts: Artifacts, row: ArtifactRow) -> None:
        assert row.digest is not None, "a folder is no file"
        self._artifacts, self._row = artifacts, row
        self.size, self.digest = row.size, row.digest

    def pieces(self) -> Iterator[bytes]:
        content = self._artifacts.read(self._row)
        try:
            yield from content
        finally:
            content.close()


class Tracked:
    """What tracking keeps about runs, logged models and artifacts, as the registry asks for it."""

    def run(self, tx: Transaction, workspace: str, run: str) -> str | None:
        """Where the artifacts of a run lie; None if there is no such run."""
        found = tx.runs.find(workspace, run)
        return None if found is None else found.artifact_uri

    def logged_model(self, tx: Transaction, workspace: str, model: str) -> tuple[str, str | None] | None:
        """Where the artifacts of a logged model lie, and the run that made it; None if there is no such model."""
        found = tx.logged_models.find(workspace, model)
        if found is None or found.lifecycle != "active":
            return None
        return found.artifact_location, found.source_run

    def content(self, tx: Transaction, workspace: str, folder: str) -> Digest | None:
        """The digest of all files in a folder; None if it is not with this server, or empty."""
        within = folder_of(folder)
        if within is None:
            return None
        rows = tx.artifacts.walk(workspace, within)
        digests = {row.path.removeprefix(f"{within}/"): row.digest for row in rows if row.digest is not None}
        return foreign.content_of(digests) if digests else None


def _demand(moved: Moved) -> None:
    if moved.refused:
        raise DeniedError(
            f"version {moved.version.number} of {moved.version.name} may not go into {moved.refused}",
            where=f"ledger entry {moved.entry}",
        )
