"""What a contract promises over time is refused where it could not be watched or counted, with its line."""

import pytest

from bedplate.data import contracts
from bedplate.errors import ContractError
from tests.app.invoices import HEAD

SCHEMA = """
schema:
  - name: invoices
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: day, logicalType: date}
"""


@pytest.mark.parametrize(
    ("promise", "match"),
    [
        ("property: freshness, value: 2, unit: d, element: invoices.id", "no date or timestamp"),
        ("property: freshness, value: 2, unit: d", "needs the element"),
        ("property: freshness, value: -2, unit: d, element: invoices.day", "number above 0"),
        ("property: freshness, value: 2, unit: lustra, element: invoices.day", "unit is 'lustra'"),
        ("property: completeness, value: 101, unit: percent", "100 percent at most"),
        ("property: completeness, value: 75, unit: h", "unit is 'h'"),
        ("property: retention, value: 30, unit: d, element: invoices.id", "no date or timestamp"),
        ("property: retention, value: 30, unit: d, element: other.day", "no date or timestamp"),
        ("property: retention, value: 30, unit: d", "needs the element"),
        ("property: retention, value: soon, unit: d, element: invoices.day", "number above 0"),
        ("property: retention, value: 0, unit: d, element: invoices.day", "number above 0"),
        ("property: retention, value: 30, unit: fortnight, element: invoices.day", "unit is 'fortnight'"),
        ("property: retention, valu: 30, unit: d, element: invoices.day", "did you mean value"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(promise: str, match: str) -> None:
    with pytest.raises(ContractError, match=match) as raised:
        contracts.parse_contract(f"{HEAD}  - {{{promise}}}{SCHEMA}".encode(), "c")
    assert "line 8" in str(raised.value)


def test_one_that_can_be_kept_is_known() -> None:
    kept = "{property: freshness, value: 2, unit: d, element: invoices.day}"
    (freshness,) = contracts.parse_contract(f"{HEAD}  - {kept}{SCHEMA}".encode(), "c").freshness
    assert (freshness.column, freshness.seconds) == ("day", 2 * 86_400)
