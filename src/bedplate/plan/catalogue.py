"""Prices and shapes of machines, shipped with the package; every cell carries date, source and quality.

Here and in ``accelerators`` alone the planner reads files, all of them its own. Load-time checks refuse what has gone
wrong in price lists before: sentinels, spot above on-demand, prices that fall with size, regions far from the others.
"""

import csv
import io
import itertools
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

import msgspec

from bedplate.errors import IntegrityError
from bedplate.ids import Digest, digest_of
from bedplate.plan.accelerators import accelerators
from bedplate.usecase.quantities import CURRENCIES

_FILES = ("instances", "prices", "cpus", "regions", "services")
_SENTINELS = (0.0, 700.0, 999.0, 9999.0, 99999.0)
_QUALITIES = ("exact", "derived", "corrected", "unverified", "assumed", "unknown")

Row = Mapping[str, str]


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """A processor: its all-core clock where it is known, and how many vCPUs share a core."""

    cpu: str
    label: str
    clock_low_ghz: float | None
    clock_high_ghz: float | None
    threads_per_core: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A machine type in one region, with its price."""

    provider: str
    region: str
    residency: str
    zones: int
    instance: str
    family: str
    architecture: str
    vcpus: int
    memory_gib: float
    cpu: Cpu
    accelerator: str | None = None
    """A name of :mod:`bedplate.plan.accelerators`; None: processors alone."""
    accelerators: int = 0
    cluster_gbps: float | None = None
    """10^9 bytes a second between machines, for all accelerators of one together; None: no cluster is sold."""
    grid_g_kwh: float | None = None
    """Grams of CO2 equivalents a kilowatt-hour of the region's grid; None where nobody knows."""
    currency: str
    price_hour: float
    spot_hour: float | None
    price_date: str
    price_source: str
    price_quality: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One number about a provider with its interval: a storage price, an availability that is promised."""

    value: float
    low: float
    high: float
    unit: str
    date: str
    source: str
    quality: str


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All machine types with their prices, and what else providers charge or promise."""

    instances: tuple[Instance, ...]
    services: dict[str, dict[str, Fact]]
    digest: Digest
    today: str
    """The day that the age of a price counts to: that of the newest one, until someone who has a clock says another."""


@cache
def load() -> Catalogue:
    """The catalogue that the package ships.

    Raises:
        IntegrityError: it does not pass its own checks; the text names every row at fault.
    """
    folder = resources.files("bedplate.plan") / "facts"
    return build({name: (folder / f"{name}.csv").read_text(encoding="utf-8") for name in _FILES})


def build(files: Mapping[str, str]) -> Catalogue:
    """A catalogue from CSV texts: ``instances``, ``prices``, ``cpus``, ``regions`` and ``services``.

    Raises:
        IntegrityError: a check failed.
    """
    tables = {name: list(csv.DictReader(io.StringIO(files[name]))) for name in _FILES}
    faults = [*_cells(tables), *_names(tables)]
    if not faults:
        faults = [*_spot(tables["prices"]), *_sizes(tables), *_regions(tables["prices"])]
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:20])
        raise IntegrityError(
            f"{len(faults)} faults in the price catalogue\n{shown}", where="catalogue", fix="correct or remove the rows"
        )
    cpus = {row["cpu"]: _cpu(row) for row in tables["cpus"]}
    shapes = {(row["provider"], row["instance"]): row for row in tables["instances"]}
    regions = {(row["provider"], row["region"]): row for row in tables["regions"]}
    services: dict[str, dict[str, Fact]] = defaultdict(dict)
    for row in tables["services"]:
        services[row["provider"]][row["fact"]] = Fact(
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            unit=row["unit"],
            date=row["price_date"],
            source=row["source"],
            quality=row["quality"],
        )
    instances = tuple(
        _instance(row, shapes[row["provider"], row["instance"]], regions[row["provider"], row["region"]], cpus)
        for row in tables["prices"]
    )
    return Catalogue(
        instances=instances,
        services=dict(services),
        digest=digest_of(dict(files)),
        today=max(i.price_date for i in instances),
    )


def _cpu(row: Row) -> Cpu:
    return Cpu(
        cpu=row["cpu"],
        label=row["label"],
        clock_low_ghz=float(row["clock_low_ghz"]) if row["clock_low_ghz"] else None,
        clock_high_ghz=float(row["clock_high_ghz"]) if row["clock_high_ghz"] else None,
        threads_per_core=int(row["threads_per_core"]),
    )


def _instance(price: Row, shape: Row, region: Row, cpus: Mapping[str, Cpu]) -> Instance:
    return Instance(
        provider=price["provider"],
        region=price["region"],
        residency=region["residency"],
        zones=int(region["zones"]),
        instance=price["instance"],
        family=shape["family"],
        architecture=shape["architecture"],
        vcpus=int(shape["vcpus"]),
        memory_gib=float(shape["memory_gib"]),
        cpu=cpus[shape["cpu"]],
        accelerator=shape["accelerator"] or None,
        accelerators=int(shape["accelerators"] or 0),
        cluster_gbps=_number(shape["cluster_gbps"]),
        grid_g_kwh=_number(region["grid_g_kwh"]),
        currency=price["currency"],
        price_hour=float(price["price_hour"]),
        spot_hour=float(price["spot_hour"]) if price["spot_hour"] else None,
        price_date=price["price_date"],
        price_source=price["price_source"],
        price_quality=price["price_quality"],
    )


