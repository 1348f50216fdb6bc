"""Searching the registry: what may be compared and ordered by, how much comes at once, and what each result holds."""

from collections.abc import Mapping, Sequence

import msgspec

from bedplate.errors import InputError
from bedplate.release.changes import model, newest, version
from bedplate.store import Transaction, pages
from bedplate.store.filters import TEXTS, Grammar, Order, parse, parse_order
from bedplate.store.models import ModelRow, VersionRow

_KINDS = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
MODELS = Grammar(
    kinds=_KINDS,  # type: ignore[arg-type]
    attributes={"name": "text"},
    aliases={"timestamp": "last_updated_timestamp"},
    comparators={"tag": TEXTS},
    listed=frozenset({"name"}),
    order_attributes=frozenset({"name", "last_updated_timestamp"}),
)
VERSIONS = Grammar(
    kinds=_KINDS,  # type: ignore[arg-type]
    attributes={"name": "text", "version_number": "integer", "run_id": "text", "source_path": "text"},
    comparators={"tag": TEXTS},
    listed=frozenset({"name", "run_id"}),
    order_attributes=frozenset({"name", "version_number", "creation_timestamp", "last_updated_timestamp"}),
)
MODELS_AT_ONCE, MOST_MODELS = 100, 1000
VERSIONS_AT_ONCE, MOST_VERSIONS = 10_000, 200_000
_NEWEST_FIRST = (Order("attribute", "last_updated_timestamp", False),)


class Tagged(msgspec.Struct, frozen=True):
    """A version with its tags, and the aliases that point to it where they were asked for."""

    row: VersionRow
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


class Whole(msgspec.Struct, frozen=True):
    """A registered model with its tags and aliases, and its newest version in each stage."""

    row: ModelRow
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    latest: tuple[Tagged, ...]


class ModelPage(msgspec.Struct, frozen=True):
    """Models, and the token of the next page if there is one."""

    models: list[Whole]
    next_page_token: str | None


class VersionPage(msgspec.Struct, frozen=True):
    """Versions, and the token of the next page if there is one."""

    versions: list[Tagged]
    next_page_token: str | None


def models(
    tx: Transaction,
    workspace: str,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    max_results: int = MODELS_AT_ONCE,
    page_token: str | None = None,
) -> ModelPage:
    """The models of a workspace that match, by name unless ``order_by`` says otherwise.

    Raises:
        InputError: filter, order, count or token is not as it must be.
    """
    _count(max_results, MOST_MODELS)
    query = ("registered models", workspace, filter, tuple(order_by))
    rows, last = tx.registry_search.models(
        workspace,
        parse(filter, MODELS),
        parse_order(order_by, MODELS),
        limit=max_results,
        after=pages.position(query, page_token),
    )
    found = [_by_stage(each) for each in whole(tx, workspace, rows)]
    return ModelPage(found, pages.token(query, last))


def versions(
    tx: Transaction,
    workspace: str,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    max_results: int = VERSIONS_AT_ONCE,
    page_token: str | None = None,
) -> VersionPage:
    """The versions of a workspace that match, those that changed last first unless ``order_by`` says otherwise.

    Raises:
        InputError: filter, order, count or token is not as it must be.
    """
    _count(max_results, MOST_VERSIONS)
    query = ("model versions", workspace, filter, tuple(order_by))
    rows, last = tx.registry_search.versions(
        workspace,
        parse(filter, VERSIONS),
        parse_order(order_by, VERSIONS) or _NEWEST_FIRST,
        limit=max_results,
        after=pages.position(query, page_token),
    )
    return VersionPage(tagged(tx, workspace, rows), pages.token(query, last))


def whole(tx: Transaction, workspace: str, rows: Sequence[ModelRow]) -> list[Whole]:
    """Models with what belongs to them."""
    names = [row.name for row in rows]
    tags, aliases = tx.models.tags(workspace, names), tx.models.aliases(workspace, names)
    latest = tx.versions.latest(workspace, names)
    by_version = tx.versions.tags(workspace, [(row.name, row.number) for each in latest.values() for row in each])
    return [
        Whole(
            row,
            tags[row.name],
            aliases[row.name],
            tuple(Tagged(version, by_version[version.name, version.number]) for version in latest[row.name]),
        )
        for row in rows
    ]


def tagged(tx: Transaction, workspace: str, rows: Sequence[VersionRow]) -> list[Tagged]:
    """Versions with their tags."""
    tags = tx.versions.tags(workspace, [(row.name, row.number) for row in rows])
    return [Tagged(row, tags[row.name, row.number]) for row in rows]


def aliased(tx: Transaction, workspace: str, rows: Sequence[VersionRow]) -> list[Tagged]:
    """Versions with their tags and the aliases that point to them."""
    pointing = tx.models.aliases(workspace, list({row.name: None for row in rows}))
    return [
        msgspec.structs.replace(
            each, aliases=tuple(alias for alias, number in pointing[each.row.name].items() if number == each.row.number)
        )
        for each in tagged(tx, workspace, rows)
    ]


def get_model(tx: Transaction, workspace: str, name: str) -> Whole:
    """One model.

    Raises:
        NotFoundError: there is none of this name.
    """
    return whole(tx, workspace, [model(tx, workspace, name)])[0]


def get_version(tx: Transaction, workspace: str, name: str, number: int) -> Tagged:
    """One version.

    Raises:
        NotFoundError: there is none of this number.
    """
    return aliased(tx, workspace, [version(tx, workspace, name, number)[0]])[0]


def latest(tx: Transaction, workspace: str, name: str, stages: Sequence[str]) -> list[Tagged]:
    """The newest version in each stage, or in those that are named.

    Raises:
        NotFoundError: there is no such model.
        InputError: there is no such stage.
    """
    return aliased(tx, workspace, newest(tx, workspace, name, stages))


def _by_stage(found: Whole) -> Whole:
    """The same with the newest versions by the name of their stage, as MLflow lists them in a search."""
    return Whole(found.row, found.tags, found.aliases, tuple(sorted(found.latest, key=lambda each: each.row.stage)))


def _count(max_results: int, most: int) -> None:
    if not 1 <= max_results <= most:
        raise InputError(
            f"max_results must be at least 1 and at most {most:,}, not {max_results}", where="max_results",
            fix="ask for pages",
        )  # fmt: skip
