"""Price lists that providers publish, read into rows of the catalogue: pure functions from their text.

``aws``: an offer file of AmazonEC2 (``index.json`` of one region). ``gcp``: ``skus`` of the Cloud Billing catalogue of
Compute Engine. ``azure``: ``Items`` of the Retail Prices API. ``skypilot``: its ``vms.csv`` of one provider. ``own``: a
CSV of machines that belong to you. What is no hourly Linux price without commitment is passed over: Windows, dedicated
hosts, reservations, committed use. A price counts for the shapes and regions that the catalogue knows.
"""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bedplate.errors import InputError
from bedplate.plan.requirements import HOURS_PER_MONTH


class Offer(NamedTuple):
    """What one machine type costs an hour in one region, in US dollars; None where no such price was found."""

    provider: str
    region: str
    instance: str
    price: float | None
    spot: float | None = None
    date: str = ""
    """Day from which it holds, where the list says so."""


class Shape(NamedTuple):
    """What a price list that is sold by part needs to know of a machine type."""

    instance: str
    vcpus: int
    memory_gib: float
    accelerator: str
    accelerators: int


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"this is no JSON: {error}", where=where, fix="give the file as the provider sends it"
        ) from None


def _part(found: Any, key: str, kind: type, where: str) -> Any:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"there is no {key!r} in it", where=where, fix="give the file as the provider sends it")
    return value


