"""Every action that the schema knows, on every kind of resource, by every role: what the built-in policies say."""

from typing import Any

import pytest

from bedplate.policy import values
from bedplate.policy.policies import Policies, applicable
from bedplate.policy.values import Principal, Resource
from tests.rights import MAY
from tests.team import ROLES

POLICIES = Policies.load()
PRODUCTION = {"environment": "production", "gates_passed": True}
THINGS: dict[str, tuple[Resource, dict[str, Any]]] = {
    "Home": (values.HOME, {}),
    "Ledger": (values.LEDGER, {}),
    "UseCase": (values.use_case("shop"), {}),
    "Table": (values.table("shop/sales", use_case="shop", purposes=("pricing",)), {"purpose": "pricing"}),
    "Run": (values.run("r", use_case="shop"), {}),
    "Bundle": (values.bundle("sha256:1", use_case="shop", approvers=("risk",)), PRODUCTION),
    "Model": (values.model("m", name="m", workspace="default", approvers=("risk",)), PRODUCTION),
    "Endpoint": (values.endpoint("shop", use_case="shop"), {}),
    "Workspace": (values.workspace("default", shared=True), {}),
    "Closed": (values.workspace("sealed", shared=False, readers=("insiders",), writers=("owners",)), {}),
}


def test_the_table_has_a_row_for_everything_in_the_schema() -> None:
    asked = set(applicable()) | {(action, "Closed") for action, kind in applicable() if kind == "Workspace"}

    assert set(MAY) == asked


@pytest.mark.parametrize(("action", "kind"), MAY)
def test_who_may(action: str, kind: str) -> None:
    thing, context = THINGS[kind]
    found = {
        role: POLICIES.decide(Principal(kind="User", id=role, name=role, groups=groups), action, thing, context).allowed
        for role, groups in ROLES.items()
        if role != "disabled"
    }

    assert found == {role: may for role, may in MAY[action, kind].items() if role != "disabled"}


@pytest.mark.parametrize("action", ["read", "list", "write", "administer"])
def test_a_closed_workspace_is_open_to_the_groups_it_names_and_to_no_other(action: str) -> None:
    closed, _ = THINGS["Closed"]

    def may(*groups: str, thing: Resource = closed) -> bool:
        return POLICIES.decide(Principal(kind="User", id="u", name="u", groups=groups), action, thing).allowed

    assert may("insiders") == (action in ("read", "list"))
    assert may("owners") == (action in ("read", "list", "write"))
    assert may("insiders", "engineers") == (action in ("read", "list"))
    assert may("owners", "engineers") == (action != "administer")
    assert not may("insiders", thing=values.workspace("other", shared=False, readers=("others",)))
    assert not may("insiders", thing=THINGS["Workspace"][0])
