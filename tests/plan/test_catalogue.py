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
        (4, "0.9", "a vCPU, its family"),
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
