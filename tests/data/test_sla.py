"""What a contract promises over time is refused where it could not be watched or counted, with its line."""

from datetime import UTC, datetime

import pytest

from bedplate.data import contract_sla, contracts
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
        ("property: frequency, value: 1, unit: d, schedule: 0 6 * *", "five fields of cron"),
        ("property: frequency, value: 1, unit: d, schedule: 61 6 * * *", "five fields of cron"),
        ("property: frequency, value: 1, unit: d, schedule: 0 0 30 2 *", "five fields of cron"),
        ("property: frequency, value: 1, unit: d, schedule: H 6 * * *", "five fields of cron"),
        ("property: frequency, value: 1, unit: d, scheduler: cron", "five fields of cron"),
        ("property: frequency, value: 1, unit: d, scheduler: airflow, schedule: daily", "use cron"),
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


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        ("", "2026-06-07T12:00:30", "2026-06-07T12:00:30"),
        ("0 6 * * 1-5", "2026-06-07T12:00:00", "2026-06-05T06:00:00"),  # a Sunday
        ("0 6 * * 1-5", "2026-06-05T06:00:00", "2026-06-05T06:00:00"),
        ("0 6 * * 1-5", "2026-06-05T05:59:59.999999", "2026-06-04T06:00:00"),
        ("*/15 * * * *", "2026-06-05T06:14:59", "2026-06-05T06:00:00"),
        ("0 0 29 2 *", "2026-06-05T06:14:59", "2024-02-29T00:00:00"),
    ],
)
def test_a_schedule_says_when_a_promise_is_judged(schedule: str, now: str, due: str) -> None:
    at, found = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (now, due))
    assert contract_sla.due(schedule, at) == found
