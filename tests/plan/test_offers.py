"""Price lists in the shapes that providers publish: what is read, what is passed over, and what fails the checks."""

import json
from pathlib import Path
from typing import Any

import pytest

from bedplate.app import pricing
from bedplate.errors import InputError
from bedplate.plan import bought, catalogue, choose, offers
from bedplate.plan.bought import Bought, Imported
from bedplate.plan.types import Requirements
from tests.plan.conftest import PROBE, changed

NOW = {(i.provider, i.region, i.instance): i for i in catalogue.load().instances}
DAY = "2026-11-20"


def aws(*products: tuple[str, str, str, dict[str, str]]) -> str:
    """An offer file; each product with type, price and what differs from a shared Linux machine."""
    found: dict[str, Any] = {"formatVersion": "v1.0", "offerCode": "AmazonEC2", "publicationDate": f"{DAY}T21:02:11Z"}
    found |= {"products": {}, "terms": {"OnDemand": {}, "Reserved": {}}}
    for sku, (instance, price, region, other) in enumerate(products):
        about = {"instanceType": instance, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared"}
        about |= {"preInstalledSw": "NA", "capacitystatus": "Used"} | other
        key = f"SKU{sku}"
        found["products"][key] = {"sku": key, "productFamily": "Compute Instance", "attributes": about}
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}, "beginRange": "0", "endRange": "Inf"}
        found["terms"]["OnDemand"][key] = {f"{key}.JRTC": {"priceDimensions": {f"{key}.JRTC.6YS6": dimension}}}
    return json.dumps(found)


def azure(*items: dict[str, Any]) -> str:
    plain = {
        "currencyCode": "USD", "armRegionName": "eastus", "serviceName": "Virtual Machines", "unitOfMeasure": "1 Hour",
        "type": "Consumption", "productName": "Virtual Machines Ddsv5 Series", "skuName": "D4s v5",
        "effectiveStartDate": f"{DAY}T00:00:00Z",
    }  # fmt: skip
    return json.dumps({"BillingCurrency": "USD", "Items": [plain | item for item in items], "NextPageLink": None})


def sku(said: str, dollars: float, usage: str = "OnDemand", region: str = "us-central1") -> dict[str, Any]:
    price = {"currencyCode": "USD", "units": str(int(dollars)), "nanos": round((dollars % 1) * 1e9)}
    rates = {"usageUnit": "h", "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}]}
    return {
        "description": said, "serviceRegions": [region],
        "category": {"serviceDisplayName": "Compute Engine", "resourceFamily": "Compute", "usageType": usage},
        "pricingInfo": [{"effectiveTime": f"{DAY}T07:00:00Z", "pricingExpression": rates}],
    }  # fmt: skip


def read(text: str, form: str, provider: str | None = None, date: str | None = None) -> tuple[Bought, Imported]:
    return bought.read(text, "list", form, provider, date)


def test_an_offer_file_of_aws_counts_shared_linux_machines_alone() -> None:
    old = NOW["aws", "us-east-1", "c5.2xlarge"].price_hour
    dedicated, windows, held = (
        {"tenancy": "Dedicated"},
        {"operatingSystem": "Windows"},
        {"capacitystatus": "UnusedCapacityReservation"},
    )
    text = aws(
        ("c5.2xlarge", f"{old * 0.97:.10f}", "us-east-1", {}), ("c5.2xlarge", "0.3740", "us-east-1", dedicated),
        ("c5.2xlarge", "0.7080", "us-east-1", windows), ("c5.2xlarge", "0.0", "us-east-1", held),
        ("z9.huge", "1.0", "us-east-1", {}), ("c5.2xlarge", "0.4", "mars-1", {}),
    )  # fmt: skip
    rows, report = read(text, "aws")
    assert [(row["instance"], float(row["price_hour"]), row["price_date"]) for row in rows.prices] == [
        ("c5.2xlarge", pytest.approx(old * 0.97, rel=1e-4), DAY)
    ]
    assert (report.prices, report.unknown, report.left_out) == (1, 2, ())
    new = next(i for i in bought.load(rows).instances if (i.region, i.instance) == ("us-east-1", "c5.2xlarge"))
    assert new.price_source == "list"
    assert bought.load(rows).digest != catalogue.load().digest


def test_a_price_that_fails_the_checks_is_left_out_by_name() -> None:
    old = NOW["aws", "us-east-1", "c5.2xlarge"].price_hour
    text = aws(("c5.2xlarge", f"{old}", "us-east-1", {}), ("c5.4xlarge", "9.99", "us-east-1", {}))
    rows, report = read(text, "aws")
    assert [row["instance"] for row in rows.prices] == ["c5.2xlarge"]
    assert any("us-east-1 c5.4xlarge" in text for text in report.left_out)
    with pytest.raises(InputError, match="no price in it can be used"):
        read(aws(("c5.4xlarge", "9.99", "us-east-1", {})), "aws")


def test_prices_of_azure_join_spot_and_pass_over_what_is_no_linux_hour() -> None:
    name = "Standard_D4s_v5"
    old = NOW["azure", "eastus", name].price_hour
    text = azure(
        {"armSkuName": name, "retailPrice": old},
        {"armSkuName": name, "retailPrice": old / 5, "skuName": "D4s v5 Spot"},
        {"armSkuName": name, "retailPrice": old / 6, "skuName": "D4s v5 Low Priority"},
        {"armSkuName": name, "retailPrice": 0.376, "productName": "Virtual Machines Dsv5 Series Windows"},
        {"armSkuName": name, "retailPrice": 1000.0, "type": "Reservation"},
    )
    rows, _ = read(text, "azure")
    (row,) = rows.prices
    assert (float(row["price_hour"]), float(row["spot_hour"])) == pytest.approx((old, old / 5), rel=1e-4)


def test_a_machine_of_gcp_is_the_sum_of_its_parts_and_has_no_price_without_one() -> None:
    parts = [
        sku("G2 Instance Core running in Americas", 0.024988), sku("G2 Instance Ram running in Americas", 0.002927),
        sku("Nvidia L4 GPU running in Americas", 0.560040),
        sku("Commitment v1: G2 Cpu in Americas for 1 Year", 0.0157, "Commit1Yr"),
        sku("Spot Preemptible G2 Instance Core running in Americas", 0.01, "Preemptible"),
    ]  # fmt: skip
    rows, report = read(json.dumps({"skus": parts}), "gcp")
    found = {row["instance"]: row for row in rows.prices}
    assert float(found["g2-standard-4"]["price_hour"]) == pytest.approx(
        4 * 0.024988 + 16 * 0.002927 + 0.56004, rel=1e-4
    )
    assert found["g2-standard-4"]["spot_hour"] == ""
    assert set(found) == {"g2-standard-4", "g2-standard-24", "g2-standard-48", "g2-standard-96"}
    assert not report.left_out
    with pytest.raises(InputError, match="no price"):
        read(json.dumps({"skus": parts[:2]}), "gcp")


SKYPILOT = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
)


