"""Registered models and their versions over MLflow's API."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bedplate.api.mlflow import wire
from bedplate.api.mlflow.entities import KeyValue
from bedplate.app.models import ModelRegistry
from bedplate.app.site import Site
from bedplate.http import CHANGE, Limits, Request, Response, Route
from bedplate.release import checks, searching
from bedplate.release.changes import location_of, version
from bedplate.release.registry import NewVersion, aliased
from bedplate.release.searching import Tagged, Whole
from bedplate.store import Transaction

LOOKS = Limits(body=1 << 20, depth=16, receipt=10.0, deadline=300.0)
"""Of what may have to look through the files of a model before it answers."""


# ------------------------------------------------------------------------------------------------------- what is asked


class Named(msgspec.Struct, kw_only=True):
    """Which registered model."""

    name: str | None = None


class CreateModel(msgspec.Struct, kw_only=True):
    """What a new registered model is to be."""

    name: str | None = None
    tags: list[KeyValue] = []
    description: str = ""


class UpdateModel(msgspec.Struct, kw_only=True):
    """A new description of a registered model."""

    name: str | None = None
    description: str = ""


class RenameModel(msgspec.Struct, kw_only=True):
    """A new name of a registered model."""

    name: str | None = None
    new_name: str | None = None


class Search(msgspec.Struct, kw_only=True):
    """Which of them, in which order."""

    filter: str = ""
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str = ""


class LatestVersions(msgspec.Struct, kw_only=True):
    """The newest version in which stages."""

    name: str | None = None
    stages: list[str] = []


class ModelTag(msgspec.Struct, kw_only=True):
    """A tag of a registered model."""

    name: str | None = None
    key: str | None = None
    value: str = ""


class Alias(msgspec.Struct, kw_only=True):
    """An alias of a registered model, and the version that it points to."""

    name: str | None = None
    alias: str | None = None
    version: str | None = None


class CreateVersion(msgspec.Struct, kw_only=True):
    """What a new version is made from."""

    name: str | None = None
    source: str | None = None
    run_id: str | None = None
    tags: list[KeyValue] = []
    run_link: str = ""
    description: str = ""
    model_id: str | None = None


class Numbered(msgspec.Struct, kw_only=True):
    """Which version."""

    name: str | None = None
    version: str | None = None


class UpdateVersion(msgspec.Struct, kw_only=True):
    """A new description of a version."""

    name: str | None = None
    version: str | None = None
    description: str | None = None


class Transition(msgspec.Struct, kw_only=True):
    """The stage that a version is to move to."""

    name: str | None = None
    version: str | None = None
    stage: str | None = None
    archive_existing_versions: bool = False


class VersionTag(msgspec.Struct, kw_only=True):
    """A tag of a version."""

    name: str | None = None
    version: str | None = None
    key: str | None = None
    value: str = ""


# ----------------------------------------------------------------------------------------------------- what is answered


class AliasOf(msgspec.Struct):
    """An alias, and the version that it points to."""

    alias: str
    version: str


class ModelVersion(msgspec.Struct):
    """One version."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    current_stage: str
    description: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    run_id: str | UnsetType = UNSET
    status: str = "READY"
    status_message: str | UnsetType = UNSET
    tags: list[KeyValue] | UnsetType = UNSET
    run_link: str | UnsetType = UNSET
    aliases: list[str] | UnsetType = UNSET


class RegisteredModel(msgspec.Struct):
    """One registered model."""

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | UnsetType = UNSET
    latest_versions: list[ModelVersion] | UnsetType = UNSET
    tags: list[KeyValue] | UnsetType = UNSET
    aliases: list[AliasOf] | UnsetType = UNSET


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _models(site, site.models)
    yield from _marks(site.models)
    yield from _aliases(site, site.models)
    yield from _versions(site, site.models)
    yield from _releases(site.models)


