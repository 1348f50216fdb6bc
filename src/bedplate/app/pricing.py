"""Prices that somebody brings: read from a provider's list, checked with the others, and kept in the home."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bedplate import files, ids
from bedplate.app import access
from bedplate.app.system import System
from bedplate.errors import InputError, IntegrityError
from bedplate.identity import Principal
from bedplate.plan import bought
from bedplate.plan.bought import Bought, Imported
from bedplate.policy import values as policy
from bedplate.settings import Home


class Bringing(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, on its way to the home."""

    rows: Bought
    reports: tuple[Imported, ...]


def read(sources: Sequence[Path], form: str, provider: str | None, date: str | None) -> Bringing:
    """Prices of some files; nothing is kept.

    Raises:
        InputError: a file cannot be read, is not of that form, or holds nothing that can be used.
    """
    rows, reports = Bought(), []
    for source in sources:
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"it cannot be read: {error}", where=str(source), fix="name a file of text") from None
        new, report = bought.read(text, source.name, form, provider, date)
        rows = bought.together(rows, new)
        reports.append(report)
    return Bringing(rows=rows, reports=tuple(reports))


def keep(system: System, principal: Principal, brought: Bringing) -> tuple[Imported, ...]:
    """Keep prices as those that plans are made from, and record it.

    Raises:
        DeniedError: policy does not let the principal administer the home.
        IntegrityError: with what was imported before, they do not pass the checks.
    """
    access.demand(system, principal, "administer", policy.HOME)
    together = bought.together(kept(system.home), brought.rows)
    digest = bought.load(together).digest
    with system.store.transaction() as tx:
        system.ledger.record(
            tx,
            actor=principal.id,
            action="home.prices",
            resource="home",
            payload={"rows": ids.digest_of(brought.rows), "catalogue": digest},
        )
        # Within the transaction: prices that could not be recorded are not planned with.
        files.write(system.home.prices, msgspec.json.encode(together))
    return brought.reports


def kept(home: Home) -> Bought:
    """What was imported so far.

    Raises:
        IntegrityError: the file is damaged.
    """
    if not home.prices.exists():
        return Bought()
    try:
        return msgspec.json.decode(home.prices.read_bytes(), type=Bought)
    except msgspec.DecodeError as error:
        raise IntegrityError(
            f"the imported prices cannot be read: {error}",
            where=str(home.prices),
            fix="remove it, and import again",
        ) from None
