"""What was made of rows: who may see it is decided by the rows and columns it was made of."""

from functools import lru_cache

from bedplate.policy.filters import Attribute, RowFilter, RowPolicies
from bedplate.policy.policies import Decides
from bedplate.policy.values import FLOW, Principal, Resource, table
from bedplate.records import Governance, RowAccess, ViewRecord


def why_not(governance: Governance, principal: Principal, purpose: str, *, scores: bool = False) -> str:
    """Why what the flow (``scores``: somebody else) made of rows does not go out; empty where it does: to whom the row
    policies let out the same rows as to the flow, or every row."""
    if principal == FLOW:
        return ""
    for name, rule in governance.rows.items():
        mine = filter_of(rule, principal, purpose)
        if not mine.everything and (scores or mine.condition != filter_of(rule, FLOW, purpose).condition):
            return f"it was made of rows of {name} that the row policies do not let out to them"
    return ""


def hides(
    policies: Decides, principal: Principal, resource: Resource, purpose: str, governance: Governance, column: str
) -> bool:
    """Whether what the flow made of ``column`` tells somebody what its masks hide: they may not unmask it, and the flow
    may. Where it is hidden from the flow as well, nothing that tells of it was made."""
    tags = [*(("",) if column in governance.sensitive else ()), *governance.tagged.get(column, ())]

    def unmasks(who: Principal, tag: str) -> bool:
        return policies.decide(who, "unmask", resource, {"purpose": purpose, "tag": tag}).allowed

    return principal != FLOW and any(unmasks(FLOW, tag) and not unmasks(principal, tag) for tag in tags)


def resource_of(name: str, use_case: str, governance: Governance) -> Resource:
    """A table of a use case, as policy knows it."""
    return table(
        name,
        use_case=use_case,
        purposes=(governance.purpose,),
        sensitive=bool(governance.sensitive or governance.masks),
    )


def refusal(
    policies: Decides, principal: Principal, resource: Resource, purpose: str, governance: Governance, view: ViewRecord
) -> str:
    """Why somebody may not read features of a view by key; empty where they may, masked as :func:`hides` says."""
    decision = policies.decide(principal, "read", resource, {"purpose": purpose})
    if not decision.allowed:
        return "; ".join(decision.reasons) or "no policy allows it"
    for name in view.entity:
        if hides(policies, principal, resource, purpose, governance, name):
            return f"{name} is masked"  # whoever looks for a value of it would learn that it is there
    return why_not(governance, principal, purpose)


def filter_of(rule: RowAccess, principal: Principal, purpose: str) -> RowFilter:
    """What the row policies of a data set let out, by its contract's columns."""
    return loaded(rule.text, tuple(as_contracted(rule).items())).filter(principal, purpose)


def as_contracted(rule: RowAccess) -> dict[str, Attribute]:
    """The columns that row policies speak of, as the contract has them."""
    return {name: Attribute(kind, name in rule.required) for name, kind in rule.columns.items()}


@lru_cache(maxsize=256)
def loaded(text: str, columns: tuple[tuple[str, Attribute], ...]) -> RowPolicies:
    """Row policies, parsed once."""
    return RowPolicies.load(text, dict(columns))