def _models(site: Site, registry: ModelRegistry) -> Iterator[Route]:
    def create(request: Request) -> Response:
        wanted = wire.decode(request, CreateModel)
        name = wire.required("name", wanted.name)
        workspace, by = request.params["workspace"], request.principal
        tags = {tag.key: tag.value for tag in wanted.tags}

        def work(tx: Transaction) -> Whole:
            registry.rules.create_model(tx, by, workspace, name, tags, wanted.description)
            return searching.get_model(tx, workspace, name)

        return wire.json({"registered_model": _model(registry.write(work))})

    def get(request: Request) -> Response:
        name = wire.required("name", wire.decode(request, Named).name)
        checks.model_name(name)
        with site.store.read() as tx:
            found = searching.get_model(tx, request.params["workspace"], name)
        return wire.json({"registered_model": _model(found)})

    def update(request: Request) -> Response:
        wanted = wire.decode(request, UpdateModel)
        name = wire.required("name", wanted.name)
        workspace, by = request.params["workspace"], request.principal

        def work(tx: Transaction) -> Whole:
            registry.rules.describe_model(tx, by, workspace, name, wanted.description)
            return searching.get_model(tx, workspace, name)

        return wire.json({"registered_model": _model(registry.write(work))})

    def rename(request: Request) -> Response:
        wanted = wire.decode(request, RenameModel)
        name, new = wire.required("name", wanted.name), wire.required("new_name", wanted.new_name)
        workspace, by = request.params["workspace"], request.principal

        def work(tx: Transaction) -> Whole:
            registry.rules.rename_model(tx, by, workspace, name, new)
            return searching.get_model(tx, workspace, new)

        return wire.json({"registered_model": _model(registry.write(work))})

    def delete(request: Request) -> Response:
        name = wire.required("name", wire.decode(request, Named).name)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.delete_model(tx, by, workspace, name))
        return wire.json({})

    def search(request: Request) -> Response:
        wanted = wire.decode(request, Search)
        with site.store.read() as tx:
            page = searching.models(
                tx,
                request.params["workspace"],
                filter=wanted.filter,
                order_by=wanted.order_by,
                max_results=searching.MODELS_AT_ONCE if wanted.max_results is None else wanted.max_results,
                page_token=wanted.page_token or None,
            )
        return wire.page("registered_models", [_model(found) for found in page.models], page.next_page_token)

    def latest(request: Request) -> Response:
        wanted = wire.decode(request, LatestVersions)
        name = wire.required("name", wanted.name)
        with site.store.read() as tx:
            found = searching.latest(tx, request.params["workspace"], name, wanted.stages)
        return wire.page("model_versions", [_version(each) for each in found], None)

    base = "/mlflow/registered-models"
    yield from _changes(
        base,
        ("POST", "create", create, CreateModel, "Register a model"),
        ("PATCH", "update", update, UpdateModel, "Describe a registered model"),
        ("POST", "rename", rename, RenameModel, "Rename a registered model"),
        ("DELETE", "delete", delete, Named, "Delete a registered model and its versions"),
    )
    yield from _reads(
        base,
        ("GET", "get", "read", get, Named, "One registered model"),
        ("GET", "search", "list", search, Search, "Registered models that match"),
        ("GET", "get-latest-versions", "list", latest, LatestVersions, "The newest version in each stage"),
        ("POST", "get-latest-versions", "list", latest, LatestVersions, "The newest version in each stage"),
    )


def _marks(registry: ModelRegistry) -> Iterator[Route]:
    """Tags of models and of versions."""

    def set_tag(request: Request) -> Response:
        wanted = wire.decode(request, ModelTag)
        name, key = wire.required("name", wanted.name), wire.required("key", wanted.key)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.set_model_tag(tx, by, workspace, name, key, wanted.value))
        return wire.json({})

    def delete_tag(request: Request) -> Response:
        wanted = wire.decode(request, ModelTag)
        name, key = wire.required("name", wanted.name), wire.required("key", wanted.key)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.delete_model_tag(tx, by, workspace, name, key))
        return wire.json({})

    def set_of_version(request: Request) -> Response:
        wanted = wire.decode(request, VersionTag)
        name, number = _which(wanted)
        key = wire.required("key", wanted.key)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.set_version_tag(tx, by, workspace, name, number, key, wanted.value))
        return wire.json({})

    def delete_of_version(request: Request) -> Response:
        wanted = wire.decode(request, VersionTag)
        name, number = _which(wanted)
        key = wire.required("key", wanted.key)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.delete_version_tag(tx, by, workspace, name, number, key))
        return wire.json({})

    yield from _changes(
        "/mlflow/registered-models",
        ("POST", "set-tag", set_tag, ModelTag, "Tag a registered model"),
        ("DELETE", "delete-tag", delete_tag, ModelTag, "Take a tag from a registered model"),
    )
    yield from _changes(
        "/mlflow/model-versions",
        ("POST", "set-tag", set_of_version, VersionTag, "Tag a version"),
        ("DELETE", "delete-tag", delete_of_version, VersionTag, "Take a tag from a version"),
    )


