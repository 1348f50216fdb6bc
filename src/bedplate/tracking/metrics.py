"""What was logged of a metric over time."""

from collections.abc import Sequence

import msgspec

from bedplate.errors import InputError
from bedplate.store import Transaction, pages
from bedplate.store.metrics import EVERYTHING, Stored
from bedplate.store.runs import RunRow


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
    """What was logged of one metric of a run; all of it unless ``max_results`` is given. Of a run that the workspace
    does not have: nothing.

    Raises:
        InputError: count or token is not as it must be.
    """
    if max_results is not None and not 1 <= max_results < EVERYTHING:
        raise InputError(f"max_results is {max_results}, and must be at least 1")
    query = ("history", workspace, run, key)
    after = pages.position(query, page_token)
    row = tx.runs.find(workspace, run)
    if row is None:
        return History([], None)
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
    """Some of what was logged of one metric of several runs, by run id: at most ``most`` values of each run.

    They are spread evenly over the values between ``steps``, first and last included; one alone is the last. Runs of
    other workspaces are as good as none.
    """
    rows = [row for row in (tx.runs.find(workspace, run) for run in sorted(set(runs))) if row is not None]
    found: list[tuple[str, Stored]] = []
    for row in rows:
        values = tx.metrics.history(row.key, key)
        if steps is not None:
            values = [point for point in values if steps[0] <= point[1] <= steps[1]]
        values.sort(key=lambda point: (point[1], point[0], point[2], point[3]))
        found += [(row.id, point) for point in _spread(values, most)]
    return found


def newest(tx: Transaction, workspace: str, row: RunRow, key: str) -> str:
    """A token for the value that was logged last, in time; empty if there is none. :func:`since` takes it up."""
    last = tx.metrics.newest(row.key, key)
    return pages.token(_points(workspace, row, key), last) or ""


def since(tx: Transaction, workspace: str, row: RunRow, key: str, token: str, *, most: int) -> tuple[list[Stored], str]:
    """At most ``most`` values that came later, in time, than the one that ``token`` stands for; and the next token.

    Raises:
        InputError: the token is none of this metric.
    """
    query = _points(workspace, row, key)
    found = tx.metrics.history(row.key, key, most, _stored(pages.position(query, token)))
    return found, (pages.token(query, found[-1]) or "") if found else token


def _points(workspace: str, row: RunRow, key: str) -> tuple[str, ...]:
    return ("points", workspace, row.id, key)


def _spread(values: list[Stored], most: int) -> list[Stored]:
    """The first of each of ``most`` parts that are as good as equal, the last in place of the last part's."""
    if len(values) <= most:
        return values
    size, longer = divmod(len(values), most)
    kept = [values[part * size + min(part, longer)] for part in range(most)]
    kept[-1] = values[-1]
    return kept


def _stored(after: tuple[object, ...] | None) -> Stored | None:
    if after is None:
        return None
    try:
        stored: Stored = msgspec.convert(after, Stored, strict=False)  # SQLite's truth is a number
    except msgspec.ValidationError as error:
        raise pages.unfit() from error
    return stored
