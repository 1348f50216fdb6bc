"""Policies that users wrote: kept in the database, decided by beside the built-in ones, and never in part.

Each stands under its own ``@id``. A file may hold several; they are added together or not at all. What is added was
parsed by a child process first, and the whole set was validated before it decides anything.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bedplate import ids
from bedplate.app import access, decisions, rights, workspaces
from bedplate.app.people_models import Gain, Policy, PolicyChange, PolicyCheck, PolicyTest
from bedplate.errors import BedplateError, ConflictError, InputError, IntegrityError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.policy import values as policy
from bedplate.policy.policies import Policies, applicable, builtin_text
from bedplate.policy.source import Statement, statements
from bedplate.policy.values import FLOW, Resource
from bedplate.store import Store, Transaction
from bedplate.store.policies import PolicyRow
from bedplate.usecase import load as load_file
from bedplate.usecase.problems import nearest

if TYPE_CHECKING:
    from bedplate.app.system import System

_LOG = logging.getLogger(__name__)
_BUILT_IN = "built in"
_MOST_COMPARED = 5000
"""How many decisions a comparison asks for at most: a second or two."""

LOCKED = """\
@id("locked")
@reason("a policy of this home cannot be used, so administrators may mend it and nobody may do anything else")
forbid (principal, action, resource)
unless {
  principal in Group::"administrators" &&
  action in [Action::"administer", Action::"operate", Action::"audit", Action::"enter"]
};
"""
"""What decides where the policies of a home cannot: without them something could be let through that they forbid."""


def load(opened: Store) -> Policies:
    """The policies of a home: the built-in ones and those that users added.

    Where one cannot be used any more, such as after an update of the schema, the home is locked until it is mended:
    see :data:`LOCKED`.
    """
    with opened.read() as tx:
        rows = tx.policies.list()
    return _usable(rows)


def _usable(rows: Sequence[PolicyRow]) -> Policies:
    try:
        for row in rows:
            if ids.digest_bytes(row.text.encode()) != row.digest:
                raise IntegrityError(f"the policy {row.id} is not what was added", where="policies")
        return Policies.load(*(row.text for row in rows))
    except BedplateError as error:
        _LOG.error("everybody but administrators is locked out: %s", error)
        return Policies.load(LOCKED)


# --------------------------------------------------------------------------------------------------------- operations


class _Plan(NamedTuple):
    """What adding a text would do: the policies that are new, the ids they replace, and all that would be in force."""

    new: tuple[Statement, ...]
    replaced: tuple[str, ...]
    after: Policies


def add(
    system: "System", principal: Principal, text: str, *, replace: bool = False, where: str = "policy"
) -> PolicyChange:
    """Take the policies of a text into force, all of them or none. One that is there with the same text stays as it is.

    Raises:
        ConflictError: another policy has the id of one, and ``replace`` does not say that it should go.
        DeniedError: policy does not let this person administer the home.
        InputError: the text cannot be used.
        StateError: nobody could administer the home afterwards.
    """
    decision = access.demand(system, principal, "administer", policy.HOME)
    wanted = _read(text, where)
    with system.changing_policies:
        plan, before = _planned(system, wanted, where), system.policies.now
        if plan.replaced and not replace:
            raise ConflictError(
                f"there is a policy {', '.join(plan.replaced)} with another text", where=where,
                fix="replace it: --replace",
            )  # fmt: skip
        if plan.new:
            with rights.changing(system, plan.after) as tx:
                for statement in plan.new:
                    tx.policies.put(statement.id, statement.text, by=principal.name)
                texts = {statement.id: statement.text for statement in plan.new}
                changes = {"added": texts, "replaced": list(plan.replaced)}
                _record(system, tx, principal, "policy.add", decision.policies, changes)
        return _change(system, before, plan.after, added=plan.new, replaced=plan.replaced)


def compare(system: "System", principal: Principal, text: str, *, where: str = "policy") -> PolicyChange:
    """What adding a text would change, policies of the same ids replaced. Nothing is changed.

    Raises:
        DeniedError, InputError, StateError: as :func:`add`.
    """
    access.demand(system, principal, "administer", policy.HOME)
    plan = _planned(system, _read(text, where), where)
    with system.store.read() as tx:
        rights.leave_an_administrator(tx, plan.after)
    return _change(system, system.policies.now, plan.after, added=plan.new, replaced=plan.replaced)


def planned(system: "System", text: str, where: str = "policy") -> Policies:
    """All that would be in force once the policies of a text were added, those of the same ids replaced.

    Raises:
        InputError: the text cannot be used.
    """
    return _planned(system, _read(text, where), where).after


def remove(system: "System", principal: Principal, policy_id: str) -> PolicyChange:
    """Take one policy out of force.

    Raises:
        DeniedError, StateError: as :func:`add`.
        NotFoundError: nobody added a policy of this id.
    """
    decision = access.demand(system, principal, "administer", policy.HOME)
    with system.changing_policies:
        rows = _rows(system)
        left = [row for row in rows if row.id != policy_id]
        if len(left) == len(rows):
            built_in = policy_id in {statement.id for statement in statements(builtin_text())}
            raise NotFoundError(
                f"the policy {policy_id!r} is built in" if built_in else f"no policy {policy_id!r} was added here",
                fix="add a forbid that says where it must not hold" if built_in else "see: bedplate policy list",
            )
        after, before = _usable(left), system.policies.now
        with rights.changing(system, after) as tx:
            tx.policies.remove(policy_id)
            _record(system, tx, principal, "policy.remove", decision.policies, {"removed": [policy_id]})
        return _change(system, before, after, removed=(policy_id,))


def listed(system: "System", principal: Principal) -> tuple[Policy, ...]:
    """Every policy in force: those that were added, then the built-in ones.

    Raises:
        DeniedError: policy does not let this person administer the home.
    """
    access.demand(system, principal, "administer", policy.HOME)
    found = []
    for row in _rows(system):
        try:
            (statement,) = statements(row.text)
        except (BedplateError, ValueError):  # it is what locks the home; its id is what one removes it by
            found.append(Policy(id=row.id, effect="unusable", reason="", text=row.text, by=row.by, created=row.created))
            continue
        found.append(_shown(statement, row.by, row.created))
    return (*found, *(_shown(statement, _BUILT_IN, "") for statement in statements(builtin_text())))


def check(text: str, where: str = "policy") -> PolicyCheck:
    """What a text holds and whether it could be added to the built-in policies. Asks no home and changes none.

    Raises:
        InputError: it cannot be used.
    """
    found = _read(text, where)
    _together([], found, where)
    return PolicyCheck(policies=tuple(_shown(statement, "", "") for statement in found))


def trial(
    system: "System",
    principal: Principal,
    name: str,
    action: str,
    resource: str,
    *,
    purpose: str = "",
    environment: str = "",
    gates_passed: bool = False,
) -> PolicyTest:
    """What the policies in force say about somebody, an action and a resource (``KIND/ID``).

    Raises:
        DeniedError: policy does not let the asking person administer the home.
        InputError: there is no such action, or it cannot be about such a resource.
        NotFoundError: there is no such principal, use case or workspace.
    """
    access.demand(system, principal, "administer", policy.HOME)
    kind, _, identifier = resource.partition("/")
    _check_asked(action, kind, resource)
    with system.store.read() as tx:
        who = who_is(tx, name)
        thing = _thing(system, tx, kind, identifier, environment)
    context = {"purpose": purpose, "environment": environment, "gates_passed": gates_passed}
    decision = system.policies.decide(who, action, thing, context)
    return PolicyTest(
        principal=name,
        action=action,
        resource=resource,
        allowed=decision.allowed,
        policies=decision.policies,
        reasons=decision.reasons,
    )


# -------------------------------------------------------------------------------------------------------------- texts


def _rows(system: "System") -> list[PolicyRow]:
    with system.store.read() as tx:
        return tx.policies.list()


def _read(text: str, where: str) -> tuple[Statement, ...]:
    from bedplate.policy import untrusted  # starts a process: not for every command

    try:
        return untrusted.read(text)
    except InputError as error:
        error.where = where if error.where in (None, "policy") else f"{where}, {error.where}"
        raise


def _planned(system: "System", wanted: Sequence[Statement], where: str) -> _Plan:
    rows = _rows(system)
    known = {row.id: row.text for row in rows}
    new = tuple(statement for statement in wanted if known.get(statement.id) != statement.text)
    replaced = tuple(statement.id for statement in new if statement.id in known)
    return _Plan(new, replaced, _together([row for row in rows if row.id not in replaced], new, where))


def _together(rows: Sequence[PolicyRow], new: Sequence[Statement], where: str) -> Policies:
    from bedplate.policy import untrusted

    built_in = {statement.id for statement in statements(builtin_text())}
    for statement in new:
        if statement.id in built_in:
            raise InputError(
                f"the id {statement.id!r} is that of a built-in policy", where=f"{where}, line {statement.line}",
                fix="choose another id; built-in policies stay as they are",
            )  # fmt: skip
    return untrusted.load(*(row.text for row in rows), *(statement.text for statement in new))


def _record(
    system: "System",
    tx: Transaction,
    principal: Principal,
    action: str,
    policies: tuple[str, ...],
    changes: Mapping[str, object],
) -> None:
    left = ids.digest_of(sorted(row.digest for row in tx.policies.list()))
    system.ledger.record(
        tx,
        actor=principal.id,
        action=action,
        resource="policies",
        payload={**changes, "all that were added": left},
        auth=principal.auth,
        policies=policies,
    )


def _change(
    system: "System",
    before: Policies,
    after: Policies,
    *,
    added: Sequence[Statement] = (),
    replaced: tuple[str, ...] = (),
    removed: tuple[str, ...] = (),
) -> PolicyChange:
    gains, whole = _gains(system, before, after)
    return PolicyChange(
        added=tuple(statement.id for statement in added),
        replaced=replaced,
        removed=removed,
        gains=gains,
        compared_all=whole,
    )


def _shown(statement: Statement, by: str, created: str) -> Policy:
    return Policy(
        id=statement.id,
        effect=statement.effect,
        reason=statement.reason if statement.reason != statement.id else "",
        text=statement.text,
        digest=ids.digest_bytes(statement.text.encode()),
        by=by,
        created=created,
    )


# ---------------------------------------------------------------------------------------------- who, what, and whether


def _check_asked(action: str, kind: str, resource: str) -> None:
    kinds = {known for _, known in applicable()}
    actions = {known for known, about in applicable() if about == kind}
    if kind not in kinds:
        near = nearest(kind, kinds)
        raise InputError(
            f"{resource!r} is no resource", where="--resource",
            fix=f"write KIND/ID, KIND one of {', '.join(sorted(kinds))}" + (f"; did you mean {near}?" if near else ""),
        )  # fmt: skip
    if action not in actions:
        near = nearest(action, actions)
        raise InputError(
            f"{action!r} is nothing that can be done to a {kind}", where="--action",
            fix=f"use one of {', '.join(sorted(actions))}" + (f"; did you mean {near}?" if near else ""),
        )  # fmt: skip


def who_is(tx: Transaction, name: str) -> policy.Principal:
    """Somebody as policy knows them, by name.

    Raises:
        NotFoundError: nobody of this name can come in.
    """
    if name == FLOW.name:
        return FLOW
    row = tx.principals.named(name)
    if row is None or row.disabled is not None:
        raise NotFoundError(f"no user {name!r} can come in", fix="see: bedplate user list")
    return policy_principal(row)


def _thing(system: "System", tx: Transaction, kind: str, identifier: str, environment: str) -> Resource:
    if kind in ("Home", "Ledger"):
        return policy.HOME if kind == "Home" else policy.LEDGER
    if not identifier:
        raise InputError(f"which {kind}?", where="--resource", fix=f"write {kind}/ID")
    if kind == "Workspace":
        found = system.workspaces.resource(identifier)
        if found is None:
            raise NotFoundError(f"no workspace {identifier!r}", where="--resource", fix="see: bedplate workspace list")
        return found
    if kind == "UseCase":
        tx.use_cases.get(identifier)
        return policy.use_case(identifier)
    if kind == "Endpoint":
        return policy.endpoint(identifier, use_case=tx.endpoints.get(identifier).use_case)
    if kind in ("Bundle", "Table"):
        return _of_file(tx, kind, identifier, environment)
    raise InputError(
        f"a {kind} cannot be tested by its id", where="--resource", fix="test the use case that it belongs to"
    )


def _of_file(tx: Transaction, kind: str, identifier: str, environment: str) -> Resource:
    """The latest model version of a use case, or a table ``USE_CASE/NAME``: what decides about them is in the file."""
    row = tx.use_cases.get(identifier.partition("/")[0])
    use_case = load_file(Path(row.folder) / row.file, check_files=False).use_case
    if kind == "Table":
        return policy.table(
            identifier,
            use_case=row.name,
            purposes=(use_case.governance.purpose,),
            sensitive=bool(use_case.governance.sensitive or use_case.governance.masks),
        )
    bundle = tx.facts.latest(row.name, "bundle")
    if bundle is None:
        raise NotFoundError(f"{row.name} has no model version yet", where="--resource", fix="run it first")
    approvers = decisions.approvers(use_case, environment)
    return policy.bundle(bundle.body["digest"], use_case=row.name, approvers=approvers)


def _gains(system: "System", before: Policies, after: Policies) -> tuple[tuple[Gain, ...], bool]:
    """Who may do more and who less to the home, its ledger, use cases, endpoints and workspaces; and whether all of
    them were compared."""
    with system.store.read() as tx:
        people = [FLOW, *(policy_principal(row) for row in tx.principals.list() if row.disabled is None)]
        things = [policy.HOME, policy.LEDGER, *map(workspaces.resource_of, tx.workspaces.list())]
        things += [policy.use_case(row.name) for row in tx.use_cases.list()]
        things += [policy.endpoint(row.name, use_case=row.use_case) for row in tx.endpoints.list()]
    found: list[Gain] = []
    asked = 0
    for thing in things:
        for action in (action for action, kind in applicable() if kind == thing.kind):
            for who in people:
                if asked == _MOST_COMPARED:
                    return tuple(found), False
                asked += 1
                was, now = (each.decide(who, action, thing).allowed for each in (before, after))
                if was != now:
                    found.append(Gain(who=who.name, action=action, resource=f"{thing.kind}/{thing.id}", allowed=now))
    return tuple(found), True
