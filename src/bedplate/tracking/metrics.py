"""What was logged of a metric over time."""

from collections.abc import Sequence

import msgspec

from bedplate.errors import InputError
from bedplate.store import Transaction, pages
from bedplate.store.metrics import EVERYTHING, Stored


class History(msgspec.Struct, frozen=True):
    """Logged values (timestamp, step, value, whether it is NaN) in this order, and the token of the next page."""

    points: list[Stored]
    next_page_token: str | None


def history(
    tx: Transaction,
    workspace: str,
    run: str,
    key: str,
    *,
    max_results: int | None = None,
    page_token: str | None = None,
) -> History:
    """What was logged of one metric of a run; all of it unless ``max_results`` is given.

    Raises:
        InputError: count or token is not as it must be.
        NotFoundError: the workspace has no such run.
    """
    if max_results is not None and not 1 <= max_results < EVERYTHING:
        raise InputError(f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at least 1")
    query = ("history", workspace, run, key)
    after = pages.position(query, page_token)
    row = tx.runs.get(workspace, run)
    if max_results is None:
        return History(tx.metrics.history(row.key, key, after=_stored(after)), None)
    found = tx.metrics.history(row.key, key, max_results + 1, _stored(after))
    last = found[max_results - 1] if len(found) > max_results else None
    return History(found[:max_results], pages.token(query, last))


def histories(
    tx: Transaction, workspace: str, runs: Sequence[str], key: str, *, max_results: int = EVERYTHING
) -> list[tuple[str, Stored]]:
    """What was logged of one metric of several runs, by run id; runs of other workspaces are as good as none."""
    rows = [row for row in (tx.runs.find(workspace, run) for run in sorted(set(runs))) if row is not None]
    found: list[tuple[str, Stored]] = []
    for row in rows:
        if len(found) >= max_results:
            break
        values = tx.metrics.history(row.key, key, max_results - len(found))
        found += [(row.id, value) for value in values]
    return found


def sampled(
    tx: Transaction, workspace: str, runs: Sequence[str], key: str, *, steps: tuple[int, int] | None, most: int
) -> list[tuple[str, Stored]]:
    """Some of what was logged of one metric of several runs, by run id: at most about ``most`` steps of each run.

    The steps are those of all runs together, between ``steps``, thinned out evenly; first and last of each run stay.
    Runs of other workspaces are as good as none.
    """
    rows = [row for row in (tx.runs.find(workspace, run) for run in sorted(set(runs))) if row is not None]
    points = {row.id: tx.metrics.history(row.key, key) for row in rows}
    if steps is not None:
        points = {run: [p for p in values if steps[0] <= p[1] <= steps[1]] for run, values in points.items()}
    shown = _thinned(sorted({p[1] for values in points.values() for p in values}), most)
    found: list[tuple[str, Stored]] = []
    for run, values in points.items():
        ends = {min(p[1] for p in values), max(p[1] for p in values)} if values else set()
        kept = sorted((p for p in values if p[1] in shown or p[1] in ends), key=lambda p: (p[1], p[0], p[2]))
        found += [(run, point) for point in kept]
    return found


def _thinned(steps: list[int], most: int) -> set[int]:
    """At most ``most`` of the steps and the last one, evenly apart."""
    if len(steps) <= most:
        return set(steps)
    apart = len(steps) / most
    return {steps[int(number * apart)] for number in range(most)} | {steps[-1]}


def _stored(after: tuple[object, ...] | None) -> Stored | None:
    if after is None:
        return None
    try:
        stored: Stored = msgspec.convert(after, Stored)
    except msgspec.ValidationError as error:
        raise InputError("Invalid page token", fix="take the token of the page before, unchanged") from error
    return stored