def _price(text: Any, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise InputError(f"{text!r} is no price", where=where, fix="correct the file, or fetch it again") from None
    if not 0 <= value < float("inf"):
        raise InputError(f"{text!r} is no price", where=where, fix="correct the file, or fetch it again")
    return value


def aws(text: str, where: str, shapes: Iterable[Shape] = ()) -> Iterator[Offer]:
    """On-demand prices of Linux on shared hardware, from products and terms that a stock keeping unit joins."""
    found = _loaded(text, where)
    date = str(found.get("publicationDate", ""))[:10] if isinstance(found, dict) else ""
    terms = _part(_part(found, "terms", dict, where), "OnDemand", dict, where)
    wanted = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
    for sku, product in _part(found, "products", dict, where).items():
        about = product.get("attributes", {})
        if any(about.get(key) != value for key, value in wanted.items()):
            continue
        name = f"{where}: {sku}"
        dimensions = [d for term in terms.get(sku, {}).values() for d in term.get("priceDimensions", {}).values()]
        hourly = [d for d in dimensions if d.get("unit") == "Hrs"]
        if len(hourly) == 1 and about.get("regionCode") and about.get("instanceType"):
            dollars = _part(_part(hourly[0], "pricePerUnit", dict, name), "USD", str, name)
            yield Offer("aws", about["regionCode"], about["instanceType"], _price(dollars, name), date=date)


def azure(text: str, where: str, shapes: Iterable[Shape] = ()) -> Iterator[Offer]:
    """Consumption prices of virtual machines with Linux, and spot prices, from one page or a list of pages."""
    pages = _loaded(text, where)
    found: dict[tuple[str, str], dict[str, tuple[float, str]]] = defaultdict(dict)
    for page in pages if isinstance(pages, list) else [pages]:
        for item in _part(page, "Items", list, where):
            names = f"{item.get('productName', '')} {item.get('skuName', '')}"
            sold = item.get("serviceName"), item.get("type"), item.get("unitOfMeasure"), item.get("currencyCode")
            passed = any(word in names for word in ("Windows", "Low Priority", "CloudServices", "Dedicated"))
            if sold != ("Virtual Machines", "Consumption", "1 Hour", "USD") or passed:
                continue
            kind = "spot" if "Spot" in names else "price"
            place = str(item.get("armRegionName")), str(item.get("armSkuName"))
            price = _price(item.get("retailPrice"), f"{where}: {names}")
            found[place][kind] = (price, str(item.get("effectiveStartDate", ""))[:10])
    for (region, instance), kinds in found.items():
        listed, spot = kinds.get("price"), kinds.get("spot")
        date = next((kind[1] for kind in (listed, spot) if kind), "")
        yield Offer("azure", region, instance, listed[0] if listed else None, spot[0] if spot else None, date)


_GCP_DEVICES: Mapping[str, str] = {
    "t4": r"Nvidia Tesla T4 GPU",
    "v100_16gb": r"Nvidia Tesla V100 GPU",
    "l4": r"Nvidia L4 GPU",
    "a100_40gb": r"Nvidia Tesla A100 GPU",
    "a100_80gb": r"Nvidia Tesla A100 80GB GPU",
    "h100": r"Nvidia H100 80GB(?: Plus| Mega)? GPU",
    "h200": r"Nvidia H200 141GB GPU",
    "b200": r"Nvidia B200(?: \(\d+gb\))? GPU",
}
_GCP_PASSED = (
    "Custom",
    "Sole Tenancy",
    "Commitment",
    "Committed",
    "Reserved",
    "DWS",
    "Calendar",
    "Extended",
    "Premium",
)


def gcp(text: str, where: str, shapes: Iterable[Shape] = ()) -> Iterator[Offer]:
    """Machines put together from the parts that are sold: cores, memory, and accelerators of the same region.

    A machine with a part that is not in the list has no price: two stock keeping units make one machine.
    """
    units: dict[tuple[str, str, str], float] = {}
    date = ""
    for sku in _part(_loaded(text, where), "skus", list, where):
        usage = sku.get("category", {}).get("usageType")
        said = str(sku.get("description", ""))
        if usage not in ("OnDemand", "Preemptible") or any(word in said for word in _GCP_PASSED):
            continue
        part = _gcp_part(said.removeprefix("Spot Preemptible ").removeprefix("Preemptible "))
        if part is None:
            continue
        info = sku.get("pricingInfo") or [{}]
        rates = info[-1].get("pricingExpression", {}).get("tieredRates") or [{}]
        money = _part(rates[-1], "unitPrice", dict, f"{where}: {said}")
        if money.get("currencyCode") != "USD":
            continue
        price = _price(money.get("units") or 0, said) + _price(money.get("nanos") or 0, said) / 1e9
        date = max(date, str(info[-1].get("effectiveTime", ""))[:10])
        for region in sku.get("serviceRegions", ()):
            units[region, usage, part] = price
    for region in sorted({region for region, _, _ in units}):
        for shape in shapes:
            on_demand, spot = (_gcp_sum(units, region, usage, shape) for usage in ("OnDemand", "Preemptible"))
            if on_demand or spot:
                yield Offer("gcp", region, shape.instance, on_demand, spot, date)


def _gcp_part(said: str) -> str | None:
    """``n2 core``, ``n2 ram``, or the name of an accelerator; None for what is no part of a machine that we know."""
    for name, pattern in _GCP_DEVICES.items():
        if re.match(pattern, said):
            return name
    matched = re.match(r"(\w+)(?: AMD| Predefined)? Instance (Core|Ram) running", said)
    return f"{matched[1].lower()} {matched[2].lower()}" if matched else None


def _gcp_sum(units: Mapping[tuple[str, str, str], float], region: str, usage: str, shape: Shape) -> float | None:
    series = shape.instance.partition("-")[0]
    parts = [(f"{series} core", shape.vcpus), (f"{series} ram", shape.memory_gib)]
    parts += [(shape.accelerator, shape.accelerators)] if shape.accelerator else []
    prices = [units.get((region, usage, part)) for part, _ in parts]
    if None in prices:
        return None
    return sum(price * count for price, (_, count) in zip(prices, parts, strict=True) if price is not None)


SKYPILOT_DEVICES: Mapping[str, str] = {
    "t4": "T4", "v100_16gb": "V100", "v100_32gb": "V100-32GB", "l4": "L4", "a10g": "A10G", "l40s": "L40S",
    "a100_40gb": "A100", "a100_80gb": "A100-80GB", "h100": "H100", "h200": "H200", "b200": "B200",
}  # fmt: skip
"""What SkyPilot calls an accelerator, by our name of it."""


def skypilot(provider: str) -> Callable[[str, str, Iterable[Shape]], Iterator[Offer]]:
    """The reader of one provider's file: ``InstanceType``, ``AcceleratorName``, ``Price``, ``SpotPrice``, ``Region``.

    A row without a machine type is an accelerator that is added to one; the machine alone would be half the price.
    """

    def read(text: str, where: str, shapes: Iterable[Shape] = ()) -> Iterator[Offer]:
        rows = list(csv.DictReader(io.StringIO(text)))
        for column in ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "SpotPrice", "Region"):
            if not rows or column not in rows[0]:
                raise InputError(
                    f"there is no column {column}", where=where, fix="give SkyPilot's vms.csv of a provider"
                )
        whole: dict[tuple[str, str], list[float | None]] = {}
        parts: dict[tuple[str, str, float], list[float | None]] = {}
        for row in rows:
            prices = [_price(row[c], f"{where}: {row['Region']}") if row[c] else None for c in ("Price", "SpotPrice")]
            if row["InstanceType"]:
                _least(whole, (row["InstanceType"], row["Region"]), prices)
            else:
                _least(parts, (row["AcceleratorName"], row["Region"], float(row["AcceleratorCount"])), prices)
        known = {shape.instance: shape for shape in shapes}
        for (instance, region), pair in whole.items():
            shape = known.get(instance)
            if parts and shape is not None and shape.accelerator:
                name = SKYPILOT_DEVICES.get(shape.accelerator, "")
                added = parts.get((name, region, float(shape.accelerators)), [None, None])
                yield Offer(provider, region, instance, _both(pair[0], added[0]), _both(pair[1], added[1]))
            else:
                yield Offer(provider, region, instance, pair[0], pair[1])

    return read


