"""Who asks, for what, and what was decided."""

from typing import Any, Literal

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who asks. ``groups`` are names; they, not the name, give rights."""

    kind: Literal["User", "Service"]
    id: str
    name: str
    groups: tuple[str, ...] = ()


class Parent(msgspec.Struct, frozen=True):
    """What a resource lies in."""

    kind: str
    id: str


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. ``attributes`` are exactly those of its entity in ``schema.cedarschema``."""

    kind: Literal["Home", "UseCase", "Table", "Run", "Bundle", "Endpoint", "Ledger", "Workspace", "Model"]
    id: str
    attributes: dict[str, Any] = {}
    parents: tuple[Parent, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. ``policies`` are the ids of those that decided, ``reasons`` what they say in plain words."""

    allowed: bool
    policies: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


FLOW = Principal(kind="Service", id="flow", name="flow")
"""The flow of a use case, acting on behalf of whoever started it."""

HOME = Resource(kind="Home", id="home")


def use_case(name: str, *, purpose: str = "", risk: str = "limited", team: str = "") -> Resource:
    """A use case."""
    return Resource(
        kind="UseCase",
        id=name,
        attributes={"name": name, "purpose": purpose, "risk": risk, "team": team},
        parents=(Parent("Home", "home"),),
    )


def table(name: str, *, use_case: str, purposes: tuple[str, ...], sensitive: bool = False) -> Resource:
    """A table, with the purposes that its rows may be used for."""
    return Resource(
        kind="Table",
        id=name,
        attributes={"name": name, "use_case": use_case, "purposes": list(purposes), "sensitive": sensitive},
        parents=(Parent("UseCase", use_case), Parent("Home", "home")),
    )


def bundle(digest: str, *, use_case: str, approvers: tuple[str, ...] = ()) -> Resource:
    """A model version, with the groups that may approve it."""
    return Resource(
        kind="Bundle",
        id=digest,
        attributes={"use_case": use_case, "approvers": _groups(approvers)},
        parents=(Parent("UseCase", use_case),),
    )


def run(run_id: str, *, use_case: str) -> Resource:
    """A training run."""
    return Resource(kind="Run", id=run_id, attributes={"use_case": use_case}, parents=(Parent("UseCase", use_case),))


def endpoint(name: str, *, use_case: str) -> Resource:
    """A served model."""
    attributes = {"use_case": use_case, "name": name}
    return Resource(kind="Endpoint", id=name, attributes=attributes, parents=(Parent("UseCase", use_case),))


def workspace(name: str, *, shared: bool, readers: tuple[str, ...] = (), writers: tuple[str, ...] = ()) -> Resource:
    """A workspace, with the groups that may read and write in it."""
    attributes = {"name": name, "shared": shared, "readers": _groups(readers), "writers": _groups(writers)}
    return Resource(kind="Workspace", id=name, attributes=attributes, parents=(Parent("Home", "home"),))


def model(identifier: str, *, name: str, workspace: str, approvers: tuple[str, ...] = ()) -> Resource:
    """A registered model that belongs to no use case, with the groups that may let its versions into production."""
    return Resource(
        kind="Model",
        id=identifier,
        attributes={"name": name, "approvers": _groups(approvers)},
        parents=(Parent("Workspace", workspace),),
    )


def _groups(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"__entity": {"type": "Group", "id": name}} for name in names]


LEDGER = Resource(kind="Ledger", id="ledger", parents=(Parent("Home", "home"),))
