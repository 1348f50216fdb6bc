"""Changes of the registry: models, versions and their tags. Moves to stages and aliases are in :mod:`.moves`.

Every function works inside the transaction that it is given. It first takes the lock of the ledger's head, so changes
happen one after the other on both databases.
"""

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bedplate import clock
from bedplate.errors import ConflictError, InputError, NotFoundError, StateError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.ledger import Ledger
from bedplate.release import checks
from bedplate.release import environments as stages
from bedplate.release.changes import (
    Change,
    Origins,
    location_of,
    model,
    moment,
    newest,
    refuse_flow,
    version,
    write,
)
from bedplate.release.foreign import Findings
from bedplate.store import Transaction
from bedplate.store.models import ModelRow, VersionRow
from bedplate.usecase import approvals as quorums


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says about a version that it registers."""

    source: str
    run: str | None = None
    run_link: str | None = None
    logged_model: str | None = None
    description: str | None = None
    tags: Mapping[str, str] = {}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version comes from: its source in the end, the run and the logged model behind it.

    ``location`` is what clients fetch its files from, ``folder`` where they lie with this server, if they do.
    """

    source: str
    location: str
    folder: str | None = None
    run: str | None
    logged_model: str | None


class Registry:
    """The registry of one home. Stateless: what is true stands in the store."""

    def __init__(self, ledger: Ledger, origins: Origins) -> None:
        self._ledger, self._origins = ledger, origins

    def _write(
        self, tx: Transaction, by: Principal, action: str, of: ModelRow, changes: Sequence[Change], /, **said: Any
    ) -> int:
        return write(self._ledger, tx, by, action, of, changes, **said)

    # --------------------------------------------------------------------------------------------------------- models

    def create_model(
        self,
        tx: Transaction,
        by: Principal,
        workspace: str,
        name: str,
        tags: Mapping[str, str],
        description: str | None,
    ) -> ModelRow:
        """Make a registered model.

        Raises:
            InputError: name, tags or description cannot be used.
            ConflictError: there is one of this name.
            NotFoundError: there is no such workspace.
        """
        checks.model_name(name)
        checks.description(description)
        for key, value in tags.items():
            checks.tag(key, value)
            checks.free_tag(key)
        tx.workspaces.get(workspace)
        tx.ledger.head(lock=True)
        tx.workspaces.get(workspace)
        row = tx.models.add(workspace, name, description=description, time=clock.milliseconds())
        for key, value in tags.items():
            tx.models.set_tag(workspace, name, key, value)
        created = Change(kind="model-created", after=name)
        self._write(tx, by, "model.create", row, [created], tags=dict(tags), description=description)
        return row

    def rename_model(self, tx: Transaction, by: Principal, workspace: str, name: str, new: str) -> ModelRow:
        """Give a model another name. Its history goes with it.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: the name is taken, or a version of the same number is on record under it.
            StateError: it is the model of a use case.
        """
        checks.model_name(new, "new_name")
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        refuse_flow(tx, row, "renamed")
        taken = tx.history.shared(workspace, new, row.id)
        if taken is not None:
            raise ConflictError(
                f"{new!r} was another model, and version {taken} of it is on record", fix="choose another name"
            )
        time = moment(tx, row)
        tx.models.rename(workspace, name, new, time)
        renamed = msgspec.structs.replace(row, name=new, updated=time)
        changes = [Change(kind="model-renamed", before=name, after=new)] if new != name else []
        self._write(tx, by, "model.rename", renamed, changes, before=name, after=new)
        return renamed

    def describe_model(
        self, tx: Transaction, by: Principal, workspace: str, name: str, description: str | None
    ) -> ModelRow:
        """Replace the description of a model.

        Raises:
            NotFoundError: there is no such model.
        """
        checks.description(description)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        time = moment(tx, row)
        tx.models.describe(workspace, name, description, time)
        self._write(tx, by, "model.describe", row, [], description=description)
        return msgspec.structs.replace(row, description=description, updated=time)

    def delete_model(self, tx: Transaction, by: Principal, workspace: str, name: str) -> None:
        """Remove a model with its versions. What happened to them stays on record.

        Raises:
            NotFoundError: there is no such model.
            StateError: it is the model of a use case.
        """
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        refuse_flow(tx, row, "deleted")
        changes = [
            Change(kind="alias-removed", number=number, value=alias, before=str(number))
            for alias, number in tx.models.aliases(workspace, [name])[name].items()
        ]
        versions = reversed(tx.versions.list(name, workspace=workspace))
        changes += [Change(kind="deleted", number=version.number, before=version.stage) for version in versions]
        changes.append(Change(kind="model-deleted", before=name))
        tx.models.delete(workspace, name)
        self._write(tx, by, "model.delete", row, changes)

    def set_model_tag(self, tx: Transaction, by: Principal, workspace: str, name: str, key: str, value: str) -> None:
        """Set a tag of a model.

        Raises:
            NotFoundError: there is no such model.
            InputError: the tag cannot be used.
            DeniedError: it is one of those that the server sets.
        """
        checks.tag(key, value)
        checks.free_tag(key)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        tx.models.set_tag(workspace, name, key, value)
        self._write(tx, by, "model.tag", row, [], key=key, value=value)

    def delete_model_tag(self, tx: Transaction, by: Principal, workspace: str, name: str, key: str) -> None:
        """Remove a tag of a model; nothing happens if it has none of this key.

        Raises:
            NotFoundError: there is no such model.
            DeniedError: it is one of those that the server sets.
        """
        checks.tag_key(key)
        checks.free_tag(key)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        if tx.models.delete_tag(workspace, name, key):
            self._write(tx, by, "model.untag", row, [], key=key)

    def name_approvers(
        self, tx: Transaction, by: Principal, workspace: str, name: str, environment: str, rule: str
    ) -> int:
        """Say who must agree to versions of a model in an environment; an empty rule names nobody any more.

        The caller MUST have asked whether ``by`` may administer the workspace. Returns the ledger entry.

        Raises:
            NotFoundError: there is no such model.
            InputError: the rule is malformed.
            StateError: it is the model of a use case, whose file says it.
        """
        if rule:
            try:
                quorums.parse(rule)
            except quorums.QuorumError as error:
                raise InputError(
                    f"the approvers cannot be used: {error}", where="approvers", fix="write '2 of [group, group]'"
                ) from error
        key = checks.APPROVERS + environment
        checks.tag(key, rule)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        refuse_flow(tx, row, "given approvers here; its file names them")
        if rule:
            tx.models.set_tag(workspace, name, key, rule)
        else:
            tx.models.delete_tag(workspace, name, key)
        return self._write(tx, by, "model.approvers", row, [], environment=environment, rule=rule)

    # ------------------------------------------------------------------------------------------------------- versions

    def create_version(
        self, tx: Transaction, by: Principal, workspace: str, name: str, new: NewVersion, seen: Findings | None = None
    ) -> VersionRow:
        """Add a version to a model. ``seen`` is what is in its files, where they could be read.

        Tags that the server sets are passed over: a client that copies a version sends those of the other one along.

        Raises:
            NotFoundError: there is no such model.
            InputError: source, run, tags or description cannot be used.
        """
        checks.model_name(name)
        checks.description(new.description)
        given = {key: value for key, value in new.tags.items() if not key.startswith(checks.RESERVED)}
        for key, value in given.items():
            checks.tag(key, value)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        origin = self.resolve(tx, workspace, new)
        time = moment(tx, row)
        kept = tx.versions.add(
            VersionRow(
                workspace=workspace,
                name=name,
                number=0,
                status="READY",
                description=new.description,
                source=origin.source,
                location=origin.location,
                folder=origin.folder,
                run=origin.run or "",  # to MLflow a version of no run has an empty one, which filters find
                run_link=new.run_link,
                logged_model=origin.logged_model,
                creator=by.name,
                findings=None if seen is None else msgspec.json.encode(seen).decode(),
                content=None if seen is None else seen.content,
                created=time,
                updated=time,
            )
        )
        tags = {**given, **_safety_tags(seen)}
        for key, value in tags.items():
            tx.versions.set_tag(kept, key, value)
        tx.models.touch(workspace, name, time)
        created = Change(kind="created", number=kept.number, value=origin.source, after=stages.NONE)
        said = {"run": origin.run, "model": origin.logged_model, "location": origin.location, "content": kept.content}
        self._write(tx, by, "model_version.create", row, [created], tags=tags, description=new.description, **said)
        return kept

    def resolve(self, tx: Transaction, workspace: str, new: NewVersion) -> Origin:
        """Where the files of a new version lie, and which run and logged model they come from.

        Raises:
            InputError: the source is none, or does not belong to the run or model that was named with it.
        """
        if checks.is_prompt(new.tags):
            if new.source not in checks.PROMPT_SOURCES:
                raise InputError(f"{new.source!r} cannot be the source of a prompt", where="source")
            return Origin(source=new.source, location=new.source, run=new.run, logged_model=new.logged_model)
        source = checks.source(new.source)
        if source.kind == "registered":
            return self._of_registered(tx, workspace, new, source)
        origin = Origin(source=new.source, location=new.source, run=new.run, logged_model=new.logged_model)
        if source.kind == "runs":
            if new.logged_model or new.run != source.name:
                raise _not_of(new.source, "run_id")
            root = self._origins.run(tx, workspace, source.name)
            below = urllib.parse.urlsplit(new.source).path.lstrip("/").partition("/")[2]
            folder = None if root is None else checks.plain(f"{root}/{below}")
            return msgspec.structs.replace(origin, folder=folder)
        if new.logged_model or source.kind == "logged":
            return self._of_logged(tx, workspace, new, source, origin)
        if source.kind == "artifacts":
            root = self._origins.run(tx, workspace, new.run) if new.run else None
            if root is None or not checks.within(new.source, root):
                raise _not_of(new.source, "run_id")
            return msgspec.structs.replace(origin, folder=checks.plain(new.source))
        return origin

    def _of_logged(
        self, tx: Transaction, workspace: str, new: NewVersion, source: checks.Source, origin: Origin
    ) -> Origin:
        if source.kind == "logged" and source.name != new.logged_model:
            raise _not_of(new.source, "model_id")
        assert new.logged_model is not None
        known = self._origins.logged_model(tx, workspace, new.logged_model)
        if known is None:
            raise _not_of(new.source, "model_id")
        root, run = known
        if source.kind == "artifacts" and not checks.within(new.source, root):
            raise _not_of(new.source, "model_id")
        location = root if source.kind == "logged" else origin.location
        folder = None if source.kind == "elsewhere" else checks.plain(location)
        return msgspec.structs.replace(origin, location=location, folder=folder, run=new.run or run)

    def _of_registered(self, tx: Transaction, workspace: str, new: NewVersion, source: checks.Source) -> Origin:
        of = version_at(tx, workspace, source.name, source.suffix)
        if of.source in checks.PROMPT_SOURCES:
            raise InputError("a prompt cannot be the source of a model version", where="source")
        if (new.run is not None and new.run != (of.run or "")) or (
            new.logged_model is not None and new.logged_model != (of.logged_model or "")
        ):
            raise InputError(
                "run_id and model_id must be those of the version that is the source",
                where="source",
                fix="leave them out",
            )
        return Origin(
            source=f"models:/{of.name}/{of.number}",
            location=location_of(of),
            folder=of.folder,
            run=of.run,
            logged_model=of.logged_model,
        )

    def describe_version(
        self, tx: Transaction, by: Principal, workspace: str, name: str, number: int, description: str | None
    ) -> VersionRow:
        """Replace the description of a version.

        Raises:
            NotFoundError: there is no such version.
        """
        checks.description(description)
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        time = moment(tx, of)
        tx.versions.describe(row, description, time)
        self._write(tx, by, "model_version.describe", of, [], number=number, description=description)
        return msgspec.structs.replace(row, description=description, updated=time)

    def delete_version(self, tx: Transaction, by: Principal, workspace: str, name: str, number: int) -> None:
        """Remove a version and the aliases that point to it. Its number is never given again.

        Raises:
            NotFoundError: there is no such version.
            StateError: it was made by the flow of a use case, as evidence.
        """
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        if row.fact is not None:
            raise StateError(
                f"version {number} of {name} is evidence of its use case and stays", fix="move it to the stage Archived"
            )
        pointing = [alias for alias, to in tx.models.aliases(workspace, [name])[name].items() if to == number]
        changes = [Change(kind="alias-removed", number=number, value=alias, before=str(number)) for alias in pointing]
        tx.versions.delete(row)
        tx.models.touch(workspace, name, moment(tx, of))
        changes.append(Change(kind="deleted", number=number, before=row.stage))
        self._write(tx, by, "model_version.delete", of, changes)

    def set_version_tag(
        self, tx: Transaction, by: Principal, workspace: str, name: str, number: int, key: str, value: str
    ) -> None:
        """Set a tag of a version.

        Raises:
            NotFoundError: there is no such version.
            InputError: the tag cannot be used.
            DeniedError: it is one of those that the server sets.
        """
        checks.tag(key, value)
        checks.free_tag(key)
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        tx.versions.set_tag(row, key, value)
        self._write(tx, by, "model_version.tag", of, [], number=number, key=key, value=value)

    def delete_version_tag(
        self, tx: Transaction, by: Principal, workspace: str, name: str, number: int, key: str
    ) -> None:
        """Remove a tag of a version; nothing happens if it has none of this key.

        Raises:
            NotFoundError: there is no such version.
            DeniedError: it is one of those that the server sets.
        """
        checks.tag_key(key)
        checks.free_tag(key)
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        if tx.versions.delete_tag(row, key):
            self._write(tx, by, "model_version.untag", of, [], number=number, key=key)

    def keep_findings(self, tx: Transaction, by: Principal, row: VersionRow, seen: Findings) -> None:
        """Keep what is in the files of a version that could not be looked at when it was registered."""
        tx.ledger.head(lock=True)
        now, of = version(tx, row.workspace, row.name, row.number)
        if now.findings is not None or seen.safety == "unknown":
            return
        tx.versions.found(now, msgspec.json.encode(seen).decode(), seen.content)
        for key, value in _safety_tags(seen).items():
            tx.versions.set_tag(now, key, value)
        self._write(tx, by, "model_version.inspect", of, [], number=now.number, content=seen.content, found=seen.safety)

    def keep_conversion(
        self, tx: Transaction, by: Principal, row: VersionRow, seen: Findings, onnx: Digest, evidence: dict[str, Any]
    ) -> Digest:
        """Keep what a version was converted to. Returns the digest of the fact that shows how it compares.

        Raises:
            NotFoundError: the version is gone.
            ConflictError: its files changed since they were read.
        """
        tx.ledger.head(lock=True)
        now, of = version(tx, row.workspace, row.name, row.number)
        if now.content is not None and now.content != seen.content:
            raise ConflictError("the files of this version changed", fix="register them as a new version")
        if now.content is None:
            tx.versions.found(now, msgspec.json.encode(seen).decode(), seen.content)
        fact = tx.facts.put("conversion", of.id, evidence)
        tx.versions.converted(now, onnx, fact.digest)
        change = Change(kind="converted", number=row.number, value=onnx)
        self._write(tx, by, "model_version.convert", of, [change], evidence=fact.digest)
        return fact.digest


