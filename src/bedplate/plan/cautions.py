"""What to know before a plan is believed: of the machine that was measured for it, and of prices that were left out or
are too old to decide by."""

from collections.abc import Collection, Iterator, Sequence

from bedplate.plan import cost, workloads
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.types import Job, Market, Option, Probe, Requirements


def of(
    requirements: Requirements, catalogue: Catalogue, markets: Collection[Market], chosen: Option | None,
    ranked: Sequence[Option], probe: Probe,
) -> tuple[str, ...]:  # fmt: skip
    """Plain sentences, the weightiest first."""
    places = {(i.provider, i.region, i.instance): i for i in catalogue.instances}
    found = [*_measured(requirements, probe)]
    found += _old(catalogue, chosen, ranked, places) if chosen else ()
    if "spot" in markets:
        found += _doubted(requirements, catalogue, ranked)
    return tuple(found)


def _measured(requirements: Requirements, probe: Probe) -> Iterator[str]:
    """What the probe could not tell well, where the plan rests on it."""
    size = requirements.size
    if isinstance(size, Job):
        return
    if probe.doubtful and workloads.stages(size, probe):
        yield (
            f"other programs took {probe.crowded:.0%} of the processors while this machine was measured, so it is "
            "faster than it seemed: intervals are wider and promises are held to less than their slow end; measure "
            "again when it is quiet, with `bedplate probe`"
        )
    if workloads.digest_of(size) is not None and workloads.anchor(size, probe) is None:
        yield (
            "processors without an accelerator were left out, as nothing says what this model takes on them: measure "
            "it with `bedplate probe --model FILE`"
        )


def _old(
    catalogue: Catalogue, chosen: Option, ranked: Sequence[Option], places: dict[tuple[str, str, str], Instance]
) -> Iterator[str]:
    """The option that is the cheaper one if prices moved since they were read as prices do."""

    def total(option: Option, end: int) -> float:
        assert option.cost is not None
        place = places.get((option.provider, option.region, option.instance))
        factor = cost.aged(place, catalogue.today)[end] if place and option.market != "owned" else 1.0
        machine = option.cost.compute.value + option.cost.idle.value
        return option.cost.total.value + machine * (factor - 1)

    def family(option: Option) -> tuple[str, str]:
        place = places.get((option.provider, option.region, option.instance))
        return option.provider, place.family if place else option.instance

    def same(option: Option) -> bool:  # sizes of one machine, and the same paid otherwise, age together
        return family(option) == family(chosen)

    others = [option for option in ranked if option.meets and option.cost and not same(option)]
    nearest = min(others, key=lambda option: total(option, 0), default=None)
    if nearest is not None and total(nearest, 0) < total(chosen, 1):
        yield (
            f"by now {nearest.name} may be the cheaper one: its price is of {nearest.price_date}, that of "
            f"{chosen.name} of {chosen.price_date}; import prices of today before you decide"
        )


def _doubted(requirements: Requirements, catalogue: Catalogue, ranked: Sequence[Option]) -> Iterator[str]:
    able = {(option.provider, option.instance) for option in ranked if option.meets}
    for i in catalogue.instances:
        allowed = not requirements.residency or i.residency in requirements.residency
        if i.spot_doubt and allowed and (i.provider, i.instance) in able:
            yield f"left out: {i.provider} {i.instance} in {i.region}, as it has {i.spot_doubt}"