def _aliases(site: Site, registry: ModelRegistry) -> Iterator[Route]:
    def set_alias(request: Request) -> Response:
        wanted = wire.decode(request, Alias)
        name, alias = wire.required("name", wanted.name), wire.required("alias", wanted.alias)
        number = wire.required("version", wanted.version)
        checks.new_alias(alias)
        registry.set_alias(request.principal, request.params["workspace"], name, alias, checks.version_number(number))
        return wire.json({})

    def delete_alias(request: Request) -> Response:
        wanted = wire.decode(request, Alias)
        name, alias = wire.required("name", wanted.name), wire.required("alias", wanted.alias)
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.moves.delete_alias(tx, by, workspace, name, alias))
        return wire.json({})

    def get_by_alias(request: Request) -> Response:
        wanted = wire.decode(request, Alias)
        name, alias = wire.required("name", wanted.name), wire.required("alias", wanted.alias)
        workspace = request.params["workspace"]
        with site.store.read() as tx:
            row = aliased(tx, workspace, name, alias)
            found = searching.get_version(tx, workspace, name, row.number)
        return wire.json({"model_version": _version(found)})

    base = "/mlflow/registered-models"
    yield from _changes(base, ("DELETE", "alias", delete_alias, Alias, "Take an alias away"))
    yield from _changes(base, ("POST", "alias", set_alias, Alias, "Point an alias to a version"), limits=LOOKS)
    yield from _reads(base, ("GET", "alias", "read", get_by_alias, Alias, "The version that an alias points to"))


def _releases(registry: ModelRegistry) -> Iterator[Route]:
    """What may have to look through files before it answers."""

    def create(request: Request) -> Response:
        wanted = wire.decode(request, CreateVersion)
        name, source = wire.required("name", wanted.name), wire.required("source", wanted.source)
        new = NewVersion(
            source=source,
            run=wanted.run_id,
            run_link=wanted.run_link,
            logged_model=wanted.model_id,
            description=wanted.description,
            tags={tag.key: tag.value for tag in wanted.tags},
        )
        made = registry.create_version(request.principal, request.params["workspace"], name, new)
        return wire.json({"model_version": _version(made)})

    def transition(request: Request) -> Response:
        wanted = wire.decode(request, Transition)
        stage = wire.required("stage", wanted.stage)
        name, number = _which(wanted)
        found, _ = registry.transition(
            request.principal,
            request.params["workspace"],
            name,
            number,
            stage,
            archive_existing=wanted.archive_existing_versions,
        )
        return wire.json({"model_version": _version(found)})

    yield from _changes(
        "/mlflow/model-versions",
        ("POST", "create", create, CreateVersion, "Register a version of a model"),
        ("POST", "transition-stage", transition, Transition, "Move a version to a stage, if it may be released there"),
        limits=LOOKS,
    )


