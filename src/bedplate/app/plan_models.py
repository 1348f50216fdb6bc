"""What pages show of a plan that was held to what happened. Only values: :mod:`bedplate.app.actuals` fills them."""

import msgspec

from bedplate.records import Estimate


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure as it was planned and as it came, in words; ``when`` is ``training``, ``release``, or a day."""

    what: str
    when: str
    planned: str
    happened: str
    allowed: str
    verdict: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Plan, actual and value of one use case. ``spent`` is what trainings and serving cost in ``month`` so far, and
    ``planned`` what a month is to cost. ``moved``: errors of the plan that are not what they were."""

    rows: tuple[AccountRow, ...]
    month: str
    spent: float
    planned: Estimate | None
    budget: float | None
    currency: str
    moved: tuple[str, ...]
    worth: str
