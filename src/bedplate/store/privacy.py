"""How much privacy principals have spent, by use case and purpose."""

import sqlalchemy as sa

from bedplate.store.schema import privacy
from bedplate.store.sql import Repository, Upsert, param

_BEGIN = Upsert(privacy)
_MINE = (
    privacy.c.use_case == param("use_case_"),
    privacy.c.principal == param("principal_"),
    privacy.c.purpose == param("purpose_"),
)
_SPENT = sa.select(privacy.c.spent).where(*_MINE)
_SPEND = (
    sa.update(privacy)
    .where(*_MINE, privacy.c.spent + param("epsilon_") <= param("budget_"))
    .values(spent=privacy.c.spent + param("epsilon_"))
)
_SLACK = 1e-9
"""What adding up may be off by: ten times 0.1 are spent, not one too many."""


class Privacy(Repository):
    """``tx.privacy``."""

    def spend(self, use_case: str, principal: str, purpose: str, epsilon: float, *, budget: float) -> bool:
        """Spend ``epsilon`` if the budget has as much left; whether it had. Two at once never overspend it."""
        whose = {"use_case": use_case, "principal": principal, "purpose": purpose}
        self._execute(_BEGIN.on(self._connection), **whose, spent=0.0)
        named = {f"{name}_": value for name, value in whose.items()}
        return self._execute(_SPEND, **named, epsilon_=epsilon, budget_=budget + _SLACK).rowcount == 1

    def spent(self, use_case: str, principal: str, purpose: str) -> float:
        """The epsilon that is spent already."""
        found = self._execute(_SPENT, use_case_=use_case, principal_=principal, purpose_=purpose).scalar()
        return float(found or 0.0)
