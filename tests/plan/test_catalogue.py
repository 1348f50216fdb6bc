from importlib import resources

import pytest

from bedplate.errors import IntegrityError
from bedplate.plan import catalogue

FILES = {
    name: (resources.files("bedplate.plan") / "facts" / f"{name}.csv").read_text(encoding="utf-8")
    for name in ("instances", "prices", "cpus", "regions", "services")
}


def test_it_holds_150_types_of_three_clouds_and_two_that_rent_accelerators() -> None:
    instances = catalogue.load().instances
    assert {i.provider for i in instances} == {"aws", "azure", "gcp", "lambda", "nebius"}
    for provider in ("aws", "azure", "gcp"):
        own = [i for i in instances if i.provider == provider]
        assert len({i.instance for i in own}) >= 15
        assert len({i.region for i in own if i.residency == "eu"}) >= 2
    assert len({(i.provider, i.instance) for i in instances}) >= 150
    assert len({(i.provider, i.instance) for i in instances if i.accelerator}) >= 50
    assert all(i.grid_g_kwh for i in instances)


def test_every_price_has_date_source_and_quality() -> None:
    for i in catalogue.load().instances:
        assert i.price_date
        assert i.price_source
        assert i.price_quality in ("exact", "derived", "corrected", "unverified")
        assert i.currency == "USD"


def test_the_same_files_give_the_same_digest() -> None:
    assert catalogue.build(FILES).digest == catalogue.load().digest
    changed = {**FILES, "prices": FILES["prices"] + "\n"}
    assert catalogue.build(changed).digest != catalogue.load().digest


def _fault(column: int, value: str) -> None:
    """Load with one cell of one price changed."""
    lines = FILES["prices"].splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("gcp,europe-west1,n2-standard-4,"))
    cells = lines[at].split(",", 8)
    cells[column] = value
    lines[at] = ",".join(cells)
    catalogue.build({**FILES, "prices": "\n".join(lines) + "\n"})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (4, "0", "not a price"),
        (4, "-1", "not a price"),
        (4, "", "not a price"),
        (4, "700.0", "stands for an unknown price"),
        (5, "9.9", "spot 9.9 above"),
        (5, "0.0", "not a price"),
        (4, "0.05", "no dearer than"),
        (4, "0.9", "for each vCPU, its family"),
        (4, "0.5", "times the median of its regions"),
        (3, "", "currency"),
        (3, "XYZ", "currency"),
        (6, "", "date"),
        (6, "yesterday", "date"),
        (1, "mars-north1", "no such region"),
        (2, "n2-standard-5", "no such shape"),
        (2, "n2-standard-8", "priced twice"),
    ],
)
def test_a_cell_that_cannot_be_right_is_refused(column: int, value: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        _fault(column, value)


def test_a_price_without_a_source_is_refused() -> None:
    prices = FILES["prices"].replace("karpenter-provider-azure price table (Apache-2.0)", "")
    with pytest.raises(IntegrityError, match="no source"):
        catalogue.build({**FILES, "prices": prices})


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(IntegrityError, match="quality"):
        catalogue.build({**FILES, "prices": FILES["prices"].replace(",derived\n", ",guessed\n")})


def test_a_service_whose_interval_is_upside_down_is_refused() -> None:
    services = FILES["services"].replace("aws,egress,0.09,0.05,0.09", "aws,egress,0.09,0.10,0.09")
    with pytest.raises(IntegrityError, match="does not hold"):
        catalogue.build({**FILES, "services": services})


def _row(provider: str, region: str, instance: str, price: str, spot: str, date: str = "2026-07-20") -> str:
    return f"{provider},{region},{instance},USD,{price},{spot},{date},a price list,exact"


def _with(*rows: str) -> catalogue.Catalogue:
    """The catalogue with these prices instead of its own of the same place."""
    places = {tuple(row.split(",")[:3]) for row in rows}
    kept = [line for line in FILES["prices"].splitlines() if tuple(line.split(",")[:3]) not in places]
    return catalogue.build({**FILES, "prices": "\n".join([*kept, *rows]) + "\n"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        # Committed use as on-demand: half of list, a discount of 29 %, and one below its own spot price.
        (_row("gcp", "europe-west4", "a2-highgpu-8g", "14.69", ""), "times the median"),
        (_row("gcp", "us-central1", "a2-ultragpu-8g", "14.77", "15.71"), "above 14.77"),
        # The sentinel is of one chip.
        (_row("gcp", "us-east5", "tpu-v6e-8chips", "5600.0", ""), "stands for an unknown price"),
        # The machine without its accelerators, which are another item of the list.
        (_row("gcp", "us-central1", "g2-standard-96", "3.2", ""), "for each accelerator, its family"),
        # Before the cuts of June 2025.
        (_row("aws", "us-east-1", "p4d.24xlarge", "32.77", "", "2025-05-01"), "before it was cut"),
        (_row("aws", "us-east-1", "p5.48xlarge", "98.32", "", "2024-01-01"), "before it was cut"),
        (_row("gcp", "us-central1", "n2-standard-4", "0.00", ""), "not a price"),
    ],
)
def test_what_went_wrong_in_published_lists_is_refused(row: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        _with(row)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("gcp,tpu-v5p-8,tpu-v5p,amd64,208,448,any-host,a page,exact,tpu_v5p,8,", "two cores a chip"),
        ("gcp,tpu-v5e-4,tpu-v5e,amd64,48,192,any-host,a page,exact,t4,4,", "a host of TPUs with t4"),
        ("gcp,n1-standard-8,n1,amd64,8,30,any-host,a page,exact,tpu_v5e,4,", "a host of other machines with tpu_v5e"),
    ],
)
def test_an_accelerator_on_the_wrong_host_is_refused(shape: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        catalogue.build({**FILES, "instances": FILES["instances"] + shape + "\n"})


def test_prices_of_regions_that_cost_the_same_do() -> None:
    """Tenancy once leaked from one list into another: of the same place they agree, so a plain minimum was 9 % low."""
    prices = {(i.region, i.instance): i.price_hour for i in catalogue.load().instances if i.provider == "aws"}
    east = {name: price for (region, name), price in prices.items() if region == "us-east-1"}
    both = [abs(prices["us-west-2", n] / price - 1) for n, price in east.items() if ("us-west-2", n) in prices]
    assert len(both) > 30
    assert sum(off < 0.005 for off in both) / len(both) > 0.95


def test_a_type_is_offered_only_where_it_is_said_to_be() -> None:
    """One catalogue lists every type of Lambda in every region: the price is real, that it can be had there is not."""
    assert len({i.region for i in catalogue.load().instances if i.provider == "lambda"}) == 1


def test_spot_prices_that_cannot_be_had_are_left_out_with_the_reason() -> None:
    found = {(i.region, i.instance): i for i in catalogue.load().instances if i.provider == "aws"}
    low, copied = found["us-east-1", "p4d.24xlarge"], found["ca-central-1", "p5.48xlarge"]
    assert low.spot_hour is None
    assert "11% of the list price" in low.spot_doubt
    assert copied.spot_hour is None
    assert "the list price, copied" in copied.spot_doubt
    near = found["us-west-2", "p4d.24xlarge"]
    assert near.spot_hour == pytest.approx(0.364 * near.price_hour, rel=0.01)
    assert not near.spot_doubt