def _cells(tables: Mapping[str, list[dict[str, str]]]) -> Iterable[str]:
    """Each priced row has currency, date, source and quality, and a number that is no sentinel."""
    for row in tables["prices"]:
        name = f"{row['provider']} {row['region']} {row['instance']}"
        if row["currency"] not in CURRENCIES:
            yield f"{name}: currency {row['currency']!r}"
        yield from _provenance(name, row["price_date"], row["price_source"], row["price_quality"])
        for column in ("price_hour", "spot_hour"):
            text = row[column]
            if column == "spot_hour" and not text:
                continue
            value = _number(text)
            if value is None or value <= 0:
                yield f"{name}: {column} {text!r} is not a price"
            elif value in _SENTINELS:
                yield f"{name}: {column} {text} stands for an unknown price"
    for row in tables["services"]:
        name = f"{row['provider']} {row['fact']}"
        yield from _provenance(name, row["price_date"], row["source"], row["quality"])
        low, value, high = _number(row["low"]), _number(row["value"]), _number(row["high"])
        if low is None or value is None or high is None or not 0 <= low <= value <= high:
            yield f"{name}: {row['low']!r} <= {row['value']!r} <= {row['high']!r} does not hold"


def _provenance(name: str, date: str, source: str, quality: str) -> Iterable[str]:
    if not re.fullmatch(r"20\d\d-\d\d-\d\d", date or ""):
        yield f"{name}: date {date!r}"
    if not (source or "").strip():
        yield f"{name}: no source"
    if quality not in _QUALITIES:
        yield f"{name}: quality {quality!r}"


def _names(tables: Mapping[str, list[dict[str, str]]]) -> Iterable[str]:
    """Each price belongs to a shape and a region that exist, once; each shape to a processor."""
    shapes = {(row["provider"], row["instance"]) for row in tables["instances"]}
    regions = {(row["provider"], row["region"]) for row in tables["regions"]}
    cpus = {row["cpu"] for row in tables["cpus"]}
    seen = set()
    for row in tables["prices"]:
        key = row["provider"], row["region"], row["instance"]
        if (key[0], key[2]) not in shapes:
            yield f"{' '.join(key)}: no such shape"
        if key[:2] not in regions:
            yield f"{' '.join(key)}: no such region"
        if key in seen:
            yield f"{' '.join(key)}: priced twice"
        seen.add(key)
    for row in tables["instances"]:
        if row["cpu"] not in cpus:
            yield f"{row['instance']}: no processor {row['cpu']!r}"
        if row["accelerator"] and row["accelerator"] not in accelerators():
            yield f"{row['instance']}: no accelerator {row['accelerator']!r}"
        if bool(row["accelerator"]) != (row["accelerators"] not in ("", "0")):
            yield f"{row['instance']}: {row['accelerators'] or 'no'} accelerators of {row['accelerator'] or 'no kind'}"


def _spot(prices: list[dict[str, str]]) -> Iterable[str]:
    """Spot is never above on-demand: then one of them is of another kind."""
    for row in prices:
        if row["spot_hour"] and float(row["spot_hour"]) > float(row["price_hour"]):
            name = f"{row['provider']} {row['region']} {row['instance']}"
            yield f"{name}: spot {row['spot_hour']} above {row['price_hour']}"


def _sizes(tables: Mapping[str, list[dict[str, str]]]) -> Iterable[str]:
    """In one family and region, more costs more, and a vCPU, or an accelerator, costs about the same in every size."""
    shapes = {(row["provider"], row["instance"]): row for row in tables["instances"]}
    families: dict[tuple[str, str, str], list[tuple[int, float, str]]] = defaultdict(list)
    for row in tables["prices"]:
        shape = shapes[row["provider"], row["instance"]]
        key = row["provider"], row["region"], f"{shape['family']} {shape['accelerator']}"
        size = int(shape["accelerators"] or shape["vcpus"])
        families[key].append((size, float(row["price_hour"]), row["instance"]))
    for (provider, region, family), members in families.items():
        unit = "vCPU" if family.endswith(" ") else "accelerator"
        low, high = (0.75, 1.33) if unit == "vCPU" else (0.5, 2.0)  # hosts of one accelerator differ in size
        median = statistics.median(price / size for size, price, _ in members)
        for size, price, name in members:
            if not low <= price / size / median <= high:
                yield f"{provider} {region} {name}: {price / size:.4f} a {unit}, its family {median:.4f}"
        for (size, price, name), (more, dearer, larger) in itertools.pairwise(sorted(members)):
            if more > size and dearer <= price:
                yield f"{provider} {region}: {larger} at {dearer} is no dearer than {name} at {price}"


def _regions(prices: list[dict[str, str]]) -> Iterable[str]:
    """The price of a type in any region lies between 0.7 and 2 times its median."""
    types: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in prices:
        types[row["provider"], row["instance"]].append((row["region"], float(row["price_hour"])))
    for (provider, name), members in types.items():
        median = statistics.median(price for _, price in members)
        for region, price in members:
            if not 0.7 <= price / median <= 2.0:
                yield f"{provider} {region} {name}: {price} is {price / median:.2f} times the median of its regions"


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
