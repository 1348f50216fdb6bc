"""Registered models with their tags and aliases, and their versions: those of use cases and those that clients log.

What is written here is the present state. Whoever changes it also writes what happened to ``tx.history``;
:mod:`bedplate.release.registry` is the one place that does both.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import ConflictError, NotFoundError
from bedplate.ids import Digest
from bedplate.store.history import History
from bedplate.store.registry_schema import (
    model_aliases,
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
)
from bedplate.store.sql import Repository, Row, Upsert, fields, param
from bedplate.store.workspaces import DEFAULT

NO_STAGE = "None"
ARTIFACTS = "mlflow-artifacts:/"
"""How the location of artifacts begins that lie with this server."""

_workspace, _name, _number = param("workspace_"), param("name_"), param("number_")
_m, _v = registered_models.c, model_versions.c
_mt, _vt, _a = registered_model_tags.c, model_version_tags.c, model_aliases.c

_ADD_MODEL = sa.insert(registered_models)
_THE_MODEL = (_m.workspace == _workspace, _m.name == _name)
_MODEL = sa.select(registered_models).where(*_THE_MODEL)
_MODEL_OF_ID = sa.select(registered_models).where(_m.workspace == _workspace, _m.id == param("id_"))
_RENAME = sa.update(registered_models).where(*_THE_MODEL).values(name=param("new_"), updated=param("updated_"))
_DESCRIBE_MODEL = (
    sa.update(registered_models).where(*_THE_MODEL).values(description=param("description_"), updated=param("updated_"))
)
_TOUCH_MODEL = sa.update(registered_models).where(*_THE_MODEL).values(updated=param("updated_"))
_TOUCH_VERSIONS = (
    sa.update(model_versions).where(_v.workspace == _workspace, _v.name == _name).values(updated=param("updated_"))
)
_DELETE_MODEL = sa.delete(registered_models).where(*_THE_MODEL)
_SET_MODEL_TAG = Upsert(registered_model_tags, update=("value",))
_DELETE_MODEL_TAG = sa.delete(registered_model_tags).where(
    _mt.workspace == _workspace, _mt.name == _name, _mt.key == param("key_")
)
_names: sa.BindParameter[Any] = sa.bindparam("names_", expanding=True)
_MODEL_TAGS = (
    sa.select(registered_model_tags)
    .where(_mt.workspace == _workspace, _mt.name.in_(_names))
    .order_by(_mt.name, _mt.key)
)
_TAGGED = sa.select(_mt.value).where(_mt.key.startswith(param("prefix_"))).distinct().order_by(_mt.value)
_SET_ALIAS = Upsert(model_aliases, update=("number",))
_DELETE_ALIAS = sa.delete(model_aliases).where(
    _a.workspace == _workspace, _a.name == _name, _a.alias == param("alias_")
)
_ALIASES = sa.select(model_aliases).where(_a.workspace == _workspace, _a.name.in_(_names)).order_by(_a.name, _a.alias)

_ADD_VERSION = sa.insert(model_versions)
_THE_VERSION = (_v.workspace == _workspace, _v.name == _name, _v.number == _number)
_VERSION = sa.select(model_versions).where(*_THE_VERSION)
_VERSIONS = sa.select(model_versions).where(_v.workspace == _workspace, _v.name == _name).order_by(_v.number.desc())
_IN_STAGE = _VERSIONS.where(_v.stage == param("stage_"))
_OF_FACT = sa.select(_v.number).where(_v.workspace == _workspace, _v.name == _name, _v.fact == param("fact_"))
_OF_BUNDLE = sa.select(_v.number).where(_v.workspace == _workspace, _v.name == _name, _v.bundle == param("bundle_"))
_ANY_OF_FLOW = sa.select(_v.number).where(_v.workspace == _workspace, _v.name == _name, _v.fact.is_not(None)).limit(1)
_BIND = (
    sa.update(model_versions)
    .where(*_THE_VERSION, sa.or_(_v.bundle.is_(None), _v.bundle == param("bundle_")))
    .values(bundle=param("bundle_"), status="READY", updated=param("updated_"))
)
_DESCRIBE = (
    sa.update(model_versions).where(*_THE_VERSION).values(description=param("description_"), updated=param("updated_"))
)
_MOVE = sa.update(model_versions).where(*_THE_VERSION).values(stage=param("stage_"), updated=param("updated_"))
_FOUND = sa.update(model_versions).where(*_THE_VERSION).values(findings=param("findings_"), content=param("content_"))
_CONVERTED = sa.update(model_versions).where(*_THE_VERSION).values(onnx=param("onnx_"), evidence=param("evidence_"))
_DELETE = sa.delete(model_versions).where(*_THE_VERSION)
_SET_TAG = Upsert(model_version_tags, update=("value",))
_DELETE_TAG = sa.delete(model_version_tags).where(
    _vt.workspace == _workspace, _vt.name == _name, _vt.number == _number, _vt.key == param("key_")
)
_TAGS = (
    sa.select(model_version_tags)
    .where(_vt.workspace == _workspace, sa.tuple_(_vt.name, _vt.number).in_(sa.bindparam("keys_", expanding=True)))
    .order_by(_vt.name, _vt.number, _vt.key)
)
_HELD = (
    sa.select(_v.name, _v.number)
    .where(
        _v.workspace == _workspace,
        sa.or_(
            _v.folder.in_(sa.bindparam("folders_", expanding=True)),
            sa.and_(_v.folder >= param("start_"), _v.folder < param("end_")),
        ),
        sa.or_(
            _v.stage.in_(("Staging", "Production")),
            sa.select(_a.alias)
            .where(_a.workspace == _v.workspace, _a.name == _v.name, _a.number == _v.number)
            .exists(),
        ),
    )
    .limit(1)
)
_BLOBS = sa.select(_v.onnx).where(_v.onnx.is_not(None)).distinct()


def _latest() -> sa.Select[Any]:
    """For each model and stage the version with the highest number, in the order of the first version in the stage."""
    within = {"partition_by": (_v.name, _v.stage)}
    place = sa.func.row_number().over(**within, order_by=_v.number.desc()).label("place")  # type: ignore[arg-type]
    first = sa.func.min(_v.number).over(**within).label("first")  # type: ignore[arg-type]
    ranked = (
        sa.select(_v.name, _v.number, place, first).where(_v.workspace == _workspace, _v.name.in_(_names)).subquery()
    )
    return (
        sa.select(model_versions)
        .join(ranked, sa.and_(_v.name == ranked.c.name, _v.number == ranked.c.number))
        .where(_v.workspace == _workspace, ranked.c.place == 1)
        .order_by(_v.name, ranked.c.first)
    )


_LATEST = _latest()
_CHUNK = 400
"""Keys asked for in one statement, below the least number of variables that a SQLite takes."""


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One registered model. ``id`` stays when it is renamed; times are in milliseconds."""

    workspace: str
    name: str
    id: str
    description: str | None
    created: int
    updated: int


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model.

    A version that the flow made has ``fact``, what it was made from, and ``bundle`` once it is packaged. One that a
    client registered has ``source``, where that client says its files are, ``location``, what clients fetch them from,
    and ``folder``, where they lie with this server, if they do.
    ``findings`` is what was seen in those files, as JSON; ``content`` the digest of all of them; ``onnx`` the blob that
    they were converted to, and ``evidence`` the fact about that.
    """

    workspace: str
    name: str
    number: int
    stage: str = NO_STAGE
    status: str
    status_message: str | None = None
    description: str | None = None
    fact: Digest | None = None
    bundle: Digest | None = None
    source: str | None = None
    location: str | None = None
    folder: str | None = None
    run: str | None = None
    run_link: str | None = None
    logged_model: str | None = None
    creator: str = ""
    findings: str | None = None
    content: Digest | None = None
    onnx: Digest | None = None
    evidence: Digest | None = None
    created: int
    updated: int


class Models(Repository):
    """``tx.models``."""

    def add(self, workspace: str, name: str, *, description: str | None, time: int) -> ModelRow:
        """Make a model; its id is made here.

        Raises:
            ConflictError: there is one of this name.
        """
        row = ModelRow(
            workspace=workspace, name=name, id=ids.new_id("mdl"), description=description, created=time, updated=time
        )
        if self.find(workspace, name) is not None:
            raise ConflictError(f"there is a registered model {name!r} already", fix="use it, or choose another name")
        self._execute(_ADD_MODEL, **msgspec.structs.asdict(row))
        return row

    def find(self, workspace: str, name: str) -> ModelRow | None:
        """The model of this name, if there is one."""
        row = self._execute(_MODEL, workspace_=workspace, name_=name).first()
        return None if row is None else msgspec.convert(fields(row), ModelRow)

    def of_id(self, workspace: str, identifier: str) -> ModelRow | None:
        """The model of this id, if the workspace has it."""
        row = self._execute(_MODEL_OF_ID, workspace_=workspace, id_=identifier).first()
        return None if row is None else msgspec.convert(fields(row), ModelRow)

    def rename(self, workspace: str, name: str, new: str, time: int) -> None:
        """Give a model another name; versions, tags and aliases go with it.

        Raises:
            ConflictError: the name is taken by another one.
        """
        if new != name and self.find(workspace, new) is not None:
            raise ConflictError(f"there is a registered model {new!r} already", fix="choose another name")
        self._execute(_TOUCH_VERSIONS, workspace_=workspace, name_=name, updated_=time)
        self._execute(_RENAME, workspace_=workspace, name_=name, new_=new, updated_=time)

    def describe(self, workspace: str, name: str, description: str | None, time: int) -> None:
        """Replace the description."""
        self._execute(_DESCRIBE_MODEL, workspace_=workspace, name_=name, description_=description, updated_=time)

    def touch(self, workspace: str, name: str, time: int) -> None:
        """Note that something about the model changed."""
        self._execute(_TOUCH_MODEL, workspace_=workspace, name_=name, updated_=time)

    def delete(self, workspace: str, name: str) -> None:
        """Remove a model with its versions, tags and aliases."""
        self._execute(_DELETE_MODEL, workspace_=workspace, name_=name)

    def set_tag(self, workspace: str, name: str, key: str, value: str) -> None:
        """Set a tag."""
        row = {"workspace": workspace, "name": name, "key": key, "value": value}
        self._execute(_SET_MODEL_TAG.on(self._connection), **row)

    def delete_tag(self, workspace: str, name: str, key: str) -> bool:
        """Remove a tag; False if there was none."""
        return self._execute(_DELETE_MODEL_TAG, workspace_=workspace, name_=name, key_=key).rowcount == 1

    def tags(self, workspace: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of several models, by name."""
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        for row in self._for_each(_MODEL_TAGS, workspace, names):
            found[row.name][row.key] = row.value
        return found

    def tagged(self, prefix: str) -> list[str]:
        """The values, each once, of tags whose keys begin with ``prefix``, of all models in all workspaces."""
        return [row.value for row in self._execute(_TAGGED, prefix_=prefix)]

    def set_alias(self, workspace: str, name: str, alias: str, number: int) -> None:
        """Point an alias to a version."""
        row = {"workspace": workspace, "name": name, "alias": alias, "number": number}
        self._execute(_SET_ALIAS.on(self._connection), **row)

    def delete_alias(self, workspace: str, name: str, alias: str) -> bool:
        """Remove an alias; False if there was none."""
        return self._execute(_DELETE_ALIAS, workspace_=workspace, name_=name, alias_=alias).rowcount == 1

    def aliases(self, workspace: str, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """The version that each alias of several models points to, by name of the model."""
        found: dict[str, dict[str, int]] = {name: {} for name in names}
        for row in self._for_each(_ALIASES, workspace, names):
            found[row.name][row.alias] = row.number
        return found

    def _for_each(self, statement: sa.Executable, workspace: str, names: Sequence[str]) -> Iterable[Row]:
        for start in range(0, len(names), _CHUNK):
            yield from self._execute(statement, workspace_=workspace, names_=list(names[start : start + _CHUNK]))


class Versions(Repository):
    """``tx.versions``. The first four methods are the flow's: a use case's model is the one of its name."""

    def allot(self, use_case: str, fact: Digest, *, creator: str = "flow") -> int:
        """The version number of what was made from ``fact``: the next free one, or the one it already has."""
        number = self._execute(_OF_FACT, workspace_=DEFAULT, name_=use_case, fact_=fact).scalar()
        if number is not None:
            return int(number)
        now = clock.milliseconds()
        models = Models(self._connection)
        if models.find(DEFAULT, use_case) is None:
            models.add(DEFAULT, use_case, description=None, time=now)
        return self.add(
            VersionRow(
                workspace=DEFAULT,
                name=use_case,
                number=0,
                status="PENDING_REGISTRATION",
                fact=fact,
                creator=creator,
                created=now,
                updated=now,
            )
        ).number

    def bind(self, use_case: str, number: int, bundle: Digest) -> None:
        """Say which bundle the version is. A version is never bound to a second bundle.

        Raises:
            ConflictError: it is bound to another bundle.
        """
        at = {"workspace_": DEFAULT, "name_": use_case, "number_": number}
        if self._execute(_BIND, **at, bundle_=bundle, updated_=clock.milliseconds()).rowcount != 1:
            where = f"{use_case} version {number}"
            raise ConflictError("this version is another bundle already", where=where, fix="allot a new version")

    def get(self, name: str, number: int, *, workspace: str = DEFAULT) -> VersionRow:
        """One version.

        Raises:
            NotFoundError: there is none of this number.
        """
        row = self._execute(_VERSION, workspace_=workspace, name_=name, number_=number).first()
        if row is None:
            raise NotFoundError(f"{name} has no version {number}")
        return _version(row)

    def list(self, name: str, *, workspace: str = DEFAULT) -> list[VersionRow]:
        """All versions, newest first."""
        return [_version(row) for row in self._execute(_VERSIONS, workspace_=workspace, name_=name)]

    def of_bundle(self, name: str, bundle: Digest, *, workspace: str = DEFAULT) -> int | None:
        """The number of the version that is this bundle."""
        number = self._execute(_OF_BUNDLE, workspace_=workspace, name_=name, bundle_=bundle).scalar()
        return None if number is None else int(number)

    def any_of_flow(self, workspace: str, name: str) -> bool:
        """Whether a version of this model was made by the flow of a use case."""
        return self._execute(_ANY_OF_FLOW, workspace_=workspace, name_=name).first() is not None

    def add(self, row: VersionRow) -> VersionRow:
        """Add a version under the next number of its name, which no version ever had; returns it as it is kept."""
        number = History(self._connection).highest(row.workspace, row.name) + 1
        numbered = msgspec.structs.replace(row, number=number)
        self._execute(_ADD_VERSION, **msgspec.structs.asdict(numbered))
        return numbered

    def describe(self, row: VersionRow, description: str | None, time: int) -> None:
        """Replace the description."""
        self._execute(_DESCRIBE, **_at(row), description_=description, updated_=time)

    def move(self, row: VersionRow, stage: str, time: int) -> None:
        """Put the version into a stage."""
        self._execute(_MOVE, **_at(row), stage_=stage, updated_=time)

    def in_stage(self, workspace: str, name: str, stage: str) -> Sequence[VersionRow]:
        """The versions of a model that are in a stage, newest first."""
        rows = self._execute(_IN_STAGE, workspace_=workspace, name_=name, stage_=stage)
        return [_version(row) for row in rows]

    def found(self, row: VersionRow, findings: str, content: Digest) -> None:
        """Keep what was seen in the version's files."""
        self._execute(_FOUND, **_at(row), findings_=findings, content_=content)

    def converted(self, row: VersionRow, onnx: Digest, evidence: Digest) -> None:
        """Keep what the version was converted to, and the fact that shows it."""
        self._execute(_CONVERTED, **_at(row), onnx_=onnx, evidence_=evidence)

    def delete(self, row: VersionRow) -> None:
        """Remove a version with its tags and the aliases that point to it."""
        self._execute(_DELETE, **_at(row))

    def set_tag(self, row: VersionRow, key: str, value: str) -> None:
        """Set a tag."""
        tag = {"workspace": row.workspace, "name": row.name, "number": row.number, "key": key, "value": value}
        self._execute(_SET_TAG.on(self._connection), **tag)

    def delete_tag(self, row: VersionRow, key: str) -> bool:
        """Remove a tag; False if there was none."""
        return self._execute(_DELETE_TAG, **_at(row), key_=key).rowcount == 1

    def tags(self, workspace: str, keys: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], dict[str, str]]:
        """The tags of several versions, by name and number."""
        found: dict[tuple[str, int], dict[str, str]] = {key: {} for key in keys}
        for start in range(0, len(keys), _CHUNK):
            wanted = [tuple(key) for key in keys[start : start + _CHUNK]]
            for row in self._execute(_TAGS, workspace_=workspace, keys_=wanted):
                found[row.name, row.number][row.key] = row.value
        return found

    def latest(self, workspace: str, names: Sequence[str]) -> Mapping[str, Sequence[VersionRow]]:
        """For each model the newest version in each stage, in the order of the first version there."""
        found: dict[str, list[VersionRow]] = {name: [] for name in names}
        for start in range(0, len(names), _CHUNK):
            chunk = [*names[start : start + _CHUNK]]
            for row in self._execute(_LATEST, workspace_=workspace, names_=chunk):
                found[row.name].append(_version(row))
        return found

    def holding(self, workspace: str, path: str) -> tuple[str, int] | None:
        """A version that an artifact of this name belongs to, or that lies below it, and that is in use.

        In use is what is in Staging or Production, and what an alias points to.
        """
        parts = path.split("/")
        folders = [f"{ARTIFACTS}{'/'.join(parts[:depth])}" for depth in range(1, len(parts) + 1)]
        below = f"{ARTIFACTS}{path}/"
        row = self._execute(_HELD, workspace_=workspace, folders_=folders, start_=below, end_=f"{below[:-1]}0").first()
        return None if row is None else (str(row.name), int(row.number))

    def blobs(self) -> Iterable[Digest]:
        """Every blob that a version was converted to: they are in use."""
        return (Digest(row.onnx) for row in self._execute(_BLOBS))


def _at(row: VersionRow) -> dict[str, Any]:
    return {"workspace_": row.workspace, "name_": row.name, "number_": row.number}


def _version(row: Row) -> VersionRow:
    return msgspec.convert(fields(row), VersionRow)
