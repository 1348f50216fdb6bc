"""What is checked when prices are loaded: what has gone wrong in published price lists before.

Sentinels, rows without date or currency, spot above on-demand, prices that fall with size, regions far from the others,
committed use sold as on-demand, prices older than a cut, and accelerators paired with the wrong host.
"""

import itertools
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping

from bedplate.plan.accelerators import accelerators
from bedplate.usecase.quantities import CURRENCIES

_SENTINELS = (0.0, 700.0, 999.0, 9999.0, 99999.0)
_QUALITIES = ("exact", "derived", "corrected", "unverified", "assumed", "unknown")
_CUTS = {("aws", family): "2025-06-01" for family in ("p4d", "p4de", "p5", "p5e", "p5en")}
"""Days of price cuts by a third or more: what was read before such a day is wrong by half, not a little old."""

Row = Mapping[str, str]
Key = tuple[str, str, str]
Fault = tuple[Key, str]
"""The provider, region and machine type of a row, as far as it has them, and what is wrong with it."""


def told(fault: Fault) -> str:
    """A fault in one line."""
    return f"{' '.join(part for part in fault[0] if part)}: {fault[1]}"


def faults(tables: Mapping[str, list[dict[str, str]]]) -> list[Fault]:
    """Everything that is wrong. Prices are compared with each other only where each by itself is one."""
    found = [*_cells(tables), *_names(tables)]
    return found or [*_spot(tables["prices"]), *_sizes(tables), *_regions(tables["prices"]), *_hosts(tables)]


def key_of(row: Row) -> Key:
    """What a price is of."""
    return row["provider"], row["region"], row["instance"]


def number(text: str | None) -> float | None:
    """A number, or None where the text is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _cells(tables: Mapping[str, list[dict[str, str]]]) -> Iterator[Fault]:
    """Each priced row has currency, date, source and quality, and a number that is no sentinel."""
    shapes = {(row["provider"], row["instance"]): row for row in tables["instances"]}
    for row in tables["prices"]:
        key = key_of(row)
        shape = shapes.get((row["provider"], row["instance"]), {})
        if row["price_date"] < _CUTS.get((row["provider"], shape.get("family", "")), ""):
            yield key, f"a price of {row['price_date']}, before it was cut by a third or more"
        if row["currency"] not in CURRENCIES:
            yield key, f"currency {row['currency']!r}"
        yield from _provenance(key, row["price_date"], row["price_source"], row["price_quality"])
        for column in ("price_hour", "spot_hour"):
            text = row[column]
            if column == "spot_hour" and not text:
                continue
            value = number(text)
            if value is None or value <= 0:
                yield key, f"{column} {text!r} is not a price"
            elif value in _SENTINELS or value / int(shape.get("accelerators") or 1) in _SENTINELS:
                yield key, f"{column} {text} stands for an unknown price"
    for row in tables["services"]:
        key = row["provider"], "", row["fact"]
        yield from _provenance(key, row["price_date"], row["source"], row["quality"])
        low, value, high = number(row["low"]), number(row["value"]), number(row["high"])
        if low is None or value is None or high is None or not 0 <= low <= value <= high:
            yield key, f"{row['low']!r} <= {row['value']!r} <= {row['high']!r} does not hold"


def _provenance(key: Key, date: str, source: str, quality: str) -> Iterator[Fault]:
    if not re.fullmatch(r"20\d\d-\d\d-\d\d", date or ""):
        yield key, f"date {date!r}"
    if not (source or "").strip():
        yield key, "no source"
    if quality not in _QUALITIES:
        yield key, f"quality {quality!r}"


def _names(tables: Mapping[str, list[dict[str, str]]]) -> Iterator[Fault]:
    """Each price belongs to a shape and a region that exist, once; each shape to a processor."""
    shapes = {(row["provider"], row["instance"]) for row in tables["instances"]}
    regions = {(row["provider"], row["region"]) for row in tables["regions"]}
    cpus = {row["cpu"] for row in tables["cpus"]}
    seen = set()
    for row in tables["prices"]:
        key = key_of(row)
        if (key[0], key[2]) not in shapes:
            yield key, "no such shape"
        if key[:2] not in regions:
            yield key, "no such region"
        if key in seen:
            yield key, "priced twice"
        seen.add(key)
    for row in tables["instances"]:
        key = row["provider"], "", row["instance"]
        if row["cpu"] not in cpus:
            yield key, f"no processor {row['cpu']!r}"
        if row["accelerator"] and row["accelerator"] not in accelerators():
            yield key, f"no accelerator {row['accelerator']!r}"
        if bool(row["accelerator"]) != (row["accelerators"] not in ("", "0")):
            yield key, f"{row['accelerators'] or 'no'} accelerators of {row['accelerator'] or 'no kind'}"


def _spot(prices: list[dict[str, str]]) -> Iterator[Fault]:
    """Spot is never above on-demand: then one of them is of another kind."""
    for row in prices:
        if row["spot_hour"] and float(row["spot_hour"]) > float(row["price_hour"]):
            yield key_of(row), f"spot {row['spot_hour']} above {row['price_hour']}"


def _hosts(tables: Mapping[str, list[dict[str, str]]]) -> Iterator[Fault]:
    """A TPU is on a host of TPUs and nothing else is; its name counts chips, or half as many in tensor cores (v5p)."""
    for row in tables["instances"]:
        named = row["instance"].removeprefix("ct").startswith("tpu-")
        tpu = row["accelerator"].startswith("tpu")
        key = row["provider"], "", row["instance"]
        if named != tpu:
            yield key, f"a host of {'TPUs' if named else 'other machines'} with {row['accelerator'] or 'none'}"
        cores = re.fullmatch(r"tpu-v5p-(\d+)", row["instance"])
        if cores and int(row["accelerators"]) * 2 != int(cores[1]):
            yield key, f"{row['accelerators']} chips; the name counts two cores a chip"


def _sizes(tables: Mapping[str, list[dict[str, str]]]) -> Iterator[Fault]:
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
                yield (provider, region, name), f"{price / size:.4f} for each {unit}, its family {median:.4f}"
        for (size, price, name), (more, dearer, larger) in itertools.pairwise(sorted(members)):
            if more > size and dearer <= price:
                yield (provider, region, larger), f"at {dearer} it is no dearer than {name} at {price}"


def _regions(prices: list[dict[str, str]]) -> Iterator[Fault]:
    """The price of a type in any region lies between 0.75 and 2 times its median: below it is one of committed use."""
    low = 0.75
    types: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in prices:
        types[row["provider"], row["instance"]].append((row["region"], float(row["price_hour"])))
    for (provider, name), members in types.items():
        median = statistics.median(price for _, price in members)
        for region, price in members:
            if not low <= price / median <= 2.0:
                yield (provider, region, name), f"{price} is {price / median:.2f} times the median of its regions"
