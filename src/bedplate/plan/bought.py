"""The catalogue with prices that someone brought: what they replace, what they add, and what is wrong with them."""

import csv
import io
from collections.abc import Iterable, Mapping
from functools import cache

import msgspec

from bedplate.errors import InputError, IntegrityError
from bedplate.plan import catalogue, offers
from bedplate.plan.catalogue import Catalogue
from bedplate.plan.offers import Offer, Shape
from bedplate.plan.price_checks import told

_PLACE = {"own": "owned hardware: cost over its months, and power"}


class Bought(msgspec.Struct, frozen=True, kw_only=True):
    """Rows for the tables of the catalogue, beside or instead of those that ship."""

    prices: tuple[dict[str, str], ...] = ()
    instances: tuple[dict[str, str], ...] = ()
    regions: tuple[dict[str, str], ...] = ()

    def __hash__(self) -> int:
        return hash(msgspec.json.encode(self))


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an import. ``unknown``: offers for a machine type or region that the catalogue does not know."""

    source: str
    prices: int
    unknown: int
    left_out: tuple[str, ...] = ()
    """Prices that did not pass the catalogue's checks, each with the reason."""


def shapes(provider: str) -> tuple[Shape, ...]:
    """The machine types of a provider that the catalogue knows."""
    return tuple(
        Shape(
            row["instance"],
            int(row["vcpus"]),
            float(row["memory_gib"]),
            row["accelerator"],
            int(row["accelerators"] or 0),
        )
        for row in _rows(catalogue.texts()["instances"])
        if row["provider"] == provider
    )


def rented(found: Iterable[Offer], source: str, date: str) -> tuple[Bought, Imported]:
    """Prices of a provider's list; ``date`` is the day it was fetched, where the list names none.

    Raises:
        InputError: it holds no price that the catalogue has a place for.
    """
    texts = catalogue.texts()
    types = {(row["provider"], row["instance"]) for row in _rows(texts["instances"])}
    regions = {(row["provider"], row["region"]) for row in _rows(texts["regions"])}
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    unknown = 0
    for offer in found:
        if offer.price is None:
            continue
        if (offer.provider, offer.instance) not in types or (offer.provider, offer.region) not in regions:
            unknown += 1
            continue
        rows[offer.provider, offer.region, offer.instance] = {
            "provider": offer.provider,
            "region": offer.region,
            "instance": offer.instance,
            "currency": "USD",
            "price_hour": f"{offer.price:.6g}",
            "spot_hour": "" if offer.spot is None else f"{offer.spot:.6g}",
            "price_date": offer.date or date,
            "price_source": source,
            "price_quality": "exact",
        }
    kept, left_out = _checked(rows)
    if not kept:
        raise InputError(
            f"no price in it can be used; {unknown} are of machine types or regions that are not in the catalogue"
            + (f"; {left_out[0]}" if left_out else ""),
            where=source,
            fix="give a list of a region and of machines that the catalogue names",
        )
    return Bought(prices=kept), Imported(source=source, prices=len(kept), unknown=unknown, left_out=left_out)


def _checked(rows: dict[tuple[str, str, str], dict[str, str]]) -> tuple[tuple[dict[str, str], ...], tuple[str, ...]]:
    """Rows that pass together with those that ship. What fails is left out and the rest looked at again; where a row
    that ships stands out, it is for one of its type, or else of its region."""
    rows = dict(rows)
    left_out: list[str] = []
    alike = (lambda k, key: k == key, lambda k, key: (k[0], k[2]) == (key[0], key[2]), lambda k, key: k[:2] == key[:2])
    while rows and (found := catalogue.faults(tables(Bought(prices=tuple(rows.values()))))):
        for same in alike:
            gone = {k: told(fault) for fault in found for k in rows if same(k, fault[0])}
            if gone:
                break
        else:
            raise IntegrityError(told(found[0]), where="catalogue", fix="correct or remove the rows")
        for k in gone:
            del rows[k]
        left_out.extend(gone.values())
    return tuple(rows.values()), tuple(dict.fromkeys(left_out))