def version_at(tx: Transaction, workspace: str, name: str, suffix: str) -> VersionRow:
    """The version that ``models:/<name>/<suffix>`` or ``models:/<name>@<alias>`` means now.

    Raises:
        NotFoundError: there is no such model or version.
        InputError: there is no such alias, or the suffix is no version and no stage.
    """
    if suffix.isascii() and suffix.isdigit():
        return version(tx, workspace, name, checks.version_number(suffix))[0]
    if suffix.startswith("@"):
        return aliased(tx, workspace, name, suffix[1:])
    found = newest(tx, workspace, name, [] if suffix.lower() == "latest" else [suffix])
    if not found:
        raise InputError(f"no version of {name} is in {suffix}", where="source")
    return max(found, key=lambda row: row.number)


def aliased(tx: Transaction, workspace: str, name: str, alias: str) -> VersionRow:
    """The version that an alias points to; ``latest`` is the newest of all.

    Raises:
        NotFoundError: there is no such model, or ``latest`` of one that has no version.
        InputError: there is no such alias.
    """
    checks.alias(alias)
    if alias.lower() == "latest":
        found = newest(tx, workspace, name)
        if not found:
            raise NotFoundError(f"{name} has no version yet")
        return max(found, key=lambda row: row.number)
    model(tx, workspace, name)
    number = tx.models.aliases(workspace, [name])[name].get(alias)
    if number is None:
        raise InputError(f"{name} has no alias {alias!r}", where="alias", fix="`bedplate models show` lists them")
    return tx.versions.get(name, number, workspace=workspace)


def _not_of(source: str, parameter: str) -> InputError:
    return InputError(
        f"{source!r} cannot be the source of a model version: {parameter} must name what it belongs to",
        where="source",
        fix=f"give the {parameter} of the run or model that logged it",
    )


def _safety_tags(seen: Findings | None) -> dict[str, str]:
    if seen is None or seen.safety != "unsafe":
        return {}
    return {checks.SAFETY: seen.safety, checks.REASON: "; ".join(seen.reasons)[:5000]}
