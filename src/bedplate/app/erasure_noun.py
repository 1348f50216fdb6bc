"""Erasure as a program or a command asks about it: ``Bedplate.erasure``."""

from bedplate.app.nouns import CarryOut
from bedplate.app.table_reports import ErasureReport, ExpiryReport, HoldReport


class Erasure:
    """Taking a person out of a use case, and forbidding that while a law or a dispute needs the rows."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def subject(self, use_case: str, subject: str, reason: str) -> ErasureReport:
        """Take everything of one person out of a use case; ``subject`` is the value of the columns that name them."""
        return self._carry_out("erase_subject", ErasureReport, use_case=use_case, value=subject, reason=reason)

    def expire(self, use_case: str) -> ExpiryReport:
        """Take out what is older than the file and the contracts let it be kept."""
        return self._carry_out("expire", ExpiryReport, use_case=use_case)

    def hold(self, use_case: str, reason: str) -> HoldReport:
        """Forbid to erase anything of a use case."""
        return self._carry_out("hold_erasure", HoldReport, use_case=use_case, reason=reason, on=True)

    def lift(self, use_case: str, reason: str) -> HoldReport:
        """Allow it again."""
        return self._carry_out("hold_erasure", HoldReport, use_case=use_case, reason=reason, on=False)