def owned(found: Iterable[Mapping[str, str]], where: str) -> tuple[Bought, Imported]:
    """Machines that belong to you, at one place that is named ``own``, each with its amortised hour.

    Raises:
        InputError: an accelerator or a processor is not known, or a cell is wrong.
    """
    rows = list(found)
    prices = tuple(
        {"provider": "own", "region": row["residency"], "instance": row["instance"], "currency": "USD",
         "price_hour": row["price_hour"], "spot_hour": "", "price_date": row["date"], "price_source": _PLACE["own"],
         "price_quality": "exact"} for row in rows
    )  # fmt: skip
    instances = tuple(
        {"provider": "own", "instance": row["instance"], "family": row["family"], "architecture": "amd64",
         "vcpus": row["vcpus"], "memory_gib": row["memory_gib"], "cpu": row["cpu"], "shape_source": where,
         "shape_quality": "exact", "accelerator": row["accelerator"], "accelerators": row["accelerators"],
         "cluster_gbps": "", "machines": row["machines"]} for row in rows
    )  # fmt: skip
    places = sorted({row["residency"] for row in rows})
    regions = tuple(
        {"provider": "own", "region": place, "place": "your own", "residency": place, "zones": "1", "source": where,
         "quality": "exact", "grid_g_kwh": "", "grid_source": ""} for place in places
    )  # fmt: skip
    bought = Bought(prices=prices, instances=instances, regions=regions)
    wrong = catalogue.faults(tables(bought)) if rows else [(("own", "", ""), "there is no machine in it")]
    if wrong:
        raise InputError(told(wrong[0]), where=where, fix="correct the line; names are those of the catalogue")
    return bought, Imported(source=where, prices=len(prices), unknown=0)


def together(old: Bought, new: Bought) -> Bought:
    """Both, the newer row where they name the same thing."""
    return Bought(
        prices=_newer(old.prices, new.prices, ("provider", "region", "instance")),
        instances=_newer(old.instances, new.instances, ("provider", "instance")),
        regions=_newer(old.regions, new.regions, ("provider", "region")),
    )


@cache
def load(bought: Bought) -> Catalogue:
    """The catalogue that ships, with what was bought.

    Raises:
        IntegrityError: together they do not pass the checks.
    """
    return catalogue.build(tables(bought))


def tables(bought: Bought) -> dict[str, str]:
    """The texts of the catalogue with the rows in their places."""
    texts = dict(catalogue.texts())
    keys = {"prices": ("provider", "region", "instance"), "instances": ("provider", "instance"),
            "regions": ("provider", "region")}  # fmt: skip
    for name, key in keys.items():
        new: tuple[dict[str, str], ...] = getattr(bought, name)
        if new:
            rows = _newer(tuple(_rows(texts[name])), new, key)
            columns = list(dict.fromkeys(column for row in rows for column in row))
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            texts[name] = text.getvalue()
    return texts


def _newer(
    old: tuple[dict[str, str], ...], new: tuple[dict[str, str], ...], key: tuple[str, ...]
) -> tuple[dict[str, str], ...]:
    return tuple({tuple(row[column] for column in key): row for row in (*old, *new)}.values())


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def read(text: str, where: str, form: str, provider: str | None, date: str | None) -> tuple[Bought, Imported]:
    """One file: ``form`` is ``aws``, ``azure``, ``gcp``, ``skypilot`` (of a ``provider``) or ``own``.

    Raises:
        InputError: the file is not of that form, or says no day and none was given.
    """
    if form == "own":
        return owned(offers.own(text, where), where)
    named = provider if form == "skypilot" else form
    if named is None:
        raise InputError(
            "SkyPilot's file does not say whose prices it holds", where=where, fix="name it: --provider aws"
        )
    reader = offers.skypilot(named) if form == "skypilot" else offers.READERS[form]
    found = list(reader(text, where, shapes(named)))
    if date is None and any(not offer.date for offer in found):
        raise InputError("it does not say of which day its prices are", where=where, fix="say it: --date 2026-11-30")
    return rented(found, where, date or "")
