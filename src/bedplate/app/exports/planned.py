"""The option of a plan that is launched: the one chosen, or another that the caller names."""

import re

import msgspec

from bedplate.app import access, planning, residency
from bedplate.app.exports import launch as files
from bedplate.app.exports.launch import Launch, LaunchExport, Tool
from bedplate.app.system import System
from bedplate.errors import InputError, NotFoundError, StateError
from bedplate.identity import Principal
from bedplate.plan.types import Option, Plan
from bedplate.policy import values as policy
from bedplate.policy.residency import Place

_IMAGE = re.compile(r"[a-z0-9]+([._/:@-]+[a-zA-Z0-9]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def launch(
    system: System, principal: Principal, use_case: str, *, tool: Tool, option: str, image: str, namespace: str
) -> LaunchExport:
    """The latest plan of a use case as the file of a tool that launches it. Changes nothing.

    Raises:
        NotFoundError: there is no such use case, no plan of it, or no such option.
        DeniedError: policy does not let the principal see it, or its rows may not lie where the option is.
        StateError: the plan chose nothing.
        InputError: the option cannot be launched by that tool, or a name cannot be one.
    """
    for what, text, shape in (("image", image or "x", _IMAGE), ("namespace", namespace, _LABEL)):
        if not shape.fullmatch(text):
            raise InputError(f"no {what} can be named {text!r}", where=f"--{what}", fix="use letters, digits, - and .")
    with system.store.read() as tx:
        row = tx.use_cases.get(use_case)
        fact, stays = tx.facts.latest(row.name, "plan"), access.residency_of(tx, row.name)
    access.demand(system, principal, "read", policy.use_case(row.name))
    if fact is None:
        raise NotFoundError(f"{use_case} has no plan yet", fix=f"bedplate run {row.folder}")
    plan = msgspec.convert(fact.body, Plan)
    chosen = _named(plan, option) if option else _chosen(plan)
    known = planning.prices(system.settings).instances
    region = next((i.residency for i in known if (i.provider, i.region) == (chosen.provider, chosen.region)), "")
    if chosen.provider != "here":  # which the document refuses
        place = Place(f"the machine {chosen.name}", region, "--option")
        residency.demand(system, principal.id, "plan.export", row.name, stays, (place,), auth=principal.auth)
    made = files.document(
        Launch(
            use_case=row.name,
            option=chosen,
            currency=plan.currency,
            image=image,
            namespace=namespace,
            region=region if stays else "",
        ),
        tool,
    )
    return LaunchExport(
        use_case=row.name, tool=tool, plan=fact.digest, name=made.name, content=made.content, needs=made.needs
    )


def _chosen(plan: Plan) -> Option:
    if plan.chosen is None:
        raise StateError(f"the plan chose nothing: {plan.reason}", fix="name an option yourself: --option")
    return plan.chosen


def _named(plan: Plan, name: str) -> Option:
    for option in plan.options:
        if name in (option.name, option.instance):
            return option
    names = [o.name for o in plan.options if o.meets][:3]
    raise NotFoundError(f"the plan compared no {name!r}", where="--option", fix=f"for instance {', '.join(names)}")