def _versions(site: Site, registry: ModelRegistry) -> Iterator[Route]:
    def get(request: Request) -> Response:
        name, number = _which(wire.decode(request, Numbered))
        checks.model_name(name)
        with site.store.read() as tx:
            found = searching.get_version(tx, request.params["workspace"], name, number)
        return wire.json({"model_version": _version(found)})

    def update(request: Request) -> Response:
        wanted = wire.decode(request, UpdateVersion)
        name, number = _which(wanted)
        workspace, by = request.params["workspace"], request.principal

        def work(tx: Transaction) -> Tagged:
            registry.rules.describe_version(tx, by, workspace, name, number, wanted.description)
            return searching.get_version(tx, workspace, name, number)

        return wire.json({"model_version": _version(registry.write(work))})

    def delete(request: Request) -> Response:
        name, number = _which(wire.decode(request, Numbered))
        workspace, by = request.params["workspace"], request.principal
        registry.write(lambda tx: registry.rules.delete_version(tx, by, workspace, name, number))
        return wire.json({})

    def search(request: Request) -> Response:
        wanted = wire.decode(request, Search)
        with site.store.read() as tx:
            page = searching.versions(
                tx,
                request.params["workspace"],
                filter=wanted.filter,
                order_by=wanted.order_by,
                max_results=searching.VERSIONS_AT_ONCE if wanted.max_results is None else wanted.max_results,
                page_token=wanted.page_token or None,
            )
        return wire.page("model_versions", [_version(found) for found in page.versions], page.next_page_token)

    def download_uri(request: Request) -> Response:
        name, number = _which(wire.decode(request, Numbered))
        with site.store.read() as tx:
            row, _ = version(tx, request.params["workspace"], name, number)
        return wire.json({"artifact_uri": location_of(row)})

    base = "/mlflow/model-versions"
    yield from _changes(
        base,
        ("PATCH", "update", update, UpdateVersion, "Describe a version"),
        ("DELETE", "delete", delete, Numbered, "Delete a version"),
    )
    yield from _reads(
        base,
        ("GET", "get", "read", get, Numbered, "One version"),
        ("GET", "search", "list", search, Search, "Versions that match"),
        ("GET", "get-download-uri", "read", download_uri, Numbered, "What the files of a version are fetched from"),
    )


Handler = Callable[[Request], Response]


def _changes(
    base: str, *operations: tuple[str, str, Handler, type[msgspec.Struct], str], limits: Limits = wire.SMALL
) -> Iterator[Route]:
    for method, path, handler, message, summary in operations:
        yield from wire.routes(
            method, f"{base}/{path}", "write", CHANGE, handler, summary=summary, request_type=message, limits=limits
        )


def _reads(base: str, *operations: tuple[str, str, str, Handler, type[msgspec.Struct], str]) -> Iterator[Route]:
    for method, path, action, handler, message, summary in operations:
        yield from wire.routes(
            method, f"{base}/{path}", action, wire.SHOWS, handler, summary=summary, request_type=message
        )


def _which(wanted: Any) -> tuple[str, int]:
    name, number = wire.required("name", wanted.name), wire.required("version", wanted.version)
    return name, checks.version_number(number)


def _model(found: Whole) -> RegisteredModel:
    row = found.row
    return RegisteredModel(
        name=row.name,
        creation_timestamp=row.created,
        last_updated_timestamp=row.updated,
        description=row.description or UNSET,
        latest_versions=[_version(each) for each in found.latest] or UNSET,
        tags=_tags(found.tags.items()),
        aliases=[AliasOf(alias, str(number)) for alias, number in found.aliases.items()] or UNSET,
    )


def _version(found: Tagged) -> ModelVersion:
    row = found.row
    return ModelVersion(
        name=row.name,
        version=str(row.number),
        creation_timestamp=row.created,
        last_updated_timestamp=row.updated,
        current_stage=row.stage,
        description=_given(row.description),
        source=_given(row.source if row.fact is None else location_of(row)),
        run_id=_given(row.run),
        status=row.status,
        status_message=row.status_message or UNSET,
        tags=_tags(found.tags.items()),
        run_link=_given(row.run_link),
        aliases=list(found.aliases) or UNSET,
    )


def _given(text: str | None) -> str | UnsetType:
    return UNSET if text is None else text


def _tags(pairs: Iterable[tuple[str, str]]) -> list[KeyValue] | UnsetType:
    return [KeyValue(key, value) for key, value in pairs] or UNSET