def test_skypilots_file_pairs_machine_and_accelerator_and_its_known_faults_are_left_out() -> None:
    now = NOW["gcp", "us-central1", "g2-standard-96"].price_hour
    text = SKYPILOT + (
        f"g2-standard-96,,,96,384,,{now - 4.48:.4f},,us-central1,us-central1-a\n"
        ",L4,8,,,,4.48,,us-central1,us-central1-a\n"
        "a2-highgpu-8g,,,96,680,,1.2,,europe-west4,europe-west4-a\n"  # with half of list: committed use
        ",A100,8,,,,12.9,,europe-west4,europe-west4-a\n"
    )
    rows, report = read(text, "skypilot", "gcp", DAY)
    assert [(row["instance"], float(row["price_hour"])) for row in rows.prices] == [
        ("g2-standard-96", pytest.approx(now, rel=1e-3))
    ]
    assert any("a2-highgpu-8g" in text for text in report.left_out)
    with pytest.raises(InputError, match="which day"):
        read(text, "skypilot", "gcp")
    with pytest.raises(InputError, match="whose prices"):
        read(text, "skypilot", None, DAY)


@pytest.mark.parametrize("form", ["aws", "azure", "gcp", "skypilot"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "a,b\n1,2\n", '{"skus": 3}', '{"Items": null, "terms": []}'])
def test_what_is_no_price_list_is_refused(form: str, text: str) -> None:
    with pytest.raises(InputError):
        read(text, form, "aws", DAY)


OWN = (
    "instance,family,vcpus,memory_gib,cpu,accelerator,accelerators,machines,residency,cost,months,watts,overhead,kwh_price,date\n"
    "dgx,dgx,224,2048,any-host,h100,8,1,eu,300000,48,8000,1.4,0.2,2026-10-01\n"
)


def test_own_machines_cost_what_they_were_bought_for_and_their_power() -> None:
    rows, _ = read(OWN, "own")
    (own,) = (i for i in bought.load(rows).instances if i.provider == "own")
    assert own.price_hour == pytest.approx(300_000 / (48 * 730) + 8 * 1.4 * 0.2, rel=0.01)
    assert (own.accelerator, own.accelerators, own.machines, own.residency) == ("h100", 8, 1, "eu")
    for wrong in (OWN.replace("h100", "h9000"), OWN.replace(",48,", ",0,"), OWN.replace("300000", "much"), OWN[:60]):
        with pytest.raises(InputError):
            read(wrong, "own")


def test_a_plan_takes_own_machines_and_never_more_than_there_are(needs: Requirements) -> None:
    needs = changed(needs, "availability", 0.98)  # one site promises no more than 0.99
    small = "box,box,8,32,altra,,,{},{},20,48,40,1.2,0.1,2026-10-01\n"
    header = OWN.splitlines()[0] + "\n"
    many, none = (bought.load(read(header + small.format(n, needs.residency[0]), "own")[0]) for n in (50, 0))
    chosen = choose.plan(needs, many, PROBE).chosen
    assert chosen is not None
    assert chosen.provider == "own"
    options = [option for option in choose.plan(needs, none, PROBE).options if option.provider == "own"]
    assert options
    assert all("there are 0" in option.lost for option in options)


def test_files_are_read_from_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(OWN)
    brought = pricing.read([tmp_path / "own.csv"], "own", None, None)
    assert [report.source for report in brought.reports] == ["own.csv"]
    with pytest.raises(InputError, match="cannot be read"):
        pricing.read([tmp_path / "none.csv"], "own", None, None)
    assert set(offers.READERS) == {"aws", "azure", "gcp"}
