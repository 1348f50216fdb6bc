"""Whether rows may lie in a place: what their use case asks for, held against what places say of themselves. Pure.

A place says where it is by a setting. That is the word of whoever runs it: nothing here can look.
"""

from collections.abc import Iterable, Sequence

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where rows lie or are about to: its name to people, its region (empty: it does not say), and what sets that."""

    name: str
    region: str
    setting: str


class Refusal(msgspec.Struct, frozen=True):
    """Why rows may not lie there, the setting of the first such place, and what to do."""

    reason: str
    where: str
    fix: str


def inside(region: str, residency: Sequence[str]) -> bool:
    """Whether rows that have to stay in ``residency`` may lie in ``region``; anywhere, where it names none."""
    return not residency or region in residency


def refusal(residency: Sequence[str], places: Iterable[Place]) -> Refusal | None:
    """Why rows that have to stay in ``residency`` may not lie in all of these places; None where they may.

    One that does not say where it is, is refused like one elsewhere.
    """
    wrong = [place for place in places if not inside(place.region, residency)]
    if not wrong:
        return None
    allowed = " or ".join(residency)
    found = "; ".join(
        f"{place.name} says that it is in {place.region}" if place.region else f"{place.name} does not say where it is"
        for place in wrong
    )
    fixes = (
        f"use {place.name} in {allowed}" if place.region else f"set {place.setting} to where {place.name} is"
        for place in wrong
    )
    return Refusal(
        reason=f"its rows have to stay in {allowed}, and {found}", where=wrong[0].setting, fix="; ".join(fixes)
    )
