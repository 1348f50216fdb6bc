"""Two plans of one use case side by side: what differs between them, and why."""

from collections.abc import Iterator

import msgspec

from bedplate.plan import explain
from bedplate.plan.types import Option, Plan


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a plan as it was and as it would be; empty where that plan has no such thing."""

    what: str
    before: str
    after: str
    line: int = 0
    rule: str = ""

    @property
    def differs(self) -> bool:
        """Whether it changes at all."""
        return self.before != self.after


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``asked`` are the values of the file that change, ``needs`` the requirements that change with them, ``choice``
    what is chosen, what it costs and what it promises; ``dearer`` is money a ``period``, None where one has no choice.
    """

    asked: tuple[Difference, ...]
    needs: tuple[Difference, ...]
    choice: tuple[Difference, ...]
    words: tuple[str, ...]
    dearer: float | None
    currency: str


def compare(before: Plan, after: Plan, asked: tuple[Difference, ...]) -> Comparison:
    """The differences between a plan and what it would be if the file said otherwise."""
    old, new = before.chosen, after.chosen
    dearer = None
    if old is not None and new is not None and old.cost is not None and new.cost is not None:
        dearer = new.cost.total.value - old.cost.total.value
    return Comparison(
        asked=asked,
        needs=tuple(row for row in _needs(before, after) if row.differs),
        choice=tuple(_choice(before, after)),
        words=tuple(_words(before, after, dearer)),
        dearer=dearer,
        currency=after.currency,
    )


def _needs(before: Plan, after: Plan) -> Iterator[Difference]:
    old = {item.name: item for item in before.requirements.items}
    new = {item.name: item for item in after.requirements.items}
    for name in dict.fromkeys((*old, *new)):
        item = new.get(name) or old[name]
        ends = [explain.quantity(x.value, x.unit) if (x := items.get(name)) is not None else "" for items in (old, new)]
        yield Difference(what=name, before=ends[0], after=ends[1], line=item.line, rule=item.rule)
    places = [", ".join(plan.requirements.residency) or "anywhere" for plan in (before, after)]
    line = after.requirements.residency_line
    yield Difference(what="residency", before=places[0], after=places[1], line=line, rule="as the file says")


def _choice(before: Plan, after: Plan) -> Iterator[Difference]:
    columns = [dict(_facts(plan)) for plan in (before, after)]
    for name in dict.fromkeys((*columns[0], *columns[1])):
        yield Difference(what=name, before=columns[0].get(name, ""), after=columns[1].get(name, ""))


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    """What there is to say of a plan's choice, by name."""
    chosen = plan.chosen
    yield "chosen", chosen.name if chosen is not None else "nothing"
    yield "budget", {"none": "kept", "warn": "exceeded, which warns", "block": "blocked"}[plan.breach]
    if chosen is None or chosen.cost is None:
        return
    yield f"cost a {chosen.cost.period}", explain.money(chosen.cost.total, chosen.cost)
    yield "machines", f"{chosen.machines}"
    if chosen.replicas is not None:
        yield "replicas", f"{chosen.replicas}"
    for figure in chosen.predicted:
        kept = "" if figure.chance is None else f", kept with {min(figure.chance, 0.999):.1%}"
        unit = "s" if figure.unit == "s" else ""  # the name of a rate says what it counts
        yield figure.name, f"{explain.interval(figure.estimate, unit)}{kept}"
    if chosen.carbon is not None:
        yield f"kg of CO2 a {chosen.cost.period}", explain.interval(chosen.carbon, "")
    yield "what binds", plan.binding.name if plan.binding is not None else "nothing"


def _words(before: Plan, after: Plan, dearer: float | None) -> Iterator[str]:
    old, new = before.chosen, after.chosen
    if new is None:
        yield f"Nothing would be chosen: {after.reason}."
        return
    period = new.cost.period if new.cost is not None else "month"
    if dearer is not None:
        same = abs(dearer) < 0.5
        much = f"{abs(dearer):,.0f} {after.currency} a {period} {'dearer' if dearer > 0 else 'cheaper'}"
        yield "It would cost the same." if same else f"It would be {much}."
    if old is None:
        yield f"Nothing was chosen before: {before.reason}."
    elif old.name == new.name:
        yield f"The choice stays {old.name}."
    else:
        yield f"The choice is not {old.name} any more: {_why_not(old, after)}."
    if after.breach == "warn" and before.breach == "none":
        yield f"The budget would be exceeded: {after.reason}."


def _why_not(old: Option, after: Plan) -> str:
    """What the other plan says of an option, or of the same machine where it is cheaper now."""
    kind = (old.provider, old.instance, old.market)
    same = next((option for option in after.options if (option.provider, option.instance, option.market) == kind), None)
    if same is None:
        return "it may not be used"
    moved = f"it is cheapest in {same.region} then" if same.region != old.region else ""
    return "; ".join(part for part in (moved, same.lost) if part)