def _least(into: dict[Any, list[float | None]], key: Any, prices: list[float | None]) -> None:
    """Zones of one region have one list price, and spot prices of their own: the lowest counts."""
    old = into.get(key, [None, None])
    into[key] = [min((p for p in pair if p is not None), default=None) for pair in zip(old, prices, strict=True)]


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


_OWN = ("instance", "family", "vcpus", "memory_gib", "cpu", "accelerator", "accelerators", "machines", "residency",
        "cost", "months", "watts", "overhead", "kwh_price", "date")  # fmt: skip


def own(text: str, where: str) -> Iterator[dict[str, str]]:
    """Rows of machines that belong to you, with ``price_hour`` beside what the file says.

    The hour of a machine is what it cost over the months it is written off in, plus its power (``watts`` under load,
    times what the building adds to it) at the price of a kilowatt-hour.
    """
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        at = f"{where}: line {number}"
        missing = [name for name in _OWN if row.get(name) is None]
        if missing:
            raise InputError(f"there is no {missing[0]}", where=at, fix=f"give the columns {', '.join(_OWN)}")
        cost, months, watts, overhead, energy = (
            _price(row[name], f"{at}: {name}") for name in ("cost", "months", "watts", "overhead", "kwh_price")
        )
        if months <= 0 or overhead < 1:
            raise InputError("it is written off in no time, or its building adds less than nothing", where=at,
                             fix="give months above zero, and an overhead of 1 or more")  # fmt: skip
        hour = cost / (months * HOURS_PER_MONTH) + watts / 1000 * overhead * energy
        yield {**row, "price_hour": f"{hour:.6g}"}


READERS: Mapping[str, Callable[[str, str, Iterable[Shape]], Iterator[Offer]]] = {
    "aws": aws,
    "azure": azure,
    "gcp": gcp,
}
"""By the name of the provider whose own list it reads."""
